//! Disks that are full and stores that are away, for a while or for good.

use std::fs;
use std::time::{Duration, Instant};

use super::{PATIENCE, digest, refused, rows};
use crate::common::{Cluster, Estate, FlakyProxy, Journal, Moto, Scratch, SmallDisk, file_url, skip, wait_until};

#[test]
fn a_full_repository_stops_the_backup_and_harms_nothing() {
    let scratch = Scratch::new();
    let Some(disk) = SmallDisk::new(&scratch, "small", 12) else { skip!("a small disk needs root and tmpfs") };
    let cluster = Cluster::builder(&scratch).start();
    let url = file_url(&disk.join("repository"));
    let estate = Estate::builder(&scratch, &cluster).repository(&url).retry_for("2s").init();
    let first = estate.backup();
    cluster.psql(
        "postgres",
        "CREATE TABLE t AS SELECT i AS id, string_agg(md5((i * j)::text), '') AS x
         FROM generate_series(1, 3000) i, generate_series(1, 200) j GROUP BY i",
    );
    let expected = digest(&cluster, "t");
    let told = refused(estate.run(&["backup", "base"]), 5);
    assert!(told.contains("full") || told.contains("space"), "{told}");
    // The first backup is whole, and with room the next run works.
    disk.grow(200);
    estate.plan(&format!("backup:{first}")).ok();
    estate.backup();
    estate.run(&["verify", "--deep"]).ok();
    assert_eq!(digest(&estate.restored("latest", "r", &cluster), "t"), expected);
}

#[test]
fn a_full_target_disk_leaves_nothing_that_could_be_started() {
    let scratch = Scratch::new();
    let Some(disk) = SmallDisk::new(&scratch, "small", 20) else { skip!("a small disk needs root and tmpfs") };
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    rows(&cluster, "t", 700_000);
    let expected = digest(&cluster, "t");
    estate.backup();
    let place = disk.join("data");
    // Too small from the start: refused before a byte is written.
    let told = refused(estate.restore("latest", &place, &[]), 2);
    assert!(told.contains("free"), "{told}");
    assert!(!place.exists());
    // Large enough at the start; then something else takes the room while files are written.
    disk.grow(160);
    let running = estate.spawn(&["restore", "--pgdata", place.to_str().expect("UTF-8")]);
    let control = place.join("global/pg_control");
    wait_until("files are written", PATIENCE, || control.with_extension("lifeboat").exists() || control.exists());
    let mut other = fs::File::create(disk.join("other")).expect("a file");
    while std::io::Write::write_all(&mut other, &[1; 1 << 20]).is_ok() {}
    let told = refused(running.wait(PATIENCE), 70);
    assert!(told.contains("full"), "{told}");
    let journal = fs::read_to_string(place.join("lifeboat-restore.json")).expect("a journal");
    assert!(journal.contains("files") || !control.exists(), "a half-written directory could be started");
    // Its room is free only when nobody has it open any more.
    drop(other);
    fs::remove_file(disk.join("other")).expect("a file");
    disk.grow(400);
    estate.restore("latest", &place, &[]).ok();
    let copy = Cluster::adopt(&scratch, &place, cluster.major());
    assert_eq!(digest(&copy, "t"), expected);
}

/// An estate on moto behind a network that fails on command.
struct Far {
    estate: Estate,
    cluster: Cluster,
    proxy: FlakyProxy,
    _moto: Moto,
}

fn far(retry_for: &str) -> Option<Far> {
    let scratch = Scratch::new();
    let moto = Moto::start_new(&scratch)?;
    moto.create_bucket("backups");
    let proxy = FlakyProxy::new(moto.port());
    let cluster = Cluster::builder(&scratch).start();
    let repository = Estate::s3("backups", &proxy.endpoint());
    let estate = Estate::builder(&scratch, &cluster).repository(&repository).retry_for(retry_for).init();
    Some(Far { estate, cluster, proxy, _moto: moto })
}

#[test]
fn a_store_that_comes_back_costs_time_and_nothing_else() {
    let Some(Far { estate, mut cluster, proxy, _moto }) = far("60s") else { skip!("no moto (LIFEBOAT_TEST_MOTO)") };
    cluster.psql(
        "postgres",
        "CREATE TABLE t AS SELECT i AS id, string_agg(md5((i * j)::text), '') AS x
         FROM generate_series(1, 4000) i, generate_series(1, 300) j GROUP BY i",
    );
    let receiver = estate.receive(&cluster);
    let journal = Journal::start(&cluster, "postgres");
    let backup = estate.spawn(&["backup", "base", "--reader", "streamed"]);
    wait_until("the backup streams", PATIENCE, || {
        cluster.psql("postgres", "SELECT count(*) FROM pg_stat_progress_basebackup") != "0"
    });
    proxy.cut();
    let down = Instant::now();
    while down.elapsed() < Duration::from_secs(10) {
        journal.wait_for(10);
    }
    proxy.silence();
    while down.elapsed() < Duration::from_secs(15) {
        journal.wait_for(10);
    }
    proxy.restore();
    backup.wait(Duration::from_secs(120)).ok();
    estate.caught_up(&cluster);
    let said = journal.stop();
    estate.caught_up(&cluster);
    let expected = digest(&cluster, "t");
    receiver.kill9();
    cluster.kill9();
    let copy = estate.restored("latest", "r", &cluster);
    assert_eq!(digest(&copy, "t"), expected);
    let present = copy.psql("postgres", "SELECT count(*) FROM journal");
    assert_eq!(present, said.acknowledged.len().to_string());
    estate.run(&["verify", "--deep"]).ok();
}

#[test]
fn a_store_that_stays_away_ends_the_backup_and_postgresql_keeps_its_wal() {
    let Some(Far { estate, cluster, proxy, _moto }) = far("3s") else { skip!("no moto (LIFEBOAT_TEST_MOTO)") };
    let mut receiver = estate.receive(&cluster);
    rows(&cluster, "t", 1000);
    estate.backup();
    estate.caught_up(&cluster);
    proxy.cut();
    let began = Instant::now();
    let told = refused(estate.run(&["backup", "base"]), 5);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    assert!(told.contains("reach") || told.contains("store"), "{told}");
    cluster.psql("postgres", "INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1001, 200000) i");
    let expected = digest(&cluster, "t");
    let kept = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 20000000 FROM pg_replication_slots";
    assert_eq!(cluster.psql("postgres", kept), "t");
    // Both say how much waits, without the store.
    for command in [&["show"][..], &["doctor"]] {
        let arguments = [command, &["-e", "production"][..]].concat();
        let arguments = if command == ["doctor"] { command.to_vec() } else { arguments };
        let said = estate.lifeboat.run(&arguments);
        assert!(said.stdout.contains("MiB"), "{command:?} does not say how much waits: {}", said.stdout);
    }
    proxy.restore();
    if !receiver.is_running() {
        receiver = estate.receive(&cluster);
    }
    estate.caught_up(&cluster);
    receiver.kill9();
    assert_eq!(digest(&estate.restored("latest", "r", &cluster), "t"), expected);
}
