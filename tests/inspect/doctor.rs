//! What `doctor` finds, what it advises, and with which exit code.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Estate, finding, keygen};
use crate::common::{Cluster, Lifeboat, free_port, wait_until};

#[test]
fn doctor_finds_nothing_wrong_where_nothing_is() {
    let estate = Estate::filled();
    let mut receiver = estate.lifeboat.spawn(&["wal", "receive", "-e", "production"]);
    wait_until("the receiver streams", Duration::from_secs(30), || {
        assert!(receiver.is_running(), "{}", receiver.stderr());
        estate.cluster.psql("postgres", "SELECT count(*) FROM pg_replication_slots WHERE active") == "1"
    });
    let doctor = estate.run(&["--format", "json", "doctor"]).ok();
    for name in [
        "configuration",
        "state directory",
        "store",
        "repository",
        "recovery identity",
        "host keys",
        "PostgreSQL session",
        "replication session",
        "PostgreSQL version",
        "wal_level",
        "max_wal_senders",
        "data_checksums",
        "full_page_writes",
        "clocks",
        "slot",
        "ledger",
        "base backup",
        "programs for a restore",
        "sandbox for drills",
    ] {
        let told = finding(&doctor, name);
        assert!(told.starts_with("ok: "), "{name}: {told}");
    }
    let text = estate.run(&["doctor"]).ok().stdout;
    assert!(text.contains("ok       PostgreSQL session: SQL works"), "{text}");
    assert!(text.contains("max_slot_wal_keep_size: unlimited"), "{text}");
    // Of one environment only, where there may be a hundred.
    let one = estate.run(&["--format", "json", "doctor", "-e", "production"]).ok();
    assert!(finding(&one, "slot").starts_with("ok: "));
    let other = estate.run(&["--format", "json", "doctor", "-e", "production2"]).expect_code(2);
    assert!(other.json()["error"]["hints"].to_string().contains("did you mean production?"), "{}", other.stdout);
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let estate = Estate::new();
    let doctor = |lifeboat: &Lifeboat| lifeboat.run(&["--format", "json", "doctor"]);

    estate.scratch.write("password", "wrong");
    set_private(&estate.scratch.join("password"));
    let dsn = format!("dsn = \"{}\"\npassword = {{ file = \"password\" }}", estate.cluster.tcp_dsn());
    let refused = doctor(&estate.with("password.toml", "", &dsn, Some("recovery.key"), "state")).expect_code(4);
    let told = finding(&refused, "PostgreSQL session");
    assert!(told.starts_with("fail: ") && told.contains("password"), "{told}");

    estate.cluster.psql("postgres", "CREATE ROLE reader LOGIN");
    let dsn = estate.cluster.dsn_for("postgres", "reader");
    let refused = doctor(&estate.with("reader.toml", "", &dsn, Some("recovery.key"), "state")).expect_code(4);
    assert!(finding(&refused, "PostgreSQL session").starts_with("ok: "));
    let told = finding(&refused, "replication session");
    assert!(told.starts_with("fail: ") && told.contains("REPLICATION"), "{told}");

    let absent = doctor(&estate.with("absent.toml", "", "host=/nowhere user=x", Some("recovery.key"), "state"));
    assert!(finding(&absent.expect_code(4), "PostgreSQL session").starts_with("fail: "));

    let dead =
        format!("url = \"s3://estate/x\"\nendpoint = \"http://127.0.0.1:{}\"\nregion = \"us-east-1\"", free_port());
    let down = doctor(&estate.with("down.toml", &dead, &estate.cluster.dsn(), None, "state")).expect_code(5);
    assert!(finding(&down, "store").starts_with("fail: "));
    assert!(finding(&down, "PostgreSQL session").starts_with("ok: "), "the rest is examined all the same");

    keygen(&estate.scratch, "other.key");
    let wrong = doctor(&estate.with("wrong.toml", "", &estate.cluster.dsn(), Some("other.key"), "state"));
    let told = finding(&wrong.expect_code(10), "recovery identity");
    assert!(told.starts_with("fail: ") && told.contains("does not open"), "{told}");

    let missing = doctor(&estate.with("missing.toml", "", &estate.cluster.dsn(), Some("absent.key"), "state"));
    assert!(finding(&missing.expect_code(3), "recovery identity").contains("absent.key"));

    estate.scratch.write("broken.toml", "[repository]\n");
    let broken = doctor(&Lifeboat::new(estate.scratch.join("broken.toml"))).expect_code(3);
    assert!(finding(&broken, "configuration").starts_with("fail: "));

    let stranger = doctor(&estate.with("stranger.toml", "", &estate.cluster.dsn(), None, "no-state"));
    assert!(finding(&stranger.expect_code(3), "host keys").contains("holds no keys"));
}

#[test]
fn doctor_knows_another_cluster_and_a_lost_slot() {
    let estate = Estate::new();
    estate.cluster.psql("postgres", "CREATE TABLE t (v text)");
    estate.run(&["backup", "base", "-e", "production"]).ok();
    estate.receive();
    let other = Cluster::builder(&estate.scratch).name("other").start();
    let doctor = |lifeboat: &Lifeboat| lifeboat.run(&["--format", "json", "doctor"]);
    let confused = doctor(&estate.with("other.toml", "", &other.dsn(), Some("recovery.key"), "state")).expect_code(6);
    assert!(finding(&confused, "system identifier").contains("this is another cluster"));

    estate.cluster.psql("postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    estate.cluster.psql("postgres", "ALTER SYSTEM SET max_wal_size = '2MB'");
    estate.cluster.psql("postgres", "SELECT pg_reload_conf()");
    let status = || {
        estate.switch();
        estate.cluster.psql("postgres", "CHECKPOINT");
        estate.cluster.psql("postgres", "SELECT wal_status FROM pg_replication_slots")
    };
    wait_until("PostgreSQL gives the slot up", Duration::from_secs(60), || status() == "lost");
    let lost = doctor(&estate.lifeboat).expect_code(4);
    let told = finding(&lost, "slot");
    assert!(told.starts_with("fail: ") && told.contains("take a base backup now"), "{told}");
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.contains("take a base backup now"), "{shown}");
}

#[test]
fn doctor_removes_what_killed_writers_left_behind_a_day_ago() {
    let estate = Estate::new();
    let folder = estate.repository().join("production/data");
    fs::create_dir_all(&folder).expect("a folder");
    let (old, new) = (folder.join(format!("{}#1", "a".repeat(64))), folder.join(format!("{}#2", "b".repeat(64))));
    for file in [&old, &new] {
        fs::write(file, [0; 2048]).expect("written");
    }
    let two_days_ago = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
    fs::File::options().write(true).open(&old).expect("there").set_modified(two_days_ago).expect("set");
    let doctor = estate.run(&["--format", "json", "doctor"]).ok();
    assert!(finding(&doctor, "leftovers").contains("1 unfinished file of killed writers removed (2.0 KiB)"));
    assert!(!old.exists() && new.exists());
}

fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("own file");
}
