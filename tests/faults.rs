//! Bad input and faults: what each one is called, what it leaves behind, and that the next run works.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lifeboat::repository::{Repository, StateDir};
use lifeboat::runtime::Runtime;
use lifeboat::storage::{self, Location};
use lifeboat::vault::{Class, ObjectOpener, RecoveryIdentity};

use crate::common::{Cluster, Estate, FlakyProxy, Journal, Moto, Output, Scratch, blocking, skip, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Must have failed with `code`; everything that was said.
#[track_caller]
fn refused(output: Output, code: i32) -> String {
    output.expect_code(code).json()["error"].to_string()
}

fn rows(cluster: &Cluster, name: &str, count: u32) {
    let sql = format!("CREATE TABLE {name} AS SELECT i AS id, md5(i::text) AS x FROM generate_series(1, {count}) i");
    cluster.psql("postgres", &sql);
}

fn digest(cluster: &Cluster, name: &str) -> String {
    cluster.psql("postgres", &format!("SELECT count(*), md5(string_agg(x, '' ORDER BY id)) FROM {name}"))
}

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
    estate.reconfigure(&format!("port={}", cluster.port()), &format!("port={}", crate::common::free_port()));
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

/// A small file system of its own; only root can make one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(scratch: &Scratch, name: &str, mib: u32) -> Option<Self> {
        let place = scratch.server_dir(name);
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0755"), "tmpfs"])
            .arg(&place)
            .stderr(std::process::Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            return None;
        }
        crate::common::own(&place);
        Some(Self(place))
    }

    fn grow(&self, mib: u32) {
        let status = Command::new("mount").args(["-o", &format!("remount,size={mib}m")]).arg(&self.0).status();
        assert!(status.expect("mount").success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_repository_stops_the_backup_and_harms_nothing() {
    let scratch = Scratch::new();
    let Some(disk) = SmallDisk::new(&scratch, "small", 12) else { skip!("a small disk needs root and tmpfs") };
    let cluster = Cluster::builder(&scratch).start();
    let url = crate::common::file_url(&disk.0.join("repository"));
    let estate = Estate::builder(&scratch, &cluster).repository(&url).retry_for("2s").init();
    let first = estate.backup();
    cluster.psql(
        "postgres",
        "CREATE TABLE t AS SELECT i AS id, string_agg(md5((i * j)::text), '') AS x
         FROM generate_series(1, 3000) i, generate_series(1, 200) j GROUP BY i",
    );
    let expected = digest(&cluster, "t");
    let told = refused(estate.run(&["backup", "base"]), 5);
    assert!(told.contains("full") || told.contains("space"), "{told}");
    // The first backup is whole, and with room the next run works.
    disk.grow(200);
    estate.plan(&format!("backup:{first}")).ok();
    estate.backup();
    estate.run(&["verify", "--deep"]).ok();
    assert_eq!(digest(&estate.restored("latest", "r", &cluster), "t"), expected);
}

#[test]
fn a_full_target_disk_leaves_nothing_that_could_be_started() {
    let scratch = Scratch::new();
    let Some(disk) = SmallDisk::new(&scratch, "small", 20) else { skip!("a small disk needs root and tmpfs") };
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    rows(&cluster, "t", 50_000);
    let expected = digest(&cluster, "t");
    estate.backup();
    let place = disk.0.join("data");
    // Too small from the start: refused before a byte is written.
    let told = refused(estate.restore("latest", &place, &[]), 2);
    assert!(told.contains("free"), "{told}");
    assert!(!place.exists());
    // Large enough at the start, then something else takes the room.
    disk.grow(120);
    fs::write(disk.0.join("other"), vec![1; 60 << 20]).expect("room");
    let output = estate.restore("latest", &place, &[]);
    if output.code() != Some(2) {
        let told = refused(output, 70);
        assert!(told.contains("full"), "{told}");
        assert!(!place.join("global/pg_control").exists() || place.join("lifeboat-restore.json").exists());
    }
    fs::remove_file(disk.0.join("other")).expect("a file");
    disk.grow(400);
    estate.restore("latest", &place, &[]).ok();
    let copy = Cluster::adopt(&scratch, &place, cluster.major());
    assert_eq!(digest(&copy, "t"), expected);
}

/// An estate on moto behind a network that fails on command.
struct Far {
    estate: Estate,
    cluster: Cluster,
    proxy: FlakyProxy,
    _moto: Moto,
}

fn far(retry_for: &str) -> Option<Far> {
    let scratch = Scratch::new();
    let moto = Moto::start_new(&scratch)?;
    moto.create_bucket("backups");
    let proxy = FlakyProxy::new(moto.port());
    let cluster = Cluster::builder(&scratch).start();
    let repository = Estate::s3("backups", &proxy.endpoint());
    let estate = Estate::builder(&scratch, &cluster).repository(&repository).retry_for(retry_for).init();
    Some(Far { estate, cluster, proxy, _moto: moto })
}

#[test]
fn a_store_that_comes_back_costs_time_and_nothing_else() {
    let Some(Far { estate, mut cluster, proxy, _moto }) = far("60s") else { skip!("no moto (LIFEBOAT_TEST_MOTO)") };
    cluster.psql(
        "postgres",
        "CREATE TABLE t AS SELECT i AS id, string_agg(md5((i * j)::text), '') AS x
         FROM generate_series(1, 4000) i, generate_series(1, 300) j GROUP BY i",
    );
    let receiver = estate.receive(&cluster);
    let journal = Journal::start(&cluster, "postgres");
    let backup = estate.spawn(&["backup", "base"]);
    wait_until("the backup streams", PATIENCE, || {
        cluster.psql("postgres", "SELECT count(*) FROM pg_stat_progress_basebackup") != "0"
    });
    proxy.cut();
    let down = Instant::now();
    while down.elapsed() < Duration::from_secs(10) {
        journal.wait_for(10);
    }
    proxy.silence();
    while down.elapsed() < Duration::from_secs(15) {
        journal.wait_for(10);
    }
    proxy.restore();
    backup.wait(Duration::from_secs(120)).ok();
    estate.caught_up(&cluster);
    let said = journal.stop();
    estate.caught_up(&cluster);
    let expected = digest(&cluster, "t");
    receiver.kill9();
    cluster.kill9();
    let copy = estate.restored("latest", "r", &cluster);
    assert_eq!(digest(&copy, "t"), expected);
    let present = copy.psql("postgres", "SELECT count(*) FROM journal");
    assert_eq!(present, said.acknowledged.len().to_string());
    estate.run(&["verify", "--deep"]).ok();
}

#[test]
fn a_store_that_stays_away_ends_the_backup_and_postgresql_keeps_its_wal() {
    let Some(Far { estate, cluster, proxy, _moto }) = far("3s") else { skip!("no moto (LIFEBOAT_TEST_MOTO)") };
    let mut receiver = estate.receive(&cluster);
    rows(&cluster, "t", 1000);
    estate.backup();
    estate.caught_up(&cluster);
    proxy.cut();
    let began = Instant::now();
    let told = refused(estate.run(&["backup", "base"]), 5);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    assert!(told.contains("reach") || told.contains("store"), "{told}");
    cluster.psql("postgres", "INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1001, 200000) i");
    let expected = digest(&cluster, "t");
    let kept = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 20000000 FROM pg_replication_slots";
    assert_eq!(cluster.psql("postgres", kept), "t");
    // Both say how much waits, without the store.
    for command in [&["show"][..], &["doctor"]] {
        let arguments = [command, &["-e", "production"][..]].concat();
        let arguments = if command == ["doctor"] { command.to_vec() } else { arguments };
        let said = estate.lifeboat.run(&arguments);
        assert!(said.stdout.contains("MiB"), "{command:?} does not say how much waits: {}", said.stdout);
    }
    proxy.restore();
    if !receiver.is_running() {
        receiver = estate.receive(&cluster);
    }
    estate.caught_up(&cluster);
    receiver.kill9();
    assert_eq!(digest(&estate.restored("latest", "r", &cluster), "t"), expected);
}

#[test]
fn a_backup_killed_at_any_point_leaves_nothing_half_committed() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    rows(&cluster, "t", 200_000);
    let expected = digest(&cluster, "t");
    let receiver = estate.receive(&cluster);
    let began = Instant::now();
    let first = estate.backup();
    let whole = began.elapsed();
    let listed = || {
        let shown = estate.run(&["show"]).ok().json();
        let text = shown.to_string();
        let entries = fs::read_dir(estate.stored("ledger")).expect("a ledger").flatten();
        let bases = entries.filter(|e| e.file_name().to_string_lossy().ends_with(".json")).filter(|entry| {
            let envelope: serde_json::Value =
                serde_json::from_slice(&fs::read(entry.path()).expect("an entry")).expect("JSON");
            let payload = envelope["payload"].as_str().expect("a payload");
            use base64::Engine as _;
            let payload = base64::engine::general_purpose::STANDARD.decode(payload).expect("base64");
            String::from_utf8_lossy(&payload).contains("\"base_backup\"")
        });
        (bases.count(), text)
    };
    let rounds: u32 = 10;
    let (mut finished, mut killed) = (1, 0);
    for round in 0..rounds {
        let running = estate.spawn(&["backup", "base"]);
        // Spread over the whole run, and a little beyond.
        std::thread::sleep(whole * (round + 1) / (rounds - 1));
        match running.kill9().status.success() {
            true => finished += 1,
            false => killed += 1,
        }
        let (bases, shown) = listed();
        // Killed after the commit and before it could say so is a backup too, a whole one.
        assert!(
            (finished..=finished + 1).contains(&bases),
            "round {round}: {bases} in the ledger, {finished} finished"
        );
        finished = bases;
        assert!(shown.contains(&first));
        estate.run(&["verify"]).ok();
    }
    assert!(killed >= 3, "only {killed} of {rounds} were killed before they had ended");
    let last = estate.backup();
    let verified = estate.run(&["verify", "--deep"]).ok().json();
    assert_eq!(verified["verify"]["problems"], serde_json::json!([]));
    estate.run(&["evidence", "verify"]).ok();
    for target in ["latest", &*format!("backup:{last}"), &*format!("backup:{first}")] {
        estate.plan(target).ok();
    }
    assert_eq!(digest(&estate.restored("latest", "r", &cluster), "t"), expected);
    receiver.kill9();
    let slots = cluster.psql("postgres", "SELECT string_agg(slot_name, ' ') FROM pg_replication_slots");
    assert_eq!(slots, "lifeboat", "a killed backup holds WAL for ever");
}

#[test]
fn backups_killed_without_a_receiver_leave_notes_and_no_damage() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    rows(&cluster, "t", 100_000);
    estate.backup();
    for segments in 1..3 {
        for _ in 0..segments {
            cluster.psql("postgres", "UPDATE t SET x = x WHERE id = 1");
            cluster.psql("postgres", "SELECT pg_switch_wal()");
        }
        let running = estate.spawn(&["backup", "base"]);
        wait_until("the backup streams", PATIENCE, || {
            cluster.psql("postgres", "SELECT count(*) FROM pg_stat_progress_basebackup") != "0"
        });
        running.kill9();
    }
    cluster.psql("postgres", "SELECT pg_switch_wal()");
    let expected = digest(&cluster, "t");
    estate.backup();
    let verified = estate.run(&["verify", "--deep"]).ok().json();
    assert!(verified["verify"]["notes"].to_string().contains("no WAL was archived"), "{verified}");
    assert_eq!(digest(&estate.restored("latest", "r", &cluster), "t"), expected);
    let slots = cluster.psql("postgres", "SELECT count(*) FROM pg_replication_slots");
    assert_eq!(slots, "0", "a killed backup holds WAL for ever");
}

