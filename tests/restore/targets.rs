//! Targets: reached exactly, or refused with the nearest that can be.

use std::fs;

use super::refused;
use crate::common::{Cluster, Estate, Scratch};

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
