//! Clusters that are promoted, replaced, cloned, or that lost WAL before it was archived.

use super::*;

#[test]
fn a_promoted_standby_is_followed_and_the_old_primary_is_not() {
    let scratch = Scratch::new();
    let (mut cluster, first) = Estate::cluster_with_slot(&scratch, 1);
    let Some(standby) = cluster.standby("standby") else { skip!("no pg_basebackup") };
    let estate = Estate::in_folder(&scratch, &cluster);
    cluster.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 50000) i");
    estate.receive_until(&current(&cluster));
    cluster.psql("postgres", "INSERT INTO t SELECT generate_series(1, 20000)");
    let end = current(&cluster);
    wait_until("the standby has all", PATIENCE, || {
        standby.psql("postgres", &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")) == "t"
    });
    cluster.kill9();
    standby.promote();
    standby.psql("postgres", "INSERT INTO t SELECT generate_series(1, 50000)");
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("there");
    scratch.write("lifeboat.toml", config.replace(&cluster.dsn(), &standby.dsn()));
    let end_of_two = current(&standby);
    let received = estate.receive_until(&end_of_two);
    assert_eq!(received["received"]["timeline"], 2);
    assert!(estate.stored("wal/00000002").contains(&"00000002.history".to_owned()));
    let history = fs::read(standby.data_dir().join("pg_wal/00000002.history")).expect("there");
    assert_eq!(estate.fetched("00000002.history"), history);
    let history = String::from_utf8(history).expect("text");
    let switch = history.split_whitespace().nth(1).expect("a position").to_owned();
    // The old timeline is there to its very end, the new one from the segment of the switch on.
    let of_old = format!("SELECT '00000001' || substr(pg_walfile_name('{switch}'), 9)");
    let (old, new) =
        (standby.psql("postgres", &of_old), standby.psql("postgres", &format!("SELECT pg_walfile_name('{switch}')")));
    let length = (lsn(&switch) % (1 << 20)) as usize;
    assert!(estate.fetched(&old)[..length] == estate.fetched(&new)[..length]);
    assert!(estate.stored("wal/00000001").contains(&first));
    estate.assert_holds(&standby, &new, &end_of_two);
    // The old primary comes back and goes on alone.
    cluster.start();
    cluster.psql("postgres", "INSERT INTO t VALUES (0)");
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("there");
    scratch.write("lifeboat.toml", config.replace(&standby.dsn(), &cluster.dsn()));
    let refused = estate.lifeboat.run(&["wal", "receive", "-e", "production"]).expect_code(6);
    assert!(refused.stderr.contains("was left at"), "{}", refused.stderr);
}

#[test]
fn the_wal_of_another_cluster_is_refused() {
    let scratch = Scratch::new();
    let (cluster, _) = Estate::cluster_with_slot(&scratch, 1);
    let other = Cluster::builder(&scratch).name("other").wal_segment_mib(1).start();
    let estate = Estate::in_folder(&scratch, &cluster);
    switch(&cluster);
    estate.receive_until(&current(&cluster));
    let segment = other.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    switch(&other);
    let before = estate.stored("wal");
    let refused = estate.push(&other.data_dir().join("pg_wal").join(&segment)).expect_code(6);
    assert!(refused.stderr.contains("another cluster"), "{}", refused.stderr);
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("there");
    scratch.write("lifeboat.toml", config.replace(&cluster.dsn(), &other.dsn()));
    for command in [["wal", "receive"], ["backup", "base"]] {
        let refused = estate.lifeboat.run(&[command[0], command[1], "-e", "production"]).expect_code(6);
        assert!(refused.stderr.contains("another cluster"), "{}", refused.stderr);
    }
    assert_eq!(estate.stored("wal"), before);
    assert!(estate.stored("data").is_empty());
}

#[test]
fn a_cluster_that_diverged_overwrites_nothing() {
    let scratch = Scratch::new();
    let (mut cluster, _) = Estate::cluster_with_slot(&scratch, 1);
    let estate = Estate::in_folder(&scratch, &cluster);
    let data = cluster.data_dir().to_owned();
    cluster.stop();
    let copy = scratch.server_dir("copy").join("data");
    let copied = Command::new("cp").arg("-a").arg(&data).arg(&copy).status().expect("cp");
    assert!(copied.success());
    own(&copy);
    cluster.start();
    cluster.psql("postgres", "CREATE TABLE a AS SELECT 1 AS i");
    let end = current(&cluster);
    estate.receive_until(&end);
    let before = estate.stored("wal-live");
    cluster.stop();
    // A clone of the same cluster goes another way from the same position.
    let conf = copy.join("postgresql.conf");
    let text = fs::read_to_string(&conf).expect("there");
    fs::write(&conf, format!("{text}\nunix_socket_directories = '{}'\n", scratch.join("copy").display()))
        .expect("there");
    let clone = Cluster::adopt(&scratch, &copy, cluster.major());
    clone.psql("postgres", "CREATE TABLE b AS SELECT generate_series(1, 1000) AS i");
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("there");
    scratch.write("lifeboat.toml", config.replace(&cluster.dsn(), &clone.dsn()));
    let refused = estate.lifeboat.run(&["wal", "receive", "-e", "production"]).expect_code(6);
    assert!(refused.stderr.contains("with other content"), "{}", refused.stderr);
    assert_eq!(estate.stored("wal-live"), before);
}

#[test]
fn removed_wal_is_a_gap_that_is_told_and_not_hidden() {
    let scratch = Scratch::new();
    let cluster =
        Cluster::builder(&scratch).wal_segment_mib(1).config("min_wal_size = 2MB\nmax_wal_size = 4MB").start();
    let estate = Estate::in_folder(&scratch, &cluster);
    switch(&cluster);
    estate.receive_until(&current(&cluster));
    cluster.psql("postgres", "SELECT pg_drop_replication_slot('lifeboat')");
    for _ in 0..20 {
        switch(&cluster);
    }
    cluster.psql("postgres", "CHECKPOINT");
    cluster.psql("postgres", "CHECKPOINT");
    let output = estate.lifeboat.run(&["wal", "receive", "-e", "production", "--until-lsn", &current(&cluster)]).ok();
    assert!(output.stderr.contains("removed WAL before it was archived"), "{}", output.stderr);
    let ledger = estate.lifeboat.run(&["--format", "json", "evidence", "show", "-e", "production"]).ok().stdout;
    assert!(ledger.contains("removed WAL before it was archived"), "{ledger}");
    switch(&cluster);
    estate.receive_until(&current(&cluster));
    let names = estate.stored("wal/00000001");
    let last = u64::from_str_radix(&names[names.len() - 1][16..], 16).expect("hex");
    let first = u64::from_str_radix(&names[0][16..], 16).expect("hex");
    assert!(last - first + 1 > names.len() as u64, "there is a gap: {names:?}");
}
