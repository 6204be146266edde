//! Disks that fill up under a service: the host's own, where nothing lies that matters, and the repository's.

use super::*;

fn rows(cluster: &Cluster, name: &str) {
    let sql = format!("CREATE TABLE {name} AS SELECT i, md5(i::text) AS x FROM generate_series(1, 20000) i");
    cluster.psql("postgres", &sql);
}

/// Everything that was said must be in a restore of the newest state.
fn restored(host: &Host, scratch: &Scratch, cluster: &Cluster, tables: &[&str]) {
    let place = scratch.server_dir("restored").join("data");
    let to = ["restore", "-e", "one", "--to", "latest", "--pgdata", place.to_str().expect("UTF-8")];
    host.lifeboat.run(&to).ok();
    let copy = Cluster::adopt(scratch, &place, cluster.major());
    for table in tables {
        let digest = format!("SELECT count(*), md5(string_agg(x, '' ORDER BY i)) FROM {table}");
        assert_eq!(copy.psql("postgres", &digest), cluster.psql("postgres", &digest), "{table}");
    }
}

#[test]
fn a_full_state_directory_is_no_reason_to_stop() {
    let scratch = Scratch::new();
    let Some(disk) = SmallDisk::new(&scratch, "here", 8) else { skip!("a small disk needs root and tmpfs") };
    let cluster = Cluster::builder(&scratch).start();
    let host = Served::new(&scratch).environment("one", &cluster.dsn(), "").host("here");
    let mut service = host.serve();
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    assert_eq!(host.ended(&host.ask("base", "one"), &mut service)["outcome"], "done");
    let filling = disk.fill();
    rows(&cluster, "a");
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    let done = host.ended(&host.ask("base", "one"), &mut service);
    assert_eq!(done["outcome"], "done", "what lies there is there for speed: {done:#}");
    // A service that dies before its entry is written does the job again, and nothing else.
    wait_until("what was done is recorded", PATIENCE, || host.jobs("one", "done").len() == 2);
    // Nor does it keep the next service from starting.
    service.kill9();
    let mut service = host.serve();
    rows(&cluster, "b");
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    let done = host.ended(&host.ask_in_time("base", "one"), &mut service);
    assert_eq!(done["outcome"], "done", "{done:#}");
    fs::remove_file(filling).expect("a file");
    rows(&cluster, "c");
    let done = host.ended(&host.ask_in_time("base", "one"), &mut service);
    assert_eq!(done["outcome"], "done", "{done:#}");
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
    assert_eq!(host.jobs("one", "done").len(), 4);
    host.lifeboat.run(&["verify", "-e", "one"]).ok();
    restored(&host, &scratch, &cluster, &["a", "b", "c"]);
}

#[test]
fn a_full_repository_holds_wal_back_until_there_is_room() {
    let scratch = Scratch::new();
    let Some(disk) = SmallDisk::new(&scratch, "small", 60) else { skip!("a small disk needs root and tmpfs") };
    let cluster = Cluster::builder(&scratch).start();
    let url = file_url(&disk.join("repository"));
    let host = Served::on(&scratch, &url).environment("one", &cluster.dsn(), "").host("here");
    let mut service = host.serve();
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    assert_eq!(host.ended(&host.ask("base", "one"), &mut service)["outcome"], "done");
    let filling = disk.fill();
    rows(&cluster, "a");
    let failed = host.ended(&host.ask_in_time("base", "one"), &mut service);
    assert_eq!(failed["exit_code"], 5, "{failed:#}");
    let told = failed["message"].as_str().unwrap_or_default();
    assert!(told.contains("full") || told.contains("space"), "{failed:#}");
    assert!(!received(&cluster, "one"), "told PostgreSQL that it is durable, which it cannot be");
    let kept = "SELECT restart_lsn < pg_current_wal_flush_lsn() FROM pg_replication_slots WHERE slot_name = 'one'";
    assert_eq!(cluster.psql("postgres", kept), "t", "PostgreSQL keeps what is not stored");
    // Somebody makes room.
    fs::remove_file(filling).expect("a file");
    wait_until("what waited is received", PATIENCE, || received(&cluster, "one"));
    let done = host.ended(&host.ask_in_time("base", "one"), &mut service);
    assert_eq!(done["outcome"], "done", "{done:#}");
    rows(&cluster, "b");
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
    // What could not be written into the ledger then was written later.
    assert_eq!((host.jobs("one", "failed").len(), host.jobs("one", "done").len()), (1, 2));
    host.lifeboat.run(&["verify", "--deep", "-e", "one"]).ok();
    host.lifeboat.run(&["evidence", "verify", "-e", "one"]).ok();
    restored(&host, &scratch, &cluster, &["a", "b"]);
}
