//! Commits that return only when the repository has them.

use std::sync::mpsc;

use super::*;
use crate::common::{FlakyProxy, Journal, Moto, skip};

const SYNCHRONOUS: &str = "synchronous_standby_names = 'lifeboat'";

/// An insert in a session of its own; the receiver tells when it returned.
fn commit(cluster: &Cluster, sql: &str) -> mpsc::Receiver<()> {
    let (dsn, sql) = (cluster.dsn(), sql.to_owned());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.expect("a session");
            tokio::spawn(connection);
            if client.batch_execute(&sql).await.is_ok() {
                let _ = tell.send(());
            }
        });
    });
    told
}

/// Waits until so many sessions wait for a synchronous standby.
fn waiting(cluster: &Cluster, sessions: u32) {
    let question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%INSERT%'";
    wait_until("commits wait", PATIENCE, || cluster.psql("postgres", question) == sessions.to_string());
}

#[test]
fn no_acknowledged_commit_is_lost_when_server_and_receiver_die_together() {
    for pause in [17, 230, 640] {
        let scratch = Scratch::new();
        let mut server = cluster(&scratch).config(SYNCHRONOUS).start();
        let estate = Estate::builder(&scratch, &server).init();
        let receiver = estate.receive(&server);
        let journals: Vec<Journal> = (0..2)
            .map(|n| {
                let database = format!("d{n}");
                server.psql("postgres", &format!("CREATE DATABASE {database}"));
                Journal::start(&server, &database)
            })
            .collect();
        estate.backup();
        journals.iter().for_each(|journal| journal.wait_for(20));
        std::thread::sleep(Duration::from_millis(pause)); // a moment that nothing announces
        receiver.kill9();
        server.kill9();
        fs::remove_dir_all(server.data_dir()).expect("the cluster is gone");
        let copy = estate.restored("latest", "r", &server);
        for (n, journal) in journals.into_iter().enumerate() {
            let said = journal.stop();
            let last = said.acknowledged.last().expect("commits").id;
            let found = copy.psql(&format!("d{n}"), "SELECT count(*), max(id) FROM journal");
            let (count, max) = found.split_once('|').expect("two columns");
            assert_eq!(count, max, "a hole in the journal");
            let present: i64 = max.parse().expect("a number");
            assert!(present >= last, "acknowledged and lost: {present} < {last}");
            assert!(present <= said.in_doubt.unwrap_or(last), "a row that nobody wrote");
        }
    }
}

#[test]
fn commits_wait_while_the_store_is_away() {
    let scratch = Scratch::new();
    let Some(moto) = Moto::start_new(&scratch) else { skip!("LIFEBOAT_TEST_MOTO is not set") };
    moto.create_bucket("estate");
    let proxy = FlakyProxy::new(moto.port());
    // The receiver reports thrice in that time, whether it has news or not.
    let server = cluster(&scratch).config(SYNCHRONOUS).config("wal_sender_timeout = 2s").start();
    let estate = Estate::builder(&scratch, &server)
        .repository(&format!(
            "{}\naccess_key_id = {{ env = \"AWS_ACCESS_KEY_ID\" }}\nsecret_access_key = {{ env = \"AWS_SECRET_ACCESS_KEY\" }}",
            Estate::s3("estate", &proxy.endpoint())
        ))
        .init();
    let receiver = estate.receive(&server);
    server.psql("postgres", "CREATE TABLE t (i int)");
    commit(&server, "INSERT INTO t VALUES (1)").recv_timeout(PATIENCE).expect("durable and told");
    proxy.cut();
    let with =
        |level: &str, i: u32| commit(&server, &format!("SET synchronous_commit = {level}; INSERT INTO t VALUES ({i})"));
    // Whatever PostgreSQL calls the level: Lifeboat has nothing to offer before the store has it.
    let waits = [with("on", 2), with("remote_write", 3), with("remote_apply", 4)];
    waiting(&server, 3);
    with("local", 5).recv_timeout(PATIENCE).expect("local commits do not wait");
    std::thread::sleep(Duration::from_secs(2)); // several reports, none of which may say too much
    assert!(waits.iter().all(|wait| wait.try_recv().is_err()), "a commit returned without the store");
    proxy.restore();
    for wait in waits {
        wait.recv_timeout(PATIENCE).expect("durable and told");
    }
    drop(receiver);
}

#[test]
fn any_one_of_standby_and_lifeboat_is_enough() {
    let scratch = Scratch::new();
    let server = cluster(&scratch).config("wal_keep_size = 100MB").start();
    let Some(mut standby) = server.standby("standby") else { skip!("no pg_basebackup") };
    let estate = Estate::builder(&scratch, &server).init();
    let receiver = estate.receive(&server);
    server.psql("postgres", "CREATE TABLE t (i int)");
    server.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (walreceiver, lifeboat)'");
    server.psql("postgres", "SELECT pg_reload_conf()");
    let quorum = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'";
    wait_until("both count", PATIENCE, || server.psql("postgres", quorum) == "2");
    standby.stop();
    commit(&server, "INSERT INTO t VALUES (1)").recv_timeout(PATIENCE).expect("Lifeboat is enough");
    standby.start();
    wait_until("both count", PATIENCE, || server.psql("postgres", quorum) == "2");
    receiver.kill9();
    commit(&server, "INSERT INTO t VALUES (2)").recv_timeout(PATIENCE).expect("the standby is enough");
    standby.stop();
    let waits = commit(&server, "INSERT INTO t VALUES (3)");
    waiting(&server, 1);
    let receiver = estate.receive(&server);
    waits.recv_timeout(PATIENCE).expect("Lifeboat is back");
    drop(receiver);
}

#[test]
fn a_base_backups_own_stream_counts_for_no_commit() {
    let scratch = Scratch::new();
    let server = cluster(&scratch).start();
    let estate = Estate::builder(&scratch, &server).postgres("max_rate = \"4 MiB\"").init();
    server.psql("postgres", "CREATE TABLE t (i int)");
    server.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'lifeboat'");
    server.psql("postgres", "SELECT pg_reload_conf()");
    let backup = backup_under_way(&estate, &server, "streamed");
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    wait_until("the backup receives its WAL", PATIENCE, || server.psql("postgres", streams) == "1");
    // Its WAL begins with the backup: what lies before is in no repository.
    let waits = commit(&server, "INSERT INTO t VALUES (1)");
    waiting(&server, 1);
    backup.wait(PATIENCE).ok();
    waiting(&server, 1);
    assert!(waits.try_recv().is_err(), "the backup acknowledged a commit");
    let receiver = estate.receive(&server);
    waits.recv_timeout(PATIENCE).expect("the receiver acknowledges it");
    drop(receiver);
}
