//! What a reader of the cluster gives back, and how its files are committed to a manifest.
//!
//! What it promises: when a reader returns `Taken`, every file is durable in the repository, and so is
//! a manifest that names them. What it does not promise: that the backup can be restored; that takes the
//! WAL from its start to its stop, and a ledger entry that commits it. Both are the caller's part, so an
//! interrupted backup leaves only objects that nothing refers to.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::harvest::Harvest;
use super::order::{Order, Span};
use super::previous::Previous;
use crate::error::{self, Result};
use crate::evidence::entry::DamagedBlock;
use crate::repository::base_manifest::Header;
use crate::repository::meta::MetaObject;
use crate::repository::{PackInfo, Written};

/// Name of the phase that reports progress.
pub const PHASE: &str = "reading the cluster";

/// A base backup whose files are stored.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) span: Span,
    /// When the last file had been read.
    pub(super) stop_time: DateTime<Utc>,
    /// How: `direct` or `streamed`.
    pub(super) reader: &'static str,
    /// Id of the backup that it builds on.
    pub(super) previous: Option<String>,
    /// Tablespaces besides the two of every cluster.
    pub(super) tablespaces: u32,
    /// Files, links and directories.
    pub(super) files: u64,
    /// Size of all files in bytes.
    pub(super) logical_bytes: u64,
    /// Packs that no earlier backup had.
    pub(super) new_packs: Vec<PackInfo>,
    /// Metadata objects with the sums of their pages.
    pub(super) sums: Vec<MetaObject>,
    /// The manifest.
    pub(super) manifest: MetaObject,
    /// Bytes read of the cluster.
    pub(super) bytes_read: u64,
    /// Blocks that were damaged at the source.
    pub(super) damaged: Vec<DamagedBlock>,
    /// What the server warned of.
    pub(super) warnings: Vec<String>,
}

impl Taken {
    /// Writes the manifest of what was harvested.
    pub(super) async fn commit(
        order: &Order<'_>,
        span: Span,
        reader: &'static str,
        previous: &Previous,
        harvest: Harvest,
        written: Written,
    ) -> Result<Self> {
        let header = Header {
            id: order.id.to_owned(),
            system_id: span.system_id,
            timeline: span.timeline,
            start_lsn: span.start_lsn,
            server_version: span.server_version,
            wal_segment_size: span.wal_segment_size,
            hints_logged: span.hints_logged,
            previous: previous.id.clone(),
        };
        let manifest = harvest.into_manifest(header, previous, &written)?;
        let new: HashSet<&str> = written.packs.iter().map(|p| p.sha256.as_str()).collect();
        let is_new = |p: &&PackInfo| new.contains(p.sha256.as_str()) || previous.is_adopted(&p.sha256);
        let new_packs = manifest.packs.packs().iter().filter(is_new).cloned().collect();
        let object = manifest.put(order.repository, order.environment).await?;
        Ok(Self {
            span,
            stop_time: order.runtime.now(),
            reader,
            previous: previous.id.clone(),
            tablespaces: manifest.links.len() as u32,
            files: (manifest.files.len() + manifest.links.len() + manifest.dirs.len()) as u64,
            logical_bytes: manifest.logical_bytes(),
            new_packs,
            sums: previous.adopted_sums.iter().chain(&written.sums).cloned().collect(),
            manifest: object,
            bytes_read: 0,
            damaged: Vec::new(),
            warnings: Vec::new(),
        })
    }
}

/// A new id, from the time: sorts by age and is easy to say on the phone (`20261122T203505Z-3f9a`).
pub fn new_id(now: DateTime<Utc>) -> Result<String> {
    let mut random = [0; 2];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| error::internal("the operating system gives no random numbers"))?;
    Ok(format!("{}-{}", now.format("%Y%m%dT%H%M%SZ"), hex::encode(random)))
}
