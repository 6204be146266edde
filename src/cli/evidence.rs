//! `lifeboat evidence verify` and `lifeboat evidence show`: what an auditor runs. Needs a copy of the
//! repository (or access to it) and nothing else: no key, no state directory, no configuration.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::output::Outcome;
use super::text::{Table, alarm, counted, good, time};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::evidence::{Ledger, Trust, TrustedKey, VerifyReport, summary, verify_ledger};
use crate::repository::descriptor::{Descriptor, trusted_signers};
use crate::runtime::Runtime;
use crate::storage::{self, Location, Store};
use crate::vault::VerifyingKey;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check every signature, link and place in an environment's ledger, with public keys only
    Verify(Which),
    /// List what the ledger says, or print one entry as it was signed
    Show {
        #[command(flatten)]
        which: Which,
        /// Print the whole statement of this entry
        #[arg(long, value_name = "N")]
        sequence: Option<u64>,
    },
}

/// Which ledger.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Name of the environment
    #[arg(short, long = "environment", value_name = "ENV")]
    environment: String,
    /// Look into this repository, a folder or a URL, without any configuration file
    #[arg(long, value_name = "URL|PATH")]
    repository: Option<String>,
    /// Accept signatures of this public key only (base64, as in lifeboat.json); may be repeated
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
}

/// A ledger and those whose signatures count in it.
struct Source {
    store: Store,
    descriptor: Descriptor,
    trust: Trust,
}

/// Runs a subcommand.
pub(crate) async fn run(command: &Command, file: Option<&Path>, runtime: Runtime) -> Result<Outcome> {
    match command {
        Command::Verify(which) => verify(which, &source(which, file, runtime).await?).await,
        Command::Show { which, sequence } => show(which, &source(which, file, runtime).await?, *sequence).await,
    }
}

async fn source(which: &Which, file: Option<&Path>, runtime: Runtime) -> Result<Source> {
    let store = match &which.repository {
        Some(place) => storage::open(&location(place)?, &runtime).await?,
        None => {
            let context = Context::load(file, runtime)?;
            context.environment(&which.environment)?;
            context.store().await?
        }
    };
    let descriptor = Descriptor::find(&store).await?.ok_or_else(|| {
        error::repository(format!("there is no lifeboat.json in {}", store.url()))
            .meaning("without it nobody knows whose signatures count")
            .hint("name the folder or URL that holds lifeboat.json, keys/ and the environments")
    })?;
    let signers = trusted_signers(&store, &descriptor).await?;
    let known = signers.into_iter().map(|s| TrustedKey { key: s.key, name: s.name });
    let keys = match which.keys.is_empty() {
        true => known.collect(),
        false => handed(&which.keys, &known.collect::<Vec<_>>())?,
    };
    Ok(Source { store, descriptor, trust: Trust::new(keys) })
}

/// The keys that the auditor was handed, with the names that the repository has for them.
fn handed(keys: &[String], known: &[TrustedKey]) -> Result<Vec<TrustedKey>> {
    let one = |text: &String| {
        let key = VerifyingKey::try_from(text.clone())
            .map_err(|_| error::usage(format!("\"{text}\" is no public key: 32 bytes in base64")))?;
        let name = known.iter().find(|k| k.key == key).map_or("a key that was given", |k| &k.name).to_owned();
        Ok(TrustedKey { key, name })
    };
    keys.iter().map(one).collect()
}

/// A URL, or a path of a folder.
fn location(place: &str) -> Result<Location> {
    if place.contains("://") {
        return Ok(Location::new(place));
    }
    let path = std::path::absolute(place).or_err(ErrorKind::Usage, || format!("\"{place}\" is no path"))?;
    let url = url::Url::from_file_path(&path)
        .map_err(|()| error::usage(format!("{} is neither a folder nor a URL", path.display())))?;
    Ok(Location::new(url))
}

