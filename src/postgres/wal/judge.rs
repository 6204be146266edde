//! The reader against `pg_waldump`, over WAL that a real PostgreSQL 15 wrote and crashed on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chrono::{DateTime, NaiveDateTime, Utc};

use super::header::SegmentHeader;
use super::history::TimelineHistory;
use super::reader::{WalEnd, WalReader};
use super::record::{Record, RecordKind};
use super::segment::validate;
use crate::postgres::backup_label::BackupLabel;
use crate::postgres::control_file::{ClusterState, ControlFile};
use crate::units::{Lsn, Timeline};
use crate::wal_name::{SegmentName, WalFileName};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// Names of `rmgrlist.h` as `pg_waldump` prints them, by number.
const RMGRS: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// A cluster in a temporary directory; stopped and removed when dropped.
struct Cluster {
    dir: tempfile::TempDir,
    run_as: Option<(u32, u32)>,
}

impl Cluster {
    fn new(segment_mib: u32) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let run_as = nix::unistd::geteuid().is_root().then(|| {
            let user = nix::unistd::User::from_name("postgres").expect("readable").expect("account postgres");
            nix::unistd::chown(dir.path(), Some(user.uid), Some(user.gid)).expect("chown");
            (user.uid.as_raw(), user.gid.as_raw())
        });
        let cluster = Self { dir, run_as };
        let size = format!("--wal-segsize={segment_mib}");
        cluster.tool("initdb", &["-D", "data", "-A", "trust", "-U", "postgres", "--no-sync", &size]);
        let settings = "listen_addresses = ''\nmax_prepared_transactions = 5\nwal_keep_size = '4GB'\nmax_wal_size = '4GB'\n\
            fsync = off\nautovacuum = off\nwal_level = logical\n";
        let file = cluster.data().join("postgresql.auto.conf");
        fs::write(&file, format!("{settings}unix_socket_directories = '{}'\n", cluster.dir.path().display()))
            .expect("write");
        cluster
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(Path::new(BIN).join(program));
        command.args(arguments).current_dir(self.dir.path()).env("TZ", "UTC").env("LC_ALL", "C");
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid).gid(gid);
        }
        command.output().expect(program)
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn start(&self) {
        // Output goes to a file: a server that inherits the pipe would keep it open.
        self.tool("pg_ctl", &["-D", "data", "-w", "-l", "log", "start"]);
    }

    fn stop(&self, mode: &str) {
        self.tool("pg_ctl", &["-D", "data", "-w", "-m", mode, "stop"]);
    }

    fn sql(&self, sql: &str) -> String {
        let socket = self.dir.path().to_str().expect("text");
        let arguments = ["-h", socket, "-U", "postgres", "-d", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql];
        self.tool("psql", &arguments).trim().to_owned()
    }

    fn lsn(&self, sql: &str) -> Lsn {
        self.sql(sql).parse().expect("a position")
    }

    fn segments(&self) -> Vec<(SegmentName, PathBuf)> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.data().join("pg_wal")).expect("pg_wal") {
            let path = entry.expect("entry").path();
            let name = path.file_name().and_then(|n| n.to_str()).expect("text").parse();
            if let Ok(WalFileName::Segment(name)) = name {
                found.insert(name, path);
            }
        }
        found.into_iter().collect()
    }

    fn control(&self) -> ControlFile {
        ControlFile::parse(&fs::read(self.data().join("global/pg_control")).expect("pg_control")).expect("valid")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            self.run("pg_ctl", &["-D", "data", "-w", "-m", "immediate", "stop"]);
        }
    }
}

