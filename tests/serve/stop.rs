//! SIGTERM: running jobs may finish, then are ended in order; workers store what they have.

use std::os::unix::net::UnixDatagram;

use super::*;

#[test]
fn a_base_backup_in_the_way_of_a_stop_is_ended_in_order_and_leaves_nothing_half() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let served = Served::new(&scratch).environment("one", &cluster.dsn(), "max_rate = \"1MiB\"");
    let host = served.host("here");
    let config = fs::read_to_string(&host.config).expect("a configuration");
    fs::write(&host.config, config.replace("stop_within = \"10s\"", "stop_within = \"1s\"")).expect("written");
    let mut service = host.serve();
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    let run = host.ask("base", "one");
    host.until("the backup reads", &mut service, |status| {
        status["jobs_running"]
            .as_array()
            .is_some_and(|jobs| jobs.iter().any(|j| j["run"] == *run && j["phase"].is_object()))
    });
    cluster.psql("postgres", "CREATE TABLE last_words AS SELECT 1");
    let end = cluster.psql("postgres", "SELECT pg_current_wal_insert_lsn()");
    service.signal(Signal::SIGTERM);
    let said = service.wait(PATIENCE).ok();
    assert!(said.stderr.contains("interrupted"), "{}", said.stderr);
    // PostgreSQL knows of no backup, and nobody is connected any more.
    wait_until("the server is left alone", PATIENCE, || {
        cluster.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%lifeboat%'")
            == "0"
    });
    assert!(host.entries("one", "base_backup").is_empty());
    // What was written before the stop is in the repository.
    let question = format!(
        "SELECT confirmed OR restart_lsn >= '{end}' FROM (SELECT false AS confirmed, restart_lsn FROM pg_replication_slots WHERE slot_name = 'one') s"
    );
    assert_eq!(cluster.psql("postgres", &question), "t", "the receiver stored what it had");
    host.lifeboat.run(&["verify", "-e", "one"]).ok();
    // The next backup succeeds.
    fs::write(&host.config, config.replace("max_rate = \"1MiB\"", "")).expect("written");
    host.lifeboat.run(&["backup", "base", "-e", "one"]).ok();
}

#[test]
fn a_second_service_on_one_state_directory_is_refused_and_stale_sockets_are_not_in_the_way() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let served = Served::new(&scratch).environment("one", &cluster.dsn(), "");
    let host = served.host("here");
    let service = host.serve();
    let second = host.lifeboat.run(&["serve"]).expect_code(3);
    assert!(second.stderr.contains("another service uses"), "{}", second.stderr);
    service.kill9();
    let service = host.serve();
    service.signal(Signal::SIGINT);
    service.wait(PATIENCE).ok();
    let silent = host.lifeboat.run(&["service", "status"]).expect_code(4);
    assert!(silent.stderr.contains("no service answers"), "{}", silent.stderr);
}

#[test]
fn systemd_is_told_what_it_must_know() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let served = Served::new(&scratch).environment("one", &cluster.dsn(), "");
    let mut host = served.host("here");
    let path = scratch.join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let until = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("{wanted}: {e}"));
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if said.contains(wanted) {
                return said;
            }
        }
    };
    host.lifeboat = host.lifeboat.env("NOTIFY_SOCKET", path.to_str().expect("UTF-8"));
    let service = host.lifeboat.spawn(&["serve"]);
    until("READY=1");
    until("STATUS=1 environment");
    until("WATCHDOG=1");
    // A process that a job starts is not the service: a restored PostgreSQL must not speak for it.
    let run = host.ask_in_time("base", "one");
    wait_until("the job ends", PATIENCE, || ended(&host.status(), &run).is_some());
    service.signal(Signal::SIGHUP);
    assert!(until("RELOADING=1").contains("MONOTONIC_USEC="), "which Type=notify-reload asks for");
    until("READY=1");
    service.signal(Signal::SIGTERM);
    until("STOPPING=1");
    service.wait(PATIENCE).ok();
}
