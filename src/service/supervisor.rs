//! `lifeboat serve`: one loop that decides who works on what, and never waits for anything but news.
//!
//! ```text
//!  signals, API, socket ─▶ ┌──────────────┐ ─▶ crew: a thread for each worker, a task for each look
//!  workers: what they say ─▶│  supervisor  │ ─▶ jobs: child processes, ended by their limits
//!  jobs: what they tell  ─▶ └──────────────┘ ─▶ state: what page, API, metrics and alerts read
//! ```
//!
//! Promises: nothing that hangs (a store, a PostgreSQL, a job) holds up this loop, and the watchdog is fed only
//! while it turns. A configuration that is refused leaves the one before it in force. When it is stopped, running
//! jobs may finish for a while, then are ended in order, and the workers store what they have.
//!
//! It must be awaited on the main thread: see [`Program::start`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::alerts::{Alarm, Armed};
use super::child::{Program, words};
use super::claim::Claim;
use super::control::{Asked, Control};
use super::crew::{Crew, Ground};
use super::duties::{Duties, DutyNews, Instance, Post};
use super::initial::{first_view, status};
use super::jobs::{JobNews, Jobs, show_begun};
use super::places::Places;
use super::planning::{Planning, Read};
use super::recorder::{Recorded, Recorder};
use super::repository_keeper::RepositoryKeeper;
use super::shares::{duty_of, lease_of, posts, terms};
use super::state::{News, ServiceState, Teller};
use super::worker::Report;
use crate::config::{Estate, JobKind};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::{Event, Subject};
use crate::runtime::Runtime;
use crate::units::Span;

/// The loop turns at least this often.
const TICK: Duration = Duration::from_secs(1);
/// Workers may take this long to store what they have when the service stops.
const LAST_WORK: Duration = Duration::from_secs(60);
/// Records of ended jobs may take this long to be written when the service stops, and leases to be given up.
const LAST_RECORDS: Duration = Duration::from_secs(20);
/// News that are taken at once.
const BATCH: usize = 256;

/// What the service begins with.
#[derive(Debug)]
pub struct Setup {
    /// The configuration.
    pub estate: Estate,
    /// The name of this instance.
    pub instance: String,
    /// The state directory, which is this service's alone.
    pub claim: Claim,
    /// The kinds of jobs that the program can do.
    pub kinds: Vec<JobKind>,
    /// The program that jobs are run with: this one.
    pub program: PathBuf,
    /// Clock, and where news for people go.
    pub runtime: Runtime,
}

/// What the service manager is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// It serves.
    Ready,
    /// It loads its configuration again; [`Sign::Ready`] follows.
    Reloading,
    /// The loop turned.
    Alive,
    /// One line about how it is.
    Status(String),
    /// It is being stopped.
    Stopping,
}

/// The service, before it runs.
pub struct Service {
    supervisor: Supervisor,
    control: Control,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// A service; it does nothing yet.
    pub fn new(setup: Setup) -> Self {
        let (control, asked) = Control::new();
        Self { supervisor: Supervisor::new(setup, asked), control }
    }

    /// What page, API, metrics and alerts read.
    pub fn state(&self) -> ServiceState {
        self.supervisor.state.clone()
    }

    /// How others in this process ask for something.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The configuration in force, and every one after it.
    pub fn estates(&self) -> watch::Receiver<Arc<Estate>> {
        self.supervisor.estates.subscribe()
    }

    /// Serves until `stop` is cancelled and everything has ended in order.
    ///
    /// # Errors
    /// Internal, where this host does not let it work at all. Everything else is told by the state, and tried again.
    pub async fn run(self, stop: &CancellationToken, sign: &dyn Fn(Sign)) -> Result<()> {
        self.supervisor.run(stop, sign).await
    }
}

/// How far the service is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    Serving,
    /// Running jobs may go on until then.
    Jobs(Instant),
    /// Jobs have ended; workers store what they have until then.
    Workers(Instant),
    /// Workers have ended; what became of jobs is written into the ledger until then.
    Records(Instant),
    /// Leases are given up until then, so that others need not wait for their end.
    Leases(Instant),
}

pub(super) struct Supervisor {
    pub(super) state: ServiceState,
    pub(super) runtime: Runtime,
    pub(super) estate: Arc<Estate>,
    pub(super) estates: watch::Sender<Arc<Estate>>,
    pub(super) program: Program,
    pub(super) keeper: RepositoryKeeper,
    pub(super) claim: Claim,
    pub(super) duties: Duties,
    pub(super) crew: Crew,
    pub(super) jobs: Jobs,
    pub(super) recorder: Recorder,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    pub(super) job_news: mpsc::UnboundedReceiver<JobNews>,
    pub(super) duty_news: mpsc::UnboundedReceiver<DutyNews>,
    pub(super) recorded: mpsc::UnboundedReceiver<Recorded>,
    pub(super) reads: mpsc::UnboundedReceiver<Read>,
    pub(super) planning: Planning,
    /// The kinds of jobs that the program can do.
    pub(super) kinds: Vec<JobKind>,
    pub(super) asked: mpsc::Receiver<Asked>,
    /// A configuration that is being loaded, and who waits for it.
    pub(super) loading: Option<JoinHandle<Result<Estate>>>,
    pub(super) waiting_for_load: Vec<oneshot::Sender<Result<()>>>,
    pub(super) stage: Stage,
    /// Tells who must be told what is wrong, by the configuration in force.
    pub(super) armed: Option<Armed>,
}

