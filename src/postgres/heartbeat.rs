//! A sign of life in the WAL of an idle cluster.
//!
//! `pg_logical_emit_message` leaves a commit record without any table and any privilege, so that each
//! idle second can be restored to, and so that silence of the receiver means trouble and not quiet.
//! Nothing here is ever fatal: a heart that does not beat is a warning, told once.

use std::time::Duration;

use tokio_postgres::Client;

use super::source::Source;
use super::sql::explain;
use crate::error::Result;
use crate::event::Event;
use crate::runtime::Runtime;

/// Pause before another try after a failure, and between looks at a standby.
const RETRY: Duration = Duration::from_secs(10);

/// Beats every `period` in which the cluster wrote nothing else. Never returns; drop it to stop.
pub async fn run(source: &Source, period: Duration, runtime: &Runtime) -> std::convert::Infallible {
    let mut warned = false;
    loop {
        if let Err(e) = beat(source, period, runtime, &mut warned).await
            && !std::mem::replace(&mut warned, true)
        {
            runtime.emit(Event::Warning(format!(
                "no heartbeat can be written, so idle time of the cluster cannot be told from lost time: {e}"
            )));
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn beat(source: &Source, period: Duration, runtime: &Runtime, warned: &mut bool) -> Result<()> {
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
        let now = position(&client).await.map_err(doing)?;
        if last.is_none_or(|last| last == now) {
            let text = runtime.now().to_rfc3339();
            let emit = "SELECT pg_logical_emit_message(true, 'lifeboat', $1)::text";
            client.query_one(emit, &[&text]).await.map_err(doing)?;
            *warned = false;
            last = Some(position(&client).await.map_err(doing)?);
        } else {
            last = Some(now);
        }
    }
}

async fn position(client: &Client) -> std::result::Result<String, tokio_postgres::Error> {
    Ok(client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?.get(0))
}
