//! What a watcher stored since the last capture: pieces, in `filestore-live/<tenant>/`.
//!
//! ```text
//! {"piece": …} {"pack": …}… {"add": […]}…
//! ```
//!
//! A piece commits itself, as a piece of WAL does: it is create-only, its name ends with the SHA-256 of
//! its bytes, and it is sealed under the index key; its packs were durable before it. So attachments are
//! safe within a second or so, and the ledger does not grow by an entry every few seconds. A piece only
//! ever adds files. What it says of completeness is its mark: everything that the database referred to
//! up to there is stored by it, by earlier pieces or by the capture before them.
//!
//! The next capture takes pieces over: what they stored that is still at the source and lies in small packs is
//! read again, into full ones; the rest is adopted. When its ledger entry is written, it deletes them.

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::index::{Index, Record};
use super::name::FileName;
use super::segments::Header;
use super::tenants::Tenant;
use crate::error::{self, Result};
use crate::repository::catalogue::LiveMark;
use crate::repository::meta::{self, MetaWriter};
use crate::repository::{PackInfo, PackTable, Repository};
use crate::storage::layout;
use crate::units::Lsn;

/// The format that this Lifeboat writes and reads.
const FORMAT: u32 = 1;

/// Packs of this size are good enough to stay.
const LARGE: u64 = 4 << 20;

/// Pieces read at the same time.
const PARALLEL: usize = 16;

/// Up to where in the WAL a watcher is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) lsn: Lsn,
    pub(super) time: DateTime<Utc>,
}

/// Whose piece it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PieceHeader {
    pub(super) format: u32,
    pub(super) data_dir: String,
    pub(super) database: String,
    pub(super) database_uuid: Option<String>,
    pub(super) stored_at: DateTime<Utc>,
    /// The newest mark that was proven; null before there is one.
    pub(super) complete_to: Option<Mark>,
    /// Files that were gone before they could be read, since the previous piece.
    pub(super) unseen: u64,
}

