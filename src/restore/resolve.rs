//! From a target to an exact place in WAL, before anything is restored.
//!
//! PostgreSQL would find the stop point while it recovers, and tell only afterwards whether there was
//! one. Here the archived WAL is read first: the result names the record behind which recovery will
//! stop, the last transaction that survives and the first that does not. Recovery is then given that
//! record's position (`recovery_target_lsn`, inclusive: it stops behind the first record that starts
//! at or after it, `recoveryStopsAfter` in `xlogrecovery.c`), and the stop is asserted afterwards.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::refusals::{nothing, unknown_backup, unknown_timeline};
use super::target::Target;
use super::walk::walk;
use crate::error::{self, Result};
use crate::evidence::entry::BaseBackup;
use crate::postgres::wal::Record;
use crate::repository::catalogue::Catalogue;
use crate::repository::coverage::{Branch, Coverage, Leg, Reach};
use crate::repository::wal_archive::WalArchive;
use crate::units::{Lsn, Timeline};

/// A committed transaction, as WAL tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Transaction {
    /// Start of its commit record.
    pub lsn: Lsn,
    /// Transaction id.
    pub xid: u32,
    /// When it committed, by the server's clock.
    pub time: DateTime<Utc>,
}

/// Where recovery stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// The target as asked for.
    pub requested: String,
    /// The base backup that recovery starts from.
    pub base: String,
    /// The timeline that recovery follows: the one that the stop lies on. Followed to a newer one, PostgreSQL
    /// would stop at the same record and call the newer one its ancestor, from before that began.
    pub timeline: Timeline,
    /// Start of the last record that is replayed.
    pub stop_record: Lsn,
    /// End of that record: where recovery will be when it stopped.
    pub stop_end: Lsn,
    /// The last transaction that survives, where one was found since the base backup.
    pub last_kept: Option<Transaction>,
    /// The first transaction that is in the repository and will not survive.
    pub first_lost: Option<Transaction>,
    /// How many bytes of WAL recovery replays.
    pub wal_bytes: u64,
    /// Branches of history that hold WAL which this recovery does not follow.
    pub left_behind: Vec<Branch>,
}

/// Resolves `target` against everything that the repository holds, along the newest timeline or a chosen one.
pub async fn resolve(
    archive: WalArchive<'_>,
    catalogue: &Catalogue,
    target: &Target,
    timeline: Option<Timeline>,
) -> Result<Resolved> {
    let wal = catalogue.wal.as_ref().ok_or_else(|| nothing(catalogue))?;
    let forced = match target {
        Target::Backup(id) => {
            Some(catalogue.bases().find(|b| b.id == *id).ok_or_else(|| unknown_backup(catalogue, id))?)
        }
        _ => None,
    };
    let newest = match timeline {
        Some(chosen) if wal.timelines.contains_key(&chosen) => chosen,
        Some(chosen) => return Err(unknown_timeline(wal, chosen)),
        None => wal.newest().ok_or_else(|| nothing(catalogue))?,
    };
    let mut line = wal.line(newest);
    if let Some(base) = forced
        && !on_line(&line, base)
    {
        line = wal.line(base.timeline);
    }
    let mut bases: Vec<&BaseBackup> = match forced {
        Some(base) => vec![base],
        None => catalogue.bases().filter(|b| on_line(&line, b)).collect(),
    };
    bases.sort_by_key(|b| b.stop_lsn);
    let search = Search { archive, wal, line, bases, catalogue };
    let found = match target {
        Target::Latest => search.latest().await?,
        Target::Time(time) => search.time(*time).await?,
        Target::Lsn(lsn) => search.position(*lsn, target).await?,
        Target::Backup(_) => {
            let lsn = forced.map_or(Lsn(0), |b| b.stop_lsn);
            search.position(lsn, target).await?
        }
        Target::Name(name) => {
            let lsn = search.restore_point(name).await?;
            search.position(lsn, target).await?
        }
    };
    Ok(Resolved {
        requested: target.to_string(),
        base: found.base.id.clone(),
        timeline: timeline_of(&search.line, found.stop.1).unwrap_or(newest),
        stop_record: found.stop.0,
        stop_end: found.stop.1,
        last_kept: found.last_kept,
        first_lost: found.first_lost,
        wal_bytes: found.stop.1.0.saturating_sub(found.base.start_lsn.0),
        left_behind: wal.left_behind(&search.line),
    })
}

/// Whether a base backup lies on a line of history.
fn on_line(line: &[Leg], base: &BaseBackup) -> bool {
    line.iter().any(|leg| leg.timeline == base.timeline && leg.to.is_none_or(|to| base.stop_lsn <= to))
}

/// The timeline of a line of history on which a record ends.
fn timeline_of(line: &[Leg], end: Lsn) -> Option<Timeline> {
    line.iter().find(|leg| leg.to.is_none_or(|left| end <= left)).map(|leg| leg.timeline)
}

