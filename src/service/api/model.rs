//! What the API says of the estate. Times are RFC 3339 in UTC, spans in seconds, sizes in bytes; what is not known is null.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::config::{JobKind, Role};
use crate::evidence::approval::{Approvals, Decision, Status};
use crate::service::advice::{self, Advice};
use crate::service::http::visitor::Visitor;
use crate::service::state::{EnvironmentView, EstateView, FinishedJob, RunningJob, Upcoming, WorkerState, WorkerView};

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
            environments: seen.map(|environment| EnvironmentSummary::of(environment, view)).collect(),
            jobs_running: running(view, visitor),
        }
    }
}

/// Running jobs that somebody may see.
pub(crate) fn running(view: &EstateView, visitor: &Visitor) -> Vec<Job> {
    view.jobs_running.iter().filter(|job| visitor.sees(&job.environment)).map(Job::running).collect()
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
    pub(crate) fn of(environment: &EnvironmentView, estate: &EstateView) -> Self {
        let view = environment.view.as_deref();
        let advice = advice::of(environment, estate);
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
            next_drill: next_drill(environment, estate),
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

/// Whether a job runs, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobState {
    /// It waits for a place.
    Queued,
    /// It runs.
    Running,
    /// Done, and verified.
    Done,
    /// Done, with damage named or an objective missed.
    Partial,
    /// It failed.
    Failed,
    /// It was ended before it was done.
    Interrupted,
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Job {
    /// Id of the run.
    run: String,
    /// Name in the schedule; null where somebody asked for it.
    job: Option<String>,
    /// What it does.
    kind: String,
    /// For which environment.
    environment: String,
    /// The command, as an operator would type it.
    command: Vec<String>,
    /// Whether it runs, and how it ended.
    state: JobState,
    /// Who asked for it; null where it was due.
    requested_by: Option<String>,
    /// When it was due.
    scheduled_for: Option<DateTime<Utc>>,
    /// When it began.
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
    /// The phase that it is in.
    phase: Option<String>,
    /// Bytes of the phase that passed.
    bytes: Option<u64>,
    /// Bytes of the phase, where known.
    total: Option<u64>,
    /// What it said last, or at its end.
    message: Option<String>,
    /// Its exit code.
    exit_code: Option<i32>,
}

impl Job {
    pub(crate) fn running(job: &RunningJob) -> Self {
        Self {
            run: job.run.clone(),
            job: job.job.clone(),
            kind: job.kind.word().into(),
            environment: job.environment.clone(),
            command: job.command.clone(),
            state: if job.started_at.is_some() { JobState::Running } else { JobState::Queued },
            requested_by: job.requested_by.clone(),
            scheduled_for: job.scheduled_for,
            started_at: job.started_at,
            finished_at: None,
            phase: job.phase.as_ref().map(|phase| phase.name.clone()),
            bytes: job.phase.as_ref().map(|phase| phase.bytes),
            total: job.phase.as_ref().and_then(|phase| phase.total),
            message: job.warnings.last().or(job.note.as_ref()).cloned(),
            exit_code: None,
        }
    }

    pub(crate) fn finished(job: &FinishedJob) -> Self {
        use crate::service::state::JobOutcome;
        Self {
            run: job.run.clone(),
            job: job.job.clone(),
            kind: job.kind.word().into(),
            environment: job.environment.clone(),
            command: job.command.clone(),
            state: match job.outcome {
                JobOutcome::Done => JobState::Done,
                JobOutcome::Partial => JobState::Partial,
                JobOutcome::Failed => JobState::Failed,
                JobOutcome::Interrupted => JobState::Interrupted,
            },
            requested_by: job.requested_by.clone(),
            scheduled_for: job.scheduled_for,
            started_at: Some(job.started_at),
            finished_at: Some(job.finished_at),
            phase: None,
            bytes: None,
            total: None,
            message: Some(job.message.clone()),
            exit_code: job.exit_code,
        }
    }
}

/// Jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Jobs {
    /// Those that run or wait.
    pub(crate) running: Vec<Job>,
    /// Those that ended, newest first.
    pub(crate) recent: Vec<Job>,
}

/// A job that somebody asks for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartJob {
    /// What it shall do.
    pub(crate) kind: StartKind,
    /// With `verify`: read and open everything, instead of looking at what is there.
    #[serde(default)]
    pub(crate) deep: bool,
    /// With `drill`: which moment it restores; absent: the latest.
    #[serde(default)]
    pub(crate) sample: Option<Sample>,
}

