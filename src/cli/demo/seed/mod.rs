//! The demo's shop: an Odoo 19 shaped database and its filestore, small, realistic, and the same for
//! the same [`Scale`].
//!
//! Promises that a restored copy can be judged by it: every HARD check for Odoo 19 is clean after
//! [`load`] and after any number of [`sell_once`]; every file is named by the SHA-1 of its content and
//! is on disk before the row that refers to it is committed. Relies on an empty database and an empty
//! directory. Who lives here: `schema.sql`, `rows.sql` and `keys.sql` (tables, rows, foreign keys),
//! `files` (the documents), `sale` (one purchase at the till, for the demo's writer).

mod files;
mod sale;

use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio_postgres::Client;

pub(crate) use self::sale::{Sale, sell_once, sold};
use crate::error::{ErrorKind, Result, ResultExt};

/// What is drawn, and how much of it.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    /// The same seed at the same time draws the same shop.
    pub(crate) seed: u64,
    /// The shop's last 30 days end here.
    pub(crate) now: DateTime<Utc>,
    /// Orders at the tills; the rest follows (a tenth of it in sales on account).
    pub(crate) orders: u32,
}

impl Scale {
    /// About 30 MB of database and some hundred files.
    pub(crate) fn standard(now: DateTime<Utc>) -> Self {
        Self { seed: 19, now, orders: 5_000 }
    }
}

/// What was loaded.
#[derive(Debug, Clone)]
pub(crate) struct SeedSummary {
    /// `database.uuid`, by which Odoo and Lifeboat know the database.
    pub(crate) uuid: String,
    /// Size of the database.
    pub(crate) database_bytes: u64,
    /// Orders at the tills.
    pub(crate) orders: u64,
    /// Distinct files in the filestore.
    pub(crate) files: u64,
    /// Their size.
    pub(crate) file_bytes: u64,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Fills the empty database behind `client` and the directory `filestore` (`data_dir/filestore/<database>`).
pub(crate) async fn load(client: &Client, filestore: &Path, scale: &Scale) -> Result<SeedSummary> {
    let started = Instant::now();
    let loaded = load_in_transaction(client, filestore, scale).await;
    if loaded.is_err() {
        // The connection may be gone too; the first error is the one that tells.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    let (files, file_bytes) = loaded?;
    let failed = || "cannot read the size of the demo's database".to_owned();
    client.batch_execute("ANALYZE").await.or_err(ErrorKind::Source, failed)?;
    let row = client
        .query_one(
            "SELECT value, pg_database_size(current_database()), (SELECT count(*) FROM pos_order)
               FROM ir_config_parameter WHERE key = 'database.uuid'",
            &[],
        )
        .await
        .or_err(ErrorKind::Source, failed)?;
    Ok(SeedSummary {
        uuid: row.get(0),
        database_bytes: row.get::<_, i64>(1).unsigned_abs(),
        orders: row.get::<_, i64>(2).unsigned_abs(),
        files,
        file_bytes,
        took: started.elapsed(),
    })
}

async fn load_in_transaction(client: &Client, filestore: &Path, scale: &Scale) -> Result<(u64, u64)> {
    let settings = format!(
        "BEGIN; SET LOCAL seed.salt = '{}'; SET LOCAL seed.now = '{}'; SET LOCAL seed.orders = '{}';",
        scale.seed,
        scale.now.format("%Y-%m-%d %H:%M:%S"),
        scale.orders
    );
    for (what, sql) in [
        ("begin", settings.as_str()),
        ("create the tables", include_str!("schema.sql")),
        ("fill the tables", include_str!("rows.sql")),
    ] {
        client
            .batch_execute(sql)
            .await
            .or_err(ErrorKind::Source, || format!("cannot {what} of the demo's database"))?;
    }
    let counted = files::load(client, filestore, scale.seed).await?;
    client
        .batch_execute(&format!("{}; COMMIT", include_str!("keys.sql")))
        .await
        .or_err(ErrorKind::Source, || "cannot add the foreign keys of the demo's database".to_owned())?;
    Ok(counted)
}

#[cfg(test)]
use crate::test_common as common;

#[cfg(test)]
mod tests;
