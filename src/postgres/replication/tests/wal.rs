//! WAL streams: content, status, silence, gaps, timelines, shutdown.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::*;
use crate::error::ErrorKind;
use crate::postgres::replication::testing::unpack;
use crate::units::Timeline;

/// Reads WAL until `until`, checking that it arrives without holes.
async fn receive(stream: &mut WalStream, from: Lsn, until: Lsn) -> Vec<u8> {
    let mut wal = Vec::new();
    while from.0 + (wal.len() as u64) < until.0 {
        let message = timeout(Duration::from_secs(30), stream.next()).await.expect("in time").expect("message");
        if let WalMessage::Data { start, bytes, .. } = message {
            assert_eq!(start.0, from.0 + wal.len() as u64, "WAL is contiguous");
            wal.extend_from_slice(&bytes);
        }
    }
    wal
}

#[tokio::test]
async fn wal_streams_stops_and_streams_again() {
    let Some(server) = TestServer::start(&[], &[]).await else { return };
    let sql = server.sql().await;
    let mut connection = replication(&server).await;
    connection.create_physical_slot("receiver", false).await.expect("created");
    let segment = connection.wal_segment_size().await.expect("size");
    let identity = connection.identify_system().await.expect("identity");
    let from = identity.flush_lsn.segment_start(segment);
    let mut stream = connection.start_physical(Some("receiver"), from, identity.timeline).await.expect("started");

    sql.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 400000) AS n").await.expect("written");
    let row = sql.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.expect("row");
    let until: Lsn = row.get::<_, String>(0).parse().expect("an LSN");
    let wal = receive(&mut stream, from, until).await;
    let name = format!("{}{:08X}{:08X}", identity.timeline, from.0 >> 32, from.segment(segment) & 0xFF);
    let file = std::fs::read(server.data().join("pg_wal").join(name)).expect("the segment");
    let length = wal.len().min(file.len());
    assert!(wal[..length] == file[..length], "the stream is what lies in pg_wal");

    // A second receiver is told who is in the way.
    let other = replication(&server).await;
    let error = other.start_physical(Some("receiver"), from, identity.timeline).await.expect_err("in use");
    assert_eq!(sqlstate(&error), Some("55006"), "{error}");
    assert!(error.hints()[0].contains("another receiver"), "{error}");

    // The status moves the slot, and asks for a keepalive.
    stream.send_status(until, until, Lsn(0), true).await.expect("sent");
    loop {
        if let WalMessage::Keepalive { server_end, .. } = stream.next().await.expect("message") {
            assert!(server_end >= until);
            break;
        }
    }
    let confirmed = "SELECT restart_lsn::text, reply_time > now() - interval '1 minute' FROM pg_replication_slots, \
                     pg_stat_replication WHERE slot_name = 'receiver' AND pid = active_pid";
    let row = sql.query_one(confirmed, &[]).await.expect("row");
    assert_eq!(row.get::<_, String>(0), until.to_string());
    assert!(row.get::<_, bool>(1), "the status is dated by the server's clock");

    // The session survives the end of the stream.
    let mut connection = stream.stop().await.expect("stopped");
    assert_eq!(connection.identify_system().await.expect("identity").system_id, identity.system_id);
    let mut stream =
        connection.start_physical(Some("receiver"), until, identity.timeline).await.expect("started again");
    sql.batch_execute("SELECT pg_switch_wal()").await.expect("switched");
    receive(&mut stream, until, Lsn(until.0 + 1)).await;
}

#[tokio::test]
async fn a_silent_server_is_asked_and_then_given_up() {
    let Some(server) = TestServer::start(&["wal_sender_timeout = 0"], &[]).await else { return };
    let options = ConnectOptions { silence: Duration::from_millis(600), ..ConnectOptions::default() };
    let mut connection =
        ReplicationConnection::connect_with(&server.dsn("user=postgres"), &options).await.expect("connected");
    let walsender = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'";
    let pid = server.sql().await.query_one(walsender, &[]).await.expect("row");
    let pid = nix::unistd::Pid::from_raw(pid.get(0));
    let identity = connection.identify_system().await.expect("identity");
    let mut stream = connection.start_physical(None, identity.flush_lsn, identity.timeline).await.expect("started");
    // An idle server whose own timeout is off says nothing unasked.
    for _ in 0..3 {
        let message = loop {
            match stream.next().await.expect("alive") {
                WalMessage::Data { .. } => {}
                message => break message,
            }
        };
        assert!(matches!(message, WalMessage::Keepalive { .. }), "{message:?}");
    }
    nix::sys::signal::kill(pid, Signal::SIGSTOP).expect("stopped");
    let error = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    nix::sys::signal::kill(pid, Signal::SIGCONT).expect("continued");
    assert!(error.message().contains("said nothing"), "{error}");
}

#[tokio::test]
async fn removed_wal_is_a_gap_and_a_foreign_timeline_is_refused() {
    let Some(server) = TestServer::start(&["max_wal_size = '32MB'", "min_wal_size = '32MB'"], &[]).await else {
        return;
    };
    let sql = server.sql().await;
    let mut connection = replication(&server).await;
    let old = connection.identify_system().await.expect("identity");
    for _ in 0..4 {
        sql.batch_execute("CREATE TABLE x AS SELECT 1; DROP TABLE x").await.expect("written");
        sql.batch_execute("SELECT pg_switch_wal()").await.expect("switched");
        sql.batch_execute("CHECKPOINT").await.expect("checkpoint");
    }
    let mut stream = connection.start_physical(None, old.flush_lsn, old.timeline).await.expect("started");
    let error = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert!(wal_is_gone(&error), "{error}");
    assert!(error.what_it_means().is_some_and(|meaning| meaning.contains("gap")), "{error}");

    let connection = replication(&server).await;
    let error = connection.start_physical(None, old.flush_lsn, Timeline(7)).await.expect_err("no such timeline");
    assert!(error.message().contains("timeline 7"), "{error}");
    let mut connection = replication(&server).await;
    assert!(connection.timeline_history(Timeline(7)).await.is_err());
    let beyond = Lsn(old.flush_lsn.0 + (1 << 32));
    let error = match connection.start_physical(None, beyond, old.timeline).await {
        Ok(mut stream) => stream.next().await.expect_err("not written yet"),
        Err(error) => error,
    };
    assert!(error.what_it_means().is_some_and(|meaning| meaning.contains("does not have")), "{error}");
}

