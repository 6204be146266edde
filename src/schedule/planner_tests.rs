//! Tests only: the planner, one rule at a time.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::decision::{Decision, What, Why};
use super::history::History;
use super::planner::{Planner, Situation};
use super::preview::{Will, preview};
use super::testing::{Service, estate, odoo, utc};
use crate::config::JobKind;
use crate::evidence::job_record::{JobOutcome, JobRecord};

const DAILY: &str =
    "[[job]]\nname = \"export\"\nkind = \"configuration\"\nenvironments = [\"production\"]\ncron = \"0 3 * * *\"\n";

fn planner(text: &str) -> Planner {
    Planner::new(&estate(text))
}

fn told(text: &str, run: impl FnOnce(&mut Service<'_>)) -> Vec<String> {
    let planner = planner(text);
    let mut service = Service::new(&planner, utc("2027-02-01T12:00:00Z"));
    run(&mut service);
    service.told()
}

#[test]
fn a_job_runs_when_it_is_due_and_not_for_the_past() {
    let told = told(DAILY, |service| service.run_until(utc("2027-02-03T12:00:00Z")));
    assert_eq!(
        told,
        ["02-02 03:00 export/production of 02-02 03:00: run", "02-03 03:00 export/production of 02-03 03:00: run",]
    );
}

#[test]
fn thirty_missed_runs_are_one_run_and_one_record() {
    let month = |service: &mut Service<'_>| {
        service.run_until(utc("2027-02-02T12:00:00Z"));
        service.outage_until(utc("2027-03-04T12:00:00Z"));
        service.run_until(utc("2027-03-05T12:00:00Z"));
    };
    assert_eq!(
        told(DAILY, month),
        [
            "02-02 03:00 export/production of 02-02 03:00: run",
            "03-04 12:00 export/production of 03-03 03:00: missed 29",
            "03-04 12:00 export/production of 03-04 03:00: run",
            "03-05 03:00 export/production of 03-05 03:00: run",
        ]
    );
    assert_eq!(
        told(&format!("{DAILY}catch_up = \"none\"\n"), month)[1..],
        [
            "03-04 12:00 export/production of 03-03 03:00: missed 29".to_owned(),
            "03-04 12:00 export/production of 03-04 03:00: missed".to_owned(),
            "03-05 03:00 export/production of 03-05 03:00: run".to_owned(),
        ]
    );
    assert_eq!(
        told(&format!("{DAILY}deadline = \"6h\"\n"), month)[2],
        "03-04 12:00 export/production of 03-04 03:00: missed"
    );
}

#[test]
fn a_kill_in_the_middle_of_a_run_leaves_no_record_so_it_is_run_again() {
    let told = told(DAILY, |service| {
        service.run_until(utc("2027-02-02T03:05:00Z"));
        service.outage_until(utc("2027-02-02T03:06:00Z"));
        service.run_until(utc("2027-02-02T12:00:00Z"));
    });
    assert_eq!(
        told,
        ["02-02 03:00 export/production of 02-02 03:00: run", "02-02 03:06 export/production of 02-02 03:00: run",]
    );
}

#[test]
fn failures_are_tried_again_with_growing_pauses_until_it_is_enough() {
    let text = format!("{DAILY}retries = 4\nretry_after = \"1h\"\n");
    let told = told(&text, |service| {
        service.ends = |_, _| JobOutcome::Failed;
        service.run_until(utc("2027-02-03T04:00:00Z"));
    });
    // 10 minutes each, then 1, 2, 4 and 6 hours (8 would be too long).
    assert_eq!(
        told,
        [
            "02-02 03:00 export/production of 02-02 03:00: run",
            "02-02 04:10 export/production of 02-02 03:00: run 2",
            "02-02 06:20 export/production of 02-02 03:00: run 3",
            "02-02 10:30 export/production of 02-02 03:00: run 4",
            "02-02 16:40 export/production of 02-02 03:00: run 5",
            "02-03 03:00 export/production of 02-03 03:00: run",
        ]
    );
}

