//! What became of the occurrences of jobs, rebuilt from an environment's ledger.
//!
//! Only what still matters is kept: the newest occurrences of each job that need nothing more, and what was tried since.
//!
//! A clock that was set far ahead for a while leaves records of occurrences that are yet to come. They say nothing about
//! what is due until then: what is asked for is always what was settled up to a time.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use crate::evidence::job_record::{JobOutcome, JobRecord};
use crate::evidence::{Body, LedgerEntry};

/// The history of an environment's jobs.
#[derive(Debug, Clone, Default)]
pub struct History {
    jobs: HashMap<String, JobHistory>,
    has_base: bool,
}

/// The history of one job.
#[derive(Debug, Clone, Default)]
pub struct JobHistory {
    /// Since when it is planned.
    pub scheduled: Option<DateTime<Utc>>,
    /// The newest occurrences that are done (`true`) or missed for good.
    settled: BTreeMap<DateTime<Utc>, bool>,
    /// The newest settled occurrence that is not kept any more.
    forgotten: Option<DateTime<Utc>>,
    /// The first occurrence that a calendar put off since the job last ran.
    pub deferred_since: Option<DateTime<Utc>>,
    /// What was tried and put off of the occurrences that are not settled.
    pub open: BTreeMap<DateTime<Utc>, Open>,
    /// How it last ran, or was missed.
    pub last: Option<JobRecord>,
    /// How long it took when it was last done.
    pub took: Option<std::time::Duration>,
}

/// An occurrence that needs more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Open {
    /// Attempts that failed or were interrupted.
    pub attempts: u32,
    /// When the last of them ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// The calendar that put it off.
    pub deferred_by: Option<String>,
}

/// Settled occurrences that are kept: more than a clock that is wrong makes due before somebody sets it right.
const KEPT: usize = 512;

impl JobHistory {
    /// The newest occurrence up to `now` that is done, or missed for good.
    pub fn settled(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // Of those that were forgotten none is to be done again, whatever the clock says.
        self.settled.range(..=now).next_back().map(|(of, _)| *of).or(self.forgotten)
    }

    /// The newest occurrence up to `now` that was done.
    pub fn succeeded(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.settled.range(..=now).rev().find(|(_, done)| **done).map(|(of, _)| *of)
    }

    /// Whether any occurrence was ever done or missed.
    pub fn has_settled(&self) -> bool {
        !self.settled.is_empty()
    }

    fn settle(&mut self, of: DateTime<Utc>, done: bool) {
        *self.settled.entry(of).or_default() |= done;
        self.open.retain(|open, _| *open > of);
        if self.settled.len() > KEPT {
            self.forgotten = self.settled.pop_first().map(|(of, _)| of).max(self.forgotten);
        }
    }
}

impl History {
    /// The history that `entries` tell.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a LedgerEntry>) -> Self {
        let mut history = Self::default();
        entries.into_iter().for_each(|entry| history.note(entry));
        history
    }

    /// Takes in an entry of the environment's ledger; in their order.
    pub fn note(&mut self, entry: &LedgerEntry) {
        match &entry.statement.predicate.body {
            Body::BaseBackup(_) => self.has_base = true,
            Body::Job(record) => self.note_job(record),
            _ => {}
        }
    }

    /// Takes in what was just recorded.
    pub fn note_job(&mut self, record: &JobRecord) {
        let job = self.jobs.entry(record.job.clone()).or_default();
        let of = record.scheduled_for;
        match record.outcome {
            JobOutcome::Done | JobOutcome::Partial => {
                job.settle(of, true);
                job.took = record.started_at.and_then(|from| (record.finished_at - from).to_std().ok());
            }
            JobOutcome::Scheduled => job.scheduled = job.scheduled.or(Some(of)),
            JobOutcome::Missed => job.settle(of, false),
            JobOutcome::Failed | JobOutcome::Interrupted if record.requested_by.is_none() => {
                let open = job.open.entry(of).or_default();
                open.attempts += 1;
                open.ended_at = Some(record.finished_at);
            }
            JobOutcome::Deferred => {
                job.open.entry(of).or_default().deferred_by = record.calendar.clone();
                job.deferred_since = job.deferred_since.or(Some(of));
            }
            JobOutcome::Failed | JobOutcome::Interrupted => {}
        }
        if record.started_at.is_some() {
            job.deferred_since = None;
        }
        if !matches!(record.outcome, JobOutcome::Deferred | JobOutcome::Scheduled) {
            job.last = Some(record.clone());
        }
    }

    /// As if there were a base backup.
    #[cfg(test)]
    pub(crate) fn pretend_a_base(&mut self) {
        self.has_base = true;
    }

    /// What is known of `job`.
    pub fn job(&self, job: &str) -> Option<&JobHistory> {
        self.jobs.get(job)
    }

    /// Whether the environment has ever had a base backup.
    pub fn has_base(&self) -> bool {
        self.has_base
    }
}
