//! What the supervisor hears: from workers, jobs, leases and the ledger; and what it makes of it.

use chrono::{DateTime, TimeDelta, Utc};

use super::crew;
use super::duties::{DutyNews, Standing};
use super::jobs::{Ended, JobNews, show_told};
use super::planning::{Due, Read};
use super::recorder::Recorded;
use super::shares::{duty_for, duty_of, record, worker_of};
use super::state::{JobOutcome, ObjectivesInForce, Teller, WorkerState};
use super::supervisor::{Stage, Supervisor};
use super::worker::{Report, Said};
use crate::config::{Environment, JobKind};
use crate::error::Result;
use crate::event::{Event, Subject};
use crate::repository::duty::Duty;
use crate::units::Span;

impl Supervisor {
    /// Leases were taken, lost or not renewed.
    pub(super) fn duties_changed(&mut self, news: impl Iterator<Item = DutyNews>) -> Result<()> {
        let now = self.runtime.now();
        let mut changed = false;
        for news in news {
            let (environment, duty) = &news.post;
            let (before, trouble) = self.duties.note(&news);
            if let Some(failure) = news.failure.as_ref().filter(|_| trouble) {
                let text = format!("the lease of {} is in doubt: {failure}", duty.name());
                self.tell(Some(environment), Teller::Service, Event::Warning(text));
            }
            let Some(before) = before else { continue };
            changed = true;
            if matches!(duty, Duty::Jobs | Duty::Drills) && !before.holds_as(&news.standing) {
                // What another instance did meanwhile stands in the ledger.
                self.planning.forget(environment);
            }
            if matches!(news.standing, Standing::Elsewhere(_)) {
                self.drop_waiting(environment, *duty);
            }
            if let Standing::Elsewhere(instance) = &news.standing {
                let text = format!("{instance} does {} of {environment}", duty.name());
                self.tell(Some(environment), Teller::Service, Event::Note(text));
            }
            if *duty == Duty::Jobs {
                let leads = !matches!(news.standing, Standing::Elsewhere(_));
                self.state.change(|view| {
                    if let Some(environment) = view.environment_mut(environment) {
                        environment.leads = leads;
                    }
                });
            }
            if let (Some(idle), Some(kind)) = (idle(&news.standing), worker_of(*duty)) {
                self.state.change(|view| crew::note_idle(view, environment, kind, idle, now));
            }
        }
        if !changed || !matches!(self.stage, Stage::Serving) {
            return Ok(());
        }
        let duties = &self.duties;
        self.jobs.stop_under(|fence| {
            let duty = Duty::ALL.into_iter().find(|duty| duty.name() == fence.duty);
            duty.is_some_and(|duty| {
                duties.fence(&fence.environment, duty).is_some_and(|ours| ours != fence)
                    || matches!(duties.standing(&fence.environment, duty), Standing::Elsewhere(_))
            })
        });
        self.arrange(false)
    }

    /// What became of a job stands in the ledger, or never will.
    pub(super) fn recorded(&mut self, recorded: &Recorded) {
        let (environment, record, written) = match recorded {
            Recorded::Written(environment, record) => (environment, record, true),
            Recorded::Refused(environment, record) => (environment, record, false),
        };
        self.planning.recorded(environment, record, written);
        self.crew.look_soon(environment);
    }

    /// Something was read of a ledger.
    pub(super) fn ledger_read(&mut self, read: Read) {
        if let Some((environment, failure)) = self.planning.was_read(read, self.runtime.now()) {
            let text = format!("what is due is not known, because the ledger cannot be read: {failure}");
            self.tell(Some(&environment), Teller::Service, Event::Warning(text));
        }
    }

    /// Forgets jobs that wait for a place under a duty that another instance has.
    fn drop_waiting(&mut self, environment: &str, duty: Duty) {
        let dropped = self.jobs.drop_waiting(|order| order.environment == environment && duty_for(order.kind) == duty);
        if dropped.is_empty() {
            return;
        }
        dropped.iter().for_each(|order| self.planning.given_up(order));
        self.state.change(|view| view.jobs_running.retain(|job| dropped.iter().all(|order| order.run != job.run)));
    }

