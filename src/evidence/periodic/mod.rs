//! What happened to an environment in a month, a quarter or a year, for those who answer for it and those who audit them:
//! a view of the ledger, and of nothing else. Every entry of the period stands in it, also of kinds that this
//! program has no section for.

mod html;
mod junit;
mod period;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

pub use html::page;
pub use junit::junit;
pub use period::Period;

use crate::config::Environment;
use crate::evidence::drift_record::DriftChange;
use crate::evidence::drill_record::{DrillRecord, Verdict};
use crate::evidence::entry::{BaseBackup, Restore};
use crate::evidence::read::Reading;
use crate::evidence::summary::{self, SummaryRow};
use crate::evidence::wording::{counted, day, span, verdict_word};
use crate::evidence::{Body, LedgerEntry};

/// An environment in a period.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeriodReport {
    /// The environment.
    pub environment: String,
    /// What it is for.
    pub purpose: String,
    /// Who answers for it.
    pub owner: String,
    /// The period.
    pub period: Period,
    /// When the report was made.
    pub written_at: DateTime<Utc>,
    /// The objectives in force when the report was made, in seconds; those of each drill stand beside it.
    pub rpo_objective_seconds: f64,
    /// The same for the time to recover.
    pub rto_objective_seconds: f64,
    /// First and last entry of the period; null without one.
    pub entries: Option<(u64, u64)>,
    /// SHA-256 of the last entry's envelope.
    pub last_entry: Option<String>,
    /// Whether signatures, links and places of the whole ledger are sound.
    pub ledger_problems: Vec<String>,
    /// Base backups.
    pub bases: Vec<BaseLine>,
    /// The longest time without a base backup within the period, in seconds, from its beginning (or from the first entry) to
    /// its end (or to now).
    pub longest_without_base_seconds: Option<f64>,
    /// Filestore captures, and how many of them were incomplete or found something unsound.
    pub captures: (u64, u64),
    /// Configuration exports, and how many of them lacked something.
    pub exports: (u64, u64),
    /// Drills.
    pub drills: Vec<DrillLine>,
    /// How the objectives were met.
    pub attainment: Attainment,
    /// Restores for good.
    pub restores: Vec<RestoreLine>,
    /// Changes of the configuration.
    pub drift: Vec<DriftLine>,
    /// What failed, and what was due and not done.
    pub troubles: Vec<SummaryRow>,
    /// Number of entries of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// Entries of kinds that have no list above.
    pub others: Vec<SummaryRow>,
    /// What somebody must look at, worst first.
    pub attention: Vec<String>,
}

/// A base backup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BaseLine {
    /// Its id.
    pub id: String,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// Size of the cluster.
    pub logical_bytes: u64,
    /// What it added to the repository.
    pub stored_bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Damaged blocks at the source.
    pub damaged: u64,
}

/// A drill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DrillLine {
    /// Its ledger entry.
    pub sequence: u64,
    /// Its id.
    pub id: String,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// How it ended.
    pub verdict: Verdict,
    /// How its moment was chosen.
    pub sampling: Option<crate::evidence::sampled::SamplingMethod>,
    /// Loss, in seconds; null where it was not measured or left out on purpose.
    pub rpo_seconds: Option<f64>,
    /// The objective then.
    pub rpo_objective_seconds: Option<f64>,
    /// Time to recover, in seconds.
    pub rto_seconds: Option<f64>,
    /// The objective then.
    pub rto_objective_seconds: f64,
    /// Checks that failed or could not run.
    pub failed_checks: u64,
    /// What ended it early.
    pub error: Option<String>,
}

/// How often an objective was met, of the drills that measured it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attainment {
    /// Met, measured.
    pub rpo: (u64, u64),
    /// Met, measured.
    pub rto: (u64, u64),
    /// The worst loss that was measured, in seconds.
    pub worst_rpo_seconds: Option<f64>,
    /// The longest time to recover that was measured, in seconds.
    pub worst_rto_seconds: Option<f64>,
}

/// A restore for good.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RestoreLine {
    /// Its ledger entry.
    pub sequence: u64,
    /// When it was recorded.
    pub at: DateTime<Utc>,
    /// What became of it.
    pub summary: String,
    /// How long it took.
    pub seconds: f64,
}

/// A change of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DriftLine {
    /// Its ledger entry.
    pub sequence: u64,
    /// When the export was taken.
    pub at: DateTime<Utc>,
    /// What matters of it.
    pub critical: Vec<DriftChange>,
    /// How many changes there are besides.
    pub others: u64,
}

