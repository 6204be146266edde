//! What drills have proven, derived from the ledger each time it is asked: which parts of the recovery
//! window, which timelines, databases and base backups, and when; and what follows for the seconds
//! that no drill restored. Pure.
//!
//! A drill that restored sound data to T from base backup B has replayed the WAL from B's start to T:
//! that stretch is proven, from the moment on at which B is consistent. It stays proven as long as the
//! repository can still restore it from B, and until a later drill from B fails.
//!
//! ```text
//! window   ├──────── B1 ───────────────── B2 ──────────────┤ gap ├── B3 ─────▶
//! drills             └──────▶ T1           └──▶ T2                (none)
//! ribbon   ░░░░░░░░░░████████░░░░░░░░░░░░░████░░░░░░░░░░░░░░      ░░░░░░░░░░░░
//! ```

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::evidence::draw_check::Draws;
use crate::evidence::drill_record::{CheckResult, DrillRecord, Verdict};
use crate::evidence::entry::{BaseBackup, Body};
use crate::evidence::random_drills::Random;
use crate::evidence::read::LedgerEntry;
use crate::units::{Lsn, Timeline};

/// A stretch of history every moment of which can be restored, as the repository has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Its first moment.
    pub from: (Lsn, DateTime<Utc>),
    /// Its last moment.
    pub to: (Lsn, DateTime<Utc>),
    /// The timelines that it runs through, with the position at which each begins.
    pub legs: Vec<(Timeline, Lsn)>,
    /// The base backups that it can be restored from.
    pub bases: Vec<String>,
    /// What ends it, where later WAL is there.
    pub gap: Option<String>,
}

impl Stretch {
    fn timeline_at(&self, lsn: Lsn) -> Option<Timeline> {
        self.legs.iter().rev().find(|(_, from)| *from < lsn).map(|(timeline, _)| *timeline)
    }
}

/// Everything that drills have proven of an environment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proven {
    /// The stretches that can be restored, oldest first, and which parts of them were.
    pub windows: Vec<WindowProof>,
    /// Each timeline, and when a drill last restored to it.
    pub timelines: Vec<Last>,
    /// Each database, and when a drill last restored it.
    pub databases: Vec<Last>,
    /// Each base backup that can be restored, and when a drill last did.
    pub bases: Vec<Last>,
    /// Every drill, by where it went.
    pub drills: Vec<DrillPoint>,
    /// What the random ones among them say about the rest.
    pub random: Random,
}

/// A stretch that can be restored, and what of it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowProof {
    /// Its first moment.
    pub from: DateTime<Utc>,
    /// Its last moment.
    pub to: DateTime<Utc>,
    /// The timeline that it ends on.
    pub timeline: Timeline,
    /// What ends it, where later WAL is there.
    pub gap: Option<String>,
    /// Its length in seconds.
    pub seconds: f64,
    /// How much of that was proven.
    pub proven_seconds: f64,
    /// What was proven, by which drill; oldest stretch first.
    pub proofs: Vec<Proof>,
    /// What was never proven.
    pub unproven: Vec<Part>,
}

/// A part of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Part {
    /// From here.
    pub from: DateTime<Utc>,
    /// To here.
    pub to: DateTime<Utc>,
}

/// A stretch that a drill has replayed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// Where the base backup is consistent.
    pub from: DateTime<Utc>,
    /// Where the drill stopped.
    pub to: DateTime<Utc>,
    /// Position of the first WAL replayed.
    pub from_lsn: Lsn,
    /// Position of the stop.
    pub to_lsn: Lsn,
    /// The base backup.
    pub base: String,
    /// The drill.
    pub drill: String,
    /// Its ledger entry.
    pub sequence: u64,
    /// When it ended.
    pub proven_at: DateTime<Utc>,
    /// How long ago that was, in seconds.
    pub age_seconds: f64,
}

/// When something was proven last.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Last {
    /// What.
    pub name: String,
    /// When a drill restored it last, soundly; null: never.
    pub proven_at: Option<DateTime<Utc>>,
    /// How long ago that was, in seconds.
    pub age_seconds: Option<f64>,
    /// The drill.
    pub drill: Option<String>,
    /// Checks that passed in it there; for a database.
    pub checks_passed: Option<u64>,
}

