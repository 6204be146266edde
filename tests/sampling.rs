//! Drills at chosen moments: random ones that nobody chose, the oldest, the longest replay; what they
//! prove, what they leave unproven, and what would be lost.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Cluster, Estate, Output, Scratch, skip, wait_until};

const CHECK: &str = r#"
[environment.drill]
work_dir = "DRILLS"
[[check]]
id = "N1"
title = "How many ticks there are"
severity = "info"
database = "every"
requires_tables = ["ticks"]
sql = "SELECT count(*) AS ticks FROM ticks"
why = "The source knows how many were committed when."
[[check]]
id = "H1"
title = "No tick is of the future"
severity = "hard"
database = "every"
requires_tables = ["ticks"]
sql = "SELECT id FROM ticks WHERE id < 0"
why = "Something must hold."
"#;

struct Site {
    cluster: Cluster,
    estate: Estate,
}

impl Site {
    fn new() -> Self {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).config("track_commit_timestamp = on").start();
        let drills = scratch.server_dir("drills");
        let estate = Estate::builder(&scratch, &cluster)
            .tables(&CHECK.replace("DRILLS", drills.to_str().expect("UTF-8")))
            .init();
        cluster.psql(
            "postgres",
            "CREATE TABLE ticks (id serial PRIMARY KEY);
             CREATE PROCEDURE tick(n int) LANGUAGE plpgsql AS $$
               BEGIN FOR i IN 1..n LOOP INSERT INTO ticks DEFAULT VALUES; COMMIT; PERFORM pg_sleep(0.05); END LOOP; END $$",
        );
        Self { cluster, estate }
    }

    /// Transactions for about as many seconds; each commits one row.
    fn tick(&self, seconds: u32) {
        self.cluster.psql("postgres", &format!("CALL tick({})", seconds * 20));
    }

    fn drill(&self, more: &[&str]) -> Output {
        let reports = self.estate.scratch.join("reports").display().to_string();
        self.estate.run(&[&["drill", "run", "--report", &reports], more].concat())
    }

    fn coverage(&self) -> Value {
        self.estate.run(&["drill", "coverage"]).ok().json()
    }

    /// Rows that the source had committed at a time.
    fn committed_at(&self, time: &str) -> u64 {
        let sql = format!("SELECT count(*) FROM ticks WHERE pg_xact_commit_timestamp(xmin) <= '{time}'");
        self.cluster.psql("postgres", &sql).parse().expect("a number")
    }
}

