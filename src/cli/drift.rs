//! `lifeboat drift`: what changed in an environment's configuration, or differs between two environments. Needs the
//! keys of a host that backs up, or a recovery identity.

use clap::Args;
use serde_json::json;

use super::EnvironmentArgument;
use super::context::Context;
use super::output::Outcome;
use super::text::{alarm, caution, counted, good, time_and_age};
use crate::config::{DriftSeverity, Environment};
use crate::configuration::drift::{self, Difference, Drift, FileDrift, MaskedExport, Rules, Side};
use crate::error::{self, Result};
use crate::evidence::LedgerEntry;
use crate::evidence::drift_record::Changed;
use crate::evidence::entry::ConfigurationExport;
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::restore::target::Target;

/// Differences of one file that are printed; JSON has them all.
const LISTED: usize = 12;

/// Longest value that is printed.
const WIDE: usize = 160;

#[derive(Debug, Args)]
#[command(after_help = "Secrets are never shown: each stands as a keyed digest, which changes when the secret does.\n\
Exit code 8: something differs that a rule calls critical ([[drift]] in the configuration).")]
pub(crate) struct Arguments {
    #[command(flatten)]
    environment: EnvironmentArgument,

    /// Compare the newest export with this one: its id, or a time with a zone (the last export before it) [default: the
    /// one before the newest]
    #[arg(long, value_name = "EXPORT|TIME", conflicts_with = "against")]
    since: Option<String>,

    /// Compare with the newest export of another environment: are they alike where they should be?
    #[arg(long, value_name = "ENV")]
    against: Option<String>,

    /// Show the changed lines of every file, not only of files whose settings are not told apart
    #[arg(long)]
    diff: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let environment = context.environment(&arguments.environment.environment)?;
    let other = arguments.against.as_deref().map(|name| context.environment(name)).transpose()?;
    if other.is_some_and(|other| other.name == environment.name) {
        return Err(error::usage(format!("{} is always like itself", environment.name))
            .hint("name another environment with --against, or an earlier export with --since"));
    }
    let repository = context.readable().await?;
    let rules = Rules { own: &context.estate.drift, environment: &environment.name };
    let entries = ledger(&repository, &environment.name).await?.entries().await?;
    let newest = export(&entries, environment, None)?;
    let now = drift::load(&repository, &environment.name, newest).await?;
    let found = match other {
        Some(other) => drift::parity(&now, &newest_of(&repository, other).await?, rules),
        None => {
            let before = export(&entries, environment, Some(arguments.since.as_deref()))?;
            drift::changes(&drift::load(&repository, &environment.name, before).await?, &now, rules)
        }
    };
    let count = |severity| found.count(severity);
    let json = json!({
        "environment": environment.name,
        "against": other.map(|other| &other.name),
        "drift": found,
        "critical": count(DriftSeverity::Critical),
        "notices": count(DriftSeverity::Notice),
        "expected": count(DriftSeverity::Expected),
        "ignored": found.ignored,
    });
    let critical = count(DriftSeverity::Critical);
    let failure = (critical > 0).then(|| {
        let what = counted(critical, "critical difference", "critical differences");
        error::check_failed(format!("{what} in the configuration of {}", environment.name))
            .meaning("a rule says that somebody must look at this; backups go on as before")
            .hint("put it right, or give it another severity: [[drift]] in the configuration, docs/configuration.md")
    });
    Ok(Outcome::new(json, describe(&found, other.is_some(), arguments.diff, context)).with_failure(failure))
}

async fn newest_of(repository: &Repository, environment: &Environment) -> Result<MaskedExport> {
    let entries = ledger(repository, &environment.name).await?.entries().await?;
    drift::load(repository, &environment.name, export(&entries, environment, None)?).await
}

