//! Puts sealed WAL into the store, one object after the other, and says what is durable.
//!
//! What is told through `durable` is in the store without a hole from where receiving began.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::intake::Job;
use crate::error::Result;
use crate::event::Event;
use crate::postgres::wal_range::StoredSegments;
use crate::repository::Repository;
use crate::repository::wal_archive::{Piece, WalArchive, WalSummary};
use crate::runtime::Runtime;
use crate::storage::layout;
use crate::units::Lsn;
use crate::wal_name::{SegmentName, WalFileName};

/// Others' pieces are looked for after the first pause, then after pauses that grow up to the second: whoever else stores
/// some does so from the start.
const LOOKS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What one run of the receiver stored.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) segments: u64,
    pub(super) pieces: u64,
    pub(super) stored_bytes: u64,
    /// Of the segments that this process wrote itself.
    pub(super) stored: StoredSegments,
    /// Deleting superfluous pieces failed once; that is told once.
    warned: bool,
}

#[derive(Debug)]
pub(super) struct Storer {
    pub(super) repository: Arc<Repository>,
    pub(super) environment: String,
    pub(super) runtime: Runtime,
    pub(super) durable: watch::Sender<Lsn>,
    pub(super) tally: Arc<Mutex<Tally>>,
    /// Told once somebody else's pieces are found.
    pub(super) others: watch::Sender<bool>,
    /// The pieces that this process stored or compared.
    pub(super) own: HashSet<String>,
    /// When others' pieces were looked for last.
    pub(super) looked: Option<Instant>,
    /// How long after that they are looked for again.
    pub(super) pause: Duration,
}

impl Storer {
    /// Stores everything, to the end of the channel.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) -> Result<()> {
        while let Some(job) = jobs.recv().await {
            self.store(job).await?;
        }
        Ok(())
    }

    async fn store(&mut self, job: Job) -> Result<()> {
        let (repository, environment) = (Arc::clone(&self.repository), self.environment.clone());
        let archive = WalArchive::new(&repository, &environment);
        match job {
            Job::Piece { segment, offset, sealed, summary, replaces } => {
                let end = summary.end;
                let piece = archive.put_piece(&segment, offset, sealed, summary).await?;
                self.tell(end);
                self.count(|t| {
                    t.pieces += 1;
                    t.stored_bytes += piece.size;
                });
                let replaced = replaces.into_iter().map(|(offset, end)| self.piece(&segment, offset, end)).collect();
                self.tidied(self.delete(archive, replaced).await);
                self.own.insert(piece.key);
                self.look_for_others(archive, &segment).await?;
            }
            Job::Segment { name, sealed, summary, has_pieces } => {
                let file = WalFileName::Segment(name);
                let end = summary.end;
                let folder = layout::wal_live_segment(&environment, name.timeline, &name.to_string());
                self.own.retain(|key| !key.starts_with(&folder));
                // It may be one that is compared, and a whole segment need not be sent for that.
                if archive.same(&file, &sealed).await? {
                    self.tell(end);
                } else {
                    let stored = archive.put(&file, sealed, Some(&WalSummary::Segment(summary))).await?;
                    self.runtime.emit(Event::WalStored { name: name.to_string(), stored: stored.size });
                    self.tell(end);
                    self.count(|t| {
                        t.segments += 1;
                        t.stored_bytes += stored.size;
                        if let Some(sha256) = stored.sha256 {
                            t.stored.insert(name, (stored.size, sha256));
                        }
                    });
                }
                if has_pieces {
                    let deleted = match archive.pieces(&name).await {
                        Ok(pieces) => self.delete(archive, pieces).await,
                        Err(e) => Err(e),
                    };
                    self.tidied(deleted);
                }
            }
            Job::Verified(end) => self.tell(end),
        }
        Ok(())
    }

    /// Two servers that write the same timeline differ only in bytes: a clone's receiver stores pieces beside ours,
    /// and none has a name that the other wants. A base backup's own receiver does so, too, with the same bytes.
    async fn look_for_others(&mut self, archive: WalArchive<'_>, segment: &SegmentName) -> Result<()> {
        let (first, longest) = LOOKS;
        let pause = self.pause.max(first);
        if self.looked.is_some_and(|looked| looked.elapsed() < pause) {
            return Ok(());
        }
        self.pause = if self.looked.is_some() { (pause * 2).min(longest) } else { first };
        self.looked = Some(Instant::now());
        if archive.pieces(segment).await?.iter().any(|piece| !self.own.contains(&piece.key)) {
            self.others.send_replace(true);
        }
        Ok(())
    }

    /// Never less than before: what is compared again is durable already.
    fn tell(&self, durable: Lsn) {
        let more = |known: &mut Lsn| durable > std::mem::replace(known, durable.max(*known));
        if self.durable.send_if_modified(more) {
            self.runtime.emit(Event::WalDurable { lsn: durable });
        }
    }

    fn piece(&self, segment: &SegmentName, offset: u64, end: u64) -> Piece {
        let key = layout::wal_live_piece(&self.environment, segment.timeline, &segment.to_string(), offset, end);
        Piece { key, offset, end, size: 0 }
    }

    async fn delete(&self, archive: WalArchive<'_>, pieces: Vec<Piece>) -> Result<()> {
        if pieces.is_empty() { Ok(()) } else { archive.delete_pieces(pieces).await }
    }

    /// Superfluous pieces do no harm, so a store that does not let them be deleted is no reason to stop.
    fn tidied(&self, deleted: Result<()>) {
        if let Err(e) = deleted
            && !self.count(|t| std::mem::replace(&mut t.warned, true))
        {
            self.runtime.emit(Event::Warning(format!(
                "pieces of WAL that are no longer needed cannot be deleted, so wal-live/ will grow: {e}"
            )));
        }
    }

    fn count<T>(&self, change: impl FnOnce(&mut Tally) -> T) -> T {
        change(&mut self.tally.lock().expect("no holder panics"))
    }
}