impl Supervisor {
    pub(super) fn new(setup: Setup, asked: mpsc::Receiver<Asked>) -> Self {
        let Setup { estate, instance, claim, kinds, program, runtime } = setup;
        let estate = Arc::new(estate);
        let now = runtime.now();
        let state = ServiceState::new(first_view(&estate, instance.clone(), now));
        let (report, reports) = mpsc::unbounded_channel();
        let (tell, job_news) = mpsc::unbounded_channel();
        let (duty, duty_news) = mpsc::unbounded_channel();
        let (record, recorded) = mpsc::unbounded_channel();
        let (read, reads) = mpsc::unbounded_channel();
        let terms = terms(estate.service.lease);
        let (process, dead) = (claim.process.clone(), claim.dead.clone());
        let instance = Instance { name: instance, process, dead, terms };
        let keeper = RepositoryKeeper::start(estate.clone(), state.clone(), runtime.clone());
        let program = program_for(program, &estate);
        Self {
            duties: Duties::new(instance, duty, runtime.clone()),
            recorder: Recorder::new(record, runtime.clone()),
            planning: Planning::new(&estate, now, read),
            kinds,
            reads,
            claim,
            crew: Crew::new(state.clone(), report, runtime.clone()),
            jobs: Jobs::new(tell),
            state,
            runtime,
            estates: watch::Sender::new(estate.clone()),
            estate,
            program,
            keeper,
            reports,
            job_news,
            duty_news,
            recorded,
            asked,
            loading: None,
            waiting_for_load: Vec::new(),
            stage: Stage::Serving,
            armed: None,
        }
    }

