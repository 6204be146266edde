//! PostgreSQL and its slot, workers that fail, jobs that failed or did not run.

use chrono::TimeDelta;

use super::{Bench, Finding, View, WAL_LAG_BYTES, clock};
use crate::config::AlertSeverity::{Critical, Warning};
use crate::config::JobKind;
use crate::service::alerts::Condition;
use crate::service::state::{JobOutcome, WorkerKind, WorkerState};
use crate::units::ByteSize;

/// What remains of `max_slot_wal_keep_size` when the slot counts as at risk.
const SLOT_MARGIN_BYTES: i64 = 4 << 30;

/// How long a worker may fail before somebody is told.
const WORKER_GRACE: TimeDelta = TimeDelta::minutes(2);

/// How often it may be started again before that.
const WORKER_STARTS: u64 = 3;

pub(super) fn server(bench: &Bench<'_>, view: &View, all: &mut Vec<Finding>) {
    let server = &view.postgres;
    if !server.reachable {
        let why = server.error.as_deref().unwrap_or("no reason was given");
        all.push(
            Finding::told(Condition::PostgresUnreachable, Warning, format!("PostgreSQL does not answer: {why}"))
                .meaning("what was received is safe; nothing new is, until it is back")
                .todo("if it is only being restarted: nothing; the receiver goes on by itself")
                .todo("if the database is lost: restore, by the page “Restore”, `lifeboat runbook` or runbooks/restore.md"),
        );
        return;
    }
    let Some(slot) = &server.slot else { return };
    let name = &server.slot_name;
    let found = match slot.wal_status.as_deref() {
        Some("lost") => Some((Critical, format!("PostgreSQL has given up the slot \"{name}\""))),
        Some("unreserved") => Some((Critical, format!("PostgreSQL is about to give up the slot \"{name}\""))),
        _ if !slot.active => Some((
            if slot.held_bytes > WAL_LAG_BYTES { Critical } else { Warning },
            format!("nobody receives from the slot \"{name}\", which holds {} of WAL", ByteSize(slot.held_bytes)),
        )),
        _ if slot.safe_bytes.is_some_and(|safe| safe < SLOT_MARGIN_BYTES && slot.held_bytes > WAL_LAG_BYTES) => Some((
            Warning,
            format!("the slot \"{name}\" holds {}, near max_slot_wal_keep_size", ByteSize(slot.held_bytes)),
        )),
        _ => None,
    };
    let environment = &bench.environment.name;
    all.extend(found.map(|(severity, said)| {
        let finding = Finding::told(Condition::SlotAtRisk, severity, said).about(name).meaning(
            "WAL that was not received yet may be removed by the server: a hole that only a base backup closes",
        );
        let finding = match slot.wal_status.as_deref() {
            Some("lost") => finding.todo(format!("lifeboat backup base -e {environment}    # closes the hole")),
            _ => finding,
        };
        finding
            .todo(format!("let the receiver run: `lifeboat serve`, or `lifeboat wal receive -e {environment}`"))
            .todo("watch the free space of pg_wal's disk: what the slot holds back fills it")
    }));
}

pub(super) fn workers(bench: &Bench<'_>, all: &mut Vec<Finding>) {
    for worker in &bench.environment.workers {
        let WorkerState::Waiting { .. } = worker.state else { continue };
        let Some(failure) = &worker.last_failure else { continue };
        let what = match worker.kind {
            WorkerKind::Wal => "receiver of WAL",
            WorkerKind::Filestore => "watcher of filestores",
        };
        let said = format!("the {what} fails: {}", failure.message);
        // It may work at its next start: then nobody need be woken.
        let finding = match bench.now - worker.since < WORKER_GRACE && worker.restarts < WORKER_STARTS {
            true => Finding::shown(Critical, said),
            false => Finding::told(Condition::WorkerFailing, Critical, said),
        };
        all.push(
            finding
                .about(what)
                .meaning("it is started again and again; until it works, what is new is not safe")
                .hints(&failure.hints),
        );
    }
}

/// Scheduled work: the newest run of each job, and what did not run.
pub(super) fn jobs(bench: &Bench<'_>, all: &mut Vec<Finding>) {
    let name = &bench.environment.name;
    let mut seen: Vec<(Option<&str>, JobKind)> = Vec::new();
    for job in bench.estate.recent_jobs.iter().filter(|job| job.environment == *name) {
        let what = (job.job.as_deref(), job.kind);
        if seen.contains(&what) {
            continue;
        }
        seen.push(what);
        let (severity, said) = match job.outcome {
            JobOutcome::Done => continue,
            JobOutcome::Partial => (Warning, "was done in part"),
            JobOutcome::Failed => (if job.kind == JobKind::Verify { Critical } else { Warning }, "failed"),
            // By a stop of the service: it is run again.
            JobOutcome::Interrupted => continue,
        };
        let condition = match job.kind {
            JobKind::Verify => Condition::VerificationFailed,
            _ => Condition::JobFailed,
        };
        let what = job.job.clone().unwrap_or_else(|| job.kind.to_string());
        all.push(
            Finding::told(condition, severity, format!("{what} {said}: {}", job.message))
                .about(what)
                .meaning(match job.kind {
                    JobKind::Verify => "the repository holds less than it promised; the message says what it costs",
                    _ => "what it should have done was not done; what was done before stays as it is",
                })
                .hints(&job.hints)
                .todo(format!("again: lifeboat {}", job.command.join(" "))),
        );
    }
    for due in bench.estate.next.iter().filter(|due| due.environment == *name) {
        let late = bench.now - due.scheduled_for;
        let excused = due.because.is_some() && due.expected_at.is_some();
        if late > TimeDelta::hours(1) && !excused {
            let why = due.because.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            let said = format!("{} was due at {} and has not begun{why}", due.job, clock(due.scheduled_for));
            all.push(
                Finding::told(Condition::JobOverdue, Warning, said)
                    .about(&due.job)
                    .todo(format!("lifeboat schedule preview -e {name}")),
            );
        }
    }
}
