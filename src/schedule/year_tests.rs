//! Tests only: a year of schedules in simulated time, with the clock changes of two zones, a peak season and outages.
//!
//! What must come out is said twice, independently of the code under test: by an oracle that goes through the year
//! minute by minute with no idea of cron, and by a table of the days that matter, worked out by hand.

use chrono::{DateTime, Datelike as _, NaiveTime, TimeDelta, Timelike as _, Utc, Weekday};
use chrono_tz::Tz;

use super::planner::Planner;
use super::testing::{Logged, Service, estate, utc};

const YEAR: &str = r#"
    [[job]]
    name = "base"
    kind = "base"
    environments = ["production"]
    cron = "30 2 * * *"
    time_zone = "Europe/Brussels"

    [[job]]
    name = "export"
    kind = "configuration"
    environments = ["production"]
    cron = "30 1 * * *"
    time_zone = "America/New_York"
    catch_up = "none"

    [[job]]
    name = "drill"
    kind = "drill"
    environments = ["production"]
    cron = "0 3 * * SUN"
    time_zone = "Europe/Brussels"
    after = "base"
    max_deferral = "21d"

    [[job]]
    name = "verify"
    kind = "verify"
    environments = ["production"]
    cron = "0 12 1 * *"

    [[calendar]]
    name = "peak"
    time_zone = "Europe/Brussels"
    effects = ["forbid-drills"]
    [[calendar.window]]
    title = "Black Friday to Epiphany"
    starts = "2026-11-23"
    ends = "2027-01-07"
    rrule = "FREQ=YEARLY"

    [[calendar]]
    name = "opening"
    time_zone = "Europe/Brussels"
    effects = ["forbid-drills"]
    [[calendar.window]]
    title = "the shop in Ghent opens"
    starts = "2027-05-22"
    lasts = "2d"
"#;

/// From, to: the service is dead.
const OUTAGES: [(&str, &str); 4] = [
    // A night with a run in it.
    ("2027-02-10T00:00:00Z", "2027-02-10T09:00:00Z"),
    // Over the change of clocks in Brussels: the run in the hour that was not is caught up with.
    ("2027-03-27T22:00:00Z", "2027-03-28T05:00:00Z"),
    // A month of holidays.
    ("2027-07-10T10:00:00Z", "2027-08-09T10:00:00Z"),
    // In the middle of a base backup.
    ("2027-09-14T00:45:00Z", "2027-09-14T00:50:00Z"),
];

fn takes(job: &str) -> TimeDelta {
    TimeDelta::minutes(match job {
        "base" => 45,
        "drill" => 120,
        _ => 5,
    })
}

/// A job as the oracle knows it.
struct Oracle {
    name: &'static str,
    zone: Tz,
    at: NaiveTime,
    day: fn(DateTime<Tz>) -> bool,
    catches_up: bool,
    /// The local day of the newest occurrence.
    seen: Option<chrono::NaiveDate>,
    /// Occurrences about which nothing was said yet, oldest first.
    pending: Vec<DateTime<Utc>>,
    deferred: Vec<DateTime<Utc>>,
    running: Option<(DateTime<Utc>, DateTime<Utc>)>,
    done: Option<DateTime<Utc>>,
    occurred: Option<DateTime<Utc>>,
}

