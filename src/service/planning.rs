//! What is due: asks the planner, and has done what it decides.
//!
//! The planner knows what became of occurrences from the ledger. It is asked about an environment only once this
//! instance has the lease and has read the ledger after it got it; so it knows whatever another instance did. What
//! this instance has just begun or recorded counts as running until it has been read back from the ledger: nothing is
//! done twice because a note was lost between two places.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{mpsc, watch};

use super::order::{Order, new_run};
use super::state::Upcoming;
use crate::config::{Estate, Job, JobKind};
use crate::error::{Error, Result};
use crate::evidence::job_record::JobRecord;
use crate::evidence::{Body, LedgerEntry};
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::schedule::{Decision, History, Plan, Planner, Situation, What, Why};

/// The ledger is asked again this long after it could not be read.
const AGAIN: TimeDelta = TimeDelta::seconds(5);

/// What was read of an environment's ledger.
#[derive(Debug)]
pub(super) struct Read {
    environment: String,
    /// Which reading it was.
    turn: u64,
    entries: Result<Vec<LedgerEntry>>,
}

/// What is known of an environment.
#[derive(Debug, Default)]
struct Known {
    /// From its ledger; `None` until it was read after the lease was taken.
    history: Option<History>,
    /// The last entry that was read.
    sequence: u64,
    /// The newest entry that is said to be there.
    there: u64,
    /// The reading that is under way.
    reading: Option<u64>,
    /// Not before this.
    not_before: Option<DateTime<Utc>>,
    /// Of each job the record that was read last: its occurrence and attempt.
    seen: HashMap<String, (DateTime<Utc>, u32)>,
}

/// The entry that tells of an occurrence: when it was due, and which attempt it was.
type Told = (DateTime<Utc>, u32);

/// Asks the planner.
#[derive(Debug)]
pub(super) struct Planning {
    planner: Planner,
    since: DateTime<Utc>,
    known: HashMap<String, Known>,
    /// Begun, or recorded and not read back: job and environment, and the entry that tells, once it is written.
    pending: HashMap<(String, String), Option<Told>>,
    turn: u64,
    reads: mpsc::UnboundedSender<Read>,
    /// When the planner was asked last.
    asked_at: DateTime<Utc>,
    wake_at: DateTime<Utc>,
}

/// What the supervisor is to do.
#[derive(Debug)]
pub(super) enum Due {
    /// Have this run.
    Run(Order),
    /// Have this recorded for the environment.
    Record(String, JobRecord),
}

impl Planning {
    /// For the jobs of `estate`; what is read of ledgers goes to `reads`.
    pub(super) fn new(estate: &Estate, now: DateTime<Utc>, reads: mpsc::UnboundedSender<Read>) -> Self {
        Self {
            planner: Planner::new(estate),
            since: now,
            known: HashMap::new(),
            pending: HashMap::new(),
            turn: 0,
            reads,
            asked_at: now,
            wake_at: now,
        }
    }

    /// Under another configuration.
    pub(super) fn reload(&mut self, estate: &Estate, now: DateTime<Utc>) {
        self.planner = Planner::new(estate);
        self.wake_at = now;
    }

    /// The planner.
    pub(super) fn planner(&self) -> &Planner {
        &self.planner
    }

    /// A lease of an environment was taken or lost: what was known of its ledger may be old.
    pub(super) fn forget(&mut self, environment: &str) {
        self.known.remove(environment);
    }

    /// An environment's ledger is said to have so many entries.
    pub(super) fn has_entries(&mut self, environment: &str, entries: u64) {
        if let Some(known) = self.known.get_mut(environment) {
            known.there = known.there.max(entries);
        }
    }

    /// A record was written or refused: it is settled once the ledger was read again.
    pub(super) fn recorded(&mut self, environment: &str, record: &JobRecord, written: bool) {
        if record.requested_by.is_some() {
            return;
        }
        let key = (record.job.clone(), environment.to_owned());
        let told = (record.scheduled_for, record.attempt);
        let seen = self.known.get(environment).and_then(|known| known.seen.get(&record.job)) == Some(&told);
        match (self.pending.get_mut(&key), written && !seen) {
            (Some(pending), true) => *pending = Some(told),
            (Some(_), false) => drop(self.pending.remove(&key)),
            // Somebody asked for it.
            (None, _) => {}
        }
        if let Some(known) = self.known.get_mut(environment) {
            known.there = known.there.max(known.sequence + 1);
            known.not_before = None;
        }
    }

    /// A run is no more, and there will be no record of it.
    pub(super) fn given_up(&mut self, order: &Order) {
        if let Some(job) = &order.job {
            self.pending.remove(&(job.clone(), order.environment.clone()));
        }
    }

    /// Reads what must be read of the ledgers of `ours`.
    pub(super) fn read(
        &mut self,
        ours: &HashSet<String>,
        repository: &watch::Receiver<Option<Arc<Repository>>>,
        now: DateTime<Utc>,
    ) {
        let Some(repository) = repository.borrow().clone() else { return };
        for environment in ours {
            let known = self.known.entry(environment.clone()).or_default();
            let wanted = known.history.is_none() || known.there > known.sequence;
            // A clock that was set back does not make it wait longer.
            let pausing = known.not_before.is_some_and(|at| now < at && at - now <= AGAIN);
            if !wanted || known.reading.is_some() || pausing {
                continue;
            }
            self.turn += 1;
            known.reading = Some(self.turn);
            let (environment, turn, since) = (environment.clone(), self.turn, known.sequence);
            let (repository, reads) = (repository.clone(), self.reads.clone());
            tokio::spawn(async move {
                let entries = async {
                    let ledger = ledger(&repository, &environment).await?;
                    match since {
                        0 => ledger.entries().await,
                        since => ledger.entries_since(since).await,
                    }
                };
                let entries = entries.await;
                // An error says that the service is gone.
                let _ = reads.send(Read { environment, turn, entries });
            });
        }
    }

