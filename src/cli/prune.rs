//! `lifeboat prune`.

use clap::Args;
use serde_json::json;

use super::context::{Context, Keys};
use super::output::Outcome;
use super::text::{Table, alarm, caution, counted, time};
use crate::config::Environment;
use crate::error::{self, Error, Result};
use crate::repository::Repository;
use crate::repository::retention::report::Point;
use crate::repository::retention::rules::Kind;
use crate::repository::retention::{self, Options, Report};
use crate::units::{ByteSize, Span};

/// Recovery points of one kind that are listed; of more, the number is told.
const LISTED: usize = 60;

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub(crate) struct Arguments {
    /// Name of the environment
    #[arg(short, long = "environment", value_name = "ENV", group = "which")]
    environment: Option<String>,
    /// Every environment of the estate
    #[arg(long, group = "which")]
    all: bool,
    /// Tell what would stay, what would go and why; change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Prunes; a failure in one environment does not keep the others from their turn.
pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let environments: Vec<&Environment> = match &arguments.environment {
        Some(name) => vec![context.environment(name)?],
        None => context.estate.environments.iter().collect(),
    };
    let repository = context.repository(Keys::Write).await?;
    let (mut reports, mut text, mut failure) = (Vec::new(), String::new(), None);
    for environment in environments {
        match one(&repository, environment, arguments.dry_run, context).await {
            Ok(report) => {
                text += &describe(&report);
                failure = failure.or_else(|| damage(&report));
                reports.push(json!(report));
            }
            Err(e) if arguments.environment.is_some() => return Err(e),
            Err(e) => {
                text += &format!("{}: {}\n", environment.name, alarm(&e.message()));
                reports.push(json!({ "environment": environment.name, "error": e.message() }));
                failure = failure.or(Some(e.context(&environment.name)));
            }
        }
    }
    Ok(Outcome::new(json!({ "prune": reports }), text).with_failure(failure))
}

async fn one(repository: &Repository, environment: &Environment, dry_run: bool, context: &Context) -> Result<Report> {
    let rules = environment.retention.as_ref();
    retention::prune(repository, &environment.name, rules, Options { dry_run }, &context.runtime).await
}

/// Damage that the marking came upon.
fn damage(report: &Report) -> Option<Error> {
    let first = report.damaged.first()?;
    Some(
        error::integrity(format!(
            "{} of {} {} objects; the first: entry {}: {}",
            counted(report.damaged.len() as u64, "backup", "backups"),
            report.environment,
            if report.damaged.len() == 1 { "lacks" } else { "lack" },
            first.sequence,
            first.what
        ))
        .meaning("they count as not restorable, so no older backup is given up in favour of them")
        .hint(format!("`lifeboat verify -e {}` names all that is damaged and what to do", report.environment)),
    )
}

fn describe(report: &Report) -> String {
    let name = &report.environment;
    let Some(rules) = &report.rules else {
        let mut text = format!("{name}: {}; everything stays\n", caution("no [environment.retention] is configured"));
        if let Some(revived) = &report.revived {
            text += &format!("  {} came back that earlier rules had retired\n", what(&revived.gone));
        }
        return text + &deletions(report);
    };
    let days = Span(std::time::Duration::from_secs(rules.recent_seconds));
    let mut text = match (report.recent_from, report.oldest) {
        (Some(from), Some(oldest)) => format!(
            "{name}: every moment of the last {days} stays (from {}); the oldest recovery point is {}\n",
            time(from),
            time(oldest)
        ),
        _ => format!("{name}: {}\n", caution("no base backup can be restored, so everything stays")),
    };
    for (kind, title) in [
        (Kind::BaseBackup, "base backup"),
        (Kind::FilestoreCapture, "filestore capture"),
        (Kind::ConfigurationExport, "configuration export"),
    ] {
        text += &points(report, kind, title);
    }
    text += &format!(
        "\nWAL: {} in the archive, {} needed\n",
        counted(report.wal.segments, "segment", "segments"),
        report.wal.wanted
    );
    text + &changes(report)
}