#[test]
fn a_success_ends_the_tries_and_one_on_request_counts_too() {
    let succeeds_at_second = told(DAILY, |service| {
        service.ends = |_, attempt| if attempt < 2 { JobOutcome::Failed } else { JobOutcome::Partial };
        service.run_until(utc("2027-02-02T12:00:00Z"));
    });
    assert_eq!(succeeds_at_second.len(), 2, "{succeeds_at_second:?}");
    let planner = planner(&format!("{DAILY}retry_after = \"6h\"\n"));
    let mut service = Service::new(&planner, utc("2027-02-01T12:00:00Z"));
    service.ends = |_, _| JobOutcome::Failed;
    service.run_until(utc("2027-02-02T05:00:00Z"));
    let asked = JobRecord {
        job: "export".into(),
        job_kind: "configuration".into(),
        scheduled_for: utc("2027-02-02T04:30:00Z"),
        occurrences: 1,
        started_at: Some(utc("2027-02-02T04:30:00Z")),
        finished_at: utc("2027-02-02T04:50:00Z"),
        outcome: JobOutcome::Done,
        exit_code: Some(0),
        message: None,
        calendar: None,
        until: None,
        instance: "db-1".into(),
        attempt: 1,
        requested_by: Some("anna".into()),
    };
    service.histories.get_mut("production").expect("known").note_job(&asked);
    service.run_until(utc("2027-02-03T02:00:00Z"));
    assert_eq!(service.told().len(), 1, "{:?}", service.told());
}

#[test]
fn one_job_never_runs_twice_at_once() {
    let told = told(&DAILY.replace("0 3 * * *", "0 * * * *"), |service| {
        service.takes = |_| TimeDelta::minutes(150);
        service.run_until(utc("2027-02-01T18:00:00Z"));
    });
    assert_eq!(
        told,
        [
            "02-01 13:00 export/production of 02-01 13:00: run",
            "02-01 15:30 export/production of 02-01 14:00: missed",
            "02-01 15:30 export/production of 02-01 15:00: run",
            "02-01 18:00 export/production of 02-01 17:00: missed 2",
            "02-01 18:00 export/production of 02-01 18:00: run",
        ]
    );
}

const DRILL: &str = r#"
    [[job]]
    name = "base"
    kind = "base"
    environments = ["production"]
    cron = "0 1 * * *"
    [[job]]
    name = "drill"
    kind = "drill"
    environments = ["production"]
    cron = "0 3 * * SUN"
    after = "base"
    [[calendar]]
    name = "peak"
    effects = ["forbid-drills"]
    [[calendar.window]]
    starts = "2027-02-13"
    ends = "2027-02-24"
"#;

