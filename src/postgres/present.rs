//! Where a cluster stands: its history up to now, and whether its pages tell when they changed.

use super::replication::ReplicationConnection;
use super::wal::TimelineHistory;
use crate::error::Result;
use crate::evidence::entry::BaseBackup;
use crate::units::{Lsn, Timeline};

/// Where a cluster stands.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) system_id: u64,
    /// Its timeline, and those that came before.
    pub(super) history: TimelineHistory,
    /// End of its WAL, or some place shortly before.
    pub(super) lsn: Lsn,
    /// `server_version_num`.
    pub(super) server_version: u32,
    /// Whether data checksums are on.
    pub(super) checksums: bool,
    /// Whether `wal_log_hints` is on.
    pub(super) log_hints: bool,
}

impl Present {
    /// Asks the server.
    pub(super) async fn of(connection: &mut ReplicationConnection) -> Result<Self> {
        let system = connection.identify_system().await?;
        let history = match system.timeline {
            Timeline(1) => TimelineHistory::first(Timeline(1)),
            timeline => {
                let (_, text) = connection.timeline_history(timeline).await?;
                TimelineHistory::parse(timeline, &String::from_utf8_lossy(&text))?
            }
        };
        let (system_id, server_version) = (system.system_id, connection.server_version());
        let checksums = connection.show("data_checksums").await? == "on";
        let log_hints = connection.show("wal_log_hints").await? == "on";
        Ok(Self { system_id, history, lsn: system.flush_lsn, server_version, checksums, log_hints })
    }

    /// Whether no page changes without a new LSN.
    pub(super) fn hints_logged(&self) -> bool {
        self.checksums || self.log_hints
    }

    /// Whether that backup, to its end, is part of this cluster's past.
    pub(super) fn grew_out_of(&self, base: &BaseBackup) -> bool {
        base.system_id == self.system_id.to_string()
            && base.stop_lsn <= self.lsn
            // Switched on or off while the server was down, pages change and WAL does not say so.
            && base.data_checksums == self.checksums
            && self.history.contains(base.timeline, base.stop_lsn)
    }
}
