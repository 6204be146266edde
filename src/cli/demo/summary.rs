//! What the demo says in the end: to a manager in a few lines, to a program as one object.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::ROLE;
use super::estate::{DATABASE, ENVIRONMENT};
use super::place::Place;
use super::story::Ended;
use crate::cli::text::counted;
use crate::error::{Error, integrity};
use crate::evidence::drill_record::{CheckResult, MissingCause, Verdict};
use crate::units::Span;

/// One object with every field always present; what is not known is null.
pub(super) fn object(ended: &Ended, place: &Place, kept: bool, took: Duration) -> Value {
    let (record, entry) = (&ended.drill.record, &ended.restored.entry);
    json!({
        "demo": {
            "directory": place.root(),
            "kept": kept,
            "postgresql": ended.major,
            "seconds": took.as_secs_f64(),
            "phases": ended.acts,
            "shop": {
                "database": DATABASE,
                "uuid": ended.shop.uuid,
                "orders": ended.shop.orders,
                "database_bytes": ended.shop.database_bytes,
                "files": ended.shop.files,
                "file_bytes": ended.shop.file_bytes,
                "seconds": ended.shop.took.as_secs_f64(),
            },
            "disaster": ended.disaster,
            "sales": ended.balance,
            "restore": {
                "target": ended.plan.target,
                "seconds": entry.seconds,
                "phases": entry.phases,
                "seconds_to_running_database": ended.recovery.as_secs_f64(),
                "attachments": ended.restored.attachments.reconciled,
            },
            "drill": {
                "id": record.id,
                "verdict": record.verdict,
                "rpo": record.rpo,
                "rto": record.rto,
                "checks_passed": passed(ended),
                "ledger": ended.drill.appended,
            },
            "report": {
                "html": ended.drill.html,
                "json": ended.drill.json,
                "journal": ended.journal_file,
            },
        }
    })
}

/// The failure that the demo amounts to: a red drill, or sales that nobody made.
pub(super) fn failure(ended: &Ended) -> Option<Error> {
    let phantom = &ended.balance.phantom;
    (!phantom.is_empty())
        .then(|| {
            integrity(format!("{} sales came back that nobody made", phantom.len()))
                .meaning("the restored database is not what the shop had")
        })
        .or_else(|| crate::cli::drill_text::failure(&ended.drill.record))
}

fn passed(ended: &Ended) -> usize {
    ended.drill.record.checks.iter().filter(|c| c.result == CheckResult::Passed).count()
}

/// The same for people.
pub(super) fn text(ended: &Ended, place: &Place, kept: bool, took: Duration) -> String {
    let (balance, record) = (&ended.balance, &ended.drill.record);
    let mut text = String::from("\nWhat happened\n\n");
    let mut line = |name: &str, words: String| text += &format!("  {name:11} {words}\n");
    line(
        "Disaster",
        format!("{}, in the middle of the business", ended.disaster.at.format("%Y-%m-%d %H:%M:%S%.3f UTC")),
    );
    line("Lost", lost(ended));
    if !balance.phantom.is_empty() {
        line("WRONG", format!("{} sales came back that nobody made", balance.phantom.len()));
    }
    line("Documents", documents(ended));
    line(
        "Time",
        format!(
            "{} from an empty disk to a running database with its documents; {} for the whole demo",
            Span(ended.recovery),
            Span(took)
        ),
    );
    let verdict = match record.verdict {
        Verdict::Passed => "PASSED",
        Verdict::Failed => "FAILED",
        Verdict::ObjectiveMissed => "OBJECTIVE MISSED",
        Verdict::NotCompleted => "NOT COMPLETED",
    };
    line(
        "Proof",
        format!(
            "drill {verdict}: restored again from the repository alone, {} checks passed, signed entry {} of the ledger",
            passed(ended),
            ended.drill.appended.sequence
        ),
    );
    line("Report", ended.drill.html.display().to_string());
    line("", format!("{} (the same for programs)", ended.drill.json.display()));
    line("", format!("{} (every sale and what became of it)", ended.journal_file.display()));
    text + &next(ended, place, kept)
}

fn lost(ended: &Ended) -> String {
    let balance = &ended.balance;
    let total = balance.acknowledged;
    let mut words = match balance.lost.len() {
        0 => format!("nothing: all {total} sales that the till had confirmed are there"),
        n => {
            let seconds = Span(Duration::try_from_secs_f64(balance.lost_seconds).unwrap_or_default());
            format!(
                "{n} of {total} confirmed sales, those of the last {seconds} before the disaster; the other {} are there",
                total - n
            )
        }
    };
    if !balance.in_doubt.is_empty() {
        words += &format!(" ({} more had got no answer yet)", balance.in_doubt.len());
    }
    words
}

fn documents(ended: &Ended) -> String {
    let all = &ended.restored.attachments.reconciled;
    let (referenced, verified): (u64, u64) =
        (all.iter().map(|a| a.referenced).sum(), all.iter().map(|a| a.verified).sum());
    let missing: Vec<_> = all.iter().flat_map(|a| &a.missing).collect();
    let ours = missing.iter().filter(|m| m.cause == MissingCause::LostByUs).count();
    let mut words = format!("{verified} of {referenced} that the database refers to, each verified");
    if missing.len() > ours {
        let late = counted((missing.len() - ours) as u64, "was", "were");
        words += &format!("; {late} stored after the last capture, named in the report");
    }
    if ours > 0 {
        words += &format!("; {ours} LOST by the backup");
    }
    words
}

fn next(ended: &Ended, place: &Place, kept: bool) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "lifeboat".to_owned());
    if !kept {
        return format!(
            "\nOpen the report in a browser. Everything else is removed; to look around in it, run it again with --keep:\n\n  \
             {program} demo --keep"
        );
    }
    let config = place.join("lifeboat.toml");
    let call = |command: &str| format!("  {program} -c {} {command} -e {ENVIRONMENT}", config.display());
    let second: &Path = &place.join("second");
    // Halfway through the journal: a moment between two sales that both are known.
    let middle = ended.journal.get(ended.journal.len() / 2).and_then(|s| s.acknowledged);
    let middle = middle.map_or("latest".to_owned(), |t| t.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
    format!(
        "\nEverything stays in {root}. What to try next:\n\n{show}\n{evidence}\n{verify} --deep\n{restore} --to {middle} --pgdata {second} --plan\n\n\
         The restored shop is in {root}/restored{start}When you are done: rm -r {root}",
        start = start(ended, place),
        root = place.root().display(),
        show = call("show"),
        evidence = call("evidence verify"),
        verify = call("verify"),
        restore = call("restore"),
        second = second.display(),
    )
}

/// How to start the restored cluster; only where its sockets have a place that stays.
fn start(ended: &Ended, place: &Place) -> String {
    if !place.sockets().starts_with(place.root()) {
        return ". ".to_owned();
    }
    let account = ended.programs.account.as_ref().map_or(String::new(), |a| format!("runuser -u {} -- ", a.name));
    let (bin, root) = (ended.programs.bin_dir.display(), place.root().display());
    format!(
        "; to look into it:\n\n  {account}{bin}/pg_ctl -D {root}/restored/pgdata -l /dev/null start\n  psql -h {} -U {ROLE} {DATABASE}\n  \
         {account}{bin}/pg_ctl -D {root}/restored/pgdata stop\n\n",
        place.sockets().display()
    )
}
