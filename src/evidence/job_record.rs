//! What the service did with a job that was due: ran it, put it off, or missed it; and since when it is planned. Every field is always
//! present in the JSON; what is not known is null.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// One occurrence of a scheduled job, or a job that somebody asked for.
///
/// A run has one entry, written when it ended; so an occurrence without one was not done. A deferral has one entry
/// when it begins, and what became of the occurrence has one later. A job that was never planned before has one when
/// that begins: what is due later and has no entry was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Name of the job.
    pub job: String,
    /// What it does, in the word of the configuration: `base`, `verify`, `drill`, … (`kind` is the entry's own).
    pub job_kind: String,
    /// The occurrence: when its schedule wanted it, before jitter. For a job that somebody asked for, when they did.
    pub scheduled_for: DateTime<Utc>,
    /// How many occurrences this tells of: 1, but where several were missed; `scheduled_for` is the newest of them.
    pub occurrences: u32,
    /// When it began; null where it did not.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended; of a deferral, when it began; of a missed one, when that was found.
    pub finished_at: DateTime<Utc>,
    /// What became of it.
    pub outcome: JobOutcome,
    /// Exit code of the command that did it; null where none ran or a signal ended it.
    pub exit_code: Option<i32>,
    /// One line: why it failed, was put off or missed.
    pub message: Option<String>,
    /// The calendar that put it off or forbade it; null where none did.
    pub calendar: Option<String>,
    /// Of a deferral: until when, as far as it was known.
    pub until: Option<DateTime<Utc>>,
    /// The instance that did it or decided it.
    pub instance: String,
    /// 1 for the first attempt at this occurrence; 0 where none was made.
    pub attempt: u32,
    /// Who asked for it outside of its schedule; null for what was scheduled.
    pub requested_by: Option<String>,
}

/// What became of an occurrence of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// Nothing yet: the job is planned from now on.
    Scheduled,
    /// It was done.
    Done,
    /// It was done, with damage named (exit code 11).
    Partial,
    /// It failed: of this attempt.
    Failed,
    /// It is put off until its calendar or what it waits for lets it run.
    Deferred,
    /// It was not done and will not be.
    Missed,
    /// It was stopped before its end: a stop of the service, a time limit, a lost lease.
    Interrupted,
}

impl JobOutcome {
    /// Whether the occurrence needs no further attempt.
    pub fn is_final(self) -> bool {
        matches!(self, JobOutcome::Done | JobOutcome::Partial | JobOutcome::Missed)
    }

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            JobOutcome::Scheduled => "planned from now on",
            JobOutcome::Done => "done",
            JobOutcome::Partial => "partly done",
            JobOutcome::Failed => "failed",
            JobOutcome::Deferred => "deferred",
            JobOutcome::Missed => "missed",
            JobOutcome::Interrupted => "interrupted",
        }
    }
}
