//! What a reader of the cluster is told, and between which places of WAL it read.

use chrono::{DateTime, Utc};

use super::block_files::BlockFiles;
use super::wal::TimelineHistory;
use crate::repository::Repository;
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};

/// What a reader needs to know.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) repository: &'a Repository,
    pub(super) environment: &'a str,
    /// Id of the backup.
    pub(super) id: &'a str,
    /// The label given to PostgreSQL.
    pub(super) label: &'a str,
    /// Checkpoint at once, instead of spread over `checkpoint_timeout`.
    pub(super) fast_checkpoint: bool,
    /// Bytes per second that may be read.
    pub(super) max_rate: Option<u64>,
    /// zstd level.
    pub(super) level: i32,
    /// What is kept of the blocks that WAL changed; `None` where nothing is to be made of it.
    pub(super) blocks: Option<BlockFiles>,
    /// Timeline of the cluster, with those before.
    pub(super) history: TimelineHistory,
    pub(super) runtime: &'a Runtime,
}

/// Between which places of WAL a backup was taken, and of what.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) system_id: u64,
    pub(super) timeline: Timeline,
    pub(super) start_lsn: Lsn,
    pub(super) stop_lsn: Lsn,
    pub(super) start_time: DateTime<Utc>,
    pub(super) server_version: u32,
    pub(super) wal_segment_size: u64,
    /// Pages carry checksums.
    pub(super) checksums: bool,
    /// Data checksums or `wal_log_hints` are on.
    pub(super) hints_logged: bool,
}
