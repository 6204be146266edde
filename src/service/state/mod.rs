//! What goes on: the one model that page, API, metrics and alerts read.
//!
//! [`ServiceState`] holds an [`EstateView`], a snapshot that readers share without locking, and a stream of
//! [`News`]. The supervisor writes it. It is rebuilt from the repository at every start; nothing in it is the only
//! copy of anything. Strings are for people, everything that is decided on has a type.

mod jobs;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use tokio::sync::{broadcast, watch};

pub use self::jobs::{FinishedJob, JobOutcome, PhaseView, RunningJob, Upcoming};
use super::alerts::{Facts, Firing, Silence};
use super::metrics::Metrics;
use super::view::View;
use crate::config::Purpose;
use crate::configuration::drift::CriticalDrift;
use crate::event::Event;
use crate::evidence::outlook::Outlook;
use crate::units::Lsn;

/// Finished jobs that are kept for the page; the ledger has all.
const RECENT: usize = 100;

/// News that a slow reader may fall behind before some are lost to it.
const NEWS: usize = 1024;

/// The estate as this instance of the service knows it.
#[derive(Debug, Clone, Serialize)]
pub struct EstateView {
    /// Name of this instance.
    pub instance: String,
    /// Version of Lifeboat.
    pub version: String,
    /// When this instance was started.
    pub started_at: DateTime<Utc>,
    /// Whether it is being stopped: no new job begins.
    pub stopping: bool,
    /// The main configuration file.
    pub config_file: PathBuf,
    /// 1 at start; one more with each reload that succeeded.
    pub config_generation: u64,
    /// When the configuration in force was loaded.
    pub config_loaded_at: DateTime<Utc>,
    /// Why the newest reload was refused; the configuration before it stays in force.
    pub config_problem: Option<ConfigProblem>,
    /// The repository.
    pub repository: RepositoryState,
    /// The environments, in the order of the configuration.
    pub environments: Vec<EnvironmentView>,
    /// Jobs that run or wait for a place, oldest first.
    pub jobs_running: Vec<RunningJob>,
    /// Jobs that this instance ended, newest first; some hundred.
    #[serde(serialize_with = "each")]
    pub recent_jobs: VecDeque<Arc<FinishedJob>>,
    /// What is wrong, worst first.
    pub alerts: Vec<Firing>,
    /// Clocks, room and what expires, as they were found last.
    #[serde(skip)]
    pub facts: Arc<Facts>,
    /// What is due next, soonest first, with what stands against it.
    pub next: Vec<Upcoming>,
}

/// A configuration that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigProblem {
    /// When it was tried.
    pub at: DateTime<Utc>,
    /// What is wrong, with file, line and column.
    pub message: String,
    /// What to do.
    pub hints: Vec<String>,
}

/// Whether the repository is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepositoryState {
    /// Its address, without credentials.
    pub url: String,
    /// Whether it answered when it was asked last; `None` before that.
    pub reachable: Option<bool>,
    /// Since when that is so.
    pub since: DateTime<Utc>,
    /// Why it does not answer.
    pub error: Option<String>,
}

/// One environment.
#[derive(Debug, Clone, Serialize)]
pub struct EnvironmentView {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// The team that answers for it.
    pub owner: String,
    /// The objectives in force now.
    pub objectives: ObjectivesInForce,
    /// What the repository and PostgreSQL said when they were last looked at (`view.now`); `None` before that.
    /// Shared, because it can be large.
    #[serde(serialize_with = "shared")]
    pub view: Option<Arc<View>>,
    /// What drills have proven and how long the next restore takes, as of the same look.
    #[serde(serialize_with = "shared")]
    pub outlook: Option<Arc<Outlook>>,
    /// Why they could not be looked at since, and when that was last tried.
    pub trouble: Option<Trouble>,
    /// Silences in force, as of the same look.
    pub silences: Vec<Silence>,
    /// Restores of the last day that went around their approval, a sentence each.
    pub broken_glass: Vec<String>,
    /// Changes of its configuration in the last days that a rule calls critical.
    pub critical_drift: Vec<CriticalDrift>,
    /// Whether this instance tells what is wrong with it.
    pub leads: bool,
    /// Who receives its WAL and watches its filestores, as far as this instance does or waits to.
    pub workers: Vec<WorkerView>,
}

/// The objectives that an environment is measured against.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectivesInForce {
    /// Recovery point objective, in seconds.
    pub rpo_seconds: f64,
    /// Recovery time objective, in seconds.
    pub rto_seconds: f64,
    /// The calendar that tightens them now, where one does.
    pub calendar: Option<String>,
}

/// Something that did not work and is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// When it was last tried.
    pub at: DateTime<Utc>,
    /// How it failed.
    pub message: String,
    /// What to do.
    pub hints: Vec<String>,
}

/// The work that never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerKind {
    /// Receives WAL.
    Wal,
    /// Watches filestores.
    Filestore,
}

impl WorkerKind {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            WorkerKind::Wal => "wal",
            WorkerKind::Filestore => "filestore",
        }
    }
}

/// A worker of one environment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerView {
    /// What it does.
    pub kind: WorkerKind,
    /// How it is.
    pub state: WorkerState,
    /// Since when it is so.
    pub since: DateTime<Utc>,
    /// How often it failed and was started again since the service began.
    pub restarts: u64,
    /// How it failed last, whether or not it runs again.
    pub last_failure: Option<Trouble>,
    /// The last warning that it gave, and when; a receiver that waits for PostgreSQL says so here.
    pub last_warning: Option<(DateTime<Utc>, String)>,
    /// Of a receiver: everything before is durable in the repository, and when that was so.
    pub durable: Option<(DateTime<Utc>, Lsn)>,
}

