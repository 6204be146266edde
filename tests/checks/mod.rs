//! Checks that compare with the source, checks that are tried on a live database, and checks that are themselves
//! checked.

mod damage;
mod pages;
mod series;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::common::{Cluster, Estate, Fixture, Scratch, fixture_of, load_fixture, majors, skip};

/// A self-test restores once and checks a dozen times.
const LONG: Duration = Duration::from_secs(600);

/// A condition that the source shows, a figure, and how recent it is.
const SUITE: &str = r#"
[[check]]
id = "B1"
title = "Nothing in t is odd"
severity = "baseline"
database = "every"
requires_tables = ["t"]
sql = "SELECT id FROM t WHERE odd ORDER BY id"
why = "What was odd at the source must be odd here, and nothing else."

[[check]]
id = "B2"
title = "The sum of t"
severity = "hard"
expect = "same_as_source"
database = "every"
requires_tables = ["t"]
sql = "SELECT count(*), sum(id) FROM t"
why = "It must come back."

[[check]]
id = "B3"
title = "t is recent"
severity = "baseline"
expect = "fresh"
max_age = "1d"
database = "every"
requires_tables = ["t"]
sql = "SELECT max(at) FROM t"
why = "Old data is lost data."

[[check]]
id = "B4"
title = "The roles"
severity = "hard"
expect = "same_as_source"
database = "cluster"
sql = "SELECT rolname FROM pg_roles"
why = "Without its role Odoo does not start."
"#;

/// Nothing is received while drills run here, so the loss grows.
fn patient(estate: &Estate) {
    estate.reconfigure("rpo = \"60s\"", "rpo = \"6h\"");
}

struct Site {
    cluster: Cluster,
    estate: Estate,
}

impl Site {
    fn new(major: u32, suite: &str) -> Self {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).major(major).start();
        let drills = scratch.server_dir("drills");
        let tables = format!("[environment.drill]\nwork_dir = \"{}\"\n{suite}", drills.display());
        let estate = Estate::builder(&scratch, &cluster).tables(&tables).init();
        patient(&estate);
        cluster.psql(
            "postgres",
            "CREATE TABLE t (id int PRIMARY KEY, odd bool, at timestamp DEFAULT (now() AT TIME ZONE 'UTC'));
             INSERT INTO t SELECT i, i = 7 FROM generate_series(1, 5000) i",
        );
        Self { cluster, estate }
    }

    /// A base backup with its baseline, and work behind it.
    fn back_up(&self) -> Value {
        let receiver = self.estate.receive(&self.cluster);
        let told = self.estate.run(&["backup", "base"]).ok().json();
        self.cluster.psql(
            "postgres",
            "INSERT INTO t SELECT i, true FROM generate_series(5001, 5100) i; SELECT pg_switch_wal()",
        );
        self.estate.caught_up(&self.cluster);
        receiver.kill9();
        told["base_backup"]["baseline"].clone()
    }

    fn drill(&self, more: &[&str]) -> crate::common::Output {
        let reports = self.estate.scratch.join("reports").display().to_string();
        self.estate.run(&[&["drill", "run", "--report", &reports], more].concat())
    }

    fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.estate.scratch.join("drills")).expect("a directory").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[track_caller]
fn check<'a>(record: &'a Value, id: &str) -> &'a Value {
    let checks = record["checks"].as_array().expect("checks");
    checks.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no check {id} in {record}"))
}

#[test]
fn a_drill_stops_where_the_source_was_asked_and_goes_on_to_its_target() {
    for major in majors() {
        let site = Site::new(major, SUITE);
        let baseline = site.back_up();
        assert!(baseline["lsn"].is_string() && baseline["reason"].is_null(), "PostgreSQL {major}: {baseline}");
        let record = site.drill(&[]).ok().json()["drill"].clone();
        // 5100 rows at the target, 5000 at the source when it was asked: compared there, and restored to the end.
        for (id, said) in [("B1", "1 row(s), the same as at the source"), ("B2", "the same"), ("B4", "the same")] {
            let found = check(&record, id);
            assert_eq!(found["result"], "passed", "PostgreSQL {major}: {found}");
            assert!(found["detail"].as_str().expect("text").contains(said), "PostgreSQL {major}: {found}");
        }
        assert_eq!(check(&record, "B3")["result"], "passed");
        assert_eq!(record["target"]["as_intended"], true);
        let phases: Vec<&str> =
            record["phases"].as_array().expect("phases").iter().filter_map(|p| p["name"].as_str()).collect();
        let place =
            |name: &str| phases.iter().position(|p| *p == name).unwrap_or_else(|| panic!("no {name}: {phases:?}"));
        assert!(place("comparing with the source") < place("replaying WAL"), "{phases:?}");
        assert!(!record["findings"].to_string().contains("compared"), "PostgreSQL {major}: {record}");

        // Restored to the very place, no stop is needed; before it, nothing can be compared.
        let lsn = format!("lsn:{}", baseline["lsn"].as_str().expect("a place"));
        let record = site.drill(&["--to", &lsn]).ok().json()["drill"].clone();
        assert_eq!(check(&record, "B2")["result"], "passed");
    }
}

