//! Disasters: what is lost is what the clients say, and what is left is enough.

use std::fs;

use crate::common::{Cluster, Estate, Journal, Scratch, pgbench_init, pgbench_run};

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
