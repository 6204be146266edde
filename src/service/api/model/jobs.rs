//! Jobs: those that run, those that ended, those that are due, those that somebody asks for.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::JobKind;
use crate::service::http::visitor::Visitor;
use crate::service::state::{EstateView, FinishedJob, JobOutcome, RunningJob, Upcoming};

/// Running jobs that somebody may see.
pub(crate) fn running(view: &EstateView, visitor: &Visitor) -> Vec<Job> {
    view.jobs_running.iter().filter(|job| visitor.sees(&job.environment)).map(Job::running).collect()
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
