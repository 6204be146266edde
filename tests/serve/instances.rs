//! Two services on one repository: each duty is one's at a time, and the other takes over, whatever becomes of the one.

use super::*;

/// The instance that receives the WAL of an environment, as `host` sees it.
fn receives(status: &Value, environment: &str) -> Option<String> {
    let state = &worker(status, environment, "wal")["state"];
    match state["is"].as_str()? {
        "running" => status["instance"].as_str().map(str::to_owned),
        "elsewhere" => state["instance"].as_str().map(str::to_owned),
        _ => None,
    }
}

#[test]
fn the_other_service_takes_over_and_one_that_wakes_up_does_no_harm() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let served = Served::new(&scratch).environment("one", &cluster.dsn(), "");
    let (a, b) = (served.host("a"), served.host("b"));
    let mut on_a = a.serve();
    a.until("a receives", &mut on_a, |s| receives(s, "one").as_deref() == Some("a"));
    let mut on_b = b.serve();
    b.until("b knows that a receives", &mut on_b, |s| receives(s, "one").as_deref() == Some("a"));
    let refused = b.lifeboat.run(&["service", "run", "base", "-e", "one"]).expect_code(10);
    assert!(refused.stderr.contains("the instance a runs such jobs of one"), "{}", refused.stderr);
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));

    // It stands still, as a machine does whose disk hangs or that is suspended.
    on_a.signal(Signal::SIGSTOP);
    b.until("b has taken over", &mut on_b, |s| receives(s, "one").as_deref() == Some("b"));
    let base = b.ask_in_time("base", "one");
    // PostgreSQL holds the slot for the one that stands still until it misses it; both are told apart by the kernel.
    on_a.signal(Signal::SIGCONT);
    a.until("a knows that b receives", &mut on_a, |s| receives(s, "one").as_deref() == Some("b"));
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    assert_eq!(b.ended(&base, &mut on_b)["outcome"], "done");
    let taken: Vec<Value> = b.entries("one", "lease");
    assert!(taken.iter().any(|entry| entry["summary"].as_str().is_some_and(|s| s.contains("wal"))), "{taken:#?}");

    // It dies; what it did goes on here.
    wait_until("what was done is recorded", PATIENCE, || b.jobs("one", "done").len() == 1);
    on_b.kill9();
    a.until("a has taken over", &mut on_a, |s| receives(s, "one").as_deref() == Some("a"));
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    cluster.psql("postgres", "CREATE TABLE after_all AS SELECT 1");
    wait_until("and goes on", PATIENCE, || received(&cluster, "one"));
    on_a.signal(Signal::SIGTERM);
    on_a.wait(PATIENCE).ok();
    a.lifeboat.run(&["verify", "-e", "one"]).ok();
    let jobs = a.jobs("one", "done");
    assert_eq!(jobs.len(), 1, "one run, one entry: {jobs:#?}");
    a.lifeboat.run(&["evidence", "verify", "-e", "one"]).ok();
}

#[test]
fn a_service_that_was_killed_or_stopped_does_not_wait_for_its_own_leases() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let served = Served::new(&scratch).environment("one", &cluster.dsn(), "");
    let host = served.host("here");
    // Longer than this test may take.
    let config = fs::read_to_string(&host.config).expect("a configuration");
    fs::write(&host.config, config.replace("lease = \"4s\"", "lease = \"1h\"")).expect("written");
    let mut service = host.serve();
    host.until("it receives", &mut service, |s| receives(s, "one").as_deref() == Some("here"));
    service.kill9();
    let mut service = host.serve();
    host.until("it receives again", &mut service, |s| receives(s, "one").as_deref() == Some("here"));
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
    // What was given up is anybody's at once.
    let other = served.host("other");
    let mut service = other.serve();
    other.until("the other one receives", &mut service, |s| receives(s, "one").as_deref() == Some("other"));
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
}

#[test]
fn work_is_pinned_to_the_hosts_that_are_listed() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let pinned = "[environment.service]\nhosts = [\"db\"]\ndrill_hosts = [\"drills\"]";
    let served = Served::new(&scratch).environment("one", &cluster.dsn(), pinned);
    let (db, drills) = (served.host("db"), served.host("drills"));
    let on_drills = drills.serve();
    let refused = drills.lifeboat.run(&["service", "run", "base", "-e", "one"]).expect_code(10);
    assert!(refused.stderr.contains("not among the `hosts`"), "{}", refused.stderr);
    let mut on_db = db.serve();
    db.until("it receives", &mut on_db, |s| receives(s, "one").as_deref() == Some("db"));
    let refused = db.lifeboat.run(&["service", "run", "drill", "-e", "one"]).expect_code(10);
    assert!(refused.stderr.contains("not among the `drill_hosts`"), "{}", refused.stderr);
    assert!(worker(&drills.status(), "one", "wal").is_null(), "it does not even try");
    for service in [on_db, on_drills] {
        service.signal(Signal::SIGTERM);
        service.wait(PATIENCE).ok();
    }
}
