//! The estate and its environments.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Due, Job, running};
use crate::config::{JobKind, Role};
use crate::service::advice::{self, Advice, Judge};
use crate::service::http::visitor::Visitor;
use crate::service::state::{EnvironmentView, EstateView, WorkerState, WorkerView};

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// The name, as it stands in ledgers and in the audit log.
    pub(crate) name: String,
    /// The role.
    pub(crate) role: Role,
    /// Environments that can be seen; null: all.
    pub(crate) environments: Option<Vec<String>>,
}

/// The estate.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EstateSummary {
    /// Name of the instance that answers.
    instance: String,
    /// Version of Lifeboat.
    version: String,
    /// When it was started.
    started_at: DateTime<Utc>,
    /// Whether it is being stopped.
    stopping: bool,
    /// One more with each reload of the configuration.
    config_generation: u64,
    /// Why the newest reload was refused; the configuration before it stays in force.
    config_problem: Option<String>,
    /// Address of the repository.
    repository: String,
    /// Whether it answered when it was asked last; null before that.
    repository_reachable: Option<bool>,
    /// Why it did not.
    repository_error: Option<String>,
    /// The environments.
    environments: Vec<EnvironmentSummary>,
    /// Jobs that run or wait for a place.
    jobs_running: Vec<Job>,
}

impl EstateSummary {
    pub(crate) fn of<'a>(
        view: &EstateView,
        judge: &Judge<'_>,
        seen: impl Iterator<Item = &'a EnvironmentView>,
        visitor: &Visitor,
    ) -> Self {
        Self {
            instance: view.instance.clone(),
            version: view.version.clone(),
            started_at: view.started_at,
            stopping: view.stopping,
            config_generation: view.config_generation,
            config_problem: view.config_problem.as_ref().map(|problem| problem.message.clone()),
            repository: view.repository.url.clone(),
            repository_reachable: view.repository.reachable,
            repository_error: view.repository.error.clone(),
            environments: seen.map(|environment| EnvironmentSummary::of(environment, judge)).collect(),
            jobs_running: running(view, visitor),
        }
    }
}

/// One environment in short.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnvironmentSummary {
    /// Its name.
    name: String,
    /// What it is for.
    purpose: String,
    /// The team that answers for it.
    owner: String,
    /// When repository and PostgreSQL were looked at; null: not yet.
    looked_at: Option<DateTime<Utc>>,
    /// How bad it is.
    state: advice::Severity,
    /// What is wrong and what to do, worst first.
    advice: Vec<Advice>,
    /// The newest time at which database, filestore and configuration are all restorable and agree.
    watermark: Option<DateTime<Utc>>,
    /// The oldest moment that can be restored.
    restorable_from: Option<DateTime<Utc>>,
    /// The newest moment that can be restored.
    restorable_to: Option<DateTime<Utc>>,
    /// What would be lost if the cluster were gone now, at most.
    exposure_seconds: Option<f64>,
    /// The recovery point objective in force.
    rpo_objective_seconds: f64,
    /// Whether it is met now; null where that is not known.
    rpo_met: Option<bool>,
    /// The recovery time objective in force.
    rto_objective_seconds: f64,
    /// How long a restore would take at the worst moment, from drills; null before the first.
    rto_predicted_seconds: Option<f64>,
    /// The last drill.
    last_drill: Option<DrillLine>,
    /// When the next one is due.
    next_drill: Option<DateTime<Utc>>,
    /// Who receives WAL and watches filestores.
    workers: Vec<Worker>,
}

impl EnvironmentSummary {
    pub(crate) fn of(environment: &EnvironmentView, judge: &Judge<'_>) -> Self {
        let view = environment.view.as_deref();
        let advice = judge.advice(environment);
        Self {
            name: environment.name.clone(),
            purpose: word(&environment.purpose),
            owner: environment.owner.clone(),
            looked_at: view.map(|v| v.now),
            state: advice::worst(&advice),
            advice,
            watermark: view.and_then(|v| v.watermark.as_ref()?.time),
            restorable_from: view.and_then(|v| v.windows.iter().map(|w| w.from.time).min()),
            restorable_to: view.and_then(|v| v.windows.iter().map(|w| w.to.time).max()),
            exposure_seconds: view.and_then(|v| v.exposure.seconds),
            rpo_objective_seconds: environment.objectives.rpo_seconds,
            rpo_met: view.and_then(|v| v.exposure.seconds).map(|s| s <= environment.objectives.rpo_seconds),
            rto_objective_seconds: environment.objectives.rto_seconds,
            rto_predicted_seconds: environment
                .outlook
                .as_ref()
                .and_then(|o| o.forecast.as_ref())
                .map(|forecast| forecast.predicted_seconds),
            last_drill: view.and_then(|v| v.last_drill.as_ref()).map(|drill| DrillLine {
                sequence: drill.sequence,
                recorded_at: drill.recorded_at,
                summary: drill.summary.clone(),
                bad: drill.bad,
            }),
            next_drill: next_drill(environment, judge.estate),
            workers: environment.workers.iter().map(Worker::of).collect(),
        }
    }
}

