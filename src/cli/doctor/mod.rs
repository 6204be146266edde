//! `lifeboat doctor`: would the next backup, and the next restore, work from here? Each line says ok,
//! warning or FAIL, and what to do. It changes nothing but what it cleans up: its own probe's objects
//! and files that killed writers left more than a day ago.

mod cluster;
mod estate;
mod odoo;
mod sandbox;

use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::context::Context;
use super::output::Outcome;
use super::text::{alarm, caution, counted, good};
use crate::config::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Runtime;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only this environment, and what all share; may be repeated [default: all]
    #[arg(short, long = "environment", value_name = "ENV")]
    environments: Vec<String>,
}

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Works, but somebody should look at it.
    Warning,
    /// A backup or a restore will not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    /// The environment that it is about; null for what all share.
    environment: Option<String>,
    /// What was looked at.
    name: &'static str,
    state: State,
    /// What was found.
    words: String,
    /// What to do about it.
    to_do: Vec<String>,
    /// The class of a failure.
    #[serde(serialize_with = "kind_name")]
    kind: Option<ErrorKind>,
}

fn kind_name<S: serde::Serializer>(kind: &Option<ErrorKind>, s: S) -> std::result::Result<S::Ok, S::Error> {
    match kind {
        Some(kind) => s.collect_str(&format_args!("{kind:?}")),
        None => s.serialize_none(),
    }
}

/// Findings as they come.
#[derive(Debug, Default)]
struct Findings {
    environment: Option<String>,
    all: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, name: &'static str, state: State, words: impl Into<String>) -> &mut Finding {
        let environment = self.environment.clone();
        self.all.push(Finding { environment, name, state, words: words.into(), to_do: Vec::new(), kind: None });
        self.all.last_mut().expect("just pushed")
    }

    fn ok(&mut self, name: &'static str, words: impl Into<String>) {
        self.add(name, State::Ok, words);
    }

    fn warning(&mut self, name: &'static str, words: impl Into<String>, to_do: impl Into<String>) {
        self.add(name, State::Warning, words).to_do.push(to_do.into());
    }

    fn fail(&mut self, name: &'static str, failure: &Error) {
        let finding = self.add(name, State::Fail, failure.message());
        finding.to_do = failure.hints().to_vec();
        finding.kind = Some(failure.kind());
    }

    /// A failure that does not keep backups from working.
    fn weak(&mut self, name: &'static str, failure: &Error) {
        let finding = self.add(name, State::Warning, failure.message());
        finding.to_do = failure.hints().to_vec();
    }

    /// Notes a failure; gives what succeeded.
    fn take<T>(&mut self, name: &'static str, result: Result<T>) -> Option<T> {
        result.map_err(|failure| self.fail(name, &failure)).ok()
    }
}

/// Looks at everything. The exit code is that of the worst failure.
pub(crate) async fn run(arguments: &Arguments, file: Option<&Path>, runtime: Runtime) -> Result<Outcome> {
    let mut findings = Findings::default();
    let context = findings.take("configuration", Context::load(file, runtime));
    if let Some(context) = &context {
        let only = &arguments.environments;
        only.iter().try_for_each(|name| context.environment(name).map(drop))?;
        let repository = estate::examine(&mut findings, context).await;
        let wanted = |environment: &&Environment| only.is_empty() || only.contains(&environment.name);
        for environment in context.estate.environments.iter().filter(wanted) {
            findings.environment = Some(environment.name.clone());
            cluster::examine(&mut findings, context, environment, repository.as_ref()).await;
            sandbox::examine(&mut findings, context, environment).await;
        }
    }
    let failure = worst(&findings.all);
    let json = json!({ "findings": findings.all });
    Ok(Outcome::new(json, text(&findings.all)).with_failure(failure))
}

/// The failure that decides the exit code. Damage and denial count more than what may come back.
fn worst(findings: &[Finding]) -> Option<Error> {
    let rank = |kind: ErrorKind| match kind {
        ErrorKind::Integrity => 5,
        ErrorKind::Denied => 4,
        ErrorKind::Config | ErrorKind::Usage => 3,
        ErrorKind::Repository => 2,
        ErrorKind::Source => 1,
        _ => 0,
    };
    let failed = findings.iter().filter(|f| f.state == State::Fail).count() as u64;
    let kind = findings.iter().filter_map(|f| f.kind).max_by_key(|kind| rank(*kind))?;
    Some(Error::new(kind, format!("{} found by doctor", counted(failed, "failure", "failures"))))
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut heading: Option<&Option<String>> = None;
    for finding in findings {
        if heading != Some(&finding.environment) {
            heading = Some(&finding.environment);
            if let Some(environment) = &finding.environment {
                text += &format!("\n{environment}\n");
            }
        }
        let state = match finding.state {
            State::Ok => good("ok     "),
            State::Warning => caution("warning"),
            State::Fail => alarm("FAIL   "),
        };
        text += &format!("{state}  {}: {}\n", finding.name, finding.words);
        for to_do in &finding.to_do {
            text += &format!("         → {to_do}\n");
        }
    }
    let count = |state| findings.iter().filter(|f| f.state == state).count() as u64;
    let (failed, warned) = (count(State::Fail), count(State::Warning));
    text += &match (failed, warned) {
        (0, 0) => format!("\n{}\n", good("everything is as it should be")),
        (0, _) => format!("\nbackups and restores will work; {}\n", counted(warned, "warning", "warnings")),
        _ => format!("\n{}\n", alarm(&counted(failed, "failure", "failures"))),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error;

    #[test]
    fn the_worst_failure_decides_and_warnings_do_not() {
        let mut findings = Findings::default();
        findings.ok("a", "fine");
        findings.warning("b", "odd", "look");
        assert!(worst(&findings.all).is_none());
        findings.fail("c", &error::source("no connection"));
        assert_eq!(worst(&findings.all).expect("failed").kind(), ErrorKind::Source);
        findings.fail("d", &error::denied("wrong key").hint("use the right one"));
        assert_eq!(worst(&findings.all).expect("failed").kind(), ErrorKind::Denied);
        let text = text(&findings.all);
        assert!(text.contains("FAIL     d: wrong key\n         → use the right one\n"), "{text}");
        assert!(text.contains("2 failures"), "{text}");
    }
}
