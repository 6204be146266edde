//! Jobs that are due: run once, by one of several services, whatever becomes of them.

use super::*;

/// Due once an hour; and at once, because there is no base backup.
const BASE: &str =
    "[[job]]\nname = \"base\"\nkind = \"base\"\ncron = \"0 * * * *\"\nretry_after = \"1s\"\nretries = 20\n";

#[test]
fn an_environment_without_a_base_backup_gets_one_at_once_and_once() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let served = Served::new(&scratch).schedule("").environment("one", &cluster.dsn(), "");
    let host = served.host("here");
    let mut service = host.serve();
    let status = host.until("a base backup is taken by itself", &mut service, |status| {
        status["recent_jobs"].as_array().is_some_and(|jobs| jobs.iter().any(|job| job["kind"] == "base"))
    });
    let job = status["recent_jobs"].as_array().expect("a list").iter().find(|job| job["kind"] == "base").cloned();
    let job = job.expect("it was just there");
    assert_eq!((&job["outcome"], &job["job"]), (&Value::from("done"), &Value::from("base-daily")), "{job:#}");
    assert!(job["scheduled_for"].is_string() && job["requested_by"].is_null(), "{job:#}");
    let status = host.until("what comes next is known", &mut service, |status| {
        status["next"]
            .as_array()
            .is_some_and(|next| next.iter().any(|n| n["job"] == "base-daily" && n["because"].is_null()))
    });
    let names: Vec<&str> =
        status["next"].as_array().expect("a list").iter().filter_map(|next| next["job"].as_str()).collect();
    assert!(names.contains(&"drill-weekly") && names.contains(&"verify-weekly"), "{names:?}");
    wait_until("what was done is recorded", PATIENCE, || host.jobs("one", "done").len() == 1);
    service.kill9();
    // The next one reads what was done, and does nothing twice.
    let mut service = host.serve();
    host.until("it plans again", &mut service, |status| status["next"].as_array().is_some_and(|next| !next.is_empty()));
    host.until("and knows what was done", &mut service, |status| {
        status["next"].as_array().is_some_and(|next| {
            next.iter().any(|n| n["job"] == "base-daily" && n["expected_at"].as_str() > status["started_at"].as_str())
        })
    });
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
    assert_eq!(host.entries("one", "base_backup").len(), 1);
    assert_eq!(host.jobs("one", "done").len(), 1);
}

#[test]
fn two_services_that_are_killed_and_stalled_run_an_occurrence_once() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    // Slow enough to be met on its way.
    let served = Served::new(&scratch).schedule(BASE).environment("one", &cluster.dsn(), "max_rate = \"8MiB\"");
    let hosts = [served.host("a"), served.host("b")];
    let mut services = hosts.clone().map(|host| Some(host.serve()));
    let runs = |host: &Host| {
        let status = host.status();
        status["jobs_running"].as_array().is_some_and(|jobs| jobs.iter().any(|job| job["phase"].is_object()))
    };
    let running = |hosts: &[Host; 2]| hosts.iter().position(runs);
    // Whoever runs it is stopped still, so that the other one takes over; and wakes up again.
    let mut at = None;
    wait_until("somebody runs it", PATIENCE, || {
        at = running(&hosts);
        at.is_some()
    });
    let first = at.expect("it was just there");
    let stalled = services[first].as_ref().expect("it runs");
    stalled.signal(Signal::SIGSTOP);
    let other = 1 - first;
    wait_until("the other one runs it", PATIENCE, || {
        runs(&hosts[other]) || !hosts[other].jobs("one", "done").is_empty()
    });
    stalled.signal(Signal::SIGCONT);
    // The other one is killed on its way, if it is not done by then.
    services[other].take().expect("it runs").kill9();
    wait_until("one of them has done it", PATIENCE * 2, || !hosts[first].jobs("one", "done").is_empty());
    services[other] = Some(hosts[other].serve());
    // Both have seen it, and neither does it again.
    for host in &hosts {
        wait_until("it knows", PATIENCE, || {
            let status = host.status();
            status["environments"][0]["view"]["bases"].as_array().is_some_and(|bases| !bases.is_empty())
        });
    }
    for service in services.into_iter().flatten() {
        service.signal(Signal::SIGTERM);
        service.wait(PATIENCE).ok();
    }
    let done = hosts[0].jobs("one", "done");
    assert_eq!(done.len(), 1, "{done:#?}");
    hosts[0].lifeboat.run(&["evidence", "verify", "-e", "one"]).ok();
}
