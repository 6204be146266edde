use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::config::AlertSeverity::{Critical, Warning};
use crate::config::{JobKind, Purpose};
use crate::configuration::drift::CriticalDrift;
use crate::evidence::entry::Body;
use crate::evidence::examples;
use crate::postgres::slot_state::SlotState;
use crate::repository::coverage::Gap;
use crate::service::advice::{Advice, Judge, Severity, worst};
use crate::service::alerts::{Expiring, OtherClock, conditions};
use crate::service::state::tests::empty;
use crate::service::state::{
    ConfigProblem, FinishedJob, JobOutcome, Trouble, Upcoming, WorkerKind, WorkerState, WorkerView,
};
use crate::service::testing::{environment, nothing, window};
use crate::service::view::{Base, Drill};
use crate::units::{Lsn, Timeline};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
}

fn base(size: u64) -> Base {
    let body = examples::backups().into_iter().find_map(|body| match body {
        Body::BaseBackup(base) => Some(base),
        _ => None,
    });
    let mut backup = body.expect("an example of a base backup");
    backup.logical_bytes = size;
    backup.stop_time = at(-3600);
    Base { backup, restorable: true, why_not: None }
}

/// An environment that is well: looked at just now, 2 s of loss, a fresh base backup, a passed drill.
fn well() -> View {
    let mut view = nothing("production", at(0));
    view.windows = vec![window(at(-86_400), at(-2))];
    view.exposure.seconds = Some(2.0);
    view.exposure.bytes = Some(0);
    view.bases = vec![base(4 << 30), base(4 << 30)];
    view.last_drill = Some(Drill { sequence: 7, recorded_at: at(-86_400), summary: "passed".into(), bad: false });
    view.postgres.reachable = true;
    view.postgres.slot = Some(SlotState {
        active: true,
        wal_status: Some("reserved".into()),
        restart_lsn: None,
        held_bytes: 0,
        safe_bytes: None,
    });
    view
}

fn estate(view: View) -> EstateView {
    let mut estate = empty();
    let mut environment = environment("production");
    environment.view = Some(Arc::new(view));
    estate.repository.reachable = Some(true);
    estate.environments.push(environment);
    estate
}

/// What page and API say of the environment.
fn advice(estate: &EstateView) -> Vec<Advice> {
    Judge { estate, config: &AlertsConfig::default(), now: at(0) }.advice(&estate.environments[0])
}

/// What somebody is told. The page says all of it that concerns the environment, as badly, and is never calmer.
fn found(estate: &EstateView, facts: &Facts) -> Vec<(Condition, AlertSeverity)> {
    let alerts = conditions(estate, facts, &AlertsConfig::default(), at(0));
    let mut shown = estate.clone();
    shown.facts = Arc::new(facts.clone());
    let advice = advice(&shown);
    for alert in &alerts {
        assert!(!alert.summary.is_empty() && !alert.summary.ends_with('.'), "{alert:?}");
        if alert.key.environment.is_some() {
            let on_page = advice.iter().find(|advice| advice.what == alert.summary);
            assert_eq!(on_page.map(|a| a.severity), Some(Severity::from(alert.severity)), "{alert:?} {advice:#?}");
        }
    }
    assert!(advice.is_sorted_by_key(|a| std::cmp::Reverse(a.severity)));
    alerts.iter().map(|alert| (alert.key.condition, alert.severity)).collect()
}

/// What is found when one thing is changed in an environment that is well.
fn with(change: impl FnOnce(&mut View)) -> Vec<(Condition, AlertSeverity)> {
    let mut view = well();
    change(&mut view);
    found(&estate(view), &Facts::default())
}

#[test]
fn nothing_is_wrong_with_what_is_well() {
    assert_eq!(with(|_| {}), []);
}