    /// Takes in what was read; why it could not be.
    pub(super) fn was_read(&mut self, read: Read, now: DateTime<Utc>) -> Option<(String, Error)> {
        let known = self.known.get_mut(&read.environment)?;
        if known.reading != Some(read.turn) {
            return None;
        }
        known.reading = None;
        match read.entries {
            Ok(entries) => {
                known.not_before = None;
                let history = known.history.get_or_insert_default();
                for entry in &entries {
                    history.note(entry);
                    known.sequence = known.sequence.max(entry.sequence);
                    if let Body::Job(record) = &entry.statement.predicate.body
                        && record.requested_by.is_none()
                    {
                        let key = (record.job.clone(), read.environment.clone());
                        let told = (record.scheduled_for, record.attempt);
                        known.seen.insert(record.job.clone(), told);
                        if self.pending.get(&key) == Some(&Some(told)) {
                            self.pending.remove(&key);
                        }
                    }
                }
                // What was said to be there may have been the word of a look that counted otherwise.
                known.there = known.sequence;
                self.wake_at = now;
                None
            }
            Err(failure) => {
                known.not_before = Some(now + AGAIN);
                Some((read.environment, failure))
            }
        }
    }

    /// Something has changed: the planner is asked again.
    pub(super) fn wake(&mut self, now: DateTime<Utc>) {
        self.wake_at = now;
    }

    /// What is due now, where it is time to ask; `may` tells whether this instance may begin such work of an
    /// environment. And what comes next.
    pub(super) fn due(
        &mut self,
        now: DateTime<Utc>,
        instance: &str,
        may: impl Fn(&str, JobKind) -> bool,
    ) -> Option<(Vec<Due>, Vec<Upcoming>)> {
        // A clock that was set back does not make it wait.
        if self.asked_at <= now && now < self.wake_at {
            return None;
        }
        self.asked_at = now;
        let histories: HashMap<String, History> = self
            .known
            .iter()
            .filter_map(|(environment, known)| Some((environment.clone(), known.history.clone()?)))
            .collect();
        let running: HashSet<(String, String)> = self.pending.keys().cloned().collect();
        let situation = Situation { now, since: self.since, histories: &histories, running: &running };
        let Plan { decisions, wake_at } = self.planner.plan(&situation);
        self.wake_at = wake_at.max(now + TimeDelta::seconds(1));
        let mut due = Vec::new();
        for decision in &decisions {
            if !may(&decision.environment, decision.kind) {
                continue;
            }
            let key = (decision.job.clone(), decision.environment.clone());
            let found = match (&decision.what, self.planner.job(&decision.job)) {
                (What::Run { attempt, despite, .. }, Some(job)) => {
                    order(decision, job, *attempt, despite.is_some()).ok().map(Due::Run)
                }
                _ => decision.record(now, instance).map(|record| Due::Record(decision.environment.clone(), record)),
            };
            if let Some(found) = found {
                self.pending.insert(key, None);
                due.push(found);
            }
        }
        let mut next: Vec<Upcoming> = decisions.iter().map(upcoming).collect();
        next.sort_by(|a, b| (a.expected_at, &a.job, &a.environment).cmp(&(b.expected_at, &b.job, &b.environment)));
        Some((due, next))
    }
}

/// What is run for a decision.
fn order(decision: &Decision, job: &Job, attempt: u32, despite_calendar: bool) -> Result<Order> {
    let mut arguments = Vec::new();
    if job.kind == JobKind::Verify && job.deep {
        arguments.push("--deep".to_owned());
    }
    if job.kind == JobKind::Drill {
        arguments.extend(["--sample".to_owned(), job.sample.word().to_owned()]);
        if despite_calendar {
            arguments.push("--despite-calendar".to_owned());
        }
    }
    Ok(Order {
        run: new_run()?,
        job: Some(job.name.clone()),
        kind: job.kind,
        environment: decision.environment.clone(),
        arguments,
        scheduled_for: Some(decision.scheduled_for),
        requested_by: None,
        attempt,
        time_limit: job.timeout,
    })
}

/// A decision, as the state shows it.
fn upcoming(decision: &Decision) -> Upcoming {
    let (expected_at, because) = match &decision.what {
        What::Wait { until, why } => match why {
            Why::NotDue => (Some(*until), None),
            Why::GaveUp => (Some(*until), Some("it failed, and its retries are used up".to_owned())),
            Why::Retry { attempt } => (Some(*until), Some(format!("attempt {attempt}: it failed before"))),
            Why::Running => (None, Some("it runs".to_owned())),
            Why::Calendar { calendar, allowed_at } => {
                (*allowed_at, Some(format!("put off by the calendar {calendar}")))
            }
            Why::After { job, occurrence } => {
                let at = occurrence.format("%Y-%m-%d %H:%M UTC");
                (None, Some(format!("{job} of {at} must be done first")))
            }
        },
        What::Deferred { calendar, until, .. } => (*until, Some(format!("put off by the calendar {calendar}"))),
        What::Missed { message, .. } => (None, Some(format!("missed: {message}"))),
        What::Begin | What::Run { .. } => (Some(decision.scheduled_for), None),
    };
    Upcoming {
        job: decision.job.clone(),
        kind: decision.kind,
        environment: decision.environment.clone(),
        scheduled_for: decision.scheduled_for,
        expected_at,
        because,
    }
}
