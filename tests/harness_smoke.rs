//! The helpers of the tests do what they promise.

use std::path::PathBuf;
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;

use crate::common::{
    Cluster, FlakyProxy, Journal, Lifeboat, Moto, Scratch, blocking, fixture_odoo, load_fixture, majors, pgbench_init,
    pgbench_run, server_account, skip, wait_until,
};

#[test]
fn a_scratch_directory_goes_with_its_last_user_even_in_a_panic() {
    let path = std::sync::Mutex::new(PathBuf::new());
    let panicked = std::panic::catch_unwind(|| {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).start();
        *path.lock().expect("one thread") = scratch.path().to_owned();
        drop(scratch);
        assert_eq!(cluster.psql("postgres", "SELECT 6 * 7, NULL, 'x'"), "42||x");
        panic!("as a failing test would");
    });
    assert!(panicked.is_err());
    let path = path.into_inner().expect("one thread");
    assert!(path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lifeboat-test-")));
    assert!(!path.exists());
}

#[test]
fn every_major_of_this_machine_starts() {
    for major in majors() {
        let scratch = Scratch::new();
        let builder = Cluster::builder(&scratch).major(major).no_checksums().wal_segment_mib(1);
        let mut cluster = builder.config("work_mem = 7MB").tablespace("fast").tcp().start();
        let version = cluster.psql("postgres", "SELECT current_setting('server_version_num')::int / 10000");
        assert_eq!(version, major.to_string());
        let settings = "SELECT current_setting('wal_segment_size'), current_setting('data_checksums'), current_setting('work_mem')";
        assert_eq!(cluster.psql("postgres", settings), "1MB|off|7MB");
        cluster.psql("postgres", "CREATE TABLE t (i int) TABLESPACE fast; INSERT INTO t SELECT generate_series(1, 10)");
        blocking(async {
            let dsn = format!("{} password='{}'", cluster.tcp_dsn(), cluster.password());
            assert!(tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.is_ok());
            let wrong = format!("{} password=wrong", cluster.tcp_dsn());
            assert!(tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.is_err());
        });
        cluster.restart();
        assert_eq!(cluster.psql("postgres", "SELECT count(*) FROM t"), "10");
        if let Some(standby) = cluster.standby("standby") {
            standby.promote();
            assert_eq!(standby.psql("postgres", "SELECT count(*), pg_is_in_recovery() FROM t"), "10|f");
        }
        cluster.stop();
        assert!(cluster.try_psql("postgres", "SELECT 1").is_err());
    }
}

#[test]
fn a_journal_knows_what_survives_a_killed_server() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).start();
    let load = pgbench_init(&cluster, "postgres", 1).then(|| pgbench_run(&scratch, &cluster, "postgres", 2, 600));
    let journal = Journal::start(&cluster, "postgres");
    journal.wait_for(100);
    let pid = cluster.pid();
    cluster.kill9();
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    let journal = journal.stop();
    assert!(load.flatten().is_none_or(|pgbench| !pgbench.wait()));
    cluster.start();
    let there = cluster.psql("postgres", "SELECT count(*), max(id) FROM journal");
    let acknowledged = journal.acknowledged.len();
    let with_doubt = acknowledged + usize::from(journal.in_doubt.is_some());
    assert!(
        there == format!("{acknowledged}|{acknowledged}") || there == format!("{with_doubt}|{with_doubt}"),
        "{there}, {journal:?}"
    );
    assert!(acknowledged >= 100 && journal.acknowledged.is_sorted_by_key(|ack| (ack.id, ack.at)));
}

#[test]
fn moto_keeps_objects_behind_a_network_that_fails() {
    let scratch = Scratch::new();
    let Some(moto) = Moto::start_new(&scratch) else { skip!("LIFEBOAT_TEST_MOTO is not set") };
    moto.create_bucket("estate");
    let proxy = FlakyProxy::new(moto.port());
    let store = object_store::aws::AmazonS3Builder::new()
        .with_endpoint(proxy.endpoint())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name("estate")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_retry(object_store::RetryConfig { max_retries: 0, ..Default::default() })
        .with_client_options(
            object_store::ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_millis(700)),
        )
        .build()
        .expect("a client");
    let name = ObjectPath::from("a");
    let put = || blocking(store.put(&name, "one".into())).is_ok();
    assert!(put());
    proxy.cut();
    assert!(!put());
    proxy.restore();
    assert!(put());
    proxy.silence();
    assert!(!put());
    proxy.restore();
    assert!(put());
    moto.pause();
    assert!(!put());
    moto.resume();
    wait_until("moto goes on", Duration::from_secs(20), put);
    let direct = moto.store("estate");
    let content = blocking(async { direct.get(&name).await.expect("there").bytes().await.expect("readable") });
    assert_eq!(content.as_ref(), b"one");
}

#[test]
fn a_stopped_moto_forgets_and_starts_on_its_port() {
    let scratch = Scratch::new();
    let Some(mut moto) = Moto::start_new(&scratch) else { skip!("LIFEBOAT_TEST_MOTO is not set") };
    moto.create_bucket("estate");
    let (store, name) = (moto.store("estate"), ObjectPath::from("a"));
    blocking(store.put(&name, "one".into())).expect("a running server takes it");
    let port = moto.port();
    moto.stop();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    moto.start();
    moto.create_bucket("estate");
    assert!(blocking(store.head(&name)).is_err_and(|error| matches!(error, object_store::Error::NotFound { .. })));
}

#[test]
fn the_fixture_loads_with_its_files() {
    let Some(fixture) = fixture_odoo() else { skip!("no ../shared/fixtures") };
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let data_dir = scratch.server_dir("odoo");
    load_fixture(&fixture, &cluster, "shop", &data_dir);
    let names = cluster.psql("shop", "SELECT DISTINCT store_fname FROM ir_attachment WHERE store_fname IS NOT NULL");
    assert_eq!(names.lines().count(), 906);
    assert!(names.lines().all(|name| data_dir.join("filestore/shop").join(name).is_file()));
    if let Some(account) = server_account() {
        use std::os::unix::fs::MetadataExt;
        let first = names.lines().next().expect("906 names");
        let file = data_dir.join("filestore/shop").join(first).metadata().expect("a file");
        assert_eq!((file.uid(), file.gid()), (account.uid, account.gid));
    }
}

#[test]
fn the_program_runs_to_its_end_and_its_exit_code_is_seen() {
    let scratch = Scratch::new();
    let output = Lifeboat::new(scratch.join("lifeboat.toml")).timeout(Duration::from_secs(20)).run(&["--version"]);
    assert!(output.code().is_some(), "{output:?}");
}
