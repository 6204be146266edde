//! Filestore captures by the program itself, and what comes back from them.

mod configuration;
mod drift;
mod elsewhere;
mod estate;
mod watch;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use lifeboat::ErrorKind;
use lifeboat::evidence::drill_record::MissingCause;
use lifeboat::filestore::restore::{self, Request};
use lifeboat::filestore::{FileName, Index, Packs, referenced};
use lifeboat::repository::catalogue::Catalogue;
use lifeboat::runtime::Runtime;
use lifeboat::vault::{Class, ObjectOpener};
use nix::sys::signal::Signal;

use self::estate::{Estate, clean, files_below, noise};
use crate::common::{blocking, fixture_odoo, load_fixture, server_account, skip, wait_until};

#[test]
fn the_fixture_comes_back_whole_and_a_second_capture_reads_and_stores_nothing() {
    let Some(fixture) = fixture_odoo() else { skip!("no ../shared/fixtures") };
    let estate = Estate::without_database();
    load_fixture(&fixture, &estate.cluster, "shop", &estate.data_dir);
    let first = estate.capture(0);
    let entry = &first["filestore_capture"];
    assert_eq!(
        (&entry["files_new"], &entry["referenced"], &entry["complete"]),
        // Ten files have lost their rows; what is on disk is captured all the same.
        (&916.into(), &906.into(), &true.into())
    );
    assert!(entry["restore_point"]["name"].as_str().expect("text").starts_with("lifeboat-"));
    clean(&estate.restore("restored"), 906);
    for name in files_below(&estate.scratch.join("restored")) {
        let there = fs::read(estate.scratch.join("restored").join(&name)).expect("restored");
        assert!(there == fs::read(estate.filestore().join(&name)).expect("source"), "{name}");
    }

    // Known names are not read again: content that would be torn goes unnoticed.
    let before = estate.packs();
    for name in files_below(&estate.filestore()).iter().filter(|n| !n.starts_with("checklist")) {
        estate.write(name, b"not what the name says");
    }
    let meta = files_below(&estate.scratch.join("repository/production/meta")).len();
    let second = estate.capture(0);
    let entry = &second["filestore_capture"];
    assert_eq!((&entry["files_present"], &entry["files_new"]), (&916.into(), &0.into()));
    assert_eq!((&second["new_packs"], estate.packs()), (&0.into(), before));
    assert!(second["stored_bytes"].as_u64().expect("a number") < 20_000, "{second:#}");
    assert_eq!(
        files_below(&estate.scratch.join("repository/production/meta")).len(),
        meta + 1,
        "only the index object"
    );
    clean(&estate.restore("again"), 906);
}

#[test]
fn files_come_and_go_and_nothing_that_was_stored_is_lost() {
    let estate = Estate::new();
    let kept = estate.attach(b"kept");
    let deleted = estate.attach(b"deleted at the source later");
    // More than one frame, and more than one pack.
    let large = estate.attach(&noise((34 << 20) + 12_345));
    estate.write("checklist/ab/abcd", b"");
    assert_eq!(estate.capture(0)["filestore_capture"]["files_new"], 3);
    assert!(estate.packs().len() > 1);

    let added = estate.attach(b"added");
    fs::remove_file(estate.filestore().join(&deleted)).expect("removed");
    let capture = estate.capture(0);
    let entry = &capture["filestore_capture"];
    assert_eq!(
        (&entry["files_new"], &entry["files_disappeared"], &entry["files_present"]),
        (&1.into(), &1.into(), &3.into())
    );
    assert_eq!(entry["complete"], true, "what the repository has is not missing");
    assert_eq!(capture["lost_at_source"][0]["file"], deleted.as_str());
    assert_eq!(capture["lost_at_source"][0]["attachment"]["res_model"], "sale.order");
    clean(&estate.restore("restored"), 4);
    blocking(async {
        let writer = estate.repository(None).await;
        let captures = estate.captures(&writer).await;
        let newest = captures.last().expect("two");
        let index =
            Index::read(&writer, "production", &newest.index, Packs::Skip).await.expect("the index key opens it");
        let record = |name: &str| *index.find(&name.parse().expect("a name")).expect("in the index");
        let first_scan = captures[0].scan_finished.timestamp();
        assert_eq!(record(&deleted).last_seen().map(i64::from), Some(first_scan));
        assert_eq!((record(&kept).last_seen(), record(&added).last_seen()), (None, None));
        assert_eq!(i64::from(record(&large).first_seen()), first_scan);
    });

    // An interrupted restore goes on: what is there and right stays, a torn file is made anew.
    let directory = estate.scratch.join("restored");
    fs::write(directory.join(&kept), b"torn").expect("written");
    fs::write(directory.join(format!("{large}.lifeboat")), noise(40 << 20)).expect("written");
    fs::remove_file(directory.join(&large)).expect("removed");
    clean(&estate.restore("restored"), 4);

    fs::write(estate.filestore().join(&deleted), b"deleted at the source later").expect("back again");
    let entry = estate.capture(0)["filestore_capture"].clone();
    assert_eq!((&entry["files_new"], &entry["files_disappeared"]), (&0.into(), &0.into()));
    assert_eq!(estate.capture(0)["lost_at_source"].as_array().expect("a list").len(), 0);
}

