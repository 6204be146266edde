//! What a WAL record says, as far as recovery targets, counting and evidence need it.
//!
//! Layouts: `src/include/access/{xlogrecord.h,xlog_internal.h,xact.h,rmgrlist.h}`,
//! `src/include/catalog/pg_control.h`, `src/include/replication/message.h`. How they are read from
//! bytes is in `decode.rs`.

use chrono::{DateTime, Utc};

use crate::units::{Lsn, Timeline};

use super::bytes::Fields;

/// A record of WAL whose checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// First byte of the record, behind any page header; what `pg_waldump` prints as `lsn`.
    pub start: Lsn,
    /// Where the next record may begin, as PostgreSQL counts (`EndRecPtr`): aligned to 8 bytes, not
    /// moved over a following page header; the segment's end for a switch.
    pub end: Lsn,
    /// The transaction that wrote it; 0 for none.
    pub xid: u32,
    /// Number of the resource manager (`rmgrlist.h`); from 128 on an extension's.
    pub rmgr: u8,
    /// `xl_info`: what kind of record, for its resource manager.
    pub info: u8,
    /// Bytes of the record, header included.
    pub length: u32,
    /// What it says.
    pub kind: RecordKind,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKind {
    /// A transaction is committed.
    Commit {
        /// The transaction.
        xid: u32,
        /// When, by the server's clock; not monotonic along WAL.
        time: DateTime<Utc>,
    },
    /// A transaction is rolled back.
    Abort {
        /// The transaction.
        xid: u32,
        /// When.
        time: DateTime<Utc>,
    },
    /// First phase of a two-phase commit: durable, neither committed nor rolled back.
    Prepare {
        /// The transaction.
        xid: u32,
        /// When.
        time: DateTime<Utc>,
    },
    /// A prepared transaction is committed.
    CommitPrepared {
        /// The prepared transaction, not the one that says so.
        xid: u32,
        /// When.
        time: DateTime<Utc>,
    },
    /// A prepared transaction is rolled back.
    AbortPrepared {
        /// The prepared transaction.
        xid: u32,
        /// When.
        time: DateTime<Utc>,
    },
    /// `pg_create_restore_point`.
    RestorePoint {
        /// Its name, at most 63 bytes.
        name: String,
        /// When.
        time: DateTime<Utc>,
    },
    /// The rest of the segment is unused.
    Switch,
    /// A base backup ended; a server restored from it is consistent from here on.
    BackupEnd {
        /// Redo position with which the backup started.
        start: Lsn,
    },
    /// A checkpoint written by a clean shutdown or at the end of recovery.
    CheckpointShutdown(Checkpoint),
    /// A checkpoint of a running server.
    CheckpointOnline(Checkpoint),
    /// Where an online checkpoint began (17 and later).
    CheckpointRedo,
    /// Recovery ended, usually with a new timeline.
    EndOfRecovery {
        /// When.
        time: DateTime<Utc>,
        /// The timeline from here on.
        this_timeline: Timeline,
        /// The timeline until here.
        previous_timeline: Timeline,
    },
    /// Settings that a standby must at least match.
    ParameterChange(Parameters),
    /// Something said by `pg_logical_emit_message`.
    LogicalMessage {
        /// Who speaks.
        prefix: String,
        /// Whether it counts only if its transaction commits.
        transactional: bool,
    },
    /// A record torn by a crash was given up.
    OverwriteContrecord {
        /// Start of the torn record.
        overwritten: Lsn,
        /// When.
        time: DateTime<Utc>,
    },
    /// Anything else.
    Other,
}

impl RecordKind {
    /// Time of the commit, prepared or not.
    pub fn commit_time(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Commit { time, .. } | Self::CommitPrepared { time, .. } => Some(*time),
            _ => None,
        }
    }

    /// The timeline that the record says it is on.
    pub fn timeline(&self) -> Option<Timeline> {
        match self {
            Self::CheckpointShutdown(c) | Self::CheckpointOnline(c) => Some(c.this_timeline),
            Self::EndOfRecovery { this_timeline, .. } => Some(*this_timeline),
            _ => None,
        }
    }

    /// Time of the rollback, prepared or not.
    pub fn abort_time(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Abort { time, .. } | Self::AbortPrepared { time, .. } => Some(*time),
            _ => None,
        }
    }
}

/// The body of a checkpoint record, which is also copied into `pg_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where recovery from this checkpoint begins.
    pub redo: Lsn,
    /// Timeline of the checkpoint.
    pub this_timeline: Timeline,
    /// Timeline before it; differs from `this_timeline` when the checkpoint begins a timeline.
    pub previous_timeline: Timeline,
    /// Next transaction, epoch in the upper half.
    pub next_xid: u64,
    /// When it was begun, in whole seconds.
    pub time: DateTime<Utc>,
}

impl Checkpoint {
    /// `sizeof(CheckPoint)`; since 17 `wal_level` fills what was padding, so nothing moved.
    pub(crate) const BYTES: usize = 88;

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let f = Fields(bytes.get(..Self::BYTES)?);
        Some(Self {
            redo: Lsn(f.u64(0)?),
            this_timeline: Timeline(f.u32(8)?),
            previous_timeline: Timeline(f.u32(12)?),
            next_xid: f.u64(24)?,
            time: f.unix_time(64)?,
        })
    }
}

/// Settings recorded in WAL and in `pg_control` because recovery depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}

/// `wal_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    /// Not enough for archiving.
    Minimal,
    /// Archiving and physical replication.
    Replica,
    /// Logical decoding as well.
    Logical,
}

impl WalLevel {
    /// The value of the setting `wal_level`.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Replica => "replica",
            Self::Logical => "logical",
        }
    }

    pub(crate) fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Minimal),
            1 => Some(Self::Replica),
            2 => Some(Self::Logical),
            _ => None,
        }
    }
}
