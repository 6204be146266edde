//! What can be restored, as read from the store: the windows of an environment with the times of their
//! newest commits, which stand in the sealed summaries of archived WAL. The index key is enough.

use chrono::{DateTime, Utc};

use super::Repository;
use super::catalogue::Catalogue;
use super::coverage::{Coverage, Leg};
use super::wal_archive::{WalArchive, chain};
use super::window::{self, BaseReach, Window};
use crate::error::Result;
use crate::units::{Lsn, Timeline};

/// How many segments without a commit are looked through before the search is given up. With the
/// heartbeat a commit is never far; only one long transaction can fill so many.
const LOOK_BACK: u64 = 64;

/// Where WAL ends: the position, its timeline, and the line of history that is followed.
type End = (Lsn, Timeline, Timeline);

/// What can be restored of one environment.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// The base backups, oldest first, with what their WAL reaches.
    pub bases: Vec<BaseReach>,
    /// The windows, oldest first.
    pub windows: Vec<Window>,
    /// Ends of WAL whose newest commit could not be found out, and why.
    pub troubles: Vec<String>,
}

impl Recovery {
    /// Finds out what can be restored. A damaged summary costs the time of a window's end, not the window.
    pub async fn load(repository: &Repository, catalogue: &Catalogue) -> Self {
        let bases = window::reaches(catalogue.bases(), catalogue.wal.as_ref());
        let archive = WalArchive::new(repository, &catalogue.environment);
        let mut troubles = Vec::new();
        let mut known: Vec<(End, Option<DateTime<Utc>>)> = Vec::new();
        if let Some(wal) = &catalogue.wal {
            for base in &bases {
                let Some((end, timeline)) = base.end else { continue };
                let place = (end, timeline, base.line);
                if known.iter().any(|(there, _)| *there == place) {
                    continue;
                }
                let found = last_commit(archive, wal, &wal.line(base.line), end).await;
                let time = found.unwrap_or_else(|e| {
                    troubles.push(format!("the newest commit before {end} is not known: {e}"));
                    None
                });
                known.push((place, time));
            }
        }
        let last_commit = |base: &BaseReach| {
            let place = base.end.map(|(end, timeline)| (end, timeline, base.line))?;
            known.iter().find(|(there, _)| *there == place)?.1
        };
        let windows = window::windows(&bases, last_commit);
        Self { bases, windows, troubles }
    }

    /// The window that ends latest: where a restore to `latest` goes.
    pub fn newest(&self) -> Option<&Window> {
        self.windows.iter().max_by_key(|w| (w.to.time, w.line))
    }
}

/// The time of the newest commit before `end` along `line`, from the summaries of the last segments.
pub async fn last_commit(
    archive: WalArchive<'_>,
    wal: &Coverage,
    line: &[Leg],
    end: Lsn,
) -> Result<Option<DateTime<Utc>>> {
    let last = end.previous_segment(wal.segment_size);
    for number in (last.saturating_sub(LOOK_BACK)..=last).rev() {
        let time = if let Some(segment) = wal.complete(line, number) {
            archive.segment_summary(&segment).await?.and_then(|s| s.last_commit_time)
        } else if let Some((segment, _)) = wal.live(line, number) {
            let mut newest = None;
            for piece in chain(archive.pieces(&segment).await?).iter().rev() {
                newest = archive.piece_summary(piece).await?.and_then(|(_, s)| s.last_commit_time);
                if newest.is_some() {
                    break;
                }
            }
            newest
        } else {
            return Ok(None);
        };
        if time.is_some() {
            return Ok(time);
        }
    }
    Ok(None)
}