/// The report, from what was read of an environment's ledger.
pub fn report(environment: &Environment, reading: &Reading, period: &Period, now: DateTime<Utc>) -> PeriodReport {
    let within = |entry: &&LedgerEntry| period.contains(entry.statement.predicate.recorded_at);
    let entries: Vec<LedgerEntry> = reading.entries.iter().filter(within).cloned().collect();
    let rows = summary::rows(&entries);
    let mut report = PeriodReport {
        environment: environment.name.clone(),
        purpose: serde_json::to_value(environment.purpose)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default(),
        owner: environment.owner.clone(),
        period: period.clone(),
        written_at: now,
        rpo_objective_seconds: environment.objectives.rpo.as_secs_f64(),
        rto_objective_seconds: environment.objectives.rto.as_secs_f64(),
        entries: entries.first().zip(entries.last()).map(|(first, last)| (first.sequence, last.sequence)),
        last_entry: entries.last().map(|entry| entry.sha256.clone()),
        ledger_problems: reading.problems.iter().map(|p| p.what.clone()).collect(),
        bases: Vec::new(),
        longest_without_base_seconds: None,
        captures: (0, 0),
        exports: (0, 0),
        drills: Vec::new(),
        attainment: Attainment { rpo: (0, 0), rto: (0, 0), worst_rpo_seconds: None, worst_rto_seconds: None },
        restores: Vec::new(),
        drift: Vec::new(),
        troubles: Vec::new(),
        kinds: BTreeMap::new(),
        others: Vec::new(),
        attention: Vec::new(),
    };
    for (entry, row) in entries.iter().zip(rows) {
        report.add(entry, row);
    }
    report.longest_without_base_seconds = longest_without_base(reading, period, now);
    report.attainment = attainment(&report.drills);
    report.attention = attention(&report);
    report
}

impl PeriodReport {
    fn add(&mut self, entry: &LedgerEntry, row: SummaryRow) {
        let said = &entry.statement.predicate;
        *self.kinds.entry(said.body.kind().to_owned()).or_default() += 1;
        let bad = u64::from(row.bad);
        match &said.body {
            Body::BaseBackup(base) => self.bases.push(base_line(base)),
            Body::WalRange(_) | Body::DrillDraw(_) => {}
            Body::FilestoreCapture(_) => self.captures = (self.captures.0 + 1, self.captures.1 + bad),
            Body::ConfigurationExport(_) => self.exports = (self.exports.0 + 1, self.exports.1 + bad),
            Body::Drill(record) => self.drills.push(drill_line(entry.sequence, record)),
            Body::Restore(restore) => self.restores.push(restore_line(entry.sequence, said.recorded_at, restore, &row)),
            Body::Drift(drift) => self.drift.push(DriftLine {
                sequence: entry.sequence,
                at: drift.taken_at,
                critical: drift.critical().cloned().collect(),
                others: drift.notices + drift.expected + drift.ignored,
            }),
            Body::Failure(_) | Body::Skipped(_) => self.troubles.push(row),
            #[allow(
                unreachable_patterns,
                reason = "kinds that come later stand in the report without a section of their own"
            )]
            _ => self.others.push(row),
        }
    }
}

fn base_line(base: &BaseBackup) -> BaseLine {
    BaseLine {
        id: base.id.clone(),
        at: base.stop_time,
        logical_bytes: base.logical_bytes,
        stored_bytes: base.stored_bytes,
        seconds: base.seconds,
        damaged: base.damaged.len() as u64,
    }
}

fn drill_line(sequence: u64, record: &DrillRecord) -> DrillLine {
    let rpo = record.rpo.as_ref().filter(|rpo| !rpo.left_out_on_purpose);
    DrillLine {
        sequence,
        id: record.id.clone(),
        at: record.finished_at,
        verdict: record.verdict,
        sampling: record.sampling.as_ref().map(|s| s.method),
        rpo_seconds: rpo.map(crate::evidence::drill_record::Rpo::measured_seconds),
        rpo_objective_seconds: record.rpo.as_ref().map(|rpo| rpo.objective_seconds),
        rto_seconds: record.rto.total_seconds(),
        rto_objective_seconds: record.rto.objective_seconds,
        failed_checks: record.checks.iter().filter(|check| check.fails_the_drill()).count() as u64,
        error: record.error.clone(),
    }
}

fn restore_line(sequence: u64, at: DateTime<Utc>, restore: &Restore, row: &SummaryRow) -> RestoreLine {
    RestoreLine { sequence, at, summary: row.summary.clone(), seconds: restore.seconds }
}

