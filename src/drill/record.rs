//! The record of a drill: everything that was found out about it, put together and judged once, when it is over.

use super::loss::Loss;
use super::measure::{self, Disaster};
use super::odoo;
use super::run::Request;
use super::sandbox::place::is_left;
use crate::config::Purpose;
use crate::error;
use crate::evidence::Body;
use crate::evidence::drill_record::{
    self, Cleanup, DrillRecord, FilestoreSource, MissingCause, Rto, SCHEMA_VERSION, SourceSet, StopPoint, Target, Tool,
    Trigger, Verdict,
};
use crate::evidence::egress_record::Egress;
use crate::evidence::sampled::Restored;
use crate::evidence::selftest::{DamageCase, SelfTest};
use crate::repository::catalogue::Catalogue;
use crate::restore::attachments::Attachments;
use crate::restore::phases::Phases;
use crate::restore::recover::Stopped;
use crate::restore::{Plan, Resolved, Tools};
use crate::wal_name::segment_name;

/// What was found out while the sandbox stood.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) sandbox: Option<drill_record::Sandbox>,
    pub(super) stopped: Option<Stopped>,
    pub(super) checks: Vec<drill_record::Check>,
    pub(super) attachments: Attachments,
    pub(super) odoo: odoo::Outcome,
    pub(super) egress: Option<Egress>,
    pub(super) restored: Option<Restored>,
    pub(super) loss: Loss,
    pub(super) validated_after: Option<f64>,
    pub(super) notes: Vec<String>,
    pub(super) damage: Option<Vec<DamageCase>>,
}

/// Everything that a drill came to, with its verdict. The sandbox is gone.
pub(super) fn record(
    tools: &Tools,
    request: &Request<'_>,
    phases: &Phases,
    found: Findings,
    cleanup: Cleanup,
    failure: Option<error::Error>,
) -> DrillRecord {
    let (environment, plan) = (request.environment, &request.plan);
    let target = &plan.target;
    let mut findings: Vec<String> = plan.warnings.clone();
    findings.extend(found.notes);
    findings.extend(request.findings.iter().cloned());
    findings.extend(found.loss.notes.iter().cloned());
    findings.extend(found.attachments.findings.iter().cloned());
    findings.extend(found.odoo.findings.iter().cloned());
    findings.extend(found.egress.iter().flat_map(|egress| egress.neutralised.iter().cloned()));
    findings.extend(found.attachments.reconciled.iter().filter_map(|a| {
        let late = a.missing.iter().filter(|m| m.cause == MissingCause::NotCaptured).count();
        (late > 0)
            .then(|| format!("{late} attachment(s) of {} were stored after the last filestore capture", a.database))
    }));
    if request.checks.is_empty() {
        findings.push("no check suite is configured: the data was restored, but nothing was asked about it".into());
    }
    let error = failure.map(|e| e.message()).or_else(|| {
        is_left(&cleanup).then(|| format!("the sandbox was not destroyed: {}", cleanup.residue.join(", ")))
    });
    let rpo = found.stopped.as_ref().map(|_| {
        let disaster = Disaster {
            incident_time: request.incident_time,
            left_out_on_purpose: request.left_out_on_purpose,
            loss: &found.loss,
        };
        measure::rpo(&tools.catalogue, environment, target, &found.attachments.reconciled, disaster)
    });
    let finished_at = tools.runtime.now();
    let selftest = match found.damage {
        Some(cases) => Some(SelfTest { drill: request.id.clone(), finished_at, cases }),
        None => last_selftest(&tools.catalogue),
    };
    let (mut all_phases, after) = measure::assumed(&environment.assumed);
    all_phases.extend(phases.measured().iter().cloned());
    all_phases.extend(after);
    let mut record = DrillRecord {
        id: request.id.clone(),
        schema_version: SCHEMA_VERSION,
        environment: environment.name.clone(),
        purpose: purpose(environment.purpose).to_owned(),
        owner: environment.owner.clone(),
        trigger: Trigger { kind: drill_record::TriggerKind::Manual, reference: None },
        operator: request.operator.clone(),
        tool: Tool { version: env!("CARGO_PKG_VERSION").to_owned(), binary_sha256: request.binary_sha256.clone() },
        config_digest: request.config_digest.clone(),
        sources: Some(sources(tools, plan)),
        incident_time: request.incident_time,
        target: stop_points(target, found.stopped.as_ref()),
        sandbox: found.sandbox,
        phases: all_phases,
        checks: found.checks,
        attachments: found.attachments.reconciled,
        neutralised: found.odoo.neutralised,
        boots: found.odoo.boots,
        egress: found.egress,
        rpo,
        sampling: Some(request.sampling.clone()),
        restored: found.restored,
        rto: Rto::new(environment.objectives.rto.as_secs_f64(), found.validated_after, environment.assumed.seconds()),
        selftest,
        cleanup,
        findings,
        error,
        killed_in: None,
        verdict: Verdict::Failed,
        started_at: request.started_at,
        finished_at,
    };
    record.verdict = record.judge();
    record
}

fn sources(tools: &Tools, plan: &Plan) -> SourceSet {
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
        key_ids: vec![format!("epoch {}", tools.repository.descriptor.epoch)],
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
