//! A drill in words, and the failure that it amounts to.

use std::path::Path;

use super::text::counted;
use crate::error::{self, Error};
use crate::evidence::drill_record::{Check, CheckResult, DrillRecord, Rpo, Severity, Verdict};
use crate::evidence::report_odoo;
use crate::evidence::selftest::{DamageOutcome, SelfTest};
use crate::units::{ByteSize, Span};

pub(super) fn describe(record: &DrillRecord, sequence: u64, html: &Path) -> String {
    let seconds = |s: f64| match std::time::Duration::try_from_secs_f64(s) {
        Ok(d) => Span(d).to_string(),
        Err(_) => "unknown".to_owned(),
    };
    let verdict = match record.verdict {
        Verdict::Passed => "PASSED",
        Verdict::Failed => "FAILED",
        Verdict::ObjectiveMissed => "OBJECTIVE MISSED",
        Verdict::NotCompleted => "NOT COMPLETED",
    };
    let count = |result| record.checks.iter().filter(|c| c.result == result).count();
    let mut text = format!("drill {} of {}: {verdict}\n", record.id, record.environment);
    if let Some(kept) = record.target.actual.as_ref().and_then(|a| a.time) {
        text += &format!("restored to the transaction of {}\n", kept.format("%Y-%m-%d %H:%M:%S%.3f UTC"));
    }
    if let Some(sampling) = &record.sampling {
        text += &format!("target: {}\n", sampling.why);
    }
    if record.rpo.as_ref().is_some_and(|rpo| rpo.left_out_on_purpose) {
        text += "RPO: not judged, a moment of the past was chosen\n";
    } else if let Some(rpo) = &record.rpo {
        text += &format!("RPO: {} (objective {})\n", seconds(rpo.measured_seconds()), seconds(rpo.objective_seconds));
    }
    if let Some(rto) = record.rto.measured_seconds {
        text += &format!("RTO: {} (objective {})\n", seconds(rto), seconds(record.rto.objective_seconds));
    }
    if let Some(lost) = record.rpo.as_ref().and_then(lost) {
        text += &lost;
    }
    text += &format!(
        "checks: {} passed, {} failed, {} in error, {} informative, {} not applicable\n",
        count(CheckResult::Passed),
        count(CheckResult::Failed),
        count(CheckResult::Error),
        count(CheckResult::Info),
        count(CheckResult::NotApplicable),
    );
    for check in record.checks.iter().filter(|c| matches!(c.result, CheckResult::Failed | CheckResult::Error)) {
        text += &format!("  {} in {}: {}: {}\n", check.id, check.scope, check.title, check.detail);
    }
    if let Some(test) = &record.selftest {
        text += &selftest_text(test, record);
    }
    for a in &record.attachments {
        text += &format!(
            "attachments of {}: {} referenced, {} verified, {} missing\n",
            a.database,
            a.referenced,
            a.verified,
            a.missing.len()
        );
    }
    for boot in &record.boots {
        let up = boot.seconds.map_or_else(|| "did not come up".to_owned(), |s| format!("up after {}", seconds(s)));
        text += &format!("Odoo {} on {}: {up}\n", boot.odoo.as_deref().unwrap_or("?"), boot.database);
    }
    if let Some(egress) = &record.egress {
        text += &format!("tried to reach the outside: {}\n", report_odoo::in_words(egress));
    }
    for phase in &record.phases {
        text += &format!("  {:44} {}\n", phase.name, seconds(phase.seconds));
    }
    text += &format!("recorded as entry {sequence} of the ledger; report: {}", html.display());
    text
}

fn selftest_text(test: &SelfTest, record: &DrillRecord) -> String {
    if test.drill != record.id {
        return format!("checks were last tested in drill {}: {}\n", test.drill, test.score());
    }
    let mut text = format!("self-test: {}\n", test.score());
    for case in &test.cases {
        let came = match case.outcome {
            DamageOutcome::Found => format!("found by {}", case.caught_by.join(", ")),
            DamageOutcome::Missed => format!("MISSED ({})", case.detail),
            DamageOutcome::Skipped => format!("skipped: {}", case.detail),
        };
        text += &format!("  {:22} {}: {came}\n", case.id, case.title);
    }
    text
}

/// What the disaster took, as far as that can be seen.
fn lost(rpo: &Rpo) -> Option<String> {
    let bytes = rpo.lost_bytes.map(|bytes| format!("{} of WAL", ByteSize(bytes)));
    let transactions = rpo.lost_transactions.map(|n| counted(n, "transaction", "transactions"));
    let parts: Vec<String> = [transactions, bytes].into_iter().flatten().collect();
    let what = if rpo.left_out_on_purpose { "left out" } else { "lost" };
    (!parts.is_empty()).then(|| format!("{what}: {}\n", parts.join(", ")))
}

/// Whether all that failed is that Odoo does not start, which a wrong command does as well as wrong data.
fn only_odoo_does_not_start(record: &DrillRecord) -> bool {
    // What could not be asked then is an error, which says nothing about the data.
    let failed = |check: &&Check| (check.severity, check.result) == (Severity::Hard, CheckResult::Failed);
    let mut failed = record.checks.iter().filter(failed);
    record.error.is_none()
        && record.boots.iter().any(|boot| boot.seconds.is_none())
        && failed.all(|check| ["B1", "B3"].contains(&check.id.as_str()))
}

/// The failure that a record amounts to.
pub(crate) fn failure(record: &DrillRecord) -> Option<Error> {
    match record.verdict {
        Verdict::Passed => None,
        Verdict::NotCompleted => Some(
            error::check_failed(format!("the drill of {} was not completed", record.environment))
                .hint("run it again: it says nothing about the backup"),
        ),
        Verdict::Failed => {
            let blind = record.selftest.as_ref().filter(|test| test.drill == record.id && !test.is_complete());
            let why = match (&record.error, blind) {
                (Some(error), _) => error.clone(),
                (None, Some(test)) => format!("the checks did not notice all damage: {}", test.score()),
                (None, None) => "a check failed, see the report".to_owned(),
            };
            let failed = error::check_failed(format!("the drill of {} failed: {why}", record.environment));
            if only_odoo_does_not_start(record) {
                return Some(
                    failed
                        .meaning("the restored data is sound as far as it was asked, but Odoo did not start on it")
                        .hint("check B1 of the report has Odoo's last words: they tell whether the data or the drill's Odoo is at fault")
                        .hint("what that Odoo is started with stands in [environment.drill.odoo]"),
                );
            }
            let verify =
                format!("`lifeboat verify -e {} --deep` tells whether the repository is whole", record.environment);
            Some(failed.meaning("a restore now would not give back what it should").hint(verify))
        }
        Verdict::ObjectiveMissed => Some(
            error::objective_missed(format!(
                "the drill of {} restored sound data, but missed an objective",
                record.environment
            ))
            .hint("the report shows which, and by how much"),
        ),
    }
}