#[test]
fn damage_at_the_source_is_named_with_its_attachment_and_heals() {
    let estate = Estate::new();
    estate.attach(b"sound");
    let torn = estate.attach(b"whole content");
    estate.write(&torn, b"whole");
    let empty = estate.attach(b"nothing of this is left");
    estate.write(&empty, b"");
    let orphan = estate.put(b"an upload that was rolled back");
    estate.write(&orphan, b"an upload");
    let absent = format!("ab/{}", "ab".repeat(20));
    estate.refer(&absent, 5);
    let odd = format!("cd/{}", "ab".repeat(20));
    estate.refer(&odd, 5);

    let capture = estate.capture(11);
    let entry = &capture["filestore_capture"];
    assert_eq!((&entry["files_new"], &entry["complete"]), (&1.into(), &false.into()));
    assert_eq!(entry["missing_at_source"], serde_json::json!([absent]));
    let suspects: BTreeSet<&str> =
        entry["suspects"].as_array().expect("a list").iter().map(|s| s["name"].as_str().expect("text")).collect();
    assert_eq!(suspects, BTreeSet::from([torn.as_str(), empty.as_str(), orphan.as_str(), odd.as_str()]));
    let output = estate.lifeboat.run(&["backup", "filestore", "-e", "production"]).expect_code(11);
    for told in [&torn, &empty, &absent, &odd, &"attachment 2 of sale.order 42".to_owned()] {
        assert!(output.stderr.contains(told.as_str()), "{told} in {}", output.stderr);
    }
    assert!(!output.stderr.contains(&orphan) && output.stdout.contains(&orphan), "{output:?}");
    let ours: Vec<String> =
        estate.causes("damaged").into_iter().map(|(name, cause)| format!("{name} {cause:?}")).collect();
    let mut expected =
        vec![&torn, &empty, &absent, &odd].into_iter().map(|n| format!("{n} DamagedAtSource")).collect::<Vec<_>>();
    expected.sort();
    assert_eq!(ours, expected);

    estate.write(&torn, b"whole content");
    estate.write(&empty, b"nothing of this is left");
    estate.cluster.psql("shop", &format!("DELETE FROM ir_attachment WHERE store_fname IN ('{absent}', '{odd}')"));
    let entry = estate.capture(0)["filestore_capture"].clone();
    assert_eq!((&entry["files_new"], &entry["complete"]), (&2.into(), &true.into()), "an orphan harms nobody");
    assert_eq!(entry["suspects"][0]["name"], orphan.as_str());
    clean(&estate.restore("healed"), 3);
}

