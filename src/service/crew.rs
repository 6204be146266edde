//! Who works for which environment: its workers and the looks at it, under the configuration in force.
//!
//! [`Crew::arrange`] makes it so: environments that changed get new workers, which begin when the old ones have
//! stored what they had; those that did not change are not disturbed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, mpsc, watch};

use super::looks::{Looking, Looks, trouble};
use super::state::{EstateView, ServiceState, WorkerKind, WorkerState, WorkerView};
use super::worker::{Report, Said, Work, Worker};
use crate::config::{Environment, Estate};
use crate::error::Result;
use crate::event::Event;
use crate::evidence::Fence;
use crate::repository::{Repository, StateDir};
use crate::runtime::Runtime;

/// Looks at once.
const LOOKS: usize = 8;

/// Everybody who works.
#[derive(Debug)]
pub(super) struct Crew {
    members: BTreeMap<String, Member>,
    /// Which worker is whose; a report under another number is of one that was replaced.
    numbers: HashMap<u64, (String, WorkerKind)>,
    last: u64,
    turns: Arc<Semaphore>,
    reports: mpsc::UnboundedSender<Report>,
    state: ServiceState,
    runtime: Runtime,
}

/// Who works for one environment.
#[derive(Debug)]
struct Member {
    environment: Arc<Environment>,
    looks: Looks,
    workers: BTreeMap<WorkerKind, (Fence, Worker)>,
}

/// What everybody works with.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    /// The configuration in force.
    pub(super) estate: &'a Estate,
    /// The repository, once it is open.
    pub(super) repository: &'a watch::Receiver<Option<Arc<Repository>>>,
    /// Whether repository or keys are others than before: then everybody begins anew.
    pub(super) moved: bool,
}

impl Crew {
    /// Nobody yet.
    pub(super) fn new(state: ServiceState, reports: mpsc::UnboundedSender<Report>, runtime: Runtime) -> Self {
        let turns = Arc::new(Semaphore::new(LOOKS));
        Self { members: BTreeMap::new(), numbers: HashMap::new(), last: 0, turns, reports, state, runtime }
    }

    /// Has each environment served as the configuration says; `lease` tells under which lease a worker of this
    /// instance works, where there is to be one.
    pub(super) fn arrange(
        &mut self,
        ground: &Ground<'_>,
        lease: impl Fn(&Environment, WorkerKind) -> Option<Fence>,
    ) -> Result<()> {
        let mut before = std::mem::take(&mut self.members);
        for environment in &ground.estate.environments {
            let old = before.remove(&environment.name);
            let member = match old {
                Some(member) if !ground.moved && *member.environment == *environment => member,
                old => self.renewed(ground, environment, old),
            };
            self.members.insert(environment.name.clone(), member);
        }
        // Environments that are configured no more.
        for (_, member) in before {
            member.workers.values().for_each(|(_, worker)| worker.stop());
        }
        for environment in &ground.estate.environments {
            for kind in [WorkerKind::Wal, WorkerKind::Filestore] {
                self.arrange_one(ground, environment, kind, lease(environment, kind))?;
            }
        }
        self.numbers.retain(|_, (name, _)| self.members.contains_key(name));
        Ok(())
    }

    /// A member under a new configuration; its old workers are asked to stop.
    fn renewed(&mut self, ground: &Ground<'_>, environment: &Environment, old: Option<Member>) -> Member {
        let environment = Arc::new(environment.clone());
        let looks = Looks::start(Looking {
            environment: environment.clone(),
            every: ground.estate.service.refresh_every,
            repository: ground.repository.clone(),
            state: self.state.clone(),
            turns: self.turns.clone(),
            runtime: self.runtime.clone(),
        });
        let workers = old.map(|member| member.workers).unwrap_or_default();
        workers.values().for_each(|(_, worker)| worker.stop());
        self.numbers.retain(|_, (name, _)| *name != environment.name);
        Member { environment, looks, workers }
    }

