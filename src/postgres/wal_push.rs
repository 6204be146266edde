//! Archiving one file of `pg_wal`, for PostgreSQL's `archive_command`.
//!
//! When [`push`] returns, the file is durable in the repository under its name, whether it was just
//! written or stood there with the same content. A segment is checked before: cluster, position,
//! checksums of its records.

use std::path::Path;

use super::block_files::{BlockFiles, Keeper, Stretch};
use super::identity::{cluster_of_segment, known_cluster, same_cluster};
use super::wal::segment::{Carry, validate};
use super::wal::{SegmentHeader, SegmentName, TimelineHistory, WalFileName, WalReader};
use super::wal_receive::{diverged, left_behind, piece_macs, summary};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::repository::wal_archive::{StoredWal, WalArchive, WalSummary};
use crate::storage::Created;
use crate::units::Lsn;
use crate::vault::Class;

/// A file that is archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Its name.
    pub name: WalFileName,
    /// Whether this call wrote it.
    pub created: Created,
    /// Stored size in bytes, where this call wrote it.
    pub stored: Option<u64>,
}

/// Archives the file at `path`, and keeps in `blocks` which blocks of relations it changes.
pub async fn push(
    repository: &Repository,
    environment: &str,
    path: &Path,
    level: i32,
    blocks: Option<&BlockFiles>,
) -> Result<Pushed> {
    let name: WalFileName = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| error::usage(format!("{} names no WAL file", path.display())))?
        .parse()?;
    let bytes = tokio::fs::read(path).await.or_err(ErrorKind::Source, || format!("cannot read {}", path.display()))?;
    let archive = WalArchive::new(repository, environment);
    let mut mac = repository.seal.index.content_mac();
    mac.update(&bytes);
    if archive.holds(&name, &mac.finish()).await? == Some(true) {
        if let (WalFileName::Segment(segment), Some(files)) = (&name, blocks)
            && !files.read(segment).is_ok_and(|kept| kept.is_complete())
        {
            // Archived by a receiver, or by a process that ended too early to keep them.
            keep(check(repository, environment, &name, &bytes, blocks).await.ok().and_then(|(_, found)| found), blocks);
        }
        return Ok(Pushed { name, created: Created::Same, stored: None });
    }
    let (about, changed) = check(repository, environment, &name, &bytes, blocks).await?;
    if let WalFileName::Segment(segment) = &name {
        belongs(repository, environment, segment, &bytes).await?;
    }
    let seal = archive.sealer(Class::Wal, level)?;
    let sealed = tokio::task::spawn_blocking(move || {
        let mut sealer = seal;
        sealer.write(&bytes);
        sealer
    });
    let sealed = sealed.await.or_err(ErrorKind::Internal, || "sealing ended unexpectedly".to_owned())?;
    let StoredWal { created, size, .. } = archive.put(&name, sealed, about.as_ref()).await?;
    keep(changed, blocks);
    Ok(Pushed { name, created, stored: (created == Created::New).then_some(size) })
}

/// Only what is archived is kept: other WAL of the same name may not be this line's.
fn keep(changed: Option<Stretch>, blocks: Option<&BlockFiles>) {
    if let (Some(changed), Some(files)) = (changed, blocks) {
        files.complete(&changed);
    }
}

/// Refuses a segment of an old primary or a clone: one that ends behind the place where its timeline was left, or
/// that differs from the pieces of it which a receiver stored. It would be kept under a name that nothing has yet.
async fn belongs(repository: &Repository, environment: &str, segment: &SegmentName, bytes: &[u8]) -> Result<()> {
    let archive = WalArchive::new(repository, environment);
    let end = Lsn(segment.start(bytes.len() as u64)?.0 + bytes.len() as u64);
    for newer in archive.timelines().await?.into_iter().filter(|timeline| *timeline > segment.timeline) {
        let Some(text) = archive.history(newer).await? else { continue };
        let left = TimelineHistory::parse(newer, &text)?.switch_from(segment.timeline);
        if let Some(left) = left.filter(|left| *left < end) {
            return Err(left_behind(&format!("{segment} ends at {end}"), segment.timeline, left, newer));
        }
    }
    let index = &repository.seal.index;
    for (piece, known) in piece_macs(archive, archive.pieces(segment).await?).await? {
        let mut mac = index.content_mac();
        mac.update(bytes.get(piece.offset as usize..piece.end as usize).unwrap_or_default());
        if mac.finish() != known {
            return Err(diverged(&piece.key));
        }
    }
    Ok(())
}

/// Checks what can be checked of a file; says what the archive is to know of it and which blocks it changes.
async fn check(
    repository: &Repository,
    environment: &str,
    name: &WalFileName,
    bytes: &[u8],
    blocks: Option<&BlockFiles>,
) -> Result<(Option<WalSummary>, Option<Stretch>)> {
    let about = match name {
        WalFileName::Segment(segment) => {
            let header = SegmentHeader::parse(bytes).map_err(|e| e.context(name))?;
            let size = header.segment_size;
            same_cluster(known(repository, environment, segment, size).await?, header.system_identifier, environment)?;
            let start = segment.start(size)?;
            let system_id = header.system_identifier;
            let (keeper, carry) = match blocks {
                Some(files) => {
                    let mut reader = WalReader::new(size, start, Some(system_id))?;
                    let keeper = Keeper::begin(files.clone(), &mut reader, system_id, segment.timeline, size);
                    (Some(keeper), Some(Carry::collecting(reader)))
                }
                None => (None, None),
            };
            let validated = validate(segment, bytes, system_id, size, carry)?;
            let counted = summary(&validated.summary, system_id, start, Lsn(start.0 + size));
            let changed = keeper.and_then(|keeper| keeper.finish(bytes, validated.carry.into_reader()));
            return Ok((Some(WalSummary::Segment(counted)), changed));
        }
        WalFileName::Partial(segment) => {
            let header = SegmentHeader::parse(bytes).map_err(|e| e.context(name))?;
            let known = known(repository, environment, segment, header.segment_size).await?;
            same_cluster(known, header.system_identifier, environment)?;
            None
        }
        WalFileName::History { timeline } => {
            let text = std::str::from_utf8(bytes).or_err(ErrorKind::Integrity, || format!("{name} is not text"))?;
            TimelineHistory::parse(*timeline, text)?;
            Some(WalSummary::History(text.to_owned()))
        }
        WalFileName::BackupHistory { .. } => None,
    };
    Ok((about, None))
}

/// The environment's cluster: cheaply from the segment before, else from whatever there is.
async fn known(
    repository: &Repository,
    environment: &str,
    segment: &SegmentName,
    segment_size: u64,
) -> Result<Option<u64>> {
    let archive = WalArchive::new(repository, environment);
    if let Some(before) = segment.number(segment_size)?.checked_sub(1)
        && let Some(system_id) =
            cluster_of_segment(archive, &SegmentName::new(segment.timeline, before, segment_size)).await?
    {
        return Ok(Some(system_id));
    }
    let entries = ledger(repository, environment).await?.entries().await?;
    known_cluster(repository, environment, &entries).await
}