/// Where a drill went and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DrillPoint {
    /// The drill.
    pub drill: String,
    /// Its ledger entry.
    pub sequence: u64,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// The moment that it restored or was to restore.
    pub target: Option<DateTime<Utc>>,
    /// Whether sound data came back.
    pub sound: bool,
    /// Whether the moment was drawn at random.
    pub random: bool,
}

/// Derives what was proven from the ledger and what the repository can still restore.
pub fn proven(entries: &[LedgerEntry], stretches: &[Stretch], now: DateTime<Utc>) -> Proven {
    let bases: BTreeMap<&str, &BaseBackup> = entries
        .iter()
        .filter_map(|entry| match &entry.statement.predicate.body {
            Body::BaseBackup(base) => Some((base.id.as_str(), base)),
            _ => None,
        })
        .collect();
    let drills: Vec<(u64, &DrillRecord)> = entries
        .iter()
        .filter_map(|entry| match &entry.statement.predicate.body {
            Body::Drill(record) => Some((entry.sequence, record.as_ref())),
            _ => None,
        })
        .collect();
    let windows = stretches.iter().map(|stretch| window(stretch, &drills, &bases, now)).collect();
    Proven {
        windows,
        timelines: timelines(stretches, &drills, now),
        databases: databases(&bases, &drills, now),
        bases: stretches.iter().flat_map(|s| &s.bases).map(|id| last(id, &drills, now, |r| from_base(r, id))).collect(),
        drills: drills.iter().map(|(sequence, record)| point(*sequence, record)).collect(),
        random: Random::of(Draws::of(entries, now).outcomes),
    }
}

/// Whether a drill brought back sound data, however long it took.
fn is_sound(record: &DrillRecord) -> bool {
    matches!(record.verdict, Verdict::Passed | Verdict::ObjectiveMissed)
}

fn from_base(record: &DrillRecord, id: &str) -> bool {
    record.sources.as_ref().is_some_and(|s| s.base_backup == id)
}

/// The moment that a drill restored: the drawn or given second where there is one, else the last transaction.
fn moment(record: &DrillRecord) -> Option<DateTime<Utc>> {
    let asked = DateTime::parse_from_rfc3339(&record.target.requested).ok().map(|t| t.with_timezone(&Utc));
    let point = record.target.actual.as_ref().or(record.target.resolved.as_ref());
    asked.or(point.and_then(|p| p.time))
}

fn point(sequence: u64, record: &DrillRecord) -> DrillPoint {
    DrillPoint {
        drill: record.id.clone(),
        sequence,
        at: record.finished_at,
        target: moment(record),
        sound: is_sound(record),
        random: record.sampling.as_ref().is_some_and(|s| s.draw.is_some()),
    }
}

fn window(
    stretch: &Stretch,
    drills: &[(u64, &DrillRecord)],
    bases: &BTreeMap<&str, &BaseBackup>,
    now: DateTime<Utc>,
) -> WindowProof {
    let mut proofs: Vec<Proof> = Vec::new();
    for (place, (sequence, record)) in drills.iter().enumerate() {
        let Some(sources) = record.sources.as_ref().filter(|_| is_sound(record)) else { continue };
        let base = &sources.base_backup;
        // One that was only not finished says nothing about the base backup.
        let doubted =
            drills[place + 1..].iter().any(|(_, later)| from_base(later, base) && later.verdict == Verdict::Failed);
        let (Some(backup), Some(stop)) = (bases.get(base.as_str()), &record.target.actual) else { continue };
        // Another branch of history, or a base backup that has lost its WAL since: nothing of this window.
        let here = stretch.bases.contains(base) && stretch.timeline_at(stop.lsn) == Some(stop.timeline);
        if doubted || !here {
            continue;
        }
        let to = moment(record).unwrap_or(backup.stop_time).min(stretch.to.1);
        proofs.push(Proof {
            from: backup.stop_time.min(to),
            to,
            from_lsn: backup.start_lsn,
            to_lsn: stop.lsn.min(stretch.to.0),
            base: base.clone(),
            drill: record.id.clone(),
            sequence: *sequence,
            proven_at: record.finished_at,
            age_seconds: (now - record.finished_at).as_seconds_f64().max(0.0),
        });
    }
    proofs.sort_by_key(|proof| (proof.from, proof.to));
    let unproven = complement(stretch.from.1, stretch.to.1, &proofs);
    let seconds = (stretch.to.1 - stretch.from.1).as_seconds_f64();
    let open: f64 = unproven.iter().map(|part| (part.to - part.from).as_seconds_f64()).sum();
    WindowProof {
        from: stretch.from.1,
        to: stretch.to.1,
        timeline: stretch.legs.last().map_or(Timeline(1), |(timeline, _)| *timeline),
        gap: stretch.gap.clone(),
        seconds,
        proven_seconds: (seconds - open).max(0.0),
        proofs,
        unproven,
    }
}