/// A kind of job that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StartKind {
    /// A base backup.
    Base,
    /// A capture of the filestores.
    Filestore,
    /// An export of the configuration.
    Configuration,
    /// A verification of the repository.
    Verify,
    /// A drill.
    Drill,
}

/// Which moment a drill restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sample {
    /// A random second of all that can be restored.
    Random,
    /// The oldest moment.
    Oldest,
    /// The one with most WAL to replay.
    Longest,
}

impl StartJob {
    pub(crate) fn kind(&self) -> JobKind {
        match self.kind {
            StartKind::Base => JobKind::Base,
            StartKind::Filestore => JobKind::Filestore,
            StartKind::Configuration => JobKind::Configuration,
            StartKind::Verify => JobKind::Verify,
            StartKind::Drill => JobKind::Drill,
        }
    }

    /// Arguments of its command: nothing that comes from the request word by word.
    pub(crate) fn options(&self) -> Vec<String> {
        match (self.kind, self.deep, self.sample) {
            (StartKind::Verify, true, _) => vec!["--deep".into()],
            (StartKind::Drill, _, Some(sample)) => {
                let word = match sample {
                    Sample::Random => "random",
                    Sample::Oldest => "oldest",
                    Sample::Longest => "longest",
                };
                vec!["--sample".into(), word.into()]
            }
            _ => Vec::new(),
        }
    }
}

/// A job that was started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Started {
    /// Id of the run.
    pub(crate) run: String,
}

/// Something that is due.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Due {
    /// Name of the job in the schedule.
    job: String,
    /// What it does.
    kind: String,
    /// For which environment.
    environment: String,
    /// The moment that the schedule says.
    scheduled_for: DateTime<Utc>,
    /// When it is expected to begin.
    expected_at: Option<DateTime<Utc>>,
    /// What stands against it.
    because: Option<String>,
}

impl Due {
    pub(crate) fn of(next: &Upcoming) -> Self {
        Self {
            job: next.job.clone(),
            kind: next.kind.word().into(),
            environment: next.environment.clone(),
            scheduled_for: next.scheduled_for,
            expected_at: next.expected_at,
            because: next.because.clone(),
        }
    }
}

/// The schedule.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Schedule {
    /// What is due, soonest first.
    pub(crate) next: Vec<Due>,
    /// Windows of calendars in the next weeks.
    pub(crate) calendars: Vec<CalendarView>,
}

/// A window of a calendar.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CalendarView {
    /// Name of the calendar.
    pub(crate) calendar: String,
    /// What it is.
    pub(crate) title: Option<String>,
    /// For which environment.
    pub(crate) environment: String,
    /// When it begins.
    pub(crate) from: DateTime<Utc>,
    /// When it ends.
    pub(crate) to: DateTime<Utc>,
}

/// A stretch of a ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LedgerPage {
    /// The environment.
    pub(crate) environment: String,
    /// Entries, newest first; each was verified when it was read.
    pub(crate) entries: Vec<Row>,
    /// What is wrong in this stretch.
    pub(crate) problems: Vec<String>,
    /// `before` of the next older stretch; null: this is the beginning.
    pub(crate) older: Option<u64>,
}

/// A ledger entry in one line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Row {
    /// Its number.
    pub(crate) sequence: u64,
    /// When it was recorded.
    pub(crate) recorded_at: DateTime<Utc>,
    /// Its kind.
    pub(crate) kind: String,
    /// What it says.
    pub(crate) summary: String,
    /// Whether it tells of something that went wrong.
    pub(crate) bad: bool,
    /// SHA-256 of its bytes.
    pub(crate) sha256: String,
}

/// A ledger entry.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LedgerStatement {
    /// Its number.
    pub(crate) sequence: u64,
    /// SHA-256 of its bytes.
    pub(crate) sha256: String,
    /// Ids of the keys that signed it.
    pub(crate) signers: Vec<String>,
    /// The in-toto statement that was signed.
    #[schema(value_type = Object)]
    pub(crate) statement: Value,
}

/// A whole ledger, verified.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Verification {
    /// Whether nothing at all is wrong.
    pub(crate) ok: bool,
    /// Objects under the names of entries.
    pub(crate) entries: u64,
    /// The report, as `lifeboat --format json evidence verify` has it.
    #[schema(value_type = Object)]
    pub(crate) report: Value,
}

