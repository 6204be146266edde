//! Every kind of damage to every kind of object, and what it costs.

use std::fs;
use std::path::Path;

use super::{Estate, Harm, Harmed, name};
use crate::common::Output;

#[test]
fn every_kind_of_damage_to_every_kind_of_object_is_found_and_named() {
    use Harm::{Append, Delete, Flip, Swap, Truncate};
    let estate = Estate::filled();
    let sound = estate.deep().ok();
    assert!(sound.stdout.starts_with("sound: production"), "{}", sound.stdout);
    estate.verify().ok();
    estate.run(&["evidence", "verify", "-e", "production"]).ok();

    let one = |folder: &str| {
        let objects = estate.objects(folder);
        (objects[0].clone(), objects[1].clone())
    };
    let (pack, other_pack) = one("production/data");
    let (meta, other_meta) = one("production/meta");
    let (entry, other_entry) = one("production/ledger");
    let checkpoint = estate.repository().join("production/ledger/checkpoint");
    // Both base backups need segments behind this one only from the first on.
    let segments = estate.segments();
    let (segment, other_segment) = (segments[2].clone(), segments[3].clone());
    let piece = estate.objects("production/wal-live").pop().expect("a piece of the segment being written");
    let key = estate.repository().join("keys/1.age");
    let descriptor = estate.repository().join("lifeboat.json");

    // What is harmed, how, with what; whether the shallow run must see it, and the deep run, and the
    // auditor; a word that the first that sees it must say.
    let table: &[(&Path, Harm, &Path, bool, bool, &str)] = &[
        (&pack, Flip, &pack, false, false, "do not match its name"),
        (&pack, Truncate, &pack, true, false, "bytes instead of"),
        (&pack, Append, &pack, true, false, "bytes instead of"),
        (&pack, Delete, &pack, true, false, "missing"),
        (&pack, Swap, &other_pack, true, false, "bytes instead of"),
        (&meta, Flip, &meta, true, false, "damaged"),
        (&meta, Truncate, &meta, true, false, "damaged"),
        (&meta, Append, &meta, true, false, "damaged"),
        (&meta, Delete, &meta, true, false, "missing"),
        (&meta, Swap, &other_meta, true, false, "damaged"),
        (&entry, Flip, &entry, true, true, "00000000000000000001.json"),
        (&entry, Truncate, &entry, true, true, "00000000000000000001.json"),
        (&entry, Append, &entry, true, true, "00000000000000000001.json"),
        (&entry, Delete, &entry, true, true, "missing"),
        (&entry, Swap, &other_entry, true, true, "under another number"),
        (&checkpoint, Flip, &checkpoint, true, true, "checkpoint"),
        (&checkpoint, Truncate, &checkpoint, true, true, "checkpoint"),
        (&checkpoint, Delete, &checkpoint, true, true, "checkpoint"),
        (&checkpoint, Swap, &entry, true, true, "checkpoint"),
        (&segment, Flip, &segment, false, false, "the seal of a frame is broken"),
        (&segment, Truncate, &segment, true, false, "the ledger recorded"),
        (&segment, Append, &segment, true, false, "the ledger recorded"),
        (&segment, Delete, &segment, true, false, "missing WAL segment"),
        (&segment, Swap, &other_segment, false, false, "WAL segment"),
        (&piece, Flip, &piece, false, false, "wal-live"),
        (&key, Flip, &key, true, false, "keys/1.age"),
        (&key, Truncate, &key, true, false, "keys/1.age"),
        (&key, Delete, &key, true, false, "keys/1.age"),
        (&key, Swap, &pack, true, false, "keys/1.age"),
        (&descriptor, Truncate, &descriptor, true, true, "lifeboat.json"),
        (&descriptor, Delete, &descriptor, true, false, "lifeboat.json is missing"),
        (&descriptor, Swap, &entry, true, true, "lifeboat.json"),
    ];
    for (object, harm, other, shallow, auditor, word) in table {
        let place = format!("{harm:?} {}", object.display());
        let _harmed = Harmed::new(*harm, object, other);
        let told = |output: &Output| format!("{}{}", output.stdout, output.stderr);
        let seen = estate.verify();
        assert_eq!(seen.code(), Some(if *shallow { 6 } else { 0 }), "verify, {place}\n{}", told(&seen));
        let deep = estate.deep();
        assert_eq!(deep.code(), Some(6), "verify --deep, {place}\n{}", told(&deep));
        let words = told(if *shallow { &seen } else { &deep });
        assert!(words.contains(word), "{place}: no \"{word}\" in\n{words}");
        let audited = estate.run(&["evidence", "verify", "-e", "production"]);
        if *auditor {
            assert_eq!(audited.code(), Some(6), "evidence verify, {place}\n{}", told(&audited));
        }
    }
    estate.deep().ok();
}

