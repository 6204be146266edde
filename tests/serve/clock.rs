//! The wall clock of a host is set ahead and back while its service runs: nobody takes over, no job runs twice, none is
//! put off until the wrong time has come, and what was committed meanwhile is there.

use chrono::{DateTime, TimeDelta, Timelike, Utc};

use super::*;

/// When a job is due next, as the service plans it.
fn next(status: &Value, job: &str) -> Option<DateTime<Utc>> {
    let next = status["next"].as_array()?.iter().find(|next| next["job"] == job)?;
    next["expected_at"].as_str()?.parse().ok()
}

#[test]
fn a_clock_that_jumps_costs_nothing_and_doubles_nothing() {
    let scratch = Scratch::new();
    let Some(clock) = Clock::new(&scratch) else { skip!("no C compiler, or a static program") };
    let cluster = Cluster::builder(&scratch).start();
    // Hourly, and not due by itself while this test runs.
    let minute = (Utc::now() + TimeDelta::minutes(30)).minute();
    let job = format!("[[job]]\nname = \"hourly\"\nkind = \"base\"\ncron = \"{minute} * * * *\"\n");
    let served = Served::new(&scratch).schedule(&job).environment("one", &cluster.dsn(), "");
    let mut a = served.host("a");
    a.lifeboat = clock.under(&a.lifeboat);
    let mut on_a = a.serve();
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    wait_until("the first base backup is done", PATIENCE, || a.jobs("one", "done").len() == 1);
    // The other host's clock is right all the time.
    let b = served.host("b");
    let mut on_b = b.serve();
    let leases = |on: &mut Running| {
        let status = b.until("b knows who has it", on, |s| worker(s, "one", "wal")["state"]["is"] == "elsewhere");
        assert_eq!(worker(&status, "one", "wal")["state"]["instance"], "a", "{status:#}");
        b.entries("one", "lease").len()
    };
    let taken = leases(&mut on_b);

    let hours = |n: i64| n * 3600;
    for (n, offset) in [hours(10), 0, -hours(24), hours(24 * 400), 0].into_iter().enumerate() {
        clock.set(offset);
        cluster.psql("postgres", &format!("CREATE TABLE t{n} AS SELECT 1"));
        wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
        let now = Utc::now() + TimeDelta::seconds(offset);
        let hour = TimeDelta::minutes(61);
        a.until("the next one is due within an hour", &mut on_a, |status| {
            let busy = status["jobs_running"].as_array().is_none_or(|jobs| !jobs.is_empty());
            !busy && next(status, "hourly").is_some_and(|at| now - TimeDelta::minutes(1) < at && at < now + hour)
        });
        assert!(on_b.is_running());
    }
    // Ahead it was due, once each time; behind and back again it was not.
    wait_until("what was done is recorded", PATIENCE, || a.jobs("one", "done").len() >= 3);
    let done = a.jobs("one", "done");
    assert_eq!(done.len(), 3, "{done:#?}");
    let times: std::collections::BTreeSet<&str> = done.iter().filter_map(|d| d["recorded_at"].as_str()).collect();
    assert_eq!(times.len(), 3, "{done:#?}");
    assert_eq!(leases(&mut on_b), taken, "somebody took over from a host that was there all the time");
    assert_eq!(worker(&a.status(), "one", "wal")["restarts"], 0);
    for service in [on_b, on_a] {
        service.signal(Signal::SIGTERM);
        service.wait(PATIENCE).ok();
    }
    b.lifeboat.run(&["evidence", "verify", "-e", "one"]).ok();
    b.lifeboat.run(&["verify", "-e", "one"]).ok();
    let place = scratch.server_dir("restored").join("data");
    let to = ["restore", "-e", "one", "--to", "latest", "--pgdata", place.to_str().expect("UTF-8")];
    b.lifeboat.run(&to).ok();
    let copy = Cluster::adopt(&scratch, &place, cluster.major());
    assert_eq!(copy.psql("postgres", "SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-9]$'"), "5");
}
