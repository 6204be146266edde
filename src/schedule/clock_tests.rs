//! Tests only: the planner, under a clock that is set ahead or back.

use chrono::TimeDelta;

use super::planner::Planner;
use super::testing::{Service, estate, utc};
use crate::evidence::job_record::JobOutcome;

const HOURLY: &str =
    "[[job]]\nname = \"export\"\nkind = \"configuration\"\nenvironments = [\"production\"]\ncron = \"0 * * * *\"\n";

#[test]
fn a_clock_that_is_wrong_for_a_while_neither_stops_a_job_nor_repeats_one() {
    let of = |text: &str, run: &dyn Fn(&mut Service<'_>)| {
        let planner = Planner::new(&estate(text));
        let mut service = Service::new(&planner, utc("2027-02-01T12:00:00Z"));
        run(&mut service);
        service.told()
    };
    // Ten hours ahead for an hour, then right again.
    let ahead = of(HOURLY, &|service| {
        service.run_until(utc("2027-02-01T13:30:00Z"));
        service.now = utc("2027-02-01T23:30:00Z");
        service.run_until(utc("2027-02-02T00:30:00Z"));
        service.now = utc("2027-02-01T14:30:00Z");
        service.run_until(utc("2027-02-01T16:30:00Z"));
    });
    assert_eq!(
        ahead,
        [
            "02-01 13:00 export/production of 02-01 13:00: run",
            "02-01 23:30 export/production of 02-01 22:00: missed 9",
            "02-01 23:30 export/production of 02-01 23:00: run",
            "02-02 00:00 export/production of 02-02 00:00: run",
            // 14:00 was within the hour in which the clock was wrong; it is caught up with.
            "02-01 14:30 export/production of 02-01 14:00: run",
            "02-01 15:00 export/production of 02-01 15:00: run",
            "02-01 16:00 export/production of 02-01 16:00: run",
        ]
    );
    // What failed is tried again with its pauses, although a later occurrence is done.
    let failing = of(&format!("{HOURLY}retries = 1\nretry_after = \"20m\"\n"), &|service| {
        service.run_until(utc("2027-02-01T13:30:00Z"));
        service.now = utc("2028-02-01T13:30:00Z");
        service.run_until(utc("2028-02-01T13:45:00Z"));
        service.now = utc("2027-02-01T13:45:00Z");
        service.ends = |_, _| JobOutcome::Failed;
        service.run_until(utc("2027-02-01T14:59:00Z"));
    });
    assert_eq!(
        failing[3..],
        [
            "02-01 14:00 export/production of 02-01 14:00: run".to_owned(),
            "02-01 14:30 export/production of 02-01 14:00: run 2".to_owned(),
        ]
    );
    // Two days and two months behind: nothing that was done is done again, and it goes on when the clock is right.
    for behind in ["2027-01-31T13:30:00Z", "2026-12-01T13:30:00Z"] {
        let behind = of(HOURLY, &|service| {
            service.run_until(utc("2027-03-01T13:30:00Z"));
            service.log.clear();
            service.now = utc(behind);
            service.run_until(service.now + TimeDelta::hours(3));
            service.now = utc("2027-03-01T16:30:00Z");
            service.run_until(utc("2027-03-01T17:30:00Z"));
        });
        assert_eq!(
            behind,
            [
                "03-01 16:30 export/production of 03-01 15:00: missed 2",
                "03-01 16:30 export/production of 03-01 16:00: run",
                "03-01 17:00 export/production of 03-01 17:00: run",
            ]
        );
    }
}
