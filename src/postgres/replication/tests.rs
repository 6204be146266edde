//! The client against a real server.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::FutureExt;
use nix::sys::signal::Signal;
use tokio::time::timeout;
use tokio_postgres::Config;

use super::testing::{TestServer, give_to_server, unpack};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::postgres::sql::{connect_sql, connect_sql_with};
use crate::units::{Lsn, Timeline};

async fn replication(server: &TestServer) -> ReplicationConnection {
    ReplicationConnection::connect(&server.dsn("user=postgres")).await.expect("connected")
}

async fn refused(dsn: &Config) -> Error {
    ReplicationConnection::connect(dsn).await.expect_err("must be refused")
}

/// What a whole base backup brought: archives by tablespace, manifest, end.
struct Backup {
    tablespaces: Vec<Tablespace>,
    archives: Vec<Vec<u8>>,
    manifest: Vec<u8>,
    start: Lsn,
    end: Lsn,
}

async fn backup(connection: ReplicationConnection, options: &BaseBackupOptions) -> Backup {
    let mut stream = connection.base_backup(options).await.expect("started");
    let tablespaces = stream.tablespaces().to_vec();
    let mut archives = vec![Vec::new(); tablespaces.len()];
    let (mut manifest, mut current) = (Vec::new(), None);
    loop {
        match stream.next().await.expect("message") {
            BackupMessage::Archive { tablespace } => current = Some(tablespace),
            BackupMessage::Manifest => current = None,
            BackupMessage::Data(bytes) => match current {
                Some(index) => archives[index].extend_from_slice(&bytes),
                None => manifest.extend_from_slice(&bytes),
            },
            BackupMessage::Progress(_) => {}
            BackupMessage::Finished { end, timeline } => {
                assert_eq!(timeline, stream.start().1);
                return Backup { tablespaces, archives, manifest, start: stream.start().0, end };
            }
        }
    }
}

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
async fn identity_settings_and_slots() {
    let Some(server) = TestServer::start(&[], &[]).await else { return };
    let mut connection = replication(&server).await;
    let sql = server.sql().await;
    let row = sql.query_one(
        "SELECT system_identifier::text, current_setting('server_version_num') FROM pg_control_system()",
        &[],
    );
    let row = row.await.expect("row");
    let identity = connection.identify_system().await.expect("identity");
    assert_eq!(identity.system_id.to_string(), row.get::<_, String>(0));
    assert_eq!(connection.server_version().to_string(), row.get::<_, String>(1));
    assert_eq!(identity.timeline, Timeline(1));
    assert_eq!(connection.wal_segment_size().await.expect("size"), 16 << 20);
    assert_eq!(connection.show("max_wal_senders").await.expect("value"), "5");

    // A refusal leaves the session usable.
    let error = connection.show("no_such_setting").await.expect_err("unknown");
    assert_eq!(sqlstate(&error), Some("42704"));
    assert_eq!(connection.create_physical_slot("keep", false).await.expect("created"), SlotCreated::Created);
    assert_eq!(connection.create_physical_slot("keep", false).await.expect("there"), SlotCreated::Existed);
    assert_eq!(connection.create_physical_slot("passing", true).await.expect("created"), SlotCreated::Created);
    let reserved = "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical' AND restart_lsn IS NOT NULL";
    assert_eq!(sql.query_one(reserved, &[]).await.expect("row").get::<_, i64>(0), 2);
    connection.drop_slot("keep").await.expect("dropped");
    assert_eq!(sqlstate(&connection.drop_slot("keep").await.expect_err("gone")), Some("42704"));
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
                     pg_stat_replication WHERE slot_name = 'receiver' AND application_name = 'lifeboat'";
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
async fn a_base_backup_with_tablespaces_is_complete() {
    let Some(server) = TestServer::start(&[], &[]).await else { return };
    let space = server.path().join("space");
    std::fs::create_dir(&space).expect("created");
    give_to_server(&space);
    let sql = server.sql().await;
    sql.batch_execute(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display())).await.expect("tablespace");
    sql.batch_execute("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 100000) AS n").await.expect("table");
    let options = BaseBackupOptions { label: "it's a test".into(), ..BaseBackupOptions::default() };
    let backup = backup(replication(&server).await, &options).await;

    assert!(backup.start < backup.end);
    assert_eq!(backup.tablespaces.len(), 2);
    let (fast, base) = (&backup.tablespaces[0], &backup.tablespaces[1]);
    assert_eq!(fast.location.as_deref(), space.to_str());
    assert!(fast.oid.is_some() && fast.size_kib.is_some_and(|size| size > 3000), "{fast:?}");
    assert!(
        base.oid.is_none() && base.location.is_none() && base.size_kib.is_some_and(|size| size > 10_000),
        "{base:?}"
    );

    let mut files = HashMap::new();
    for (index, archive) in backup.archives.iter().enumerate() {
        for entry in tar::Archive::new(&archive[..]).entries().expect("a tar archive") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).expect("whole");
            files.insert((index, name), content);
        }
    }
    let label = String::from_utf8_lossy(&files[&(1, "backup_label".to_string())]).into_owned();
    assert!(label.contains("LABEL: it's a test") && label.contains(&backup.start.to_string()), "{label}");
    assert!(files.contains_key(&(1, "global/pg_control".to_string())));
    assert!(!files.contains_key(&(1, "tablespace_map".to_string())), "links travel in the archive");
    assert!(files.keys().any(|(index, name)| *index == 0 && name.starts_with("PG_")));

    let manifest: serde_json::Value = serde_json::from_slice(&backup.manifest).expect("the manifest is JSON");
    let listed = manifest["Files"].as_array().expect("files");
    assert!(listed.len() > 500);
    assert_eq!(listed[0]["Checksum-Algorithm"], "SHA256");
    assert_eq!(manifest["WAL-Ranges"][0]["End-LSN"], backup.end.to_string());
}

