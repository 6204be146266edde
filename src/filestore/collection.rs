//! What Odoo's garbage collection does between captures, as far as it can be known.
//!
//! Odoo deletes files once a day, in the cron job `base.autovacuum_job`, and only those that it has marked
//! in `checklist/`. A file that was created, dropped and collected between two captures was never seen; the
//! ids of attachments tell how many rows came and went, which bounds the number of such files. A watcher
//! ([`super::watch`]) has them.

use chrono::{DateTime, NaiveDateTime, Utc};
use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::sql::explain;

/// When the collection runs next; `None` where the database does not tell, or the job is switched off.
pub(super) async fn due(client: &Client) -> Result<Option<DateTime<Utc>>> {
    let failed = |e| explain(e, "cannot look when Odoo collects files next");
    // Some roles may read the attachments and nothing else.
    let readable = "SELECT bool_and(coalesce(has_table_privilege(to_regclass(t), 'SELECT'), false))
                    FROM unnest(ARRAY['public.ir_cron', 'public.ir_model_data']) t";
    if !client.query_one(readable, &[]).await.map_err(failed)?.get::<_, bool>(0) {
        return Ok(None);
    }
    let query = "SELECT c.nextcall FROM public.ir_cron c JOIN public.ir_model_data d ON d.res_id = c.id
                 WHERE d.module = 'base' AND d.name = 'autovacuum_job' AND d.model = 'ir.cron' AND c.active";
    let row = client.query_opt(query, &[]).await.map_err(failed)?;
    // Odoo keeps UTC in columns without a time zone.
    Ok(row.and_then(|row| row.try_get::<_, Option<NaiveDateTime>>(0).ok().flatten()).map(|at| at.and_utc()))
}

/// The highest attachment id, and how many of the ids above `before` have no row any more.
pub(super) async fn ids(client: &Client, before: Option<i64>) -> Result<(Option<i64>, Option<u64>)> {
    let query = "SELECT max(id)::bigint, count(*) FILTER (WHERE id > $1) FROM public.ir_attachment WHERE id >= $1";
    let failed = |e| explain(e, "cannot count the newest attachments");
    let Some(before) = before else {
        let row = client.query_one("SELECT max(id)::bigint FROM public.ir_attachment", &[]).await.map_err(failed)?;
        return Ok((row.get(0), None));
    };
    // The column is an integer, or a bigint in large databases.
    let query = query.replace("$1", &before.to_string());
    let row = client.query_one(&query, &[]).await.map_err(failed)?;
    let newest = row.get::<_, Option<i64>>(0).unwrap_or(before).max(before);
    let there: i64 = row.get(1);
    Ok((Some(newest), Some(u64::try_from(newest - before - there).unwrap_or_default())))
}