    fn arrange_one(
        &mut self,
        ground: &Ground<'_>,
        environment: &Environment,
        kind: WorkerKind,
        lease: Option<Fence>,
    ) -> Result<()> {
        let Some(member) = self.members.get_mut(&environment.name) else { return Ok(()) };
        let there = member.workers.get(&kind).filter(|(_, worker)| !worker.is_stopping());
        if there.map(|(fence, _)| fence) == lease.as_ref() {
            return Ok(());
        }
        if let Some((_, worker)) = there {
            worker.stop();
        }
        let Some(fence) = lease else { return Ok(()) };
        self.last += 1;
        let work = Work {
            kind,
            environment: member.environment.clone(),
            level: ground.estate.repository.compression_level,
            state_dir: StateDir::new(&ground.estate.keys.state_dir),
            fence: fence.clone(),
            repository: ground.repository.clone(),
            runtime: self.runtime.clone(),
        };
        let before = member.workers.remove(&kind).map(|(_, worker)| worker);
        let worker = Worker::start(work, self.last, before, self.reports.clone())?;
        member.workers.insert(kind, (fence, worker));
        self.numbers.retain(|_, (name, of)| *name != environment.name || *of != kind);
        self.numbers.insert(self.last, (environment.name.clone(), kind));
        Ok(())
    }

    /// Looks at an environment soon.
    pub(super) fn look_soon(&self, environment: &str) {
        if let Some(member) = self.members.get(environment) {
            member.looks.soon();
        }
    }

    /// Asks all workers to stop.
    pub(super) fn stop(&self) {
        self.members.values().flat_map(|member| member.workers.values()).for_each(|(_, worker)| worker.stop());
    }

    /// Whether all workers have stopped.
    pub(super) fn has_stopped(&mut self) -> bool {
        self.members.values_mut().flat_map(|member| member.workers.values_mut()).all(|(_, worker)| worker.has_ended())
    }

    /// Which worker a report is of; `None` for one that was replaced.
    pub(super) fn whose(&self, report: &Report) -> Option<(String, WorkerKind)> {
        self.numbers.get(&report.worker).cloned()
    }
}

/// Shows how it stands with a worker that is not this instance's.
pub(super) fn note_idle(
    view: &mut EstateView,
    environment: &str,
    kind: WorkerKind,
    state: WorkerState,
    now: DateTime<Utc>,
) {
    if let Some(worker) = shown(view, environment, kind, now)
        && worker.state != state
    {
        (worker.state, worker.since) = (state, now);
    }
}

/// A worker, as the view shows it.
fn shown<'a>(
    view: &'a mut EstateView,
    environment: &str,
    kind: WorkerKind,
    now: DateTime<Utc>,
) -> Option<&'a mut WorkerView> {
    let workers = &mut view.environment_mut(environment)?.workers;
    if let Some(at) = workers.iter().position(|worker| worker.kind == kind) {
        return workers.get_mut(at);
    }
    workers.push(WorkerView {
        kind,
        state: WorkerState::Stopped,
        since: now,
        restarts: 0,
        last_failure: None,
        last_warning: None,
        durable: None,
    });
    workers.last_mut()
}

/// Keeps what a worker said.
pub(super) fn note(view: &mut EstateView, environment: &str, kind: WorkerKind, said: &Said, now: DateTime<Utc>) {
    let Some(worker) = shown(view, environment, kind, now) else { return };
    let mut becomes = |state: WorkerState| {
        if worker.state != state {
            (worker.state, worker.since) = (state, now);
        }
    };
    match said {
        Said::Running => becomes(WorkerState::Running),
        Said::Stopped => becomes(WorkerState::Stopped),
        Said::Failed(failure, pause) => {
            let until = now + chrono::TimeDelta::from_std(*pause).unwrap_or_default();
            becomes(WorkerState::Waiting { until });
            worker.restarts += 1;
            worker.last_failure = Some(trouble(failure, now));
        }
        Said::Told(Event::WalDurable { lsn }) => worker.durable = Some((now, *lsn)),
        Said::Told(Event::Warning(text)) => worker.last_warning = Some((now, text.clone())),
        Said::Told(Event::StoreRetry { operation, reason, .. }) => {
            worker.last_warning = Some((now, format!("the store failed to {operation}: {reason}")));
        }
        Said::Told(_) => {}
    }
}
