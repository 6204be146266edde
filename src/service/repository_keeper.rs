//! Keeps trying to open the repository: the service starts and serves while its store is away.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::access;
use super::state::ServiceState;
use crate::config::Estate;
use crate::event::Event;
use crate::repository::Repository;
use crate::runtime::Runtime;

/// How long a store that is away is tried at once.
const PATIENCE: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Opens the repository; ends its tries when it is dropped.
#[derive(Debug)]
pub(super) struct RepositoryKeeper {
    task: AbortHandle,
    opened: watch::Receiver<Option<Arc<Repository>>>,
}

impl RepositoryKeeper {
    /// Begins to try.
    pub(super) fn start(estate: Arc<Estate>, state: ServiceState, runtime: Runtime) -> Self {
        let (tell, opened) = watch::channel(None);
        let task = tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let opened = access::open(&estate, PATIENCE, &runtime).await;
                let now = runtime.now();
                let (reachable, error) = match &opened {
                    Ok(_) => (true, None),
                    Err(failure) => (false, Some(failure.message())),
                };
                state.change(|view| {
                    let repository = &mut view.repository;
                    if repository.reachable != Some(reachable) {
                        repository.since = now;
                    }
                    (repository.reachable, repository.error) = (Some(reachable), error);
                });
                match opened {
                    Ok(repository) => {
                        // What outlives it may read it; nobody need.
                        let _ = tell.send(Some(Arc::new(repository)));
                        tell.closed().await;
                        return;
                    }
                    Err(failure) => {
                        runtime
                            .emit(Event::Warning(format!("the repository cannot be opened, trying again: {failure}")));
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        Self { task: task.abort_handle(), opened }
    }

    /// The repository, once it is open.
    pub(super) fn opened(&self) -> &watch::Receiver<Option<Arc<Repository>>> {
        &self.opened
    }
}

impl Drop for RepositoryKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}
