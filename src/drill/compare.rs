//! Comparing the restored cluster with what the source said, at exactly the place in WAL where the source was asked.
//!
//! A drill that restores past that place stops there on its way: recovery is paused in hot standby, the
//! checks that compare are run, the server is stopped and recovered again to the real target. Whatever goes
//! wrong with that never becomes part of the copy: the directory is then made equal to the backup again.

use std::path::Path;
use std::sync::Arc;

use super::checks::{self, Circumstances, Reference, compares_exactly};
use super::run::Request;
use crate::checks::Answers;
use crate::config::Check;
use crate::error::{self, Result};
use crate::event::Event;
use crate::evidence::drill_record;
use crate::postgres::server::PrivateServer;
use crate::repository::base_manifest::BaseManifest;
use crate::repository::wal_archive::WalArchive;
use crate::restore::phases::Phases;
use crate::restore::tools::work_dir;
use crate::restore::{self, Plan, Resolved, Target, Tools};

/// Name of the phase in which recovery goes to the place where the source was asked.
const REPLAY: &str = "replaying WAL to the baseline";

/// Name of the phase that a restore in earnest does not have.
const COMPARE: &str = "comparing with the source";

/// The baseline of a drill, and what became of it.
#[derive(Debug)]
pub struct Baseline {
    answers: Option<Answers>,
    /// Where recovery must stop for it, where that is before the target.
    stop: Option<Resolved>,
    compared: bool,
    why_not: String,
    /// Seconds that only comparing took.
    pub seconds: f64,
}

impl Baseline {
    /// There is none.
    fn none(why_not: impl Into<String>) -> Self {
        Self { answers: None, stop: None, compared: false, why_not: why_not.into(), seconds: 0.0 }
    }

    /// Finds the baseline that belongs to a plan. That there is none is no error.
    pub async fn find(tools: &Tools, plan: &Plan, checks: &[&Check]) -> Self {
        if !checks.iter().any(|c| c.asks_the_source()) {
            return Self::none("no check compares");
        }
        Self::look(tools, plan).await.unwrap_or_else(|e| Self::none(e.message()))
    }

    async fn look(tools: &Tools, plan: &Plan) -> Result<Self> {
        let id = &plan.base.id;
        let Some(taken) = &plan.base.baseline else {
            return Ok(Self::none(format!("base backup {id} came with no baseline")));
        };
        let (Some(lsn), Some(answers)) = (taken.lsn, &taken.answers) else {
            let reason = taken.reason.as_deref().unwrap_or("unknown");
            return Ok(Self::none(format!("the baseline of base backup {id} could not be taken: {reason}")));
        };
        let target = &plan.target;
        let line = tools.catalogue.wal.as_ref().map(|wal| wal.line(target.timeline)).unwrap_or_default();
        let on_line =
            line.iter().any(|leg| leg.timeline == plan.base.timeline && leg.to.is_none_or(|left| lsn <= left));
        if !on_line {
            return Ok(Self::none(format!("the baseline at {lsn} lies on another line of history")));
        }
        let archive = WalArchive::new(&tools.repository, &plan.environment);
        let stop = restore::resolve(archive, &tools.catalogue, &Target::Lsn(lsn), Some(target.timeline)).await?;
        if stop.base != *id || stop.stop_end > target.stop_end {
            return Ok(Self::none(format!("the target lies before the baseline at {lsn}")));
        }
        let answers = Answers::read(&tools.repository, &plan.environment, answers).await?;
        let stop = (stop.stop_end < target.stop_end).then_some(stop);
        Ok(Self { answers: Some(answers), stop, compared: false, why_not: String::new(), seconds: 0.0 })
    }

    /// The answers, where the end of recovery is the state that they are about.
    pub fn at_the_target(&self) -> Option<&Answers> {
        self.answers.as_ref().filter(|_| self.stop.is_none())
    }