#[test]
fn an_unreadable_file_is_named() {
    if server_account().is_some() {
        // Root reads everything; a loop of links is unreadable for everybody.
        let estate = Estate::new();
        let name = estate.attach(b"behind a link");
        let path = estate.filestore().join(&name);
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink(&path, &path).expect("a loop");
        let capture = estate.capture(11);
        assert!(capture["damage"][0]["reason"].as_str().expect("text").contains("cannot be read"), "{capture:#}");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let estate = Estate::new();
    let name = estate.attach(b"secret");
    fs::set_permissions(estate.filestore().join(&name), fs::Permissions::from_mode(0o000)).expect("own file");
    let capture = estate.capture(11);
    assert!(capture["damage"][0]["reason"].as_str().expect("text").contains("ermission denied"), "{capture:#}");
}

#[test]
fn what_is_missing_at_restore_is_told_apart() {
    let estate = Estate::new();
    let stored: Vec<String> = (0..40).map(|n| estate.attach(format!("file {n}").as_bytes())).collect();
    estate.capture(0);
    let first_packs = estate.packs();
    estate.attach(b"in a pack of its own");
    estate.capture(0);
    let late = estate.attach(b"after the last capture");
    let old = format!("ef/{}", "ef".repeat(20));
    estate.refer(&old, 3);
    let ago = "UPDATE ir_attachment SET write_date = write_date - interval '9 days' WHERE store_fname =";
    estate.cluster.psql("shop", &format!("{ago} '{old}'"));
    assert_eq!(
        estate.causes("first"),
        BTreeSet::from([(late.clone(), "n"), (old.clone(), "l")])
            .into_iter()
            .map(|(n, c)| (n, if c == "n" { MissingCause::NotCaptured } else { MissingCause::LostByUs }))
            .collect::<Vec<_>>(),
        "a row that is older than a capture which does not know its file is our fault"
    );

    // A damaged pack costs its own files only, and a missing one too.
    let pack = estate.scratch.join("repository/production/data").join(first_packs.first().expect("one pack"));
    let whole = fs::read(&pack).expect("a pack");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let replace = |bytes: Option<&[u8]>| {
        fs::remove_file(&pack).ok();
        if let Some(bytes) = bytes {
            fs::write(&pack, bytes).expect("written");
        }
    };
    for (into, bytes) in [("damaged", Some(damaged.as_slice())), ("absent", None)] {
        replace(bytes);
        let (restored, _) = estate.restore(into);
        let lost: BTreeSet<&str> = restored
            .missing
            .iter()
            .filter(|m| m.cause == MissingCause::LostByUs && m.store_fname != old)
            .map(|m| m.store_fname.as_str())
            .collect();
        assert_eq!(lost, stored.iter().map(String::as_str).collect(), "{into}");
        assert_eq!(restored.present, 1, "{into}");
    }
    replace(Some(&whole));
    assert_eq!(estate.restore("whole").0.present, 41);
}

#[test]
fn the_host_that_backs_up_can_read_names_and_no_content() {
    let estate = Estate::new();
    estate.attach(b"confidential");
    let odoo_conf = estate.scratch.write("odoo.conf", "[options]\nadmin_passwd = very secret\n");
    let listed = format!("databases = [\"shop\"]\nconfig_file = \"{}\"", odoo_conf.display());
    estate.configure(&estate.cluster.dsn(), &listed, "");
    estate.capture(0);
    estate.run("backup configuration").ok();
    blocking(async {
        let writer = estate.repository(None).await;
        assert!(estate.packs().len() >= 2);
        for pack in estate.packs() {
            let bytes = fs::read(estate.scratch.join("repository/production/data").join(&pack)).expect("a pack");
            let opener = ObjectOpener::new(Class::Pack, &bytes, &writer.keys).expect("a header");
            assert_eq!(opener.whole(&bytes).expect_err("must not open").kind(), ErrorKind::Denied);
        }
        let captures = estate.captures(&writer).await;
        let index = Index::read(&writer, "production", &captures[0].index, Packs::Load).await.expect("names");
        assert_eq!(index.records.len(), 1);
        let request = Request {
            environment: "production",
            live: None,
            live_damaged: false,
            captures: captures.iter().collect(),
            stop: captures[0].restore_point.lsn,
            directory: &estate.scratch.join("never"),
            owner: None,
        };
        let client = estate.cluster.connect("shop").await;
        let wanted = referenced(&client).await.expect("query");
        let refused = restore::restore(&writer, &request, wanted, &Runtime::silent()).await.expect_err("no key");
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert!(!estate.scratch.join("never").exists());
    });
    for object in files_below(&estate.scratch.join("repository")) {
        let bytes = fs::read(estate.scratch.join("repository").join(&object)).expect("an object");
        for secret in ["confidential", "very secret", "admin_passwd"] {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} in {object}");
        }
    }
}

