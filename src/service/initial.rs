//! How the state begins, what a new configuration makes of it, and the one line that is made of it. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::state::{EnvironmentView, EstateView, ObjectivesInForce, RepositoryState};
use crate::config::{Environment, Estate};

/// The state of a service that has just begun.
pub(super) fn first_view(estate: &Estate, instance: String, now: DateTime<Utc>) -> EstateView {
    let url = estate.repository.url.clone();
    EstateView {
        instance,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: now,
        stopping: false,
        config_file: estate.file.clone(),
        config_generation: 1,
        config_loaded_at: now,
        config_problem: None,
        repository: RepositoryState { url, reachable: None, since: now, error: None },
        environments: estate.environments.iter().map(first_environment).collect(),
        jobs_running: Vec::new(),
        recent_jobs: VecDeque::new(),
        alerts: Vec::new(),
        facts: Arc::default(),
        next: Vec::new(),
    }
}

fn first_environment(environment: &Environment) -> EnvironmentView {
    EnvironmentView {
        name: environment.name.clone(),
        purpose: environment.purpose,
        owner: environment.owner.clone(),
        objectives: ObjectivesInForce {
            rpo_seconds: environment.objectives.rpo.as_secs_f64(),
            rto_seconds: environment.objectives.rto.as_secs_f64(),
            calendar: None,
        },
        view: None,
        outlook: None,
        trouble: None,
        silences: Vec::new(),
        broken_glass: Vec::new(),
        critical_drift: Vec::new(),
        leads: true,
        workers: Vec::new(),
    }
}

/// Shows a new configuration; what is known of environments that stay is kept.
pub(super) fn reloaded(view: &mut EstateView, estate: &Estate, moved: bool, now: DateTime<Utc>) {
    view.config_generation += 1;
    (view.config_loaded_at, view.config_problem) = (now, None);
    if moved {
        let url = estate.repository.url.clone();
        view.repository = RepositoryState { url, reachable: None, since: now, error: None };
    }
    let mut before = std::mem::take(&mut view.environments);
    view.environments = estate
        .environments
        .iter()
        .map(|environment| {
            let mut shown = first_environment(environment);
            if let Some(at) = before.iter().position(|known| known.name == environment.name) {
                let known = before.swap_remove(at);
                (shown.view, shown.outlook, shown.workers) = (known.view, known.outlook, known.workers);
                (shown.silences, shown.broken_glass) = (known.silences, known.broken_glass);
                shown.critical_drift = known.critical_drift;
                shown.leads = known.leads;
            }
            shown
        })
        .collect();
}

/// One line for `systemctl status`.
pub(super) fn status(view: &EstateView) -> String {
    let wrong = view.environments.iter().filter(|e| {
        e.trouble.is_some() || e.view.as_ref().is_some_and(|v| v.unreadable.is_some() || !v.broken.is_empty())
    });
    let wrong: Vec<&str> = wrong.map(|e| e.name.as_str()).collect();
    let mut text = match view.environments.len() {
        1 => "1 environment".to_owned(),
        n => format!("{n} environments"),
    };
    match view.jobs_running.iter().filter(|job| job.started_at.is_some()).count() {
        0 => {}
        1 => text += ", 1 job runs",
        n => text += &format!(", {n} jobs run"),
    }
    if view.config_problem.is_some() {
        text += "; the changed configuration is refused";
    }
    if view.repository.reachable == Some(false) {
        text += "; the repository is away";
    }
    if !wrong.is_empty() {
        text += &format!("; to look at: {}", wrong.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::state::ConfigProblem;
    use crate::service::state::tests::empty;

    #[test]
    fn the_status_is_one_line_that_says_what_is_wrong() {
        let mut view = empty();
        assert_eq!(status(&view), "0 environments");
        view.repository.reachable = Some(false);
        view.config_problem = Some(ConfigProblem { at: DateTime::UNIX_EPOCH, message: "x".into(), hints: Vec::new() });
        let said = status(&view);
        assert_eq!(said, "0 environments; the changed configuration is refused; the repository is away");
    }
}