/// The restore that is planned, or that approval is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// `latest`, a time with zone, `lsn:X/Y`, `name:RESTORE_POINT` or `backup:ID`.
    pub(crate) to: String,
    /// The data directory, an absolute path on the host of the restore.
    pub(crate) pgdata: String,
    /// Where attachments go, absolute.
    #[serde(default)]
    pub(crate) filestore: Option<String>,
    /// Where the configuration goes, absolute.
    #[serde(default)]
    pub(crate) configuration: Option<String>,
    /// The timeline to follow; absent: the newest.
    #[serde(default)]
    pub(crate) timeline: Option<u32>,
    /// Whether what lies in the data directory is made equal to the backup.
    #[serde(default)]
    pub(crate) delta: bool,
    /// With `delta`: whether another cluster, or transactions that the repository lacks, may be given up.
    #[serde(default)]
    pub(crate) force: bool,
    /// The host on which the restore will run; absent: the host of this service.
    #[serde(default)]
    pub(crate) host: Option<String>,
    /// Of a request for approval: why.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// A plan.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Planned {
    /// As `lifeboat --format json restore --plan` has it.
    #[schema(value_type = Object)]
    pub(crate) plan: Value,
    /// What an approval is bound to.
    pub(crate) plan_sha256: String,
    /// Whether the environment wants an approval.
    pub(crate) approval_required: bool,
    /// The command that carries it out.
    pub(crate) command: String,
}

/// A decision about an approval.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decide {
    /// Why.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// Where an approval stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalView {
    /// Its id.
    id: String,
    /// The environment.
    environment: String,
    /// `waiting`, `approved`, `denied`, `used`, `expired` or `broken_glass`.
    #[schema(value_type = String)]
    status: Status,
    /// When that ends.
    until: Option<DateTime<Utc>>,
    /// The restore that it is about.
    #[schema(value_type = Object)]
    plan: Value,
    /// Its digest.
    plan_sha256: String,
    /// Who asked for it.
    requested_by: Said,
    /// Who agreed.
    approved_by: Option<Said>,
    /// Who refused.
    denied_by: Option<Said>,
    /// Who used it.
    used_by: Option<Said>,
    /// The command that uses it.
    command: String,
}

/// Who said something, and when.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Said {
    /// The name.
    name: String,
    /// How it is known: `account`, `token` or `oidc`.
    known_by: String,
    /// The host that recorded it.
    host: String,
    /// When.
    at: DateTime<Utc>,
    /// Number of the ledger entry.
    sequence: u64,
    /// Why.
    reason: Option<String>,
}

impl Said {
    fn of(decision: &Decision) -> Self {
        Self {
            name: decision.person.name.clone(),
            known_by: word(&decision.person.known_by),
            host: decision.person.host.clone(),
            at: decision.at,
            sequence: decision.sequence,
            reason: decision.reason.clone(),
        }
    }
}

impl ApprovalView {
    pub(crate) fn of(approval: &Approvals, now: DateTime<Utc>) -> Self {
        Self {
            id: approval.id.clone(),
            environment: approval.plan.environment.clone(),
            status: approval.status(now),
            until: approval.until(now),
            plan: serde_json::to_value(&approval.plan).unwrap_or_default(),
            plan_sha256: approval.plan_sha256.clone(),
            requested_by: Said::of(&approval.requested),
            approved_by: approval.approved.as_ref().map(Said::of),
            denied_by: approval.denied.as_ref().map(Said::of),
            used_by: approval.used.as_ref().map(Said::of),
            command: approval.plan.command(&approval.id),
        }
    }
}

/// Approvals of an environment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalList {
    /// Newest first.
    pub(crate) approvals: Vec<ApprovalView>,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionView {
    /// Its number.
    pub(crate) session: u64,
    /// Whose it is.
    pub(crate) name: String,
    /// The role.
    pub(crate) role: Role,
    /// When it began.
    pub(crate) began: DateTime<Utc>,
    /// When it was used last.
    pub(crate) last_seen: DateTime<Utc>,
    /// When it ends.
    pub(crate) ends: DateTime<Utc>,
}

/// The sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionList {
    /// Oldest first.
    pub(crate) sessions: Vec<SessionView>,
}
