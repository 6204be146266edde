//! What is shown of jobs: those that run, those that ended, those that will come.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::config::JobKind;
use crate::evidence::job_record;

/// A job that runs, or waits for a place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunningJob {
    /// Id of this run.
    pub run: String,
    /// Name of the job in the schedule; `None` where somebody asked for it.
    pub job: Option<String>,
    /// What it does.
    pub kind: JobKind,
    /// For which environment.
    pub environment: String,
    /// Arguments after `lifeboat`, as an operator would type them.
    pub command: Vec<String>,
    /// When it was due; `None` where somebody asked for it.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Who asked for it; `None` where it was due.
    pub requested_by: Option<String>,
    /// When it was asked for or became due here.
    pub since: DateTime<Utc>,
    /// When it began; `None` while it waits for a place.
    pub started_at: Option<DateTime<Utc>>,
    /// When it is ended if it still runs.
    pub ends_by: Option<DateTime<Utc>>,
    /// Whether it was asked to end.
    pub stopping: bool,
    /// The phase that it is in.
    pub phase: Option<PhaseView>,
    /// Its warnings so far, the last few.
    pub warnings: Vec<String>,
    /// The last note that it gave.
    pub note: Option<String>,
}

/// How far a phase is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PhaseView {
    /// Its name, for people.
    pub name: String,
    /// When it began.
    pub since: DateTime<Utc>,
    /// Bytes that passed.
    pub bytes: u64,
    /// Bytes that will pass, where known.
    pub total: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// Done, and verified.
    Done,
    /// Done, with damage named (exit code 11), or a drill that missed an objective (9).
    Partial,
    /// It failed.
    Failed,
    /// It was ended: by a stop, by its time limit, or with the service.
    Interrupted,
}

impl JobOutcome {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            JobOutcome::Done => "done",
            JobOutcome::Partial => "partial",
            JobOutcome::Failed => "failed",
            JobOutcome::Interrupted => "interrupted",
        }
    }
}

impl From<JobOutcome> for job_record::JobOutcome {
    fn from(outcome: JobOutcome) -> Self {
        match outcome {
            JobOutcome::Done => Self::Done,
            JobOutcome::Partial => Self::Partial,
            JobOutcome::Failed => Self::Failed,
            JobOutcome::Interrupted => Self::Interrupted,
        }
    }
}

/// A job that ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FinishedJob {
    /// Id of the run.
    pub run: String,
    /// Name of the job in the schedule; `None` where somebody asked for it.
    pub job: Option<String>,
    /// What it did.
    pub kind: JobKind,
    /// For which environment.
    pub environment: String,
    /// Arguments after `lifeboat`.
    pub command: Vec<String>,
    /// When it was due; `None` where somebody asked for it.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Who asked for it; `None` where it was due.
    pub requested_by: Option<String>,
    /// Which attempt at its occurrence it was, from 1.
    pub attempt: u32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// How.
    pub outcome: JobOutcome,
    /// Its exit code; `None` where a signal ended it.
    pub exit_code: Option<i32>,
    /// What it said: the error, or a line about what was done.
    pub message: String,
    /// What to do.
    pub hints: Vec<String>,
    /// What it printed: the JSON object of the command (`docs/json.md`); null where it printed none.
    pub result: Value,
    /// The last lines that it told, oldest first.
    pub log: Vec<String>,
}

/// Something that is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Upcoming {
    /// Name of the job in the schedule.
    pub job: String,
    /// What it does.
    pub kind: JobKind,
    /// For which environment.
    pub environment: String,
    /// The moment that the schedule says.
    pub scheduled_for: DateTime<Utc>,
    /// When it is expected to begin: later than scheduled where something stands against it.
    pub expected_at: Option<DateTime<Utc>>,
    /// What stands against it: a calendar, a job that must come first, another instance.
    pub because: Option<String>,
}
