//! Made-up ledger entries of the service, for tests.

use super::Body;
use super::examples::at;
use super::fence::LeaseTaken;
use super::job_record::{JobOutcome, JobRecord};

/// A job that was done, one that a calendar put off, one that failed, missed ones, a new one, and a takeover.
pub(crate) fn service() -> Vec<Body> {
    let done = JobRecord {
        job: "nightly-base".into(),
        job_kind: "base".into(),
        scheduled_for: at(-3600.0),
        occurrences: 1,
        started_at: Some(at(-3420.0)),
        finished_at: at(-3325.0),
        outcome: JobOutcome::Done,
        exit_code: Some(0),
        message: None,
        calendar: None,
        until: None,
        instance: "db-1".into(),
        attempt: 1,
        requested_by: None,
    };
    let drill = JobRecord {
        job: "weekly-drill".into(),
        job_kind: "drill".into(),
        scheduled_for: at(3600.0),
        occurrences: 1,
        started_at: None,
        finished_at: at(3600.0),
        outcome: JobOutcome::Deferred,
        exit_code: None,
        message: Some("drills are forbidden".into()),
        calendar: Some("black-friday".into()),
        until: Some(at(86_400.0)),
        instance: "drill-1".into(),
        attempt: 0,
        requested_by: None,
    };
    let failed = JobRecord {
        started_at: Some(at(86_400.0)),
        finished_at: at(86_460.0),
        outcome: JobOutcome::Failed,
        exit_code: Some(8),
        message: Some("exit code 8".into()),
        calendar: None,
        until: None,
        attempt: 2,
        ..drill.clone()
    };
    let missed = JobRecord {
        scheduled_for: at(-86_400.0),
        occurrences: 30,
        started_at: None,
        finished_at: at(0.0),
        outcome: JobOutcome::Missed,
        exit_code: None,
        message: Some("no service ran".into()),
        attempt: 0,
        ..done.clone()
    };
    let planned = JobRecord { outcome: JobOutcome::Scheduled, occurrences: 1, message: None, ..missed.clone() };
    let taken = LeaseTaken {
        duty: "jobs".into(),
        generation: 3,
        owner: "db-2".into(),
        previous_owner: Some("db-1".into()),
        previous_generation: Some(2),
        expired_at: Some(at(60.0)),
    };
    vec![
        Body::Job(done),
        Body::Job(drill),
        Body::Job(failed),
        Body::Job(missed),
        Body::Job(planned),
        Body::Lease(taken),
    ]
}