#[test]
fn what_differs_from_the_source_turns_the_drill_red_and_without_an_answer_it_warns() {
    // The start of the server is the one thing that no restore brings back.
    let differs = SUITE.replace("SELECT count(*), sum(id) FROM t", "SELECT pg_postmaster_start_time()");
    let site = Site::new(15, &differs);
    site.back_up();
    let record = site.drill(&[]).expect_code(8).json()["drill"].clone();
    assert_eq!(record["verdict"], "failed");
    let found = check(&record, "B2");
    assert_eq!((&found["result"], &found["severity"]), (&"failed".into(), &"hard".into()), "{found}");
    assert!(found["rows"].to_string().contains("source: pg_postmaster_start_time="), "{found}");

    // The same check, changed since: nothing to compare with.
    site.estate.reconfigure("SELECT pg_postmaster_start_time()", "SELECT count(*) FROM t");
    site.estate.reconfigure("WHERE odd ORDER BY id", "WHERE odd ORDER BY id DESC");
    let record = site.drill(&[]).ok().json()["drill"].clone();
    assert_eq!(check(&record, "B2")["result"], "not_applicable");
    let warned = check(&record, "B1");
    assert_eq!((&warned["result"], &warned["severity"]), (&"failed".into(), &"baseline".into()), "{warned}");
}

#[test]
fn a_busy_source_is_not_made_to_wait_and_the_backup_tells_why_nothing_can_be_compared() {
    let site = Site::new(15, SUITE);
    let receiver = site.estate.receive(&site.cluster);
    let socket = site.cluster.dsn_for("postgres", "postgres");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // A transaction that has written and is still open.
    let open = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&socket, tokio_postgres::NoTls).await.expect("a session");
        tokio::spawn(connection);
        client.batch_execute("BEGIN; INSERT INTO t VALUES (-1, false)").await.expect("written");
        client
    });
    let told = site.estate.run(&["backup", "base"]).ok().json();
    let baseline = &told["base_backup"]["baseline"];
    assert!(baseline["lsn"].is_null(), "{baseline}");
    assert!(baseline["reason"].as_str().is_some_and(|r| r.contains("no quiet instant")), "{baseline}");
    drop(open);
    site.cluster.psql("postgres", "SELECT pg_switch_wal()");
    site.estate.caught_up(&site.cluster);
    receiver.kill9();
    let record = site.drill(&[]).ok().json()["drill"].clone();
    assert_eq!(check(&record, "B2")["result"], "not_applicable");
    assert!(record["findings"].to_string().contains("no quiet instant"), "{record}");
}

#[test]
fn a_check_with_a_mistake_fails_the_drill_and_points_to_its_line() {
    let site = Site::new(15, &SUITE.replace("SELECT count(*), sum(id) FROM t", "SELECT count(*) FORM t"));
    let baseline = site.back_up();
    assert!(baseline["lsn"].is_string(), "{baseline}");
    let record = site.drill(&[]).expect_code(8).json()["drill"].clone();
    let found = check(&record, "B2");
    assert_eq!(found["result"], "error");
    assert!(found["detail"].as_str().expect("text").contains("lifeboat.toml:"), "{found}");
}

