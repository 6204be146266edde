//! `lifeboat backup base|filestore|configuration|all`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::EnvironmentArgument;
use super::context::{Context, Keys};
use super::output::Outcome;
use super::text::alarm;
use crate::config::{DriftSeverity, Environment, ReaderMode};
use crate::configuration::ChangeKind;
use crate::configuration::store::{self, Exported};
use crate::error::{Error, ErrorKind, Result};
use crate::evidence::entry::{Baseline, Collection};
use crate::filestore::capture::{self, Captured, Damage};
use crate::postgres::backup::{self, BaseOptions};
use crate::repository::Repository;
use crate::units::{ByteSize, Span};

/// More lines than this of one kind are left to the JSON form.
const SHOWN: usize = 20;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy the whole PostgreSQL cluster, with the WAL that makes the copy consistent
    Base(BaseArguments),
    /// Capture the attachments of every Odoo database: what is new is stored, nothing is deleted
    Filestore(EnvironmentArgument),
    /// Export the configuration of PostgreSQL, Odoo and what stands around them
    Configuration(EnvironmentArgument),
    /// All three, in this order; one that fails does not stop the others
    All(EnvironmentArgument),
}

#[derive(Debug, Args)]
pub(crate) struct BaseArguments {
    #[command(flatten)]
    which: EnvironmentArgument,
    /// Store everything, instead of only what changed since the previous base backup. Each backup can be
    /// restored by itself either way
    #[arg(long)]
    full: bool,
    /// How to read the cluster, whatever the configuration says
    #[arg(long, value_enum, value_name = "HOW")]
    reader: Option<ReaderArgument>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReaderArgument {
    /// Directly where the data directory can be read on this host, else streamed
    Auto,
    /// The files of the data directory, by several threads
    Direct,
    /// BASE_BACKUP, through the server
    Streamed,
}

impl From<ReaderArgument> for ReaderMode {
    fn from(argument: ReaderArgument) -> Self {
        match argument {
            ReaderArgument::Auto => Self::Auto,
            ReaderArgument::Direct => Self::Direct,
            ReaderArgument::Streamed => Self::Streamed,
        }
    }
}

pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    let (Command::Base(BaseArguments { which, .. })
    | Command::Filestore(which)
    | Command::Configuration(which)
    | Command::All(which)) = command;
    let environment = context.environment(&which.environment)?;
    let repository = context.repository(Keys::Write).await?;
    match command {
        Command::Base(arguments) => {
            base(context, &repository, environment, arguments.options(context, environment)).await
        }
        Command::Filestore(_) => filestore(context, &repository, environment).await,
        Command::Configuration(_) => configuration(context, &repository, environment).await,
        Command::All(_) => all(context, &repository, environment).await,
    }
}

impl BaseArguments {
    fn options(&self, context: &Context, environment: &Environment) -> BaseOptions {
        let default = default_options(context, environment);
        BaseOptions { reader: self.reader.map(ReaderMode::from), full: self.full, ..default }
    }
}

fn default_options(context: &Context, environment: &Environment) -> BaseOptions {
    let state_dir = Some(context.state_dir());
    let checks = context.estate.checks_for(environment).cloned().collect();
    BaseOptions { reader: None, full: false, level: context.level(), state_dir, checks }
}

async fn base(
    context: &Context,
    repository: &Repository,
    environment: &Environment,
    options: BaseOptions,
) -> Result<Outcome> {
    let done = backup::base(repository, environment, options, &context.runtime).await?;
    let entry = &done.entry;
    let mut text = format!(
        "base backup {} of {}: {} in {} files, {} stored, {}\n\
         {}; {}\n\
         consistent from {} on; WAL {} to {} is in the repository\n\
         recorded as entry {} of the ledger",
        entry.id,
        environment.name,
        ByteSize(entry.logical_bytes),
        entry.files,
        ByteSize(entry.stored_bytes),
        Span(Duration::from_secs_f64(entry.seconds)),
        match entry.reader.as_str() {
            "direct" => "files read directly",
            _ => "read through the server",
        },
        match &entry.previous {
            Some(id) => format!("complete in itself: what had not changed since {id} was not stored again"),
            None => "everything was stored".to_owned(),
        },
        entry.stop_lsn,
        entry.wal.first,
        entry.wal.last,
        done.appended.sequence,
    );
    if let Some(baseline) = &entry.baseline {
        text += &baseline_text(baseline);
    }
    for block in entry.damaged.iter().take(SHOWN) {
        text += &format!("\ndamaged at the source: {block}");
    }
    let json = json!({ "base_backup": entry, "ledger": done.appended });
    Ok(Outcome::new(json, text).with_failure(done.failure()))
}

fn baseline_text(baseline: &Baseline) -> String {
    let mut text = match baseline.lsn {
        Some(lsn) => format!(
            "\nbaseline: {} answers of {} at {lsn}; drills compare with them",
            baseline.checks,
            baseline.databases.join(", ")
        ),
        None => "\nno baseline: drills cannot compare with the source at this backup".to_owned(),
    };
    if let Some(reason) = &baseline.reason {
        text += &format!(" ({reason})");
    }
    text
}

