//! The planner: what to do now about each job of each environment. Pure but for a memory of what cron expressions say.
//!
//! It promises, for one job of one environment:
//!
//! * **One occurrence at a time**: the newest that is due. Older ones that nothing was done about are missed, and told
//!   in one record, not in thirty.
//! * **Nothing twice**: what the history calls settled is never run again; what runs is left alone.
//! * **Nothing forgotten**: an occurrence is run, or there is a record that says why not.
//! * **An occurrence begins late by its jitter**, which follows from its name alone, so every instance and every
//!   preview knows it; and not at all behind its deadline, which a calendar that put it off suspends.
//! * **A drill does not begin while a calendar forbids drills**, but for `when_deferred_too_long = "run"`.
//! * **What failed is tried again** with growing pauses, until its retries are used up or it is due again.
//! * **A job with `after` waits** until the newest occurrence of that job which was due before is done.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use xxhash_rust::xxh3::xxh3_64;

use super::calendars::Calendars;
use super::cron;
use super::decision::{Decision, What, Why};
use super::history::{History, JobHistory, Open};
use crate::config::{CatchUp, Effect, Estate, Job, JobKind, TooLong};
use crate::units::Span;

/// The longest pause between two attempts.
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(6);

/// Missed occurrences are not counted further than this.
const MOST_MISSED: u32 = 10_000;

/// The jobs and calendars of an estate.
#[derive(Debug)]
pub struct Planner {
    jobs: Vec<Scheduled>,
    calendars: Calendars,
}

#[derive(Debug)]
struct Scheduled {
    job: Job,
    /// At most half of the shortest time between two occurrences.
    jitter: TimeDelta,
    /// Two neighbouring occurrences, as they were asked for last.
    around: Mutex<Option<Around>>,
}

/// The occurrences before and after some instant.
type Around = (Option<DateTime<Utc>>, DateTime<Utc>);

/// What the planner needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The time.
    pub now: DateTime<Utc>,
    /// Since when jobs are planned without interruption: the start of the service, or when it got its lease.
    pub since: DateTime<Utc>,
    /// History of each environment. One that is not in it is left out of the plan.
    pub histories: &'a HashMap<String, History>,
    /// What runs or waits for a place, as (job, environment).
    pub running: &'a HashSet<(String, String)>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One for each job and environment.
    pub decisions: Vec<Decision>,
    /// Until then nothing changes, unless something is recorded, begins or ends.
    pub wake_at: DateTime<Utc>,
}

impl Planner {
    /// A planner for the jobs and calendars of `estate`.
    pub fn new(estate: &Estate) -> Self {
        let jobs = estate.jobs.iter().map(|job| Scheduled::new(with_something_to_do(job, estate))).collect();
        Self { jobs, calendars: Calendars::new(estate) }
    }

    /// The calendars.
    pub fn calendars(&self) -> &Calendars {
        &self.calendars
    }

