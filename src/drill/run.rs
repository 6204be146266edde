//! A drill: restore into a disposable place, check, measure, destroy, record.
//!
//! Whatever happens, the drill ends with a record in the ledger and an empty sandbox: a drill that
//! fails is evidence too. Every stage is in the drill's journal before it begins; whatever runs on restored
//! data runs behind the sandbox's seal, and is ended with it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::boot::{self, Way};
use super::checks::Circumstances;
use super::compare::Baseline;
use super::loss::{self, Loss, SourceState};
use super::measure::{self, Disaster};
use super::provision::{destroy, provision};
use super::sandbox::limits::Watch;
use super::sandbox::place::is_left;
use super::sandbox::reap::MAKING;
use super::sandbox::{Limits, Part, Sandbox, Seal};
use super::{checks, judges, odoo, reconcile, selftest};
use crate::config::{Check, Environment, Purpose};
use crate::error::{self, Result};
use crate::event::Event;
use crate::evidence::drill_record;
use crate::evidence::drill_record::{
    Cleanup, DrillRecord, FilestoreSource, MissingCause, Rto, SCHEMA_VERSION, SourceSet, StopPoint, Target, Tool,
    Trigger, Verdict,
};
use crate::evidence::egress_record::Egress;
use crate::evidence::sampled::{Restored, Sampling};
use crate::evidence::selftest::{DamageCase, SelfTest};
use crate::evidence::{Appended, Body};
use crate::postgres::server::PrivateServer;
use crate::postgres::source::databases;
use crate::postgres::wal_range;
use crate::repository::base_manifest::BaseManifest;
use crate::repository::catalogue::{Catalogue, ledger};
use crate::restore::attachments::{self, Attachments};
use crate::restore::phases::Phases;
use crate::restore::recover::Stopped;
use crate::restore::{Plan, Resolved, Tools};
use crate::wal_name::segment_name;

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

/// What was found out while the sandbox stood.
#[derive(Debug, Default)]
struct Findings {
    sources: Option<SourceSet>,
    sandbox: Option<drill_record::Sandbox>,
    stopped: Option<Stopped>,
    checks: Vec<drill_record::Check>,
    attachments: Attachments,
    odoo: odoo::Outcome,
    egress: Option<Egress>,
    restored: Option<Restored>,
    loss: Loss,
    validated_after: Option<f64>,
    notes: Vec<String>,
    damage: Option<Vec<DamageCase>>,
}

/// Runs the drill, destroys the sandbox, and records everything.
pub async fn run(tools: &Tools, request: Request<'_>) -> Result<Done> {
    let signer = tools.repository.signer()?;
    let ledger = ledger(&tools.repository, &request.environment.name).await?;
    let began = Instant::now();
    let journal = request.sandbox.journal();
    let mut phases = Phases::new(&tools.runtime).noted(move |stage| match (journal.stage(stage), stage) {
        // A disk too full for a note is no reason to leave a copy of production on it.
        (Err(_), DESTROYING) => Ok(()),
        (noted, _) => noted,
    });
    let mut found = Findings { sources: Some(sources(&request.plan)), ..Findings::default() };
    let provisioned = phases.time(MAKING, None, provision(tools, &request, &mut found.sandbox)).await;
    let (seal, outcome) = match provisioned {
        Ok((seal, manifest)) => {
            let outcome = watched(tools, &request, seal.as_ref(), manifest, began, &mut phases, &mut found).await;
            (Some(seal), outcome)
        }
        Err(e) => (None, Err(e)),
    };
    if let Err(e) = &outcome {
        tools.runtime.emit(Event::Warning(format!("the drill failed: {e}")));
    }
    if found.stopped.is_some() && request.count_lost {
        let counting = count_lost(tools, &request);
        found.loss = phases.time("counting what is lost", None, counting).await?;
    }
    let Request { mut sandbox, .. } = request;
    let request = Finished {
        environment: request.environment,
        plan: request.plan,
        id: request.id,
        started_at: request.started_at,
        incident_time: request.incident_time,
        sampling: request.sampling,
        left_out_on_purpose: request.left_out_on_purpose,
        findings: request.findings,
        operator: request.operator,
        config_digest: request.config_digest,
        binary_sha256: request.binary_sha256,
        no_suite: request.checks.is_empty(),
    };
    found.egress = odoo::egress(&sandbox.egress_log(), &found.odoo);
    let destroying = destroy(seal.as_deref(), &mut sandbox, tools);
    let cleanup = phases.time(DESTROYING, None, destroying).await?;
    let record = request.record(tools, &phases, found, cleanup, outcome.err());
    // The WAL that this drill relied on gets its place in the ledger too, where it has none yet.
    if let Err(e) = wal_range::record(&tools.repository, &record.environment, &ledger, &tools.runtime).await {
        tools.runtime.emit(Event::Warning(format!("the ranges of WAL could not be recorded: {e}")));
    }
    let _ = sandbox.journal().stage("recording");
    let appended = ledger.append(&tools.runtime, signer, Vec::new(), Body::Drill(Box::new(record.clone()))).await?;
    if let Err(e) = sandbox.close(&record.cleanup) {
        tools.runtime.emit(Event::Warning(format!("the drill is recorded, but its journal is left: {e}")));
    }
    Ok(Done { record, appended })
}

