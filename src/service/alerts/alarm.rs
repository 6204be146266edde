//! The part that acts: looks at the model every few seconds, tells who must be told, and remembers who was.
//!
//! What the engine knows is kept in `<state_dir>/alerts.json`, a cache: without it a restart tells again what was told before.
//! A receiver that cannot be told becomes an alert for the others and one entry in the ledger of each environment concerned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Alert, Channels, Condition, Engine, Facts, Tell, conditions};
use crate::config::{AlertSeverity, Estate};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::evidence::Body;
use crate::evidence::entry::Undelivered;
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::runtime::{Runtime, blocking};
use crate::service::state::{EstateView, ServiceState};

/// How often the model is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// How often facts beyond the model are gathered.
const FACTS_EVERY: Duration = Duration::from_secs(300);

/// Nothing is judged before the service has had time to look at the estate once.
const SETTLE: Duration = Duration::from_secs(20);

/// What alarms need.
#[derive(Debug, Clone)]
pub(in crate::service) struct Alarm {
    pub(in crate::service) estate: Arc<Estate>,
    pub(in crate::service) state: ServiceState,
    /// The repository, once it is open.
    pub(in crate::service) repository: watch::Receiver<Option<Arc<Repository>>>,
    pub(in crate::service) runtime: Runtime,
    /// Certificates to watch beside those that environments name.
    pub(in crate::service) certificates: Vec<PathBuf>,
}

/// Alarms that are on; they end when it is dropped.
#[derive(Debug)]
pub(in crate::service) struct Armed(AbortHandle);

impl Drop for Armed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Receivers that cannot be told, and why.
type Failing = BTreeMap<String, String>;

impl Alarm {
    /// Switches alarms on.
    ///
    /// # Errors
    /// Internal where HTTP cannot be set up.
    pub(in crate::service) fn start(self) -> Result<Armed> {
        let channels = Channels::new(&self.state.view().instance)?;
        Ok(Armed(tokio::spawn(self.run(channels)).abort_handle()))
    }

    async fn run(self, channels: Channels) {
        let began = Instant::now();
        let memory = self.estate.keys.state_dir.join("alerts.json");
        let mut engine = remembered(&memory).await;
        let (mut facts, mut gathered): (Facts, Option<Instant>) = (Facts::default(), None);
        let mut failing = Failing::new();
        let mut alive_at: Option<Instant> = None;
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if gathered.is_none_or(|at| at.elapsed() >= FACTS_EVERY) {
                facts = Facts::gather(&self.estate, &self.certificates, channels.http(), &self.runtime).await;
                gathered = Some(Instant::now());
                let found = Arc::new(facts.clone());
                self.state.change(|view| view.facts = found);
            }
            let view = self.state.view();
            if began.elapsed() >= SETTLE || view.environments.iter().all(|e| e.view.is_some()) {
                let before = engine.clone();
                self.once(&mut engine, &view, &facts, &mut failing, &channels).await;
                if engine != before {
                    self.state.change(|view| view.alerts = engine.firing());
                    remember(&memory, &engine, &self.runtime).await;
                }
            }
            if let Some(dead_man) = &self.estate.alerts.dead_man
                && alive_at.is_none_or(|at| at.elapsed() >= dead_man.every)
            {
                alive_at = Some(Instant::now());
                if let Err(failure) = channels.sign_of_life(&dead_man.url).await {
                    self.runtime.emit(Event::Warning(failure.message()));
                }
            }
        }
    }

    /// Judges once, and tells.
    async fn once(
        &self,
        engine: &mut Engine,
        view: &EstateView,
        facts: &Facts,
        failing: &mut Failing,
        channels: &Channels,
    ) {
        let config = &self.estate.alerts;
        let now = self.runtime.now();
        let mut wrong = conditions(view, facts, config, now);
        wrong.retain(|alert| is_ours(view, alert));
        wrong.extend(failing.iter().map(|(receiver, why)| not_told(receiver, why)));
        let silences: Vec<_> = view.environments.iter().flat_map(|e| e.silences.iter().cloned()).collect();
        let tells = engine.step(now, &wrong, &silences, config);
        let told =
            futures::future::join_all(tells.iter().map(|tell| channels.tell(&config.receivers, tell, now))).await;
        for (tell, told) in tells.iter().zip(told) {
            self.state.metrics().told(&tell.receiver, told.is_ok());
            match told {
                Ok(()) => {
                    engine.told(tell, now);
                    failing.remove(&tell.receiver);
                }
                Err(failure) => {
                    engine.failed(tell, now);
                    if failing.insert(tell.receiver.clone(), failure.message()).is_none() {
                        self.runtime.emit(Event::Warning(failure.message()));
                        self.record(tell, &failure).await;
                    }
                }
            }
        }
    }

    /// Writes into the ledgers that somebody was not told. The store may be what fails: that is no reason to stop.
    async fn record(&self, tell: &Tell, failure: &Error) {
        let Some(repository) = self.repository.borrow().clone() else { return };
        let all = || tell.firing.iter().chain(&tell.resolved);
        let environments: BTreeSet<&String> = all().filter_map(|f| f.alert.key.environment.as_ref()).collect();
        for environment in environments {
            let alerts = all()
                .filter(|f| f.alert.key.environment.as_ref() == Some(environment))
                .map(|f| format!("{} {}", f.alert.key.condition, f.alert.key.subject).trim_end().to_owned())
                .collect();
            let body = Body::Undelivered(Undelivered {
                receiver: tell.receiver.clone(),
                instance: self.state.view().instance.clone(),
                alerts,
                reason: failure.message(),
            });
            if let Err(failure) = append(&repository, environment, body, &self.runtime).await {
                self.runtime.emit(Event::Warning(format!("that nobody was told cannot be recorded: {failure}")));
            }
        }
    }
}

async fn append(repository: &Repository, environment: &str, body: Body, runtime: &Runtime) -> Result<()> {
    let ledger = ledger(repository, environment).await?;
    ledger.append(runtime, repository.signer()?, Vec::new(), body).await.map(drop)
}

/// Whether this instance tells of it: of environments that it works for, and of itself.
fn is_ours(view: &EstateView, alert: &Alert) -> bool {
    alert.key.environment.as_deref().and_then(|name| view.environment(name)).is_none_or(|e| e.leads)
}

fn not_told(receiver: &str, why: &str) -> Alert {
    Alert::of_service(Condition::NotificationFailed, AlertSeverity::Critical, why.to_owned())
        .about(receiver)
        .meaning("what is wrong is not heard by those who should hear it")
        .todo(format!("lifeboat alert test --receiver {receiver}"))
}

/// What an earlier run of the service knew; a file that cannot be read is no loss.
async fn remembered(memory: &Path) -> Engine {
    match tokio::fs::read(memory).await {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(_) => Engine::default(),
    }
}

async fn remember(memory: &Path, engine: &Engine, runtime: &Runtime) {
    let (path, text) = (memory.to_owned(), serde_json::to_vec(engine).expect("an engine is JSON"));
    let written = blocking(move || {
        use crate::error::{ErrorKind, ResultExt};
        let new = path.with_extension("json.new");
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .or_err(ErrorKind::Internal, || format!("cannot write {}", path.display()))
    });
    if let Err(failure) = written.await {
        runtime.emit(Event::Warning(format!("a restart will tell again what was told: {failure}")));
    }
}
