//! A drill: restore into a disposable place, check, measure, destroy, record.
//!
//! Whatever happens, the drill ends with a record in the ledger and an empty sandbox: a drill that
//! fails is evidence too. Every stage is in the drill's journal before it begins; whatever runs on restored
//! data runs behind the sandbox's seal, and is ended with it.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::loss::{self, Loss, SourceState};
use super::provision::{destroy, provision};
use super::record::{Findings, record};
use super::sandbox::limits::Watch;
use super::sandbox::reap::MAKING;
use super::sandbox::{Limits, Sandbox, Seal};
use super::stages::stages;
use super::{odoo, selftest};
use crate::config::{Check, Environment};
use crate::error::{self, Error, Result};
use crate::event::Event;
use crate::evidence::drill_record::DrillRecord;
use crate::evidence::sampled::Sampling;
use crate::evidence::{Appended, Body};
use crate::postgres::wal_range;
use crate::repository::base_manifest::BaseManifest;
use crate::repository::catalogue::{Catalogue, ledger};
use crate::restore::phases::Phases;
use crate::restore::{Plan, Tools};

/// The phase that must not fail for want of a note.
const DESTROYING: &str = "destroying the sandbox";

/// How long a stage that was given up may take to notice.
const WINDING_DOWN: Duration = Duration::from_secs(60);
/// Between two removals of what it still writes.
const EMPTYING: Duration = Duration::from_millis(100);

/// What a drill is asked to do.
#[derive(Debug)]
pub struct Request<'a> {
    /// The environment.
    pub environment: &'a Environment,
    /// The checks to run.
    pub checks: Vec<&'a Check>,
    /// The target as resolved, with the plan made for [`Sandbox::pgdata`].
    pub plan: Plan,
    /// The disposable place.
    pub sandbox: Sandbox,
    /// Files and directories that programs in the sandbox read, beside PostgreSQL's and the operating system's.
    pub readable: Vec<PathBuf>,
    /// Ports of the sandbox that checks ask.
    pub ports: Vec<u16>,
    /// Id of the drill.
    pub id: String,
    /// When the drill began.
    pub started_at: DateTime<Utc>,
    /// When the disaster happened, or is supposed to have happened: as a rule, when the drill began.
    pub incident_time: DateTime<Utc>,
    /// How the target was chosen.
    pub sampling: Sampling,
    /// Whether a moment of the past was chosen without a disaster: what came after it is left out on purpose.
    pub left_out_on_purpose: bool,
    /// Whether what is lost shall be counted in WAL, as far as that is possible.
    pub count_lost: bool,
    /// Where the source was at the moment of the disaster, where it was asked and answered.
    pub source: Option<SourceState>,
    /// What somebody should look at, found before the drill began.
    pub findings: Vec<String>,
    /// Account and host of whoever asked.
    pub operator: String,
    /// SHA-256 of the configuration in force.
    pub config_digest: String,
    /// SHA-256 of the running program.
    pub binary_sha256: Option<String>,
    /// Whether the checks are tested, too, by damage to copies of what was restored.
    pub selftest: Option<selftest::Options>,
}

/// A recorded drill.
#[derive(Debug)]
pub struct Done {
    /// The record.
    pub record: DrillRecord,
    /// Where the ledger says it.
    pub appended: Appended,
}

