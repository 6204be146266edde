//! Drills whose Lifeboat was killed: cleaned up, verified to be gone, and recorded as *not completed* with the
//! stage that they were in. A drill that began never ends in silence.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::odoo;
use super::record::purpose;
use super::sandbox::journal::{Dead, dead};
use super::sandbox::place::is_left;
use super::sandbox::reap::{clean, egress_log};
use crate::config::Estate;
use crate::error::Result;
use crate::event::Event;
use crate::evidence::drill_record::{
    Cleanup, DrillRecord, Rto, SCHEMA_VERSION, Target, Tool, Trigger, TriggerKind, Verdict,
};
use crate::evidence::{Appended, Body};
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::runtime::Runtime;

/// A drill that was cleaned up.
#[derive(Debug, Clone, Serialize)]
pub struct Reaped {
    /// Id of the drill.
    pub drill: String,
    /// The environment that it restored.
    pub environment: String,
    /// The stage in which it was killed.
    pub stage: String,
    /// What it had made, and what is left of that.
    pub cleanup: Cleanup,
    /// Where the ledger says it; null where it did before.
    pub ledger: Option<Appended>,
}

/// Cleans up after the dead drills of this repository whose journals lie in `parents`, and records them.
///
/// # Errors
/// Where the ledger cannot be written. The journal stays then, and the next call records the drill.
pub async fn reap(
    estate: &Estate,
    repository: &Repository,
    parents: &[PathBuf],
    runtime: &Runtime,
) -> Result<Vec<Reaped>> {
    let mut reaped = Vec::new();
    for parent in parents {
        for dead in dead(parent)? {
            if dead.begun.repository == repository.descriptor.repository {
                reaped.push(one(estate, repository, dead, runtime).await?);
            } else {
                runtime.emit(Event::Warning(format!(
                    "{} holds what is left of drill {} of another estate; `lifeboat drill reap` with its configuration cleans it up",
                    parent.display(),
                    dead.begun.id
                )));
            }
        }
    }
    Ok(reaped)
}

async fn one(estate: &Estate, repository: &Repository, dead: Dead, runtime: &Runtime) -> Result<Reaped> {
    // What it was told to neutralise is not known any more.
    let egress = egress_log(&dead).and_then(|log| odoo::egress(&log, &[]));
    let cleanup = clean(&dead, runtime.now()).await?;
    let begun = &dead.begun;
    let ledger = ledger(repository, &begun.environment).await?;
    let of_this = |body: &Body| matches!(body, Body::Drill(record) if record.id == begun.id);
    // It may have been killed, or have left something, after it was recorded.
    let recorded = ledger.read().await?.entries.iter().any(|entry| of_this(&entry.statement.predicate.body));
    let appended = match recorded {
        true => None,
        false => {
            let record = DrillRecord { egress, ..record(estate, &dead, cleanup.clone(), runtime.now()) };
            let body = Body::Drill(Box::new(record));
            Some(ledger.append(runtime, repository.signer()?, Vec::new(), body).await?)
        }
    };
    let reaped = Reaped {
        drill: begun.id.clone(),
        environment: begun.environment.clone(),
        stage: dead.stage.clone(),
        cleanup,
        ledger: appended,
    };
    if !is_left(&reaped.cleanup) {
        dead.close()?;
    }
    Ok(reaped)
}

fn record(estate: &Estate, dead: &Dead, cleanup: Cleanup, now: DateTime<Utc>) -> DrillRecord {
    let begun = &dead.begun;
    let environment = estate.environments.iter().find(|e| e.name == begun.environment);
    let mut findings = Vec::new();
    if is_left(&cleanup) {
        findings.push(format!("the sandbox was not destroyed: {}", cleanup.residue.join(", ")));
    }
    let mut record = DrillRecord {
        id: begun.id.clone(),
        schema_version: SCHEMA_VERSION,
        environment: begun.environment.clone(),
        purpose: environment.map_or("other", |e| purpose(e.purpose)).to_owned(),
        owner: environment.map_or_else(|| "no longer configured".to_owned(), |e| e.owner.clone()),
        trigger: Trigger { kind: TriggerKind::Manual, reference: None },
        operator: begun.operator.clone(),
        tool: Tool { version: env!("CARGO_PKG_VERSION").to_owned(), binary_sha256: None },
        config_digest: begun.config_digest.clone(),
        sources: None,
        incident_time: begun.incident_time,
        target: Target { requested: begun.requested.clone(), resolved: None, actual: None, as_intended: false },
        sampling: begun.sampling.clone(),
        sandbox: None,
        restored: None,
        phases: Vec::new(),
        checks: Vec::new(),
        attachments: Vec::new(),
        neutralised: Vec::new(),
        boots: Vec::new(),
        egress: None,
        rpo: None,
        rto: Rto::new(environment.map_or(0.0, |e| e.objectives.rto.as_secs_f64()), None, 0.0),
        cleanup,
        findings,
        error: Some(format!("Lifeboat was killed while {}", dead.stage)),
        selftest: None,
        killed_in: Some(dead.stage.clone()),
        verdict: Verdict::NotCompleted,
        started_at: begun.started_at,
        finished_at: now,
    };
    record.verdict = record.judge();
    record
}