/// Counts what the disaster took. That it cannot be counted fails no drill; the record says why.
async fn count_lost(tools: &Tools, request: &Request<'_>) -> Result<Loss> {
    let (plan, incident) = (&request.plan, request.incident_time);
    let (environment, system_id) = (&plan.environment, &plan.base.system_id);
    let source = request.source.as_ref();
    let seen = loss::look(&tools.repository, environment, &plan.target, system_id, incident, source).await;
    Ok(seen
        .unwrap_or_else(|e| Loss { notes: vec![format!("what is lost could not be counted: {e}")], ..Loss::default() }))
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

/// Everything between provisioning and validation.
async fn stages(
    tools: &Tools,
    request: &Request<'_>,
    seal: &dyn Seal,
    manifest: Arc<BaseManifest>,
    phases: &mut Phases,
    found: &mut Findings,
) -> Result<()> {
    let plan = &request.plan;
    let mut tools = tools.clone();
    tools.launch = seal.launch(Part::Server);
    if let Some(bin_dir) = seal.bin_dir() {
        bin_dir.clone_into(&mut tools.bin_dir);
    }
    // Whatever has a socket must lie where the sandbox sees it, and be found by whoever clears up.
    tools.temporary = request.sandbox.short().to_owned();
    if request.sandbox.program().exists() {
        // Linked from there it takes no space, and the sandbox sees it.
        tools.program = request.sandbox.program();
    }
    // A sandbox has its own tablespaces: the original places belong to production.
    tools.tablespaces = manifest
        .links
        .iter()
        .enumerate()
        .map(|(n, (_, source))| (source.clone(), request.sandbox.tablespace(n)))
        .collect::<HashMap<String, PathBuf>>();
    let total = manifest.logical_bytes();
    phases.time(crate::restore::files::PHASE, Some(total), tools.files(plan, manifest.clone(), false)).await?;
    let (bin_dir, launch) = (tools.bin_dir.clone(), Arc::clone(&tools.launch));
    let files_check =
        phases.time("verifying files", None, judges::verify_backup(&bin_dir, launch.as_ref(), &plan.pgdata)).await?;
    found.checks.push(files_check);
    let before = phases.seconds();
    if let Some(options) = &request.selftest {
        let cases = async { Ok(selftest::before_recovery(&tools, request, options).await) };
        found.damage = Some(phases.time("self-test of recovery", None, cases).await?);
    }
    // What a restore in earnest does not do is no part of its time.
    let mut aside = phases.seconds() - before;
    let mut baseline = Baseline::find(&tools, plan, &request.checks).await;
    found.checks.extend(baseline.stop_and_compare(&tools, request, manifest, phases).await?);
    aside += baseline.seconds;
    let work = request.sandbox.short();
    let (server, stopped) = phases.time("replaying WAL", None, tools.recover(plan, work)).await?;
    phases.note(format!("{} of WAL", crate::units::ByteSize(stopped.wal_bytes)));
    if let Some(sandbox) = &mut found.sandbox {
        sandbox.server_version.clone_from(&stopped.server_version);
    }
    found.checks.push(reconcile::stop(&plan.target, &stopped));
    found.stopped = Some(stopped);
    found.restored = Some(Restored { base_bytes: total, wal_bytes: plan.target.wal_bytes, ..Restored::default() });
    found.checks.extend(baseline.compare_at_the_target(&tools, request, &server, phases).await?);
    found.notes.extend(baseline.why_not().map(|why| format!("not compared with the source: {why}")));
    examine(&tools, request, seal, phases, found, &server, &baseline).await?;
    let facts = match &request.selftest {
        Some(_) => Some(selftest::Facts::of(&server).await?),
        None => None,
    };
    phases.time("stopping the server", None, server.stop()).await?;
    let checksums = plan.base.data_checksums;
    let pages = judges::page_checksums(&bin_dir, launch.as_ref(), &plan.pgdata, checksums);
    let pages = phases.time("checking page checksums", None, pages).await?;
    found.checks.push(pages);
    found.validated_after = Some(phases.seconds() - aside);
    if let (Some(options), Some(facts)) = (&request.selftest, &facts) {
        let red: Vec<&str> = found.checks.iter().filter(|c| c.fails_the_drill()).map(|c| c.id.as_str()).collect();
        let cases = match red.is_empty() {
            true => {
                let sound = selftest::Sound {
                    facts,
                    attachments: &found.attachments.reconciled,
                    answers: baseline.at_the_target(),
                    why_not: baseline.why_not().unwrap_or("the source was asked in another state"),
                };
                let cases = async { Ok(selftest::after(&tools, request, options, &sound).await) };
                phases.time("self-test of the checks", None, cases).await?
            }
            // A check that is red anyway finds nothing.
            false => {
                found.damage = None;
                selftest::not_done(&format!("the undamaged copy is not green: {}", red.join(", ")))
            }
        };
        found.damage.get_or_insert_default().extend(cases);
    }
    Ok(())
}

/// What needs the running server: attachments by reference, the configured checks, the structure.
async fn examine(
    tools: &Tools,
    request: &Request<'_>,
    seal: &dyn Seal,
    phases: &mut Phases,
    found: &mut Findings,
    server: &PrivateServer,
    baseline: &Baseline,
) -> Result<()> {
    let restoring = attachments::restore(tools, &request.plan, server);
    found.attachments = phases.time(crate::filestore::restore::PHASE, None, restoring).await?;
    if let Some(restored) = &mut found.restored {
        restored.attachment_bytes = found.attachments.reconciled.iter().map(|a| a.bytes).sum();
        restored.databases = databases(&server.sql("template1").await?).await?;
    }
    let captures: Vec<_> = tools.catalogue.captures().collect();
    let tenants = phases.time("reconciling", None, reconcile::tenants(server, request.environment, &captures)).await?;
    found.checks.extend(found.attachments.reconciled.iter().map(reconcile::files));
    found.checks.extend(tenants);
    let circumstances = Circumstances {
        reference: baseline.reference(),
        rpo: request.environment.objectives.rpo,
        now: request.plan.target.last_kept.map(|t| t.time),
        launch: tools.launch.as_ref(),
        filestore: request.plan.filestore.as_deref(),
    };
    let checked = phases.time("running checks", None, checks::run(server, &request.checks, &circumstances)).await?;
    found.checks.extend(checked);
    found.checks.extend(checks::without_odoo(&request.checks, "no Odoo was started in this drill"));
    let structure = judges::structure(&tools.bin_dir, tools.launch.as_ref(), server);
    let structure = phases.time("checking indexes", None, structure).await?;
    found.checks.push(structure);
    if request.selftest.is_some() {
        // Damaged copies are made of what was restored, not of what was made harmless.
        return Ok(());
    }
    let (filestore, launch) = (request.sandbox.filestore(), seal.launch(Part::Odoo));
    let inputs = odoo::Inputs {
        environment: request.environment,
        server,
        launch: launch.as_ref(),
        own_program: seal.own_program(),
        account: tools.account.as_ref(),
        filestore: &filestore,
        home: &request.sandbox.root().join("odoo"),
        // Without a seal there is no way in, and then no Odoo is started.
        way: seal.way_in(boot::PORT).map(Way::Unix),
    };
    found.odoo = phases.time("neutralising", None, odoo::neutralise(&inputs)).await?;
    let booted = phases.time("starting Odoo", None, odoo::boot(&inputs, &mut found.odoo)).await;
    found.checks.append(&mut found.odoo.checks);
    booted
}

fn sources(plan: &Plan) -> SourceSet {
    let (base, target) = (&plan.base, &plan.target);
    let size = base.wal_segment_size;
    SourceSet {
        base_backup: base.id.clone(),
        manifest: base.manifest.clone(),
        start_lsn: base.start_lsn,
        stop_lsn: base.stop_lsn,
        wal_first: base.wal.first.clone(),
        wal_last: segment_name(target.timeline, target.stop_end.previous_segment(size), size),
        timeline: target.timeline,
        filestores: plan
            .filestores
            .iter()
            .map(|f| FilestoreSource {
                database: f.database.clone(),
                capture: f.capture.clone(),
                index: f.index.clone(),
            })
            .collect(),
        configuration: plan.export.clone(),
        key_ids: Vec::new(),
    }
}

/// The request without its sandbox, which is gone.
struct Finished<'a> {
    environment: &'a Environment,
    plan: Plan,
    id: String,
    started_at: DateTime<Utc>,
    incident_time: DateTime<Utc>,
    sampling: Sampling,
    left_out_on_purpose: bool,
    findings: Vec<String>,
    operator: String,
    config_digest: String,
    binary_sha256: Option<String>,
    no_suite: bool,
}

