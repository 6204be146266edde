//! What the page and the API work with: the state of the service, its configuration, and who is signed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::audit::Audit;
use super::limit::Limits;
use super::oidc::Oidc;
use super::problem::Problem;
use super::sessions::Sessions;
use super::visitor::Visitor;
use crate::config::{Environment, Estate, HttpConfig, TokenConfig};
use crate::error::Result;
use crate::evidence::approval::Action;
use crate::evidence::{Body, Ledger, LedgerEntry};
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::runtime::Runtime;
use crate::schedule::Calendars;
use crate::schedule::calendars::CalendarWindow;
use crate::service::access;
use crate::service::control::Control;
use crate::service::state::{EnvironmentView, EstateView, ServiceState};

/// How long a store that is away is tried: somebody is waiting.
const PATIENCE: Duration = Duration::from_secs(8);
/// Plans that are made at once: each reads WAL.
const PLANS: usize = 2;
/// How far ahead calendars are shown, and how many of their windows.
const AHEAD: TimeDelta = TimeDelta::days(60);
const MOST_WINDOWS: usize = 100;
/// Browsers that follow events at once.
const STREAMS: usize = 64;

/// Everything that a request may need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) state: ServiceState,
    /// Asks the service for jobs.
    pub(crate) control: Control,
    pub(crate) runtime: Runtime,
    pub(crate) limits: Limits,
    pub(crate) sessions: Sessions,
    pub(crate) oidc: Option<Oidc>,
    pub(crate) audit: Audit,
    /// Name of this host, for ledgers.
    pub(crate) host: String,
    pub(crate) plans: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
    /// Ends streams when the service stops.
    pub(crate) stop: CancellationToken,
    /// What `[service.http]` said at the start.
    http: HttpConfig,
    /// The configuration in force.
    estates: watch::Receiver<Arc<Estate>>,
    repository: Mutex<Option<Arc<Repository>>>,
    /// One writer of each ledger: the next append need not read it from its beginning.
    ledgers: Mutex<HashMap<String, Arc<Ledger>>>,
    /// Entries about approvals, and how far each ledger was read for them.
    approvals: Mutex<HashMap<String, (u64, Vec<LedgerEntry>)>>,
}