/// Goes through the year minute by minute.
fn oracle(from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<Logged> {
    let brussels = Tz::Europe__Brussels;
    let time = |hour, minute| NaiveTime::from_hms_opt(hour, minute, 0).expect("a time");
    let job = |name, zone, at, day: fn(DateTime<Tz>) -> bool, catches_up| Oracle {
        name,
        zone,
        at,
        day,
        catches_up,
        seen: None,
        pending: Vec::new(),
        deferred: Vec::new(),
        running: None,
        done: None,
        occurred: None,
    };
    let mut jobs = [
        job("base", brussels, time(2, 30), |_| true, true),
        job("export", Tz::America__New_York, time(1, 30), |_| true, false),
        job("drill", brussels, time(3, 0), |day| day.weekday() == Weekday::Sun, true),
        job("verify", Tz::UTC, time(12, 0), |day| day.day() == 1, true),
    ];
    let outages = OUTAGES.map(|(from, to)| (utc(from), utc(to)));
    let mut log = Vec::new();
    let mut back = from;
    let mut now = from;
    while now <= to {
        let dead = outages.iter().find(|(from, to)| *from <= now && now < *to);
        if let Some((_, ends)) = dead {
            back = *ends;
        }
        let local = now.with_timezone(&brussels);
        let (month, day) = (local.month(), local.day());
        let peak = (month == 11 && day >= 23) || month == 12 || (month == 1 && day < 7);
        let opening = local.year() == 2027 && month == 5 && (22..24).contains(&day);
        let calendar = if peak {
            Some("peak")
        } else if opening {
            Some("opening")
        } else {
            None
        };
        for job in &mut jobs {
            // Due once on each of its days: in the first minute in which clocks show its time or a later one.
            let local = now.with_timezone(&job.zone);
            if local.time() >= job.at && (job.day)(local) && job.seen != Some(local.date_naive()) {
                job.seen = Some(local.date_naive());
                // What was due before the first minute of this year is not of interest.
                if now > from {
                    job.pending.push(now);
                }
                job.occurred = Some(now);
            }
            if dead.is_some() {
                job.running = None;
            }
            if let Some((of, _)) = job.running.filter(|(_, end)| *end <= now) {
                job.running = None;
                job.done = Some(of);
                job.pending.retain(|pending| *pending > of);
            }
        }
        if dead.is_none() {
            for n in 0..jobs.len() {
                let base = (jobs[0].occurred, jobs[0].done);
                act(&mut jobs[n], now, back, calendar, base, &mut log);
            }
        }
        now += TimeDelta::minutes(1);
    }
    log
}

/// What a living service does about a job in one minute.
fn act(
    job: &mut Oracle,
    now: DateTime<Utc>,
    back: DateTime<Utc>,
    calendar: Option<&str>,
    base: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    log: &mut Vec<Logged>,
) {
    let mut say = |scheduled_for, what: String| {
        log.push(Logged { at: now, job: job.name.into(), environment: "production".into(), scheduled_for, what });
    };
    if job.running.is_some() {
        return;
    }
    let Some(newest) = job.pending.pop() else { return };
    // Older ones are missed, all in one line.
    if let Some(last) = job.pending.last().copied() {
        let count = job.pending.len();
        let deferred_for = job.deferred.contains(&last);
        say(
            last,
            match (deferred_for, count) {
                (true, _) => "missed for peak".to_owned(),
                (false, 1) => "missed".to_owned(),
                (false, count) => format!("missed {count}"),
            },
        );
        job.pending.clear();
    }
    if !job.catches_up && newest < back {
        say(newest, "missed".to_owned());
        return;
    }
    if job.name == "drill" {
        if let Some(calendar) = calendar {
            if now >= newest + TimeDelta::days(21) {
                say(newest, format!("missed for {calendar}"));
                return;
            }
            if !job.deferred.contains(&newest) {
                job.deferred.push(newest);
                say(newest, format!("deferred by {calendar}"));
            }
            job.pending.push(newest);
            return;
        }
        // After the base backup before it. What was due before the year began is waited for by nobody.
        if base.1 < base.0 && base.0 > Some(utc("2027-01-01T00:00:00Z")) {
            job.pending.push(newest);
            return;
        }
    }
    say(newest, "run".to_owned());
    job.running = Some((newest, now + takes(job.name)));
    job.pending.push(newest);
}

#[test]
fn a_year_goes_exactly_as_it_must() {
    let (from, to) = (utc("2027-01-01T00:00:00Z"), utc("2028-01-01T00:00:00Z"));
    let planner = Planner::new(&estate(YEAR));
    let mut service = Service::new(&planner, from);
    service.takes = takes;
    // It is not the first base backup that is of interest here.
    service.histories.get_mut("production").expect("known").pretend_a_base();
    for (begins, ends) in OUTAGES {
        service.run_until(utc(begins));
        service.outage_until(utc(ends));
    }
    service.run_until(to);
    let mut done = service.log.clone();
    let mut expected = oracle(from, to);
    for list in [&mut done, &mut expected] {
        list.sort_by(|a, b| (a.at, &a.job, a.scheduled_for).cmp(&(b.at, &b.job, b.scheduled_for)));
    }
    for (done, expected) in done.iter().zip(&expected) {
        assert_eq!(done, expected, "\n{done}\n{expected}");
    }
    assert_eq!(done.len(), expected.len(), "{:?} {:?}", done.last(), expected.last());

    // By hand. In UTC: Brussels is one hour ahead in winter and two in summer, New York five and four behind.
    let told: Vec<String> = done.iter().map(ToString::to_string).collect();
    let on = |day: &str| told.iter().filter(|line| line.starts_with(day)).map(String::as_str).collect::<Vec<_>>();
    assert_eq!(
        on("01-04"),
        ["01-04 01:30 base/production of 01-04 01:30: run", "01-04 06:30 export/production of 01-04 06:30: run",]
    );
    // Sundays of the peak season that is still on: put off, and made up for on the day after it.
    assert_eq!(on("01-03")[1], "01-03 02:00 drill/production of 01-03 02:00: deferred by peak");
    assert_eq!(on("01-06")[2], "01-06 23:00 drill/production of 01-03 02:00: run");
    // An outage in the night: the base backup is made up for at once, the export (catch_up = "none") is not.
    assert_eq!(
        on("02-10"),
        ["02-10 09:00 base/production of 02-10 01:30: run", "02-10 09:00 export/production of 02-10 06:30: missed",]
    );
    // New York springs forward on 14 March at 07:00: 01:30 is before that; Brussels on the 28th at 01:00, so 02:30 is
    // not shown and the base backup is due at 01:00, and the drill, at 03:00 of the same second, after it.
    assert_eq!(on("03-14")[1], "03-14 02:15 drill/production of 03-14 02:00: run");
    assert_eq!(
        on("03-28"),
        [
            "03-28 05:00 base/production of 03-28 01:00: run",
            "03-28 05:30 export/production of 03-28 05:30: run",
            "03-28 05:45 drill/production of 03-28 01:00: run",
        ]
    );
    // A Sunday on which a shop opens.
    assert_eq!(on("05-23")[1], "05-23 01:00 drill/production of 05-23 01:00: deferred by opening");
    assert_eq!(on("05-23")[3], "05-23 22:00 drill/production of 05-23 01:00: run");
    // Thirty days of holidays: one run, and one line for the rest.
    assert_eq!(
        on("08-09"),
        [
            "08-09 10:00 base/production of 08-08 00:30: missed 29",
            "08-09 10:00 base/production of 08-09 00:30: run",
            "08-09 10:00 drill/production of 08-01 01:00: missed 4",
            "08-09 10:00 export/production of 08-08 05:30: missed 29",
            "08-09 10:00 export/production of 08-09 05:30: missed",
            "08-09 10:00 verify/production of 08-01 12:00: run",
            "08-09 10:45 drill/production of 08-08 01:00: run",
        ]
    );
    // Killed in the middle of a base backup: it begins again.
    assert_eq!(
        on("09-14"),
        [
            "09-14 00:30 base/production of 09-14 00:30: run",
            "09-14 00:50 base/production of 09-14 00:30: run",
            "09-14 05:30 export/production of 09-14 05:30: run",
        ]
    );
    // Brussels shows 02:30 twice on 31 October, New York 01:30 twice on 7 November: each runs once, the first time.
    assert_eq!(
        on("10-31"),
        [
            "10-31 00:30 base/production of 10-31 00:30: run",
            "10-31 02:00 drill/production of 10-31 02:00: run",
            "10-31 05:30 export/production of 10-31 05:30: run",
        ]
    );
    assert_eq!(on("11-07")[2], "11-07 05:30 export/production of 11-07 05:30: run");
    // Peak season: each Sunday put off, and missed when the next one comes.
    assert_eq!(
        on("12-05")[1..3],
        [
            "12-05 02:00 drill/production of 11-28 02:00: missed for peak",
            "12-05 02:00 drill/production of 12-05 02:00: deferred by peak",
        ]
    );
    let count = |what: &str| done.iter().filter(|l| format!("{} {}", l.job, l.what).starts_with(what)).count();
    // 365 nights, less 29 in the holidays, and one that was begun twice.
    assert_eq!(count("base run"), 365 - 29 + 1);
    assert_eq!(count("export run"), 365 - 30 - 1);
    assert_eq!(count("verify run"), 12);
    assert_eq!(count("drill deferred"), 1 + 1 + 5);
    assert!(done.iter().all(|l| l.at.second() == 0));
}