#[test]
fn loss_is_measured_against_the_objective_in_force() {
    assert_eq!(with(|v| v.exposure.seconds = Some(47.0)), []);
    assert_eq!(with(|v| v.exposure.seconds = Some(49.0)), [(Condition::RpoInDanger, Warning)]);
    assert_eq!(with(|v| v.exposure.seconds = Some(61.0)), [(Condition::RpoMissed, Critical)]);
    let mut tightened = estate(well());
    tightened.environments[0].objectives.rpo_seconds = 1.0;
    assert_eq!(found(&tightened, &Facts::default()), [(Condition::RpoMissed, Critical)]);
}

#[test]
fn what_nobody_could_look_at_gets_worse_by_itself() {
    let mut view = well();
    view.now = at(-120);
    let mut estate = estate(view);
    assert_eq!(found(&estate, &Facts::default()), [], "two minutes between two looks are not a loss");
    estate.environments[0].trouble = Some(Trouble { at: at(0), message: "no".into(), hints: Vec::new() });
    assert_eq!(found(&estate, &Facts::default()), [(Condition::RpoMissed, Critical)]);
}

#[test]
fn what_cannot_be_restored_is_critical() {
    assert_eq!(with(|v| v.windows.clear()), [(Condition::NothingRestorable, Critical)]);
    assert_eq!(with(|v| v.unreadable = Some("damaged".into())), [(Condition::LedgerDamaged, Critical)]);
    assert_eq!(with(|v| v.ledger_problems.push("entry 3".into())), [(Condition::LedgerDamaged, Critical)]);
    assert_eq!(with(|v| v.bases[1].restorable = false), [(Condition::VerificationFailed, Critical)]);
}

/// What the page says of an environment in which one thing was changed.
fn page(change: impl FnOnce(&mut View)) -> Vec<(Severity, String)> {
    let mut view = well();
    change(&mut view);
    let estate = estate(view);
    let advice = advice(&estate);
    advice.into_iter().map(|advice| (advice.severity, advice.what)).collect()
}

#[test]
fn the_page_shows_what_nobody_is_told_of() {
    assert_eq!(page(|_| {}), []);
    let older = |v: &mut View| (v.bases[0].restorable, v.bases[0].why_not) = (false, Some("WAL is missing".into()));
    assert_eq!(with(older), [], "a newer one can be restored");
    let said = format!("base backup {} cannot be restored: WAL is missing", well().bases[0].backup.id);
    assert_eq!(page(older), [(Severity::Look, said)]);
    let trouble = |v: &mut View| v.troubles.push("the newest commit is not known".into());
    assert_eq!(with(trouble), []);
    assert_eq!(page(trouble), [(Severity::Look, "the newest commit is not known".to_owned())]);
}

#[test]
fn what_nobody_has_looked_at_is_neither_good_nor_wrong() {
    let mut estate = estate(well());
    estate.environments[0].view = None;
    let advice = advice(&estate);
    assert_eq!(worst(&advice), Severity::Unknown);
    assert_eq!(found(&estate, &Facts::default()), []);
}

#[test]
fn a_repository_that_is_away_says_nothing_about_its_ledger() {
    for reachable in [None, Some(false)] {
        let mut view = well();
        view.unreadable = Some("it was not opened yet".into());
        let mut estate = estate(view);
        estate.repository.reachable = reachable;
        let found = found(&estate, &Facts::default());
        assert!(found.iter().all(|(condition, _)| *condition == Condition::RepositoryUnreachable), "{found:?}");
        let advice = advice(&estate);
        assert_eq!(worst(&advice), Severity::Bad);
    }
}

#[test]
fn a_hole_matters_from_the_oldest_base_backup_on() {
    let gap = |to: u64| Gap {
        timeline: Timeline(1),
        from: Lsn(0x100),
        to: Lsn(to),
        first: "000000010000000000000001".into(),
        last: "000000010000000000000002".into(),
        segments: 2,
        retired: false,
    };
    let start = well().bases[0].backup.start_lsn.0;
    assert_eq!(with(|v| v.gaps.push(gap(start + 1))), [(Condition::WalGap, Critical)]);
    assert_eq!(with(|v| v.gaps.push(gap(start))), [], "nothing before it can be restored anyway");
}