/// Rows that a drill found.
fn ticks(drill: &Value) -> u64 {
    let checks = drill["checks"].as_array().expect("checks");
    let told = checks.iter().find(|c| c["id"] == "N1" && c["scope"] == "postgres").expect("the count").to_string();
    let digits: String = told.split("ticks=").nth(1).expect(&told).chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn random_drills_restore_the_drawn_second_and_anybody_can_draw_it_again() {
    let site = Site::new();
    let receiver = site.estate.receive(&site.cluster);
    site.tick(1);
    site.estate.backup();
    site.tick(6);
    site.estate.caught_up(&site.cluster);
    for _ in 0..3 {
        let json = site.drill(&["--sample", "random"]).ok().json();
        let record = &json["drill"];
        let draw = &record["sampling"]["draw"];
        let second = draw["second"].as_str().expect("a second");
        assert_eq!((&record["target"]["requested"], &record["verdict"]), (&draw["second"], &Value::from("passed")));
        assert_eq!(ticks(record), site.committed_at(second), "exactly what was committed at {second}: {draw}");
        assert!(draw["seconds"].as_u64().is_some_and(|n| n >= 4), "{draw}");
        assert_eq!(record["rpo"]["left_out_on_purpose"], true);
        let page = fs::read_to_string(json["report"]["html"].as_str().expect("a report")).expect("a file");
        assert!(page.contains(draw["seed"].as_str().expect("a seed")) && page.contains("random drill"));
    }
    let told = site.estate.run(&["evidence", "verify"]).ok().json();
    assert_eq!(told["ledger"]["findings"], serde_json::json!([]));
    let random = &site.coverage()["coverage"]["random"];
    assert_eq!((random["drills"].as_u64(), random["failures"].as_u64()), (Some(3), Some(0)));
    assert!(random["bound"].as_f64().is_some_and(|b| (b - 0.6316).abs() < 1e-4), "{random}");

    // A drill that is killed after it has committed shows for ever.
    // An entry that is being written has another name yet.
    let entries =
        || site.estate.objects("ledger").iter().filter(|p| p.extension().is_some_and(|e| e == "json")).count();
    let before = entries();
    let reports = site.estate.scratch.join("reports").display().to_string();
    let killed = site.estate.spawn(&["drill", "run", "--sample", "random", "--report", &reports]);
    wait_until("the draw is committed", Duration::from_secs(60), || entries() > before);
    killed.kill9();
    let told = site.estate.run(&["evidence", "verify"]).ok().json();
    assert!(told["ledger"]["findings"].to_string().contains("no entry reveals"), "{told}");
    assert_eq!(site.coverage()["coverage"]["random"]["open"], 1);

    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/draw_reader.py");
    let Ok(output) = Command::new("python3").arg(reader).arg(site.estate.stored("ledger")).output() else {
        skip!("no python3");
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((said.matches("right").count(), said.matches("never revealed").count()), (3, 1), "{said}");
    receiver.kill9();
}

#[test]
fn a_random_drill_that_cannot_restore_its_second_reveals_it_all_the_same() {
    let site = Site::new();
    let receiver = site.estate.receive(&site.cluster);
    site.estate.backup();
    site.tick(3);
    site.estate.caught_up(&site.cluster);
    receiver.kill9();
    // Everything is there by name, so the second is drawn; no pack can be read any more.
    for pack in site.estate.objects("data") {
        let length = fs::metadata(&pack).expect("a pack").len();
        fs::write(&pack, vec![0; usize::try_from(length).expect("small")]).expect("written");
    }
    let json = site.drill(&["--sample", "random"]).expect_code(8).json();
    assert_eq!(json["drill"]["verdict"], "failed", "{json}");
    let told = site.estate.run(&["evidence", "verify"]).ok().json();
    assert_eq!(told["ledger"]["findings"], serde_json::json!([]), "revealed by the drill that failed");
    let random = &site.coverage()["coverage"]["random"];
    assert_eq!((random["drills"].as_u64(), random["failures"].as_u64()), (Some(1), Some(1)));
    assert_eq!(random["bound"].as_f64(), Some(1.0));
}

#[test]
fn oldest_and_longest_go_where_they_say_and_coverage_tells_what_they_proved() {
    let site = Site::new();
    let receiver = site.estate.receive(&site.cluster);
    site.tick(1);
    let first = site.estate.backup();
    let at_first = site.cluster.psql("postgres", "SELECT count(*) FROM ticks").parse::<u64>().expect("a number");
    for _ in 0..3 {
        site.tick(1);
        site.cluster.psql("postgres", "SELECT pg_switch_wal()");
    }
    let before_second = site.cluster.psql("postgres", "SELECT count(*) FROM ticks").parse::<u64>().expect("a number");
    let second = site.estate.backup();
    site.tick(1);
    site.estate.caught_up(&site.cluster);

    let nothing = &site.coverage()["coverage"];
    assert_eq!(nothing["windows"][0]["proven_seconds"], 0.0);
    assert!(nothing["random"]["sentence"].as_str().is_some_and(|s| s.contains("nothing can be said")));

    let oldest = &site.drill(&["--sample", "oldest"]).ok().json()["drill"];
    assert_eq!((&oldest["sources"]["base_backup"], ticks(oldest)), (&Value::from(first.as_str()), at_first));
    let longest = &site.drill(&["--sample", "longest"]).ok().json()["drill"];
    assert_eq!((&longest["sources"]["base_backup"], ticks(longest)), (&Value::from(first.as_str()), before_second));
    let replayed = |drill: &Value| drill["restored"]["wal_bytes"].as_u64().expect("bytes");
    assert!(replayed(longest) > 3 * (16 << 20) && replayed(oldest) < 16 << 20, "{longest}");
    assert_eq!(longest["restored"]["databases"], serde_json::json!(["postgres"]));

    let told = site.coverage();
    let window = &told["coverage"]["windows"][0];
    assert_eq!(window["proofs"].as_array().map(Vec::len), Some(2), "{window}");
    assert!(window["proven_seconds"].as_f64().is_some_and(|s| s > 3.0), "{window}");
    assert_eq!(window["unproven"].as_array().map(Vec::len), Some(1), "behind the second backup: {window}");
    let bases = told["coverage"]["bases"].as_array().expect("bases");
    let proven: Vec<_> = bases.iter().map(|b| (b["name"].as_str(), b["proven_at"].is_string())).collect();
    assert_eq!(proven, [(Some(first.as_str()), true), (Some(second.as_str()), false)]);
    let forecast = &told["forecast"];
    assert_eq!((forecast["drills"].as_u64(), &forecast["worst"]["base"]), (Some(2), &Value::from(first.as_str())));
    assert!(forecast["predicted_seconds"].as_f64().is_some_and(|s| s > 0.0) && forecast["error"].is_null());
    for part in ["base", "replay"] {
        assert!(forecast[part]["seconds_per_byte"].as_f64().is_some_and(|s| s > 0.0), "{part}: {forecast}");
    }
    receiver.kill9();

    // A hole between the two backups: what was proven behind it is no longer.
    let segments = site.estate.objects("wal/00000001");
    fs::remove_file(&segments[segments.len() - 3]).expect("a segment");
    let holed = &site.coverage()["coverage"];
    let windows = holed["windows"].as_array().expect("windows");
    assert_eq!(windows.len(), 2, "{holed}");
    assert!(windows[0]["gap"].is_string() && windows[1]["gap"].is_null(), "{holed}");
    assert_eq!(
        (windows[0]["unproven"].as_array().map(Vec::len), windows[1]["proven_seconds"].as_f64()),
        (Some(0), Some(0.0))
    );
}

#[test]
fn what_is_lost_is_counted_where_it_can_be_seen_and_null_where_not() {
    let site = Site::new();
    let receiver = site.estate.receive(&site.cluster);
    site.estate.backup();
    site.tick(1);
    let now = || {
        site.cluster.psql(
            "postgres",
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        )
    };
    let target = now();
    site.cluster.psql("postgres", "CALL tick(7)");
    let incident = now();
    site.tick(1);
    site.estate.caught_up(&site.cluster);

    // WAL goes on behind the disaster: everything that it took is known.
    let drill = site.drill(&["--to", &target, "--incident", &incident]).ok().json();
    let rpo = &drill["drill"]["rpo"];
    // A heartbeat may have come between: it is a transaction as well.
    let committed = site.committed_at(&incident) - site.committed_at(&target);
    let lost = rpo["lost_transactions"].as_u64().expect("counted");
    assert!((committed..=committed + 1).contains(&lost) && committed == 7, "{committed}: {rpo}");
    assert!(rpo["lost_bytes"].as_u64().is_some_and(|n| n > 500), "{rpo}");
    let (window, exposure) = (rpo["loss_window_seconds"].as_f64(), rpo["exposure_seconds"].as_f64());
    assert!(window > Some(0.2) && window <= exposure, "{rpo}");
    assert_eq!((&rpo["left_out_on_purpose"], &rpo["met"]), (&Value::from(false), &Value::from(true)));

    // The source says that nothing is missing.
    let drill = site.drill(&["--ask-source"]).ok().json();
    let rpo = &drill["drill"]["rpo"];
    assert!(rpo["lost_bytes"].is_u64(), "{rpo}");
    receiver.kill9();
    site.cluster.psql("postgres", "CALL tick(5)");
    let drill = site.drill(&["--ask-source"]).ok().json();
    let rpo = &drill["drill"]["rpo"];
    assert!(rpo["lost_bytes"].as_u64().is_some_and(|n| n > 500), "{rpo}");
    assert!(rpo["lost_transactions"].is_null(), "nobody has the WAL that would tell: {rpo}");
    // Nobody asked, and nothing is archived behind: nothing is claimed.
    let drill = site.drill(&[]).ok().json();
    let rpo = &drill["drill"]["rpo"];
    assert!(rpo["lost_bytes"].is_null() && rpo["lost_transactions"].is_null() && rpo["loss_window_seconds"].is_null());

    // Another cluster answers at that address, then none: neither is believed to know anything.
    let mut other = Cluster::builder(&site.estate.scratch).name("other").start();
    site.estate.reconfigure(&site.cluster.dsn(), &other.dsn());
    for said in ["another cluster", "what would be lost is not known exactly"] {
        let drill = site.drill(&["--ask-source"]).ok().json();
        assert!(drill["drill"]["rpo"]["lost_bytes"].is_null(), "{drill}");
        assert!(drill["drill"]["findings"].to_string().contains(said), "{said}: {drill}");
        other.stop();
    }
}
