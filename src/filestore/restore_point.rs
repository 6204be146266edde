//! The place in the WAL that a capture speaks for. It is set before the scan begins, because Odoo
//! writes a file before it commits the row that names it: what is committed up to here is on disk.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::Result;
use crate::evidence::entry::RestorePoint;
use crate::postgres::sql::explain;

/// Sets a restore point called `lifeboat-<id>`, or the nearest that the server allows; then the second
/// value says what it is instead.
pub(super) async fn set(client: &Client, id: &str) -> Result<(RestorePoint, Option<String>)> {
    let failed = |e| explain(e, "cannot set a restore point before the scan of the filestore");
    let named = format!("lifeboat-{id}");
    let standby: bool = client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(failed)?.get(0);
    if standby {
        let query = "SELECT pg_last_wal_replay_lsn()::text, now()";
        let note = "the server is a standby, where no restore point can be set; its replay position stands for it";
        let point = read(client.query_one(query, &[]).await.map_err(failed)?, format!("{named} (replay position)"))?;
        return Ok((point, Some(note.to_owned())));
    }
    let query = "SELECT pg_create_restore_point($1)::text, now()";
    match client.query_one(query, &[&named]).await {
        Ok(row) => Ok((read(row, named)?, None)),
        Err(e) if is_refused(e.code()) => {
            let query = "SELECT pg_logical_emit_message(true, 'lifeboat', $1)::text, now()";
            let row = client.query_one(query, &[&named]).await.map_err(failed)?;
            let note = "the role may not call pg_create_restore_point; a logical message marks the place, so it can \
                        be restored by LSN or time but not by name (GRANT EXECUTE ON FUNCTION \
                        pg_create_restore_point TO the role of Lifeboat, in every Odoo database)";
            Ok((read(row, format!("{named} (message)"))?, Some(note.to_owned())))
        }
        Err(e) => Err(failed(e)),
    }
}

fn is_refused(code: Option<&SqlState>) -> bool {
    code.is_some_and(|c| [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE].contains(c))
}

fn read(row: tokio_postgres::Row, name: String) -> Result<RestorePoint> {
    Ok(RestorePoint { name, lsn: row.get::<_, &str>(0).parse()?, time: row.get(1) })
}