/// What became of the drill; a base backup was there before.
fn drills(text: &str, run: impl FnOnce(&mut Service<'_>)) -> Vec<String> {
    let planner = planner(text);
    let mut service = Service::new(&planner, utc("2027-02-06T12:00:00Z"));
    run(&mut service);
    service.told().into_iter().filter(|line| line.contains("drill/")).collect()
}

#[test]
fn a_calendar_puts_drills_off_and_is_named() {
    let whole = |service: &mut Service<'_>| service.run_until(utc("2027-03-01T00:00:00Z"));
    assert_eq!(
        drills(DRILL, whole),
        [
            "02-07 03:00 drill/production of 02-07 03:00: run",
            "02-14 03:00 drill/production of 02-14 03:00: deferred by peak",
            "02-21 03:00 drill/production of 02-14 03:00: missed for peak",
            "02-21 03:00 drill/production of 02-21 03:00: deferred by peak",
            "02-24 00:00 drill/production of 02-21 03:00: run",
            "02-28 03:00 drill/production of 02-28 03:00: run",
        ]
    );
    let after = |how: &str| {
        DRILL.replace(
            "after = \"base\"",
            &format!("after = \"base\"\nmax_deferral = \"9d\"\nwhen_deferred_too_long = \"{how}\""),
        )
    };
    assert_eq!(
        drills(&after("miss").replace("9d", "2d"), whole)[2..5],
        [
            "02-16 03:00 drill/production of 02-14 03:00: missed for peak".to_owned(),
            "02-21 03:00 drill/production of 02-21 03:00: deferred by peak".to_owned(),
            "02-23 03:00 drill/production of 02-21 03:00: missed for peak".to_owned(),
        ]
    );
    // Put off since the 14th: on the 23rd it is enough.
    assert_eq!(drills(&after("run"), whole)[4], "02-23 03:00 drill/production of 02-21 03:00: run");
}

#[test]
fn a_deadline_does_not_run_while_a_calendar_puts_it_off() {
    let text = DRILL.replace("after = \"base\"", "after = \"base\"\ndeadline = \"2h\"");
    let told = drills(&text, |service| service.run_until(utc("2027-02-28T00:00:00Z")));
    assert_eq!(told.last().expect("some"), "02-24 00:00 drill/production of 02-21 03:00: run");
    // No service in the two hours after the calendar allows it.
    let told = drills(&text, |service| {
        service.run_until(utc("2027-02-23T00:00:00Z"));
        service.outage_until(utc("2027-02-24T02:00:01Z"));
        service.run_until(utc("2027-02-28T00:00:00Z"));
    });
    assert_eq!(told.last().expect("some"), "02-24 02:00 drill/production of 02-21 03:00: missed");
}

#[test]
fn a_drill_waits_for_the_base_backup_before_it() {
    let slow = |service: &mut Service<'_>| {
        service.takes = |job| TimeDelta::minutes(if job == "base" { 210 } else { 30 });
        service.run_until(utc("2027-02-08T00:00:00Z"));
    };
    assert_eq!(drills(DRILL, slow), ["02-07 04:30 drill/production of 02-07 03:00: run"]);
    let failing = |service: &mut Service<'_>| {
        service.ends = |decision, attempt| match (decision.job.as_str(), attempt) {
            ("base", 1..=2) => JobOutcome::Failed,
            _ => JobOutcome::Done,
        };
        service.run_until(utc("2027-02-08T00:00:00Z"));
    };
    let retried = DRILL.replace("cron = \"0 1 * * *\"", "cron = \"0 1 * * *\"\nretry_after = \"2h\"");
    assert_eq!(drills(&retried, failing), ["02-07 07:30 drill/production of 02-07 03:00: run"]);
    let never = |service: &mut Service<'_>| {
        service.ends = |decision, _| if decision.job == "base" { JobOutcome::Failed } else { JobOutcome::Done };
        service.run_until(utc("2027-02-08T00:00:00Z"));
    };
    let patient = DRILL.replace("after = \"base\"", "after = \"base\"\ndeadline = \"5h\"");
    assert_eq!(drills(&patient, never), ["02-07 08:00 drill/production of 02-07 03:00: missed"]);
}

#[test]
fn an_environment_without_any_base_backup_gets_one_at_once() {
    let text = "[[job]]\nname = \"base\"\nkind = \"base\"\nenvironments = [\"production\"]\ncron = \"0 1 1 * *\"\n";
    let now = told(text, |service| service.run_until(utc("2027-02-02T00:00:00Z")));
    assert_eq!(now, ["02-01 12:00 base/production of 02-01 01:00: run"]);
    let failing = told(&format!("{text}retries = 1\n"), |service| {
        service.ends = |_, _| JobOutcome::Failed;
        service.run_until(utc("2027-03-02T00:00:00Z"));
    });
    assert_eq!(
        failing,
        [
            "02-01 12:00 base/production of 02-01 01:00: run",
            "02-01 12:15 base/production of 02-01 01:00: run 2",
            "03-01 01:00 base/production of 03-01 01:00: run",
            "03-01 01:15 base/production of 03-01 01:00: run 2",
        ]
    );
}

