//! A sign of life in the WAL of an idle cluster.
//!
//! `pg_logical_emit_message` leaves a commit record without any table and any privilege, so that each
//! idle second can be restored to, and so that silence of the receiver means trouble and not quiet.
//! Nothing here is ever fatal: a heart that does not beat is a warning, told once.

use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::Client;

use super::source::Source;
use super::sql::explain;
use crate::error::Result;
use crate::event::Event;
use crate::runtime::Runtime;

/// Pause before another try after a failure, and between looks at a standby.
const RETRY: Duration = Duration::from_secs(10);

/// Beats every `period` in which the cluster wrote nothing else, and tells whether commits wait for us, that is
/// whether the server counts our session among its synchronous standbys. Never returns; drop it to stop.
pub async fn run(
    source: &Source,
    period: Duration,
    awaited: &watch::Sender<bool>,
    runtime: &Runtime,
) -> std::convert::Infallible {
    let mut warned = false;
    loop {
        if let Err(e) = beat(source, period, awaited, runtime, &mut warned).await
            && !std::mem::replace(&mut warned, true)
        {
            runtime.emit(Event::Warning(format!(
                "no heartbeat can be written, so idle time of the cluster cannot be told from lost time: {e}"
            )));
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn beat(
    source: &Source,
    period: Duration,
    awaited: &watch::Sender<bool>,
    runtime: &Runtime,
    warned: &mut bool,
) -> Result<()> {
    let client = source.sql().await?;
    let doing = |e| explain(e, "cannot write a heartbeat into WAL");
    let standby: bool = client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(doing)?.get(0);
    if standby {
        return Ok(());
    }
    let mut last = None;
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (now, waits) = state(&client, source.application_name()).await.map_err(doing)?;
        awaited.send_replace(waits);
        if last.is_none_or(|last| last == now) {
            let text = runtime.now().to_rfc3339();
            let emit = "SELECT pg_logical_emit_message(true, 'lifeboat', $1)::text";
            client.query_one(emit, &[&text]).await.map_err(doing)?;
            *warned = false;
            last = Some(state(&client, source.application_name()).await.map_err(doing)?.0);
        } else {
            last = Some(now);
        }
    }
}

/// The end of WAL, and whether commits wait for the session of that name.
async fn state(client: &Client, name: &str) -> std::result::Result<(String, bool), tokio_postgres::Error> {
    const QUERY: &str = "SELECT pg_current_wal_insert_lsn()::text, \
        coalesce((SELECT bool_or(sync_state IN ('sync', 'quorum')) FROM pg_stat_replication \
                  WHERE application_name = $1), false)";
    let row = client.query_one(QUERY, &[&name]).await?;
    Ok((row.get(0), row.get(1)))
}