#[test]
fn a_killed_capture_leaves_nothing_visible_and_the_next_one_works() {
    let estate = Estate::new();
    for _ in 0..64 {
        estate.attach(&noise(4 << 20));
    }
    let running = estate.lifeboat.spawn(&["backup", "filestore", "-e", "production"]);
    wait_until("the first pack is stored", Duration::from_secs(60), || !estate.packs().is_empty());
    assert_eq!(running.kill9().code(), None, "it was still at work");
    blocking(async {
        let repository = estate.repository(None).await;
        assert!(Catalogue::load(&repository, "production").await.expect("catalogue").entries.is_empty());
    });
    assert_eq!(estate.capture(0)["filestore_capture"]["files_new"], 64);
    clean(&estate.restore("restored"), 64);
}

#[test]
fn two_captures_at_once_lose_nothing() {
    let estate = Estate::new();
    let early = estate.attach(b"before both");
    estate.capture(0);
    for n in 0..50 {
        estate.attach(&noise(10_000 + n));
    }
    let args = ["backup", "filestore", "-e", "production"];
    let both = [estate.lifeboat.spawn(&args), estate.lifeboat.spawn(&args)];
    for running in both {
        running.wait(Duration::from_secs(60)).ok();
    }
    fs::remove_file(estate.filestore().join(early)).expect("removed");
    let entry = estate.capture(0)["filestore_capture"].clone();
    assert_eq!((&entry["files_new"], &entry["files_disappeared"]), (&0.into(), &1.into()));
    clean(&estate.restore("restored"), 51);
}

#[test]
fn a_capture_builds_upon_one_that_overtook_it() {
    let estate = Estate::new();
    let names = [estate.attach(b"before both"), estate.attach(b"seen by the slow one only")];
    let slow = blocking(async {
        let mut client = estate.cluster.connect("shop").await;
        let lock = client.transaction().await.expect("begins");
        lock.batch_execute("LOCK TABLE ir_attachment IN ACCESS EXCLUSIVE MODE").await.expect("locked");
        let slow = estate.lifeboat.spawn(&["backup", "filestore", "-e", "production"]);
        wait_until("the slow one has read the files and waits for the lock", Duration::from_secs(30), || {
            estate.cluster.psql("postgres", "SELECT count(*) FROM pg_locks WHERE NOT granted") == "1"
        });
        slow.signal(Signal::SIGSTOP);
        lock.rollback().await.expect("unlocked");
        slow
    });
    fs::remove_file(estate.filestore().join(&names[1])).expect("removed");
    estate.cluster.psql("shop", &format!("DELETE FROM ir_attachment WHERE store_fname = '{}'", names[1]));
    let fast = estate.attach(b"seen by the fast one only");
    assert_eq!(estate.capture(0)["filestore_capture"]["files_new"], 2);
    slow.signal(Signal::SIGCONT);
    slow.wait(Duration::from_secs(60)).ok();
    blocking(async {
        let repository = estate.repository(None).await;
        let captures = estate.captures(&repository).await;
        assert_eq!(captures.iter().map(|c| c.files_new).collect::<Vec<_>>(), [2, 2]);
        let newest = Index::read(&repository, "production", &captures[1].index, Packs::Load).await.expect("index");
        let mut expected: Vec<FileName> =
            names.iter().chain([&fast]).map(|name| name.parse().expect("a name")).collect();
        expected.sort_unstable();
        assert_eq!(newest.records.iter().map(|r| r.name).collect::<Vec<_>>(), expected);
    });
    clean(&estate.restore("restored"), 2);
}

