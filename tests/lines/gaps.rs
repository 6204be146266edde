//! WAL that is missing: recorded, shown, in the way of restores, and healed where it still exists.

use nix::sys::signal::Signal;

use super::*;
use crate::common::{server_bin, skip};

/// A cluster and an estate with a base backup and the row 1; nobody receives any more.
fn left_alone(scratch: &Scratch, config: &str) -> (Cluster, Estate) {
    let cluster = Cluster::builder(scratch).wal_segment_mib(1).config("min_wal_size = 2MB").config(config).start();
    let estate = Estate::builder(scratch, &cluster).init();
    let receiver = estate.receive(&cluster);
    estate.backup();
    cluster.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    estate.caught_up(&cluster);
    receiver.signal(Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();
    (cluster, estate)
}

/// Row 2, some segments, row 3; a moment in between.
fn unreceived(cluster: &Cluster) -> String {
    switch(cluster);
    cluster.psql("postgres", "INSERT INTO t VALUES (2)");
    let inside = now(cluster);
    for _ in 0..8 {
        switch(cluster);
    }
    cluster.psql("postgres", "INSERT INTO t VALUES (3)");
    inside
}

fn shown(estate: &Estate) -> serde_json::Value {
    estate.run(&["show"]).ok().json()["environments"][0].clone()
}

fn ledger(estate: &Estate) -> String {
    estate.run(&["evidence", "show"]).ok().stdout
}

#[test]
fn a_gap_is_recorded_shown_in_the_way_and_healed_by_wal_push() {
    let scratch = Scratch::new();
    let (cluster, estate) = left_alone(&scratch, "max_slot_wal_keep_size = 2MB");
    let inside = unreceived(&cluster);
    let saved = scratch.join("saved");
    let copied = Command::new("cp").arg("-a").arg(cluster.data_dir().join("pg_wal")).arg(&saved).status();
    assert!(copied.expect("cp").success());
    cluster.psql("postgres", "CHECKPOINT");
    let status = "SELECT wal_status FROM pg_replication_slots";
    assert_eq!(cluster.psql("postgres", status), "lost");
    assert!(told_of(&shown(&estate)["broken"]).contains("still needed"));
    let said = estate.run(&["wal", "receive", "--until-lsn", &current(&cluster)]).ok().stderr;
    assert!(said.contains("gave up the replication slot") && said.contains("removed WAL before"), "{said}");

    let show = shown(&estate);
    assert_eq!(show["gaps"].as_array().map(Vec::len), Some(1), "{show}");
    assert!(told_of(&show["broken"]).contains("WAL has a hole"), "{show}");
    let doctor = estate.lifeboat.run(&["--format", "json", "doctor"]);
    assert!(doctor.code() != Some(0) && doctor.stdout.contains("gap in WAL"), "{doctor:?}");
    let verify = estate.run(&["verify"]).stdout;
    assert!(verify.contains("missing WAL segment") || verify.contains("no WAL was archived from"), "{verify}");
    let recorded = ledger(&estate);
    assert!(recorded.contains("gave up the replication slot"), "{recorded}");
    assert!(recorded.contains("removed WAL before it was archived"), "{recorded}");
    // In the way of what lies in it, and of what lies behind it.
    let end = current(&cluster);
    for target in [&*inside, "latest", &format!("lsn:{end}")] {
        let refused = told(estate.plan(target), 7);
        assert!(refused.contains("nearest possible") && refused.contains("Z"), "{target}: {refused}");
        assert!(refused.contains("wal push"), "{target}: {refused}");
    }
    let behind = estate.backup();
    cluster.psql("postgres", "INSERT INTO t VALUES (4)");
    receive_all(&estate, &cluster);
    let refused = told(estate.plan(&inside), 7);
    assert!(refused.contains("before it is 20") && refused.contains(&format!("backup:{behind}")), "{refused}");
    estate.plan("latest").ok();
    assert_eq!(shown(&estate)["windows"].as_array().map(Vec::len), Some(2));

    // Where the segments were kept, nothing is lost.
    let first = shown(&estate)["gaps"][0]["first"].as_str().expect("a name").to_owned();
    let last = shown(&estate)["gaps"][0]["last"].as_str().expect("a name").to_owned();
    for file in fs::read_dir(&saved).expect("a directory") {
        let path = file.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if (&first..=&last).contains(&&name) {
            push(&estate, &path).ok();
        }
    }
    let show = shown(&estate);
    assert_eq!((&show["gaps"], show["windows"].as_array().map(Vec::len)), (&serde_json::json!([]), Some(1)));
    estate.run(&["verify", "--deep"]).ok();
    assert_eq!(restored_rows(&estate, &inside, &[], "r1", &cluster), "1,2");
    assert_eq!(restored_rows(&estate, "latest", &[], "r2", &cluster), "1,2,3,4");
}

fn told_of(lines: &serde_json::Value) -> String {
    lines.to_string()
}

#[test]
fn a_slot_that_is_gone_costs_nothing_while_the_server_has_the_wal() {
    let scratch = Scratch::new();
    let (cluster, estate) = left_alone(&scratch, "wal_keep_size = 100MB");
    cluster.psql("postgres", "SELECT pg_drop_replication_slot('lifeboat')");
    let inside = unreceived(&cluster);
    cluster.psql("postgres", "CHECKPOINT");
    let said = estate.run(&["wal", "receive", "--until-lsn", &current(&cluster)]).ok().stderr;
    assert!(!said.contains("removed WAL"), "{said}");
    assert_eq!(shown(&estate)["gaps"], serde_json::json!([]));
    assert_eq!(restored_rows(&estate, &inside, &[], "r1", &cluster), "1,2");
    assert_eq!(restored_rows(&estate, "latest", &[], "r2", &cluster), "1,2,3");
}

#[test]
fn a_hole_further_back_is_filled_from_the_servers_pg_wal() {
    let scratch = Scratch::new();
    let (cluster, estate) = left_alone(&scratch, "wal_keep_size = 100MB");
    cluster.psql("postgres", "SELECT pg_drop_replication_slot('lifeboat')");
    let inside = unreceived(&cluster);
    // An archive_command was set up meanwhile: what it archives lies behind the hole.
    let late = cluster.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    switch(&cluster);
    push(&estate, &wal_file(&cluster, &late)).ok();
    assert_eq!(shown(&estate)["gaps"].as_array().map(Vec::len), Some(1));
    let receiver = estate.receive(&cluster);
    wait_until("the hole is filled", PATIENCE, || shown(&estate)["gaps"] == serde_json::json!([]));
    estate.caught_up(&cluster);
    wait_until("it is told", PATIENCE, || receiver.stderr().contains("was healed"));
    receiver.signal(Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();
    assert_eq!(restored_rows(&estate, &inside, &[], "r1", &cluster), "1,2");
    assert_eq!(restored_rows(&estate, "latest", &[], "r2", &cluster), "1,2,3");
    estate.run(&["verify", "--deep"]).ok();
}

#[test]
fn a_slot_that_was_idle_for_too_long_is_made_anew_and_recorded() {
    let scratch = Scratch::new();
    if server_bin(18).is_none() {
        skip!("no PostgreSQL 18");
    }
    let cluster = Cluster::builder(&scratch)
        .major(18)
        .wal_segment_mib(1)
        .config("min_wal_size = 2MB\nwal_keep_size = 100MB\nidle_replication_slot_timeout = '1s'")
        .start();
    let estate = Estate::builder(&scratch, &cluster).init();
    receive_all(&estate, &cluster);
    cluster.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let lost = "SELECT invalidation_reason FROM pg_replication_slots";
    wait_until("the slot is given up", PATIENCE, || {
        cluster.psql("postgres", "CHECKPOINT");
        cluster.psql("postgres", lost) == "idle_timeout"
    });
    let said = estate.run(&["wal", "receive", "--until-lsn", &current(&cluster)]).ok().stderr;
    assert!(said.contains("idle_timeout") && !said.contains("removed WAL"), "{said}");
    let recorded = ledger(&estate);
    assert!(recorded.contains("idle_timeout"), "{recorded}");
    assert_eq!(shown(&estate)["gaps"], serde_json::json!([]));
}
