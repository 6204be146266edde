//! Which cluster an environment's backups belong to.

use crate::error::{self, Result};
use crate::evidence::{Body, LedgerEntry};
use crate::repository::Repository;
use crate::repository::wal_archive::WalArchive;
use crate::wal_name::{SegmentName, WalFileName};

/// System identifier of the environment's cluster: of its latest base backup, else of archived WAL.
/// `None` where nothing was backed up yet.
pub async fn known_cluster(repository: &Repository, environment: &str, entries: &[LedgerEntry]) -> Result<Option<u64>> {
    let base = entries.iter().rev().find_map(|e| match &e.statement.predicate.body {
        Body::BaseBackup(base) => base.system_id.parse().ok(),
        _ => None,
    });
    match base {
        Some(system_id) => Ok(Some(system_id)),
        None => cluster_of_wal(WalArchive::new(repository, environment)).await,
    }
}

/// System identifier in the summaries of archived WAL, pieces included.
async fn cluster_of_wal(archive: WalArchive<'_>) -> Result<Option<u64>> {
    for timeline in archive.timelines().await?.into_iter().rev() {
        for (name, _) in archive.list(timeline).await?.into_iter().rev() {
            if let WalFileName::Segment(segment) = name
                && let Some(system_id) = cluster_of_segment(archive, &segment).await?
            {
                return Ok(Some(system_id));
            }
        }
        for segment in archive.live_segments(timeline).await? {
            for piece in archive.pieces(&segment).await? {
                if let Some((_, summary)) = archive.piece_summary(&piece).await? {
                    return Ok(Some(summary.system_id));
                }
            }
        }
    }
    Ok(None)
}

/// System identifier in the summary of one archived segment.
pub(super) async fn cluster_of_segment(archive: WalArchive<'_>, segment: &SegmentName) -> Result<Option<u64>> {
    Ok(archive.segment_summary(segment).await?.map(|s| s.system_id))
}

/// Refuses another cluster than the one that the environment's backups came from.
pub(super) fn same_cluster(known: Option<u64>, found: u64, environment: &str) -> Result<()> {
    match known.filter(|known| *known != found) {
        None => Ok(()),
        Some(known) => Err(error::integrity(format!(
            "this is another cluster: its system identifier is {found}, the backups of \"{environment}\" are of {known}"
        ))
        .meaning("nothing was kept of it: mixed with the WAL of the other it could destroy a recovery")
        .hint("check `postgres.dsn`, or which server's archive_command points here")
        .hint("a cluster that replaces the old one (initdb, pg_upgrade) needs an environment of its own")),
    }
}