impl PieceHeader {
    pub(super) fn new(tenant: &Tenant, uuid: Option<&str>, now: DateTime<Utc>) -> Self {
        Self {
            format: FORMAT,
            data_dir: tenant.data_dir.to_string_lossy().into_owned(),
            database: tenant.database.clone(),
            database_uuid: uuid.map(str::to_owned),
            stored_at: now,
            complete_to: None,
            unseen: 0,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Piece(PieceHeader),
    Pack(PackInfo),
    /// Name, length, frame (counted from the piece's first pack), offset, when it was stored.
    Add(FileName, u64, u64, u32, u32),
}

/// A piece in memory; frames are counted from its first pack.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) key: String,
    pub(super) header: PieceHeader,
    pub(super) packs: Vec<PackInfo>,
    pub(super) records: Vec<Record>,
}

impl Piece {
    /// Whether its packs may stay as they are.
    pub(super) fn is_large(&self) -> bool {
        !self.packs.is_empty() && self.packs.iter().map(|p| p.size).sum::<u64>() >= LARGE
    }
}

/// The folder of a tenant: the same after its database was renamed, where its uuid is known.
pub(super) fn tenant_key(tenant: &Tenant, uuid: Option<&str>) -> String {
    let whose = match uuid {
        Some(uuid) => format!("uuid {uuid}"),
        None => format!("path {}", tenant.directory().display()),
    };
    hex::encode(&Sha256::digest(whose)[..8])
}

/// Puts a piece; its key.
pub(super) async fn put(
    repository: &Repository,
    environment: &str,
    tenant: &str,
    header: &PieceHeader,
    packs: &[PackInfo],
    records: &[Record],
) -> Result<String> {
    let mut writer = MetaWriter::new(repository)?;
    writer.line(&Line::Piece(header.clone()))?;
    for pack in packs {
        writer.line(&Line::Pack(pack.clone()))?;
    }
    for r in records {
        writer.line(&Line::Add(r.name, r.length, r.frame(), r.offset, r.first_seen()))?;
    }
    let micros = header.stored_at.timestamp_micros();
    let key = |sha256: &str| layout::filestore_live_piece(environment, tenant, micros, sha256);
    let object = writer.put_as(repository, key).await?;
    Ok(key(&object.sha256))
}

/// Keys of the pieces of an environment, or of one of its tenants, oldest first.
async fn keys(repository: &Repository, environment: &str, tenant: Option<&str>) -> Result<Vec<String>> {
    let mut prefix = layout::filestore_live(environment);
    if let Some(tenant) = tenant {
        prefix += &format!("{tenant}/");
    }
    let mut keys: Vec<String> = repository.store.list(&prefix).await?.into_iter().map(|o| o.key).collect();
    keys.sort_unstable();
    Ok(keys)
}

/// Reads a piece; `None` where a capture has taken it over meanwhile.
async fn read(repository: &Repository, key: String) -> Result<Option<Piece>> {
    let Some(bytes) = repository.store.find(&key).await? else { return Ok(None) };
    if !key.ends_with(&format!("-{}", hex::encode(Sha256::digest(&bytes)))) {
        return Err(error::integrity(format!("{key} is damaged: its bytes do not match its name"))
            .meaning("attachments that were stored since the last capture may be lost; the next capture reads what is still at the source"));
    }
    let (mut header, mut packs, mut records) = (None, Vec::new(), Vec::new());
    meta::lines(repository, &key, &bytes, |line: Line| {
        match line {
            Line::Piece(first) if first.format == FORMAT => header = Some(first),
            Line::Piece(other) => {
                return Err(error::integrity(format!(
                    "{key} has format {}; this program reads {FORMAT}",
                    other.format
                ))
                .hint("a newer Lifeboat wrote it: use that one"));
            }
            Line::Pack(pack) => packs.push(pack),
            Line::Add(name, length, frame, offset, seen) => {
                records.push(Record::new(name, length, frame, offset, seen)?);
            }
        }
        Ok(())
    })?;
    let header = header.ok_or_else(|| error::integrity(format!("{key} is no piece of a filestore")))?;
    Ok(Some(Piece { key, header, packs, records }))
}

/// The pieces of one tenant, oldest first. Damaged ones are told to `damaged` and left out.
pub(super) async fn pieces(
    repository: &Repository,
    environment: &str,
    tenant: Option<&str>,
    damaged: &mut Vec<String>,
) -> Result<Vec<Piece>> {
    let keys = keys(repository, environment, tenant).await?;
    let mut reading = futures::stream::iter(keys).map(|key| read(repository, key)).buffered(PARALLEL);
    let mut pieces = Vec::new();
    loop {
        match reading.try_next().await {
            Ok(Some(piece)) => pieces.extend(piece),
            Ok(None) => return Ok(pieces),
            Err(e) if e.kind() == crate::error::ErrorKind::Integrity => damaged.push(e.message()),
            Err(e) => return Err(e),
        }
    }
}

/// What the pieces of a database hold, as an index of their own; `None` where there are none. A database
/// is found by its name or by its uuid.
pub async fn index(
    repository: &Repository,
    environment: &str,
    database: &str,
    uuid: Option<&str>,
) -> Result<(Option<Index>, Vec<String>)> {
    let mut damaged = Vec::new();
    let mut pieces = pieces(repository, environment, None, &mut damaged).await?;
    pieces.retain(|p| p.header.database == database || uuid.is_some() && p.header.database_uuid.as_deref() == uuid);
    let Some(newest) = pieces.last().map(|p| p.header.clone()) else { return Ok((None, damaged)) };
    let header = Header::new("watched", newest.data_dir, &newest.database, newest.database_uuid, newest.stored_at);
    let mut index = Index::empty(header);
    index.adopt(pieces.into_iter().map(|piece| (piece.packs, piece.records)))?;
    index.packs = PackTable::new(index.pending.clone());
    Ok((Some(index), damaged))
}

/// How far each database of an environment is complete by what its watcher stored: read from the newest
/// piece of each.
pub async fn marks(repository: &Repository, environment: &str) -> Result<Vec<LiveMark>> {
    let mut newest: Vec<String> = Vec::new();
    let folder = |key: &str| key.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    for key in keys(repository, environment, None).await? {
        match newest.last_mut().filter(|last| folder(last) == folder(&key)) {
            Some(last) => *last = key,
            None => newest.push(key),
        }
    }
    let mut marks = Vec::new();
    for key in newest {
        let Some(piece) = read(repository, key).await? else { continue };
        let header = piece.header;
        if let Some(mark) = header.complete_to {
            let (database, database_uuid) = (header.database, header.database_uuid);
            marks.push(LiveMark { database, database_uuid, lsn: mark.lsn, time: mark.time });
        }
    }
    Ok(marks)
}
