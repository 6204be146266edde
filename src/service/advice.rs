//! What is wrong with an environment and what to do about it, for somebody who was woken by it: what page and API say.
//!
//! It is what alerts say too (`service/findings/`), and beside that what nobody is told of but whoever looks.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::alerts::Condition;
use super::findings::{self, Finding};
use super::state::{EnvironmentView, EstateView};
use crate::config::{AlertSeverity, AlertsConfig};

/// What a command begins with.
const COMMAND: &str = "lifeboat ";

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is known to be wrong.
    Good,
    /// Nobody has looked yet.
    Unknown,
    /// Somebody should look at it in the daytime.
    Look,
    /// Somebody should get up.
    Bad,
}

impl From<AlertSeverity> for Severity {
    fn from(severity: AlertSeverity) -> Self {
        match severity {
            AlertSeverity::Critical => Self::Bad,
            AlertSeverity::Warning | AlertSeverity::Info => Self::Look,
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Advice {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a sentence.
    pub what: String,
    /// What to do, in order; commands stand in backquotes.
    pub to_do: Vec<String>,
}

impl From<Finding> for Advice {
    fn from(finding: Finding) -> Self {
        let to_do = finding.todo.iter().map(|todo| marked(todo)).collect();
        Self { severity: finding.severity.into(), what: finding.summary, to_do }
    }
}

/// The worst of all.
pub fn worst(advice: &[Advice]) -> Severity {
    advice.iter().map(|one| one.severity).max().unwrap_or(Severity::Good)
}

/// What page and API judge by: the model, the thresholds in force, and the time.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// The model.
    pub estate: &'a EstateView,
    /// The thresholds.
    pub config: &'a AlertsConfig,
    /// The time.
    pub now: DateTime<Utc>,
}

impl Judge<'_> {
    /// Everything about one environment, worst first.
    pub fn advice(&self, environment: &EnvironmentView) -> Vec<Advice> {
        let Self { estate, config, now } = *self;
        let facts = &estate.facts;
        // Of what concerns the service, only that without which nothing of the environment is backed up.
        let shared = [Condition::RepositoryUnreachable, Condition::RepositoryNearlyFull].map(Some);
        let of_service = findings::of_service(estate, facts, now).into_iter().filter(|f| shared.contains(&f.condition));
        let own = findings::of_environment(environment, estate, facts, config, now);
        let mut all: Vec<Advice> = of_service.chain(own).map(Advice::from).collect();
        if environment.view.is_none() {
            all.push(Advice { severity: Severity::Unknown, what: "not looked at yet".into(), to_do: Vec::new() });
        }
        all.sort_by_key(|one| std::cmp::Reverse(one.severity));
        all
    }
}

/// The command at the end of a line in backquotes, with what stands behind `#` as words; a sentence stays as it is.
fn marked(todo: &str) -> String {
    let at = if todo.starts_with(COMMAND) { Some(0) } else { todo.find(&format!(": {COMMAND}")).map(|at| at + 2) };
    match at.filter(|_| !todo.contains('`')) {
        Some(at) => {
            let (words, command) = todo.split_at(at);
            match command.split_once('#') {
                Some((command, remark)) => format!("{words}`{}`: {}", command.trim_end(), remark.trim()),
                None => format!("{words}`{command}`"),
            }
        }
        None => todo.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_marked_once() {
        assert_eq!(marked("lifeboat show -e x"), "`lifeboat show -e x`");
        assert_eq!(marked("lifeboat drift -e x    # shows it"), "`lifeboat drift -e x`: shows it");
        assert_eq!(
            marked("when it is mended: lifeboat drill run -e x"),
            "when it is mended: `lifeboat drill run -e x`"
        );
        for sentence in ["enlarge the disk", "let `lifeboat serve` run", "see whether lifeboat runs there"] {
            assert_eq!(marked(sentence), sentence);
        }
    }
}
