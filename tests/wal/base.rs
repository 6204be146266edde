//! A base backup has the WAL that it needs.

use super::*;

#[test]
fn a_base_backup_alone_can_be_restored() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::in_folder(&scratch, &cluster);
    assert!(pgbench_init(&cluster, "postgres", 2), "pgbench");
    let journal = Journal::start(&cluster, "postgres");
    journal.wait_for(20);
    let before = journal.acknowledged().len();
    let backup = estate.lifeboat.run(&["--format", "json", "backup", "base", "-e", "production"]).ok().json();
    journal.stop();
    let wal = &backup["base_backup"]["wal"];
    let stored = estate.stored("wal/00000001");
    for end in ["first", "last"] {
        assert!(stored.contains(&wal[end].as_str().expect("a name").to_owned()), "{wal} {stored:?}");
    }
    assert_eq!(cluster.psql("postgres", "SELECT count(*) FROM pg_replication_slots"), "0", "nothing is left behind");
    let restored = restore(&estate, &cluster, "restored");
    let rows: usize = restored.psql("postgres", "SELECT count(*) FROM journal").parse().expect("a number");
    assert!(rows >= before, "{rows} of {before}");
    assert_eq!(restored.psql("postgres", "SELECT count(*) FROM pgbench_accounts"), "200000");
}

#[test]
fn a_base_backup_relies_on_a_receiver_that_runs() {
    let scratch = Scratch::new();
    let (cluster, _) = Estate::cluster_with_slot(&scratch, 16);
    let estate = Estate::in_folder(&scratch, &cluster);
    let receiver = estate.receive();
    wait_flushed(&cluster, &current(&cluster));
    let backup = estate.lifeboat.run(&["backup", "base", "-e", "production"]).ok();
    assert!(!backup.stderr.contains("receiving WAL"), "{}", backup.stderr);
    drop(receiver);
    assert_eq!(restore(&estate, &cluster, "restored").psql("postgres", "SELECT 1"), "1");
}

#[test]
fn a_base_backup_of_a_standby_has_the_wal_it_needs() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let Some(standby) = cluster.standby("standby") else { skip!("no pg_basebackup") };
    cluster.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) i; CHECKPOINT");
    let end = current(&cluster);
    wait_until("the standby has all", PATIENCE, || {
        standby.psql("postgres", &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")) == "t"
    });
    let repository = format!("url = \"file://{}\"", scratch.join("repository").display());
    let estate = Estate::with(&scratch, &repository, &standby.dsn());
    estate.lifeboat.run(&["backup", "base", "-e", "production"]).ok();
    let restored = restore(&estate, &cluster, "restored");
    assert_eq!(restored.psql("postgres", "SELECT count(*) FROM t"), "1000");
}