#[test]
fn programs_are_run_on_the_restored_copy() {
    let command = r#"
[[check]]
id = "C1"
title = "Our own program agrees"
severity = "hard"
database = "cluster"
command = { run = ["/bin/sh", "-c", "test -S \"$PGHOST/.s.PGSQL.$PGPORT\" && echo rows: $PGDATABASE"], output = "^rows: \\S+" }
why = "It knows more than SQL."

[[check]]
id = "C2"
title = "Our own program does not agree"
severity = "baseline"
database = "cluster"
command = { run = ["/bin/sh", "-c", "echo broken; exit 3"] }
why = "It knows more than SQL."
"#;
    let site = Site::new(15, command);
    let _ = site.back_up();
    let record = site.drill(&[]).ok().json()["drill"].clone();
    assert_eq!(check(&record, "C1")["result"], "passed", "{record}");
    assert_eq!(check(&record, "C2")["result"], "failed");
    assert_eq!(check(&record, "C2")["rows"], serde_json::json!(["broken"]));
}

#[test]
fn a_file_of_checks_is_tried_on_a_live_database() {
    let site = Site::new(15, "");
    let write = |text: &str| site.estate.scratch.write("own.toml", text).display().to_string();
    let file = write(SUITE);
    let told = site.estate.run(&["drill", "check", &file, "--database", "postgres"]).ok().json();
    assert_eq!(check(&told, "B1")["result"], "failed");
    assert_eq!((&check(&told, "B2")["result"], &check(&told, "B3")["result"]), (&"info".into(), &"passed".into()));

    // Without any configuration.
    let dsn = site.cluster.dsn();
    let hard = write(&SUITE.replace("\"baseline\"\ndatabase", "\"hard\"\ndatabase"));
    let arguments = ["--format", "json", "drill", "check", &hard, "--dsn", &dsn];
    let told = crate::common::Lifeboat::new("/nowhere.toml").run(&arguments).expect_code(8).json();
    assert!(told["error"]["message"].as_str().is_some_and(|m| m.contains("B1 in postgres")), "{told}");

    // Nothing is written, and a mistake is told with its line.
    let sql = "sql = '''\nSELECT id\n  FROM t\n WHERE id = lost'''";
    let wrong = write(&SUITE.replace("sql = \"SELECT id FROM t WHERE odd ORDER BY id\"", sql));
    let line =
        fs::read_to_string(&wrong).expect("the file").lines().position(|l| l.contains("lost")).expect("there") + 1;
    let told = site.estate.run(&["drill", "check", &wrong]).expect_code(8).json();
    let detail = check(&told, "B1")["detail"].as_str().expect("text").to_owned();
    assert!(detail.contains(&format!("own.toml:{line}: column \"lost\" does not exist")), "{detail}");
    let writing = write(&SUITE.replace("SELECT id FROM t WHERE odd ORDER BY id", "DELETE FROM t RETURNING id"));
    let told = site.estate.run(&["drill", "check", &writing]).expect_code(8).json();
    assert!(check(&told, "B1")["detail"].to_string().contains("read-only transaction"), "{told}");
    let several = write(&SUITE.replace("SELECT id FROM t WHERE odd ORDER BY id", "ROLLBACK; DELETE FROM t"));
    let told = site.estate.run(&["drill", "check", &several]).expect_code(8).json();
    assert!(check(&told, "B1")["detail"].to_string().contains("multiple commands"), "{told}");
    assert_eq!(site.cluster.psql("postgres", "SELECT count(*) FROM t"), "5000");
    let unread = write("[[check]]\nid = \"B1\"\ntitle = 7\n");
    let told = site.estate.run(&["drill", "check", &unread]).expect_code(3).json();
    assert!(told["error"]["message"].as_str().is_some_and(|m| m.contains("own.toml:3:")), "{told}");
}

/// The fixture with the checks that are copied, and a role of its own.
fn odoo(fixture: &Fixture, suites: &[&str]) -> Site {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let data_dir = scratch.join("odoo");
    load_fixture(fixture, &cluster, "retail", &data_dir);
    cluster.psql("postgres", "CREATE ROLE odoo LOGIN CREATEDB; ALTER DATABASE retail OWNER TO odoo");
    cluster.psql("retail", "UPDATE ir_cron SET lastcall = now() AT TIME ZONE 'UTC'");
    let folder = scratch.join("restore-tests");
    fs::create_dir_all(&folder).expect("a directory");
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("restore-tests");
    for suite in suites {
        let name = format!("{suite}.toml");
        fs::copy(shipped.join(&name), folder.join(&name)).expect("a suite");
    }
    let drills = scratch.server_dir("drills");
    let tables = format!(
        "[[environment.odoo]]\ndata_dir = \"{}\"\ndatabases = [\"retail\"]\n[environment.drill]\nwork_dir = \"{}\"",
        data_dir.display(),
        drills.display()
    );
    let estate = Estate::builder(&scratch, &cluster).include("restore-tests/*.toml").tables(&tables).init();
    patient(&estate);
    let site = Site { cluster, estate };
    let receiver = site.estate.receive(&site.cluster);
    site.estate.run(&["backup", "all"]).ok();
    site.cluster.psql("retail", "UPDATE res_partner SET ref = 'later'; SELECT pg_switch_wal()");
    site.estate.caught_up(&site.cluster);
    receiver.kill9();
    site
}

