//! What the database refers to, held against what a capture has.
//!
//! Read in one snapshot that is taken *after* the scan, so it refers to every file that the restore
//! point needs and perhaps to some that came later. A file that is referred to, not stored and not on
//! disk is asked for once more, because Odoo may have dropped the reference and collected the file
//! meanwhile; what is then still referred to is missing at the source.

use std::collections::BTreeMap;
use std::path::Path;

use futures::TryStreamExt;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::Example;
use super::index::Index;
use super::name::FileName;
use super::referenced::{Reference, referenced};
use super::tenants::Tenant;
use crate::error::{self, Result};
use crate::postgres::sql::explain;
use crate::runtime::blocking;

/// More missing or damaged files than this are no longer named one by one: nothing is captured then.
pub(super) const MAX_NAMED: usize = 100_000;

/// What the database's references say about a capture.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Files that the database refers to.
    pub(super) referenced: u64,
    /// Flawed files that it refers to, with one attachment each.
    pub(super) flawed: BTreeMap<FileName, Example>,
    /// References that are no names of files, and files that the source does not have.
    pub(super) odd: Vec<Reference>,
    /// Files that it refers to, and that neither the source nor the repository has.
    pub(super) missing: Vec<Reference>,
    /// Files that the source lost and the repository still has.
    pub(super) lost_at_source: Vec<Reference>,
}

/// Whether the database refers to any file at all.
pub(super) async fn any(client: &Client) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT FROM public.ir_attachment WHERE store_fname ~ '^[0-9a-f]{2,3}/[0-9a-f]{40}$')";
    let row = client.query_one(query, &[]).await.map_err(|e| explain(e, "cannot look at the attachments"))?;
    Ok(row.get(0))
}

/// Holds the references against `index` and the `flawed` files (sorted).
pub(super) async fn hold(client: &mut Client, index: &Index, flawed: &[FileName], tenant: &Tenant) -> Result<Held> {
    let Sorted { mut held, unknown, gone } = sort(client, index, flawed, tenant).await?;
    let unknown = absent(unknown, &tenant.directory()).await?;
    let gone = absent(gone, &tenant.directory()).await?;
    held.missing = absent(still_referenced(client, unknown).await?, &tenant.directory()).await?;
    held.lost_at_source = still_referenced(client, gone).await?;
    Ok(held)
}

/// The references of one snapshot, sorted by what the index says.
struct Sorted {
    held: Held,
    /// Neither stored nor flawed.
    unknown: Vec<Reference>,
    /// Stored, and not seen by the scan.
    gone: Vec<Reference>,
}

async fn sort(client: &mut Client, index: &Index, flawed: &[FileName], tenant: &Tenant) -> Result<Sorted> {
    let mut sorted = Sorted { held: Held::default(), unknown: Vec::new(), gone: Vec::new() };
    let snapshot = snapshot(client).await?;
    let mut references = std::pin::pin!(referenced(&snapshot).await?);
    while let Some(reference) = references.try_next().await? {
        sorted.held.referenced += 1;
        let Some(name) = reference.name else {
            sorted.held.odd.push(reference);
            continue;
        };
        match index.find(&name) {
            // A filestore that was lost as a whole makes this long; a sample is enough for a warning.
            Some(record) if record.last_seen().is_some() && sorted.gone.len() < MAX_NAMED => {
                sorted.gone.push(reference);
            }
            Some(_) => {}
            None if flawed.binary_search(&name).is_ok() => drop(sorted.held.flawed.insert(name, reference.example)),
            None => sorted.unknown.push(reference),
        }
        if sorted.unknown.len().max(sorted.held.odd.len()) > MAX_NAMED {
            return Err(too_many(tenant));
        }
    }
    Ok(sorted)
}

async fn snapshot(client: &mut Client) -> Result<Transaction<'_>> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    builder.start().await.map_err(|e| explain(e, "cannot begin to read the attachments"))
}

/// Those whose file is not on disk now.
async fn absent(references: Vec<Reference>, directory: &Path) -> Result<Vec<Reference>> {
    if references.is_empty() {
        return Ok(references);
    }
    let directory = directory.to_owned();
    let look = move || {
        let there = |r: &Reference| directory.join(&r.store_fname).symlink_metadata().is_ok();
        Ok(references.into_iter().filter(|r| !there(r)).collect())
    };
    blocking(look).await
}

/// Those that a new snapshot still refers to.
async fn still_referenced(client: &Client, references: Vec<Reference>) -> Result<Vec<Reference>> {
    if references.is_empty() {
        return Ok(references);
    }
    let names: Vec<&str> = references.iter().map(|r| r.store_fname.as_str()).collect();
    let query = "SELECT DISTINCT store_fname FROM public.ir_attachment WHERE store_fname = ANY ($1)";
    let rows = client.query(query, &[&names]).await.map_err(|e| explain(e, "cannot ask again for missing files"))?;
    let still: std::collections::HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(references.into_iter().filter(|r| still.contains(&r.store_fname)).collect())
}

pub(super) fn too_many(tenant: &Tenant) -> error::Error {
    error::source(format!(
        "database {} refers to more than {MAX_NAMED} files that are missing or damaged in {}",
        tenant.database,
        tenant.directory().display()
    ))
    .meaning("this is not the filestore of this database, or most of it is lost; nothing was captured")
    .hint("check `[[environment.odoo]] data_dir`, that the file system is mounted, and that Lifeboat may read it")
}
