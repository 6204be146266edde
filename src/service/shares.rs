//! What is whose: the duties of an environment that an instance is to have, the lease that a job needs, the entry that
//! tells what became of it. Pure.

use std::time::Duration;

use super::duties::{Duties, Post, Standing};
use super::order::Order;
use super::state::{FinishedJob, WorkerKind};
use crate::config::{Environment, JobKind};
use crate::evidence::Fence;
use crate::evidence::job_record::JobRecord;
use crate::repository::duty::Duty;
use crate::storage::lease::Terms;

/// The duties of an environment that this instance is to have.
pub(super) fn posts(environment: &Environment, instance: &str) -> impl Iterator<Item = Post> {
    let service = &environment.service;
    let (serves, drills) = (service.serves(instance), service.drills(instance));
    let watched = service.watch_filestore && !environment.odoo.is_empty();
    let wanted = [
        (Duty::Wal, serves && service.receive_wal),
        (Duty::Filestore, serves && watched),
        (Duty::Jobs, serves),
        (Duty::Drills, drills),
    ];
    let name = environment.name.clone();
    wanted.into_iter().filter(|(_, wanted)| *wanted).map(move |(duty, _)| (name.clone(), duty))
}

pub(super) fn duty_of(kind: WorkerKind) -> Duty {
    match kind {
        WorkerKind::Wal => Duty::Wal,
        WorkerKind::Filestore => Duty::Filestore,
    }
}

pub(super) fn worker_of(duty: Duty) -> Option<WorkerKind> {
    match duty {
        Duty::Wal => Some(WorkerKind::Wal),
        Duty::Filestore => Some(WorkerKind::Filestore),
        Duty::Jobs | Duty::Drills => None,
    }
}

pub(super) fn duty_for(kind: JobKind) -> Duty {
    match kind {
        JobKind::Drill => Duty::Drills,
        _ => Duty::Jobs,
    }
}

/// The lease that a job may begin under now.
pub(super) fn lease_of(duties: &Duties, order: &Order) -> Option<Fence> {
    match duties.standing(&order.environment, duty_for(order.kind)) {
        Standing::Ours { fence, valid: true } => Some(fence.clone()),
        _ => None,
    }
}

pub(super) fn terms(lasts: Duration) -> Terms {
    Terms { lasts, renew_after: lasts / 3, margin: lasts / 4 }
}

/// The entry of a job that ended.
pub(super) fn record(job: &FinishedJob, instance: &str) -> JobRecord {
    JobRecord {
        job: job.job.clone().unwrap_or_else(|| job.kind.word().to_owned()),
        job_kind: job.kind.word().to_owned(),
        scheduled_for: job.scheduled_for.unwrap_or(job.started_at),
        occurrences: 1,
        started_at: Some(job.started_at),
        finished_at: job.finished_at,
        outcome: job.outcome.into(),
        exit_code: job.exit_code,
        message: (!job.message.is_empty()).then(|| job.message.clone()),
        calendar: None,
        until: None,
        instance: instance.to_owned(),
        attempt: job.attempt,
        requested_by: job.requested_by.clone(),
    }
}
