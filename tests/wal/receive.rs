//! `wal receive`: what PostgreSQL was told to be safe is safe, whatever breaks.

use super::*;

#[test]
fn what_is_received_is_what_postgresql_wrote() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).config("wal_keep_size = 1GB").start();
    let estate = Estate::in_folder(&scratch, &cluster);
    cluster.psql("postgres", "SELECT pg_create_physical_replication_slot('lifeboat', true)");
    let begin = cluster.psql("postgres", "SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots");
    assert!(pgbench_init(&cluster, "postgres", 2), "pgbench");
    switch(&cluster);
    cluster.psql("postgres", "INSERT INTO pgbench_history (tid) VALUES (1)");
    let end = current(&cluster);
    let received = estate.receive_until(&end);
    assert_eq!(received["received"]["reached"], true);
    assert!(received["received"]["segments"].as_u64() > Some(1), "{received}");
    assert!(estate.stored("wal/00000001").contains(&begin));
    for name in estate.stored("wal/00000001") {
        let original = fs::read(cluster.data_dir().join("pg_wal").join(&name)).expect("kept");
        assert!(estate.fetched(&name) == original, "{name} differs");
    }
    // The segment being written: its pieces, padded.
    let live = cluster.psql("postgres", &format!("SELECT pg_walfile_name('{end}')"));
    let piece = estate.fetched(&live);
    let written = (lsn(&end) % (16 << 20)) as usize;
    let original = fs::read(cluster.data_dir().join("pg_wal").join(&live)).expect("there");
    assert_eq!(piece.len(), 16 << 20);
    assert!(piece[..written] == original[..written], "{live} differs");
}

#[test]
fn a_receiver_that_is_killed_again_and_again_loses_nothing() {
    let scratch = Scratch::new();
    let (cluster, first) = Estate::cluster_with_slot(&scratch, 1);
    let estate = Estate::in_folder(&scratch, &cluster);
    assert!(pgbench_init(&cluster, "postgres", 1), "pgbench");
    let load = pgbench_run(&scratch, &cluster, "postgres", 2, 600);
    for pause in [400, 50, 900, 10, 600, 200] {
        let receiver = estate.receive();
        let begin = current(&cluster);
        wait_flushed(&cluster, &begin);
        std::thread::sleep(Duration::from_millis(pause)); // a moment that nothing announces
        let told = flushed(&cluster).expect("streaming");
        receiver.kill9();
        // What was told to be flushed is there, though the receiver is not.
        estate.assert_holds(&cluster, &cluster.psql("postgres", &format!("SELECT pg_walfile_name('{told}')")), &told);
    }
    drop(load);
    let end = current(&cluster);
    estate.receive_until(&end);
    estate.assert_holds(&cluster, &first, &end);
    assert!(estate.stored("wal/00000001").len() > 5);
    if let Some(waldump) = tool(cluster.major(), "pg_waldump") {
        let folder = scratch.join("waldump");
        fs::create_dir(&folder).expect("a folder");
        let names = estate.stored("wal/00000001");
        for name in &names {
            fs::write(folder.join(name), estate.fetched(name)).expect("a file");
        }
        let read =
            Command::new(waldump).arg("-q").arg("-p").arg(&folder).args([&names[0], &names[names.len() - 2]]).output();
        let read = read.expect("pg_waldump");
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }
}

#[test]
fn segments_of_64_mib_are_received_too() {
    let scratch = Scratch::new();
    let (cluster, first) = Estate::cluster_with_slot(&scratch, 64);
    let estate = Estate::in_folder(&scratch, &cluster);
    let receiver = estate.receive();
    cluster.psql("postgres", "CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 100000) g");
    switch(&cluster);
    cluster.psql("postgres", "CREATE TABLE u AS SELECT * FROM t");
    let end = current(&cluster);
    wait_flushed(&cluster, &end);
    receiver.signal(Signal::SIGTERM);
    let stopped = receiver.wait(PATIENCE).ok();
    assert!(stopped.peak_rss < 256 << 20, "{}", stopped.peak_rss);
    estate.assert_holds(&cluster, &first, &end);
}

#[test]
fn a_service_that_is_stopped_leaves_everything_in_order() {
    let scratch = Scratch::new();
    let (mut cluster, first) = Estate::cluster_with_slot(&scratch, 16);
    let estate = Estate::in_folder(&scratch, &cluster);
    let receiver = estate.receive();
    cluster.psql("postgres", "CREATE TABLE t (i int)");
    wait_flushed(&cluster, &current(&cluster));
    // PostgreSQL restarts; the receiver comes back by itself.
    cluster.restart();
    switch(&cluster);
    wait_flushed(&cluster, &current(&cluster));
    assert!(receiver.stderr().contains("no WAL comes from PostgreSQL"), "{}", receiver.stderr());
    // The second one is refused, with the reason.
    let second = estate.lifeboat.run(&["wal", "receive", "-e", "production"]).expect_code(10);
    assert!(second.stderr.contains("another receiver uses the replication slot"), "{}", second.stderr);
    receiver.signal(Signal::SIGTERM);
    let stopped = receiver.wait(PATIENCE).ok();
    assert!(stopped.stdout.contains("is durable in the repository"), "{}", stopped.stdout);
    let end = flushed_by_slot(&cluster);
    estate.assert_holds(&cluster, &first, &end);
    let ledger = estate.lifeboat.run(&["--format", "json", "evidence", "show", "-e", "production"]).ok().stdout;
    assert!(ledger.contains("wal_range"), "{ledger}");
    let verified = estate.lifeboat.run(&["verify", "-e", "production", "--deep"]);
    assert_eq!(verified.code(), Some(0), "{verified:?}");
}