    /// Has done what is due.
    pub(super) fn plan(&mut self) {
        if !matches!(self.stage, Stage::Serving) {
            return;
        }
        let (now, view) = (self.runtime.now(), self.state.view());
        for environment in &view.environments {
            if let Some(view) = &environment.view {
                self.planning.has_entries(&environment.name, view.ledger_entries);
            }
        }
        self.planning.read(&self.duties.of_jobs(), self.keeper.opened(), now);
        let (duties, kinds) = (&self.duties, &self.kinds);
        let may = |environment: &str, kind| {
            let standing = duties.standing(environment, duty_for(kind));
            kinds.contains(&kind) && matches!(standing, Standing::Ours { valid: true, .. })
        };
        let Some((due, next)) = self.planning.due(now, &view.instance, may) else { return };
        for due in due {
            match due {
                Due::Run(order) => match self.jobs.take(order.clone(), now) {
                    Ok(shown) => self.state.change(|view| view.jobs_running.push(shown)),
                    // The same was asked for and waits; this one's turn comes after it.
                    Err(_) => {
                        self.planning.given_up(&order);
                        self.planning.wake(now + TimeDelta::seconds(10));
                    }
                },
                Due::Record(environment, record) => {
                    let drill = record.job_kind == JobKind::Drill.word();
                    let duty = if drill { Duty::Drills } else { Duty::Jobs };
                    match self.duties.fence(&environment, duty).cloned() {
                        Some(fence) => self.recorder.write(fence, record, self.keeper.opened()),
                        None => self.planning.recorded(&environment, &record, false),
                    }
                }
            }
        }
        self.state.change(|view| view.next = next);
    }

    /// Has every environment measured against the objectives that are in force now: calendars begin and end whether or
    /// not a job is due.
    pub(super) fn measure(&self) {
        let (now, view) = (self.runtime.now(), self.state.view());
        let calendars = self.planning.planner().calendars();
        let in_force = |environment: &Environment| {
            let usual = environment.objectives;
            let found = calendars.objectives(&environment.name, usual.rpo, usual.rto, now);
            ObjectivesInForce {
                rpo_seconds: found.rpo.as_secs_f64(),
                rto_seconds: found.rto.as_secs_f64(),
                calendar: (!found.calendars.is_empty()).then(|| found.calendars.join(", ")),
            }
        };
        for environment in &self.estate.environments {
            let found = in_force(environment);
            if view.environment(&environment.name).is_none_or(|shown| shown.objectives == found) {
                continue;
            }
            self.state.change(|view| {
                if let Some(shown) = view.environment_mut(&environment.name) {
                    shown.objectives = found;
                }
            });
            self.crew.look_soon(&environment.name);
        }
    }

    pub(super) fn workers_said(&self, reports: impl Iterator<Item = Report>) {
        let now = self.runtime.now();
        let said: Vec<_> =
            reports.filter_map(|r| self.crew.whose(&r).map(|(name, kind)| (name, kind, r.said))).collect();
        let duties = &self.duties;
        self.state.change(|view| {
            for (environment, kind, said) in &said {
                crew::note(view, environment, *kind, said, now);
                // It stopped because the duty was lost, and says so after the duty's news.
                let lost = matches!(said, Said::Stopped).then(|| idle(duties.standing(environment, duty_of(*kind))));
                if let Some(idle) = lost.flatten() {
                    crew::note_idle(view, environment, *kind, idle, now);
                }
            }
        });
        for (environment, kind, said) in said {
            let event = match said {
                Said::Told(event) => event,
                Said::Failed(failure, pause) => {
                    Event::Warning(format!("failed, and is started again after {}: {failure}", Span(pause)))
                }
                Said::Running | Said::Stopped => continue,
            };
            self.tell(Some(&environment), Teller::Worker(kind), event);
        }
    }

