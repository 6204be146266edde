//! What the ledger says about retention: what was retired, revived and deleted, and what is held. Pure.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::evidence::bodies_retention::{Delete, Deleted, Gone, Hold, HoldScope, Retire, WalSegments};
use crate::evidence::{Body, LedgerEntry};
use crate::ranges::Ranges;
use crate::repository::coverage::Coverage;
use crate::units::Timeline;

/// Backups, by the numbers of their ledger entries, and WAL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Numbers of ledger entries.
    pub entries: Ranges,
    /// WAL segments by timeline.
    pub wal: BTreeMap<Timeline, Ranges>,
}

impl Named {
    fn add(&mut self, gone: &Gone) {
        self.entries.extend(&gone.entries);
        gone.wal.iter().for_each(|w| self.wal.entry(w.timeline).or_default().extend(&w.segments));
    }

    fn take(&mut self, gone: &Gone) {
        self.entries.subtract(&gone.entries);
        for WalSegments { timeline, segments } in &gone.wal {
            if let Some(mine) = self.wal.get_mut(timeline) {
                mine.subtract(segments);
            }
        }
    }

    /// Whether a segment is named.
    pub fn has_segment(&self, timeline: Timeline, number: u64) -> bool {
        self.wal.get(&timeline).is_some_and(|segments| segments.contains(number))
    }
}

/// A deletion that was begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Deletion {
    /// Number of its entry.
    pub sequence: u64,
    /// What the entry says.
    pub entry: Delete,
    /// What the last `deleted` entry about it says; `None`: it may have been interrupted.
    pub last: Option<Deleted>,
    /// Number of the `deleted` entry that says that nothing is left.
    pub complete_at: Option<u64>,
}

/// A hold, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldState {
    /// What it says.
    pub hold: Hold,
    /// Number of its ledger entry.
    pub sequence: u64,
    /// When it was made.
    pub since: DateTime<Utc>,
    /// When it was released, and why.
    pub released: Option<(DateTime<Utc>, String)>,
}

impl HoldState {
    /// Whether it holds at `now`.
    pub fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        self.released.is_none() && self.hold.until.is_none_or(|until| until > now)
    }
}

/// Where retention stands.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Retired and neither revived nor deleted so far.
    pub retired: Named,
    /// Deleted, or being deleted.
    pub deleted: Named,
    /// `retire` entries that no `delete` has carried out, oldest first: number and content.
    pub waiting: Vec<(u64, Retire)>,
    /// Deletions, oldest first.
    pub deletions: Vec<Deletion>,
    /// Holds, oldest first.
    pub holds: Vec<HoldState>,
    /// Up to when all that was referenced at that time is locked.
    pub locked_until: Option<DateTime<Utc>>,
}

