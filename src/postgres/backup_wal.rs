//! The WAL without which a base backup is worthless: held back by the server from before the backup
//! begins, and in the repository before the backup counts.
//!
//! A temporary slot in a second session keeps the WAL. Where no other receiver uses the configured slot,
//! that session streams it while the backup runs; where one does, the backup waits for it, and the
//! temporary slot is the way out if it does not deliver.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::replication::{ReplicationConnection, SlotCreated};
use super::source::Source;
use super::sql::explain;
use super::wal_receive::{ReceiveOptions, Slot, Until, receive};
use crate::config::Environment;
use crate::error::{self, Result};
use crate::event::Event;
use crate::repository::Repository;
use crate::repository::wal_archive::{WalArchive, chain};
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};
use crate::wal_name::SegmentName;

/// Between two looks at an archive that another receiver fills.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// WAL that a base backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needed {
    pub(super) timeline: Timeline,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
    pub(super) segment_size: u64,
}

/// Holds WAL back and sees to it that it is archived.
#[derive(Debug)]
pub(super) struct WalKeeper<'a> {
    repository: &'a Repository,
    environment: &'a Environment,
    level: i32,
    runtime: &'a Runtime,
    standby: bool,
    other_receiver: bool,
    slot: Slot,
}

impl<'a> WalKeeper<'a> {
    /// Makes the server keep all WAL from now on.
    pub(super) async fn hold(
        repository: &'a Repository,
        environment: &'a Environment,
        source: &Source,
        id: &str,
        level: i32,
        runtime: &'a Runtime,
    ) -> Result<Self> {
        let name = slot_name(id);
        let mut connection: ReplicationConnection = source.backup_replication().await?;
        if connection.create_physical_slot(&name, true).await? != SlotCreated::Created {
            return Err(error::internal(format!("the replication slot \"{name}\" exists already")));
        }
        let sql = source.sql().await?;
        let row = sql
            .query_one(
                "SELECT pg_is_in_recovery(), EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active)",
                &[&environment.postgres.slot],
            )
            .await
            .map_err(|e| explain(e, "cannot look at the replication slots"))?;
        let slot = Slot::Temporary { connection: Box::new(connection), name };
        let (standby, other_receiver) = (row.get(0), row.get(1));
        Ok(Self { repository, environment, level, runtime, standby, other_receiver, slot })
    }

    /// Runs `backup`, which tells what WAL it needs; returns its result when that WAL is in the repository.
    pub(super) async fn during<T>(
        self,
        backup: impl Future<Output = Result<T>>,
        needed: impl Fn(&T) -> Needed,
    ) -> Result<T> {
        let Self { repository, environment, level, runtime, standby, other_receiver, slot } = self;
        let archive = WalArchive::new(repository, &environment.name);
        let patience = repository.store.retry().give_up_after;
        let (tell, until) = Until::told();
        let stop = CancellationToken::new();
        // The WAL of one backup does not reach to the next one's, so its blocks are of no use.
        let options =
            ReceiveOptions { slot, until, heartbeat: false, level, give_up_after: Some(patience), blocks: None };
        let receiving = receive(repository, environment, options, &stop, runtime);
        let done = if other_receiver {
            let done = backup.await?;
            let wanted = needed(&done);
            if !wait(archive, &wanted, standby, patience).await? {
                runtime.emit(Event::Warning(format!(
                    "the receiver on slot \"{}\" does not deliver; the backup receives its WAL itself",
                    environment.postgres.slot
                )));
                tell.send_replace(Some(end(&wanted, standby)));
                receiving.await?;
            }
            done
        } else {
            let mut receiving = std::pin::pin!(receiving);
            let done = tokio::select! {
                done = backup => done?,
                ended = &mut receiving => {
                    return Err(ended.err().unwrap_or_else(|| error::internal("receiving ended before the backup")));
                }
            };
            tell.send_replace(Some(end(&needed(&done), standby)));
            receiving.await?;
            done
        };
        match missing(archive, &needed(&done), standby).await? {
            None => Ok(done),
            Some(name) => {
                Err(error::repository(format!("{name}, which the base backup needs, is not in the repository"))
                    .meaning("the backup could not be restored, so it was not committed")
                    .hint("run it again; `lifeboat doctor` looks at the store and at PostgreSQL"))
            }
        }
    }
}

/// Up to where WAL must be durable: a primary switches segments at the end of a backup, so that the last
/// one becomes complete; a standby cannot.
fn end(needed: &Needed, standby: bool) -> Lsn {
    if standby {
        return needed.stop;
    }
    Lsn((needed.stop.previous_segment(needed.segment_size) + 1) * needed.segment_size)
}

/// Waits for another receiver to archive what is needed; whether it did.
async fn wait(archive: WalArchive<'_>, needed: &Needed, standby: bool, patience: Duration) -> Result<bool> {
    let began = Instant::now();
    while missing(archive, needed, standby).await?.is_some() {
        if began.elapsed() >= patience {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(true)
}

/// The first segment that is needed and not archived.
async fn missing(archive: WalArchive<'_>, needed: &Needed, standby: bool) -> Result<Option<SegmentName>> {
    let size = needed.segment_size;
    let last = needed.stop.previous_segment(size);
    for number in needed.start.segment(size)..=last {
        let name = SegmentName::new(needed.timeline, number, size);
        if archive.segment_summary(&name).await?.is_some() {
            continue;
        }
        let live = match standby && number == last {
            true => chain(archive.pieces(&name).await?).last().map_or(0, |p| p.end),
            false => 0,
        };
        if number * size + live < needed.stop.0.min((number + 1) * size) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// A slot name of the letters that PostgreSQL allows.
fn slot_name(id: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    format!("lifeboat_{}", id.chars().map(allowed).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_completes_the_last_segment_and_a_standby_cannot() {
        let needed = |stop| Needed { timeline: Timeline(1), start: Lsn(5), stop: Lsn(stop), segment_size: 1 << 20 };
        assert_eq!(end(&needed(3 << 20), false), Lsn(3 << 20));
        assert_eq!(end(&needed((3 << 20) + 1), false), Lsn(4 << 20));
        assert_eq!(end(&needed((3 << 20) + 1), true), Lsn((3 << 20) + 1));
        assert_eq!(slot_name("20261122T203505Z-3f9a"), "lifeboat_20261122t203505z_3f9a");
    }
}
