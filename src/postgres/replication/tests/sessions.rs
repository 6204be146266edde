//! Identity, settings, slots, logins, TLS.

use std::path::Path;
use std::process::Command;

use futures::FutureExt;

use super::*;
use crate::error::ErrorKind;
use crate::postgres::replication::testing::give_to_server;
use crate::postgres::sql::{connect_sql, connect_sql_with};
use crate::units::Timeline;

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
async fn a_command_given_up_halfway_spoils_the_session_and_says_so() {
    let Some(server) = TestServer::start(&[], &[]).await else { return };
    let mut connection = replication(&server).await;
    // Polled once: the command is on its way, the answer is not read.
    assert!(connection.identify_system().now_or_never().is_none());
    let error = connection.show("max_wal_senders").await.expect_err("spoilt");
    assert!(error.message().contains("halfway"), "{error}");
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
