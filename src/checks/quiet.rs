//! One instant of a running cluster, seen in several databases at once, whose place in WAL is exact.
//!
//! A snapshot alone has no place: a transaction writes its commit record first and is seen as committed a
//! moment later. So an instant is taken in which nobody has a transaction that writes (such a one holds the
//! lock on its own id until everybody sees it as ended; a snapshot does not name the newest ones), and nothing
//! is written to WAL from before that look until after the last snapshot. Then every commit record up to
//! there is visible and none behind it, and a copy that replays WAL up to there is in the same state. On a busy cluster such instants are short but many; nobody is made to wait for one.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::{self, Result};
use crate::postgres::sql::explain;
use crate::units::{Lsn, Timeline};

/// How long a quiet instant is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two looks; not in step with anything that runs once a second.
const PAUSE: Duration = Duration::from_millis(17);

/// A place in WAL and the sessions whose transactions see exactly what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instance {
    /// The timeline that the server writes.
    pub(super) timeline: Timeline,
    /// Everything before it is seen, nothing behind it.
    pub(super) lsn: Lsn,
}

/// Begins a repeatable-read transaction in every session, at one quiet instant. The transactions stay open.
///
/// # Errors
/// Source when there was no quiet instant, or when the server is a standby.
pub(super) async fn begin(sessions: &[&Client], patience: Duration) -> Result<Instance> {
    let failed = |e| explain(e, "cannot look for a quiet instant of the cluster");
    let first = sessions.first().ok_or_else(|| error::internal("no session was opened"))?;
    if first.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(failed)?.get(0) {
        return Err(error::source("the server is a standby, which does not tell an exact place in WAL"));
    }
    let began = Instant::now();
    let mut looks = 0_u32;
    loop {
        looks += 1;
        let before = position(first).await?.0;
        let query = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND granted)";
        let writing: bool = first.query_one(query, &[]).await.map_err(failed)?.get(0);
        let busy = writing.then_some("a transaction was being written");
        for session in sessions.iter().filter(|_| !writing) {
            session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
            session.query_one("SELECT pg_current_snapshot()::text", &[]).await.map_err(failed)?;
        }
        let (after, timeline) = position(first).await?;
        if busy.is_none() && before == after {
            return Ok(Instance { timeline, lsn: after });
        }
        for session in sessions {
            // Those that were not reached have none; PostgreSQL then only warns.
            session.batch_execute("ROLLBACK").await.map_err(failed)?;
        }
        if began.elapsed() > patience {
            return Err(error::source(format!(
                "the cluster had no quiet instant within {} s ({looks} looks): {}",
                patience.as_secs(),
                busy.unwrap_or("WAL was being written")
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Where the next record of WAL will begin.
async fn position(client: &Client) -> Result<(Lsn, Timeline)> {
    let query = "SELECT l::text, pg_walfile_name(l) FROM pg_current_wal_insert_lsn() l";
    let row = client.query_one(query, &[]).await.map_err(|e| explain(e, "cannot read the place in WAL"))?;
    let file: &str = row.get(1);
    let timeline = u32::from_str_radix(file.get(..8).unwrap_or_default(), 16)
        .map_err(|_| error::internal(format!("the server names its WAL file {file}")))?;
    Ok((row.get::<_, &str>(0).parse()?, Timeline(timeline)))
}
