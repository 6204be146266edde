//! What a job is asked to do: the command that an operator would type, and how long it may take.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::config::JobKind;
use crate::error::{self, Result};
use crate::event::Subject;

/// A job that is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Id of the run; unique.
    pub run: String,
    /// Name of the job in the schedule; `None` where somebody asked for it.
    pub job: Option<String>,
    /// What it does.
    pub kind: JobKind,
    /// For which environment.
    pub environment: String,
    /// Arguments beside the environment: `--deep`.
    pub arguments: Vec<String>,
    /// When it was due.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Who asked for it; `None` where it was due.
    pub requested_by: Option<String>,
    /// Which attempt at its occurrence it is, from 1.
    pub attempt: u32,
    /// It is ended after this long.
    pub time_limit: Duration,
}

impl Order {
    /// An order by somebody, `who`, with the time limit of its kind.
    ///
    /// # Errors
    /// Internal, where the operating system gives no random numbers for the id.
    pub fn requested(kind: JobKind, environment: &str, arguments: Vec<String>, who: &str) -> Result<Self> {
        Ok(Self {
            run: new_run()?,
            job: None,
            kind,
            environment: environment.to_owned(),
            arguments,
            scheduled_for: None,
            requested_by: Some(who.to_owned()),
            attempt: 1,
            time_limit: time_limit(kind),
        })
    }

    /// The arguments after `lifeboat`.
    pub fn command(&self) -> Vec<String> {
        let environment = ["-e", &self.environment];
        self.kind
            .words()
            .iter()
            .chain(&environment)
            .map(|w| (*w).to_owned())
            .chain(self.arguments.iter().cloned())
            .collect()
    }

    /// Its name, as ledgers have it: that of the job in the schedule, else the kind.
    pub fn job_name(&self) -> &str {
        self.job.as_deref().unwrap_or(self.kind.word())
    }

    /// Whom what it tells concerns; `trace_id` where its trace is collected.
    pub(super) fn subject(&self, trace_id: Option<String>) -> Subject {
        Subject {
            job: Some(self.job_name().to_owned()),
            run: Some(self.run.clone()),
            trace_id,
            ..Subject::environment(&self.environment)
        }
    }

    /// Whether it reads or writes much: of these, an environment has one at a time.
    pub fn is_heavy(&self) -> bool {
        match self.kind {
            JobKind::Base | JobKind::Filestore | JobKind::Verify | JobKind::Prune => true,
            // Drills have places of their own.
            JobKind::Drill | JobKind::Configuration | JobKind::Report | JobKind::Policy => false,
        }
    }
}

/// How long a job of a kind may take, where nothing else is said.
pub fn time_limit(kind: JobKind) -> Duration {
    const HOUR: u64 = 3600;
    Duration::from_secs(match kind {
        JobKind::Base | JobKind::Verify | JobKind::Drill => 24 * HOUR,
        JobKind::Filestore => 12 * HOUR,
        JobKind::Prune => 6 * HOUR,
        JobKind::Configuration | JobKind::Report | JobKind::Policy => HOUR,
    })
}

/// A new id for a run: 16 hexadecimal digits.
///
/// # Errors
/// Internal, where the operating system gives no random numbers.
pub fn new_run() -> Result<String> {
    let mut id = [0; 8];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| error::internal("the operating system gives no random numbers"))?;
    Ok(hex::encode(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_command_that_can_be_typed() {
        let order = Order::requested(JobKind::Verify, "production", vec!["--deep".into()], "anna").expect("order");
        assert_eq!(order.command(), ["verify", "-e", "production", "--deep"]);
        assert_eq!(order.run.len(), 16);
    }
}