    /// The job called `name`.
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.scheduled(name).map(|scheduled| &scheduled.job)
    }

    /// All jobs.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().map(|scheduled| &scheduled.job)
    }

    /// What to do now.
    pub fn plan(&self, situation: &Situation<'_>) -> Plan {
        let mut decisions = Vec::new();
        for scheduled in &self.jobs {
            for environment in &scheduled.job.environments {
                if let Some(history) = situation.histories.get(environment) {
                    decisions.push(self.decide(scheduled, environment, history, situation));
                }
            }
        }
        let wakes = decisions.iter().filter_map(|decision| match &decision.what {
            What::Wait { until, .. } => Some(*until),
            _ => None,
        });
        let wake_at = wakes.min().unwrap_or(situation.now + TimeDelta::hours(1)).max(situation.now);
        Plan { decisions, wake_at }
    }

    fn scheduled(&self, name: &str) -> Option<&Scheduled> {
        self.jobs.iter().find(|scheduled| scheduled.job.name == name)
    }

    fn decide(&self, it: &Scheduled, environment: &str, history: &History, situation: &Situation<'_>) -> Decision {
        let Situation { now, since, running, .. } = *situation;
        let job = &it.job;
        let decision = |scheduled_for, what| Decision {
            job: job.name.clone(),
            kind: job.kind,
            environment: environment.to_owned(),
            scheduled_for,
            what,
        };
        let nothing = JobHistory::default();
        let past = history.job(&job.name).unwrap_or(&nothing);
        let (last, next) = it.around(now);
        let next_begins = next + it.jitter(environment, next);
        let wait = |until: DateTime<Utc>, why| What::Wait { until: until.min(next_begins), why };

        // An environment without any base backup is not protected: the last occurrence counts, however long ago.
        let first_base = job.kind == JobKind::Base && !past.has_settled() && !history.has_base();
        let Some(settled) = past.settled(now).or(past.scheduled) else { return decision(now, What::Begin) };
        let settled = (!first_base).then_some(settled);
        let pending = last.filter(|of| settled.is_none_or(|settled| *of > settled));
        if running.contains(&(job.name.clone(), environment.to_owned())) {
            return decision(pending.unwrap_or(next), wait(next_begins, Why::Running));
        }
        let Some(of) = pending else { return decision(next, wait(next_begins, Why::NotDue)) };

        if let Some((newest, occurrences)) = it.missed(past, settled, of) {
            let calendar = past.open.get(&newest).and_then(|open| open.deferred_by.clone());
            let message = match &calendar {
                Some(_) => "it was still put off when it was due again".to_owned(),
                None if newest < since => "no service ran".to_owned(),
                None => "it had not begun when it was due again".to_owned(),
            };
            return decision(newest, What::Missed { calendar, message, occurrences });
        }

        let open = past.open.get(&of);
        let tried = open.filter(|open| open.attempts > 0);
        let attempt = 1 + tried.map_or(0, |open| open.attempts);
        match tried {
            Some(open) if open.attempts > job.retries => return decision(next, wait(next_begins, Why::GaveUp)),
            Some(open) => {
                let again = open.ended_at.unwrap_or(now) + pause(job, open);
                if now < again {
                    return decision(of, wait(again, Why::Retry { attempt }));
                }
            }
            None => {
                let begins = of + it.jitter(environment, of);
                if now < begins {
                    return decision(of, wait(begins, Why::NotDue));
                }
                if job.catch_up == CatchUp::None && of < since && open.is_none() && !first_base {
                    let message = "no service ran, and the job does not catch up".to_owned();
                    return decision(of, What::Missed { calendar: None, message, occurrences: 1 });
                }
            }
        }
        if let Some(what) = self.put_off(it, environment, past, of, now) {
            return decision(
                of,
                match what {
                    What::Wait { until, why } => wait(until, why),
                    other => other,
                },
            );
        }
        let ends = job.deadline.filter(|_| tried.is_none() && !first_base).map(|deadline| {
            let allowed = match job.kind {
                JobKind::Drill => self.calendars.last_allowed(environment, Effect::ForbidDrills, of, now),
                _ => None,
            };
            allowed.unwrap_or(of) + delta(deadline)
        });
        let first = self.waits_for(job, environment, of, history, situation);
        if let (Some(ends), Some(deadline)) = (ends, job.deadline)
            && now > ends
        {
            let message = match &first {
                Some((first, at)) => format!("{first} of {} was not done in time", at.format("%Y-%m-%d %H:%M UTC")),
                None if of < since => format!("no service ran within {} of it", Span(deadline)),
                None => format!("it could not begin within {}", Span(deadline)),
            };
            return decision(of, What::Missed { calendar: None, message, occurrences: 1 });
        }
        if let Some((first, occurrence)) = first {
            // At the end itself it might still begin.
            let until = ends.map_or(next_begins, |ends| ends + TimeDelta::seconds(1));
            return decision(of, wait(until, Why::After { job: first, occurrence }));
        }
        let despite = match job.kind {
            JobKind::Drill => self.calendars.forbidden(environment, Effect::ForbidDrills, now),
            _ => None,
        };
        decision(of, What::Run { attempt, catch_up: of < since, despite: despite.map(|found| found.calendar) })
    }

    /// What a calendar that forbids drills makes of an occurrence that would begin now.
    fn put_off(
        &self,
        it: &Scheduled,
        environment: &str,
        past: &JobHistory,
        of: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Option<What> {
        let job = &it.job;
        if job.kind != JobKind::Drill {
            return None;
        }
        let forbidden = self.calendars.forbidden(environment, Effect::ForbidDrills, now)?;
        let too_long = delta(job.max_deferral);
        let limit = match job.when_deferred_too_long {
            TooLong::Miss => of + too_long,
            TooLong::Run => past.deferred_since.unwrap_or(of).min(of) + too_long,
        };
        let calendar = forbidden.calendar;
        if now >= limit {
            return match job.when_deferred_too_long {
                TooLong::Run => None,
                TooLong::Miss => {
                    let message = format!("it was put off for more than {}", Span(job.max_deferral));
                    Some(What::Missed { calendar: Some(calendar), message, occurrences: 1 })
                }
            };
        }
        let recorded = past.open.get(&of).and_then(|open| open.deferred_by.as_ref()).is_some();
        Some(match recorded {
            false => {
                let title = forbidden.title.map(|title| format!(": {title}")).unwrap_or_default();
                What::Deferred { calendar, until: forbidden.until, message: format!("drills are forbidden{title}") }
            }
            true => What::Wait {
                until: forbidden.until.map_or(limit, |until| until.min(limit)),
                why: Why::Calendar { calendar, allowed_at: forbidden.until },
            },
        })
    }

    /// The job that must be done before the occurrence `of`, and is not, and its occurrence.
    fn waits_for(
        &self,
        job: &Job,
        environment: &str,
        of: DateTime<Utc>,
        history: &History,
        situation: &Situation<'_>,
    ) -> Option<(String, DateTime<Utc>)> {
        let first = self.scheduled(job.after.as_ref()?)?;
        if !first.job.environments.iter().any(|name| name == environment) {
            return None;
        }
        let wanted = cron::last(&first.job.cron, first.job.time_zone, of)?;
        let past = history.job(&first.job.name);
        let done = past.and_then(|past| past.succeeded(situation.now)).is_some_and(|succeeded| succeeded >= wanted);
        let running = situation.running.contains(&(first.job.name.clone(), environment.to_owned()));
        // What was due before anybody planned is waited for by nobody.
        let before_all = past.is_none_or(|past| !past.has_settled() && past.scheduled.is_none_or(|at| wanted <= at));
        let before_all = before_all && !running;
        (!done && !before_all).then(|| (first.job.name.clone(), wanted))
    }
}

