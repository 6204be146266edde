//! Who is refused: wrong passwords, roles, keys and clusters.

use std::fs;
use std::path::{Path, PathBuf};

use lifeboat::repository::{Repository, StateDir};
use lifeboat::runtime::Runtime;
use lifeboat::storage::{self, Location};
use lifeboat::vault::{Class, ObjectOpener, RecoveryIdentity};

use super::{digest, refused, rows};
use crate::common::{Cluster, Estate, Scratch, blocking, free_port};

#[test]
fn a_server_that_refuses_is_named_with_what_to_do() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).tcp().start();
    scratch.write("password", "wrong");
    let secret = "password = { file = \"password\" }";
    private(&scratch.join("password"));
    let estate = Estate::builder(&scratch, &cluster).dsn(&cluster.tcp_dsn()).postgres(secret).init();
    for command in [&["backup", "base"][..], &["wal", "receive", "--until-lsn", "0/1"]] {
        let told = refused(estate.run(command), 4);
        assert!(told.contains("password"), "{told}");
    }
    fs::write(scratch.join("password"), cluster.password()).expect("a file");
    private(&scratch.join("password"));
    estate.backup();

    cluster.psql("postgres", "CREATE ROLE plain LOGIN");
    estate.reconfigure(&cluster.tcp_dsn(), &cluster.dsn_for("postgres", "plain"));
    let told = refused(estate.run(&["backup", "base"]), 4);
    assert!(told.contains("REPLICATION"), "{told}");

    estate.reconfigure("user=plain", "user=nobody");
    refused(estate.run(&["backup", "base"]), 4);
    estate.reconfigure(&format!("port={}", cluster.port()), &format!("port={}", free_port()));
    refused(estate.run(&["backup", "base"]), 4);
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("own file");
}

#[test]
fn without_the_recovery_key_nothing_opens() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    rows(&cluster, "t", 1000);
    let receiver = estate.receive(&cluster);
    estate.backup();
    cluster.psql("postgres", "SELECT pg_switch_wal()");
    rows(&cluster, "u", 1000);
    estate.caught_up(&cluster);
    receiver.kill9();

    // The host that backs up does all of its work, and reads nothing of it.
    let place = estate.place("r").display().to_string();
    let restore = ["--format", "json", "restore", "-e", "production", "--pgdata", &place];
    refused(estate.backup_host.run(&restore), 10);
    for arguments in [&["show", "-e", "production"][..], &["verify", "-e", "production"]] {
        estate.backup_host.run(arguments).ok();
    }
    let state = StateDir::new(&scratch.join("state"));
    let key = fs::read_to_string(scratch.join("recovery.key")).expect("a key");
    let recovery = RecoveryIdentity::from_text(&key).expect("a key");
    let location = Location::new(format!("file://{}", scratch.join("repository").display()));
    let (host, restorer) = blocking(async {
        let store = storage::open(&location, &Runtime::silent()).await.expect("a store");
        let host = Repository::open(&store, &state, None).await.expect("opens");
        (host, Repository::open(&store, &state, Some(&recovery)).await.expect("opens"))
    });
    let mut tried = 0;
    for (folder, class) in [("data", Class::Pack), ("wal", Class::Wal), ("wal-live", Class::WalPiece)] {
        let objects = estate.objects(folder);
        assert!(!objects.is_empty(), "nothing in {folder}");
        for path in objects {
            let bytes = fs::read(&path).expect("an object");
            let with = |repository: &Repository| ObjectOpener::new(class, &bytes, &repository.keys)?.whole(&bytes);
            assert!(with(&host).is_err(), "{} opens without the recovery key", path.display());
            let plain = with(&restorer).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            // Nor does it stand there in the clear.
            if let Some(part) = plain.get(100..132).filter(|p| p.iter().any(|b| *b != 0)) {
                assert!(!bytes.windows(32).any(|window| window == part), "{} is readable", path.display());
            }
            tried += 1;
        }
    }
    assert!(tried >= 4, "{tried}");
    estate.backup_host.run(&["backup", "base", "-e", "production"]).ok();
    // Whatever lies in the state directory, used as a recovery key, is none.
    for file in fs::read_dir(scratch.join("state")).expect("a directory").flatten().map(|f| f.path()) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        assert!(RecoveryIdentity::from_text(&text).is_err(), "{} holds a recovery key", file.display());
    }

    // Another recovery key than those that the repository was made for.
    fs::remove_file(scratch.join("recovery.key")).expect("a key");
    estate.lifeboat.run(&["keygen", "-o", scratch.join("recovery.key").to_str().expect("UTF-8")]).ok();
    refused(estate.restore("latest", Path::new(&place), &[]), 10);
    assert!(!Path::new(&place).exists());
}

#[test]
fn another_cluster_under_the_same_name_is_refused() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let other = Cluster::builder(&scratch).name("other").start();
    let estate = Estate::builder(&scratch, &cluster).init();
    rows(&cluster, "t", 1000);
    estate.backup();
    let expected = digest(&cluster, "t");
    let before = estate.objects("");
    estate.reconfigure(&cluster.dsn(), &other.dsn());
    let told = refused(estate.run(&["backup", "base"]), 6);
    assert!(told.contains("cluster"), "{told}");
    refused(estate.run(&["wal", "receive", "--until-lsn", "FF/0"]), 6);
    let entries = |objects: &[PathBuf]| objects.iter().filter(|o| !o.starts_with(estate.stored("ledger"))).count();
    assert_eq!(entries(&estate.objects("")), entries(&before), "something of the other cluster was stored");
    estate.reconfigure(&other.dsn(), &cluster.dsn());
    assert_eq!(digest(&estate.restored("latest", "r", &cluster), "t"), expected);
}
