//! The jobs of this instance: those that wait for a place, those that run, and how they end.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::child::{Cut, Exit, Limits, Program, follow};
use super::order::Order;
use super::places::{Busy, Places, may_begin};
use super::span::JobSpan;
use super::state::{FinishedJob, JobOutcome, PhaseView, RunningJob};
use crate::error::{self, Result};
use crate::event::{Event, Subject};
use crate::evidence::Fence;
use crate::units::Span;

/// A job that told nothing for this long gives its place to others.
const SILENT: Duration = Duration::from_secs(300);
/// How long a job may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// Tells a command under which lease it runs; `cli/context.rs` reads it.
const FENCE_VARIABLE: &str = "LIFEBOAT_FENCE";
/// Warnings of a running job that are shown.
const WARNINGS: usize = 5;

/// What happens with jobs.
#[derive(Debug)]
pub(super) enum JobNews {
    /// A job tells something.
    Told(String, Event),
    /// A job ended.
    Ended(String, Exit),
}

/// Jobs that wait and jobs that run.
#[derive(Debug)]
pub(super) struct Jobs {
    waiting: VecDeque<Order>,
    running: BTreeMap<String, Running>,
    news: mpsc::UnboundedSender<JobNews>,
}

#[derive(Debug)]
struct Running {
    order: Order,
    /// The lease that it runs under.
    fence: Fence,
    subject: Subject,
    span: JobSpan,
    stop: CancellationToken,
    started_at: DateTime<Utc>,
    /// When it last told anything.
    sign: Instant,
}

/// A job that ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The lease that it ran under.
    pub(super) fence: Fence,
    /// What is kept of it.
    pub(super) job: FinishedJob,
    /// Whom it concerns.
    pub(super) subject: Subject,
}

impl Jobs {
    /// None yet; what happens with them goes to `news`.
    pub(super) fn new(news: mpsc::UnboundedSender<JobNews>) -> Self {
        Self { waiting: VecDeque::new(), running: BTreeMap::new(), news }
    }

    /// Takes an order; how the state shows it.
    ///
    /// # Errors
    /// Denied, where the same is waiting for a place already.
    pub(super) fn take(&mut self, order: Order, now: DateTime<Utc>) -> Result<RunningJob> {
        let same = |waiting: &&Order| waiting.kind == order.kind && waiting.environment == order.environment;
        if let Some(waiting) = self.waiting.iter().find(same) {
            return Err(error::denied(format!("a {} of {} is waiting already", order.kind, order.environment))
                .meaning("it begins when there is a place for it; nothing was added")
                .hint(format!("its run is {}", waiting.run)));
        }
        let shown = shown(&order, now);
        self.waiting.push_back(order);
        Ok(shown)
    }

    /// Starts what may begin, each under the lease that `lease` knows for it; call it on the main thread (see
    /// [`Program::start`]). What began, and what could not be started.
    pub(super) fn begin(
        &mut self,
        program: &Program,
        places: Places,
        lease: impl Fn(&Order) -> Option<Fence>,
        now: DateTime<Utc>,
    ) -> (Vec<(Order, Subject)>, Vec<Ended>) {
        let (mut begun, mut failed) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < self.waiting.len() {
            let busy: Vec<Busy<'_>> = self.running.values().map(Running::busy).collect();
            let fence = lease(&self.waiting[at]).filter(|_| may_begin(&self.waiting[at], &busy, places));
            let Some(fence) = fence else {
                at += 1;
                continue;
            };
            let Some(order) = self.waiting.remove(at) else { break };
            let span = JobSpan::begin(&order);
            let subject = order.subject(span.trace_id());
            match self.start(program, &order, &fence, &span) {
                Ok(stop) => {
                    let (sign, run) = (Instant::now(), order.run.clone());
                    begun.push((order.clone(), subject.clone()));
                    self.running.insert(run, Running { order, fence, subject, span, stop, started_at: now, sign });
                }
                Err(failure) => {
                    let exit = Exit { status: Err(failure), cut: None, result: Value::Null, log: Vec::new() };
                    let job = finished(order, now, exit, now);
                    span.end(&job);
                    failed.push(Ended { fence, job, subject });
                }
            }
        }
        (begun, failed)
    }

    /// Starts a job; how it is stopped.
    fn start(&self, program: &Program, order: &Order, fence: &Fence, span: &JobSpan) -> Result<CancellationToken> {
        let mut variables = span.variables(order);
        variables.push((FENCE_VARIABLE, fence.to_string()));
        let child = program.start(&order.command(), &variables)?;
        let stop = CancellationToken::new();
        let limits = Limits { time: order.time_limit, grace: GRACE };
        let (run, news) = (order.run.clone(), self.news.clone());
        let (told_run, told_news) = (run.clone(), news.clone());
        let told = move |event| {
            let _ = told_news.send(JobNews::Told(told_run.clone(), event));
        };
        let following = follow(child, program.configuration.clone(), limits, stop.clone(), told);
        tokio::spawn(async move {
            let _ = news.send(JobNews::Ended(run, following.await));
        });
        Ok(stop)
    }