async fn verify(which: &Which, source: &Source) -> Result<Outcome> {
    let id = &source.descriptor.repository;
    let report = verify_ledger(&source.store, &which.environment, id, &source.trust).await?;
    if report.entries == 0 && report.ok {
        return Err(empty(which, &source.store));
    }
    let failure = (!report.ok).then(|| {
        let found = counted(report.problems.len() as u64, "problem", "problems");
        error::integrity(format!("the ledger of {} in {}: {found}", which.environment, source.store.url()))
            .meaning("the record of what was backed up, restored and drilled was damaged or tampered with")
            .hint("compare with an older copy of the repository, or with the bucket's object versions")
    });
    let mut text = text(&report);
    if which.keys.is_empty() {
        text += "whose signatures count was read from the repository itself; with `--key` only a key that you were handed does\n";
    }
    let json = json!({ "ledger": report, "keys_given": !which.keys.is_empty() });
    Ok(Outcome::new(json, text).with_failure(failure))
}

fn text(report: &VerifyReport) -> String {
    let mut text = match report.ok {
        true => format!(
            "{} every one of the {} of {} is signed, in its place and linked to the one before\n",
            good("proven:"),
            counted(report.entries, "entry", "entries"),
            report.environment
        ),
        false => format!(
            "{} the ledger of {} is not what was signed: {} of {} sound\n",
            alarm("NOT PROVEN:"),
            report.environment,
            report.sound,
            counted(report.entries, "entry", "entries")
        ),
    };
    for problem in &report.problems {
        let place = problem.sequence.map_or_else(|| "ledger".to_owned(), |n| format!("entry {n}"));
        text += &format!("  {} {}\n", alarm(&format!("{place}:")), problem.what);
    }
    for finding in &report.findings {
        text += &format!("  note: {}\n", finding.what);
    }
    text += &format!("repository {}\n", report.repository);
    if let (Some(first), Some(last)) = (report.first_time, report.last_time) {
        text += &format!("recorded from {} to {}\n", time(first), time(last));
    }
    for signer in &report.signers {
        let entries = counted(signer.entries, "entry", "entries");
        text += &format!("signed by {} (key {}): {entries}\n", signer.name, signer.key_id);
    }
    if let Some(checkpoint) = &report.checkpoint {
        let entries = counted(checkpoint.size, "entry", "entries");
        text += &format!("checkpoint over {entries}, root {}, key {}\n", checkpoint.root, checkpoint.signer);
    }
    text
}

async fn show(which: &Which, source: &Source, sequence: Option<u64>) -> Result<Outcome> {
    let id = &source.descriptor.repository;
    let ledger = Ledger::new(source.store.clone(), &which.environment, id, source.trust.clone());
    let reading = ledger.read().await?;
    let failure = reading.problems.first().map(|first| {
        let found = counted(reading.problems.len() as u64, "problem", "problems");
        let place = first.sequence.map_or_else(String::new, |n| format!("entry {n}: "));
        error::integrity(format!("the ledger of {}: {found}; the first: {place}{}", which.environment, first.what))
            .hint(format!("run `lifeboat evidence verify -e {}` to see everything that is wrong", which.environment))
    });
    if let Some(sequence) = sequence {
        let entry = reading.entries.iter().find(|e| e.sequence == sequence).ok_or_else(|| {
            failure.unwrap_or_else(|| {
                error::usage(format!(
                    "the ledger of {} has no entry {sequence}; it has {}",
                    which.environment,
                    reading.entries.len()
                ))
            })
        })?;
        let json = json!({
            "sequence": entry.sequence,
            "sha256": entry.sha256,
            "signers": entry.signers,
            "statement": entry.statement,
        });
        let text = format!("{json:#}");
        return Ok(Outcome::new(json, text));
    }
    if reading.found == 0 && failure.is_none() {
        return Err(empty(which, &source.store));
    }
    let rows = summary::rows(&reading.entries);
    let mut table = Table::new(&[">no.", "recorded", "kind", "what happened"]);
    for row in &rows {
        let what = if row.bad { alarm(&row.summary) } else { row.summary.clone() };
        table.row(vec![row.sequence.to_string(), time(row.recorded_at), row.kind.replace('_', " "), what]);
    }
    Ok(Outcome::new(json!({ "entries": rows, "problems": reading.problems }), table.text("")).with_failure(failure))
}

fn empty(which: &Which, store: &Store) -> crate::Error {
    error::repository(format!("there is no ledger of {} in {}", which.environment, store.url()))
        .meaning("nothing was ever recorded for that environment, or it was removed with its checkpoint")
        .hint("the first backup begins the ledger; check the environment's name")
}