impl App {
    /// The page and the API of the estate.
    ///
    /// # Errors
    /// Config where the audit log cannot be opened.
    pub(crate) fn new(
        estates: watch::Receiver<Arc<Estate>>,
        http: HttpConfig,
        state: ServiceState,
        control: Control,
        runtime: Runtime,
        stop: CancellationToken,
    ) -> Result<Arc<Self>> {
        let oidc = match (&http.oidc, &http.public_url) {
            (Some(oidc), Some(url)) => Some(Oidc::new(oidc, url)?),
            _ => None,
        };
        let host = nix::unistd::gethostname().map_or_else(|_| "unknown".into(), |n| n.to_string_lossy().into_owned());
        let state_dir = estates.borrow().keys.state_dir.clone();
        Ok(Arc::new(Self {
            audit: Audit::open(&state_dir, &runtime)?,
            limits: Limits::new(http.client_rate, http.total_rate),
            sessions: Sessions::new(),
            plans: Arc::new(Semaphore::new(PLANS)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            repository: Mutex::new(None),
            ledgers: Mutex::new(HashMap::new()),
            approvals: Mutex::new(HashMap::new()),
            estates,
            http,
            state,
            control,
            runtime,
            oidc,
            host,
            stop,
        }))
    }

    /// The configuration in force.
    pub(crate) fn estate(&self) -> Arc<Estate> {
        self.estates.borrow().clone()
    }

    /// What it said of the page when the service began: address, TLS, limits and identity provider stay as they were.
    pub(crate) fn http(&self) -> &HttpConfig {
        &self.http
    }

    /// The tokens that count now: those of the configuration in force.
    pub(crate) fn tokens(&self) -> Vec<TokenConfig> {
        self.estates.borrow().service.http.as_ref().map(|http| http.tokens.clone()).unwrap_or_default()
    }

    /// The estate as it is now.
    pub(crate) fn view(&self) -> Arc<EstateView> {
        self.state.view()
    }

    /// The repository, opened once and again after a failure.
    ///
    /// # Errors
    /// Repository where it is away.
    pub(crate) async fn repository(&self) -> Result<Arc<Repository>> {
        let mut open = self.repository.lock().await;
        if let Some(repository) = &*open {
            return Ok(repository.clone());
        }
        let repository = Arc::new(access::open(&self.estate(), PATIENCE, &self.runtime).await?);
        Ok(open.insert(repository).clone())
    }

    /// The ledger of an environment, for reading and for appending.
    ///
    /// # Errors
    /// As [`Self::repository`].
    pub(crate) async fn ledger(&self, environment: &str) -> Result<Arc<Ledger>> {
        let repository = self.repository().await?;
        let mut ledgers = self.ledgers.lock().await;
        if let Some(known) = ledgers.get(environment) {
            return Ok(known.clone());
        }
        let opened = Arc::new(ledger(&repository, environment).await?);
        ledgers.insert(environment.to_owned(), opened.clone());
        Ok(opened)
    }

    /// Entries about approvals in the ledger of an environment; what was read before is not read again.
    ///
    /// # Errors
    /// Integrity where what is new is not sound; as [`Self::repository`].
    pub(crate) async fn approval_entries(&self, environment: &str) -> Result<Vec<LedgerEntry>> {
        let ledger = self.ledger(environment).await?;
        let mut known = self.approvals.lock().await;
        let (last, entries) = known.entry(environment.to_owned()).or_default();
        for entry in ledger.entries_since(*last).await? {
            *last = entry.sequence;
            if matches!(entry.statement.predicate.body, Body::Approval(_)) {
                entries.push(entry);
            }
        }
        Ok(entries.clone())
    }

    /// Records in the ledger of an environment what somebody did to it.
    ///
    /// # Errors
    /// Where the ledger cannot be written.
    pub(crate) async fn record(&self, environment: &str, visitor: &Visitor, action: &str, detail: &str) -> Result<()> {
        let repository = self.repository().await?;
        let ledger = self.ledger(environment).await?;
        let action = Action { person: visitor.person(&self.host), action: action.into(), detail: detail.into() };
        ledger.append(&self.runtime, repository.signer()?, Vec::new(), Body::Action(action)).await.map(|_| ())
    }

    /// Windows of calendars in the next weeks, for environments that somebody may see, in order.
    pub(crate) fn calendars(&self, visitor: &Visitor) -> Vec<(String, CalendarWindow)> {
        let (estate, now) = (self.estate(), self.runtime.now());
        let calendars = Calendars::new(&estate);
        let seen = estate.environments.iter().filter(|environment| visitor.sees(&environment.name));
        let mut all: Vec<(String, CalendarWindow)> = seen
            .flat_map(|environment| {
                let windows = calendars.windows(&environment.name, now, now + AHEAD);
                windows.into_iter().map(|window| (environment.name.clone(), window)).collect::<Vec<_>>()
            })
            .collect();
        all.sort_by_key(|(_, window)| window.from);
        all.truncate(MOST_WINDOWS);
        all
    }

    /// An environment that the guard has let somebody see.
    ///
    /// # Errors
    /// Not found where the configuration changed meanwhile.
    pub(crate) fn environment(&self, name: &str) -> std::result::Result<Environment, Problem> {
        self.estate().environment(name).cloned().map_err(|_| Problem::not_found("there is no such environment"))
    }

    /// The environments that somebody may see, in the order of the configuration.
    pub(crate) fn seen_by<'a>(
        &self,
        view: &'a EstateView,
        visitor: &'a Visitor,
    ) -> impl Iterator<Item = &'a EnvironmentView> + use<'a> {
        view.environments.iter().filter(|environment| visitor.sees(&environment.name))
    }

    /// The environment of a run that somebody may see.
    ///
    /// # Errors
    /// Not found where there is no such run, or none that he may know of.
    pub(crate) fn run_of(&self, run: &str, visitor: &Visitor) -> std::result::Result<String, Problem> {
        let view = self.view();
        let found = view.jobs_running.iter().find(|job| job.run == run).filter(|job| visitor.sees(&job.environment));
        found.map(|job| job.environment.clone()).ok_or_else(|| Problem::not_found("no such job runs here"))
    }
}

/// Refuses what there is no place for.
pub(crate) fn busy(what: &str) -> Problem {
    Problem::too_many(format!("too many {what} at once"), 5)
}
