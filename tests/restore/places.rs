//! Directories: nothing that exists is touched, PostgreSQL accepts what was written, and a killed restore is
//! continued.

use std::fs;
use std::path::Path;

use super::{PATIENCE, refused};
use crate::common::{Cluster, Estate, Lifeboat, Scratch, as_server, own, pgbench_init, pgbench_run, skip, wait_until};

/// Names, sizes and times of everything below a directory.
fn state_of(directory: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(directory).sort_by_file_name().into_iter().map(|e| e.expect("readable"));
    let state = entries.map(|entry| {
        let about = entry.metadata().expect("metadata");
        format!("{} {} {:?} {:?}", entry.path().display(), about.len(), about.modified(), about.permissions())
    });
    state.collect()
}

#[test]
fn what_exists_is_never_touched() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).tablespace("far").start();
    let estate = Estate::builder(&scratch, &cluster).init();
    cluster.psql("postgres", "CREATE TABLE t (id int) TABLESPACE far; INSERT INTO t VALUES (1)");
    let receiver = estate.receive(&cluster);
    estate.backup();
    estate.run(&["backup", "configuration"]);
    estate.caught_up(&cluster);
    receiver.kill9();
    cluster.stop();

    // The very data directory, another directory with something in it, and a file.
    let occupied = scratch.join("occupied");
    fs::create_dir(&occupied).expect("a directory");
    fs::write(occupied.join("precious"), "x").expect("a file");
    let empty = scratch.join("pg/tablespace-far");
    let other = scratch.server_dir("other");
    // So that the copy of the ledger in the state directory is complete.
    estate.run(&["show"]).ok();
    let before = state_of(scratch.path());
    refused(estate.restore("latest", cluster.data_dir(), &[]), 2);
    refused(estate.restore("latest", &occupied, &[]), 2);
    refused(estate.restore("latest", &occupied.join("precious"), &[]), 2);
    let place = other.join("data");
    // The tablespace's place is occupied by the old cluster, even where it is dead.
    let told = refused(estate.restore("latest", &place, &[]), 2);
    assert!(told.contains("--tablespace-mapping"), "{told}");
    let (empty, occupied) = (empty.display().to_string(), occupied.display().to_string());
    for mapping in [format!("{empty}={occupied}"), format!("{empty}x=/nowhere"), "nonsense".into()] {
        refused(estate.restore("latest", &place, &["--tablespace-mapping", &mapping]), 2);
    }
    let mapping = format!("{empty}={}", other.join("space").display());
    let mapped = ["--tablespace-mapping", mapping.as_str()];
    refused(estate.restore("latest", &place, &[&mapped[..], &["--filestore", &occupied]].concat()), 2);
    refused(estate.restore("latest", &place, &[&mapped[..], &["--configuration", &occupied]].concat()), 2);
    assert_eq!(state_of(scratch.path()), before);

    estate.restore("latest", &place, &mapped).ok();
    // With the old cluster out of the way its tablespaces go back to where they were.
    fs::rename(scratch.join("pg"), scratch.join("away")).expect("moved");
    let copy = estate.restored("latest", "r", &cluster);
    assert_eq!(copy.psql("postgres", "SELECT count(*) FROM t"), "1");
    assert!(Path::new(&empty).join(format!("PG_{}_", cluster.major())).parent().is_some_and(Path::exists));
}