#[tokio::test]
async fn a_damaged_page_fails_the_backup_after_its_data() {
    let Some(server) = TestServer::start(&[], &[]).await else { return };
    let sql = server.sql().await;
    let path = "SELECT pg_relation_filepath('t')";
    sql.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 100000) AS n; CHECKPOINT").await.expect("table");
    let file = server.data().join(sql.query_one(path, &[]).await.expect("row").get::<_, String>(0));
    let mut bytes = std::fs::read(&file).expect("the table");
    bytes[8192 * 3 + 4000] ^= 1;
    std::fs::write(&file, bytes).expect("damaged");

    let mut stream = replication(&server).await.base_backup(&BaseBackupOptions::default()).await.expect("started");
    let error = loop {
        match stream.next().await {
            Ok(BackupMessage::Finished { .. }) => panic!("a damaged backup must not finish"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Integrity, Some("XX001")), "{error}");
    assert!(stream.warnings().iter().any(|w| w.message.contains("checksum")), "{:?}", stream.warnings());
}

#[tokio::test]
async fn logins_that_fail_say_what_to_do() {
    let hba = [
        "host replication guest 127.0.0.1/32 scram-sha-256",
        "host replication plain 127.0.0.1/32 password",
        "local replication plain password",
        "host replication old 127.0.0.1/32 md5",
        "host replication lifeboat 127.0.0.1/32 scram-sha-256",
        "host all lifeboat 127.0.0.1/32 scram-sha-256",
    ];
    let Some(server) = TestServer::start(&["listen_addresses = '127.0.0.1'"], &hba).await else { return };
    let sql = server.sql().await;
    sql.batch_execute("SET password_encryption = 'scram-sha-256'").await.expect("set");
    for (role, attribute) in [("lifeboat", "REPLICATION"), ("plain", "REPLICATION"), ("guest", "")] {
        sql.batch_execute(&format!("CREATE ROLE {role} LOGIN {attribute} PASSWORD 'right'")).await.expect("role");
    }
    sql.batch_execute("SET password_encryption = 'md5'; CREATE ROLE old LOGIN REPLICATION PASSWORD 'right'")
        .await
        .expect("role");

    for user in ["lifeboat", "old"] {
        let mut connection =
            ReplicationConnection::connect(&server.tcp(&format!("user={user} password=right"))).await.expect(user);
        connection.identify_system().await.expect("identity");
        let error = refused(&server.tcp(&format!("user={user} password=wrong"))).await;
        assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Source, Some("28P01")), "{error}");
        assert!(error.hints()[0].contains("password"), "{error}");
    }
    let error = refused(&server.tcp("user=lifeboat")).await;
    assert!(error.message().contains("wants a password"), "{error}");

    let error = refused(&server.tcp("user=postgres password=right")).await;
    assert_eq!(sqlstate(&error), Some("28000"), "{error}");
    assert!(error.hints()[0].contains("host replication"), "{:?}", error.hints());

    let error = refused(&server.tcp("user=guest password=right")).await;
    assert_eq!(sqlstate(&error), Some("42501"), "{error}");
    assert!(error.hints()[0].contains("REPLICATION"), "{:?}", error.hints());

    let error = refused(&server.tcp("user=plain password=right")).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "a password never crosses TCP in the clear: {error}");
    ReplicationConnection::connect(&server.dsn("user=plain password=right")).await.expect("nobody listens on a socket");

    let error = refused(&server.tcp("user=lifeboat password=right sslmode=require")).await;
    assert!(error.message().contains("offers no TLS"), "{error}");
    let error = refused(&server.tcp("user=lifeboat password=right channel_binding=require")).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");

    let error = connect_sql(&server.tcp("user=lifeboat password=wrong dbname=postgres")).await.expect_err("refused");
    assert_eq!(sqlstate(&error), Some("28P01"), "{error}");
    connect_sql(&server.tcp("user=lifeboat password=right dbname=postgres")).await.expect("connected");

    // All hosts in turn; the first ones are dead.
    let dead = format!("host=/nowhere,{} port=1,{} user=postgres", server.path().display(), server.port);
    ReplicationConnection::connect(&dead.parse().expect("a DSN")).await.expect("the second host answers");
    let error = refused(&"host=/nowhere user=postgres".parse().expect("a DSN")).await;
    assert!(error.message().contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn too_many_receivers_are_told_apart() {
    let Some(server) = TestServer::start(&["max_wal_senders = 1"], &[]).await else { return };
    let _first = replication(&server).await;
    let error = refused(&server.dsn("user=postgres")).await;
    assert_eq!(sqlstate(&error), Some("53300"), "{error}");
    assert!(error.hints()[0].contains("max_wal_senders"), "{:?}", error.hints());
}

/// A certificate authority and a certificate for `localhost`, self-signed in one.
fn certificate(dir: &Path) -> bool {
    let (key, cert) = (dir.join("server.key"), dir.join("server.crt"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args([std::ffi::OsStr::new("-keyout"), key.as_os_str(), "-out".as_ref(), cert.as_os_str()])
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("skipped: no openssl to make a certificate");
        return false;
    }
    give_to_server(&key);
    give_to_server(&cert);
    true
}

#[tokio::test]
async fn tls_with_channel_binding_and_verification() {
    let files = tempfile::tempdir().expect("temp dir");
    std::fs::set_permissions(files.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    if !certificate(files.path()) {
        return;
    }
    let file = |name: &str| files.path().join(name).display().to_string();
    let settings = [
        "listen_addresses = '127.0.0.1'".to_string(),
        "ssl = on".to_string(),
        format!("ssl_cert_file = '{}'", file("server.crt")),
        format!("ssl_key_file = '{}'", file("server.key")),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let hba =
        ["hostssl replication lifeboat 127.0.0.1/32 scram-sha-256", "hostssl all lifeboat 127.0.0.1/32 scram-sha-256"];
    let Some(server) = TestServer::start(&settings, &hba).await else { return };
    let sql = server.sql().await;
    let role = "SET password_encryption = 'scram-sha-256'; CREATE ROLE lifeboat LOGIN REPLICATION PASSWORD 'right'";
    sql.batch_execute(role).await.expect("role");

    for mode in ["prefer", "require", "require channel_binding=require"] {
        let dsn = server.tcp(&format!("user=lifeboat password=right dbname=postgres sslmode={mode}"));
        let mut connection = ReplicationConnection::connect(&dsn).await.expect(mode);
        assert!(connection.is_tls());
        connection.identify_system().await.expect("identity");
        connect_sql(&dsn).await.expect(mode);
    }
    let wrong = server.tcp("user=lifeboat password=wrong sslmode=require channel_binding=require");
    assert_eq!(sqlstate(&refused(&wrong).await), Some("28P01"));
    assert_eq!(sqlstate(&refused(&server.tcp("user=lifeboat password=right sslmode=disable")).await), Some("28000"));

    // Verification: the right root passes, for the right name only.
    let trusting = ConnectOptions { tls: TlsTrust::RootFile(file("server.crt").into()), ..ConnectOptions::default() };
    let dsn = server.tcp("user=lifeboat password=right dbname=postgres");
    ReplicationConnection::connect_with(&dsn, &trusting).await.expect("verified");
    connect_sql_with(&dsn, &trusting.tls).await.expect("verified");
    let elsewhere = format!("host=other hostaddr=127.0.0.1 port={} user=lifeboat password=right", server.port);
    let elsewhere = elsewhere.parse().expect("a DSN");
    let error = ReplicationConnection::connect_with(&elsewhere, &trusting).await.expect_err("another name");
    assert!(error.message().contains("TLS"), "{error}");
    let system = ConnectOptions { tls: TlsTrust::SystemRoots, ..ConnectOptions::default() };
    assert!(ReplicationConnection::connect_with(&dsn, &system).await.is_err(), "a self-signed certificate");
    assert!(connect_sql_with(&dsn, &system.tls).await.is_err(), "a self-signed certificate");

    // A base backup over TLS is the same as one over the socket.
    let copy =
        backup(ReplicationConnection::connect(&dsn).await.expect("connected"), &BaseBackupOptions::default()).await;
    assert!(copy.archives[0].len() > 10 << 20);
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

#[tokio::test]
async fn a_command_given_up_halfway_spoils_the_session_and_says_so() {
    let Some(server) = TestServer::start(&[], &[]).await else { return };
    let mut connection = replication(&server).await;
    // Polled once: the command is on its way, the answer is not read.
    assert!(connection.identify_system().now_or_never().is_none());
    let error = connection.show("max_wal_senders").await.expect_err("spoilt");
    assert!(error.message().contains("halfway"), "{error}");
}
