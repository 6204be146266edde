//! Servers whose WAL does not belong here: the old primary that comes back, and clones.

use super::*;
use crate::common::skip;

/// A failover that the repository knows of, and the old primary, started again.
fn old_primary(scratch: &Scratch) -> Option<(Cluster, Cluster, Estate)> {
    let mut old = cluster(scratch).config("wal_keep_size = 100MB").start();
    let new = old.standby("standby")?;
    let estate = Estate::builder(scratch, &old).init();
    estate.backup();
    old.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    receive_all(&estate, &old);
    replicated(&old, &new);
    old.kill9();
    new.promote();
    new.psql("postgres", "INSERT INTO t VALUES (22)");
    estate.reconfigure(&old.dsn(), &new.dsn());
    receive_all(&estate, &new);
    old.start();
    old.psql("postgres", "INSERT INTO t VALUES (2)");
    Some((old, new, estate))
}

#[test]
fn an_old_primary_that_comes_back_adds_nothing() {
    let scratch = Scratch::new();
    let Some((old, new, estate)) = old_primary(&scratch) else { skip!("no pg_basebackup") };
    let segment = old.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    switch(&old);
    let before = (content(&estate, "wal"), content(&estate, "wal-live"));
    estate.reconfigure(&new.dsn(), &old.dsn());
    let (stream, backup) = (estate.run(&["wal", "receive"]), estate.run(&["backup", "base"]));
    let archive = push(&estate, &wal_file(&old, &segment));
    for refused in [stream, backup, archive] {
        let failure = told(refused, 6);
        assert!(failure.contains("was left at"), "{failure}");
    }
    assert!(before == (content(&estate, "wal"), content(&estate, "wal-live")), "something was stored");
    // A second try, as a service would do it, changes nothing either; and the new primary goes on.
    estate.run(&["wal", "receive"]).expect_code(6);
    estate.reconfigure(&old.dsn(), &new.dsn());
    new.psql("postgres", "INSERT INTO t VALUES (23)");
    receive_all(&estate, &new);
    assert_eq!(restored_rows(&estate, "latest", &[], "r", &new), "1,22,23");
}

#[test]
fn what_an_old_primary_wrote_before_the_failover_may_still_arrive() {
    let scratch = Scratch::new();
    let mut old = cluster(&scratch).config("wal_keep_size = 100MB").start();
    let Some(new) = old.standby("standby") else { skip!("no pg_basebackup") };
    let estate = Estate::builder(&scratch, &old).init();
    estate.backup();
    let late = old.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    old.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    switch(&old);
    old.psql("postgres", "INSERT INTO t VALUES (2)");
    replicated(&old, &new);
    old.kill9();
    new.promote();
    let history = wal_file(&new, "00000002.history");
    push(&estate, &history).ok();
    // It was complete before the timeline was left: its place in history is certain.
    push(&estate, &wal_file(&old, &late)).ok();
}

#[test]
fn a_clone_that_archives_its_segments_is_refused() {
    let scratch = Scratch::new();
    let mut original = cluster(&scratch).config("wal_keep_size = 100MB").start();
    let estate = Estate::builder(&scratch, &original).init();
    original.psql("postgres", "CREATE TABLE t (i int)");
    original.stop();
    let clone = clone_of(&original, &scratch, "clone");
    original.start();
    estate.backup();
    let receiver = estate.receive(&original);
    original.psql("postgres", "INSERT INTO t VALUES (1)");
    estate.caught_up(&original);
    // The clone completes the segment of which the repository has but pieces.
    let segment = clone.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    let live = original.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    while clone.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())") <= live {
        clone.psql("postgres", "INSERT INTO t VALUES (99)");
        switch(&clone);
    }
    let before = content(&estate, "wal");
    for name in [&segment, &live] {
        let failure = told(push(&estate, &wal_file(&clone, name)), 6);
        assert!(failure.contains("other content"), "{failure}");
    }
    assert!(before == content(&estate, "wal"), "something was stored");
    // The original's own segment, pushed beside the receiver, is welcome.
    switch(&original);
    push(&estate, &wal_file(&original, &live)).ok();
    original.psql("postgres", "INSERT INTO t VALUES (2)");
    estate.caught_up(&original);
    receiver.kill9();
    assert_eq!(restored_rows(&estate, "latest", &[], "r", &original), "1,2");
}