pub(super) struct Search<'a> {
    archive: WalArchive<'a>,
    pub(super) wal: &'a Coverage,
    pub(super) line: Vec<Leg>,
    /// Base backups on the line, by stop position.
    pub(super) bases: Vec<&'a BaseBackup>,
    pub(super) catalogue: &'a Catalogue,
}

struct Found<'a> {
    base: &'a BaseBackup,
    /// Start and end of the last record to replay.
    stop: (Lsn, Lsn),
    last_kept: Option<Transaction>,
    first_lost: Option<Transaction>,
}

impl<'a> Search<'a> {
    /// The newest base backup that recovery can start from, and how far it reaches.
    pub(super) fn usable(&self) -> impl Iterator<Item = (&'a BaseBackup, Reach)> {
        self.bases.iter().rev().filter_map(|base| {
            let reach = self.wal.reach(&self.line, base.start_lsn)?;
            (reach.end >= base.stop_lsn).then_some((*base, reach))
        })
    }

    async fn latest(&self) -> Result<Found<'a>> {
        let (base, reach) = self.usable().next().ok_or_else(|| self.no_base(None))?;
        let found = self.end_of(base, &reach).await?;
        match &reach.gap {
            Some(gap) => Err(self.latest_behind_gap(gap, found.last_kept)),
            None => Ok(found),
        }
    }

    /// The last record that a base backup reaches.
    async fn end_of(&self, base: &'a BaseBackup, reach: &Reach) -> Result<Found<'a>> {
        let mut from = reach.end.previous_segment(self.wal.segment_size).saturating_sub(1);
        let first = base.start_lsn.segment(self.wal.segment_size);
        loop {
            from = from.max(first);
            let (mut last, mut last_kept) = (None, None);
            self.walk(from, reach.end, |record| {
                last = Some((record.start, record.end));
                last_kept = transaction(record).or(last_kept);
                ControlFlow::Continue(())
            })
            .await?;
            match (last, last_kept) {
                // No commit so near the end: look farther back, for the plan to name the last one kept.
                (_, None) | (None, _) if from > first => {
                    from = from.saturating_sub((reach.end.segment(self.wal.segment_size) - from).max(1))
                }
                (Some(stop), _) if stop.1 >= base.stop_lsn => {
                    return Ok(Found { base, stop, last_kept, first_lost: None });
                }
                _ => return Err(self.damaged(base)),
            }
        }
    }

    async fn time(&self, time: DateTime<Utc>) -> Result<Found<'a>> {
        let mut too_late: Option<(&BaseBackup, Reach)> = None;
        for (base, reach) in self.usable() {
            // Clocks of two hosts: what decides is whether the stop lies behind the base backup's end.
            match self.time_from(base, &reach, time).await? {
                TimeSearch::Found(found) if found.stop.1 >= base.stop_lsn => return Ok(found),
                TimeSearch::Found(_) | TimeSearch::Before => too_late = Some((base, reach)),
                TimeSearch::Behind { last } if too_late.is_some() || reach.gap.is_some() => {
                    return Err(self.in_gap(time, last, too_late.map(|(later, _)| later), reach));
                }
                TimeSearch::Behind { last } => return Err(self.after_everything(time, last)),
            }
        }
        Err(self.before_everything(time))
    }

    /// Looks for the last commit at or before `time` in what `base` reaches.
    async fn time_from(&self, base: &'a BaseBackup, reach: &Reach, time: DateTime<Utc>) -> Result<TimeSearch<'a>> {
        let size = self.wal.segment_size;
        let (first, last) = (base.start_lsn.segment(size), reach.end.previous_segment(size));
        let over = self.first_segment_over(first, last, time).await?;
        let mut from = over.saturating_sub(1).max(first);
        loop {
            let (mut kept, mut lost) = (None, None);
            self.walk(from, reach.end, |record| {
                // A rollback behind the target ends the search as well: PostgreSQL would stop there.
                if record.kind.commit_time().or(record.kind.abort_time()).is_some_and(|t| t > time) {
                    lost = transaction(record);
                    if lost.is_some() {
                        return ControlFlow::Break(());
                    }
                } else if let Some(transaction) = transaction(record) {
                    kept = Some((transaction, (record.start, record.end)));
                }
                ControlFlow::Continue(())
            })
            .await?;
            return Ok(match (kept, lost) {
                (Some((last_kept, stop)), Some(_)) => {
                    TimeSearch::Found(Found { base, stop, last_kept: Some(last_kept), first_lost: lost })
                }
                // The very last transaction at exactly the target is inside the window.
                (Some((last_kept, stop)), None) if last_kept.time == time => {
                    TimeSearch::Found(Found { base, stop, last_kept: Some(last_kept), first_lost: None })
                }
                (Some((last, _)), None) => TimeSearch::Behind { last },
                (None, _) if from > first => {
                    from = from.saturating_sub(8).max(first);
                    continue;
                }
                (None, Some(_)) | (None, None) => TimeSearch::Before,
            });
        }
    }

    /// The first segment in `first..=last` with a commit after `time`, or `last`. Commit times hardly
    /// ever fall along WAL, so halving finds it; the caller reads from one segment earlier.
    async fn first_segment_over(&self, first: u64, last: u64, time: DateTime<Utc>) -> Result<u64> {
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.latest_commit_from(middle, high).await?.is_some_and(|t| t > time) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// Latest commit time of the first segment from `number` on that has commits.
    async fn latest_commit_from(&self, number: u64, last: u64) -> Result<Option<DateTime<Utc>>> {
        for number in number..=last {
            let Some(name) = self.wal.complete(&self.line, number) else { return Ok(None) };
            if let Some(time) = self.archive.segment_summary(&name).await?.and_then(|s| s.last_commit_time) {
                return Ok(Some(time));
            }
        }
        Ok(None)
    }

    /// The last record that ends at or before `target`.
    async fn position(&self, target: Lsn, asked: &Target) -> Result<Found<'a>> {
        let size = self.wal.segment_size;
        let Some((base, reach)) = self.usable().find(|(base, _)| base.stop_lsn <= target) else {
            return Err(self.no_base(Some(target)));
        };
        if reach.end < target {
            let last = match reach.gap {
                Some(_) => self.end_of(base, &reach).await?.last_kept,
                None => None,
            };
            let later = self.bases.iter().find(|base| base.stop_lsn > target).copied();
            return Err(self.position_unreachable(target, asked, &reach, last, later));
        }
        let first = base.start_lsn.segment(size);
        let mut from = target.previous_segment(size).saturating_sub(1);
        loop {
            from = from.max(first);
            let (mut stop, mut last_kept, mut first_lost) = (None, None, None);
            let horizon = Lsn(target.0.saturating_add(4 * size)).min(reach.end);
            self.walk(from, horizon, |record| {
                if record.end <= target {
                    stop = Some((record.start, record.end));
                    last_kept = transaction(record).or(last_kept);
                    return ControlFlow::Continue(());
                }
                first_lost = transaction(record);
                if first_lost.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .await?;
            match (stop, last_kept) {
                (_, None) | (None, _) if from > first => {
                    from = from.saturating_sub((target.segment(size) - from).max(1))
                }
                (Some(stop), _) if stop.1 >= base.stop_lsn => return Ok(Found { base, stop, last_kept, first_lost }),
                _ => return Err(self.damaged(base)),
            }
        }
    }

    /// Position of a restore point: the newest of that name.
    async fn restore_point(&self, name: &str) -> Result<Lsn> {
        if let Some(capture) = self.catalogue.captures().rev().find(|c| c.restore_point.name == name) {
            return Ok(capture.restore_point.lsn);
        }
        let size = self.wal.segment_size;
        let oldest = self.bases.first().map_or(0, |b| b.start_lsn.segment(size));
        let Some((_, reach)) = self.usable().next() else { return Err(self.no_base(None)) };
        let mut number = reach.end.previous_segment(size);
        let mut known = Vec::new();
        loop {
            let mut points = Vec::new();
            match self.wal.complete(&self.line, number) {
                Some(segment) => points.extend(
                    self.archive.segment_summary(&segment).await?.map(|s| s.restore_points).into_iter().flatten(),
                ),
                None if self.wal.live(&self.line, number).is_some() => {
                    self.walk(number.saturating_sub(1).max(oldest), reach.end, |record| {
                        if let crate::postgres::wal::RecordKind::RestorePoint { name, .. } = &record.kind {
                            points.push((name.clone(), record.end));
                        }
                        ControlFlow::Continue(())
                    })
                    .await?;
                }
                None => {}
            }
            if let Some((_, lsn)) = points.iter().rev().find(|(n, _)| n == name) {
                return Ok(*lsn);
            }
            known.extend(points.into_iter().map(|(n, _)| n));
            if number <= oldest {
                break;
            }
            number -= 1;
        }
        let error = error::not_recoverable(format!(
            "no restore point is called \"{name}\" in the WAL of {}",
            self.catalogue.environment
        ));
        known.sort();
        known.dedup();
        known.truncate(10);
        Err(match known.is_empty() {
            true => error.hint("there are no named restore points; use a time instead"),
            false => error.hint(format!("restore points there: {}", known.join(", "))),
        })
    }

    /// Reads WAL from the start of segment `from` up to `end`, record by record.
    async fn walk(&self, from: u64, end: Lsn, visit: impl FnMut(&Record) -> ControlFlow<()>) -> Result<()> {
        walk(self.archive, self.wal, &self.line, from, end, visit).await
    }
}

enum TimeSearch<'a> {
    Found(Found<'a>),
    /// Everything that this base backup reaches is later.
    Before,
    /// Everything that it reaches is earlier.
    Behind {
        last: Transaction,
    },
}

fn transaction(record: &Record) -> Option<Transaction> {
    record.kind.commit_time().map(|time| Transaction { lsn: record.start, xid: record.xid, time })
}
