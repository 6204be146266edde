//! Restores: to exactly the place that was asked for, refused where that cannot be, continued where they
//! were interrupted, and never over anything that exists.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{
    Cluster, Estate, Journal, Lifeboat, Output, Scratch, as_server, own, pgbench_init, pgbench_run, skip, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Rows of `t`, each committed alone.
struct Commits {
    /// For each row: its transaction, when it committed, and where WAL was right behind it.
    rows: Vec<Commit>,
}

#[derive(Debug, Clone)]
struct Commit {
    xid: u64,
    /// Commit time in microseconds since 1970.
    micros: i64,
    lsn: u64,
}

fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').expect("an LSN");
    u64::from_str_radix(high, 16).expect("hex") << 32 | u64::from_str_radix(low, 16).expect("hex")
}

fn lsn_text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

fn time_text(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).expect("a time");
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

impl Commits {
    fn make(cluster: &Cluster, count: usize) -> Self {
        cluster.psql("postgres", "CREATE TABLE t (id int PRIMARY KEY)");
        let mut ends = Vec::new();
        for id in 1..=count {
            cluster.psql("postgres", &format!("INSERT INTO t VALUES ({id})"));
            ends.push(lsn(&cluster.psql("postgres", "SELECT pg_current_wal_insert_lsn()")));
            match id % 10 {
                // What is no commit must not be taken for one.
                3 => drop(cluster.psql("postgres", "BEGIN; INSERT INTO t VALUES (-1); ROLLBACK")),
                5 => drop(cluster.psql("postgres", "SELECT pg_switch_wal()")),
                8 => drop(cluster.psql("postgres", "CHECKPOINT")),
                _ => {}
            }
        }
        let known = cluster.psql(
            "postgres",
            "SELECT xmin::text::bigint, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint \
             FROM t ORDER BY id",
        );
        let rows = known.lines().zip(ends).map(|(line, lsn)| {
            let (xid, micros) = line.split_once('|').expect("two columns");
            Commit { xid: xid.parse().expect("xid"), micros: micros.parse().expect("time"), lsn }
        });
        Self { rows: rows.collect() }
    }

    /// How many rows a restore to this time has.
    fn at_time(&self, micros: i64) -> usize {
        self.rows.partition_point(|row| row.micros <= micros)
    }

    fn at_lsn(&self, lsn: u64) -> usize {
        self.rows.partition_point(|row| row.lsn <= lsn)
    }
}

/// How many rows of `t` a plan keeps, by the transactions that it names.
fn kept(commits: &Commits, plan: &serde_json::Value) -> usize {
    let xid = |name: &str| plan["plan"]["target"][name]["xid"].as_u64();
    let kept = commits.rows.partition_point(|row| Some(row.xid) <= xid("last_kept"));
    let lost = commits.rows.partition_point(|row| xid("first_lost").is_none_or(|xid| row.xid < xid));
    assert_eq!(kept, lost, "{plan}");
    kept
}

fn rows(copy: &Cluster) -> usize {
    let found = copy.psql("postgres", "SELECT count(*), coalesce(max(id), 0) FROM t");
    let (count, max) = found.split_once('|').expect("two columns");
    assert_eq!(count, max, "the rows are no prefix");
    count.parse().expect("a number")
}

