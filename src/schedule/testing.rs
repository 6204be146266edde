//! Estates, histories and times for the tests of this floor.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::decision::{Decision, What};
use super::history::History;
use super::planner::{Planner, Situation};
use crate::config::{Estate, OdooConfig};
use crate::evidence::job_record::{JobOutcome, JobRecord};
use crate::vault::RecoveryIdentity;

/// A time.
pub(crate) fn utc(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

/// An estate of production and staging, with this further text.
pub(crate) fn estate(text: &str) -> Estate {
    let dir = tempfile::tempdir().expect("temp dir");
    let environment = |name: &str| {
        format!(
            "[[environment]]\nname = \"{name}\"\npurpose = \"{name}\"\nowner = \"erp\"\n\
             [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n\
             [environment.postgres]\ndsn = \"host=/run/{name} user=x dbname=postgres\"\n"
        )
    };
    let recipients = RecoveryIdentity::generate().recipients();
    let main = format!(
        "[repository]\nurl = \"file:///srv/backups\"\n[keys]\nrecipients = {recipients:?}\n{}{}{text}",
        environment("production"),
        environment("staging")
    );
    let file = dir.path().join("lifeboat.toml");
    std::fs::write(&file, main).expect("written");
    Estate::load(&file).unwrap_or_else(|e| panic!("{e} {:?}", e.hints()))
}

/// An Odoo on this host.
pub(crate) fn odoo() -> Vec<OdooConfig> {
    let data_dir = "/var/lib/odoo".into();
    vec![OdooConfig { data_dir, config_file: None, databases: None, addons_paths: Vec::new() }]
}

/// Something that a simulated service did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) at: DateTime<Utc>,
    pub(crate) job: String,
    pub(crate) environment: String,
    pub(crate) scheduled_for: DateTime<Utc>,
    pub(crate) what: String,
}

impl std::fmt::Display for Logged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, job, environment, scheduled_for, what } = self;
        let time = |at: &DateTime<Utc>| at.format("%m-%d %H:%M").to_string();
        write!(f, "{} {job}/{environment} of {}: {what}", time(at), time(scheduled_for))
    }
}

/// A service that does what the planner says, in simulated time.
pub(crate) struct Service<'a> {
    pub(crate) planner: &'a Planner,
    pub(crate) histories: HashMap<String, History>,
    pub(crate) now: DateTime<Utc>,
    pub(crate) since: DateTime<Utc>,
    /// How long a job takes.
    pub(crate) takes: fn(&str) -> TimeDelta,
    /// How an attempt ends.
    pub(crate) ends: fn(&Decision, u32) -> JobOutcome,
    pub(crate) log: Vec<Logged>,
    /// The occurrences of attempts that ended.
    pub(crate) ended: Vec<(DateTime<Utc>, JobOutcome)>,
    running: Vec<(DateTime<Utc>, Decision, DateTime<Utc>)>,
}

impl<'a> Service<'a> {
    pub(crate) fn new(planner: &'a Planner, now: DateTime<Utc>) -> Self {
        let environments: BTreeSet<String> = planner.jobs().flat_map(|job| job.environments.clone()).collect();
        Self {
            planner,
            histories: environments.into_iter().map(|name| (name, History::default())).collect(),
            now,
            since: now,
            takes: |_| TimeDelta::minutes(10),
            ends: |_, _| JobOutcome::Done,
            log: Vec::new(),
            ended: Vec::new(),
            running: Vec::new(),
        }
    }

    /// It is killed now, and comes back at `at`: what runs is lost and leaves no record.
    pub(crate) fn outage_until(&mut self, at: DateTime<Utc>) {
        self.running.clear();
        (self.now, self.since) = (at, at);
    }

    /// Goes on until `until`.
    pub(crate) fn run_until(&mut self, until: DateTime<Utc>) {
        let mut at_once = 0;
        loop {
            let (over, going): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.running).into_iter().partition(|(end, ..)| *end <= self.now);
            self.running = going;
            for (end, decision, from) in over {
                let attempt = match decision.what {
                    What::Run { attempt, .. } => attempt,
                    _ => 1,
                };
                let outcome = (self.ends)(&decision, attempt);
                self.ended.push((decision.scheduled_for, outcome));
                self.record(&decision.environment.clone(), decision.finished(from, end, "test", outcome, None, None));
            }
            let running: HashSet<(String, String)> =
                self.running.iter().map(|(_, d, _)| (d.job.clone(), d.environment.clone())).collect();
            let situation =
                Situation { now: self.now, since: self.since, histories: &self.histories, running: &running };
            let plan = self.planner.plan(&situation);
            let mut acted = false;
            for decision in plan.decisions {
                let what = match &decision.what {
                    What::Wait { .. } => continue,
                    What::Begin => "begin".to_owned(),
                    What::Run { attempt: 1, .. } => "run".to_owned(),
                    What::Run { attempt, .. } => format!("run {attempt}"),
                    What::Deferred { calendar, .. } => format!("deferred by {calendar}"),
                    What::Missed { occurrences: 1, calendar: None, .. } => "missed".to_owned(),
                    What::Missed { occurrences, calendar: None, .. } => format!("missed {occurrences}"),
                    What::Missed { calendar: Some(calendar), .. } => format!("missed for {calendar}"),
                };
                acted = true;
                let (job, environment) = (decision.job.clone(), decision.environment.clone());
                let (at, scheduled_for) = (self.now, decision.scheduled_for);
                if what != "begin" {
                    self.log.push(Logged { at, job, environment: environment.clone(), scheduled_for, what });
                }
                match decision.record(self.now, "test") {
                    Some(record) => self.record(&environment, record),
                    None => {
                        let takes = (self.takes)(&decision.job);
                        self.running.push((self.now + takes, decision, self.now));
                    }
                }
            }
            if acted {
                at_once += 1;
                assert!(
                    at_once < 50,
                    "the planner goes round in circles: {:?}",
                    self.log.iter().rev().take(5).collect::<Vec<_>>()
                );
                continue;
            }
            at_once = 0;
            let end = self.running.iter().map(|(end, ..)| *end).min();
            let next = end.map_or(plan.wake_at, |end| end.min(plan.wake_at));
            assert!(next > self.now, "the planner wakes up without a reason at {}", self.now);
            if next > until {
                self.now = until;
                return;
            }
            self.now = next;
        }
    }

    fn record(&mut self, environment: &str, record: JobRecord) {
        self.histories.get_mut(environment).expect("known").note_job(&record);
    }

    /// What it did, one line each.
    pub(crate) fn told(&self) -> Vec<String> {
        self.log.iter().map(ToString::to_string).collect()
    }
}
