//! Backups that are killed, that run at the same time, and that were damaged afterwards.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::{PATIENCE, digest, refused, rows};
use crate::common::{Cluster, Estate, Scratch, wait_until};

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
        let running = estate.spawn(&["backup", "base", "--full", "--reader", "streamed"]);
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