impl Scheduled {
    fn new(job: Job) -> Self {
        let mut at = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let mut shortest = TimeDelta::days(366);
        let mut before = None;
        for _ in 0..50 {
            let Some(next) = cron::next(&job.cron, job.time_zone, at) else { break };
            shortest = before.map_or(shortest, |before| shortest.min(next - before));
            (before, at) = (Some(next), next);
        }
        Self { jitter: delta(job.jitter).min(shortest / 2), job, around: Mutex::new(None) }
    }

    /// The occurrences before and after `now`; one at `now` is before.
    fn around(&self, now: DateTime<Utc>) -> Around {
        let mut around = self.around.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, next)) = *around
            && last.is_some_and(|last| last <= now)
            && now < next
        {
            return (last, next);
        }
        let (cron, zone) = (&self.job.cron, self.job.time_zone);
        let last = cron::last(cron, zone, now);
        let next = cron::next(cron, zone, now).unwrap_or(DateTime::<Utc>::MAX_UTC - TimeDelta::days(2));
        *around = Some((last, next));
        (last, next)
    }

    /// How much later than due an occurrence begins.
    fn jitter(&self, environment: &str, of: DateTime<Utc>) -> TimeDelta {
        let most = self.jitter.num_seconds();
        if most <= 0 {
            return TimeDelta::zero();
        }
        let name = format!("{}\n{environment}\n{}", self.job.name, of.timestamp());
        TimeDelta::seconds((xxh3_64(name.as_bytes()) % (most as u64 + 1)) as i64)
    }

    /// The newest occurrence before `of` that nothing was done about, and how many there are.
    fn missed(
        &self,
        past: &JobHistory,
        settled: Option<DateTime<Utc>>,
        of: DateTime<Utc>,
    ) -> Option<(DateTime<Utc>, u32)> {
        // Before the first base backup nothing was promised.
        let settled = settled?;
        let (mut at, mut newest, mut count) = (of, None, 0);
        while count < MOST_MISSED {
            at = cron::last(&self.job.cron, self.job.time_zone, at - TimeDelta::seconds(1))?;
            if at <= settled {
                break;
            }
            if past.open.get(&at).is_none_or(|open| open.attempts == 0) {
                newest = newest.or(Some(at));
                count += 1;
            }
        }
        newest.map(|newest| (newest, count))
    }
}

/// The job without the environments in which there is nothing for it to do: no Odoo, no filestore.
fn with_something_to_do(job: &Job, estate: &Estate) -> Job {
    let mut job = job.clone();
    if job.kind == JobKind::Filestore {
        job.environments.retain(|name| estate.environment(name).is_ok_and(|environment| !environment.odoo.is_empty()));
    }
    job
}

/// The pause before an occurrence is tried again.
fn pause(job: &Job, open: &Open) -> TimeDelta {
    let doubled = 1_i32 << open.attempts.saturating_sub(1).min(20);
    delta(job.retry_after).checked_mul(doubled).map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE))
}

fn delta(span: std::time::Duration) -> TimeDelta {
    // Longer than anything that a schedule means, and far from the end of time.
    TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX).min(TimeDelta::days(36_500))
}