/// The longest stretch of the period in which no base backup ended; it begins with the environment's first entry where that is
/// later, and ends now where the period goes on.
fn longest_without_base(reading: &Reading, period: &Period, now: DateTime<Utc>) -> Option<f64> {
    let first = reading.entries.first()?.statement.predicate.recorded_at;
    let (from, to) = (period.from.max(first), period.to.min(now));
    if from >= to {
        return None;
    }
    let ends = reading.entries.iter().filter_map(|entry| match &entry.statement.predicate.body {
        Body::BaseBackup(base) => Some(base.stop_time),
        _ => None,
    });
    let mut marks = vec![from, to];
    let mut before: Option<DateTime<Utc>> = None;
    for end in ends {
        if end < from {
            before = before.max(Some(end));
        } else if end < to {
            marks.push(end);
        }
    }
    // A backup from before the period still counts as the beginning of its first stretch.
    marks.extend(before);
    marks.sort();
    if before.is_some() {
        marks.retain(|mark| *mark != from);
    }
    marks.windows(2).map(|pair| (pair[1] - pair[0]).num_milliseconds() as f64 / 1000.0).reduce(f64::max)
}

fn attainment(drills: &[DrillLine]) -> Attainment {
    // Of a drill that failed, no figure counts.
    let sound = || drills.iter().filter(|d| matches!(d.verdict, Verdict::Passed | Verdict::ObjectiveMissed));
    let rpo: Vec<(f64, f64)> = sound().filter_map(|d| d.rpo_seconds.zip(d.rpo_objective_seconds)).collect();
    let rto: Vec<(f64, f64)> = sound().filter_map(|d| Some((d.rto_seconds?, d.rto_objective_seconds))).collect();
    let met = |all: &[(f64, f64)]| (all.iter().filter(|(is, limit)| is <= limit).count() as u64, all.len() as u64);
    let worst = |all: &[(f64, f64)]| all.iter().map(|(is, _)| *is).reduce(f64::max);
    Attainment { rpo: met(&rpo), rto: met(&rto), worst_rpo_seconds: worst(&rpo), worst_rto_seconds: worst(&rto) }
}

/// What must not be overlooked.
fn attention(report: &PeriodReport) -> Vec<String> {
    let mut all: Vec<String> =
        report.ledger_problems.iter().map(|problem| format!("The ledger is damaged: {problem}")).collect();
    for drill in report.drills.iter().filter(|d| d.verdict != Verdict::Passed) {
        let error = drill.error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
        all.push(format!(
            "Drill {} of {}: {}{error}",
            drill.id,
            day(drill.at),
            verdict_word(drill.verdict).to_lowercase()
        ));
    }
    if report.drills.is_empty() {
        all.push("No drill was run: nothing was proven in this period".to_owned());
    }
    if report.bases.is_empty() {
        all.push("No base backup was taken".to_owned());
    }
    for base in report.bases.iter().filter(|base| base.damaged > 0) {
        all.push(format!(
            "Base backup {} found {} at the source",
            base.id,
            counted(base.damaged, "damaged block", "damaged blocks")
        ));
    }
    for drift in report.drift.iter().filter(|drift| !drift.critical.is_empty()) {
        let named: Vec<String> = drift.critical.iter().take(3).map(ToString::to_string).collect();
        let more = if drift.critical.len() > 3 { ", …" } else { "" };
        all.push(format!("Critical change of the configuration on {}: {}{more}", day(drift.at), named.join(", ")));
    }
    if report.captures.1 > 0 {
        all.push(format!(
            "{} of {} filestore captures were incomplete or found something unsound",
            report.captures.1, report.captures.0
        ));
    }
    if report.exports.1 > 0 {
        all.push(format!("{} of {} configuration exports lacked something", report.exports.1, report.exports.0));
    }
    let troubles = report.troubles.iter().chain(&report.others).filter(|row| row.bad).count() as u64;
    if troubles > 0 {
        all.push(format!("{} or was not done in time", counted(troubles, "thing failed", "things failed")));
    }
    all
}

/// The period in one sentence.
pub fn sentence(report: &PeriodReport) -> String {
    let passed = report.drills.iter().filter(|d| d.verdict == Verdict::Passed).count() as u64;
    let drills = report.drills.len() as u64;
    let bases = counted(report.bases.len() as u64, "base backup", "base backups");
    let proof = match (passed, drills) {
        (_, 0) => "no drill".to_owned(),
        (passed, drills) if passed == drills => format!("{}, all passed", counted(drills, "drill", "drills")),
        (passed, drills) => format!("{passed} of {} passed", counted(drills, "drill", "drills")),
    };
    let worst =
        report.attainment.worst_rto_seconds.map(|s| format!(", at most {} to recover", span(s))).unwrap_or_default();
    format!("{bases}, {proof}{worst}")
}