/// When the next drill of an environment is due.
pub(crate) fn next_drill(environment: &EnvironmentView, estate: &EstateView) -> Option<DateTime<Utc>> {
    let due = estate.next.iter().filter(|next| next.environment == environment.name && next.kind == JobKind::Drill);
    due.map(|next| next.expected_at.unwrap_or(next.scheduled_for)).min()
}

/// A plain value as the word that JSON has for it.
pub(crate) fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A drill in one line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DrillLine {
    /// Number of its ledger entry.
    pub(crate) sequence: u64,
    /// When it was recorded.
    pub(crate) recorded_at: DateTime<Utc>,
    /// What came of it.
    pub(crate) summary: String,
    /// Whether it did not pass.
    pub(crate) bad: bool,
}

/// A worker of an environment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Worker {
    /// `wal` or `filestore`.
    kind: String,
    /// `running`, `waiting`, `elsewhere` or `stopped`.
    state: String,
    /// Since when.
    since: DateTime<Utc>,
    /// How often it was started again.
    restarts: u64,
    /// How it failed last.
    last_failure: Option<String>,
}

impl Worker {
    fn of(worker: &WorkerView) -> Self {
        Self {
            kind: word(&worker.kind),
            state: match worker.state {
                WorkerState::Elsewhere { .. } => "elsewhere",
                WorkerState::Running => "running",
                WorkerState::Waiting { .. } => "waiting",
                WorkerState::Stopped => "stopped",
            }
            .into(),
            since: worker.since,
            restarts: worker.restarts,
            last_failure: worker.last_failure.as_ref().map(|failure| failure.message.clone()),
        }
    }
}

/// One environment in full.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnvironmentDetail {
    /// In short.
    pub(crate) summary: EnvironmentSummary,
    /// As `lifeboat --format json show` has it (`docs/json.md`); null before it was looked at.
    #[schema(value_type = Option<Object>)]
    pub(crate) show: Value,
    /// As `lifeboat --format json drill coverage` has it: `coverage` and `forecast`; null before it was looked at.
    #[schema(value_type = Option<Object>)]
    pub(crate) outlook: Value,
    /// Jobs that run or wait.
    pub(crate) jobs: Vec<Job>,
    /// What is due next.
    pub(crate) upcoming: Vec<Due>,
}

/// A list of things of one environment, as the ledger or the view has them (`docs/json.md`).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Backups {
    /// Base backups, oldest first, with `restorable` and `why_not`.
    #[schema(value_type = Vec<Object>)]
    pub(crate) base_backups: Value,
    /// The newest capture of each database's filestore.
    #[schema(value_type = Vec<Object>)]
    pub(crate) filestores: Value,
    /// The newest export of the configuration; null: none.
    #[schema(value_type = Option<Object>)]
    pub(crate) configuration: Value,
    /// Unbroken runs of WAL segments.
    #[schema(value_type = Vec<Object>)]
    pub(crate) wal: Value,
}

/// What can be restored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Windows {
    /// Stretches every second of which can be restored, oldest first.
    #[schema(value_type = Vec<Object>)]
    pub(crate) windows: Value,
    /// Missing WAL.
    #[schema(value_type = Vec<Object>)]
    pub(crate) gaps: Value,
    /// The watermark and what limits it; null before it was looked at.
    #[schema(value_type = Option<Object>)]
    pub(crate) watermark: Value,
}

/// The drills of an environment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Drills {
    /// Every drill in the ledger, oldest first: `drill`, `sequence`, `at`, `target`, `sound`, `random`.
    #[schema(value_type = Vec<Object>)]
    pub(crate) drills: Value,
    /// What random drills together prove; null before it was looked at.
    #[schema(value_type = Option<Object>)]
    pub(crate) random: Value,
}

/// One drill.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Drill {
    /// Number of its ledger entry.
    pub(crate) sequence: u64,
    /// SHA-256 of the entry.
    pub(crate) sha256: String,
    /// The record, as it was signed.
    #[schema(value_type = Object)]
    pub(crate) record: Value,
}
