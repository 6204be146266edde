//! Drills: green only when everything holds, red for each damage that matters, gone without a trace.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::common::{Cluster, ClusterBuilder, Estate, Lifeboat, Output, Scratch, as_server, tool};

const CHECK: &str = r#"
[environment.drill]
work_dir = "DRILLS"
[[check]]
id = "T1"
title = "Nothing in t is broken"
severity = "hard"
database = "every"
requires_tables = ["t"]
sql = "SELECT id FROM t WHERE broken"
why = "A broken row is a broken promise."
"#;

pub(crate) struct Site {
    cluster: Cluster,
    pub(crate) estate: Estate,
}

impl Site {
    pub(crate) fn new(adjust: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Self {
        let scratch = Scratch::new();
        let cluster = adjust(Cluster::builder(&scratch)).start();
        let drills = scratch.server_dir("drills");
        let tables = CHECK.replace("DRILLS", drills.to_str().expect("UTF-8"));
        let estate = Estate::builder(&scratch, &cluster).tables(&tables).init();
        cluster.psql(
            "postgres",
            "CREATE TABLE t (id int PRIMARY KEY, broken bool NOT NULL DEFAULT false, x text);
             INSERT INTO t SELECT i, false, repeat(md5(i::text), 20) FROM generate_series(1, 5000) i",
        );
        Self { cluster, estate }
    }

    /// A base backup, some WAL behind it, all in the repository.
    pub(crate) fn back_up(&self) {
        let receiver = self.estate.receive(&self.cluster);
        self.estate.backup();
        for _ in 0..3 {
            self.cluster.psql("postgres", "UPDATE t SET x = x || '!' WHERE id % 10 = 0");
            self.cluster.psql("postgres", "SELECT pg_switch_wal()");
        }
        self.estate.caught_up(&self.cluster);
        receiver.kill9();
    }

    /// Directory of the PostgreSQL that the cluster runs.
    pub(crate) fn bin_dir(&self) -> &Path {
        self.cluster.bin_dir()
    }

    pub(crate) fn reports(&self) -> PathBuf {
        self.estate.scratch.join("reports")
    }

    pub(crate) fn drill(&self, more: &[&str]) -> Output {
        let reports = self.reports().display().to_string();
        self.estate.run(&[&["drill", "run", "--report", &reports], more].concat())
    }

    /// The record of a drill that the servers' account runs, without any privilege.
    pub(crate) fn drill_as_servers(&self) -> serde_json::Value {
        let config = self.estate.scratch.join("lifeboat.toml");
        let mut command = as_server(Path::new(Lifeboat::program()));
        command.arg("-c").arg(config).args(["--format", "json", "drill", "run", "-e", "production", "--report"]);
        let output =
            command.arg(self.reports()).env("TMPDIR", self.estate.scratch.join("tmp")).output().expect("started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json["drill"].clone()
    }

    /// Nothing of a drill is left but what it says of itself.
    pub(crate) fn assert_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.estate.scratch.join("drills")).expect("a directory").collect();
        assert!(left.is_empty(), "{left:?}");
        let servers = walkdir::WalkDir::new("/proc")
            .min_depth(1)
            .max_depth(1)
            .into_iter()
            .filter_map(|process| fs::read_link(process.ok()?.path().join("cwd")).ok());
        let drills = self.estate.scratch.join("drills");
        assert_eq!(servers.filter(|cwd| cwd.starts_with(&drills)).count(), 0, "a process of the sandbox lives");
    }

    /// A drill that must be red, recorded and reported; its record.
    #[track_caller]
    pub(crate) fn red(&self, code: i32) -> serde_json::Value {
        let json = self.drill(&[]).expect_code(code).json();
        self.assert_clean();
        let record = &json["drill"];
        assert_eq!(record["verdict"], "failed", "{record}");
        let html = fs::read_to_string(json["report"]["html"].as_str().expect("a report")).expect("a file");
        assert!(html.to_lowercase().contains("failed"));
        self.estate.run(&["evidence", "verify"]).ok();
        record.clone()
    }
}

fn check<'a>(record: &'a serde_json::Value, id: &str) -> &'a str {
    let checks = record["checks"].as_array().expect("checks");
    let found = checks.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no check {id} in {record}"));
    found["result"].as_str().expect("a result")
}

