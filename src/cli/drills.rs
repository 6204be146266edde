//! Drills in the plural: several at a time, and those that were killed.

use std::path::PathBuf;

use futures::StreamExt;
use serde_json::{Value, json};

use super::context::{Context, Keys};
use super::drill_conduct::work_dir;
use super::exit;
use super::output::{Outcome, describe};
use crate::config::Environment;
use crate::drill;
use crate::error::{self, Error, ErrorKind, Result};
use crate::event::Event;
use crate::repository::Repository;

/// Runs drills of several environments, `jobs` at a time. One that fails holds up none of the others; the worst
/// decides the exit code.
pub(super) async fn merged<'a, F>(
    environments: &[&'a Environment],
    jobs: usize,
    run: impl Fn(&'a Environment) -> F,
) -> Outcome
where
    F: Future<Output = Result<Outcome>>,
{
    let run = &run;
    let drills =
        environments.iter().map(|environment| async move { (environment.name.as_str(), run(environment).await) });
    let mut done: Vec<_> = futures::stream::iter(drills).buffer_unordered(jobs).collect().await;
    done.sort_by_key(|(name, _)| environments.iter().position(|e| e.name == *name));
    let (mut all, mut text, mut failures) = (Vec::new(), String::new(), Vec::new());
    for (name, result) in done {
        let outcome = result.unwrap_or_else(|e| Outcome::new(json!({}), "").with_failure(Some(e)));
        let mut object = outcome.json;
        if let Value::Object(fields) = &mut object {
            fields.insert("environment".into(), name.into());
        }
        text += &outcome.text;
        if let Some(failure) = outcome.failure {
            text += &format!("{name}: {failure}\n");
            if let Value::Object(fields) = &mut object {
                fields.insert("error".into(), describe(&failure, exit::code(failure.kind())));
            }
            failures.push(failure);
        }
        text.push('\n');
        all.push(object);
    }
    Outcome::new(json!({ "drills": all }), text).with_failure(worst(failures, environments.len()))
}

/// The failure that several amount to: a drill that could not begin counts more than one that failed, and that more
/// than a missed objective.
fn worst(failures: Vec<Error>, of: usize) -> Option<Error> {
    let rank = |kind: ErrorKind| match kind {
        ErrorKind::ObjectiveMissed => 0,
        ErrorKind::CheckFailed => 1,
        _ => 2,
    };
    let count = failures.len();
    let worst = failures.into_iter().max_by_key(|failure| rank(failure.kind()))?;
    Some(worst.context(format!("{count} of {of} drills did not pass")))
}

/// Cleans up after the dead drills of all environments.
pub(super) async fn reap(context: &Context) -> Result<Outcome> {
    let repository = context.repository(Keys::Read).await?;
    let mut places: Vec<PathBuf> = context.estate.environments.iter().map(work_dir).collect();
    places.sort();
    places.dedup();
    let reaped = drill::reap(&context.estate, &repository, &places, &context.runtime).await?;
    let mut text = String::new();
    for drill in &reaped {
        text += &format!("drill {} of {} was killed while {}", drill.drill, drill.environment, drill.stage);
        text += &match &drill.ledger {
            Some(appended) => format!("; recorded as entry {} of the ledger\n", appended.sequence),
            None => "; recorded before\n".to_owned(),
        };
        text.extend(drill.cleanup.destroyed.iter().map(|gone| format!("  gone: {gone}\n")));
        text.extend(drill.cleanup.residue.iter().map(|left| format!("  LEFT: {left}\n")));
    }
    if reaped.is_empty() {
        text += "no dead drill was found\n";
    }
    let left: Vec<&str> = reaped.iter().flat_map(|r| &r.cleanup.residue).map(String::as_str).collect();
    let failure = (!left.is_empty()).then(|| {
        error::check_failed(format!("something of a dead drill is left: {}", left.join(", ")))
            .meaning("a copy of production data may still be there")
            .hint("end or remove it, and run `lifeboat drill reap` again")
    });
    Ok(Outcome::new(json!({ "reaped": reaped }), text).with_failure(failure))
}

/// Cleans up after dead drills before another one begins. That it cannot is no reason not to drill.
pub(super) async fn tell_of_the_dead(context: &Context, environment: &Environment, repository: &Repository) {
    let places = [work_dir(environment)];
    let warn = |text: String| context.runtime.emit(Event::Warning(text));
    match drill::reap(&context.estate, repository, &places, &context.runtime).await {
        Err(e) => warn(format!("what a killed drill left could not be cleaned up: {e}")),
        Ok(reaped) => {
            for r in reaped {
                warn(format!(
                    "drill {} of {} was killed while {}; it is recorded as not completed",
                    r.drill, r.environment, r.stage
                ));
                for left in &r.cleanup.residue {
                    warn(format!("drill {} left {left}", r.drill));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_drill_decides() {
        assert!(worst(Vec::new(), 2).is_none());
        let kind = |failures| worst(failures, 3).expect("failed").kind();
        assert_eq!(kind(vec![error::check_failed("a"), error::objective_missed("b")]), ErrorKind::CheckFailed);
        assert_eq!(kind(vec![error::not_recoverable("a"), error::check_failed("b")]), ErrorKind::NotRecoverable);
    }
}