/// Every suite that comes with Lifeboat.
const ALL: [&str; 5] = ["odoo-hard", "odoo-facts", "odoo-baseline", "odoo-fingerprint", "odoo-fresh"];

/// What came of each damage, by its name.
fn outcomes(record: &Value) -> Vec<(String, String, Vec<String>)> {
    let text = |v: &Value| v.as_str().expect("text").to_owned();
    let cases = record["selftest"]["cases"].as_array().unwrap_or_else(|| panic!("no self-test in {record}"));
    let by = |c: &Value| c["caught_by"].as_array().expect("a list").iter().map(text).collect();
    cases.iter().map(|c| (text(&c["id"]), text(&c["outcome"]), by(c))).collect()
}

#[test]
fn every_damage_turns_a_check_red_and_fewer_checks_find_less() {
    let Some(fixture) = fixture_of(19) else { skip!("no fixtures (LIFEBOAT_TEST_FIXTURES)") };
    let site = odoo(&fixture, &ALL);
    let reports = site.estate.scratch.join("reports").display().to_string();
    let told = site.estate.spawn(&["drill", "selftest", "--report", &reports]).wait(LONG).ok().json();
    let record = &told["drill"];
    let found = outcomes(record);
    assert_eq!(found.len(), 13, "{found:?}");
    for (id, outcome, by) in &found {
        match id.as_str() {
            "mail-server-revived" => assert_eq!(outcome, "skipped"),
            _ => assert!(outcome == "found" && !by.is_empty(), "{id}: {outcome} {by:?}\n{}", record["selftest"]),
        }
    }
    let by = |id: &str| found.iter().find(|c| c.0 == id).map(|c| c.2.clone()).expect("a case");
    assert!(by("journal-item-shifted").contains(&"A1".to_owned()));
    // Every entry still balances: only what the source said tells.
    assert!(by("journal-item-moved").contains(&"A7".to_owned()));
    assert!(!by("journal-item-moved").contains(&"A1".to_owned()));
    assert!(by("clock-behind").contains(&"M7".to_owned()));
    assert!(by("role-removed").contains(&"G7".to_owned()));
    assert!(by("database-renamed").contains(&"F6".to_owned()));
    for id in ["attachments-deleted", "attachments-corrupted", "filestore-emptied"] {
        assert_eq!(by(id), ["F4"]);
    }
    site.assert_nothing_left();

    // An ordinary drill is green, compared with the source, and tells the last score.
    let record = site.drill(&[]).ok().json()["drill"].clone();
    let checks = record["checks"].as_array().expect("checks");
    let compared =
        checks.iter().filter(|c| c["detail"].as_str().is_some_and(|d| d.contains("the same as at the source")));
    assert!(compared.count() > 15, "{record}");
    assert_eq!(record["selftest"]["drill"], told["drill"]["id"]);

    // Without the figures nobody sees that an amount moved to another account.
    fs::remove_file(site.estate.scratch.join("restore-tests/odoo-fingerprint.toml")).expect("removed");
    let told = site.estate.spawn(&["drill", "selftest", "--report", &reports]).wait(LONG).expect_code(8).json();
    let missed: Vec<String> = outcomes(&told["drill"]).into_iter().filter(|c| c.1 == "missed").map(|c| c.0).collect();
    assert!(missed.contains(&"journal-item-moved".to_owned()), "{missed:?}");
    assert!(told["error"]["message"].as_str().is_some_and(|m| m.contains("damages found")), "{told}");
    site.estate.run(&["evidence", "verify"]).ok();
    assert!(Path::new(&reports).exists());
}