    pub(super) fn jobs_told(&mut self, news: impl Iterator<Item = JobNews>) {
        let now = self.runtime.now();
        let mut told = Vec::new();
        for news in news {
            match news {
                JobNews::Told(run, event) => {
                    if let Some(subject) = self.jobs.told(&run) {
                        told.push((subject.clone(), run, event));
                    }
                }
                JobNews::Ended(run, exit) => {
                    self.show(std::mem::take(&mut told), now);
                    if let Some(ended) = self.jobs.ended(&run, exit, now) {
                        self.finish(ended);
                    }
                }
            }
        }
        self.show(told, now);
    }

    pub(super) fn show(&self, told: Vec<(Subject, String, Event)>, now: DateTime<Utc>) {
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
        for (subject, run, event) in told {
            self.tell_about(&subject, Teller::Job(run), event);
        }
    }

    pub(super) fn finish(&mut self, ended: Ended) {
        let Ended { fence, job, subject } = ended;
        let what = format!("{} of {}", job.kind, job.environment);
        let event = match job.outcome {
            JobOutcome::Done => Event::Note(format!("{what}: done")),
            JobOutcome::Partial => Event::Warning(format!("{what}: done in part: {}", job.message)),
            JobOutcome::Failed => Event::Warning(format!("{what}: failed: {}", job.message)),
            JobOutcome::Interrupted => Event::Warning(format!("{what}: interrupted: {}", job.message)),
        };
        self.tell_about(&subject, Teller::Job(job.run.clone()), event);
        let record = record(&job, &self.state.view().instance);
        self.recorder.write(fence, record, self.keeper.opened());
        self.crew.look_soon(&job.environment);
        self.state.metrics().job_ended(&job.environment, job.kind, job.outcome);
        self.state.change(|view| view.finished(job));
    }
}

/// What is shown of a worker whose duty is not ours.
fn idle(standing: &Standing) -> Option<WorkerState> {
    match standing {
        Standing::Seeking => Some(WorkerState::Elsewhere { instance: None }),
        Standing::Elsewhere(instance) => Some(WorkerState::Elsewhere { instance: Some(instance.clone()) }),
        Standing::Ours { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::repository::StateDir;
    use crate::runtime::Runtime;
    use crate::runtime::testing::Hand;
    use crate::schedule::testing::{estate, utc};
    use crate::service::{Claim, Setup};

    #[tokio::test]
    async fn a_season_tightens_objectives_while_it_lasts_whether_or_not_a_job_is_due() {
        let dir = tempfile::tempdir().expect("temp dir");
        let hand = Hand::at(utc("2026-11-22T12:00:00Z"));
        let estate = estate(
            "[[calendar]]\nname = \"peak\"\nenvironments = [\"production\"]\nobjectives = { rpo = \"10s\" }\n\
             [[calendar.window]]\nstarts = \"2026-11-23\"\nends = \"2026-11-24\"\n",
        );
        let (_, asked) = crate::service::Control::new();
        let supervisor = Supervisor::new(
            Setup {
                estate,
                instance: "here".into(),
                claim: Claim::take(&StateDir::new(dir.path())).expect("free"),
                kinds: Vec::new(),
                program: PathBuf::from("/proc/self/exe"),
                runtime: Runtime::silent().with_clock(hand.clone()),
            },
            asked,
        );
        let at = |time: &str| {
            hand.set(utc(time));
            supervisor.measure();
            let view = supervisor.state.view();
            let of = |name| view.environment(name).expect("shown").objectives.clone();
            assert_eq!(of("staging").rpo_seconds, 60.0, "it is not for staging");
            (of("production").rpo_seconds, of("production").calendar)
        };
        assert_eq!(at("2026-11-22T23:59:59Z"), (60.0, None));
        assert_eq!(at("2026-11-23T00:00:00Z"), (10.0, Some("peak".to_owned())));
        assert_eq!(at("2026-11-24T00:00:00Z"), (60.0, None));
    }
}
