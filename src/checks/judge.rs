//! What an answer means (pure): held against what the check expects, and against what the source said.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::answer::{Answer, Outcome};
use crate::config::{Check, Expectation, Severity};
use crate::evidence::drill_record::{self, CheckResult};
use crate::units::Span;

/// Rows of an offence that are kept as evidence.
const ROWS_SHOWN: usize = 5;

/// What answers are held against.
#[derive(Debug, Clone, Copy)]
pub struct Measure<'a> {
    /// What the source answered at the same instant, or why that is not known. For `fresh`: at that instant or before.
    pub source: std::result::Result<&'a Outcome, &'a str>,
    /// The objective for loss.
    pub rpo: Duration,
    /// The moment that the copy stands for.
    pub now: Option<DateTime<Utc>>,
}

struct Judged {
    result: CheckResult,
    severity: Severity,
    detail: String,
    rows: Vec<String>,
}

/// The result of one check in one database.
pub fn judge(
    check: &Check,
    scope: &str,
    outcome: &Outcome,
    measure: &Measure<'_>,
    seconds: f64,
) -> drill_record::Check {
    let with = |result, severity, detail: String, rows| Judged { result, severity, detail, rows };
    let judged = match (outcome, measure.source) {
        (Outcome::Failed { reason }, _) => with(CheckResult::Error, check.severity, reason.clone(), Vec::new()),
        (Outcome::NotApplicable { reason }, Ok(Outcome::Answered(answer))) => with(
            CheckResult::Failed,
            Severity::Hard,
            format!("{reason}, and the source had answered with {}", rows_of(answer.count)),
            Vec::new(),
        ),
        (Outcome::NotApplicable { reason }, _) => {
            with(CheckResult::NotApplicable, check.severity, reason.clone(), Vec::new())
        }
        (Outcome::Answered(answer), source) => answered(check, answer, source, measure),
    };
    result(check, scope, judged.result, judged.severity, judged.detail, judged.rows, seconds)
}

/// The record of a check that was not asked, or not as a statement.
pub(crate) fn result(
    check: &Check,
    scope: &str,
    result: CheckResult,
    severity: Severity,
    detail: String,
    rows: Vec<String>,
    seconds: f64,
) -> drill_record::Check {
    drill_record::Check {
        id: check.id.clone(),
        title: check.title.clone(),
        why: check.why.clone(),
        severity: match severity {
            Severity::Hard => drill_record::Severity::Hard,
            Severity::Baseline => drill_record::Severity::Baseline,
            Severity::Info => drill_record::Severity::Info,
        },
        scope: scope.to_owned(),
        result,
        detail,
        rows,
        seconds,
    }
}

fn answered(check: &Check, answer: &Answer, source: Result<&Outcome, &str>, measure: &Measure<'_>) -> Judged {
    let with = |result, severity, detail: String| Judged { result, severity, detail, rows: shown(answer) };
    match (check.expect, source) {
        (Expectation::Rows, _) => with(CheckResult::Info, check.severity, rows_of(answer.count)),
        (Expectation::Fresh, source) => fresh(check, answer, source.ok(), measure),
        (Expectation::NoRows, Ok(Outcome::Answered(said))) if check.severity == Severity::Baseline => {
            compared(check, answer, said)
        }
        (Expectation::NoRows, _) => match answer.count {
            0 => with(CheckResult::Passed, check.severity, "no offending row".to_owned()),
            n => with(CheckResult::Failed, check.severity, format!("{n} offending row(s)")),
        },
        (Expectation::SameAsSource, Ok(Outcome::Answered(said))) => compared(check, answer, said),
        (Expectation::SameAsSource, Ok(Outcome::NotApplicable { reason } | Outcome::Failed { reason })) => {
            with(CheckResult::Failed, Severity::Hard, format!("{}, and at the source: {reason}", rows_of(answer.count)))
        }
        (Expectation::SameAsSource, Err(unknown)) => {
            let judged = with(CheckResult::NotApplicable, check.severity, format!("not compared: {unknown}"));
            Judged { rows: Vec::new(), ..judged }
        }
    }
}

