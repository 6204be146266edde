//! What the library tells while it works. Terminal, JSON, logs and (later) web page and metrics
//! consume this one stream; the library itself never prints.

use std::time::Duration;

use crate::units::Lsn;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A named piece of work began; `total` is its size in bytes where known.
    PhaseStarted {
        /// What is being done, for people: "reading the cluster".
        phase: &'static str,
        /// Bytes that will pass, where known.
        total: Option<u64>,
    },
    /// Bytes that passed since the last event of the running phase.
    Progress {
        /// The phase.
        phase: &'static str,
        /// Bytes since the last event.
        bytes: u64,
    },
    /// A phase ended.
    PhaseEnded {
        /// The phase.
        phase: &'static str,
        /// How long it took.
        took: Duration,
    },
    /// Something a person may want to know; not a problem.
    Note(String),
    /// Something a person should look at, though the work goes on.
    Warning(String),
    /// The store failed and is tried again.
    StoreRetry {
        /// What was tried.
        operation: String,
        /// How it failed.
        reason: String,
        /// When it is tried again.
        after: Duration,
    },
    /// WAL up to here is durable in the store and has been reported to PostgreSQL as flushed.
    WalDurable {
        /// End of the durable bytes.
        lsn: Lsn,
    },
    /// A complete WAL segment or history file was stored.
    WalStored {
        /// File name as in `pg_wal`.
        name: String,
        /// Stored size in bytes.
        stored: u64,
    },
}
