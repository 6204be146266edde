//! Every draw of a ledger, drawn again: did the drill restore the second that its seed gives, was
//! each seed committed before, and was each commitment kept?
//!
//! A draw that does not come out is a problem: somebody signed what is not so. A commitment that no
//! entry reveals is a finding: a drill that still runs, or one that was abandoned.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::evidence::draw::{DrillDraw, METHOD, Revealed, Seed};
use crate::evidence::drill_record::{DrillRecord, Verdict};
use crate::evidence::entry::Body;
use crate::evidence::read::{LedgerEntry, Problem};
use crate::evidence::sampled::SamplingMethod;

/// A commitment this young may belong to a drill that still runs.
const MAY_RUN: TimeDelta = TimeDelta::hours(24);

/// What became of one commitment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DrawOutcome {
    /// The entry that committed it.
    pub entry: u64,
    /// When.
    pub committed_at: DateTime<Utc>,
    /// How many seconds could have been drawn.
    pub seconds: u64,
    /// The entry that revealed it.
    pub revealed_by: Option<u64>,
    /// The drawn second.
    pub second: Option<DateTime<Utc>>,
    /// The end.
    pub result: DrawResult,
}

/// How a random drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrawResult {
    /// Sound data came back.
    Restored,
    /// It did not, or not to the end.
    Failed,
    /// Nothing was ever recorded about it.
    Abandoned,
    /// Nothing is recorded yet, and it may still run.
    Open,
}

/// What the draws of a ledger amount to.
#[derive(Debug, Default)]
pub struct Draws {
    /// Every commitment, in order.
    pub outcomes: Vec<DrawOutcome>,
    /// Entries that claim a draw which does not come out.
    pub problems: Vec<Problem>,
    /// Commitments that nothing reveals.
    pub findings: Vec<Problem>,
}

impl Draws {
    /// Draws everything again.
    pub fn of(entries: &[LedgerEntry], now: DateTime<Utc>) -> Self {
        let mut draws = Self::default();
        let mut open: BTreeMap<u64, (&LedgerEntry, &DrillDraw)> = BTreeMap::new();
        for entry in entries {
            let (claimed, record) = match &entry.statement.predicate.body {
                Body::DrillDraw(draw) => {
                    open.insert(entry.sequence, (entry, draw));
                    continue;
                }
                Body::Drill(record) => (record.sampling.as_ref().and_then(|s| s.draw.as_ref()), Some(record.as_ref())),
                Body::Failure(failure) => (failure.draw.as_ref(), None),
                _ => continue,
            };
            let random = record.and_then(|r| r.sampling.as_ref()).is_some_and(|s| s.method == SamplingMethod::Random);
            let Some(claimed) = claimed else {
                if random {
                    draws.problem(entry, "claims a random draw, but names no commitment");
                }
                continue;
            };
            let Some((committed, draw)) = open.get(&claimed.entry).copied() else {
                let number = claimed.entry;
                draws.problem(
                    entry,
                    format!("reveals a draw that entry {number} did not commit, or that was revealed before"),
                );
                continue;
            };
            if let Err(why) = holds(committed, draw, claimed, record) {
                draws.problem(entry, format!("the draw that entry {} committed {why}", claimed.entry));
                continue;
            }
            open.remove(&claimed.entry);
            let sound = record.is_some_and(|r| matches!(r.verdict, Verdict::Passed | Verdict::ObjectiveMissed));
            let result = if sound { DrawResult::Restored } else { DrawResult::Failed };
            draws.outcomes.push(outcome(committed, draw, Some((entry.sequence, claimed.second)), result));
        }
        for (committed, draw) in open.into_values() {
            let may_run = now - committed.statement.predicate.recorded_at < MAY_RUN;
            let result = if may_run { DrawResult::Open } else { DrawResult::Abandoned };
            let what = "commits to a random draw that no entry reveals: its drill was abandoned, or still runs";
            draws.findings.push(Problem { sequence: Some(committed.sequence), what: what.into() });
            draws.outcomes.push(outcome(committed, draw, None, result));
        }
        draws.outcomes.sort_by_key(|o| o.entry);
        draws
    }

    fn problem(&mut self, entry: &LedgerEntry, what: impl Into<String>) {
        self.problems.push(Problem { sequence: Some(entry.sequence), what: what.into() });
    }
}

fn outcome(
    committed: &LedgerEntry,
    draw: &DrillDraw,
    revealed: Option<(u64, DateTime<Utc>)>,
    result: DrawResult,
) -> DrawOutcome {
    DrawOutcome {
        entry: committed.sequence,
        committed_at: committed.statement.predicate.recorded_at,
        seconds: draw.frame.seconds(),
        revealed_by: revealed.map(|(entry, _)| entry),
        second: revealed.map(|(_, second)| second),
        result,
    }
}

/// Whether a claimed draw is the one that was committed, and the drill went where it says.
fn holds(
    committed: &LedgerEntry,
    draw: &DrillDraw,
    claimed: &Revealed,
    record: Option<&DrillRecord>,
) -> Result<(), String> {
    if draw.method != METHOD {
        return Err(format!("was drawn by \"{}\", which this Lifeboat does not know", draw.method));
    }
    let seed = Seed::from_hex(&claimed.seed).filter(|seed| seed.sha256() == draw.seed_sha256);
    let seed = seed.ok_or("is revealed with another seed")?;
    let drawn = Revealed::draw(&seed, &draw.frame, committed.sequence, &committed.sha256);
    let drawn = drawn.ok_or("had nothing to draw from")?;
    if drawn != *claimed {
        return Err(format!(
            "gives number {} of {}, {}, not what is claimed: number {} of {}, {}",
            drawn.index, drawn.seconds, drawn.second, claimed.index, claimed.seconds, claimed.second
        ));
    }
    let Some(record) = record else { return Ok(()) };
    let asked = DateTime::parse_from_rfc3339(&record.target.requested).ok().map(|t| t.with_timezone(&Utc));
    if asked != Some(drawn.second) {
        return Err(format!("gives {}, but the drill restored to {}", drawn.second, record.target.requested));
    }
    let later = [&record.target.resolved, &record.target.actual].into_iter().flatten().filter_map(|p| p.time);
    if let Some(later) = later.into_iter().find(|time| *time > drawn.second) {
        return Err(format!("gives {}, but the drill restored a transaction of {later}", drawn.second));
    }
    Ok(())
}

#[cfg(test)]
#[path = "draw_check_tests.rs"]
mod tests;