#[test]
fn a_sound_backup_passes_and_leaves_nothing_but_evidence() {
    let site = Site::new(|cluster| cluster.tablespace("far"));
    site.cluster.psql("postgres", "CREATE TABLE u (id int) TABLESPACE far; INSERT INTO u VALUES (1)");
    site.back_up();
    let json = site.drill(&[]).ok().json();
    site.assert_clean();
    let record = &json["drill"];
    assert_eq!(record["verdict"], "passed", "{record}");
    assert_eq!(check(record, "T1"), "passed");
    for judge in ["V1", "V2", "V3"] {
        let has_tools = tool(site.cluster.major(), "pg_amcheck").is_some_and(|t| t.starts_with(site.cluster.bin_dir()));
        assert_eq!(check(record, judge), if has_tools { "passed" } else { "not_applicable" });
    }
    assert_eq!(record["cleanup"]["residue"], serde_json::json!([]));
    assert_eq!(record["rpo"]["met"], true);
    let sandbox = &record["sandbox"];
    assert_eq!((sandbox["kind"].as_str(), sandbox["sealed"].as_bool()), (Some("local"), Some(true)), "{sandbox}");
    let namespaces = ["ipc", "mnt", "net", "pid", "user", "uts"];
    assert_eq!(sandbox["namespaces"], serde_json::json!(namespaces));
    let html = fs::read_to_string(json["report"]["html"].as_str().expect("a report")).expect("a file");
    assert!(html.contains(record["id"].as_str().expect("an id")));
    let report = fs::read(json["report"]["json"].as_str().expect("a report")).expect("a file");
    serde_json::from_slice::<serde_json::Value>(&report).expect("JSON");
    site.estate.run(&["evidence", "verify"]).ok();

    // Kept on request: said, and still there.
    let kept = site.drill(&["--keep"]).ok().json();
    let place = kept["drill"]["cleanup"]["created"][0].as_str().expect("a sandbox").to_owned();
    assert!(PathBuf::from(&place).join("pgdata/PG_VERSION").exists());
    fs::remove_dir_all(place).expect("removed");
}

#[test]
fn a_check_that_fails_turns_the_drill_red() {
    let site = Site::new(|cluster| cluster);
    site.cluster.psql("postgres", "UPDATE t SET broken = true WHERE id = 77");
    site.back_up();
    let record = site.red(8);
    assert_eq!(check(&record, "T1"), "failed");
    assert!(record.to_string().contains("id=77"), "the report does not name the row");
}

#[test]
fn a_damaged_pack_turns_the_drill_red() {
    let site = Site::new(|cluster| cluster);
    site.back_up();
    let packs = site.estate.objects("data");
    let pack = packs.iter().max_by_key(|p| fs::metadata(p).map_or(0, |m| m.len())).expect("a pack");
    let file = fs::OpenOptions::new().read(true).write(true).open(pack).expect("a pack");
    let middle = file.metadata().expect("metadata").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], middle).expect("written");
    let record = site.red(8);
    assert!(record["error"].as_str().is_some_and(|e| !e.is_empty()), "{record}");
}

#[test]
fn an_index_that_misses_a_row_turns_the_drill_red() {
    // Every page is sound: only the comparison of table and index can find it.
    let site = Site::new(|cluster| cluster);
    if tool(site.cluster.major(), "pg_amcheck").is_none() {
        crate::common::skip!("no pg_amcheck");
    }
    site.cluster.psql("postgres", "CREATE INDEX by_x ON t (x)");
    let ready = |ready: bool| {
        let sql = format!("UPDATE pg_index SET indisready = {ready} WHERE indexrelid = 'by_x'::regclass");
        site.cluster.psql("postgres", &sql);
    };
    ready(false);
    site.cluster.psql("postgres", "INSERT INTO t VALUES (-1, false, 'not in the index')");
    ready(true);
    site.back_up();
    let record = site.red(8);
    assert_eq!(check(&record, "V3"), "failed");
    assert_eq!((check(&record, "V2"), check(&record, "T1")), ("passed", "passed"));
}

#[test]
fn a_page_damaged_at_the_source_is_named_by_the_backup_and_by_the_drill() {
    let mut site = Site::new(|cluster| cluster);
    let table = site.cluster.psql("postgres", "SELECT pg_relation_filepath('t')");
    let path = site.cluster.data_dir().join(table);
    site.cluster.stop();
    let file = fs::OpenOptions::new().write(true).open(path).expect("a table");
    file.write_all_at(b"damage", 8192 + 5000).expect("written");
    site.cluster.start();
    for reader in ["direct", "streamed"] {
        let told = site.estate.run(&["backup", "base", "--full", "--reader", reader]).expect_code(11).json();
        let damaged = &told["base_backup"]["damaged"];
        assert_eq!((damaged[0]["block"].as_u64(), damaged.as_array().map(Vec::len)), (Some(1), Some(1)), "{told}");
        // What was damaged at the source is as it was, and no drill calls it sound.
        let drill = site.drill(&[]).expect_code(8).json();
        let failed = drill["drill"]["checks"].as_array().expect("checks").iter().filter(|c| c["result"] == "failed");
        assert!(failed.map(|c| c["id"].as_str()).collect::<Vec<_>>().contains(&Some("V2")), "{reader}: {drill}");
    }
}

#[test]
fn a_missing_wal_segment_turns_the_drill_red() {
    let site = Site::new(|cluster| cluster);
    site.back_up();
    let segments = site.estate.objects("wal/00000001");
    let lost = &segments[segments.len() - 2];
    fs::remove_file(lost).expect("a segment");
    let name = lost.file_name().and_then(|n| n.to_str()).expect("a name");
    let told = site.drill(&[]).expect_code(7).json();
    assert!(told["error"]["message"].as_str().is_some_and(|m| m.contains(name)), "{told}");
    site.assert_clean();
    // A drill that could not even begin is evidence too.
    let shown = site.estate.run(&["evidence", "show"]).ok().stdout;
    assert!(shown.contains("drill"), "{shown}");
    site.estate.run(&["evidence", "verify"]).ok();
}