#[test]
fn what_is_waited_for_is_told() {
    let planner = planner(DRILL);
    let mut service = Service::new(&planner, utc("2027-02-06T12:00:00Z"));
    service.takes = |job| TimeDelta::minutes(if job == "base" { 210 } else { 30 });
    service.run_until(utc("2027-02-07T03:30:00Z"));
    let running = HashSet::from([("base".to_owned(), "production".to_owned())]);
    let at = |now, running: &HashSet<_>, histories: &HashMap<String, History>| {
        let plan = planner.plan(&Situation { now, since: utc("2027-02-06T12:00:00Z"), histories, running });
        plan.decisions.into_iter().map(|d| d.what).collect::<Vec<_>>()
    };
    let whats = at(service.now, &running, &service.histories);
    assert!(matches!(&whats[0], What::Wait { why: Why::Running, .. }), "{whats:?}");
    let What::Wait { why: Why::After { job, occurrence }, .. } = &whats[1] else { panic!("{whats:?}") };
    assert_eq!((job.as_str(), *occurrence), ("base", utc("2027-02-07T01:00:00Z")));
    service.run_until(utc("2027-02-15T00:00:00Z"));
    let whats = at(service.now, &HashSet::new(), &service.histories);
    let allowed = Some(utc("2027-02-24T00:00:00Z"));
    let peak = Why::Calendar { calendar: "peak".into(), allowed_at: allowed };
    assert!(
        matches!(&whats[1], What::Wait { why, until } if *why == peak && *until == utc("2027-02-21T03:00:00Z")),
        "{whats:?}"
    );
}

#[test]
fn a_preview_shows_what_the_service_will_do() {
    let planner = planner(DRILL);
    let mut service = Service::new(&planner, utc("2027-02-06T12:00:00Z"));
    let histories = service.histories.clone();
    let until = utc("2027-03-08T12:00:00Z");
    let situation =
        Situation { now: service.now, since: service.since, histories: &histories, running: &HashSet::new() };
    let rows = preview(&planner, &situation, until);
    service.run_until(until);
    let shown: Vec<(DateTime<Utc>, &str, DateTime<Utc>)> =
        rows.iter().map(|row| (row.at, row.job.as_str(), row.scheduled_for)).collect();
    let done: Vec<(DateTime<Utc>, &str, DateTime<Utc>)> =
        service.log.iter().map(|l| (l.at, l.job.as_str(), l.scheduled_for)).collect();
    assert_eq!(shown, done);
    let put_off = rows.iter().find(|row| row.what == Will::Deferred).expect("one");
    assert_eq!(put_off.calendar.as_deref(), Some("peak"));
    let late = rows.iter().find(|row| row.at == utc("2027-02-24T00:00:00Z")).expect("the drill after the peak");
    assert_eq!((late.what, late.because.as_deref()), (Will::Run, Some("calendar peak")));
}