/// How a worker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum WorkerState {
    /// Another instance does it, or it is not known yet who does.
    Elsewhere {
        /// Its name, where known: the store was not asked yet, or does not answer.
        instance: Option<String>,
    },
    /// It works.
    Running,
    /// It failed and is started again at `until`.
    Waiting {
        /// When.
        until: DateTime<Utc>,
    },
    /// It was stopped.
    Stopped,
}

/// Something that happened just now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct News {
    /// When.
    pub at: DateTime<Utc>,
    /// Which environment it concerns, where it is one.
    pub environment: Option<String>,
    /// Who tells it.
    pub from: Teller,
    /// What happened.
    pub event: Event,
}

/// Who tells news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Teller {
    /// The service itself.
    Service,
    /// A worker.
    Worker(WorkerKind),
    /// The run with this id.
    Job(String),
}

/// The model and its readers; cheap to clone.
#[derive(Debug, Clone)]
pub struct ServiceState {
    view: Arc<watch::Sender<Arc<EstateView>>>,
    news: broadcast::Sender<Arc<News>>,
    metrics: Metrics,
}

impl ServiceState {
    /// A state that begins with `view`.
    pub fn new(view: EstateView) -> Self {
        Self {
            view: Arc::new(watch::Sender::new(Arc::new(view))),
            news: broadcast::Sender::new(NEWS),
            metrics: Metrics::default(),
        }
    }

    /// The estate as it is now.
    pub fn view(&self) -> Arc<EstateView> {
        self.view.borrow().clone()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The estate, and every change of it from now on.
    pub fn watch(&self) -> watch::Receiver<Arc<EstateView>> {
        self.view.subscribe()
    }

    /// What happens from now on. A reader that falls far behind loses the oldest, and is told how many.
    pub fn news(&self) -> broadcast::Receiver<Arc<News>> {
        self.news.subscribe()
    }

    /// Changes the model, and tells those who watch it.
    pub fn change(&self, change: impl FnOnce(&mut EstateView)) {
        self.view.send_modify(|view| change(Arc::make_mut(view)));
    }

    /// Tells news; nobody need listen.
    pub fn tell(&self, news: News) {
        // An error says that nobody listens.
        let _ = self.news.send(Arc::new(news));
    }
}

impl EstateView {
    /// The environment called `name`.
    pub fn environment(&self, name: &str) -> Option<&EnvironmentView> {
        self.environments.iter().find(|e| e.name == name)
    }

    /// The same, to change it.
    pub fn environment_mut(&mut self, name: &str) -> Option<&mut EnvironmentView> {
        self.environments.iter_mut().find(|e| e.name == name)
    }

    /// Keeps a finished job, and forgets the oldest where there are too many.
    pub fn finished(&mut self, job: FinishedJob) {
        self.jobs_running.retain(|running| running.run != job.run);
        self.recent_jobs.push_front(Arc::new(job));
        self.recent_jobs.truncate(RECENT);
    }
}

fn shared<T: Serialize, S: Serializer>(value: &Option<Arc<T>>, to: S) -> Result<S::Ok, S::Error> {
    value.as_deref().serialize(to)
}

fn each<T: Serialize, S: Serializer>(list: &VecDeque<Arc<T>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(list.iter().map(Arc::as_ref))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::JobKind;

    /// An estate of which nothing is known yet.
    pub(crate) fn empty() -> EstateView {
        let at = DateTime::UNIX_EPOCH;
        let url = "memory:".to_owned();
        EstateView {
            instance: "here".into(),
            version: "0".into(),
            started_at: at,
            stopping: false,
            config_file: "/lifeboat.toml".into(),
            config_generation: 1,
            config_loaded_at: at,
            config_problem: None,
            repository: RepositoryState { url, reachable: None, since: at, error: None },
            environments: Vec::new(),
            jobs_running: Vec::new(),
            recent_jobs: VecDeque::new(),
            alerts: Vec::new(),
            facts: Arc::default(),
            next: Vec::new(),
        }
    }

    fn finished(run: usize) -> FinishedJob {
        FinishedJob {
            run: run.to_string(),
            job: None,
            kind: JobKind::Base,
            environment: "production".into(),
            command: Vec::new(),
            scheduled_for: None,
            requested_by: Some("anna".into()),
            attempt: 1,
            started_at: DateTime::UNIX_EPOCH,
            finished_at: DateTime::UNIX_EPOCH,
            outcome: JobOutcome::Done,
            exit_code: Some(0),
            message: String::new(),
            hints: Vec::new(),
            result: Value::Null,
            log: Vec::new(),
        }
    }

    #[tokio::test]
    async fn readers_see_changes_and_keep_the_snapshot_that_they_hold() {
        let state = ServiceState::new(empty());
        let mut watching = state.watch();
        let before = state.view();
        state.change(|view| view.stopping = true);
        watching.changed().await.expect("the state lives");
        assert!(watching.borrow_and_update().stopping);
        assert!(!before.stopping, "a snapshot does not change under its reader");
    }

    #[test]
    fn finished_jobs_are_bounded_newest_first() {
        let mut view = empty();
        (0..RECENT + 5).for_each(|run| view.finished(finished(run)));
        assert_eq!(view.recent_jobs.len(), RECENT);
        assert_eq!(view.recent_jobs[0].run, (RECENT + 4).to_string());
    }
}
