//! How to receive, and what came of it.

use std::time::Duration;

use tokio::sync::watch;

use crate::evidence::Appended;
use crate::postgres::block_files::BlockFiles;
use crate::postgres::replication::ReplicationConnection;
use crate::units::{Lsn, Timeline};

/// How the server is made to keep WAL.
#[derive(Debug)]
pub enum Slot {
    /// The environment's slot; made where it is missing.
    Configured,
    /// A temporary slot that lives in this session and was made with `RESERVE_WAL`.
    Temporary {
        /// The session.
        connection: Box<ReplicationConnection>,
        /// Name of the slot.
        name: String,
    },
}

/// Up to where WAL is wanted; may become known while receiving.
#[derive(Debug, Clone)]
pub struct Until(watch::Receiver<Option<Lsn>>);

impl Until {
    /// For ever.
    pub fn stopped() -> Self {
        Self(watch::channel(None).1)
    }

    /// Until everything before `lsn` is durable.
    pub fn durable(lsn: Lsn) -> Self {
        Self(watch::channel(Some(lsn)).1)
    }

    /// The position, as far as it is known.
    pub(super) fn position(self) -> watch::Receiver<Option<Lsn>> {
        self.0
    }

    /// Until everything before the position that the sender will tell is durable.
    pub fn told() -> (watch::Sender<Option<Lsn>>, Self) {
        let (tell, told) = watch::channel(None);
        (tell, Self(told))
    }
}

/// How to receive.
#[derive(Debug)]
pub struct ReceiveOptions {
    /// How the server is made to keep WAL.
    pub slot: Slot,
    /// Up to where.
    pub until: Until,
    /// Whether to write heartbeats while the cluster is idle.
    pub heartbeat: bool,
    /// zstd level.
    pub level: i32,
    /// How long an outage of the server or the store is borne; `None`: for ever.
    pub give_up_after: Option<Duration>,
    /// Where to keep which blocks change, so that the next base backup reads only those.
    pub blocks: Option<BlockFiles>,
}

/// What was received.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Received {
    /// Where receiving began.
    pub from: Lsn,
    /// Everything before is durable.
    pub durable: Lsn,
    /// The timeline there.
    pub timeline: Timeline,
    /// Complete segments stored.
    pub segments: u64,
    /// Pieces stored.
    pub pieces: u64,
    /// Bytes stored.
    pub stored_bytes: u64,
    /// Whether all that was asked for is durable; always false where there was no end to reach.
    pub reached: bool,
    /// Ledger entries about complete ranges.
    pub recorded: Vec<Appended>,
}