#[test]
fn every_commit_is_a_place_to_stop() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).wal_segment_mib(1).config("track_commit_timestamp = on").start();
    let estate = Estate::builder(&scratch, &cluster).init();
    let receiver = estate.receive(&cluster);
    estate.backup();
    let commits = Commits::make(&cluster, 60);
    estate.caught_up(&cluster);
    receiver.kill9();
    cluster.kill9();

    let mut targets: Vec<(String, usize)> = Vec::new();
    for index in [0, 1, 7, 13, 22, 24, 25, 31, 44, 58] {
        let row = &commits.rows[index];
        targets.push((format!("lsn:{}", lsn_text(row.lsn)), commits.at_lsn(row.lsn)));
        targets.push((format!("lsn:{}", lsn_text(row.lsn - 1)), commits.at_lsn(row.lsn - 1)));
        for micros in [row.micros, row.micros - 1, row.micros + 1] {
            targets.push((time_text(micros), commits.at_time(micros)));
        }
    }
    // Before the first row there is only what the backup itself left.
    targets.retain(|(target, rows)| *rows > 0 || target.starts_with("lsn"));
    for (target, expected) in &targets {
        let plan = estate.plan(target).ok().json();
        assert_eq!(kept(&commits, &plan), *expected, "plan for {target}");
    }
    for at in [3, 12, 41] {
        let (target, expected) = &targets[at];
        let copy = estate.restored(target, &format!("r{at}"), &cluster);
        assert_eq!(rows(&copy), *expected, "restored to {target}");
    }
    assert_eq!(rows(&estate.restored("latest", "r-latest", &cluster)), 60);
}

/// Must be refused with `code`; what was said.
#[track_caller]
fn refused(output: Output, code: i32) -> String {
    let json = output.expect_code(code).json();
    let error = &json["error"];
    format!("{} {}", error["message"].as_str().expect("a message"), error["hints"])
}

#[test]
fn a_target_that_cannot_be_reached_is_refused_with_the_nearest_that_can() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).config("track_commit_timestamp = on").start();
    let estate = Estate::builder(&scratch, &cluster).init();
    assert!(refused(estate.plan("latest"), 7).contains("holds no WAL"));
    let receiver = estate.receive(&cluster);
    let first = estate.backup();
    cluster.psql("postgres", "CREATE TABLE t (id int)");
    let commit = |id: u32| {
        cluster.psql("postgres", &format!("INSERT INTO t VALUES ({id})"));
        let time = "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint FROM t WHERE id =";
        let micros: i64 = cluster.psql("postgres", &format!("{time} {id}")).parse().expect("a time");
        let segment = cluster.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
        let lsn = cluster.psql("postgres", "SELECT pg_current_wal_insert_lsn()");
        cluster.psql("postgres", "SELECT pg_create_restore_point('after ' || max(id)) FROM t");
        cluster.psql("postgres", "SELECT pg_switch_wal()");
        (micros, segment, lsn)
    };
    let (before, _, _) = commit(1);
    let (_, lost, _) = commit(2);
    let (inside, _, inside_lsn) = commit(3);
    let second = estate.backup();
    let (after, _, after_lsn) = commit(4);
    estate.caught_up(&cluster);
    receiver.kill9();
    cluster.kill9();
    let gone = estate.stored("wal/00000001").join(&lost);
    fs::remove_file(&gone).unwrap_or_else(|e| panic!("{}: {e}", gone.display()));

    let year_ago = refused(estate.plan("2020-01-01T00:00:00Z"), 7);
    assert!(year_ago.contains(&format!("backup:{first}")), "{year_ago}");
    let too_early = refused(estate.plan("lsn:0/1000"), 7);
    assert!(too_early.contains(&format!("backup:{first}")), "{too_early}");
    let too_late = refused(estate.plan("2100-01-01T00:00:00Z"), 7);
    assert!(too_late.contains("latest"), "{too_late}");
    let unwritten = refused(estate.plan("lsn:FF/0"), 7);
    assert!(unwritten.contains("latest"), "{unwritten}");

    let in_gap = refused(estate.plan(&time_text(inside)), 7);
    assert!(in_gap.contains(&lost) && in_gap.contains(&format!("backup:{second}")), "{in_gap}");
    let nearest = in_gap.split("before it is ").nth(1).and_then(|t| t.split('"').next()).expect("a time").to_owned();
    let lsn_in_gap = refused(estate.plan(&format!("lsn:{inside_lsn}")), 7);
    assert!(lsn_in_gap.contains(&lost), "{lsn_in_gap}");
    refused(estate.plan("name:after 3"), 7);
    // What the refusals name can be had.
    for (target, count) in [(nearest.as_str(), "1"), (&format!("backup:{second}"), "3")] {
        let copy = estate.restored(target, &format!("r{count}"), &cluster);
        assert_eq!(copy.psql("postgres", "SELECT count(*) FROM t"), count, "{target}");
    }
    for target in [time_text(before), format!("lsn:{after_lsn}"), "name:after 4".into(), format!("backup:{first}")] {
        estate.plan(&target).ok();
    }
    let last_commit = estate.plan(&time_text(after)).ok().json();
    assert_eq!(last_commit["plan"]["base"], second.as_str());

    let unnamed = refused(estate.plan("name:no such point"), 7);
    assert!(unnamed.contains("after 4"), "{unnamed}");
    let unknown = refused(estate.plan("backup:20200101T000000Z-0000"), 7);
    assert!(unknown.contains(&second), "{unknown}");
    let zone = refused(estate.plan("2026-11-22 20:35:00"), 2);
    assert!(zone.contains("2026-11-22 20:35:00Z"), "{zone}");
    for nonsense in ["yesterday", "lsn:now", "lsn:", "name:", "backup:", ""] {
        refused(estate.plan(nonsense), 2);
    }
    assert!(!scratch.join("planned").exists(), "a plan touched its target");
}

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

