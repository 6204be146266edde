//! How figures and verdicts are said to people; one place, so that page, terminal and summary agree.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::evidence::drill_record::{Check, CheckResult, DrillRecord, Verdict};
use crate::units::{ByteSize, Span};

/// A point in time, to the millisecond.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

/// A point in time, to the second.
pub(crate) fn second(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A day.
pub(crate) fn day(at: DateTime<Utc>) -> String {
    at.format("%-d %B %Y").to_string()
}

/// A duration for reading: `0 s`, `840 ms`, `4.2 s`, `12 min 5 s`.
pub(crate) fn span(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration.as_millis() > 0 => Span(duration).to_string(),
        _ => "0 s".to_owned(),
    }
}

/// A number of bytes for reading.
pub(crate) fn bytes(count: u64) -> String {
    ByteSize(count).to_string()
}

/// A number with its digits in groups of three, by thin spaces that do not break.
pub(crate) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 file`, `2 files`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A verdict in one word or two.
pub(crate) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "Passed",
        Verdict::Failed => "Failed",
        Verdict::ObjectiveMissed => "Objective missed",
        Verdict::NotCompleted => "Not completed",
    }
}

/// A check's result in one word or two.
pub(crate) fn result_word(result: CheckResult) -> &'static str {
    match result {
        CheckResult::Passed => "passed",
        CheckResult::Failed => "failed",
        CheckResult::NotApplicable => "not applicable",
        CheckResult::Error => "could not run",
        CheckResult::Info => "info",
    }
}

/// What the drill showed, in the sentence that a manager takes away.
pub(crate) fn verdict_sentence(record: &DrillRecord) -> String {
    let environment = &record.environment;
    let loss = record.rpo.as_ref().map_or_else(
        || "it is not known how much would have been lost".to_owned(),
        |rpo| match (rpo.lost_transactions, rpo.measured_seconds()) {
            _ if rpo.left_out_on_purpose => {
                "it was restored to a chosen moment of the past, so what came later was left out on purpose".to_owned()
            }
            (Some(0), _) => "no committed transaction would have been lost".to_owned(),
            (Some(lost), seconds) => {
                format!(
                    "the last {} ({}) would have been lost",
                    span(seconds),
                    counted(lost, "transaction", "transactions")
                )
            }
            (None, seconds) => format!("at most the last {} of work would have been lost", span(seconds)),
        },
    );
    let speed = match record.rto.measured_seconds {
        Some(seconds) => format!("its data was back and checked in {}", span(seconds)),
        None => "its data was not brought back".to_owned(),
    };
    match record.verdict {
        Verdict::Passed => {
            format!(
                "{} can be restored: {speed}, and {loss}. {}",
                capitalised(environment),
                match record.rpo.as_ref().is_some_and(|rpo| rpo.left_out_on_purpose) {
                    true => "The time is within the objective.",
                    false => "Both are within the objectives.",
                }
            )
        }
        Verdict::ObjectiveMissed => {
            let too = |measured: f64, objective: f64| format!("{} instead of {}", span(measured), span(objective));
            let mut missed = Vec::new();
            if let Some(seconds) = record.rto.total_seconds().filter(|_| !record.rto.met) {
                missed.push(format!("takes longer than agreed ({})", too(seconds, record.rto.objective_seconds)));
            }
            if let Some(rpo) = record.rpo.as_ref().filter(|rpo| !rpo.met) {
                missed.push(format!("loses more than agreed ({})", too(rpo.measured_seconds(), rpo.objective_seconds)));
            }
            let missed = missed.join(" and ");
            format!(
                "{} can be restored and its data is sound, but that {missed}: {speed}, and {loss}.",
                capitalised(environment)
            )
        }
        Verdict::NotCompleted => format!(
            "The drill of {environment} was not completed: Lifeboat was killed while {}. It says nothing about the backup; run it again.",
            record.killed_in.as_deref().unwrap_or("it ran")
        ),
        Verdict::Failed => format!("Do not rely on this backup of {environment}: {}.", reasons_for_failure(record)),
    }
}

/// Why a drill failed, in one line.
fn reasons_for_failure(record: &DrillRecord) -> String {
    if record.error.is_some() {
        return "the drill could not be carried through to the end".to_owned();
    }
    let mut reasons = Vec::new();
    let checks = record.checks.iter().filter(|check| check.fails_the_drill()).count() as u64;
    if checks > 0 {
        reasons.push(format!("{} on the restored data did not pass", counted(checks, "hard check", "hard checks")));
    }
    let lost: u64 = record.attachments.iter().map(|a| a.lost_by_us() as u64).sum();
    if lost > 0 {
        let verb = if lost == 1 { "is" } else { "are" };
        reasons.push(format!("{} {verb} missing from the backup", counted(lost, "attachment", "attachments")));
    }
    let unsound = record.attachments.iter().any(|a| !a.is_sound() && a.lost_by_us() == 0);
    if unsound {
        reasons.push("attachments have wrong content or are not accounted for".to_owned());
    }
    if record.checks.is_empty() {
        reasons.push("nothing was checked".to_owned());
    }
    if !record.target.as_intended {
        reasons.push("recovery did not stop where it was to stop".to_owned());
    }
    match reasons.as_slice() {
        [] => "the drill was judged a failure; the findings say why".to_owned(),
        reasons => reasons.join(", and "),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `21 of 23 hold` and the like: how the checks went.
pub(crate) fn checks_summary(checks: &[Check]) -> String {
    if checks.is_empty() {
        return "none was run".to_owned();
    }
    let count = |wanted: &[CheckResult]| checks.iter().filter(|c| wanted.contains(&c.result)).count() as u64;
    let asserted = count(&[CheckResult::Passed, CheckResult::Failed, CheckResult::Error]);
    let mut parts = vec![format!("{} of {} hold", number(count(&[CheckResult::Passed])), number(asserted))];
    for (result, said) in [(CheckResult::NotApplicable, "not applicable"), (CheckResult::Info, "informative")] {
        match count(&[result]) {
            0 => {}
            n => parts.push(format!("{} {said}", number(n))),
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::examples;

    #[test]
    fn figures_read_well() {
        assert_eq!(number(1234567), "1\u{202f}234\u{202f}567");
        assert_eq!(number(999), "999");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!((span(0.0), span(0.84), span(725.0)), ("0 s".into(), "840 ms".into(), "12 min 5 s".into()));
        assert_eq!((span(-1.0), span(f64::NAN)), ("0 s".into(), "0 s".into()));
    }

    #[test]
    fn the_sentence_says_what_a_manager_must_know() {
        let passed = verdict_sentence(&examples::passed());
        assert!(
            passed.contains("Production can be restored")
                && passed.contains("47.3 s")
                && passed.contains("2 transactions"),
            "{passed}"
        );
        let failed = verdict_sentence(&examples::failed());
        assert!(
            failed.contains("Do not rely") && failed.contains("2 hard checks") && failed.contains("1 attachment is"),
            "{failed}"
        );
        let missed = verdict_sentence(&examples::missed());
        assert!(
            missed.contains("takes longer than agreed (15 min 47 s instead of 10 min)")
                && !missed.contains("Do not rely"),
            "{missed}"
        );
        let crashed = verdict_sentence(&examples::crashed());
        assert!(crashed.contains("could not be carried through"), "{crashed}");
        let killed = verdict_sentence(&examples::killed());
        assert!(
            killed.contains("killed while replaying WAL") && killed.contains("nothing about the backup"),
            "{killed}"
        );
    }
}