fn tool_says(cluster: &Cluster, name: &str, args: &[&str]) -> (bool, String) {
    let output = as_server(&cluster.bin_dir().join(name)).args(args).output().expect("PostgreSQL's tools");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn postgresql_itself_accepts_what_was_restored() {
    let scratch = Scratch::new();
    let mut cluster =
        Cluster::builder(&scratch).config("archive_mode = on\narchive_command = 'touch /nowhere/%f'").start();
    let estate = Estate::builder(&scratch, &cluster).init();
    if !pgbench_init(&cluster, "postgres", 1) {
        skip!("no pgbench");
    }
    cluster.psql("postgres", "CREATE EXTENSION amcheck");
    cluster.psql("postgres", "ALTER SYSTEM SET work_mem = '5MB'");
    let receiver = estate.receive(&cluster);
    estate.backup();
    pgbench_run(&scratch, &cluster, "postgres", 2, 2).expect("pgbench").wait();
    let digest = "SELECT count(*), sum(delta) FROM pgbench_history";
    let expected = cluster.psql("postgres", digest);
    estate.caught_up(&cluster);
    receiver.kill9();
    cluster.kill9();

    // Before the start: every file is one that the source sent.
    let unstarted = estate.place("unstarted");
    estate.restore("latest", &unstarted, &["--no-start"]).ok();
    let path = unstarted.to_str().expect("UTF-8");
    let (accepted, said) = tool_says(&cluster, "pg_verifybackup", &["-n", path]);
    assert!(accepted, "{said}");
    let control = tool_says(&cluster, "pg_controldata", &[path]).1;
    assert!(control.contains("in production") || control.contains("shut down"), "{control}");

    // The operator's own start: the server's account needs program, configuration and keys.
    own(scratch.path());
    if as_server(Path::new("test")).args(["-x", Lifeboat::program()]).status().expect("test").success() {
        let copy = Cluster::adopt(&scratch, &unstarted, cluster.major());
        wait_until("recovery ends", PATIENCE, || copy.psql("postgres", "SELECT pg_is_in_recovery()") == "f");
        assert_eq!(copy.psql("postgres", digest), expected);
        assert_eq!(copy.psql("postgres", "SHOW archive_mode; SHOW work_mem"), "off\n5MB");
        assert!(copy.log().contains("recovery stopping after WAL location"), "{}", copy.log());
        assert!(!copy.log().contains("could not restore"), "{}", copy.log());
    } else {
        println!("SKIPPED in part: {} cannot be run by the servers' account", Lifeboat::program());
    }

    let place = estate.place("recovered");
    estate.restore("latest", &place, &[]).ok();
    let path = place.to_str().expect("UTF-8");
    let control = tool_says(&cluster, "pg_controldata", &[path]).1;
    assert!(control.contains("shut down\n") && control.contains("TimeLineID:       2"), "{control}");
    let (accepted, said) = tool_says(&cluster, "pg_checksums", &["--check", "-D", path]);
    assert!(accepted && said.contains("Bad checksums:  0"), "{said}");
    for left in ["recovery.signal", "standby.signal", "lifeboat-restore", "lifeboat-restore.json", "postmaster.pid"] {
        assert!(!place.join(left).exists(), "{left} was left behind");
    }
    let copy = Cluster::adopt(&scratch, &place, cluster.major());
    assert_eq!(copy.psql("postgres", "SHOW archive_mode; SHOW restore_command; SHOW work_mem"), "off\n\n5MB");
    assert_eq!(copy.psql("postgres", digest), expected);
    let socket = copy.socket_dir().to_str().expect("UTF-8");
    let judge = ["-h", socket, "-U", "postgres", "--all", "--install-missing", "--heapallindexed", "--parent-check"];
    let (accepted, said) = tool_says(&cluster, "pg_amcheck", &judge);
    assert!(accepted, "{said}");
}

#[test]
fn a_killed_restore_is_continued() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).tablespace("far").start();
    let estate = Estate::builder(&scratch, &cluster).init();
    cluster.psql(
        "postgres",
        "CREATE TABLE a (id int, x text); CREATE TABLE t (id int, x text) TABLESPACE far;
         INSERT INTO a SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 150000) i",
    );
    let receiver = estate.receive(&cluster);
    estate.backup();
    estate.run(&["backup", "configuration"]);
    cluster.psql("postgres", "INSERT INTO t SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 250000) i");
    let middle = cluster.psql("postgres", "SELECT pg_current_wal_insert_lsn()");
    cluster.psql("postgres", "INSERT INTO t VALUES (0, 'last')");
    let digest = "SELECT count(*), sum(hashtext(x)::bigint) FROM (SELECT x FROM a UNION ALL SELECT x FROM t) AS u";
    let expected = cluster.psql("postgres", digest);
    estate.caught_up(&cluster);
    receiver.kill9();
    cluster.kill9();

    let place = estate.place("r");
    let space = scratch.join("r/space");
    let mapping = format!("{}={}", scratch.join("pg/tablespace-far").display(), space.display());
    let arguments =
        ["restore", "--to", "latest", "--pgdata", place.to_str().expect("UTF-8"), "--tablespace-mapping", &mapping];
    let killed_when = |what: &str, now: &dyn Fn() -> bool| {
        let mut running = estate.spawn(&arguments);
        wait_until(what, PATIENCE, || now() || !running.is_running());
        assert!(running.is_running(), "it was done before: {what}: {}", running.said());
        running.kill9();
    };
    let journal = || fs::read_to_string(place.join("lifeboat-restore.json")).unwrap_or_default();
    let control = place.join("global/pg_control");
    let laid_out = || control.with_extension("lifeboat").exists() || control.exists();
    killed_when("files are written", &|| laid_out() && !journal().contains("files"));
    assert!(!control.exists(), "a half-written directory could be started");
    // Neither another target nor other directories may continue it.
    refused(estate.restore(&format!("lsn:{middle}"), &place, &["--tablespace-mapping", &mapping]), 2);
    let told = refused(estate.restore("latest", &place, &["--tablespace-mapping", &format!("{mapping}2")]), 2);
    assert!(told.contains("--to lsn:"), "{told}");
    let precious = scratch.join("precious");
    fs::create_dir(&precious).expect("a directory");
    fs::write(precious.join("x"), "x").expect("a file");
    let more = ["--tablespace-mapping", &mapping, "--configuration", precious.to_str().expect("UTF-8")];
    refused(estate.restore("latest", &place, &more), 2);
    assert!(precious.join("x").exists());

    killed_when("recovery runs", &|| journal().contains("files") && place.join("postmaster.pid").exists());
    assert!(place.join("recovery.signal").exists(), "recovery was over before it could be killed");
    killed_when("recovery has ended", &|| {
        journal().contains("files")
            && !place.join("recovery.signal").exists()
            && place.join("backup_label.old").exists()
    });
    estate.run(&arguments).ok();
    assert!(!place.join("lifeboat-restore.json").exists());
    refused(estate.run(&arguments), 2);
    let copy = Cluster::adopt(&scratch, &place, cluster.major());
    assert_eq!(copy.psql("postgres", digest), expected);
}