/// The newest export; with `Some(None)` the one before it; with a text the one that it names, or the last before that time.
fn export<'e>(
    entries: &'e [LedgerEntry],
    environment: &Environment,
    since: Option<Option<&str>>,
) -> Result<&'e ConfigurationExport> {
    let mut exports = drift::newest(entries);
    let missing = |what: String| {
        error::usage(what)
            .meaning("there is nothing to compare, so nothing is said about drift")
            .hint(format!("`lifeboat backup configuration -e {}` takes an export", environment.name))
    };
    let Some(newest) = exports.next() else {
        return Err(missing(format!("{} has no configuration export", environment.name)));
    };
    match since {
        None => Ok(newest),
        Some(None) => {
            exports.next().ok_or_else(|| missing(format!("{} has one configuration export only", environment.name)))
        }
        Some(Some(text)) => {
            if let Some(named) = drift::newest(entries).find(|export| export.id == text) {
                return Ok(named);
            }
            let at = match text.parse::<Target>() {
                Ok(Target::Time(at)) => at,
                Err(e) if e.what_it_means().is_some() => return Err(e),
                _ => {
                    let known: Vec<&str> = drift::newest(entries).take(5).map(|e| e.id.as_str()).collect();
                    return Err(error::usage(format!(
                        "\"{text}\" is neither an export of {} nor a time",
                        environment.name
                    ))
                    .hint(format!("the newest exports: {}", known.join(", ")))
                    .hint("a time looks like \"2026-11-22 20:35:00+01:00\""));
                }
            };
            let before = drift::newest(entries).find(|export| export.taken_at <= at);
            before
                .ok_or_else(|| missing(format!("{} has no configuration export from before {text}", environment.name)))
        }
    }
}

fn describe(drift: &Drift, parity: bool, all: bool, context: &Context) -> String {
    let now = context.runtime.now();
    let side =
        |side: &Side| format!("{}, export {}, {}", side.environment, side.export, time_and_age(now, side.taken_at));
    let (before, after) = if parity { ("this: ", "other:") } else { ("before:", "now:   ") };
    let mut text = format!("{before} {}\n{after} {}\n", side(&drift.from), side(&drift.to));
    if drift.is_empty() {
        text += &good(if parity { "no difference that a rule does not ignore" } else { "nothing changed" });
        return text + &ignored(drift);
    }
    text += &format!(
        "{} critical, {} to note, {} expected{}\n",
        drift.count(DriftSeverity::Critical),
        drift.count(DriftSeverity::Notice),
        drift.count(DriftSeverity::Expected),
        ignored(drift)
    );
    for file in &drift.files {
        text += &describe_file(file, parity, all);
    }
    text
}

fn ignored(drift: &Drift) -> String {
    if drift.ignored == 0 { String::new() } else { format!(", {} ignored", drift.ignored) }
}

fn describe_file(file: &FileDrift, parity: bool, all: bool) -> String {
    let mut text = format!("\n{} {}\n", word(file.severity), file.file);
    for difference in file.differences.iter().take(LISTED) {
        text += &format!("  {}\n", describe_difference(difference, parity));
    }
    if let Some(more) = file.differences.len().checked_sub(LISTED).filter(|more| *more > 0) {
        text += &format!("  … and {more} more; `--format json` names all\n");
    }
    let untold = file.differences.iter().any(|difference| difference.setting.is_none());
    if let Some(diff) = file.diff.as_ref().filter(|_| all || untold) {
        for line in diff.lines() {
            text += &format!("    {line}\n");
        }
    }
    text
}

fn word(severity: DriftSeverity) -> String {
    match severity {
        DriftSeverity::Critical => alarm("CRITICAL"),
        DriftSeverity::Notice => caution("notice"),
        DriftSeverity::Expected | DriftSeverity::Ignored => "expected".to_owned(),
    }
}

fn describe_difference(difference: &Difference, parity: bool) -> String {
    let what = match (difference.change, parity) {
        (Changed::Added, false) => "added",
        (Changed::Removed, false) => "removed",
        (Changed::Added, true) => "only there",
        (Changed::Removed, true) => "only here",
        (Changed::Changed, _) => "differs",
        (Changed::Unreadable, _) => "cannot be read now",
        (Changed::Shared, _) => "the same secret in both",
    };
    let mut text = match (&difference.setting, &difference.before, &difference.after) {
        (_, Some(setting), _) if difference.change == Changed::Shared => format!("{setting}: {what}"),
        (Some(setting), Some(before), Some(after)) => format!("{setting}: {} → {}", short(before), short(after)),
        (Some(setting), None, Some(after)) => format!("{setting}: {what}, {}", short(after)),
        (Some(setting), Some(before), None) => format!("{setting}: {what}, {}", short(before)),
        (Some(setting), None, None) => format!("{setting} {what}"),
        (None, ..) => what.to_owned(),
    };
    if let Some(why) = &difference.why {
        text += &format!(" – {why}");
    }
    text
}

/// A value on one line.
fn short(value: &str) -> String {
    let line = value.replace('\n', "⏎");
    match line.char_indices().nth(WIDE) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None if line.is_empty() => "(empty)".to_owned(),
        None => line,
    }
}
