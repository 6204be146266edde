//! What the planner says about an occurrence, and the ledger's entry for it.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::config::JobKind;
use crate::evidence::job_record::{JobOutcome, JobRecord};

/// What to do about one job of one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Name of the job.
    pub job: String,
    /// What it does.
    pub kind: JobKind,
    /// The environment.
    pub environment: String,
    /// The occurrence concerned: the one that is pending, or else the next.
    pub scheduled_for: DateTime<Utc>,
    /// What to do about it.
    pub what: What,
}

/// What to do about an occurrence.
///
/// Of `Begin`, `Deferred` and `Missed` there is a [`Decision::record`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum What {
    /// Record that the job is planned from now on: what is due later and has no record was forgotten.
    Begin,
    /// Start it.
    Run {
        /// 1 for the first attempt.
        attempt: u32,
        /// Whether it was due while no service ran.
        catch_up: bool,
        /// The calendar that forbids it, where it shall run in spite of that (`drill run --despite-calendar`).
        despite: Option<String>,
    },
    /// Record that it is put off.
    Deferred {
        /// The calendar.
        calendar: String,
        /// Until when; `None`: not within sight.
        until: Option<DateTime<Utc>>,
        /// Why, for people.
        message: String,
    },
    /// Record that it was missed.
    Missed {
        /// The calendar, where one is to blame.
        calendar: Option<String>,
        /// Why, for people.
        message: String,
        /// How many occurrences were, up to this one.
        occurrences: u32,
    },
    /// Nothing.
    Wait {
        /// Until then nothing changes by itself.
        until: DateTime<Utc>,
        /// Why.
        why: Why,
    },
}

/// Why nothing is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum Why {
    /// It is not due yet.
    NotDue,
    /// It failed, and its retries are used up; `scheduled_for` is its next occurrence.
    GaveUp,
    /// It failed and is tried again.
    Retry {
        /// Which attempt that will be.
        attempt: u32,
    },
    /// It runs.
    Running,
    /// A calendar puts it off; that is recorded.
    Calendar {
        /// Which one.
        calendar: String,
        /// Until when; `None`: not within sight.
        allowed_at: Option<DateTime<Utc>>,
    },
    /// Another job must be done first.
    After {
        /// Which one.
        job: String,
        /// The occurrence that must be done.
        occurrence: DateTime<Utc>,
    },
}

impl Decision {
    /// The ledger's entry for a decision to begin, to defer or to miss, made by `instance` at `now`; `None` for others.
    pub fn record(&self, now: DateTime<Utc>, instance: &str) -> Option<JobRecord> {
        let record = |outcome, calendar, message: &str, until, occurrences| JobRecord {
            job: self.job.clone(),
            job_kind: self.kind.word().to_owned(),
            scheduled_for: self.scheduled_for,
            occurrences,
            started_at: None,
            finished_at: now,
            outcome,
            exit_code: None,
            message: Some(message.to_owned()),
            calendar,
            until,
            instance: instance.to_owned(),
            attempt: 0,
            requested_by: None,
        };
        match &self.what {
            What::Deferred { calendar, until, message } => {
                Some(record(JobOutcome::Deferred, Some(calendar.clone()), message, *until, 1))
            }
            What::Missed { calendar, message, occurrences } => {
                Some(record(JobOutcome::Missed, calendar.clone(), message, None, *occurrences))
            }
            What::Begin => Some(record(JobOutcome::Scheduled, None, "it is planned from now on", None, 1)),
            What::Run { .. } | What::Wait { .. } => None,
        }
    }

    /// The ledger's entry for a run of this decision that ended at `now`.
    pub fn finished(
        &self,
        started_at: DateTime<Utc>,
        now: DateTime<Utc>,
        instance: &str,
        outcome: JobOutcome,
        exit_code: Option<i32>,
        message: Option<String>,
    ) -> JobRecord {
        JobRecord {
            job: self.job.clone(),
            job_kind: self.kind.word().to_owned(),
            scheduled_for: self.scheduled_for,
            occurrences: 1,
            started_at: Some(started_at),
            finished_at: now,
            outcome,
            exit_code,
            message,
            calendar: None,
            until: None,
            instance: instance.to_owned(),
            attempt: match self.what {
                What::Run { attempt, .. } => attempt,
                _ => 1,
            },
            requested_by: None,
        }
    }
}