impl Finished<'_> {
    fn record(
        self,
        tools: &Tools,
        phases: &Phases,
        found: Findings,
        cleanup: Cleanup,
        failure: Option<error::Error>,
    ) -> DrillRecord {
        let environment = self.environment;
        let target = &self.plan.target;
        let mut findings: Vec<String> = self.plan.warnings.clone();
        findings.extend(found.notes);
        findings.extend(self.findings);
        findings.extend(found.loss.notes.iter().cloned());
        findings.extend(found.attachments.findings.iter().cloned());
        findings.extend(found.odoo.findings.iter().cloned());
        findings.extend(found.egress.iter().flat_map(|egress| egress.neutralised.iter().cloned()));
        findings.extend(found.attachments.reconciled.iter().filter_map(|a| {
            let late = a.missing.iter().filter(|m| m.cause == MissingCause::NotCaptured).count();
            (late > 0)
                .then(|| format!("{late} attachment(s) of {} were stored after the last filestore capture", a.database))
        }));
        if self.no_suite {
            findings.push("no check suite is configured: the data was restored, but nothing was asked about it".into());
        }
        let error = failure.map(|e| e.message()).or_else(|| {
            is_left(&cleanup).then(|| format!("the sandbox was not destroyed: {}", cleanup.residue.join(", ")))
        });
        let rpo = found.stopped.as_ref().map(|_| {
            let disaster = Disaster {
                incident_time: self.incident_time,
                left_out_on_purpose: self.left_out_on_purpose,
                loss: &found.loss,
            };
            measure::rpo(&tools.catalogue, environment, target, &found.attachments.reconciled, disaster)
        });
        let mut sources = found.sources;
        if let Some(sources) = &mut sources {
            sources.key_ids = vec![format!("epoch {}", tools.repository.descriptor.epoch)];
        }
        let finished_at = tools.runtime.now();
        let selftest = match found.damage {
            Some(cases) => Some(SelfTest { drill: self.id.clone(), finished_at, cases }),
            None => last_selftest(&tools.catalogue),
        };
        let (mut all_phases, after) = measure::assumed(&environment.assumed);
        all_phases.extend(phases.measured().iter().cloned());
        all_phases.extend(after);
        let mut record = DrillRecord {
            id: self.id,
            schema_version: SCHEMA_VERSION,
            environment: environment.name.clone(),
            purpose: purpose(environment.purpose).to_owned(),
            owner: environment.owner.clone(),
            trigger: Trigger { kind: drill_record::TriggerKind::Manual, reference: None },
            operator: self.operator,
            tool: Tool { version: env!("CARGO_PKG_VERSION").to_owned(), binary_sha256: self.binary_sha256 },
            config_digest: self.config_digest,
            sources,
            incident_time: self.incident_time,
            target: stop_points(target, found.stopped.as_ref()),
            sandbox: found.sandbox,
            phases: all_phases,
            checks: found.checks,
            attachments: found.attachments.reconciled,
            neutralised: found.odoo.neutralised,
            boots: found.odoo.boots,
            egress: found.egress,
            rpo,
            sampling: Some(self.sampling),
            restored: found.restored,
            rto: Rto::new(
                environment.objectives.rto.as_secs_f64(),
                found.validated_after,
                environment.assumed.seconds(),
            ),
            selftest,
            cleanup,
            findings,
            error,
            killed_in: None,
            verdict: Verdict::Failed,
            started_at: self.started_at,
            finished_at,
        };
        record.verdict = record.judge();
        record
    }
}

