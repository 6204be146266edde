//! PostgreSQL is restarted, dies and comes back, and is succeeded by its standby, while the service serves it.

use super::*;

/// Waits until everything up to now is durable, whoever the server is.
fn durable(cluster: &Cluster) {
    let end = cluster.psql("postgres", "SELECT pg_current_wal_insert_lsn()");
    let durable = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'lifeboat' AND flush_lsn >= ";
    wait_until("all is durable", PATIENCE, || cluster.psql("postgres", &format!("{durable}'{end}'")) != "0");
}

#[test]
fn the_receiver_goes_on_after_restarts_and_along_the_new_primary() {
    let scratch = Scratch::new();
    let mut primary = Cluster::builder(&scratch).wal_segment_mib(1).start();
    let Some(standby) = primary.standby("standby") else { skip!("no pg_basebackup") };
    // Both hosts, as a client of such a pair is configured.
    let both = format!(
        "host={},{} port={} user=postgres dbname=postgres target_session_attrs=read-write",
        primary.socket_dir().display(),
        standby.socket_dir().display(),
        primary.port()
    );
    let served = Served::new(&scratch).environment("one", &both, "");
    let host = served.host("here");
    let mut service = host.serve();
    wait_until("WAL is received", PATIENCE, || received(&primary, "one"));
    assert_eq!(host.ended(&host.ask("base", "one"), &mut service)["outcome"], "done");
    primary.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");

    // Stopped in order and started, then killed and started: the same service goes on.
    primary.stop();
    host.until("PostgreSQL is known to be away", &mut service, |s| {
        s["environments"][0]["view"]["postgres"]["reachable"] == false
    });
    primary.start();
    primary.psql("postgres", "INSERT INTO t VALUES (2)");
    durable(&primary);
    primary.kill9();
    primary.start();
    primary.psql("postgres", "INSERT INTO t VALUES (3)");
    durable(&primary);

    // It dies for good; a base backup is asked for meanwhile, which fails, and says why.
    let replayed = format!(
        "SELECT pg_last_wal_replay_lsn() >= '{}'",
        primary.psql("postgres", "SELECT pg_current_wal_flush_lsn()")
    );
    wait_until("the standby has all", PATIENCE, || standby.psql("postgres", &replayed) == "t");
    primary.kill9();
    let failed = host.ended(&host.ask("base", "one"), &mut service);
    assert_eq!((&failed["outcome"], &failed["exit_code"]), (&"failed".into(), &4.into()), "{failed:#}");
    standby.promote();
    standby.psql("postgres", "INSERT INTO t VALUES (4)");
    let across = standby.psql(
        "postgres",
        "SELECT pg_sleep(0.02); SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    );
    durable(&standby);
    let done = host.ended(&host.ask("base", "one"), &mut service);
    assert_eq!(done["outcome"], "done", "{done:#}");
    assert_eq!(done["result"]["base_backup"]["timeline"], 2, "{done:#}");
    standby.psql("postgres", "INSERT INTO t VALUES (5)");
    durable(&standby);
    let status = host.status();
    assert_eq!(worker(&status, "one", "wal")["restarts"], 0, "it bore all of it: {status:#}");
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();

    // Every row: from the base backup of the old primary across the switch, and from the one behind it; and no hole.
    let shown = host.lifeboat.run(&["--format", "json", "show", "-e", "one"]).ok().json();
    assert_eq!(shown["environments"][0]["gaps"], serde_json::json!([]), "{shown:#}");
    host.lifeboat.run(&["verify", "-e", "one"]).ok();
    for (name, target, rows) in [("across", across.trim(), "1,2,3,4"), ("behind", "latest", "1,2,3,4,5")] {
        let place = scratch.server_dir(name).join("data");
        let to = ["restore", "-e", "one", "--to", target, "--pgdata", place.to_str().expect("UTF-8")];
        host.lifeboat.run(&to).ok();
        let copy = Cluster::adopt(&scratch, &place, primary.major());
        assert_eq!(copy.psql("postgres", "SELECT string_agg(i::text, ',' ORDER BY i) FROM t"), rows, "{name}");
    }
}
