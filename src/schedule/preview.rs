//! What will happen: the planner, run ahead of time on the assumption that the service goes on, that everything
//! succeeds, and that it takes as long as it took last.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::decision::{Decision, What, Why};
use super::history::History;
use super::planner::{Planner, Situation};
use crate::config::JobKind;
use crate::evidence::job_record::JobOutcome;

/// How long a job is thought to take that was never seen to end.
const ASSUMED: Duration = Duration::from_secs(600);

/// Something that will happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// When.
    pub at: DateTime<Utc>,
    /// Name of the job.
    pub job: String,
    /// What it does.
    pub kind: JobKind,
    /// The environment.
    pub environment: String,
    /// The occurrence.
    pub scheduled_for: DateTime<Utc>,
    /// What will happen to it.
    pub what: Will,
    /// What stood against it, for people: a calendar, another job.
    pub because: Option<String>,
    /// The calendar among that.
    pub calendar: Option<String>,
}

/// What will happen to an occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Will {
    /// It runs.
    Run,
    /// It is put off.
    Deferred,
    /// It is missed.
    Missed,
}

/// Everything that will happen from `situation` on until `until`, in order.
pub fn preview(planner: &Planner, situation: &Situation<'_>, until: DateTime<Utc>) -> Vec<Row> {
    let mut ahead = Ahead {
        now: situation.now,
        histories: situation.histories.clone(),
        running: situation.running.clone(),
        ends: Vec::new(),
        stood: HashMap::new(),
        rows: Vec::new(),
    };
    for (job, environment) in situation.running {
        // Of what runs now, only its end matters.
        let at = situation.now + TimeDelta::from_std(ahead.takes(job, environment)).unwrap_or_default();
        ahead.ends.push((at, None, (job.clone(), environment.clone())));
    }
    while ahead.now <= until {
        ahead.end_what_ends();
        let plan = planner.plan(&Situation {
            now: ahead.now,
            since: situation.since,
            histories: &ahead.histories,
            running: &ahead.running,
        });
        let mut acted = false;
        for decision in plan.decisions {
            acted |= ahead.take(decision);
        }
        if !acted {
            let end = ahead.ends.iter().map(|(at, ..)| *at).min();
            ahead.now = end.map_or(plan.wake_at, |end| end.min(plan.wake_at)).max(ahead.now + TimeDelta::seconds(1));
        }
    }
    ahead.rows
}

type Key = (String, String);

/// A decision to run, and when that was done.
type Begun = (Decision, DateTime<Utc>);

struct Ahead {
    now: DateTime<Utc>,
    histories: HashMap<String, History>,
    running: HashSet<Key>,
    /// When what ends: the decision that began it, where it began here.
    ends: Vec<(DateTime<Utc>, Option<Begun>, Key)>,
    /// What stood against an occurrence.
    stood: HashMap<Key, (DateTime<Utc>, String, Option<String>)>,
    rows: Vec<Row>,
}

impl Ahead {
    fn takes(&self, job: &str, environment: &str) -> Duration {
        self.histories.get(environment).and_then(|history| history.job(job)?.took).unwrap_or(ASSUMED)
    }

    fn end_what_ends(&mut self) {
        let now = self.now;
        let (over, going): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ends).into_iter().partition(|(at, ..)| *at <= now);
        self.ends = going;
        for (at, begun, key) in over {
            self.running.remove(&key);
            if let (Some((decision, from)), Some(history)) = (begun, self.histories.get_mut(&key.1)) {
                history.note_job(&decision.finished(from, at, "preview", JobOutcome::Done, Some(0), None));
            }
        }
    }

    /// Does what was decided; whether anything changed.
    fn take(&mut self, decision: Decision) -> bool {
        let key = (decision.job.clone(), decision.environment.clone());
        let of = decision.scheduled_for;
        let stood =
            self.stood.get(&key).filter(|(at, ..)| *at == of).map(|(_, why, calendar)| (why.clone(), calendar.clone()));
        let (what, because, calendar) = match &decision.what {
            What::Wait { why, .. } => {
                let stands = match why {
                    Why::Calendar { calendar, .. } => Some((format!("calendar {calendar}"), Some(calendar.clone()))),
                    Why::After { job, .. } => Some((format!("after {job}"), None)),
                    Why::Running => Some(("the run before had not ended".to_owned(), None)),
                    Why::NotDue | Why::GaveUp | Why::Retry { .. } => None,
                };
                if let Some((why, calendar)) = stands {
                    self.stood.insert(key, (of, why, calendar));
                }
                return false;
            }
            What::Begin => {
                self.note(&decision);
                return true;
            }
            What::Run { .. } => {
                let ends = self.now + TimeDelta::from_std(self.takes(&key.0, &key.1)).unwrap_or_default();
                self.running.insert(key.clone());
                self.ends.push((ends, Some((decision.clone(), self.now)), key));
                let (because, calendar) = stood.unzip();
                (Will::Run, because, calendar.flatten())
            }
            What::Deferred { calendar, message, .. } => {
                self.stood.insert(key, (of, format!("calendar {calendar}"), Some(calendar.clone())));
                self.note(&decision);
                (Will::Deferred, Some(format!("calendar {calendar}: {message}")), Some(calendar.clone()))
            }
            What::Missed { calendar, message, .. } => {
                self.note(&decision);
                (Will::Missed, Some(message.clone()), calendar.clone())
            }
        };
        let Decision { job, kind, environment, scheduled_for, .. } = decision;
        self.rows.push(Row { at: self.now, job, kind, environment, scheduled_for, what, because, calendar });
        true
    }

    fn note(&mut self, decision: &Decision) {
        let record = decision.record(self.now, "preview");
        if let (Some(record), Some(history)) = (record, self.histories.get_mut(&decision.environment)) {
            history.note_job(&record);
        }
    }
}
