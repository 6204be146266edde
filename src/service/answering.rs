//! What the supervisor is asked, and what it answers: jobs, and the configuration that is loaded again.

use std::sync::Arc;

use super::control::{Asked, Request};
use super::duties::Standing;
use super::initial::reloaded;
use super::order::Order;
use super::repository_keeper::RepositoryKeeper;
use super::shares::{duty_for, lease_of};
use super::state::{ConfigProblem, Teller};
use super::supervisor::{Sign, Stage, Supervisor, program_for};
use crate::config::{Environment, Estate, JobKind};
use crate::error::{self, Result};
use crate::event::Event;
use crate::evidence::job_record::{JobOutcome, JobRecord};
use crate::runtime::blocking;

impl Supervisor {
    pub(super) fn answer(&mut self, (request, answer): Asked, sign: &dyn Fn(Sign)) {
        let said = match request {
            Request::Start(order) => self.start(order),
            Request::Stop { run, who } => self.jobs.stop(&run).map(|waited| {
                if let Some(order) = &waited {
                    self.not_begun(order, &who);
                }
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

    /// An order that was due was taken back before it began: that is an attempt, and tried again as the job says.
    fn not_begun(&mut self, order: &Order, who: &str) {
        let (Some(job), Some(fence)) = (&order.job, lease_of(&self.duties, order)) else {
            self.planning.given_up(order);
            return;
        };
        let now = self.runtime.now();
        let record = JobRecord {
            job: job.clone(),
            job_kind: order.kind.word().to_owned(),
            scheduled_for: order.scheduled_for.unwrap_or(now),
            occurrences: 1,
            started_at: None,
            finished_at: now,
            outcome: JobOutcome::Interrupted,
            exit_code: None,
            message: Some(format!("{who} stopped it before it began")),
            calendar: None,
            until: None,
            instance: self.state.view().instance.clone(),
            attempt: order.attempt,
            requested_by: None,
        };
        self.recorder.write(fence, record, self.keeper.opened());
    }

    /// Takes an order, if this instance may run it.
    pub(super) fn start(&mut self, order: Order) -> Result<()> {
        self.refuse(self.estate.environment(&order.environment)?, order.kind)?;
        let shown = self.jobs.take(order, self.runtime.now())?;
        self.state.change(|view| view.jobs_running.push(shown));
        Ok(())
    }

    /// Whether this instance may run such a job now.
    pub(super) fn refuse(&self, environment: &Environment, kind: JobKind) -> Result<()> {
        let view = self.state.view();
        if view.stopping {
            return Err(error::denied("the service is being stopped").meaning("nothing was begun"));
        }
        let (serves, hosts) = match kind {
            JobKind::Drill => (environment.service.drills(&view.instance), "drill_hosts"),
            _ => (environment.service.serves(&view.instance), "hosts"),
        };
        match (serves, self.duties.standing(&environment.name, duty_for(kind))) {
            (true, Standing::Elsewhere(other)) => {
                Err(error::denied(format!("the instance {other} runs such jobs of {} now", environment.name))
                    .meaning("nothing was begun: two would do the work twice")
                    .hint(format!("ask {other}; when it stops, this instance takes over")))
            }
            (true, _) => Ok(()),
            (false, _) => Err(error::denied(format!(
                "this instance, {}, is not among the `{hosts}` of {}",
                view.instance, environment.name
            ))
            .meaning("nothing was begun")
            .hint("ask an instance that is, or change [environment.service]")),
        }
    }

    /// Begins to load the configuration again, unless that is under way.
    pub(super) fn load(&mut self, sign: &dyn Fn(Sign)) {
        if self.loading.is_some() {
            return;
        }
        sign(Sign::Reloading);
        let file = self.estate.file.clone();
        self.loading = Some(tokio::spawn(blocking(move || Estate::load(&file))));
    }

    /// Puts a configuration into force, or says why not.
    pub(super) fn loaded(&mut self, loaded: Result<Estate>, sign: &dyn Fn(Sign)) -> Result<()> {
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
                self.planning.reload(&self.estate, now);
                let estate = self.estate.clone();
                self.state.change(|view| reloaded(view, &estate, moved, now));
                self.measure();
                if matches!(self.stage, Stage::Serving) {
                    self.arm()?;
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
}
