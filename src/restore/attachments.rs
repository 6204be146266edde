//! Attachments of a recovered cluster: database first, then exactly the files that it refers to.

use super::plan::Plan;
use super::tools::Tools;
use crate::disk::Owner;
use crate::error::Result;
use crate::evidence::drill_record::AttachmentReconciliation;
use crate::evidence::entry::FilestoreCapture;
use crate::filestore::referenced;
use crate::filestore::restore::{Request, restore as restore_filestore};
use crate::postgres::server::PrivateServer;
use crate::postgres::source::databases;
use crate::postgres::sql::explain;

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
        let captures: Vec<&FilestoreCapture> = tools.catalogue.captures().filter(|c| c.database == database).collect();
        if !is_odoo || captures.is_empty() {
            if is_odoo {
                done.findings.push(format!("{database} is an Odoo database, but its filestore was never captured"));
            }
            continue;
        }
        let request = Request {
            environment: &plan.environment,
            captures,
            stop: plan.target.stop_end,
            directory: &root.join(&database),
            owner: tools.account.as_ref().map(Owner::from),
        };
        let wanted = referenced(&client).await?;
        let restored = restore_filestore(&tools.repository, &request, wanted, &tools.runtime).await?;
        if restored.sizes_differ > 0 {
            done.findings.push(format!(
                "{} attachments of {database} have another size than the database says",
                restored.sizes_differ
            ));
        }
        done.reconciled.push(AttachmentReconciliation {
            database,
            referenced: restored.referenced,
            present: restored.present,
            verified: restored.verified,
            bytes: restored.bytes,
            missing: restored.missing,
        });
    }
    Ok(done)
}