    /// A job told something; whom it concerns.
    pub(super) fn told(&mut self, run: &str) -> Option<&Subject> {
        let running = self.running.get_mut(run)?;
        running.sign = Instant::now();
        Some(&running.subject)
    }

    /// A job ended.
    pub(super) fn ended(&mut self, run: &str, exit: Exit, now: DateTime<Utc>) -> Option<Ended> {
        let Running { order, fence, subject, span, started_at, .. } = self.running.remove(run)?;
        let job = finished(order, started_at, exit, now);
        span.end(&job);
        Some(Ended { fence, job, subject })
    }

    /// Ends a job that runs, or forgets one that waits (which is returned).
    ///
    /// # Errors
    /// Usage, where there is no such run.
    pub(super) fn stop(&mut self, run: &str) -> Result<Option<Order>> {
        if let Some(running) = self.running.get(run) {
            running.stop.cancel();
            return Ok(None);
        }
        match self.waiting.iter().position(|order| order.run == run) {
            Some(at) => Ok(self.waiting.remove(at)),
            None => Err(error::usage(format!("no run {run} waits or runs here"))
                .hint("it may have ended, or run on another instance")),
        }
    }

    /// Ends what runs under a lease that is another instance's now.
    pub(super) fn stop_under(&self, lost: impl Fn(&Fence) -> bool) {
        self.running.values().filter(|running| lost(&running.fence)).for_each(|running| running.stop.cancel());
    }

    /// Forgets those of them that wait.
    pub(super) fn drop_waiting(&mut self, which: impl Fn(&Order) -> bool) -> Vec<Order> {
        let (dropped, kept): (Vec<Order>, Vec<Order>) = self.waiting.drain(..).partition(which);
        self.waiting = kept.into();
        dropped
    }

    /// Forgets all that wait.
    pub(super) fn forget_waiting(&mut self) -> Vec<Order> {
        self.waiting.drain(..).collect()
    }

    /// Ends all that run.
    pub(super) fn stop_all(&self) {
        self.running.values().for_each(|running| running.stop.cancel());
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }
}

impl Running {
    fn busy(&self) -> Busy<'_> {
        Busy { order: &self.order, alive: self.sign.elapsed() < SILENT }
    }
}

/// A job that waits, as the state shows it.
fn shown(order: &Order, now: DateTime<Utc>) -> RunningJob {
    RunningJob {
        run: order.run.clone(),
        job: order.job.clone(),
        kind: order.kind,
        environment: order.environment.clone(),
        command: order.command(),
        scheduled_for: order.scheduled_for,
        requested_by: order.requested_by.clone(),
        since: now,
        started_at: None,
        ends_by: None,
        stopping: false,
        phase: None,
        warnings: Vec::new(),
        note: None,
    }
}

/// Shows that a job began.
pub(super) fn show_begun(job: &mut RunningJob, order: &Order, now: DateTime<Utc>) {
    job.started_at = Some(now);
    job.ends_by = TimeDelta::from_std(order.time_limit).ok().and_then(|limit| now.checked_add_signed(limit));
}

/// Shows what a job told.
pub(super) fn show_told(job: &mut RunningJob, event: &Event, now: DateTime<Utc>) {
    match event {
        Event::PhaseStarted { phase, total } => {
            job.phase = Some(PhaseView { name: phase.to_string(), since: now, bytes: 0, total: *total });
        }
        Event::Progress { phase, bytes } => {
            if let Some(shown) = job.phase.as_mut().filter(|shown| shown.name == *phase) {
                shown.bytes += bytes;
            }
        }
        Event::PhaseEnded { phase, .. } => {
            job.phase.take_if(|shown| shown.name == *phase);
        }
        Event::Note(text) => job.note = Some(text.clone()),
        Event::Warning(text) => {
            if job.warnings.len() == WARNINGS {
                job.warnings.remove(0);
            }
            job.warnings.push(text.clone());
        }
        Event::StoreRetry { .. } => job.note = super::child::words(event),
        Event::WalStored { .. } | Event::WalDurable { .. } | Event::Logged { .. } => {}
    }
}

