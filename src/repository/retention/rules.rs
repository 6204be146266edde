//! Which recovery points stay, and why. Pure: plain facts in, a verdict on every backup out.
//!
//! ```text
//!            ┌ kept points: a base backup, and the WAL that makes it consistent
//!   ●   ●    ●      ● ○ ○ ●━━━●━━━●━━━●━━━▶ newest recovery point
//! yearly  monthly weekly  │  └──── recent: every moment, WAL without holes ────┘
//!                         └ the base backup that recovery to the oldest recent moment starts from
//! ```
//!
//! Promises: days, weeks, months and years count only where there is a base backup that can be restored; *recent* counts
//! back from the newest recovery point, not from the clock, so neither a broken clock nor weeks without backups let
//! anything expire; where no base backup can be restored, or none would stay, everything stays. A base backup whose
//! objects are damaged counts as one that cannot be restored, so it never lets an older one go.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::keeping::Keeping;
use crate::config::Retention;
use crate::evidence::bodies_retention::{Hold, KeepRules};
use crate::units::{Lsn, Timeline};

impl From<&Retention> for KeepRules {
    fn from(rules: &Retention) -> Self {
        Self {
            recent_seconds: rules.recent.as_secs(),
            daily: rules.daily,
            weekly: rules.weekly,
            monthly: rules.monthly,
            yearly: rules.yearly,
            minimum_base_backups: rules.minimum_base_backups,
            delete_after_seconds: rules.delete_after.as_secs(),
            unreferenced_after_seconds: rules.unreferenced_after.as_secs(),
            time_zone: rules.time_zone.name().to_owned(),
        }
    }
}

/// What there is.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Time of the newest moment that can be restored.
    pub newest: Option<DateTime<Utc>>,
    /// Base backups that were not deleted.
    pub bases: Vec<Base>,
    /// Filestore captures that were not deleted.
    pub captures: Vec<Capture>,
    /// Configuration exports that were not deleted.
    pub exports: Vec<Export>,
    /// Timelines that have WAL.
    pub lines: Vec<Line>,
    /// Holds that were not released.
    pub holds: Vec<Hold>,
}

/// A base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Number of its ledger entry.
    pub sequence: u64,
    /// Its id.
    pub id: String,
    /// Its timeline.
    pub timeline: Timeline,
    /// Where replay starts.
    pub start: Lsn,
    /// From where on it is consistent.
    pub stop: Lsn,
    /// When it ended.
    pub stop_time: DateTime<Utc>,
    /// The databases in it.
    pub databases: Vec<String>,
    /// Timelines whose line of history it lies on.
    pub lines: Vec<Timeline>,
    /// Why it cannot be restored; `None` where it can.
    pub broken: Option<String>,
}

/// A filestore capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Number of its ledger entry.
    pub sequence: u64,
    /// Its id.
    pub id: String,
    /// Time of its restore point.
    pub time: DateTime<Utc>,
    /// When its scan ended.
    pub scanned: DateTime<Utc>,
    /// The database.
    pub database: String,
    /// Odoo's `data_dir`.
    pub data_dir: String,
    /// Odoo's `database.uuid`, where known.
    pub uuid: Option<String>,
}

/// A configuration export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Number of its ledger entry.
    pub sequence: u64,
    /// Its id.
    pub id: String,
    /// When it was taken.
    pub time: DateTime<Utc>,
}

/// A timeline that has WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The timeline.
    pub timeline: Timeline,
    /// When the newest of its objects was written to the store.
    pub written: DateTime<Utc>,
}

/// What a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A base backup.
    BaseBackup,
    /// A filestore capture.
    FilestoreCapture,
    /// A configuration export.
    ConfigurationExport,
}

/// A reason to stay or to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The rule: `recent`, `weekly`, `hold`, `expired`, …
    pub rule: &'static str,
    /// In words.
    pub words: String,
}

pub(super) fn why(rule: &'static str, words: impl Into<String>) -> Why {
    Why { rule, words: words.into() }
}

/// What becomes of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What it is.
    pub kind: Kind,
    /// Number of its ledger entry.
    pub sequence: u64,
    /// Its id.
    pub id: String,
    /// The moment that it belongs to.
    pub time: DateTime<Utc>,
    /// The database, of a filestore capture.
    pub database: Option<String>,
    /// Whether it stays.
    pub stays: bool,
    /// Why.
    pub why: Vec<Why>,
}

