//! Puts sealed WAL into the store, one object after the other, and says what is durable.
//!
//! What is told through `durable` is in the store without a hole from where receiving began.

use std::sync::{Arc, Mutex};

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
}

impl Storer {
    /// Stores everything, to the end of the channel.
    pub(super) async fn run(self, mut jobs: mpsc::Receiver<Job>) -> Result<()> {
        while let Some(job) = jobs.recv().await {
            self.store(job).await?;
        }
        Ok(())
    }

    async fn store(&self, job: Job) -> Result<()> {
        let archive = WalArchive::new(&self.repository, &self.environment);
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
            }
            Job::Segment { name, sealed, summary, has_pieces } => {
                let file = WalFileName::Segment(name);
                let end = summary.end;
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