#[test]
fn built_in_jobs_cover_everything() {
    let mut estate = estate("");
    estate.environments.iter_mut().for_each(|environment| environment.odoo = odoo());
    let planner = Planner::new(&estate);
    let mut service = Service::new(&planner, utc("2027-02-01T12:00:00Z"));
    service.run_until(utc("2027-03-08T12:00:00Z"));
    for job in planner.jobs() {
        assert!(job.built_in && job.environments == ["production", "staging"]);
        let of = |environment: &str| {
            service.log.iter().filter(|l| l.job == job.name && l.environment == environment && l.what == "run").count()
        };
        let expected = match job.name.rsplit('-').next() {
            Some("daily") => 35,
            Some("weekly") => 5,
            _ => 1,
        };
        // The first base backup was taken at once.
        let expected = expected + usize::from(job.name == "base-daily");
        assert_eq!((of("production"), of("staging")), (expected, expected), "{}", job.name);
    }
    assert!(service.log.iter().all(|l| l.what == "run"), "{:?}", service.told());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever is configured and happens: no occurrence is done twice, none is without a record, jobs do not overlap,
    /// jitter is kept, no drill begins when it is forbidden.
    #[test]
    fn nothing_is_lost_and_nothing_doubled(
        cron in prop::sample::select(vec!["0 3 * * *", "30 2 * * *", "0 */6 * * *", "15 1 * * SUN", "0 12 1 * *", "*/30 2 * * *"]),
        zone in prop::sample::select(vec!["Europe/Brussels", "America/New_York", "UTC", "Australia/Lord_Howe"]),
        kind in prop::sample::select(vec!["drill", "verify"]),
        jitter in 0_u32..200, catch_up in any::<bool>(), retries in 0_u32..4, takes in 1_i64..600,
        deadline in prop::option::of(1_u32..48),
        outages in prop::collection::vec((0_i64..90 * 24 * 60, 1_i64..6 * 24 * 60), 0..6),
        failing in any::<u64>(),
    ) {
        use std::sync::atomic::{AtomicU64, Ordering};
        static TAKES: AtomicU64 = AtomicU64::new(0);
        static FAILING: AtomicU64 = AtomicU64::new(0);
        // One case at a time: proptest runs its cases in a row.
        TAKES.store(takes as u64, Ordering::Relaxed);
        FAILING.store(failing, Ordering::Relaxed);
        let deadline = deadline.map(|hours| format!("deadline = \"{hours}h\"\n")).unwrap_or_default();
        let catch_up = if catch_up { "one" } else { "none" };
        let planner = planner(&format!(
            "[[job]]\nname = \"it\"\nkind = \"{kind}\"\nenvironments = [\"production\"]\ncron = \"{cron}\"\ntime_zone = \"{zone}\"\n\
             jitter = \"{jitter}m\"\ncatch_up = \"{catch_up}\"\nretries = {retries}\nretry_after = \"20m\"\n{deadline}\
             [[calendar]]\nname = \"peak\"\neffects = [\"forbid-drills\"]\n[[calendar.window]]\nstarts = \"2027-03-01\"\nlasts = \"3d\"\nrrule = \"FREQ=WEEKLY;INTERVAL=2\"\n"
        ));
        let from = utc("2027-01-31T12:00:00Z");
        let mut service = Service::new(&planner, from);
        service.takes = |_| TimeDelta::minutes(TAKES.load(Ordering::Relaxed) as i64);
        service.ends = |decision, attempt| {
            let mixed = xxhash_rust::xxh3::xxh3_64(format!("{}{}{attempt}", FAILING.load(Ordering::Relaxed), decision.scheduled_for).as_bytes());
            if mixed.is_multiple_of(4) { JobOutcome::Failed } else { JobOutcome::Done }
        };
        let mut outages = outages;
        outages.sort_unstable();
        for (begins, lasts) in outages {
            let at = from + TimeDelta::minutes(begins);
            if at > service.now {
                service.run_until(at);
                service.outage_until(at + TimeDelta::minutes(lasts));
            }
        }
        let end = (from + TimeDelta::days(97)).max(service.now);
        service.run_until(end);

        let job = planner.job("it").expect("known");
        let mut due = Vec::new();
        let mut at = from;
        while let Some(next) = super::cron::next(&job.cron, job.time_zone, at).filter(|next| *next <= end) {
            due.push(next);
            at = next;
        }
        let mut handled: HashMap<DateTime<Utc>, Vec<&str>> = HashMap::new();
        for logged in &service.log {
            let at = due.iter().position(|due| *due == logged.scheduled_for);
            prop_assert!(at.is_some(), "{logged} is no occurrence");
            let count = logged.what.strip_prefix("missed ").and_then(|n| n.parse::<usize>().ok()).unwrap_or(1);
            let mut left = count;
            // Told together: the newest of those of which nothing ended.
            for one in due[..=at.unwrap_or(0)].iter().rev() {
                let known = handled.entry(*one).or_default();
                let over = service.ended.iter().any(|(of, _)| of == one) || known.iter().any(|what| what.starts_with("missed"));
                if left > 0 && (count == 1 || !over) {
                    known.push(&logged.what);
                    left -= 1;
                }
            }
            prop_assert_eq!(left, 0);
        }
        for one in &due {
            let did = handled.get(one).cloned().unwrap_or_default();
            let is_last = *one > end - TimeDelta::hours(24) || Some(one) == due.last();
            prop_assert!(is_last || !did.is_empty(), "{one} was forgotten");
            prop_assert!(is_last || did.iter().any(|what| !what.starts_with("deferred")), "{one}: {did:?} and then nothing");
            prop_assert!(did.iter().filter(|what| what.starts_with("missed")).count() <= 1, "{one}: {did:?}");
        }
        for (n, (of, outcome)) in service.ended.iter().enumerate() {
            let again = service.ended[n + 1..].iter().any(|(later, _)| later == of);
            prop_assert!(!(again && outcome.is_final()), "{of} was done twice");
        }
        // No two runs of one job overlap, but for those that an outage ended.
        for logged in service.log.iter().filter(|l| l.what.starts_with("run")) {
            prop_assert!(logged.at >= logged.scheduled_for);
            if kind == "drill" {
                let calendars = planner.calendars();
                let forbidden = calendars.forbidden("production", crate::config::Effect::ForbidDrills, logged.at);
                prop_assert!(forbidden.is_none(), "{logged} although {forbidden:?}");
            }
        }
        // It is the same for everybody who looks.
        let again = planner.plan(&Situation { now: service.now, since: service.since, histories: &service.histories, running: &HashSet::new() });
        prop_assert_eq!(again.decisions.len(), 1);
    }
}

