//! Policy: an estate held against what the organisation has decided that environments must have.
//!
//! Promises: `judge` is pure; it says of every requirement that binds an environment whether it holds, with what is and
//! what should be; what only the repository can tell is `unknown` without it, never "held"; an environment that no
//! rule binds is a violation, because nobody decided about it; an exception has an end.
//!
//! * `configured`: what the configuration alone tells, for the pipeline of the estate's own repository; `kept`: of that,
//!   how long recovery points are kept and locked;
//! * `proven`: what the ledger and the archive tell; `evidence`: read from there;
//! * `junit`: the verdict for pipelines.

mod configured;
mod evidence;
mod junit;
mod kept;
mod proven;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

pub use evidence::{DrillFact, Evidence, Refresh};
pub use junit::junit;

use crate::config::{Environment, Estate, Policy, PolicyRule};
use crate::units::Span;

/// Whether a requirement holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It does not.
    Violated,
    /// It does not, and somebody has let that pass for a time.
    Waived,
    /// The repository was not asked.
    Unknown,
    /// It does.
    Held,
}

/// One requirement of one rule for one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The environment.
    pub environment: String,
    /// The rule.
    pub rule: String,
    /// The requirement; exceptions name it so.
    pub requirement: String,
    /// Whether it holds.
    pub state: State,
    /// What should be.
    pub should: String,
    /// What is.
    pub is: String,
    /// What to do; null where it holds.
    pub to_do: Option<String>,
    /// Why the rule is there.
    pub why: Option<String>,
    /// Of a waived one: until when, why, by whom.
    pub exception: Option<Waiver>,
}

/// An exception in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiver {
    /// The last day.
    pub until: NaiveDate,
    /// Why.
    pub why: String,
    /// Who has decided that.
    pub by: String,
}

/// Holds environments against a policy, violations first. `evidence` has what the repository tells of each environment; of
/// those that it lacks, only what the configuration tells is judged.
pub fn judge(
    policy: &Policy,
    estate: &Estate,
    environments: &[&Environment],
    evidence: &BTreeMap<String, Evidence>,
    now: DateTime<Utc>,
) -> Vec<Judged> {
    let mut all = Vec::new();
    for environment in environments {
        let mut bench =
            Bench { estate, environment, evidence: evidence.get(&environment.name), now, judged: Vec::new() };
        let rules: Vec<&PolicyRule> = policy.rules.iter().filter(|rule| rule.binds(environment)).collect();
        if rules.is_empty() {
            bench.uncovered(policy);
        }
        for rule in rules {
            configured::judge(rule, &mut bench);
            kept::judge(rule, &mut bench);
            proven::judge(rule, &mut bench);
        }
        all.append(&mut bench.judged);
    }
    for judged in &mut all {
        let excepted = policy.exceptions.iter().find(|e| {
            e.environment == judged.environment && e.requirement == judged.requirement && now.date_naive() <= e.until
        });
        if let (State::Violated, Some(e)) = (judged.state, excepted) {
            judged.state = State::Waived;
            judged.exception = Some(Waiver { until: e.until, why: e.why.clone(), by: e.by.clone() });
        }
    }
    all.sort_by_key(|judged| judged.state);
    all
}

/// Exceptions that let nothing pass any more: ended, or never needed. They hide nothing, and should go.
pub fn idle_exceptions(policy: &Policy, judged: &[Judged]) -> Vec<String> {
    let used = |environment: &str, requirement: &str| {
        let fits = |j: &&Judged| j.environment == environment && j.requirement == requirement;
        judged.iter().filter(fits).any(|j| j.state == State::Waived)
    };
    let idle = policy.exceptions.iter().filter(|e| !used(&e.environment, &e.requirement));
    idle.map(|e| format!("{} of {} until {}", e.requirement, e.environment, e.until)).collect()
}

/// Where one environment is judged.
struct Bench<'a> {
    estate: &'a Estate,
    environment: &'a Environment,
    evidence: Option<&'a Evidence>,
    now: DateTime<Utc>,
    judged: Vec<Judged>,
}

/// What is found about a requirement.
struct Finding {
    holds: Option<bool>,
    should: String,
    is: String,
    to_do: String,
}

impl Bench<'_> {
    fn uncovered(&mut self, policy: &Policy) {
        self.judged.push(Judged {
            environment: self.environment.name.clone(),
            rule: String::new(),
            requirement: "covered".to_owned(),
            state: State::Violated,
            should: "a rule that is for this environment".to_owned(),
            is: "none: nobody decided what it must have".to_owned(),
            to_do: Some(format!("add a [[rule]] for it to {}", policy.file.display())),
            why: None,
            exception: None,
        });
    }

    fn find(&mut self, rule: &PolicyRule, requirement: &str, finding: Finding) {
        let state = match finding.holds {
            Some(true) => State::Held,
            Some(false) => State::Violated,
            None => State::Unknown,
        };
        self.judged.push(Judged {
            environment: self.environment.name.clone(),
            rule: rule.name.clone(),
            requirement: requirement.to_owned(),
            state,
            should: finding.should,
            is: finding.is,
            to_do: (state == State::Violated).then_some(finding.to_do),
            why: rule.why.clone(),
            exception: None,
        });
    }

    /// The same where only the repository can tell; without it, it is unknown.
    fn ask(
        &mut self,
        rule: &PolicyRule,
        requirement: &str,
        should: impl Into<String>,
        to_do: impl Into<String>,
        answer: impl FnOnce(&Evidence) -> (bool, String),
    ) {
        let (holds, is) = match self.evidence {
            Some(evidence) => {
                let (holds, is) = answer(evidence);
                (Some(holds), is)
            }
            None => (None, "not asked: the repository tells".to_owned()),
        };
        self.find(rule, requirement, Finding { holds, should: should.into(), is, to_do: to_do.into() });
    }

    /// How old something is, and whether that is young enough.
    fn age(&self, at: Option<DateTime<Utc>>, limit: Duration) -> (bool, String) {
        let Some(at) = at else { return (false, "never".to_owned()) };
        let age = (self.now - at).to_std().unwrap_or_default();
        (age <= limit, format!("{} ago", Span(age)))
    }
}