#[test]
fn what_damage_costs_is_said_with_the_backups_concerned() {
    let estate = Estate::filled();
    let bases: Vec<String> = {
        let shown = estate.run(&["--format", "json", "show"]).ok().json();
        let bases = shown["environments"][0]["bases"].as_array().expect("bases").clone();
        bases.iter().map(|b| b["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(bases.len(), 2);
    let needed = |base: usize| {
        let shown = estate.run(&["--format", "json", "show"]).ok().json();
        shown["environments"][0]["bases"][base]["wal"]["last"].as_str().expect("a segment").to_owned()
    };
    let (first, second) = (needed(0), needed(1));
    let segments = estate.segments();
    let between = segments.iter().find(|s| name(s) > first && name(s) < second).expect("one between the bases");

    let harmed = Harmed::new(Harm::Delete, between, &segments[0]);
    let report = estate.run(&["--format", "json", "verify", "-e", "production"]).expect_code(6).json();
    let problems = report["verify"]["problems"].as_array().expect("problems");
    assert_eq!(problems.len(), 1, "{report:#}");
    let (what, affects) = (problems[0]["what"].as_str().expect("words"), problems[0]["affects"].to_string());
    assert!(what.contains(&format!("missing WAL segment {} makes", name(between))), "{what}");
    assert!(affects.contains(&format!("from base backup {} nothing behind", bases[0])), "{affects}");
    assert!(!affects.contains(&bases[1]), "the second base does not need it: {affects}");
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.contains(&format!("WAL has a hole: segment {} is missing", name(between))), "{shown}");
    assert!(shown.contains("also from"), "two windows: {shown}");
    drop(harmed);

    // A segment that the second base needs itself.
    let own = segments.iter().find(|s| name(s) == second).expect("archived");
    let _harmed = Harmed::new(Harm::Delete, own, &segments[0]);
    let report = estate.run(&["--format", "json", "verify", "-e", "production"]).expect_code(6).json();
    let affects = report["verify"]["problems"].to_string();
    assert!(affects.contains(&format!("base backup {} cannot be restored", bases[1])), "{affects}");
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.contains("NO: WAL segment"), "{shown}");
    let doctor = estate.run(&["doctor"]).expect_code(6).stdout;
    assert!(doctor.contains(&format!("{} cannot be restored", bases[1])), "{doctor}");
}

#[test]
fn a_deep_verification_without_the_recovery_key_checks_hashes_and_says_so() {
    let estate = Estate::filled();
    let host = estate.with("host.toml", "", &estate.cluster.dsn(), None, "state");
    let report = host.run(&["--format", "json", "verify", "-e", "production", "--deep"]).ok().json();
    let report = &report["verify"];
    assert_eq!((report["opened"].as_bool(), report["checked"]["frames_opened"].as_u64()), (Some(false), Some(0)));
    assert!(report["notes"].to_string().contains("nothing under data/ and wal/ was opened"), "{report:#}");
    let pack = &estate.objects("production/data")[0];
    let _harmed = Harmed::new(Harm::Flip, pack, pack);
    host.run(&["verify", "-e", "production", "--deep"]).expect_code(6);
}

#[test]
fn objects_that_nothing_names_are_counted_and_are_no_damage() {
    let estate = Estate::filled();
    fs::write(estate.repository().join("production/data").join("0".repeat(64)), [0; 5000]).expect("written");
    let verified = estate.deep().ok();
    assert!(verified.stdout.contains("unreferenced: 1 object (4.9 KiB)"), "{}", verified.stdout);
}