/// What `pg_waldump` says about one record.
#[derive(Debug, PartialEq, Eq)]
struct Dumped {
    lsn: Lsn,
    xid: u32,
    rmgr: String,
    length: u32,
    /// For the end of a transaction: of which, how, when.
    outcome: Option<(&'static str, u32, DateTime<Utc>)>,
    restore_point: Option<String>,
}

fn parse_dumped(line: &str) -> Dumped {
    let between = |from: &str, to: &str| {
        let rest = line.split_once(from).unwrap_or_else(|| panic!("no {from} in {line}")).1;
        rest.split_once(to).map_or(rest, |(value, _)| value).trim()
    };
    let description = between("desc: ", "\n");
    let xid = between("tx:", ",").parse().expect("xid");
    let kinds = ["COMMIT_PREPARED", "ABORT_PREPARED", "COMMIT", "ABORT", "PREPARE"];
    let outcome = kinds.into_iter().find_map(|kind| {
        let rest = description.strip_prefix(kind).filter(|_| line.starts_with("rmgr: Transaction"))?;
        let rest = rest.strip_prefix(' ')?;
        let (of, rest) = match rest.split_once(": ") {
            Some((of, rest)) if of.bytes().all(|b| b.is_ascii_digit()) => (of.parse().expect("xid"), rest),
            _ => (xid, rest),
        };
        let rest = rest.strip_prefix("gid ").map_or(rest, |rest| rest.split_once(": ").expect("time").1);
        let time = rest.split_once(" UTC").expect("a time in UTC").0;
        let time = NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S%.6f").expect(time).and_utc();
        Some((kind, of, time))
    });
    Dumped {
        lsn: between("lsn: ", ",").parse().expect("lsn"),
        xid,
        rmgr: between("rmgr: ", " ").to_owned(),
        length: between("len (rec/tot):", ",").rsplit('/').next().expect("total").trim().parse().expect("length"),
        outcome,
        restore_point: description.strip_prefix("RESTORE_POINT ").map(str::to_owned),
    }
}

fn ours(record: &Record) -> Dumped {
    let outcome = match &record.kind {
        RecordKind::Commit { xid, time } => Some(("COMMIT", *xid, *time)),
        RecordKind::Abort { xid, time } => Some(("ABORT", *xid, *time)),
        RecordKind::CommitPrepared { xid, time } => Some(("COMMIT_PREPARED", *xid, *time)),
        RecordKind::AbortPrepared { xid, time } => Some(("ABORT_PREPARED", *xid, *time)),
        RecordKind::Prepare { xid, time } => Some(("PREPARE", *xid, *time)),
        _ => None,
    };
    let restore_point = match &record.kind {
        RecordKind::RestorePoint { name, .. } => Some(name.clone()),
        _ => None,
    };
    Dumped {
        lsn: record.start,
        xid: record.xid,
        rmgr: RMGRS[usize::from(record.rmgr)].to_owned(),
        length: record.length,
        outcome,
        restore_point,
    }
}

/// A new timeline begins within a segment: its file begins with pages of the old one.
fn promote(cluster: &Cluster, size: u64, end: Lsn) {
    fs::write(cluster.data().join("standby.signal"), "").expect("write");
    cluster.start();
    cluster.tool("pg_ctl", &["-D", "data", "-w", "promote"]);
    cluster.sql("INSERT INTO t VALUES (-99)");
    cluster.sql("SELECT pg_switch_wal()");
    cluster.stop("fast");

    let text = fs::read_to_string(cluster.data().join("pg_wal/00000002.history")).expect("a history file");
    let history = TimelineHistory::parse(Timeline(2), &text).expect("valid");
    assert_eq!(history.to_string(), text);
    assert_eq!(history.switch_from(Timeline(1)), Some(end));
    let control = cluster.control();
    let name = SegmentName::new(Timeline(2), end.segment(size), size);
    assert_eq!(history.of_segment(end.segment(size), size), Timeline(2));
    let bytes = fs::read(cluster.data().join("pg_wal").join(name.to_string())).expect("the first of timeline 2");
    assert_eq!(SegmentHeader::parse(&bytes).expect("valid").timeline, Timeline(1));
    let summary = validate(&name, &bytes, control.system_identifier, size, None).expect("complete").summary;
    assert!(summary.switched && summary.commits > 0);
    let old = SegmentName { timeline: Timeline(1), ..name };
    assert!(validate(&old, &bytes, control.system_identifier, size, None).is_err());
}

/// Everything that leaves an unusual record; gives positions that the server told.
fn work(cluster: &Cluster) -> Vec<Lsn> {
    let mut told = Vec::new();
    for sql in [
        "CREATE TABLE t (id int primary key, v text); INSERT INTO t SELECT g, repeat('x', g % 500) FROM generate_series(1, 3000) g",
        "CREATE DATABASE other",
        "BEGIN; INSERT INTO t VALUES (-1); SAVEPOINT s; INSERT INTO t VALUES (-2); ROLLBACK TO s; INSERT INTO t VALUES (-3); COMMIT",
        "BEGIN; CREATE TABLE gone (a int); INSERT INTO gone VALUES (1); ROLLBACK",
        "BEGIN; CREATE TABLE two (a int); SAVEPOINT a; INSERT INTO two VALUES (1); PREPARE TRANSACTION 'yes'",
        "BEGIN; INSERT INTO t VALUES (-4); PREPARE TRANSACTION 'no'",
        "COMMIT PREPARED 'yes'",
        "ROLLBACK PREPARED 'no'",
        "CHECKPOINT",
        "UPDATE t SET v = v || 'y'",
        "DROP TABLE two",
        "VACUUM t",
    ] {
        cluster.sql(sql);
    }
    told.push(cluster.lsn("SELECT pg_create_restore_point('before the storm')"));
    told.push(cluster.lsn("SELECT pg_logical_emit_message(false, 'lifeboat', 'now')"));
    told.push(cluster.lsn("SELECT pg_logical_emit_message(true, 'big', repeat('b', 3000000))"));
    cluster.lsn("SELECT pg_switch_wal()");
    cluster.sql("INSERT INTO t VALUES (-5)");
    let socket = cluster.dir.path().to_str().expect("text").to_owned();
    let bench = |arguments: &[&str]| {
        let common = ["-h", &socket, "-U", "postgres"];
        cluster.tool("pgbench", &[&common, arguments, &["postgres"]].concat());
    };
    bench(&["-i", "-q", "-s", "1"]);
    bench(&["-n", "-c", "4", "-t", "100"]);
    told
}

/// A crash in the middle of a record whose rest never reached the disk (as in the server's own test
/// `026_overwrite_contrecord.pl`): the segment that holds the rest is removed.
fn tear_a_record(cluster: &Cluster, segment_size: u64) {
    let file = || cluster.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    cluster.sql("SELECT pg_switch_wal()");
    let before = file();
    let used = cluster.lsn("SELECT pg_current_wal_insert_lsn()").0 % segment_size;
    // 24 of 8192 bytes are page headers; the message torn must not fit into what is left.
    let fill = (segment_size - used) / 8192 * 8168 - 40_000;
    cluster.sql(&format!("SELECT pg_logical_emit_message(false, 'fill', repeat('f', {fill}))"));
    assert_eq!(file(), before);
    cluster.sql("SELECT pg_logical_emit_message(true, 'torn', repeat('t', 100000))");
    let after = file();
    assert_ne!(before, after);
    cluster.stop("immediate");
    fs::remove_file(cluster.data().join("pg_wal").join(after)).expect("removed");
    cluster.start();
}

fn judge(segment_mib: u32) {
    let size = u64::from(segment_mib) << 20;
    let cluster = Cluster::new(segment_mib);
    cluster.start();
    let mut told = work(&cluster);
    let label = cluster.sql("SELECT pg_backup_start('nightly', true); SELECT labelfile FROM pg_backup_stop(false)");
    let label: BackupLabel = label.split_once('\n').expect("position and label").1.parse().expect("a label");
    cluster.stop("immediate");
    assert_eq!(cluster.control().state, ClusterState::InProduction);
    cluster.start();
    tear_a_record(&cluster, size);
    told.push(cluster.lsn("SELECT pg_create_restore_point('after the storm')"));
    cluster.stop("fast");

    let control = cluster.control();
    assert_eq!((control.state, control.wal_segment_size), (ClusterState::ShutDown, size));
    let said = cluster.tool("pg_controldata", &["data"]);
    for fact in [control.system_identifier.to_string(), control.checkpoint.to_string()] {
        assert!(said.contains(&fact), "{fact} in {said}");
    }

    let segments = cluster.segments();
    let first = &segments[0].0;
    let mut reader =
        WalReader::new(size, first.start(size).expect("fits"), Some(control.system_identifier)).expect("aligned");
    let mut records = Vec::new();
    let (mut carry, mut counted) = (None, 0);
    for (name, path) in &segments {
        let bytes = fs::read(path).expect("readable");
        let in_use = name.start(size).expect("fits") <= control.checkpoint;
        if reader.feed(&bytes, |record| records.push(record)).is_err() || reader.end() != WalEnd::NeedMore {
            break;
        }
        assert!(in_use, "WAL goes on beyond the last checkpoint");
        let valid = validate(name, &bytes, control.system_identifier, size, carry.take()).expect("complete");
        counted += valid.summary.records;
        carry = Some(valid.carry);
    }

    let from = first.start(size).expect("fits").to_string();
    let dump = cluster.run("pg_waldump", &["-p", "data/pg_wal", "-s", &from]);
    let theirs: Vec<Dumped> =
        String::from_utf8_lossy(&dump.stdout).lines().filter(|l| l.starts_with("rmgr")).map(parse_dumped).collect();
    let complaint = String::from_utf8_lossy(&dump.stderr).into_owned();
    assert!(theirs.len() > 4000, "{} records", theirs.len());
    for (our, their) in records.iter().map(ours).zip(&theirs) {
        assert_eq!(our, *their);
    }
    assert_eq!(records.len(), theirs.len(), "{complaint}");
    let end = reader.last_record_end().expect("records");
    assert!(complaint.contains(&format!(" at {end}")) || complaint.contains("magic"), "{end}: {complaint}");

    for lsn in told {
        assert!(records.iter().any(|r| r.end == lsn), "no record ends at {lsn}");
    }
    let is = |wanted: fn(&RecordKind) -> bool| records.iter().filter(|r| wanted(&r.kind)).count();
    assert_eq!(is(|k| matches!(k, RecordKind::CommitPrepared { .. } | RecordKind::AbortPrepared { .. })), 2);
    assert_eq!(is(|k| matches!(k, RecordKind::OverwriteContrecord { .. })), 1);
    // Two asked for, two by the backup.
    assert_eq!(is(|k| matches!(k, RecordKind::Switch)), 4);
    assert_eq!(is(|k| matches!(k, RecordKind::ParameterChange(p) if p.max_prepared_transactions == 5)), 1);
    assert_eq!((label.label.as_str(), label.start_segment.timeline), ("nightly", label.timeline));
    let backup = records.iter().filter(|r| r.kind == RecordKind::BackupEnd { start: label.start });
    assert_eq!(backup.count(), 1, "{label:?}");
    let last = records.last().expect("records");
    let RecordKind::CheckpointShutdown(checkpoint) = &last.kind else { panic!("{last:?}") };
    assert_eq!((last.start, *checkpoint), (control.checkpoint, control.checkpoint_copy));
    assert!(counted > 0 && counted <= records.len() as u64);
    promote(&cluster, size, last.end);
    println!("{segment_mib} MiB segments: {} records in {} segments as pg_waldump", records.len(), segments.len());
}

#[test]
fn every_record_is_what_pg_waldump_says() {
    if !Path::new(BIN).join("pg_waldump").exists() {
        println!("skipped: no PostgreSQL 15 in {BIN}");
        return;
    }
    for segment_mib in [1, 16] {
        judge(segment_mib);
    }
}