#[test]
fn a_clone_whose_stream_would_go_on_where_the_original_ended_is_refused() {
    let scratch = Scratch::new();
    let mut original = cluster(&scratch).config("wal_keep_size = 100MB").start();
    let estate = Estate::builder(&scratch, &original).init();
    original.psql("postgres", "CREATE TABLE t (i int); SELECT pg_create_physical_replication_slot('lifeboat', true)");
    let first = original.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    original.stop();
    // The copy has the slot, too.
    let clone = clone_of(&original, &scratch, "clone");
    original.start();
    original.psql("postgres", "INSERT INTO t VALUES (1)");
    switch(&original);
    switch(&original);
    let reached = original.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    original.stop();
    // Complete segments only, as an archive_command leaves them.
    for file in fs::read_dir(original.data_dir().join("pg_wal")).expect("a directory") {
        let name = file.expect("an entry").file_name().to_string_lossy().into_owned();
        if (&first..&reached).contains(&&name) {
            push(&estate, &wal_file(&original, &name)).ok();
        }
    }
    assert!(names(&estate, "wal").len() > 1 && names(&estate, "wal-live").is_empty());
    // The clone is past everything that is archived: only bytes of what they have in common tell it apart.
    while clone.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())") <= reached {
        clone.psql("postgres", "INSERT INTO t VALUES (99)");
        switch(&clone);
    }
    clone.psql("postgres", "INSERT INTO t VALUES (100)");
    let before = (content(&estate, "wal"), names(&estate, "wal-live"));
    estate.reconfigure(&original.dsn(), &clone.dsn());
    let failure = told(estate.run(&["wal", "receive", "--until-lsn", &current(&clone)]), 6);
    assert!(failure.contains("other content"), "{failure}");
    let failure = told(estate.run(&["backup", "base"]), 6);
    assert!(failure.contains("other content"), "{failure}");
    assert!(before == (content(&estate, "wal"), names(&estate, "wal-live")), "something was stored");
    assert_eq!(estate.run(&["show"]).ok().json()["environments"][0]["bases"], serde_json::json!([]));
}

#[test]
fn a_clone_that_is_behind_the_original_is_refused() {
    let scratch = Scratch::new();
    let mut original = cluster(&scratch).start();
    let estate = Estate::builder(&scratch, &original).init();
    original.stop();
    let clone = clone_of(&original, &scratch, "clone");
    original.start();
    original.psql("postgres", "CREATE TABLE t (i int)");
    for _ in 0..3 {
        switch(&original);
    }
    receive_all(&estate, &original);
    original.stop();
    clone.psql("postgres", "CREATE TABLE u (i int)");
    estate.reconfigure(&original.dsn(), &clone.dsn());
    let before = (content(&estate, "wal"), names(&estate, "wal-live"));
    for command in [["wal", "receive"], ["backup", "base"]] {
        let failure = told(estate.run(&command), 6);
        assert!(failure.contains("has written only up to"), "{failure}");
    }
    assert!(before == (content(&estate, "wal"), names(&estate, "wal-live")), "something was stored");
}

#[test]
fn two_clones_that_stream_at_the_same_time_do_not_mix() {
    let scratch = Scratch::new();
    let mut original = cluster(&scratch).start();
    let estate = Estate::builder(&scratch, &original).init();
    original.psql("postgres", "CREATE TABLE t (i int)");
    receive_all(&estate, &original);
    original.stop();
    let clone = clone_of(&original, &scratch, "clone");
    original.start();
    // As a copy of the whole machine does it: the same configuration, beside another server.
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("a configuration");
    let copied = scratch.write("clone.toml", config.replace(&original.dsn(), &clone.dsn()));
    let of_clone = crate::common::Lifeboat::new(copied);
    let mut receivers = [estate.lifeboat.clone(), of_clone].map(|l| l.spawn(&["wal", "receive", "-e", "production"]));
    // Neither is busy: heartbeats are all that is written, into one and the same segment.
    wait_until("the difference is found", PATIENCE, || receivers.iter_mut().any(|r| !r.is_running()));
    let ended = receivers.iter_mut().position(|r| !r.is_running()).expect("one has ended");
    let [one, other] = receivers;
    let (ended, _other) = if ended == 0 { (one, other) } else { (other, one) };
    let failure = ended.wait(PATIENCE).expect_code(6);
    assert!(
        failure.stderr.contains("other content") || failure.stderr.contains("has written only up to"),
        "{}",
        failure.stderr
    );
}

#[test]
fn pieces_that_appear_beside_ones_own_are_compared() {
    let scratch = Scratch::new();
    let original = cluster(&scratch).start();
    let estate = Estate::builder(&scratch, &original).init();
    let receiver = estate.receive(&original);
    original.psql("postgres", "CREATE TABLE t (i int)");
    estate.caught_up(&original);
    // A clone's receiver cuts where it likes: no name of its pieces is one of ours.
    let piece = estate.objects("wal-live").pop().expect("a piece");
    let name = piece.file_name().expect("a name").to_string_lossy().into_owned();
    let (from, to) = name.split_once('-').expect("a range");
    let other = format!("{from}-{:0width$}", to.parse::<u64>().expect("a number") - 8, width = to.len());
    fs::copy(&piece, piece.with_file_name(other)).expect("a copy");
    let failure = receiver.wait(PATIENCE).expect_code(6);
    assert!(failure.stderr.contains("other content"), "{}", failure.stderr);
    assert!(names(&estate, "wal-live").contains(&name), "what was there first is kept");
}
