//! Made-up ledger entries of the service, for tests.

use super::Body;
use super::examples::at;
use super::fence::LeaseTaken;
use super::job_record::{JobOutcome, JobRecord};

/// A job that was done, one that a calendar put off, one that failed, and a takeover.
pub(crate) fn service() -> Vec<Body> {
    let done = JobRecord {
        job: "nightly-base".into(),
        job_kind: "base_backup".into(),
        scheduled_for: at(-3600.0),
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
    let taken = LeaseTaken {
        duty: "jobs".into(),
        generation: 3,
        owner: "db-2".into(),
        previous_owner: Some("db-1".into()),
        previous_generation: Some(2),
        expired_at: Some(at(60.0)),
    };
    vec![Body::Job(done), Body::Job(drill), Body::Job(failed), Body::Lease(taken)]
}
