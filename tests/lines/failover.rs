//! The primary dies and a standby takes over: in the middle of a base backup, of a WAL stream, of a drill.

use super::*;
use crate::common::skip;

#[test]
fn a_streamed_base_backup_whose_primary_dies_fails_and_the_next_is_of_the_new_timeline() {
    primary_dies_during_a_backup("streamed");
}

#[test]
fn a_direct_base_backup_whose_primary_dies_fails_and_the_next_is_of_the_new_timeline() {
    primary_dies_during_a_backup("direct");
}

fn primary_dies_during_a_backup(reader: &str) {
    let scratch = Scratch::new();
    let mut primary = cluster(&scratch).start();
    let Some(standby) = primary.standby("standby") else { skip!("no pg_basebackup") };
    let estate = Estate::builder(&scratch, &primary).postgres("max_rate = \"4 MiB\"").init();
    let running = backup_under_way(&estate, &primary, reader);
    primary.kill9();
    standby.promote();
    let failure = told(running.wait(PATIENCE), 4);
    // Which of its sessions misses the server first is chance.
    let missed = ["connect", "session", "the replication slot"];
    assert!(missed.iter().any(|words| failure.contains(words)), "{failure}");
    assert!(names(&estate, "ledger").len() <= 2, "only the failure is recorded: {:?}", names(&estate, "ledger"));
    estate.plan("latest").expect_code(7);
    estate.reconfigure(&primary.dsn(), &standby.dsn());
    estate.reconfigure("max_rate = \"4 MiB\"", "");
    standby.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let backup = estate.run(&["backup", "base"]).ok().json();
    assert_eq!(backup["base_backup"]["timeline"], 2);
    assert_eq!(restored_rows(&estate, "latest", &[], "r", &primary), "1");
}

#[test]
fn a_stream_follows_the_failover_and_loses_nothing() {
    let scratch = Scratch::new();
    let mut primary = cluster(&scratch).start();
    let Some(standby) = primary.standby("standby") else { skip!("no pg_basebackup") };
    // Both hosts, as a client of such a pair is configured.
    let both = format!(
        "host={},{} port={} user=postgres dbname=postgres target_session_attrs=read-write",
        primary.socket_dir().display(),
        standby.socket_dir().display(),
        primary.port()
    );
    let estate = Estate::builder(&scratch, &primary).dsn(&both).init();
    let receiver = estate.receive(&primary);
    estate.backup();
    primary.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let one = now(&primary);
    switch(&primary);
    primary.psql("postgres", "INSERT INTO t VALUES (2)");
    let two = now(&primary);
    replicated(&primary, &standby);
    estate.caught_up(&primary);
    primary.kill9();
    standby.promote();
    standby.psql("postgres", "INSERT INTO t VALUES (3)");
    let three = now(&standby);
    switch(&standby);
    standby.psql("postgres", "INSERT INTO t VALUES (4)");
    let end = current(&standby);
    wait_until("the new primary's WAL is durable", PATIENCE, || {
        let durable = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'lifeboat' AND flush_lsn >= ";
        standby.psql("postgres", &format!("{durable}'{end}'")) == "1"
    });
    assert!(names(&estate, "wal/00000002").contains(&"00000002.history".to_owned()));
    // While the receiver runs and while it does not: every moment on both sides of the switch.
    assert_eq!(restored_rows(&estate, &one, &[], "r1", &primary), "1");
    receiver.kill9();
    for (target, name, rows) in [(&*two, "r2", "1,2"), (&*three, "r3", "1,2,3"), ("latest", "r4", "1,2,3,4")] {
        assert_eq!(restored_rows(&estate, target, &[], name, &primary), rows, "{target}");
    }
    estate.run(&["verify", "--deep"]).ok();
    let show = estate.run(&["show"]).ok().json();
    assert_eq!(show["environments"][0]["gaps"], serde_json::json!([]), "{show}");
}

#[test]
fn wal_that_the_new_primary_never_had_is_named_and_kept_apart() {
    let scratch = Scratch::new();
    let mut primary = cluster(&scratch).start();
    let Some(mut standby) = primary.standby("standby") else { skip!("no pg_basebackup") };
    let estate = Estate::builder(&scratch, &primary).init();
    let receiver = estate.receive(&primary);
    estate.backup();
    primary.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    replicated(&primary, &standby);
    // The standby is away when the last commits come, and takes over without them.
    standby.stop();
    primary.psql("postgres", "INSERT INTO t VALUES (2)");
    switch(&primary);
    primary.psql("postgres", "INSERT INTO t VALUES (3)");
    estate.caught_up(&primary);
    primary.kill9();
    receiver.signal(nix::sys::signal::Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();
    standby.start();
    standby.promote();
    standby.psql("postgres", "INSERT INTO t VALUES (22)");
    estate.reconfigure(&primary.dsn(), &standby.dsn());
    receive_all(&estate, &standby);
    let plan = estate.plan("latest").ok().json();
    let branch = &plan["plan"]["target"]["left_behind"][0];
    assert_eq!(branch["timeline"], 1, "{plan}");
    assert_eq!(restored_rows(&estate, "latest", &[], "r1", &primary), "1,22");
    assert_eq!(restored_rows(&estate, "latest", &["--timeline", "1"], "r2", &primary), "1,2,3");
}

#[test]
fn a_drill_goes_on_as_planned_when_a_new_timeline_begins() {
    let scratch = Scratch::new();
    let primary = cluster(&scratch).start();
    let Some(standby) = primary.standby("standby") else { skip!("no pg_basebackup") };
    let drills = scratch.server_dir("drills");
    let check = format!(
        "[environment.drill]\nwork_dir = \"{}\"\n[[check]]\nid = \"S1\"\ntitle = \"slow\"\nseverity = \"hard\"\n\
         database = \"every\"\nsql = \"SELECT 1 WHERE false\"\nwhy = \"test\"",
        drills.display()
    );
    let estate = Estate::builder(&scratch, &primary).tables(&check).init();
    let receiver = estate.receive(&primary);
    estate.backup();
    primary.psql("postgres", "CREATE TABLE t AS SELECT i, repeat('x', 1000) AS x FROM generate_series(1, 20000) i");
    replicated(&primary, &standby);
    estate.caught_up(&primary);
    receiver.signal(nix::sys::signal::Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();
    let mut drill = estate.spawn(&["drill", "run"]);
    wait_until("the drill restores", PATIENCE, || {
        assert!(drill.is_running(), "{}", drill.said());
        walkdir::WalkDir::new(&drills).into_iter().count() > 3
    });
    // The repository learns of a second timeline in the meantime.
    drop(primary);
    standby.promote();
    standby.psql("postgres", "CREATE TABLE u (i int)");
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("there");
    let (old, new) = (scratch.join("pg"), scratch.join("standby"));
    let re_pointed = config.replace(&format!("host={}", old.display()), &format!("host={}", new.display()));
    let other = crate::common::Lifeboat::new(scratch.write("new.toml", re_pointed));
    other.run(&["wal", "receive", "-e", "production", "--until-lsn", &current(&standby)]).ok();
    assert!(!names(&estate, "wal/00000002").is_empty());
    let record = drill.wait(PATIENCE * 2).ok().json();
    assert_eq!(record["drill"]["verdict"], "passed", "{record}");
    estate.run(&["evidence", "verify"]).ok();
}
