//! A session in which the same question gets the same answer at the source and on a copy, whatever the
//! settings of role and database say, and in which nothing can be written.

use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::sql::explain;

/// Times are UTC, numbers and bytes have one form, rows are summed in one order. What the owner of a
/// database defined is found behind PostgreSQL's own. A check waits for nobody's lock.
const SETTINGS: &str = "SET default_transaction_read_only = on; SET search_path = pg_catalog, public; \
     SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'hex'; \
     SET extra_float_digits = 1; SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off; \
     SET row_security = off; SET jit = off; SET lock_timeout = '2s'; SET idle_in_transaction_session_timeout = 0";

/// Makes a session fit for checks.
///
/// # Errors
/// When the server refuses the settings.
pub async fn prepare(client: &Client) -> Result<()> {
    client.batch_execute(SETTINGS).await.map_err(|e| explain(e, "cannot prepare a session for checks"))
}

/// Major version of Odoo in a database: that of its `base` module, 0 where that is not known; `None`
/// where the database is not Odoo's.
///
/// # Errors
/// When the server does not answer.
pub async fn odoo_version(client: &Client) -> Result<Option<u32>> {
    if !is_odoo(client).await? {
        return Ok(None);
    }
    let row = client
        .query_opt("SELECT latest_version::text FROM public.ir_module_module WHERE name = 'base'", &[])
        .await
        .map_err(|e| explain(e, "cannot read which Odoo a database belongs to"))?;
    let version: Option<String> = row.and_then(|r| r.get(0));
    Ok(Some(version.and_then(|v| major(&v)).unwrap_or(0)))
}

/// Whether a database has the tables of an Odoo.
///
/// # Errors
/// When the server does not answer.
pub async fn is_odoo(client: &Client) -> Result<bool> {
    let query = "SELECT to_regclass('public.ir_module_module') IS NOT NULL";
    let row = client.query_one(query, &[]).await.map_err(|e| explain(e, "cannot look for Odoo in a database"))?;
    Ok(row.get(0))
}

/// `19.0.1.3` and `saas~18.2.1.3` tell the series first.
fn major(version: &str) -> Option<u32> {
    version.trim_start_matches("saas~").split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_the_first_number() {
        assert_eq!((major("19.0.1.3"), major("saas~18.2.1.3"), major("new")), (Some(19), Some(18), None));
    }
}