/// WAL that must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The line of history to follow.
    pub line: Timeline,
    /// From here on.
    pub from: Lsn,
    /// Up to here.
    pub until: Until,
}

/// How far WAL must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Up to a place.
    Position(Lsn),
    /// Up to the first commit behind a time.
    Time(DateTime<Utc>),
    /// As far as there is any.
    End,
}

/// What the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Every moment from here on is kept; `None`: everything is.
    pub recent_from: Option<DateTime<Utc>>,
    /// What becomes of every backup, in the order of the ledger.
    pub verdicts: Vec<Verdict>,
    /// The WAL that must stay; `None`: all of it.
    pub wal: Option<Vec<Demand>>,
    /// The oldest moment that can be restored afterwards.
    pub oldest: Option<DateTime<Utc>>,
}

impl Decision {
    /// Numbers of the entries whose backups go.
    pub fn going(&self) -> BTreeSet<u64> {
        self.verdicts.iter().filter(|v| !v.stays).map(|v| v.sequence).collect()
    }
}

/// Decides. `None` for `rules` keeps everything.
pub fn decide(rules: Option<&Retention>, facts: &Facts, now: DateTime<Utc>) -> Decision {
    let Some(rules) = rules else {
        return everything(facts, why("no_rules", "no [environment.retention] is configured"));
    };
    let usable = |b: &&Base| b.broken.is_none();
    let Some(newest) = facts.newest.filter(|_| facts.bases.iter().any(|b| usable(&b))) else {
        return everything(facts, why("nothing_restorable", "no base backup can be restored, so nothing is given up"));
    };
    let recent = TimeDelta::from_std(rules.recent).unwrap_or(TimeDelta::MAX);
    let recent_from = newest.min(now).checked_sub_signed(recent).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let mut keeping = Keeping::new(facts);
    keeping.recent(rules, recent_from);
    keeping.periods(rules);
    keeping.minimum(rules);
    let holds: Vec<&Hold> = facts.holds.iter().filter(|h| h.until.is_none_or(|until| until > now)).collect();
    holds.iter().for_each(|hold| keeping.hold(hold));
    keeping.points(recent_from);
    let oldest = keeping.oldest();
    let mut verdicts = keeping.bases(rules);
    // What would leave nothing restorable is a mistake, whatever the rules say.
    if !verdicts.iter().any(|v| v.stays && facts.bases.iter().any(|b| b.sequence == v.sequence && usable(&b))) {
        return everything(facts, why("nothing_restorable", "nothing that can be restored would stay"));
    }
    verdicts.extend(keeping.captures(oldest));
    verdicts.extend(keeping.exports());
    verdicts.sort_by_key(|v| v.sequence);
    Decision { recent_from: Some(recent_from), verdicts, wal: Some(keeping.demands), oldest }
}

/// Numbers of the entries of the base backups that a hold keeps.
pub fn held(facts: &Facts, hold: &Hold) -> BTreeSet<u64> {
    let mut keeping = Keeping::new(facts);
    keeping.hold(hold);
    keeping.why.into_keys().collect()
}

fn everything(facts: &Facts, because: Why) -> Decision {
    let stay = |kind, sequence, id: &str, time, database| Verdict {
        kind,
        sequence,
        id: id.to_owned(),
        time,
        database,
        stays: true,
        why: vec![because.clone()],
    };
    let bases = facts.bases.iter().map(|b| stay(Kind::BaseBackup, b.sequence, &b.id, b.stop_time, None));
    let captures = facts
        .captures
        .iter()
        .map(|c| stay(Kind::FilestoreCapture, c.sequence, &c.id, c.time, Some(c.database.clone())));
    let exports = facts.exports.iter().map(|e| stay(Kind::ConfigurationExport, e.sequence, &e.id, e.time, None));
    let mut verdicts: Vec<Verdict> = bases.chain(captures).chain(exports).collect();
    verdicts.sort_by_key(|v| v.sequence);
    let oldest = facts.bases.iter().filter(|b| b.broken.is_none()).map(|b| b.stop_time).min();
    Decision { recent_from: None, verdicts, wal: None, oldest }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
