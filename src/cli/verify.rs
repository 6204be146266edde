//! `lifeboat verify`.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::output::Outcome;
use super::text::{alarm, counted, good, time};
use crate::error::{self, Error, ErrorKind, Result};
use crate::postgres::wal_verify::Judge;
use crate::repository::Repository;
use crate::repository::descriptor::Descriptor;
use crate::repository::verify::{self, Report, WalJudge};
use crate::storage::Store;
use crate::units::{ByteSize, Span};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the environment
    #[arg(short, long = "environment", value_name = "ENV")]
    environment: String,
    /// Read every pack and every WAL file, and open them where a recovery identity is configured
    #[arg(long)]
    deep: bool,
}

/// Verifies an environment; damage is exit code 6.
pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let environment = &context.environment(&arguments.environment)?.name;
    let store = context.store().await?;
    exists(&store).await?;
    let (repository, identity_trouble) = open(context, &store).await?;
    let mut judge = Judge::default();
    let judge: Option<&mut dyn WalJudge> = if arguments.deep { Some(&mut judge) } else { None };
    let report = verify::verify(&repository, environment, judge, identity_trouble, &context.runtime).await?;
    let failure = (!report.ok).then(|| {
        let found = counted(report.problems.len() as u64, "problem", "problems");
        error::integrity(format!("{environment} in {}: {found}", store.url()))
            .meaning("what is listed under each problem cannot be restored; everything else can")
            .hint("restore damaged or missing objects from the bucket's object versions or a copy: names and hashes tell whether they are the right ones")
            .hint(format!("if that cannot be done, take a new base backup now: `lifeboat backup all -e {environment}`"))
    });
    Ok(Outcome::new(json!({ "verify": report }), text(&report)).with_failure(failure))
}

/// A repository whose descriptor is gone is damaged, not absent.
async fn exists(store: &Store) -> Result<()> {
    if Descriptor::find(store).await?.is_some() {
        return Ok(());
    }
    let (objects, folders) = store.list_folder("").await?;
    if objects.is_empty() && folders.is_empty() {
        return Err(error::repository(format!("there is no repository in {}", store.url()))
            .hint("run `lifeboat init` to make one, or correct `[repository] url`"));
    }
    Err(error::integrity(format!("lifeboat.json is missing in {}, which holds {}", store.url(), folders.join(", ")))
        .meaning(
            "without it nobody knows which keys to trust and nothing can be read; the backups themselves may be whole",
        )
        .hint("put lifeboat.json back from the bucket's object versions or a copy"))
}

/// Opens the repository with every key at hand. Where the recovery identity, which is one of the
/// configured recipients, does not open the epoch's key object, that object is damaged: the rest can
/// still be verified with the index key.
async fn open(context: &Context, store: &Store) -> Result<(Repository, Option<String>)> {
    let state = context.state_dir();
    let recovery = context.recovery()?;
    let refused = match Repository::open(store, &state, recovery.as_ref()).await {
        Ok(repository) => return Ok((repository, None)),
        Err(refused) => refused,
    };
    let recipient = recovery.is_some_and(|r| r.recipients().iter().any(|r| context.estate.keys.recipients.contains(r)));
    match (refused.kind(), recipient) {
        (ErrorKind::Denied | ErrorKind::Integrity, true) => {}
        _ => return Err(refused),
    }
    let trouble = format!("does not open with the configured recovery identity: {}", refused.message());
    match Repository::open(store, &state, None).await {
        Ok(repository) => Ok((repository, Some(trouble))),
        // This host has nothing but the identity.
        Err(_) => Err(damaged_key(refused)),
    }
}

fn damaged_key(refused: Error) -> Error {
    error::integrity("the repository's key object does not open with a recovery identity that is one of its recipients")
        .meaning("it is damaged or was replaced, or `[keys] recipients` lists a key that was added later")
        .hint("restore keys/ from the bucket's object versions or a copy")
        .source(refused)
}

fn text(report: &Report) -> String {
    let checked = &report.checked;
    let how = if report.deep { "every byte" } else { "ledger, metadata and listings" };
    let mut text = match report.ok {
        true => format!("{} {}: nothing is missing or damaged ({how})\n", good("sound:"), report.environment),
        false => format!(
            "{} {}: {} ({how})\n",
            alarm("DAMAGED:"),
            report.environment,
            counted(report.problems.len() as u64, "problem", "problems")
        ),
    };
    for problem in &report.problems {
        text += &format!("\n  {}\n    {}\n", alarm(&problem.object), problem.what);
        for affected in &problem.affects {
            text += &format!("    → {affected}\n");
        }
    }
    if !report.ok {
        text.push('\n');
    }
    let ledger = &report.ledger;
    text += &format!("ledger: {} of {} sound", ledger.sound, counted(ledger.entries, "entry", "entries"));
    if let Some(last) = ledger.last_time {
        text += &format!(", the last of {}", time(last));
    }
    text += &format!(
        "\nmetadata: {} read\npacks: {} ({}){}\nWAL: {} ({}){}\n",
        counted(checked.meta_objects, "object", "objects"),
        checked.packs,
        ByteSize(checked.pack_bytes),
        read(report.deep, checked.packs_read),
        counted(checked.wal_files, "file", "files"),
        ByteSize(checked.wal_bytes),
        read(report.deep, checked.wal_read),
    );
    if report.opened {
        text += &format!(
            "opened: {}, every seal held or is listed above\n",
            counted(checked.frames_opened, "frame", "frames")
        );
    }
    let (objects, bytes) = report.unreferenced;
    if objects > 0 {
        text += &format!(
            "unreferenced: {} ({}), left by interrupted backups or a backup that is running; harmless\n",
            counted(objects, "object", "objects"),
            ByteSize(bytes)
        );
    }
    for note in &report.notes {
        text += &format!("note: {note}\n");
    }
    let took = std::time::Duration::try_from_secs_f64(report.seconds).unwrap_or_default();
    text += &format!("took {}", Span(took));
    if report.deep {
        text += &format!(", {} read", ByteSize(checked.bytes_read));
    }
    text
}

fn read(deep: bool, count: u64) -> String {
    if deep { format!(", {count} read") } else { String::new() }
}