/// What the source said must come back, whatever it was: a difference fails the drill.
fn compared(check: &Check, answer: &Answer, said: &Answer) -> Judged {
    if answer.digest == said.digest {
        let detail = format!("{}, the same as at the source", rows_of(answer.count));
        return Judged { result: CheckResult::Passed, severity: check.severity, detail, rows: Vec::new() };
    }
    let only = |mark: &str, these: &Answer, others: &Answer| -> Vec<String> {
        let differing = these.rows.iter().filter(|row| !others.rows.contains(row));
        differing.take(ROWS_SHOWN).map(|row| format!("{mark}: {row}")).collect()
    };
    let mut rows = only("source", said, answer);
    rows.extend(only("restored", answer, said));
    let detail = format!("{} here, {} at the source; they differ", rows_of(answer.count), rows_of(said.count));
    Judged { result: CheckResult::Failed, severity: Severity::Hard, detail, rows }
}

/// Newer than the source was at the baseline, within the objective: that must hold. Recent at the restore target:
/// that depends on how busy the business is, so it weighs what the check says.
fn fresh(check: &Check, answer: &Answer, said: Option<&Outcome>, measure: &Measure<'_>) -> Judged {
    let limit = check.max_age.unwrap_or(measure.rpo);
    let with = |result, severity, detail: String| Judged { result, severity, detail, rows: shown(answer) };
    let said = said.and_then(|o| if let Outcome::Answered(a) = o { a.newest } else { None });
    let Some(newest) = answer.newest else {
        return match said {
            Some(said) => {
                with(CheckResult::Failed, Severity::Hard, format!("no row has a time; the source had one of {said}"))
            }
            None => with(CheckResult::NotApplicable, check.severity, "no row has a time".to_owned()),
        };
    };
    let late = |since: DateTime<Utc>| (since - newest).to_std().unwrap_or_default();
    let whole = |span: Duration| Span(Duration::from_secs(span.as_secs()));
    if let Some(behind) = said.map(late).filter(|behind| *behind > limit) {
        let detail =
            format!("the newest row is {} older than the source's was: more than {}", whole(behind), Span(limit));
        return with(CheckResult::Failed, Severity::Hard, detail);
    }
    match measure.now.map(late) {
        Some(age) if age > limit => {
            let detail =
                format!("the newest row is {} old at the restore target: more than {}", whole(age), Span(limit));
            with(CheckResult::Failed, check.severity, detail)
        }
        Some(age) => with(CheckResult::Passed, check.severity, format!("the newest row is {} old", whole(age))),
        None => with(CheckResult::Passed, check.severity, format!("the newest row is of {newest}")),
    }
}

fn rows_of(count: u64) -> String {
    format!("{count} row(s)")
}