    /// What checks after the comparison are held against.
    pub fn reference(&self) -> Reference<'_> {
        match &self.answers {
            Some(answers) if self.compared => Reference::Before(answers),
            _ => Reference::Nowhere(&self.why_not),
        }
    }

    /// Compares at the end of recovery, where that is the state that the source was asked in. To be done before
    /// anything is changed in the copy.
    pub async fn compare_at_the_target(
        &mut self,
        tools: &Tools,
        request: &Request<'_>,
        server: &PrivateServer,
        phases: &mut Phases,
    ) -> Result<Vec<drill_record::Check>> {
        let Some(answers) = self.at_the_target() else { return Ok(Vec::new()) };
        let comparing = ask(tools, request, server, answers, &request.plan.target);
        let results = phases.time(COMPARE, None, comparing).await?;
        self.compared = true;
        Ok(results)
    }

    /// Why nothing was compared, if so.
    pub fn why_not(&self) -> Option<&str> {
        let undecided = self.answers.is_some() && self.why_not.is_empty();
        (!self.compared && !undecided).then_some(self.why_not.as_str())
    }

    /// Stops at the baseline, where it lies before the target, and compares there. The data directory is then
    /// ready for recovery to the target, whatever happened.
    pub async fn stop_and_compare(
        &mut self,
        tools: &Tools,
        request: &Request<'_>,
        manifest: Arc<BaseManifest>,
        phases: &mut Phases,
    ) -> Result<Vec<drill_record::Check>> {
        let (Some(stop), Some(answers)) = (&self.stop, &self.answers) else { return Ok(Vec::new()) };
        let before = phases.seconds();
        let comparing = compare(tools, request, stop, answers, phases).await;
        let seconds = phases.measured().iter().filter(|p| p.name == COMPARE).map(|p| p.seconds).sum();
        match comparing {
            Ok(results) => {
                self.compared = true;
                self.seconds = seconds;
                Ok(results)
            }
            Err(e) => {
                let what = format!("the restored data could not be compared with the source at {}: {e}", answers.lsn);
                tools.runtime.emit(Event::Warning(what.clone()));
                self.why_not = what;
                let again = tools.files(&request.plan, manifest, true);
                phases.time("starting again from the backup", None, again).await?;
                self.seconds = phases.seconds() - before;
                Ok(Vec::new())
            }
        }
    }
}

async fn compare(
    tools: &Tools,
    request: &Request<'_>,
    stop: &Resolved,
    answers: &Answers,
    phases: &mut Phases,
) -> Result<Vec<drill_record::Check>> {
    let work = work_dir(&tools.temporary)?;
    let folder: &Path = work.path();
    let server = phases.time(REPLAY, None, tools.pause(&request.plan, stop, folder)).await?;
    let work = async {
        let results = ask(tools, request, &server, answers, stop).await?;
        server.stop().await?;
        Ok(results)
    };
    let results = phases.time(COMPARE, None, work).await?;
    phases.note(format!("recovery was stopped at {} for it; a restore does not stop there", stop.stop_end));
    if request.plan.pgdata.join("recovery.signal").exists() {
        return Ok(results);
    }
    Err(error::internal("recovery ended where it was to be stopped for a while"))
}

/// Runs the checks that compare on a server in the state that the source was asked in.
async fn ask(
    tools: &Tools,
    request: &Request<'_>,
    server: &PrivateServer,
    answers: &Answers,
    state: &Resolved,
) -> Result<Vec<drill_record::Check>> {
    let circumstances = Circumstances {
        reference: Reference::Here(answers),
        rpo: request.environment.objectives.rpo,
        now: state.last_kept.map(|t| t.time),
        launch: tools.launch.as_ref(),
        filestore: None,
    };
    let comparing: Vec<&Check> = request.checks.iter().filter(|c| compares_exactly(c)).copied().collect();
    checks::run(server, &comparing, &circumstances).await
}