async fn filestore(context: &Context, repository: &Repository, environment: &Environment) -> Result<Outcome> {
    let outcomes = capture::all(repository, environment, context.level(), &context.runtime).await?;
    let (mut text, mut captures, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let mut failures = Vec::new();
    for outcome in outcomes {
        match outcome.result {
            Ok(done) => {
                text.push(captured_text(&done));
                captures.push(captured_json(&done));
                failures.extend(done.failure());
            }
            Err(failure) => {
                let database = outcome.database.as_deref().unwrap_or("every database");
                text.push(format!("filestore of {database}: not captured"));
                failed.push(json!({ "database": outcome.database, "error": failure.message() }));
                failures.push(failure);
            }
        }
    }
    let json = json!({ "filestore_captures": captures, "failed": failed });
    Ok(Outcome::new(json, text.join("\n")).with_failure(together(failures)))
}

fn captured_json(done: &Captured) -> Value {
    json!({
        "filestore_capture": done.entry,
        "ledger": done.appended,
        "new_packs": done.new_packs,
        "stored_bytes": done.stored_bytes,
        "damage": done.damage,
        "lost_at_source": done.lost_at_source,
    })
}

fn captured_text(done: &Captured) -> String {
    let entry = &done.entry;
    let mut text = format!(
        "filestore of {}: {} files, {} new ({}, {} stored), {} gone at the source and kept here\n\
         {} files that its attachments refer to at {} ({}) {}\n\
         recorded as entry {} of the ledger",
        entry.database,
        entry.files_present,
        entry.files_new,
        ByteSize(entry.bytes_new),
        ByteSize(done.stored_bytes),
        entry.files_disappeared,
        entry.referenced,
        entry.restore_point.lsn,
        entry.restore_point.name,
        if entry.complete { "can be restored" } else { "can be restored, but for those named below" },
        done.appended.sequence,
    );
    if let Some(collection) = &entry.collection {
        text += &collected_text(collection);
    }
    if !entry.not_covered.is_empty() {
        text += "\nNOT COVERED, because their content is outside database and filestore:";
        for elsewhere in &entry.not_covered {
            text += &format!("\n  {elsewhere}");
        }
    }
    let list = |title: &str, damage: &[&Damage]| -> String {
        let mut lines = format!("\n{title}");
        for d in damage.iter().take(SHOWN) {
            let who = d.attachment.as_ref().map_or("no attachment needs it".into(), |a| format!("needed by {a}"));
            lines += &format!("\n  {}: {}; {who}", d.file, d.reason);
        }
        if damage.len() > SHOWN {
            lines += &format!("\n  … and {} more; `--format json` names all", damage.len() - SHOWN);
        }
        lines
    };
    let (needed, idle): (Vec<&Damage>, Vec<&Damage>) = done.damage.iter().partition(|d| d.attachment.is_some());
    if !needed.is_empty() {
        text += &list("damaged at the source:", &needed);
    }
    if !idle.is_empty() {
        text +=
            &list("damaged at the source, and of no use to the database (often left by an interrupted upload):", &idle);
    }
    if !done.lost_at_source.is_empty() {
        let lost: Vec<&Damage> = done.lost_at_source.iter().collect();
        text += &list("lost at the source and still here; `lifeboat restore` brings them back:", &lost);
    }
    text
}

/// What came and went between captures.
fn collected_text(collection: &Collection) -> String {
    let mut text = String::new();
    if collection.watched > 0 {
        let gone = match collection.watched_gone {
            0 => String::new(),
            n => format!(", {n} of which are gone at the source already"),
        };
        text += &format!("\n{} files were stored by the watcher since the previous capture{gone}", collection.watched);
    }
    if collection.unseen > 0 {
        text += &format!("\n{} files were seen and gone before they could be read", collection.unseen);
    }
    if let Some(n) = collection.short_lived.filter(|n| *n > 0 && collection.watched == 0) {
        text += &format!(
            "\nat most {n} attachments came and went since the previous capture; `lifeboat filestore watch` stores such files"
        );
    }
    if collection.candidates > 0 {
        let due = collection.due.map(|at| format!(", due {}", at.format("%Y-%m-%d %H:%M UTC"))).unwrap_or_default();
        text += &format!("\n{} files are marked for Odoo's next garbage collection{due}", collection.candidates);
    }
    text
}

async fn configuration(context: &Context, repository: &Repository, environment: &Environment) -> Result<Outcome> {
    let path = std::env::var_os("PATH");
    let done = store::export(
        repository,
        environment,
        &context.estate.drift,
        context.level(),
        path.as_deref(),
        &context.runtime,
    )
    .await?;
    let json = json!({
        "configuration_export": done.entry,
        "ledger": done.appended,
        "changes": done.changes,
        "compared_with": done.compared_with,
        "drift": done.drift,
        "stored_bytes": done.stored_bytes,
    });
    Ok(Outcome::new(json, exported_text(&done, &environment.name)).with_failure(done.failure()))
}

fn exported_text(done: &Exported, environment: &str) -> String {
    let entry = &done.entry;
    let mut text = format!(
        "configuration export {} of {environment}: {} in {} files, {} stored\n",
        entry.id,
        ByteSize(entry.bytes),
        entry.files,
        ByteSize(done.stored_bytes)
    );
    match (&done.compared_with, done.changes.as_slice()) {
        (None, _) => text += "the first export: there is nothing to compare it with\n",
        (Some(before), []) => text += &format!("nothing changed since export {before}\n"),
        (Some(before), changes) => {
            text += &format!("changed since export {before}:\n");
            for change in changes.iter().take(SHOWN) {
                let kind = match change.kind {
                    ChangeKind::Added => "added",
                    ChangeKind::Removed => "removed",
                    ChangeKind::Changed => "changed",
                    ChangeKind::Unreadable => "cannot be read now",
                };
                text += &format!("  {}: {kind}\n", change.name);
            }
            if changes.len() > SHOWN {
                text += &format!("  … and {} more; `--format json` names all\n", changes.len() - SHOWN);
            }
        }
    }
    for (file, difference) in
        done.drift.iter().flat_map(|d| d.differences()).take_while(|(_, d)| d.severity == DriftSeverity::Critical)
    {
        let setting = difference.setting.as_ref().map(|setting| format!("{setting} in ")).unwrap_or_default();
        let why = difference.why.as_ref().map(|why| format!(" – {why}")).unwrap_or_default();
        text += &format!("  {}\n", alarm(&format!("{setting}{file}{why}")));
    }
    text + &format!("recorded as entry {} of the ledger", done.appended.sequence)
}

/// Everything, whatever fails: a base backup is worth having without its filestore, and the reverse.
/// The base backup comes first, so that the captures after it complete it.
async fn all(context: &Context, repository: &Repository, environment: &Environment) -> Result<Outcome> {
    let mut fields = serde_json::Map::new();
    let (mut text, mut failures) = (Vec::new(), Vec::new());
    let mut note = |part: &str, result: Result<Outcome>| match result {
        Ok(outcome) => {
            text.push(outcome.text);
            failures.extend(outcome.failure);
            fields.insert(part.to_owned(), outcome.json);
        }
        Err(failure) => {
            text.push(format!("{part}: failed"));
            fields.insert(part.to_owned(), json!({ "failed": failure.message() }));
            failures.push(failure);
        }
    };
    let options = default_options(context, environment);
    note("base", base(context, repository, environment, options).await);
    if environment.odoo.is_empty() {
        note("filestore", Ok(Outcome::new(Value::Null, "the environment lists no Odoo, so there is no filestore")));
    } else {
        note("filestore", filestore(context, repository, environment).await);
    }
    note("configuration", configuration(context, repository, environment).await);
    Ok(Outcome::new(Value::Object(fields), text.join("\n\n")).with_failure(together(failures)))
}

/// One failure that speaks for all: the worst gives its class, and what each says is kept.
fn together(mut failures: Vec<Error>) -> Option<Error> {
    failures.sort_by_key(|f| std::cmp::Reverse(weight(f.kind())));
    if failures.len() < 2 {
        return failures.pop();
    }
    let texts: Vec<String> = failures.iter().map(Error::message).collect();
    let mut joined = Error::new(failures[0].kind(), texts.join("; and "));
    let mut meanings: Vec<&str> = failures.iter().filter_map(Error::what_it_means).collect();
    meanings.dedup();
    if !meanings.is_empty() {
        joined = joined.meaning(meanings.join("; "));
    }
    let mut hints: Vec<&String> = Vec::new();
    for hint in failures.iter().flat_map(Error::hints) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    Some(hints.into_iter().fold(joined, |error, hint| error.hint(hint)))
}

/// How bad a class of failure is for backups: partial is the mildest, doubt about stored data the worst.
fn weight(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Absent | ErrorKind::Partial => 0,
        ErrorKind::ObjectiveMissed | ErrorKind::CheckFailed | ErrorKind::NotRecoverable => 1,
        ErrorKind::Usage | ErrorKind::Config | ErrorKind::Source | ErrorKind::Denied => 2,
        ErrorKind::Repository => 3,
        ErrorKind::Internal => 4,
        ErrorKind::Integrity => 5,
        ErrorKind::Interrupted => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error;

    #[test]
    fn the_worst_failure_decides_and_none_is_forgotten() {
        assert!(together(Vec::new()).is_none());
        let one = together(vec![error::partial("a")]).expect("one");
        assert_eq!((one.kind(), one.message().as_str()), (ErrorKind::Partial, "a"));
        let failures = vec![
            error::partial("a").hint("same"),
            error::source("b").hint("same").meaning("m"),
            error::partial("c").hint("other"),
        ];
        let all = together(failures).expect("three");
        assert_eq!((all.kind(), all.message().as_str()), (ErrorKind::Source, "b; and a; and c"));
        assert_eq!((all.hints(), all.what_it_means()), (["same".to_owned(), "other".to_owned()].as_slice(), Some("m")));
    }
}
