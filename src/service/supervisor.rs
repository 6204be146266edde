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

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::alerts::{Alarm, Armed};
use super::child::{Program, words};
use super::control::{Asked, Control, Request};
use super::crew::{self, Crew, Ground};
use super::jobs::{JobNews, Jobs, show_begun, show_told};
use super::order::Order;
use super::places::Places;
use super::repository_keeper::RepositoryKeeper;
use super::state::{
    ConfigProblem, EnvironmentView, EstateView, FinishedJob, JobOutcome, News, ObjectivesInForce, RepositoryState,
    ServiceState, Teller, WorkerKind,
};
use super::worker::{Report, Said};
use crate::config::{Environment, Estate};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::runtime::{Runtime, blocking};

/// The loop turns at least this often.
const TICK: Duration = Duration::from_secs(1);
/// Workers may take this long to store what they have when the service stops.
const LAST_WORK: Duration = Duration::from_secs(60);
/// News that are taken at once.
const BATCH: usize = 256;

/// What the service begins with.
#[derive(Debug)]
pub struct Setup {
    /// The configuration.
    pub estate: Estate,
    /// The name of this instance.
    pub instance: String,
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
enum Stage {
    Serving,
    /// Running jobs may go on until then.
    Jobs(Instant),
    /// Jobs have ended; workers store what they have until then.
    Workers(Instant),
}

struct Supervisor {
    state: ServiceState,
    runtime: Runtime,
    estate: Arc<Estate>,
    estates: watch::Sender<Arc<Estate>>,
    program: Program,
    keeper: RepositoryKeeper,
    crew: Crew,
    jobs: Jobs,
    reports: mpsc::UnboundedReceiver<Report>,
    job_news: mpsc::UnboundedReceiver<JobNews>,
    asked: mpsc::Receiver<Asked>,
    /// A configuration that is being loaded, and who waits for it.
    loading: Option<JoinHandle<Result<Estate>>>,
    waiting_for_load: Vec<tokio::sync::oneshot::Sender<Result<()>>>,
    stage: Stage,
    /// Tells who must be told what is wrong, by the configuration in force.
    armed: Option<Armed>,
}

impl Supervisor {
    fn new(setup: Setup, asked: mpsc::Receiver<Asked>) -> Self {
        let Setup { estate, instance, program, runtime } = setup;
        let estate = Arc::new(estate);
        let now = runtime.now();
        let state = ServiceState::new(first_view(&estate, instance, now));
        let (report, reports) = mpsc::unbounded_channel();
        let (tell, job_news) = mpsc::unbounded_channel();
        let keeper = RepositoryKeeper::start(estate.clone(), state.clone(), runtime.clone());
        let program = program_for(program, &estate);
        Self {
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
            asked,
            loading: None,
            waiting_for_load: Vec::new(),
            stage: Stage::Serving,
            armed: None,
        }
    }

    async fn run(mut self, stop: &CancellationToken, sign: &dyn Fn(Sign)) -> Result<()> {
        self.arrange(false)?;
        sign(Sign::Ready);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reports, mut job_news) = (Vec::new(), Vec::new());
        loop {
            let stopping = !matches!(self.stage, Stage::Serving);
            tokio::select! {
                _ = tick.tick() => {
                    sign(Sign::Alive);
                    sign(Sign::Status(status(&self.state.view())));
                }
                _ = self.reports.recv_many(&mut reports, BATCH) => self.workers_said(reports.drain(..)),
                _ = self.job_news.recv_many(&mut job_news, BATCH) => self.jobs_told(job_news.drain(..)),
                Some(asked) = self.asked.recv() => self.answer(asked, sign),
                loaded = loaded(&mut self.loading) => self.loaded(loaded, sign)?,
                () = stop.cancelled(), if !stopping => self.begin_to_stop(sign),
            }
            if self.advance() {
                return Ok(());
            }
        }
    }