#[tokio::test]
async fn an_invalidated_slot_means_a_gap() {
    let settings = ["max_wal_size = '32MB'", "min_wal_size = '32MB'", "max_slot_wal_keep_size = '1MB'"];
    let Some(server) = TestServer::start(&settings, &[]).await else { return };
    let sql = server.sql().await;
    let mut connection = replication(&server).await;
    connection.create_physical_slot("late", false).await.expect("created");
    let old = connection.identify_system().await.expect("identity");
    for _ in 0..4 {
        sql.batch_execute("CREATE TABLE x AS SELECT 1; DROP TABLE x").await.expect("written");
        sql.batch_execute("SELECT pg_switch_wal()").await.expect("switched");
        sql.batch_execute("CHECKPOINT").await.expect("checkpoint");
    }
    let status = sql.query_one("SELECT wal_status FROM pg_replication_slots", &[]).await.expect("row");
    assert_eq!(status.get::<_, String>(0), "lost");
    let error = match connection.start_physical(Some("late"), old.flush_lsn, old.timeline).await {
        Ok(mut stream) => loop {
            if let Err(error) = stream.next().await {
                break error;
            }
        },
        Err(error) => error,
    };
    assert!(error.what_it_means().is_some_and(|meaning| meaning.contains("gap")), "{error}");
}

#[tokio::test]
async fn a_promotion_ends_the_timeline_and_the_next_one_follows() {
    let Some(server) = TestServer::start(&[], &[]).await else { return };
    let mut connection = replication(&server).await;
    connection.create_physical_slot("keep", false).await.expect("created");
    let copy = backup(connection, &BaseBackupOptions::default()).await;
    let standby = server
        .standby_of(|data| unpack(&copy.archives[0], data), &["primary_slot_name = 'keep'", "wal_keep_size = '1GB'"])
        .await;

    let from = copy.start.segment_start(16 << 20);
    let mut stream = replication(&standby).await.start_physical(None, from, Timeline(1)).await.expect("started");
    standby.sql().await.batch_execute("SELECT pg_promote()").await.expect("promoted");
    let mut end = from;
    let (next, switch) = loop {
        match timeout(Duration::from_secs(30), stream.next()).await.expect("in time").expect("message") {
            WalMessage::Data { start, bytes, .. } => {
                assert_eq!(start, end);
                end = Lsn(start.0 + bytes.len() as u64);
            }
            WalMessage::Keepalive { .. } => {}
            WalMessage::TimelineEnded { next, switch } => break (next, switch),
        }
    };
    assert_eq!((next, switch), (Timeline(2), end));
    stream.send_status(end, end, end, false).await.expect("nothing to tell any more");

    let mut connection = stream.stop().await.expect("stopped");
    let (name, history) = connection.timeline_history(next).await.expect("history");
    assert_eq!(name, "00000002.history");
    assert!(String::from_utf8_lossy(&history).contains(&switch.to_string()));

    // Starting exactly where the old timeline ends goes straight to its end.
    let mut stream = connection.start_physical(None, switch, Timeline(1)).await.expect("started");
    assert_eq!(stream.next().await.expect("message"), WalMessage::TimelineEnded { next, switch });
    let connection = stream.stop().await.expect("stopped");
    let mut stream = connection.start_physical(None, switch, next).await.expect("the new timeline");
    receive(&mut stream, switch, Lsn(switch.0 + 1)).await;
    // Stopping on a timeline that is history already.
    let connection = stream.stop().await.expect("stopped");
    let stream = connection.start_physical(None, from, Timeline(1)).await.expect("started");
    let mut connection = stream.stop().await.expect("stopped in the middle of an old timeline");
    connection.identify_system().await.expect("usable");
}

#[tokio::test]
async fn a_shutdown_ends_the_stream_after_all_wal() {
    let Some(server) = TestServer::start(&[], &[]).await else { return };
    let mut connection = replication(&server).await;
    let identity = connection.identify_system().await.expect("identity");
    let mut stream = connection.start_physical(None, identity.flush_lsn, identity.timeline).await.expect("started");
    // It says that it streams before it does; whoever is told to end in between ends like any other session.
    stream.send_status(identity.flush_lsn, identity.flush_lsn, Lsn(0), true).await.expect("sent");
    while !matches!(stream.next().await.expect("message"), WalMessage::Keepalive { .. }) {}
    server.signal(Signal::SIGINT);
    // A fast shutdown waits until this receiver has everything.
    let mut end = identity.flush_lsn;
    let error = loop {
        match timeout(Duration::from_secs(30), stream.next()).await.expect("in time") {
            Ok(WalMessage::Data { start, bytes, .. }) => end = Lsn(start.0 + bytes.len() as u64),
            Ok(_) => {}
            Err(error) => break error,
        }
        stream.send_status(end, end, end, false).await.expect("a lost connection is for next() to tell");
    };
    assert_eq!(error.kind(), ErrorKind::Source, "{error}");
    assert!(error.message().contains("shutting down"), "{error}");
}
