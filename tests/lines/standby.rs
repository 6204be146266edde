//! Base backups that are taken from a standby.

use super::*;
use crate::common::{skip, tool};

const DRILL: &str = "[environment.drill]\nwork_dir = \"DRILLS\"";

#[test]
fn a_standbys_backup_passes_postgresqls_own_judges() {
    let scratch = Scratch::new();
    let primary = cluster(&scratch).config("wal_keep_size = 200MB").start();
    let Some(standby) = primary.standby("standby") else { skip!("no pg_basebackup") };
    let drills = scratch.server_dir("drills");
    let tables = DRILL.replace("DRILLS", drills.to_str().expect("UTF-8"));
    let estate = Estate::builder(&scratch, &primary).dsn(&standby.dsn()).tables(&tables).init();
    primary.psql(
        "postgres",
        "CREATE TABLE t (i int PRIMARY KEY, x text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 20000) i",
    );
    replicated(&primary, &standby);
    // The primary goes on while the standby is copied.
    primary.psql("postgres", "UPDATE t SET x = x || '!'");
    let backup = estate.run(&["backup", "base"]).ok().json();
    let stop = backup["base_backup"]["stop_lsn"].as_str().expect("an LSN").to_owned();
    let record = estate.run(&["drill", "run"]).ok().json();
    let has_tools = tool(primary.major(), "pg_amcheck").is_some_and(|t| t.starts_with(primary.bin_dir()));
    for judge in ["V1", "V2", "V3"] {
        let checks = record["drill"]["checks"].as_array().expect("checks");
        let found = checks.iter().find(|c| c["id"] == judge).expect("the judge was asked");
        assert_eq!(found["result"], if has_tools { "passed" } else { "not_applicable" }, "{judge}: {record}");
    }
    // Everything up to the standby's stop is there, though a standby cannot end a segment.
    estate.plan(&format!("lsn:{stop}")).ok();
    assert_eq!(standby.psql("postgres", "SELECT count(*) FROM pg_replication_slots"), "0");
}

#[test]
fn a_receiver_on_the_primary_and_a_backup_of_the_standby_fit_together() {
    let scratch = Scratch::new();
    let primary = cluster(&scratch).start();
    let Some(standby) = primary.standby("standby") else { skip!("no pg_basebackup") };
    let estate = Estate::builder(&scratch, &primary).init();
    let receiver = estate.receive(&primary);
    primary.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    replicated(&primary, &standby);
    let of_standby = fs::read_to_string(scratch.join("lifeboat.toml")).expect("a configuration");
    let of_standby = scratch.write("standby.toml", of_standby.replace(&primary.dsn(), &standby.dsn()));
    crate::common::Lifeboat::new(of_standby).run(&["backup", "base", "-e", "production"]).ok();
    primary.psql("postgres", "INSERT INTO t VALUES (2)");
    switch(&primary);
    primary.psql("postgres", "INSERT INTO t VALUES (3)");
    estate.caught_up(&primary);
    receiver.kill9();
    assert_eq!(restored_rows(&estate, "latest", &[], "r", &primary), "1,2,3");
    estate.run(&["verify", "--deep"]).ok();
}

#[test]
fn a_standby_that_is_promoted_during_its_streamed_backup_fails_it() {
    promoted_during_a_backup("streamed");
}

#[test]
fn a_standby_that_is_promoted_during_its_direct_backup_fails_it() {
    promoted_during_a_backup("direct");
}

fn promoted_during_a_backup(reader: &str) {
    let scratch = Scratch::new();
    let primary = cluster(&scratch).start();
    let Some(standby) = primary.standby("standby") else { skip!("no pg_basebackup") };
    let estate = Estate::builder(&scratch, &primary).dsn(&standby.dsn()).postgres("max_rate = \"4 MiB\"").init();
    let running = backup_under_way(&estate, &standby, reader);
    standby.promote();
    let failure = told(running.wait(PATIENCE), 4);
    assert!(failure.contains("promoted"), "{failure}");
    assert_eq!(estate.run(&["show"]).ok().json()["environments"][0]["bases"], serde_json::json!([]));
    let ledger = estate.run(&["evidence", "show"]).ok().stdout;
    assert!(ledger.contains("failure") && ledger.contains("promoted"), "{ledger}");
    // The next one is of the new timeline.
    estate.reconfigure("max_rate = \"4 MiB\"", "");
    standby.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let backup = estate.run(&["backup", "base"]).ok().json();
    assert_eq!(backup["base_backup"]["timeline"], 2);
    assert_eq!(restored_rows(&estate, "latest", &[], "r", &primary), "1");
}
