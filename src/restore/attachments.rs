//! Attachments of a recovered cluster: database first, then exactly the files that it refers to.

use std::path::Path;
use std::sync::Arc;

use tokio_postgres::Client;

use super::plan::Plan;
use super::tools::Tools;
use crate::disk::Owner;
use crate::error::{ErrorKind, Result};
use crate::evidence::Body;
use crate::evidence::drill_record::AttachmentReconciliation;
use crate::evidence::entry::{FilestoreCapture, NotCovered};
use crate::filestore::restore::{Request, restore as restore_filestore};
use crate::filestore::{database_uuid, live, referenced};
use crate::postgres::server::PrivateServer;
use crate::postgres::source::databases;
use crate::postgres::sql::explain;
use crate::repository::catalogue::ledger;

/// What became of the attachments of all databases.
#[derive(Debug, Default)]
pub struct Attachments {
    /// By database.
    pub reconciled: Vec<AttachmentReconciliation>,
    /// What somebody should look at.
    pub findings: Vec<String>,
}

impl Attachments {
    /// Names of the files that could not be restored, with their database.
    pub fn missing(&self) -> Vec<String> {
        let named = |a: &AttachmentReconciliation| {
            a.missing.iter().map(|m| format!("{}/{}", a.database, m.store_fname)).collect::<Vec<_>>()
        };
        self.reconciled.iter().flat_map(named).collect()
    }
}

/// Restores the attachments of every database of the running server that has a capture.
pub async fn restore(tools: &Tools, plan: &Plan, server: &PrivateServer) -> Result<Attachments> {
    let mut done = Attachments::default();
    let Some(root) = &plan.filestore else { return Ok(done) };
    let maintenance = server.sql("template1").await?;
    for database in databases(&maintenance).await? {
        let client = server.sql(&database).await?;
        let is_odoo: bool = client
            .query_one("SELECT to_regclass('public.ir_attachment') IS NOT NULL", &[])
            .await
            .map_err(|e| explain(e, format!("cannot look for attachments in {database}")))?
            .get(0);
        if !is_odoo {
            continue;
        }
        let uuid = database_uuid(&client).await?;
        let wanted = Wanted {
            database: &database,
            uuid: uuid.as_deref(),
            directory: &root.join(&database),
            owner: tools.account.as_ref().map(Owner::from),
        };
        match one(tools, plan, &client, &wanted, &mut done.findings).await? {
            Some(reconciled) => done.reconciled.push(reconciled),
            None => {
                done.findings.push(format!("{database} is an Odoo database, but its filestore was never captured"));
            }
        }
    }
    Ok(done)
}

/// Whose attachments are wanted, and where they go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Its name now.
    pub(super) database: &'a str,
    /// The `database.uuid` that it had at the source.
    pub(super) uuid: Option<&'a str>,
    /// Receives `<2 hex>/<sha1>`.
    pub(super) directory: &'a Path,
    /// Who owns what is written; `None` leaves it to the running account.
    pub(super) owner: Option<Owner>,
}

/// Restores exactly the files that the database of `client` refers to; `None` where its filestore was never captured.
/// What somebody should look at goes to `findings`.
pub(super) async fn one(
    tools: &Tools,
    plan: &Plan,
    client: &Client,
    wanted: &Wanted<'_>,
    findings: &mut Vec<String>,
) -> Result<Option<AttachmentReconciliation>> {
    let (database, uuid) = (wanted.database, wanted.uuid);
    let (live, damaged) = live::index(&tools.repository, &plan.environment, database, uuid).await?;
    let newer = newer(tools, &plan.environment, findings).await?;
    // A database that was renamed after a capture is known by its uuid.
    let ours = |c: &&FilestoreCapture| c.database == database || uuid.is_some() && c.database_uuid.as_deref() == uuid;
    let captures: Vec<&FilestoreCapture> = tools.catalogue.captures().chain(&newer).filter(ours).collect();
    if captures.is_empty() && live.is_none() {
        return Ok(None);
    }
    let request = Request {
        environment: &plan.environment,
        captures,
        live: live.map(Arc::new),
        live_damaged: !damaged.is_empty(),
        stop: plan.target.stop_end,
        directory: wanted.directory,
        owner: wanted.owner,
    };
    findings.extend(damaged);
    let names = referenced(client).await?;
    let restored = restore_filestore(&tools.repository, &request, names, &tools.runtime).await?;
    if restored.sizes_differ > 0 {
        findings.push(format!(
            "{} attachments of {database} have another size than the database says",
            restored.sizes_differ
        ));
    }
    for elsewhere in newest_inventory(&request.captures) {
        findings.push(format!("not covered by any backup: {elsewhere}, referred to by {database}"));
    }
    Ok(Some(AttachmentReconciliation {
        database: database.to_owned(),
        referenced: restored.referenced,
        present: restored.present,
        verified: restored.verified,
        bytes: restored.bytes,
        missing: restored.missing,
    }))
}

/// Captures that were recorded since the catalogue was read: they may have taken over what a watcher stored.
/// To be called after that was read.
async fn newer(tools: &Tools, environment: &str, findings: &mut Vec<String>) -> Result<Vec<FilestoreCapture>> {
    let known = tools.catalogue.entries.last().map_or(0, |e| e.sequence);
    let entries = async { ledger(&tools.repository, environment).await?.entries_since(known).await };
    match entries.await {
        Ok(entries) => Ok(entries
            .into_iter()
            .filter_map(|e| match e.statement.predicate.body {
                Body::FilestoreCapture(capture) => Some(capture),
                _ => None,
            })
            .collect()),
        Err(damage) if damage.kind() == ErrorKind::Integrity => {
            let text = format!("captures recorded meanwhile cannot be read: {}", damage.message());
            if !findings.contains(&text) {
                findings.push(text);
            }
            Ok(Vec::new())
        }
        Err(other) => Err(other),
    }
}

/// What the newest capture could not cover.
fn newest_inventory(captures: &[&FilestoreCapture]) -> Vec<NotCovered> {
    captures.last().map(|c| c.not_covered.clone()).unwrap_or_default()
}