#[test]
fn a_filestore_that_is_not_there_is_a_failure_and_not_a_mass_deletion() {
    let estate = Estate::new();
    let name = estate.attach(b"content");
    estate.capture(0);
    let away = estate.scratch.join("unmounted");
    fs::rename(estate.filestore(), &away).expect("renamed");
    for present in [false, true] {
        if present {
            fs::create_dir(estate.filestore()).expect("an empty mount point");
        }
        let output = estate.run("backup filestore").expect_code(4);
        assert!(output.stdout.contains("mounted"), "{}", output.stdout);
    }
    assert_eq!(estate.failures().len(), 2);
    assert_eq!(estate.failures()[0], ("filestore capture of shop".to_owned(), "source".to_owned()));
    fs::remove_dir(estate.filestore()).expect("empty");
    fs::rename(&away, estate.filestore()).expect("renamed");
    assert_eq!(estate.capture(0)["filestore_capture"]["files_disappeared"], 0);

    // A database that never stored a file needs no directory.
    estate.cluster.psql("shop", &format!("DELETE FROM ir_attachment WHERE store_fname = '{name}'"));
    fs::remove_dir_all(estate.filestore()).expect("removed");
    assert_eq!(estate.capture(0)["filestore_capture"]["files_present"], 0);
}

#[test]
fn tenants_are_told_apart_by_their_uuid() {
    let estate = Estate::new();
    estate.configure(&estate.cluster.dsn(), "", "");
    estate.cluster.psql("postgres", "CREATE DATABASE no_odoo");
    fs::create_dir_all(estate.data_dir.join("filestore/left_behind")).expect("created");
    estate.attach(b"of the first shop");
    let output = estate.run("backup filestore").ok();
    assert_eq!(output.json()["filestore_captures"].as_array().expect("a list").len(), 1, "only Odoo databases");
    assert!(output.stderr.contains("left_behind belongs to no database"), "{}", output.stderr);

    estate.cluster.psql("shop", "UPDATE ir_config_parameter SET value = '99999999-2222-3333-4444-555555555555'");
    let output = estate.run("backup filestore").ok();
    let entry = output.json()["filestore_captures"][0]["filestore_capture"].clone();
    assert!(output.stderr.contains("another uuid"), "{}", output.stderr);
    assert_eq!(entry["files_new"], 1, "captured from the beginning");

    estate.cluster.psql("postgres", "ALTER DATABASE shop RENAME TO store");
    fs::rename(estate.filestore(), estate.data_dir.join("filestore/store")).expect("renamed");
    let entry = estate.capture(0)["filestore_capture"].clone();
    assert_eq!(
        (&entry["database"], &entry["files_new"]),
        (&"store".into(), &0.into()),
        "a renamed tenant keeps its files"
    );
}

#[test]
fn without_the_privilege_a_message_marks_the_place_and_a_standby_gives_its_replay_position() {
    let estate = Estate::new();
    estate.cluster.psql("postgres", "CREATE ROLE plain LOGIN");
    estate.cluster.psql("shop", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain");
    estate.attach(b"content");
    let listed = "databases = [\"shop\"]";
    estate.configure(&estate.cluster.dsn_for("postgres", "plain"), listed, "");
    let before = estate.cluster.psql("shop", "SELECT pg_current_wal_insert_lsn()");
    let output = estate.run("backup filestore").ok();
    assert!(output.stderr.contains("GRANT EXECUTE ON FUNCTION"), "{}", output.stderr);
    let point = output.json()["filestore_captures"][0]["filestore_capture"]["restore_point"].clone();
    assert!(point["name"].as_str().expect("text").ends_with("(message)"), "{point}");
    let lsn = point["lsn"].as_str().expect("text");
    assert_eq!(estate.cluster.psql("shop", &format!("SELECT pg_lsn '{lsn}' > '{before}'")), "t");

    let Some(standby) = estate.cluster.standby("standby") else { skip!("no pg_basebackup") };
    estate.configure(&standby.dsn(), listed, "");
    let point = estate.capture(0)["filestore_capture"]["restore_point"].clone();
    assert!(point["name"].as_str().expect("text").ends_with("(replay position)"), "{point}");
}