#[test]
fn critical_drift_is_told() {
    let mut estate = estate(well());
    let said = "list_db in odoo/odoo.conf changed between configuration exports a and b".to_owned();
    estate.environments[0].critical_drift.push(CriticalDrift { export: "b".into(), taken_at: at(-60), said });
    assert_eq!(found(&estate, &Facts::default()), [(Condition::ConfigurationDrift, Critical)]);
    let alerts = conditions(&estate, &Facts::default(), &AlertsConfig::default(), at(0));
    assert_eq!(alerts[0].key.subject, "b", "each export's drift is an alert of its own");
    assert_eq!(alerts[0].owner.as_deref(), Some("erp"));
}

#[test]
fn old_and_odd_backups_are_told() {
    assert_eq!(with(|v| v.bases[1].backup.stop_time = at(-3 * 86_400)), [(Condition::BackupOverdue, Warning)]);
    assert_eq!(with(|v| v.bases[1].backup.logical_bytes = 1 << 30), [(Condition::SizeChange, Warning)]);
    assert_eq!(with(|v| v.bases[1].backup.logical_bytes = 9 << 30), [(Condition::SizeChange, Warning)]);
    assert_eq!(with(|v| v.bases[1].backup.logical_bytes = 5 << 30), [], "it grows");
    assert_eq!(with(|v| v.bases.truncate(1)), [], "nothing to compare with");
}

#[test]
fn slots_at_risk_are_told_before_they_are_lost() {
    let slot = |change: fn(&mut SlotState)| with(|v| change(v.postgres.slot.as_mut().expect("a slot")));
    assert_eq!(slot(|s| s.active = false), [(Condition::SlotAtRisk, Warning)]);
    assert_eq!(
        slot(|s| (s.active, s.held_bytes) = (false, 5 << 30)),
        [(Condition::SlotAtRisk, Critical)],
        "the disk fills"
    );
    assert_eq!(slot(|s| s.wal_status = Some("unreserved".into())), [(Condition::SlotAtRisk, Critical)]);
    assert_eq!(slot(|s| s.wal_status = Some("lost".into())), [(Condition::SlotAtRisk, Critical)]);
    assert_eq!(slot(|s| (s.held_bytes, s.safe_bytes) = (2 << 30, Some(1 << 30))), [(Condition::SlotAtRisk, Warning)]);
    assert_eq!(with(|v| v.postgres.reachable = false), [(Condition::PostgresUnreachable, Warning)]);
    assert_eq!(with(|v| v.exposure.bytes = Some(3 << 30)), [(Condition::WalLag, Warning)]);
}

#[test]
fn drills_that_failed_or_are_old_are_told() {
    let drill = |bad, age: i64| {
        with(|v| v.last_drill = Some(Drill { sequence: 1, recorded_at: at(-age), summary: "x".into(), bad }))
    };
    assert_eq!(drill(true, 60), [(Condition::DrillFailed, Critical)]);
    assert_eq!(drill(false, 9 * 86_400), [(Condition::DrillOverdue, Warning)]);
    assert_eq!(with(|v| v.last_drill = None), [(Condition::DrillOverdue, Warning)]);
}

#[test]
fn workers_that_fail_again_and_again_are_told() {
    let worker = |since: i64, restarts| {
        let mut estate = estate(well());
        estate.environments[0].workers.push(WorkerView {
            kind: WorkerKind::Wal,
            state: WorkerState::Waiting { until: at(5) },
            since: at(since),
            restarts,
            last_failure: Some(Trouble { at: at(since), message: "refused".into(), hints: vec!["allow it".into()] }),
            last_warning: None,
            durable: None,
        });
        found(&estate, &Facts::default())
    };
    assert_eq!(worker(-10, 1), [], "once is no alarm, but the page shows it");
    assert_eq!(worker(-10, 3), [(Condition::WorkerFailing, Critical)]);
    assert_eq!(worker(-600, 1), [(Condition::WorkerFailing, Critical)]);
}