#[test]
fn nothing_is_planned_where_there_is_no_filestore_and_nothing_waits_for_it() {
    let text = "[[job]]\nname = \"files\"\nkind = \"filestore\"\ncron = \"0 1 * * *\"\n\
                [[job]]\nname = \"base\"\nkind = \"base\"\ncron = \"0 2 * * *\"\nafter = \"files\"\n";
    let with_odoo = |text: &str| {
        let mut estate = estate(text);
        estate.environments[0].odoo = odoo();
        estate
    };
    let planner = Planner::new(&with_odoo(text));
    let now = utc("2026-11-25T02:30:00Z");
    let history = || {
        let mut history = History::default();
        for job in ["files", "base"] {
            let begin = Decision {
                job: job.into(),
                kind: JobKind::Base,
                environment: "x".into(),
                scheduled_for: utc("2026-11-24T12:00:00Z"),
                what: What::Begin,
            };
            history.note_job(&begin.record(utc("2026-11-24T12:00:00Z"), "here").expect("recorded"));
        }
        history
    };
    let histories = HashMap::from([("production".to_owned(), history()), ("staging".to_owned(), history())]);
    let running = HashSet::new();
    let plan = planner.plan(&Situation { now, since: now, histories: &histories, running: &running });
    let of = |job: &str, environment: &str| {
        plan.decisions.iter().find(|d| d.job == job && d.environment == environment).map(|d| d.what.clone())
    };
    assert!(matches!(of("files", "production"), Some(What::Run { .. })), "{plan:?}");
    assert!(matches!(of("base", "production"), Some(What::Wait { why: Why::After { .. }, .. })), "{plan:?}");
    assert_eq!(of("files", "staging"), None, "it has no Odoo");
    assert!(matches!(of("base", "staging"), Some(What::Run { .. })), "{plan:?}");
}