/// Runs the drill, destroys the sandbox, and records everything.
pub async fn run(tools: &Tools, mut request: Request<'_>) -> Result<Done> {
    let signer = tools.repository.signer()?;
    let ledger = ledger(&tools.repository, &request.environment.name).await?;
    let began = Instant::now();
    let journal = request.sandbox.journal();
    let mut phases = Phases::new(&tools.runtime).noted(move |stage| match (journal.stage(stage), stage) {
        // A disk too full for a note is no reason to leave a copy of production on it.
        (Err(_), DESTROYING) => Ok(()),
        (noted, _) => noted,
    });
    let mut found = Findings::default();
    let provisioned = phases.time(MAKING, None, provision(tools, &request, &mut found.sandbox)).await;
    let (seal, outcome) = match provisioned {
        Ok((seal, manifest)) => {
            let outcome = watched(tools, &request, seal.as_ref(), manifest, began, &mut phases, &mut found).await;
            (Some(seal), outcome)
        }
        Err(e) => (None, Err(e)),
    };
    let outcome = match outcome {
        Err(failure) => Err(explained(tools, &request.plan, failure).await),
        done => done,
    };
    if let Err(e) = &outcome {
        tools.runtime.emit(Event::Warning(format!("the drill failed: {e}")));
    }
    if found.stopped.is_some() && request.count_lost {
        let counting = count_lost(tools, &request);
        // A note that finds no room on the disk must not keep the drill from being recorded.
        found.loss = phases.time("counting what is lost", None, counting).await.unwrap_or_else(|e| uncounted(&e));
    }
    found.egress = odoo::egress(&request.sandbox.egress_log(), &found.odoo.neutralised);
    let destroying = destroy(seal.as_deref(), &mut request.sandbox, tools);
    let cleanup = phases.time(DESTROYING, None, destroying).await?;
    let record = record(tools, &request, &phases, found, cleanup, outcome.err());
    // The WAL that this drill relied on gets its place in the ledger too, where it has none yet.
    if let Err(e) = wal_range::record(&tools.repository, &record.environment, &ledger, &tools.runtime).await {
        tools.runtime.emit(Event::Warning(format!("the ranges of WAL could not be recorded: {e}")));
    }
    let _ = request.sandbox.journal().stage("recording");
    let appended = ledger.append(&tools.runtime, signer, Vec::new(), Body::Drill(Box::new(record.clone()))).await?;
    if let Err(e) = request.sandbox.close(&record.cleanup) {
        tools.runtime.emit(Event::Warning(format!("the drill is recorded, but its journal is left: {e}")));
    }
    Ok(Done { record, appended })
}

/// The failure of a drill, which is that of its restore point where retention gave that up while the drill ran.
async fn explained(tools: &Tools, plan: &Plan, failure: Error) -> Error {
    let Ok(now) = Catalogue::load(&tools.repository, &plan.environment).await else { return failure };
    let base = &plan.base.id;
    let gone = |id: &str| !now.captures().any(|capture| capture.id == id);
    let what = match plan.filestores.iter().find(|filestore| gone(&filestore.capture)) {
        _ if !now.bases().any(|kept| kept.id == *base) => format!("base backup {base}"),
        Some(filestore) => format!("filestore capture {}", filestore.capture),
        None => return failure,
    };
    let why = failure.message();
    error::not_recoverable(format!("the restore point expired while the drill ran: retention gave up {what} ({why})"))
        .meaning("this says nothing about the restore points that are kept")
        .hint("run the drill again, to a time within the recovery window")
}

/// Counts what the disaster took. That it cannot be counted fails no drill; the record says why.
async fn count_lost(tools: &Tools, request: &Request<'_>) -> Result<Loss> {
    let (plan, incident) = (&request.plan, request.incident_time);
    let (environment, system_id) = (&plan.environment, &plan.base.system_id);
    let source = request.source.as_ref();
    let seen = loss::look(&tools.repository, environment, &plan.target, system_id, incident, source).await;
    Ok(seen.unwrap_or_else(|e| uncounted(&e)))
}

fn uncounted(why: &Error) -> Loss {
    Loss { notes: vec![format!("what is lost could not be counted: {why}")], ..Loss::default() }
}

/// Runs the stages, and ends them when the drill takes more than it may.
async fn watched(
    tools: &Tools,
    request: &Request<'_>,
    seal: &dyn Seal,
    manifest: Arc<BaseManifest>,
    began: Instant,
    phases: &mut Phases,
    found: &mut Findings,
) -> Result<()> {
    let limits = Limits::from(&request.environment.drill);
    let directories = vec![request.sandbox.root().to_owned(), request.sandbox.short().to_owned()];
    let watch = Watch::new(limits, directories, seal, request.sandbox.journal(), began);
    let outcome = {
        let mut stages = std::pin::pin!(stages(tools, request, seal, manifest, phases, found));
        tokio::select! {
            biased;
            outcome = &mut stages => outcome,
            () = watch.until_exceeded() => wind_down(stages, &request.sandbox).await,
        }
    };
    phases.given_up();
    if outcome.is_err() {
        watch.look_back().await;
    }
    // A server that was ended for taking too much fails its stage first; the reason is what counts.
    match watch.take_reason() {
        Some(reason) => Err(reason),
        None => outcome,
    }
}

/// Lets a stage of a drill that is given up come to its end: its programs have ended, and what threads of this
/// process still write ends when the directories are gone. They could make them anew behind a removal that did
/// not wait for them.
async fn wind_down(mut stages: Pin<&mut impl Future<Output = Result<()>>>, sandbox: &Sandbox) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < WINDING_DOWN {
        sandbox.empty().await?;
        if let Ok(outcome) = tokio::time::timeout(EMPTYING, &mut stages).await {
            return outcome;
        }
    }
    Ok(())
}