impl State {
    /// Reads it from a ledger.
    pub fn of<'e>(entries: impl IntoIterator<Item = &'e LedgerEntry>) -> Self {
        let mut state = Self::default();
        for entry in entries {
            state.see(entry);
        }
        state
    }

    fn see(&mut self, entry: &LedgerEntry) {
        let (sequence, at) = (entry.sequence, entry.statement.predicate.recorded_at);
        match &entry.statement.predicate.body {
            Body::Retire(retire) => {
                self.retired.add(&retire.gone);
                self.waiting.push((sequence, retire.clone()));
            }
            Body::Revive(revive) => self.retired.take(&revive.gone),
            Body::Delete(delete) => {
                self.retired.take(&delete.gone);
                self.deleted.add(&delete.gone);
                self.waiting.retain(|(number, _)| !delete.retired_by.contains(number));
                self.deletions.push(Deletion { sequence, entry: delete.clone(), last: None, complete_at: None });
            }
            Body::Deleted(deleted) => {
                if let Some(of) = self.deletions.iter_mut().find(|d| d.sequence == deleted.delete) {
                    if deleted.left == 0 && of.complete_at.is_none() {
                        of.complete_at = Some(sequence);
                    }
                    of.last = Some(deleted.clone());
                }
            }
            Body::Hold(hold) => {
                self.holds.push(HoldState { hold: hold.clone(), sequence, since: at, released: None });
            }
            Body::Release(release) => {
                for hold in self.holds.iter_mut().filter(|h| h.hold.id == release.hold && h.released.is_none()) {
                    hold.released = Some((at, release.reason.clone()));
                }
            }
            Body::LockExtension(lock) if lock.failed == 0 => self.locked_until = Some(lock.until),
            _ => {}
        }
    }

    /// Whether the backup that entry `sequence` committed counts as gone.
    pub fn is_gone(&self, sequence: u64) -> bool {
        self.retired.entries.contains(sequence) || self.deleted.entries.contains(sequence)
    }

    /// The entries whose backups are still there.
    pub fn living<'e>(&self, entries: &'e [LedgerEntry]) -> impl DoubleEndedIterator<Item = &'e LedgerEntry> {
        entries.iter().filter(|e| !self.is_gone(e.sequence))
    }

    /// WAL that counts as gone.
    fn gone_wal(&self) -> BTreeMap<Timeline, Ranges> {
        let mut gone = self.deleted.wal.clone();
        for (timeline, segments) in &self.retired.wal {
            gone.entry(*timeline).or_default().extend(segments);
        }
        gone.retain(|_, segments| !segments.is_empty());
        gone
    }

    /// Whether a WAL segment counts as gone.
    pub fn gave_up(&self, timeline: Timeline, number: u64) -> bool {
        self.retired.has_segment(timeline, number) || self.deleted.has_segment(timeline, number)
    }

    /// Takes WAL that counts as gone out of what the archive has.
    pub fn hide(&self, coverage: &mut Coverage) {
        coverage.hide(&self.gone_wal());
    }

    /// Takes only WAL that was deleted, or is being deleted, out of it.
    pub fn hide_deleted(&self, coverage: &mut Coverage) {
        coverage.hide(&self.deleted.wal);
    }

    /// Deletions whose objects may still be there.
    pub fn unfinished(&self) -> impl Iterator<Item = &Deletion> {
        self.deletions.iter().filter(|d| d.complete_at.is_none())
    }

    /// Holds in force.
    pub fn holds_in_force(&self, now: DateTime<Utc>) -> Vec<Hold> {
        self.holds.iter().filter(|h| h.is_in_force(now)).map(|h| h.hold.clone()).collect()
    }

    /// The oldest moment that may still be restored, what was retired and can come back included; `None` where there is
    /// no base backup.
    pub fn oldest_moment(&self, entries: &[LedgerEntry]) -> Option<DateTime<Utc>> {
        let there = entries.iter().filter(|e| !self.deleted.entries.contains(e.sequence));
        let oldest = there.filter_map(|e| match &e.statement.predicate.body {
            Body::BaseBackup(base) => Some(base.stop_time),
            _ => None,
        });
        let held = self.holds.iter().filter(|h| h.released.is_none()).filter_map(|h| match h.hold.scope {
            HoldScope::Times { from, .. } => Some(from),
            _ => None,
        });
        let oldest = oldest.min()?;
        Some(held.fold(oldest, DateTime::min))
    }

    /// Lists under `meta/` that these entries name.
    pub fn lists(&self) -> BTreeSet<&str> {
        let waiting = self.waiting.iter().map(|(_, retire)| retire.list.as_str());
        waiting.chain(self.deletions.iter().map(|d| d.entry.list.as_str())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::bodies_retention::{KeepRules, Release, Revive};
    use crate::evidence::testing::entry;

    fn ranges(numbers: &[u64]) -> Ranges {
        numbers.iter().copied().collect()
    }

    fn gone(entries: &[u64], segments: &[u64]) -> Gone {
        let wal = vec![WalSegments { timeline: Timeline(1), segments: ranges(segments) }];
        Gone { entries: ranges(entries), wal, ..Gone::default() }
    }

    fn retire(entries: &[u64], segments: &[u64]) -> Body {
        Body::Retire(Retire {
            list: "l".into(),
            rules: KeepRules {
                recent_seconds: 1,
                daily: 0,
                weekly: 0,
                monthly: 0,
                yearly: 0,
                minimum_base_backups: 1,
                delete_after_seconds: 1,
                unreferenced_after_seconds: 1,
                time_zone: "UTC".into(),
            },
            not_before: DateTime::UNIX_EPOCH,
            gone: gone(entries, segments),
            objects: 1,
            bytes: 1,
            kept_base_backups: 1,
            oldest: None,
        })
    }

    fn delete(retired_by: &[u64], entries: &[u64], segments: &[u64]) -> Body {
        let (retired_by, gone) = (retired_by.to_vec(), gone(entries, segments));
        Body::Delete(Delete { retired_by, list: "d".into(), gone, objects: 1, bytes: 1, spared: 0 })
    }

    fn state(bodies: Vec<Body>) -> State {
        let entries: Vec<LedgerEntry> =
            bodies.into_iter().zip(10..).map(|(body, n)| entry(n, DateTime::UNIX_EPOCH, body)).collect();
        State::of(&entries)
    }

    #[test]
    fn what_was_retired_may_come_back_until_it_is_deleted() {
        let retired = state(vec![retire(&[1, 2, 5], &[7, 8])]);
        assert!(retired.is_gone(1) && retired.is_gone(5) && !retired.is_gone(3));
        assert!(retired.retired.has_segment(Timeline(1), 8) && !retired.retired.has_segment(Timeline(2), 8));
        let revived =
            vec![retire(&[1, 2, 5], &[7, 8]), Body::Revive(Revive { gone: gone(&[2], &[8]), reason: "h".into() })];
        let back = state(revived.clone());
        assert!(back.is_gone(1) && !back.is_gone(2) && !back.retired.has_segment(Timeline(1), 8));
        assert_eq!(back.waiting.len(), 1);
        let mut bodies = revived;
        bodies.push(delete(&[10], &[1, 5], &[7]));
        let deleted = state(bodies.clone());
        assert!(deleted.waiting.is_empty() && deleted.retired.entries.is_empty());
        assert!(deleted.is_gone(1) && deleted.is_gone(5) && !deleted.is_gone(2));
        assert_eq!(deleted.unfinished().map(|d| d.sequence).collect::<Vec<_>>(), [12]);
        let done = |left| Body::Deleted(Deleted { delete: 12, objects: 1, bytes: 1, left, left_named: vec![] });
        bodies.push(done(1));
        assert_eq!(state(bodies.clone()).unfinished().count(), 1, "locked objects are still there");
        bodies.push(done(0));
        assert_eq!(state(bodies).unfinished().count(), 0);
    }

    #[test]
    fn a_hold_ends_with_its_time_or_its_release() {
        let hold = |id: &str, until| {
            let scope = HoldScope::BaseBackup { id: "b".into() };
            Body::Hold(Hold { id: id.into(), scope, requested: "backup:b".into(), until, reason: "r".into() })
        };
        let time = |s| DateTime::from_timestamp(s, 0).expect("valid");
        let bodies = vec![
            hold("a", Some(time(100))),
            hold("b", None),
            Body::Release(Release { hold: "b".into(), reason: "over".into() }),
            hold("c", None),
        ];
        let state = state(bodies);
        let held = |now| state.holds_in_force(time(now)).into_iter().map(|h| h.id).collect::<Vec<_>>();
        assert_eq!(held(99), ["a", "c"]);
        assert_eq!(held(100), ["c"]);
    }
}