#[test]
fn the_loss_is_what_the_clients_journal_says() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    let busy = pgbench_init(&cluster, "postgres", 2);
    let receiver = estate.receive(&cluster);
    let load = busy.then(|| pgbench_run(&scratch, &cluster, "postgres", 4, 60).expect("pgbench"));
    let journal = Journal::start(&cluster, "postgres");
    journal.wait_for(50);
    estate.backup();
    journal.wait_for(300);
    // Both die at once: what the receiver had not stored is lost.
    receiver.kill9();
    cluster.kill9();
    let said = journal.stop();
    drop(load);
    let last = said.acknowledged.last().expect("commits").id;

    let plan = estate.plan("latest").ok().json();
    let copy = estate.restored("latest", "r", &cluster);
    let found = copy.psql("postgres", "SELECT count(*), max(id) FROM journal");
    let (count, max) = found.split_once('|').expect("two columns");
    let present: i64 = max.parse().expect("a number");
    assert_eq!(count, max, "a hole in the journal");
    assert!(
        present <= said.in_doubt.unwrap_or(last),
        "a row that nobody wrote: {present}, in doubt {:?}",
        said.in_doubt
    );
    // One segment's piece each second at the latest: hardly more than a second of commits is lost.
    let lost: Vec<_> = said.acknowledged.iter().filter(|ack| ack.id > present).collect();
    assert_eq!(lost.len() as i64, (last - present).max(0));
    if let (Some(first), Some(end)) = (lost.first(), said.acknowledged.last()) {
        let window = end.at - first.at;
        assert!(window < chrono::TimeDelta::seconds(5), "{} commits lost over {window}", lost.len());
    }
    println!("{} of {last} acknowledged commits lost; {}", lost.len(), plan["plan"]["target"]["last_kept"]);
    // pgbench's invariant: each transaction is there as a whole or not at all.
    if busy {
        let sums = copy.psql(
            "postgres",
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
                    (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)",
        );
        assert_eq!(sums, "t|t");
    }
}

#[test]
fn nothing_is_lost_that_reached_the_repository() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).config("synchronous_standby_names = 'lifeboat'").start();
    let estate = Estate::builder(&scratch, &cluster).init();
    let receiver = estate.receive(&cluster);
    let name = cluster.psql("postgres", "SELECT application_name, sync_state FROM pg_stat_replication");
    assert!(name.ends_with("sync"), "the receiver is no synchronous standby: {name}");
    let journal = Journal::start(&cluster, "postgres");
    journal.wait_for(10);
    estate.backup();
    journal.wait_for(20);
    cluster.kill9();
    let said = journal.stop();
    receiver.kill9();
    let copy = estate.restored("latest", "r", &cluster);
    let present: i64 = copy.psql("postgres", "SELECT max(id) FROM journal").parse().expect("a number");
    let last = said.acknowledged.last().expect("commits").id;
    assert!(present >= last, "acknowledged by a synchronous standby and lost: {last} > {present}");
    assert!(present <= said.in_doubt.unwrap_or(last), "{present} {said:?}");
}