fn points(report: &Report, kind: Kind, title: &'static str) -> String {
    let of: Vec<&Point> = report.points.iter().filter(|p| p.verdict.kind == kind).collect();
    if of.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[title, "time", "", "why"]);
    let skipped = of.len().saturating_sub(LISTED);
    for point in of.iter().skip(skipped) {
        let verdict = &point.verdict;
        let fate = match (verdict.stays, point.retired) {
            (true, true) => caution("comes back"),
            (true, false) => "stays".to_owned(),
            (false, true) => "retired".to_owned(),
            (false, false) => caution("goes"),
        };
        let why: Vec<&str> = verdict.why.iter().map(|w| w.words.as_str()).collect();
        let id = match &verdict.database {
            Some(database) => format!("{} ({database})", verdict.id),
            None => verdict.id.clone(),
        };
        table.row(vec![id, time(verdict.time), fate, why.join("; ")]);
    }
    let older =
        if skipped > 0 { format!("  and {skipped} older; --format json has them all\n") } else { String::new() };
    format!("\n{}{older}", table.text("  "))
}

fn what(gone: &crate::evidence::bodies_retention::Gone) -> String {
    let named: Vec<String> = gone.counts().into_iter().map(|(count, one, many)| counted(count, one, many)).collect();
    if named.is_empty() { "only leftovers".to_owned() } else { named.join(", ") }
}

fn changes(report: &Report) -> String {
    let would = |did: &'static str, would: &'static str| if report.dry_run { would } else { did };
    let entry = |entry: Option<u64>| entry.map_or_else(String::new, |n| format!(" (ledger entry {n})"));
    let mut text = String::new();
    if let Some(revived) = &report.revived {
        let verb = would("came back", "would come back");
        text += &format!("{} {verb}{}\n", what(&revived.gone), entry(revived.entry));
    }
    text += &deletions(report);
    match &report.retired {
        Some(retired) => {
            text += &format!(
                "{}: {}, {} ({}); to be deleted after {}{}\n",
                would("retired", "would be retired"),
                what(&retired.gone),
                counted(retired.objects, "object", "objects"),
                ByteSize(retired.bytes),
                time(retired.not_before),
                entry(retired.entry),
            );
        }
        None => text += "nothing more is to be retired\n",
    }
    for waiting in &report.waiting {
        text += &format!(
            "waiting since ledger entry {}: {} ({}), to be deleted after {}\n",
            waiting.entry,
            counted(waiting.objects, "object", "objects"),
            ByteSize(waiting.bytes),
            time(waiting.not_before)
        );
    }
    if let Some(locks) = &report.locks {
        text += &format!("{} locked until {}", counted(locks.objects, "object", "objects"), time(locks.until));
        text += &match locks.failed {
            0 => "\n".to_owned(),
            failed => format!("; {}\n", alarm(&format!("{failed} could not be locked"))),
        };
    }
    for damaged in &report.damaged {
        text += &format!("{} entry {}: {}\n", alarm("DAMAGED:"), damaged.sequence, damaged.what);
    }
    for note in &report.notes {
        text += &format!("note: {note}\n");
    }
    if report.dry_run {
        text += "nothing was changed (--dry-run)\n";
    }
    text
}

fn deletions(report: &Report) -> String {
    let mut text = String::new();
    for deletion in &report.deleted {
        let verb = if report.dry_run { "would be deleted" } else { "deleted" };
        text += &format!(
            "{verb}: {}, {} ({} freed)\n",
            what(&deletion.gone),
            counted(deletion.objects, "object", "objects"),
            ByteSize(deletion.bytes)
        );
        if deletion.spared > 0 {
            text += &format!("  {} stay, because something needs them again\n", deletion.spared);
        }
        if deletion.left > 0 {
            text += &format!("  {} that the store does not let go:\n", counted(deletion.left, "object", "objects"));
            for left in &deletion.left_named {
                text += &format!("    {}: {}\n", left.object, left.reason);
            }
        }
    }
    text
}
