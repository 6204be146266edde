//! Looking at each environment again and again: what the repository holds, what PostgreSQL says.
//!
//! Each environment has a task of its own, so that one whose PostgreSQL or store hangs makes only its own view old;
//! a few look at once. A look that fails leaves the view before it, and says why.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;

use super::look::{Look, look};
use super::state::{EnvironmentView, ServiceState, Trouble};
use crate::config::Environment;
use crate::error::{self, Error, ErrorKind, Result};
use crate::repository::Repository;
use crate::runtime::Runtime;
use crate::storage::RetryPolicy;

/// How long a store that is away is tried in one look.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one look may take altogether.
const LONGEST: Duration = Duration::from_secs(300);

/// What looks need.
#[derive(Clone)]
pub(super) struct Looking {
    pub(super) environment: Arc<Environment>,
    pub(super) every: Duration,
    /// The repository, once it is open.
    pub(super) repository: watch::Receiver<Option<Arc<Repository>>>,
    pub(super) state: ServiceState,
    /// A few at once.
    pub(super) turns: Arc<Semaphore>,
    pub(super) runtime: Runtime,
}

/// The looks at one environment; they end when it is dropped.
#[derive(Debug)]
pub(super) struct Looks {
    task: AbortHandle,
    again: Arc<Notify>,
}

impl Looks {
    /// Begins to look.
    pub(super) fn start(looking: Looking) -> Self {
        let again = Arc::new(Notify::new());
        let task = tokio::spawn(looking.run(again.clone())).abort_handle();
        Self { task, again }
    }

    /// Looks again soon: something has changed.
    pub(super) fn soon(&self) {
        self.again.notify_one();
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Looking {
    async fn run(self, again: Arc<Notify>) {
        loop {
            self.once().await;
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = again.notified() => {}
            }
        }
    }

    async fn once(&self) {
        let Ok(_turn) = self.turns.acquire().await else { return };
        let repository = self.repository.borrow().clone();
        let environment = self.as_measured_now();
        let looked = match &repository {
            Some(repository) => {
                let hasty = RetryPolicy { give_up_after: PATIENCE, ..repository.store.retry() };
                let repository = repository.with_retry(hasty);
                let looking = look(Ok(&repository), &environment, &self.runtime);
                match tokio::time::timeout(LONGEST, looking).await {
                    Ok(looked) => looked,
                    Err(_) => Err(error::repository(format!("no answer within {} s", LONGEST.as_secs()))),
                }
            }
            None => {
                let why = self.state.view().repository.error.clone();
                let why = why.unwrap_or_else(|| "the repository was not opened yet".to_owned());
                look(Err(&why), &environment, &self.runtime).await
            }
        };
        let now = self.runtime.now();
        let opened = repository.is_some();
        self.state.change(|view| {
            if opened {
                reached(&mut view.repository, &looked, now);
            }
            if let Some(environment) = view.environment_mut(&self.environment.name) {
                note(environment, looked, now);
            }
        });
    }
}

impl Looking {
    /// The environment with the objectives that calendars make of its own now.
    fn as_measured_now(&self) -> Environment {
        let mut environment = Environment::clone(&self.environment);
        if let Some(shown) = self.state.view().environment(&environment.name) {
            let span = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
            environment.objectives.rpo = span(shown.objectives.rpo_seconds);
            environment.objectives.rto = span(shown.objectives.rto_seconds);
        }
        environment
    }
}

/// Keeps what a look found.
fn note(environment: &mut EnvironmentView, looked: Result<Look>, now: DateTime<Utc>) {
    match looked {
        Ok(looked) => {
            environment.view = Some(Arc::new(looked.view));
            environment.silences = looked.silences;
            environment.broken_glass = looked.broken_glass;
            environment.critical_drift = looked.critical_drift;
            environment.outlook = looked.outlook.map(Arc::new).or(environment.outlook.take());
            environment.trouble = None;
        }
        Err(failure) => environment.trouble = Some(trouble(&failure, now)),
    }
}

/// Whether the repository answers, as far as a look tells.
fn reached(repository: &mut super::state::RepositoryState, looked: &Result<Look>, now: DateTime<Utc>) {
    let (reachable, error) = match looked {
        Ok(_) => (true, None),
        Err(failure) if failure.kind() == ErrorKind::Repository => (false, Some(failure.message())),
        Err(_) => return,
    };
    if repository.reachable != Some(reachable) {
        repository.since = now;
    }
    repository.reachable = Some(reachable);
    repository.error = error;
}

/// A failure, as the state shows it.
pub(super) fn trouble(failure: &Error, at: DateTime<Utc>) -> Trouble {
    let message = match failure.what_it_means() {
        Some(meaning) => format!("{}; {meaning}", failure.message()),
        None => failure.message(),
    };
    Trouble { at, message, hints: failure.hints().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::testing::estate;
    use crate::service::initial::first_view;

    #[tokio::test]
    async fn a_look_measures_against_the_objectives_in_force() {
        let estate = estate("");
        let runtime = Runtime::silent();
        let state = ServiceState::new(first_view(&estate, "here".into(), runtime.now()));
        let looking = Looking {
            environment: Arc::new(estate.environments[0].clone()),
            every: Duration::from_secs(30),
            repository: watch::channel(None).1,
            state: state.clone(),
            turns: Arc::new(Semaphore::new(1)),
            runtime,
        };
        for seconds in [60.0, 10.0, 60.0] {
            state.change(|view| view.environments[0].objectives.rpo_seconds = seconds);
            looking.once().await;
            let view = state.view().environments[0].view.clone().expect("looked");
            assert_eq!(view.exposure.objective_seconds, seconds);
        }
    }
}