/// The newest self-test in the ledger.
fn last_selftest(catalogue: &Catalogue) -> Option<SelfTest> {
    catalogue.entries.iter().rev().find_map(|entry| match &entry.statement.predicate.body {
        Body::Drill(drill) => drill.selftest.clone().filter(|test| test.drill == drill.id),
        _ => None,
    })
}

fn stop_points(target: &Resolved, stopped: Option<&Stopped>) -> Target {
    let as_intended = stopped.is_some_and(|s| s.as_intended(target));
    let kept = target.last_kept.map(|t| t.time);
    Target {
        requested: target.requested.clone(),
        resolved: Some(StopPoint {
            timeline: target.timeline,
            lsn: target.stop_end,
            time: target.last_kept.map(|t| t.time),
        }),
        // PostgreSQL's log names the transaction before the one it stopped behind; at the intended place the
        // WAL itself says which was the last.
        actual: stopped.map(|s| StopPoint {
            timeline: s.timeline,
            lsn: s.lsn,
            time: if as_intended { kept } else { s.time },
        }),
        as_intended,
    }
}

pub(super) fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Production => "production",
        Purpose::Staging => "staging",
        Purpose::Qa => "qa",
        Purpose::Training => "training",
        Purpose::PeakSeason => "peak-season",
        Purpose::Other => "other",
    }
}