fn finished(kind: JobKind, outcome: JobOutcome) -> Arc<FinishedJob> {
    Arc::new(FinishedJob {
        run: "r".into(),
        job: Some(kind.to_string()),
        kind,
        environment: "production".into(),
        command: vec!["backup".into(), "base".into()],
        scheduled_for: None,
        requested_by: None,
        started_at: at(-60),
        finished_at: at(-30),
        outcome,
        exit_code: Some(4),
        attempt: 1,
        message: "no".into(),
        hints: Vec::new(),
        result: Value::Null,
        log: Vec::new(),
    })
}

#[test]
fn only_the_newest_run_of_a_job_counts() {
    let jobs = |jobs: Vec<Arc<FinishedJob>>| {
        let mut estate = estate(well());
        estate.recent_jobs = jobs.into();
        found(&estate, &Facts::default())
    };
    let (failed, done) = (finished(JobKind::Base, JobOutcome::Failed), finished(JobKind::Base, JobOutcome::Done));
    assert_eq!(jobs(vec![failed.clone()]), [(Condition::JobFailed, Warning)]);
    assert_eq!(jobs(vec![done.clone(), failed.clone()]), [], "it was done since");
    assert_eq!(jobs(vec![failed, done]), [(Condition::JobFailed, Warning)]);
    assert_eq!(jobs(vec![finished(JobKind::Verify, JobOutcome::Failed)]), [(Condition::VerificationFailed, Critical)]);
    assert_eq!(jobs(vec![finished(JobKind::Base, JobOutcome::Interrupted)]), []);
}

#[test]
fn what_is_overdue_is_told_but_not_what_a_calendar_defers() {
    let due = |since: i64, because: Option<&str>| {
        let mut estate = estate(well());
        estate.next.push(Upcoming {
            job: "nightly".into(),
            kind: JobKind::Base,
            environment: "production".into(),
            scheduled_for: at(since),
            expected_at: because.map(|_| at(86_400)),
            because: because.map(str::to_owned),
        });
        found(&estate, &Facts::default())
    };
    assert_eq!(due(-600, None), []);
    assert_eq!(due(-7200, None), [(Condition::JobOverdue, Warning)]);
    assert_eq!(due(-7200, Some("calendar black-friday")), []);
}

#[test]
fn the_service_tells_of_itself() {
    let mut estate = estate(well());
    estate.config_problem = Some(ConfigProblem { at: at(0), message: "line 3".into(), hints: Vec::new() });
    estate.repository.reachable = Some(false);
    estate.repository.since = at(-60);
    let facts = Facts {
        room: Some((5, 100)),
        clocks: vec![
            OtherClock { environment: None, whose: "the store".into(), ahead: TimeDelta::seconds(-400) },
            OtherClock { environment: Some("production".into()), whose: "x".into(), ahead: TimeDelta::seconds(3) },
        ],
        expiring: vec![
            Expiring { environment: None, what: "a".into(), certificate: true, at: at(20 * 86_400) },
            Expiring { environment: Some("production".into()), what: "b".into(), certificate: false, at: at(-1) },
            Expiring { environment: None, what: "c".into(), certificate: true, at: at(22 * 86_400) },
        ],
        unreadable: Vec::new(),
    };
    assert_eq!(
        found(&estate, &facts),
        [
            (Condition::ConfigurationRefused, Warning),
            (Condition::RepositoryUnreachable, Warning),
            (Condition::RepositoryNearlyFull, Warning),
            (Condition::ClockOff, Critical),
            (Condition::CertificateExpiring, Warning),
            (Condition::KeyExpiring, Critical),
        ]
    );
}

#[test]
fn alerts_name_environment_owner_and_purpose() {
    let mut view = well();
    view.windows.clear();
    let alerts = conditions(&estate(view), &Facts::default(), &AlertsConfig::default(), at(0));
    assert_eq!(alerts[0].key.environment.as_deref(), Some("production"));
    assert_eq!(alerts[0].owner.as_deref(), Some("erp"));
    assert_eq!(alerts[0].purpose, Some(Purpose::Production));
    assert!(
        alerts[0].todo[0].contains("lifeboat backup base -e production"),
        "there are some, of which none can be used"
    );
}
