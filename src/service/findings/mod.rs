//! What is wrong: the one judge that alerts, page and API ask. Pure: the same model at the same moment gives the same findings.
//!
//! Each finding says what happened, what it means for the data and what to do first. Most are alerts
//! ([`Finding::condition`]); some are only shown to whoever looks: what may be over in a minute, and what no one can mend at
//! night. Thresholds are the configuration's ([`AlertsConfig`]).
//!
//! * `estate`: the service itself, its repository, clocks, what expires;
//! * `recoverability`: what can be restored, what would be lost, how long it would take;
//! * `proofs`: drills, verification, odd backups, critical drift, restores without approval;
//! * `work`: PostgreSQL and its slot, workers, scheduled jobs.

mod estate;
mod proofs;
mod recoverability;
#[cfg(test)]
mod tests;
mod work;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::alerts::{Condition, Facts};
use super::state::{EnvironmentView, EstateView};
use super::view::View;
use crate::config::{AlertSeverity, AlertsConfig};
use crate::units::Span;

pub use estate::of_service;

/// WAL that the repository may be behind, whatever the objective says: a burst.
const WAL_LAG_BYTES: u64 = 1 << 30;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of alert it is; `None`: nobody is told, it is shown to whoever looks.
    pub condition: Option<Condition>,
    /// With what: a job, a database, a base backup; empty where the environment says enough.
    pub subject: String,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// What happened, in a sentence.
    pub summary: String,
    /// What it means for the data.
    pub meaning: String,
    /// What to do, first things first: a command, or a sentence.
    pub todo: Vec<String>,
}

impl Finding {
    /// Something that somebody is told.
    fn told(condition: Condition, severity: AlertSeverity, summary: impl Into<String>) -> Self {
        Self { condition: Some(condition), ..Self::shown(severity, summary) }
    }

    /// Something that is shown to whoever looks.
    fn shown(severity: AlertSeverity, summary: impl Into<String>) -> Self {
        Self {
            condition: None,
            subject: String::new(),
            severity,
            summary: summary.into(),
            meaning: String::new(),
            todo: Vec::new(),
        }
    }

    /// Says with what.
    fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Says what it means for the data.
    fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = meaning.into();
        self
    }

    /// Adds one thing to do.
    fn todo(mut self, what: impl Into<String>) -> Self {
        self.todo.push(what.into());
        self
    }

    /// Adds what an error says is to be done.
    fn hints(self, hints: &[String]) -> Self {
        hints.iter().fold(self, |finding, hint| finding.todo(hint))
    }
}

/// What an environment is judged by.
#[derive(Debug, Clone, Copy)]
struct Bench<'a> {
    environment: &'a EnvironmentView,
    estate: &'a EstateView,
    facts: &'a Facts,
    config: &'a AlertsConfig,
    now: DateTime<Utc>,
}

/// Everything that is wrong with one environment at `now`.
pub fn of_environment(
    environment: &EnvironmentView,
    estate: &EstateView,
    facts: &Facts,
    config: &AlertsConfig,
    now: DateTime<Utc>,
) -> Vec<Finding> {
    let bench = Bench { environment, estate, facts, config, now };
    let mut all = Vec::new();
    if let Some(trouble) = &environment.trouble {
        all.push(
            Finding::shown(AlertSeverity::Warning, format!("it could not be looked at: {}", trouble.message))
                .hints(&trouble.hints),
        );
    }
    if let Some(view) = &environment.view {
        recoverability::judge(&bench, view, &mut all);
        work::server(&bench, view, &mut all);
        proofs::judge(&bench, view, &mut all);
    }
    proofs::records(&bench, &mut all);
    work::workers(&bench, &mut all);
    work::jobs(&bench, &mut all);
    estate::of_its_host(&bench, &mut all);
    all
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

fn span(delta: TimeDelta) -> Span {
    Span(delta.abs().to_std().unwrap_or_default())
}

fn seconds(seconds: f64) -> Span {
    Span(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn clock(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}