fn shown(answer: &Answer) -> Vec<String> {
    let mut rows: Vec<String> = answer.rows.iter().take(ROWS_SHOWN).cloned().collect();
    let more = answer.count - rows.len() as u64;
    if more > 0 {
        rows.push(format!("… {more} more"));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, Probe, Scope};
    use crate::evidence::drill_record::Severity as Weight;

    fn check(severity: Severity, expect: Expectation) -> Check {
        Check {
            id: "X".into(),
            suite: "s".into(),
            title: "t".into(),
            severity,
            database: Scope::Odoo,
            odoo_min: None,
            odoo_max: None,
            requires_tables: Vec::new(),
            requires_columns: Vec::new(),
            modules: Vec::new(),
            probe: Probe::Sql { statement: "SELECT 1".into(), generates: false },
            expect,
            compare: true,
            max_age: None,
            why: "w".into(),
            timeout: Duration::from_secs(1),
            origin: Origin { file: "f".into(), line: 1 },
        }
    }

    fn rows(rows: &[&str]) -> Outcome {
        let newest = rows.iter().filter_map(|r| r.parse().ok()).max();
        let rows: Vec<String> = rows.iter().map(|r| (*r).to_owned()).collect();
        Outcome::Answered(Answer { count: rows.len() as u64, digest: rows.join("|"), rows, newest })
    }

    fn judged(check: &Check, outcome: &Outcome, source: Result<&Outcome, &str>) -> (CheckResult, Weight) {
        let now = "2026-11-22T20:00:00Z".parse().ok();
        let measure = Measure { source, rpo: Duration::from_secs(60), now };
        let result = judge(check, "shop", outcome, &measure, 0.0);
        (result.result, result.severity)
    }

    #[test]
    fn a_baseline_warns_alone_and_must_come_back_where_the_source_is_known() {
        let check = check(Severity::Baseline, Expectation::NoRows);
        let (none, one, other) = (rows(&[]), rows(&["a"]), rows(&["b"]));
        assert_eq!(judged(&check, &one, Err("busy")), (CheckResult::Failed, Weight::Baseline));
        assert_eq!(judged(&check, &none, Err("busy")), (CheckResult::Passed, Weight::Baseline));
        assert_eq!(judged(&check, &one, Ok(&one)), (CheckResult::Passed, Weight::Baseline));
        // That the oddity is gone is as wrong as another one.
        for restored in [&none, &other] {
            assert_eq!(judged(&check, restored, Ok(&one)), (CheckResult::Failed, Weight::Hard));
        }
    }

    #[test]
    fn a_figure_is_compared_or_does_not_apply_and_a_table_that_is_gone_is_red() {
        let check = check(Severity::Hard, Expectation::SameAsSource);
        let (one, other) = (rows(&["a"]), rows(&["b"]));
        assert_eq!(judged(&check, &one, Ok(&one)), (CheckResult::Passed, Weight::Hard));
        assert_eq!(judged(&check, &one, Ok(&other)), (CheckResult::Failed, Weight::Hard));
        assert_eq!(judged(&check, &one, Err("busy")), (CheckResult::NotApplicable, Weight::Hard));
        let gone = Outcome::NotApplicable { reason: "there is no table t".into() };
        assert_eq!(judged(&check, &gone, Ok(&one)).0, CheckResult::Failed);
        assert_eq!(judged(&check, &gone, Ok(&gone)).0, CheckResult::NotApplicable);
        let broken = Outcome::Failed { reason: "syntax".into() };
        assert_eq!(judged(&check, &broken, Ok(&one)).0, CheckResult::Error);
    }

    #[test]
    fn fresh_is_held_against_the_source_first_and_against_the_clock_as_the_check_says() {
        let check = check(Severity::Baseline, Expectation::Fresh);
        let (recent, old, older) =
            (rows(&["2026-11-22T19:59:30Z"]), rows(&["2026-11-22T10:00:00Z"]), rows(&["2026-11-22T09:00:00Z"]));
        assert_eq!(judged(&check, &recent, Ok(&recent)), (CheckResult::Passed, Weight::Baseline));
        assert_eq!(judged(&check, &old, Ok(&old)), (CheckResult::Failed, Weight::Baseline), "a quiet night");
        assert_eq!(judged(&check, &older, Ok(&old)), (CheckResult::Failed, Weight::Hard), "work is gone");
        assert_eq!(judged(&check, &rows(&[]), Ok(&old)), (CheckResult::Failed, Weight::Hard));
        assert_eq!(judged(&check, &rows(&[]), Err("busy")).0, CheckResult::NotApplicable);
        let patient = Check { max_age: Some(Duration::from_secs(86_400)), ..check };
        assert_eq!(judged(&patient, &old, Err("busy")), (CheckResult::Passed, Weight::Baseline));
    }

    #[test]
    fn a_hard_finding_is_one_whatever_the_source_said() {
        let check = check(Severity::Hard, Expectation::NoRows);
        assert_eq!(judged(&check, &rows(&["a"]), Err("")), (CheckResult::Failed, Weight::Hard));
        assert_eq!(judged(&check, &rows(&[]), Err("")), (CheckResult::Passed, Weight::Hard));
    }
}