/// What of `from..to` no proof covers.
fn complement(from: DateTime<Utc>, to: DateTime<Utc>, proofs: &[Proof]) -> Vec<Part> {
    let (mut parts, mut reached) = (Vec::new(), from);
    for proof in proofs {
        if proof.from > reached {
            parts.push(Part { from: reached, to: proof.from });
        }
        reached = reached.max(proof.to);
    }
    if reached < to {
        parts.push(Part { from: reached, to });
    }
    parts
}

/// The newest sound drill that `concerns` what is called `name`.
fn last(
    name: impl std::fmt::Display,
    drills: &[(u64, &DrillRecord)],
    now: DateTime<Utc>,
    concerns: impl Fn(&DrillRecord) -> bool,
) -> Last {
    let newest = drills.iter().rev().map(|(_, record)| *record).find(|record| is_sound(record) && concerns(record));
    Last {
        name: name.to_string(),
        proven_at: newest.map(|r| r.finished_at),
        age_seconds: newest.map(|r| (now - r.finished_at).as_seconds_f64().max(0.0)),
        drill: newest.map(|r| r.id.clone()),
        checks_passed: None,
    }
}

fn timelines(stretches: &[Stretch], drills: &[(u64, &DrillRecord)], now: DateTime<Utc>) -> Vec<Last> {
    let mut all: Vec<Timeline> = stretches.iter().flat_map(|s| &s.legs).map(|(timeline, _)| *timeline).collect();
    all.sort_unstable();
    all.dedup();
    let on = |record: &DrillRecord, timeline| record.target.actual.as_ref().is_some_and(|s| s.timeline == timeline);
    all.into_iter().map(|timeline| last(timeline.0, drills, now, |record| on(record, timeline))).collect()
}

/// The databases of the newest base backup and of the newest drill.
fn databases(bases: &BTreeMap<&str, &BaseBackup>, drills: &[(u64, &DrillRecord)], now: DateTime<Utc>) -> Vec<Last> {
    let newest = bases.values().max_by_key(|base| base.stop_time);
    let mut all: Vec<&str> = newest.into_iter().flat_map(|base| &base.databases).map(String::as_str).collect();
    let restored = drills.iter().rev().find_map(|(_, record)| record.restored.as_ref());
    all.extend(restored.into_iter().flat_map(|r| &r.databases).map(String::as_str));
    all.sort_unstable();
    all.dedup();
    let has = |record: &DrillRecord, name: &str| {
        record.restored.as_ref().is_some_and(|restored| restored.databases.iter().any(|d| d == name))
    };
    let proof = |name: &str| {
        let mut found = last(name, drills, now, |record| has(record, name));
        let record = drills.iter().find(|(_, record)| Some(&record.id) == found.drill.as_ref());
        found.checks_passed = record.map(|(_, record)| {
            record.checks.iter().filter(|c| c.scope == name && c.result == CheckResult::Passed).count() as u64
        });
        found
    };
    all.into_iter().map(proof).collect()
}

#[cfg(test)]
#[path = "proven_tests.rs"]
mod tests;