    /// Has everybody work who should; `moved`: everybody anew.
    fn arrange(&mut self, moved: bool) -> Result<()> {
        let instance = self.state.view().instance.clone();
        let alarm = Alarm {
            estate: self.estate.clone(),
            state: self.state.clone(),
            repository: self.keeper.opened().clone(),
            runtime: self.runtime.clone(),
            certificates: Vec::new(),
        };
        self.armed = Some(alarm.start()?);
        let ground = Ground { estate: &self.estate, repository: self.keeper.opened(), moved };
        self.crew.arrange(&ground, |environment, kind| wanted(environment, kind, &instance))
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
                return all || now >= until;
            }
        }
        false
    }

    fn begin_jobs(&mut self) {
        let service = &self.estate.service;
        let places = Places { jobs: service.jobs_at_once, drills: service.drills_at_once };
        let now = self.runtime.now();
        let (begun, failed) = self.jobs.begin(&self.program, places, now);
        if begun.is_empty() && failed.is_empty() {
            return;
        }
        for order in &begun {
            let text = format!("began {}: lifeboat {}", order.run, order.command().join(" "));
            self.tell(Some(&order.environment), Teller::Job(order.run.clone()), Event::Note(text));
        }
        self.state.change(|view| {
            for order in &begun {
                if let Some(job) = view.jobs_running.iter_mut().find(|job| job.run == order.run) {
                    show_begun(job, order, now);
                }
            }
        });
        failed.into_iter().for_each(|job| self.finish(job));
    }

    fn workers_said(&self, reports: impl Iterator<Item = Report>) {
        let now = self.runtime.now();
        let said: Vec<_> =
            reports.filter_map(|r| self.crew.whose(&r).map(|(name, kind)| (name, kind, r.said))).collect();
        self.state.change(|view| {
            for (environment, kind, said) in &said {
                crew::note(view, environment, *kind, said, now);
            }
        });
        for (environment, kind, said) in said {
            let event = match said {
                Said::Told(event) => event,
                Said::Failed(failure, pause) => Event::Warning(format!(
                    "failed, and is started again after {}: {failure}",
                    crate::units::Span(pause)
                )),
                Said::Running | Said::Stopped => continue,
            };
            self.tell(Some(&environment), Teller::Worker(kind), event);
        }
    }

    fn jobs_told(&mut self, news: impl Iterator<Item = JobNews>) {
        let now = self.runtime.now();
        let mut told = Vec::new();
        for news in news {
            match news {
                JobNews::Told(run, event) => {
                    if let Some(order) = self.jobs.told(&run) {
                        told.push((order.environment.clone(), run, event));
                    }
                }
                JobNews::Ended(run, exit) => {
                    self.show(std::mem::take(&mut told), now);
                    if let Some(job) = self.jobs.ended(&run, exit, now) {
                        self.finish(job);
                    }
                }
            }
        }
        self.show(told, now);
    }

    fn show(&self, told: Vec<(String, String, Event)>, now: DateTime<Utc>) {
        if told.is_empty() {
            return;
        }
        self.state.change(|view| {
            for (_, run, event) in &told {
                if let Some(job) = view.jobs_running.iter_mut().find(|job| job.run == *run) {
                    show_told(job, event, now);
                }
            }
        });
        for (environment, run, event) in told {
            self.tell(Some(&environment), Teller::Job(run), event);
        }
    }

    fn finish(&self, job: FinishedJob) {
        let what = format!("{} of {}", job.kind, job.environment);
        let event = match job.outcome {
            JobOutcome::Done => Event::Note(format!("{what}: done")),
            JobOutcome::Partial => Event::Warning(format!("{what}: done in part: {}", job.message)),
            JobOutcome::Failed => Event::Warning(format!("{what}: failed: {}", job.message)),
            JobOutcome::Interrupted => Event::Warning(format!("{what}: interrupted: {}", job.message)),
        };
        self.tell(Some(&job.environment), Teller::Job(job.run.clone()), event);
        self.crew.look_soon(&job.environment);
        self.state.metrics().job_ended(&job.environment, job.kind, job.outcome);
        self.state.change(|view| view.finished(job));
    }

    fn answer(&mut self, (request, answer): Asked, sign: &dyn Fn(Sign)) {
        let said = match request {
            Request::Start(order) => self.start(order),
            Request::Stop { run, who } => self.jobs.stop(&run).map(|waited| {
                self.tell(None, Teller::Job(run.clone()), Event::Note(format!("{run} is stopped by {who}")));
                self.state.change(|view| match waited {
                    Some(_) => view.jobs_running.retain(|job| job.run != run),
                    None => {
                        view.jobs_running.iter_mut().filter(|job| job.run == run).for_each(|job| job.stopping = true)
                    }
                });
            }),
            Request::Reload => {
                self.waiting_for_load.push(answer);
                self.load(sign);
                return;
            }
        };
        // Who asked may have gone.
        let _ = answer.send(said);
    }

    /// Takes an order, if this instance may run it.
    fn start(&mut self, order: Order) -> Result<()> {
        self.refuse(self.estate.environment(&order.environment)?, order.kind)?;
        let shown = self.jobs.take(order, self.runtime.now())?;
        self.state.change(|view| view.jobs_running.push(shown));
        Ok(())
    }

    /// Whether this instance may run such a job now.
    fn refuse(&self, environment: &Environment, kind: crate::config::JobKind) -> Result<()> {
        let view = self.state.view();
        if view.stopping {
            return Err(error::denied("the service is being stopped").meaning("nothing was begun"));
        }
        let (serves, hosts) = match kind {
            crate::config::JobKind::Drill => (environment.service.drills(&view.instance), "drill_hosts"),
            _ => (environment.service.serves(&view.instance), "hosts"),
        };
        match serves {
            true => Ok(()),
            false => Err(error::denied(format!(
                "this instance, {}, is not among the `{hosts}` of {}",
                view.instance, environment.name
            ))
            .meaning("nothing was begun")
            .hint("ask an instance that is, or change [environment.service]")),
        }
    }

    /// Begins to load the configuration again, unless that is under way.
    fn load(&mut self, sign: &dyn Fn(Sign)) {
        if self.loading.is_some() {
            return;
        }
        sign(Sign::Reloading);
        let file = self.estate.file.clone();
        self.loading = Some(tokio::spawn(blocking(move || Estate::load(&file))));
    }

    /// Puts a configuration into force, or says why not.
    fn loaded(&mut self, loaded: Result<Estate>, sign: &dyn Fn(Sign)) -> Result<()> {
        let now = self.runtime.now();
        let answer = match loaded {
            Ok(estate) => {
                let moved = estate.repository != self.estate.repository || estate.keys != self.estate.keys;
                self.estate = Arc::new(estate);
                self.program = program_for(self.program.path.clone(), &self.estate);
                if moved {
                    self.keeper =
                        RepositoryKeeper::start(self.estate.clone(), self.state.clone(), self.runtime.clone());
                }
                self.estates.send_replace(self.estate.clone());
                let estate = self.estate.clone();
                self.state.change(|view| reloaded(view, &estate, moved, now));
                if matches!(self.stage, Stage::Serving) {
                    self.arrange(moved)?;
                }
                self.tell(None, Teller::Service, Event::Note("the configuration was loaded again".to_owned()));
                Ok(())
            }
            Err(refused) => {
                let text = format!("the configuration is refused, the one before it stays in force: {refused}");
                self.tell(None, Teller::Service, Event::Warning(text));
                let (message, hints) = (refused.message(), refused.hints().to_vec());
                self.state.change(|view| view.config_problem = Some(ConfigProblem { at: now, message, hints }));
                Err(refused)
            }
        };
        sign(Sign::Ready);
        let text = answer.as_ref().err().map(|refused| (refused.message(), refused.hints().to_vec()));
        for waiting in self.waiting_for_load.drain(..) {
            let said = text.as_ref().map_or(Ok(()), |(message, hints)| {
                let refused = error::config(message.clone()).meaning("the configuration before it stays in force");
                Err(hints.iter().fold(refused, |refused, hint| refused.hint(hint.clone())))
            });
            let _ = waiting.send(said);
        }
        Ok(())
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
            n => format!("stopping: {n} running jobs may go on for {}", crate::units::Span(within)),
        };
        self.tell(None, Teller::Service, Event::Note(text));
    }

    /// Tells people and readers of news. What only moves a figure is not for people.
    fn tell(&self, environment: Option<&str>, from: Teller, event: Event) {
        let who = match &from {
            Teller::Service => None,
            Teller::Worker(WorkerKind::Wal) => Some("wal"),
            Teller::Worker(WorkerKind::Filestore) => Some("filestore"),
            Teller::Job(run) => Some(run.as_str()),
        };
        let place: String = environment.into_iter().chain(who).map(|part| format!("{part}: ")).collect();
        match &event {
            Event::WalStored { .. } | Event::PhaseStarted { .. } => {}
            Event::Warning(text) => self.runtime.emit(Event::Warning(format!("{place}{text}"))),
            other => {
                if let Some(text) = words(other) {
                    self.runtime.emit(Event::Note(format!("{place}{text}")));
                }
            }
        }
        if matches!(event, Event::StoreRetry { .. }) {
            self.state.metrics().store_retry();
        }
        let environment = environment.map(str::to_owned);
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

/// Whether this instance does such work for an environment.
fn wanted(environment: &Environment, kind: WorkerKind, instance: &str) -> bool {
    let service = &environment.service;
    service.serves(instance)
        && match kind {
            WorkerKind::Wal => service.receive_wal,
            WorkerKind::Filestore => service.watch_filestore && !environment.odoo.is_empty(),
        }
}

fn program_for(path: PathBuf, estate: &Estate) -> Program {
    let configuration = serde_json::to_vec(&estate.text).expect("the words of a configuration are plain data");
    Program { path, config_file: estate.file.clone(), configuration: Bytes::from(configuration) }
}

fn first_view(estate: &Estate, instance: String, now: DateTime<Utc>) -> EstateView {
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
        leads: true,
        workers: Vec::new(),
    }
}

/// Shows a new configuration; what is known of environments that stay is kept.
fn reloaded(view: &mut EstateView, estate: &Estate, moved: bool, now: DateTime<Utc>) {
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
                shown.silences = known.silences;
            }
            shown
        })
        .collect();
}

/// One line for `systemctl status`.
fn status(view: &EstateView) -> String {
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