#[test]
fn two_backups_at_once_are_two_backups() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    rows(&cluster, "t", 50_000);
    let expected = digest(&cluster, "t");
    let running = [0, 1, 2].map(|_| estate.spawn(&["backup", "base"]));
    let ids = running.map(|r| r.wait(PATIENCE).ok().json()["base_backup"]["id"].as_str().expect("an id").to_owned());
    estate.run(&["verify", "--deep"]).ok();
    let ledger = estate.run(&["evidence", "verify"]).ok().json();
    assert_eq!(ledger["ledger"]["problems"], serde_json::json!([]));
    for (number, id) in ids.iter().enumerate() {
        let copy = estate.restored(&format!("backup:{id}"), &format!("r{number}"), &cluster);
        assert_eq!(digest(&copy, "t"), expected);
    }
}

/// Changes one byte in the middle.
fn damage(path: &Path) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("an object");
    let middle = file.metadata().expect("metadata").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x40], middle).expect("written");
}

#[test]
fn damage_in_the_repository_is_named_and_never_restored() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    rows(&cluster, "t", 20_000);
    let receiver = estate.receive(&cluster);
    estate.backup();
    for _ in 0..3 {
        cluster.psql("postgres", "UPDATE t SET x = x WHERE id % 100 = 0");
        cluster.psql("postgres", "SELECT pg_switch_wal()");
    }
    estate.caught_up(&cluster);
    receiver.kill9();
    let name = |path: &Path| path.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
    let packs = estate.objects("data");
    let largest = packs.iter().max_by_key(|p| fs::metadata(p).map_or(0, |m| m.len())).expect("a pack").clone();
    let segments = estate.objects("wal/00000001");
    let segment = segments[segments.len() - 2].clone();
    let manifest = estate.objects("meta").first().expect("a manifest").clone();
    for (number, (object, deep, code)) in
        [(&largest, true, 6), (&manifest, false, 6), (&segment, true, 6)].into_iter().enumerate()
    {
        let sound = fs::read(object).expect("an object");
        damage(object);
        let arguments = if deep { &["verify", "--deep"][..] } else { &["verify"] };
        let told = estate.run(arguments).expect_code(6).stdout;
        assert!(told.contains(&name(object)), "verify does not name {}: {told}", object.display());
        let place = estate.place(&format!("r{number}"));
        let told = refused(estate.restore("latest", &place, &[]), code);
        assert!(!place.join("global/pg_control").exists() || place.join("lifeboat-restore.json").exists(), "{told}");
        fs::write(object, sound).expect("an object");
    }
    fs::remove_file(&segment).expect("a segment");
    let told = estate.run(&["verify"]).expect_code(6).stdout;
    assert!(told.contains(&name(&segment)), "{told}");
    let told = refused(estate.plan("latest"), 7);
    assert!(told.contains(&name(&segment)), "{told}");
}
