//! What the server says about a replication slot: whether somebody reads from it, and how much WAL it
//! holds back. Needs no privilege.

use serde::Serialize;
use tokio_postgres::Client;

use super::sql::explain;
use crate::error::Result;
use crate::units::Lsn;

/// A slot, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotState {
    /// Whether a receiver is connected.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`; null where the slot reserves nothing yet.
    pub wal_status: Option<String>,
    /// The oldest WAL that the server keeps for it.
    pub restart_lsn: Option<Lsn>,
    /// How many bytes of WAL the server keeps for it.
    pub held_bytes: u64,
    /// How many more may be written before WAL that it needs is removed; null where nothing limits it.
    pub safe_bytes: Option<i64>,
}

/// The server's WAL and the slot called `name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalState {
    /// End of the WAL that was written (on a standby: replayed).
    pub current_lsn: Lsn,
    /// Whether the server is a standby.
    pub standby: bool,
    /// The slot, where it exists.
    pub slot: Option<SlotState>,
}

/// Asks the server.
pub async fn wal_state(client: &Client, name: &str) -> Result<WalState> {
    const QUERY: &str = "
        SELECT w.current::text, w.standby, s.slot_name IS NOT NULL, coalesce(s.active, false), s.wal_status,
               s.restart_lsn::text, greatest(w.current - s.restart_lsn, 0)::bigint, s.safe_wal_size
        FROM (SELECT pg_is_in_recovery() AS standby,
                     CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS current) w
        LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = $1 AND s.slot_type = 'physical'";
    let failed = |e| explain(e, format!("cannot read the state of the replication slot \"{name}\""));
    let row = client.query_one(QUERY, &[&name]).await.map_err(failed)?;
    let lsn = |column: usize| row.get::<_, Option<String>>(column).and_then(|text| text.parse().ok());
    let slot = row.get::<_, bool>(2).then(|| SlotState {
        active: row.get(3),
        wal_status: row.get(4),
        restart_lsn: lsn(5),
        held_bytes: row.get::<_, Option<i64>>(6).unwrap_or_default().unsigned_abs(),
        safe_bytes: row.get(7),
    });
    Ok(WalState { current_lsn: lsn(0).unwrap_or_default(), standby: row.get(1), slot })
}