/// What is kept of a job that ended.
fn finished(order: Order, started_at: DateTime<Utc>, exit: Exit, now: DateTime<Utc>) -> FinishedJob {
    let code = exit.status.as_ref().ok().and_then(std::process::ExitStatus::code);
    let outcome = match (code, exit.cut) {
        (Some(0), _) => JobOutcome::Done,
        (_, Some(_)) | (None | Some(130), None) if exit.status.is_ok() => JobOutcome::Interrupted,
        (Some(9 | 11), _) => JobOutcome::Partial,
        _ => JobOutcome::Failed,
    };
    let said = &exit.result["error"];
    let message = match (&exit.status, exit.cut, said["message"].as_str()) {
        (Err(failure), ..) => failure.message(),
        (_, Some(Cut::TimeLimit), _) => format!("it was ended: it took longer than {}", Span(order.time_limit)),
        (_, Some(Cut::Stopped), _) => "it was stopped".to_owned(),
        (_, None, Some(message)) => message.to_owned(),
        (Ok(status), None, None) if !status.success() => format!("it ended without a word: {status}"),
        _ => String::new(),
    };
    let hints = said["hints"].as_array().into_iter().flatten().filter_map(|hint| hint.as_str().map(str::to_owned));
    FinishedJob {
        command: order.command(),
        run: order.run,
        job: order.job,
        kind: order.kind,
        environment: order.environment,
        scheduled_for: order.scheduled_for,
        requested_by: order.requested_by,
        attempt: order.attempt,
        started_at,
        finished_at: now,
        outcome,
        exit_code: code,
        message,
        hints: hints.collect(),
        result: exit.result,
        log: exit.log,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use serde_json::json;

    use super::*;
    use crate::config::JobKind;

    fn ended(raw: i32, cut: Option<Cut>, result: Value) -> FinishedJob {
        let order = Order::requested(JobKind::Base, "production", Vec::new(), "anna").expect("order");
        let exit = Exit { status: Ok(ExitStatus::from_raw(raw)), cut, result, log: Vec::new() };
        finished(order, DateTime::UNIX_EPOCH, exit, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn the_exit_code_decides_and_the_error_is_kept() {
        let code = |code: i32| ended(code << 8, None, Value::Null).outcome;
        assert_eq!([0, 9, 11, 4, 6, 70, 130].map(code), {
            use JobOutcome::{Done, Failed, Interrupted, Partial};
            [Done, Partial, Partial, Failed, Failed, Failed, Interrupted]
        });
        let failed =
            ended(4 << 8, None, json!({ "error": { "message": "PostgreSQL is away", "hints": ["start it"] } }));
        assert_eq!((failed.message.as_str(), failed.hints), ("PostgreSQL is away", vec!["start it".to_owned()]));
        let killed = ended(9, None, Value::Null);
        assert_eq!((killed.outcome, killed.exit_code), (JobOutcome::Interrupted, None));
        assert!(killed.message.contains("signal"), "{}", killed.message);
        let late = ended(15, Some(Cut::TimeLimit), Value::Null);
        assert_eq!(late.message, "it was ended: it took longer than 1 d");
        assert_eq!(ended(0, Some(Cut::Stopped), Value::Null).outcome, JobOutcome::Done, "it was faster");
    }

    #[tokio::test]
    async fn the_same_does_not_wait_twice_and_what_waits_can_be_taken_back() {
        let mut jobs = Jobs::new(mpsc::unbounded_channel().0);
        let order = |environment: &str| Order::requested(JobKind::Base, environment, Vec::new(), "a").expect("order");
        let first = order("a");
        jobs.take(first.clone(), DateTime::UNIX_EPOCH).expect("taken");
        assert_eq!(jobs.take(order("a"), DateTime::UNIX_EPOCH).expect_err("twice").hints().len(), 1);
        jobs.take(order("b"), DateTime::UNIX_EPOCH).expect("another environment's");
        assert_eq!(jobs.stop(&first.run).expect("known"), Some(first.clone()));
        jobs.stop(&first.run).expect_err("gone");
    }

    #[test]
    fn progress_is_counted_for_its_own_phase() {
        let order = Order::requested(JobKind::Base, "a", Vec::new(), "a").expect("order");
        let mut job = shown(&order, DateTime::UNIX_EPOCH);
        let mut tell = |event| show_told(&mut job, &event, DateTime::UNIX_EPOCH);
        tell(Event::PhaseStarted { phase: "reading".into(), total: Some(10) });
        tell(Event::Progress { phase: "reading".into(), bytes: 4 });
        tell(Event::Progress { phase: "other".into(), bytes: 100 });
        tell(Event::Progress { phase: "reading".into(), bytes: 3 });
        assert_eq!(job.phase.as_ref().map(|phase| (phase.bytes, phase.total)), Some((7, Some(10))));
        show_told(&mut job, &Event::PhaseEnded { phase: "reading".into(), took: Duration::ZERO }, DateTime::UNIX_EPOCH);
        assert_eq!(job.phase, None);
    }
}