    async fn run(mut self, stop: &CancellationToken, sign: &dyn Fn(Sign)) -> Result<()> {
        self.measure();
        self.arm()?;
        self.arrange(false)?;
        sign(Sign::Ready);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reports, mut job_news, mut duty_news) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let stopping = !matches!(self.stage, Stage::Serving);
            tokio::select! {
                _ = tick.tick() => {
                    sign(Sign::Alive);
                    sign(Sign::Status(status(&self.state.view())));
                    self.measure();
                    self.plan();
                }
                _ = self.reports.recv_many(&mut reports, BATCH) => self.workers_said(reports.drain(..)),
                _ = self.job_news.recv_many(&mut job_news, BATCH) => self.jobs_told(job_news.drain(..)),
                _ = self.duty_news.recv_many(&mut duty_news, BATCH) => self.duties_changed(duty_news.drain(..))?,
                Some(recorded) = self.recorded.recv() => self.recorded(&recorded),
                Some(read) = self.reads.recv() => self.ledger_read(read),
                Some(asked) = self.asked.recv() => self.answer(asked, sign),
                loaded = loaded(&mut self.loading) => self.loaded(loaded, sign)?,
                () = stop.cancelled(), if !stopping => self.begin_to_stop(sign),
            }
            if self.advance() {
                break;
            }
        }
        if self.duties.are_given_up() {
            self.claim.end();
        }
        Ok(())
    }

    /// Has everybody work who should; `moved`: everybody anew.
    pub(super) fn arrange(&mut self, moved: bool) -> Result<()> {
        let instance = self.state.view().instance.clone();
        let wanted: Vec<Post> = self.estate.environments.iter().flat_map(|e| posts(e, &instance)).collect();
        self.duties.seek(&wanted, self.keeper.opened(), moved);
        let ground = Ground { estate: &self.estate, repository: self.keeper.opened(), moved };
        let duties = &self.duties;
        self.crew.arrange(&ground, |environment, kind| duties.fence(&environment.name, duty_of(kind)).cloned())
    }

    /// Has alarms go by the configuration in force.
    pub(super) fn arm(&mut self) -> Result<()> {
        let alarm = Alarm {
            estate: self.estate.clone(),
            state: self.state.clone(),
            repository: self.keeper.opened().clone(),
            runtime: self.runtime.clone(),
            certificates: self.certificates(),
        };
        self.armed = Some(alarm.start()?);
        Ok(())
    }

    /// Certificates of the page.
    fn certificates(&self) -> Vec<PathBuf> {
        let http = self.estate.service.http.as_ref();
        http.and_then(|http| http.tls.as_ref()).map(|tls| tls.certificate.clone()).into_iter().collect()
    }

    /// What follows from what has just happened. Whether all is over.
    fn advance(&mut self) -> bool {
        let now = Instant::now();
        match self.stage {
            Stage::Serving => self.begin_jobs(),
            Stage::Jobs(until) => {
                if self.jobs.running() == 0 {
                    self.crew.stop();
                    self.stage = Stage::Workers(now + LAST_WORK);
                } else if now >= until {
                    self.jobs.stop_all();
                }
            }
            Stage::Workers(until) => {
                let all = self.crew.has_stopped();
                if !all && now >= until {
                    self.tell(
                        None,
                        Teller::Service,
                        Event::Warning(
                            "a worker did not stop in time and is left behind; PostgreSQL keeps what it had not stored"
                                .to_owned(),
                        ),
                    );
                }
                if all || now >= until {
                    self.stage = Stage::Records(now + LAST_RECORDS);
                }
            }
            Stage::Records(until) => {
                if self.recorder.is_idle() || now >= until {
                    self.duties.give_up();
                    self.stage = Stage::Leases(now + LAST_RECORDS);
                }
            }
            Stage::Leases(until) => return self.duties.are_given_up() || now >= until,
        }
        false
    }

    fn begin_jobs(&mut self) {
        let service = &self.estate.service;
        let places = Places { jobs: service.jobs_at_once, drills: service.drills_at_once };
        let now = self.runtime.now();
        let (begun, failed) = self.jobs.begin(&self.program, places, |order| lease_of(&self.duties, order), now);
        if begun.is_empty() && failed.is_empty() {
            return;
        }
        for (order, subject) in &begun {
            let text = format!("began {}: lifeboat {}", order.run, order.command().join(" "));
            self.tell_about(subject, Teller::Job(order.run.clone()), Event::Note(text));
        }
        self.state.change(|view| {
            for (order, _) in &begun {
                if let Some(job) = view.jobs_running.iter_mut().find(|job| job.run == order.run) {
                    show_begun(job, order, now);
                }
            }
        });
        failed.into_iter().for_each(|ended| self.finish(ended));
    }

    fn begin_to_stop(&mut self, sign: &dyn Fn(Sign)) {
        sign(Sign::Stopping);
        let within = self.estate.service.stop_within;
        self.stage = Stage::Jobs(Instant::now() + within);
        let forgotten: Vec<String> = self.jobs.forget_waiting().into_iter().map(|order| order.run).collect();
        self.state.change(|view| {
            view.stopping = true;
            view.jobs_running.retain(|job| !forgotten.contains(&job.run));
        });
        let text = match self.jobs.running() {
            0 => "stopping: storing what was received".to_owned(),
            n => format!("stopping: {n} running jobs may go on for {}", Span(within)),
        };
        self.tell(None, Teller::Service, Event::Note(text));
    }

    /// Tells something that is no job's to people and readers of news.
    pub(super) fn tell(&self, environment: Option<&str>, from: Teller, event: Event) {
        let worker = match &from {
            Teller::Worker(kind) => Some(kind.word()),
            Teller::Service | Teller::Job(_) => None,
        };
        let subject = Subject { environment: environment.map(str::to_owned), worker, ..Subject::default() };
        self.tell_about(&subject, from, event);
    }

    /// Tells people and readers of news. What only moves a figure is not for people.
    pub(super) fn tell_about(&self, subject: &Subject, from: Teller, event: Event) {
        match &event {
            Event::WalStored { .. } | Event::PhaseStarted { .. } => {}
            Event::Warning(_) | Event::PhaseEnded { .. } | Event::Logged { .. } => {
                self.runtime.emit_about(subject, event.clone());
            }
            other => {
                if let Some(text) = words(other) {
                    self.runtime.emit_about(subject, Event::Note(text));
                }
            }
        }
        let environment = subject.environment.clone();
        if matches!(event, Event::StoreRetry { .. }) {
            self.state.metrics().store_retry();
        }
        self.state.tell(News { at: self.runtime.now(), environment, from, event });
    }
}

/// The configuration that was being loaded; waits for ever where none is.
async fn loaded(loading: &mut Option<JoinHandle<Result<Estate>>>) -> Result<Estate> {
    let Some(task) = loading else { return std::future::pending().await };
    let loaded = task.await.or_err(ErrorKind::Internal, || "loading the configuration was cut short".to_owned());
    *loading = None;
    loaded?
}
pub(super) fn program_for(path: PathBuf, estate: &Estate) -> Program {
    let configuration = serde_json::to_vec(&estate.text).expect("the words of a configuration are plain data");
    Program { path, config_file: estate.file.clone(), configuration: Bytes::from(configuration) }
}