#[test]
fn an_idle_cluster_beats_and_its_pieces_stay_few() {
    let scratch = Scratch::new();
    let (cluster, _) = Estate::cluster_with_slot(&scratch, 16);
    let estate = Estate::in_folder(&scratch, &cluster);
    let receiver = estate.receive();
    wait_flushed(&cluster, &current(&cluster));
    let before = lsn(&current(&cluster));
    wait_until("heartbeats are durable", PATIENCE, || lsn(&flushed(&cluster).expect("streaming")) > before + 300);
    for _ in 0..40 {
        cluster.psql("postgres", "SELECT pg_logical_emit_message(true, 'test', 'x')");
        wait_flushed(&cluster, &current(&cluster));
    }
    let end = flushed(&cluster).expect("streaming");
    assert!(estate.stored("wal-live").len() < 34, "{:?}", estate.stored("wal-live"));
    receiver.kill9();
    estate.assert_holds(&cluster, &cluster.psql("postgres", &format!("SELECT pg_walfile_name('{end}')")), &end);
}

#[test]
fn a_store_that_is_away_costs_time_and_nothing_else() {
    let scratch = Scratch::new();
    let Some(moto) = Moto::start_new(&scratch) else { skip!("LIFEBOAT_TEST_MOTO is not set") };
    moto.create_bucket("estate");
    let proxy = FlakyProxy::new(moto.port());
    let (cluster, first) = Estate::cluster_with_slot(&scratch, 1);
    cluster.psql("postgres", "ALTER SYSTEM SET wal_sender_timeout = '2s'");
    cluster.psql("postgres", "SELECT pg_reload_conf()");
    let repository = format!(
        "url = \"s3://estate/x\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
         access_key_id = {{ env = \"AWS_ACCESS_KEY_ID\" }}\nsecret_access_key = {{ env = \"AWS_SECRET_ACCESS_KEY\" }}",
        proxy.endpoint()
    );
    let estate = Estate::with(&scratch, &repository, &cluster.dsn());
    let receiver = estate.receive();
    cluster.psql("postgres", "CREATE TABLE t (i int)");
    wait_flushed(&cluster, &current(&cluster));
    let walsender = "SELECT pid FROM pg_stat_replication WHERE application_name = 'lifeboat'";
    let pid = cluster.psql("postgres", walsender);
    proxy.cut();
    let before = flushed(&cluster).expect("streaming");
    cluster.psql("postgres", "INSERT INTO t SELECT generate_series(1, 200000)");
    let end = current(&cluster);
    // Longer than wal_sender_timeout and than retry_for.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(cluster.psql("postgres", walsender), pid, "PostgreSQL heard from the receiver all the time");
    let now = flushed(&cluster).expect("streaming");
    assert!(lsn(&now) < lsn(&before) + (2 << 20), "{now} cannot be durable");
    // What does not fit into memory stays with PostgreSQL; a fetch now is an error and no absence.
    let (code, path) = estate.fetch(&first);
    assert!(code > 125 && !path.exists(), "{code}");
    proxy.restore();
    wait_flushed(&cluster, &end);
    assert!(receiver.stderr().contains("the store failed"), "{}", receiver.stderr());
    receiver.signal(Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();
    estate.assert_holds(&cluster, &first, &end);
}

#[test]
fn a_store_that_refuses_ends_the_receiver_and_says_who_keeps_the_wal() {
    let scratch = Scratch::new();
    let (cluster, _) = Estate::cluster_with_slot(&scratch, 16);
    let estate = Estate::in_folder(&scratch, &cluster);
    let receiver = estate.receive();
    cluster.psql("postgres", "CREATE TABLE t (i int)");
    wait_flushed(&cluster, &current(&cluster));
    fs::rename(scratch.join("repository"), scratch.join("elsewhere")).expect("a folder");
    fs::write(scratch.join("repository"), "a file where the folder was").expect("a file");
    cluster.psql("postgres", "INSERT INTO t VALUES (1)");
    let ended = receiver.wait(PATIENCE).expect_code(5);
    assert!(ended.stderr.contains("keeps its WAL in slot \"lifeboat\" from"), "{}", ended.stderr);
}