#[test]
fn the_repository_and_a_recovery_key_are_enough() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    let receiver = estate.receive(&cluster);
    estate.backup();
    cluster.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    estate.caught_up(&cluster);
    receiver.kill9();
    cluster.kill9();
    fs::remove_dir_all(scratch.join("pg")).expect("the cluster's directory");
    fs::remove_dir_all(scratch.join("state")).expect("the state directory");

    let place = estate.place("r");
    let restored = estate.restore("latest", &place, &[]).ok();
    assert!(restored.json()["ledger"].is_null(), "a host that is no member wrote to the ledger");
    let old = "SELECT count(*), max(id) FROM t";
    // The new host becomes a member, and backups of the restored cluster go on in the same repository.
    assert_eq!(estate.lifeboat.run(&["--format", "json", "init"]).ok().json()["result"], "enrolled");
    let copy = Cluster::adopt(&scratch, &place, cluster.major());
    assert_eq!(copy.psql("postgres", old), "1000|1000");
    estate.reconfigure(&cluster.dsn(), &copy.dsn());
    let receiver = estate.receive(&copy);
    estate.backup();
    copy.psql("postgres", "INSERT INTO t SELECT generate_series(1001, 1500)");
    estate.caught_up(&copy);
    receiver.kill9();
    drop(copy);
    let again = estate.restored("latest", "r2", &cluster);
    assert_eq!(again.psql("postgres", old), "1500|1500");
    estate.run(&["verify", "--deep"]).ok();
    estate.run(&["evidence", "verify"]).ok();
    drop(again);
    // The old timeline is still there.
    let first = estate.run(&["restore", "--plan", "--to", "latest", "--pgdata", "/nowhere/r"]).ok().json();
    assert_eq!(first["plan"]["target"]["timeline"], 2);
}

#[test]
fn a_base_backup_can_be_restored_without_a_receiver() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    let journal = Journal::start(&cluster, "postgres");
    journal.wait_for(10);
    let before = journal.acknowledged().len();
    let id = estate.backup();
    let said = journal.stop();
    cluster.kill9();
    for (target, name) in [("latest", "r1"), (&*format!("backup:{id}"), "r2")] {
        let copy = estate.restored(target, name, &cluster);
        let present: usize = copy.psql("postgres", "SELECT count(*) FROM journal").parse().expect("a number");
        assert!((before..=said.acknowledged.len() + 1).contains(&present), "{before} {present}");
    }
}

#[test]
fn latest_is_never_what_lies_before_a_gap() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    let receiver = estate.receive(&cluster);
    estate.backup();
    cluster.psql("postgres", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    cluster.psql("postgres", "SELECT pg_switch_wal()");
    let lost = cluster.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    cluster.psql("postgres", "INSERT INTO t VALUES (2)");
    cluster.psql("postgres", "SELECT pg_switch_wal()");
    cluster.psql("postgres", "INSERT INTO t VALUES (3)");
    estate.caught_up(&cluster);
    fs::remove_file(estate.stored("wal/00000001").join(&lost)).expect("an archived segment");
    let told = refused(estate.plan("latest"), 7);
    assert!(told.contains(&lost), "{told}");
    let nearest = told.split("--to ").nth(1).and_then(|t| t.split('`').next()).expect("a target");
    let copy = estate.restored(nearest, "r", &cluster);
    assert_eq!(copy.psql("postgres", "SELECT max(id) FROM t"), "1");
    // A base backup behind the gap makes the latest state reachable again.
    estate.backup();
    estate.plan("latest").ok();
    drop(receiver);
}
