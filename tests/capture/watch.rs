//! The watcher: files between captures, its own death, floods, and Odoo's garbage collection.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lifeboat::filestore::restore::{self, Request};
use lifeboat::filestore::{Example, FileName, Reference, live};
use lifeboat::runtime::Runtime;
use nix::sys::signal::Signal;
use serde_json::Value;
use sha1::{Digest, Sha1};

use super::estate::{Estate, clean, files_below};
use crate::common::{Running, blocking, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

const QUICK: [&str; 2] = ["--store-every", "50ms"];

impl Estate {
    /// Starts a watcher and waits for its first capture.
    fn watch(&self, more: &[&str]) -> Running {
        let args = [&["--format", "json", "filestore", "watch", "-e", "production"], more];
        let mut running = self.lifeboat.spawn(&args.concat());
        wait_until("the first capture of the watcher", PATIENCE, || {
            assert!(running.is_running(), "it ended: {}", running.said());
            running.stderr().contains("filestore of shop: captured")
        });
        running
    }

    /// Files that are in pieces, and no capture has taken over.
    fn in_pieces(&self) -> BTreeSet<String> {
        blocking(async {
            let repository = self.repository(None).await;
            let (index, damaged) = live::index(&repository, "production", "shop", None).await.expect("pieces");
            assert!(damaged.is_empty(), "{damaged:?}");
            index.map(|i| i.records.iter().map(|r| r.name.to_string()).collect()).unwrap_or_default()
        })
    }

    /// What Odoo does for a deletion and, later, in its daily collection.
    fn delete_and_collect(&self, name: &str) {
        self.cluster.psql("shop", &format!("DELETE FROM ir_attachment WHERE store_fname = '{name}'"));
        fs::remove_file(self.filestore().join(name)).expect("removed");
    }

    /// The files of `names` that cannot be restored from what the repository has.
    fn unrestorable(&self, names: &BTreeSet<String>, into: &str) -> Vec<String> {
        let wanted = |name: &String| Reference {
            store_fname: name.clone(),
            name: Some(name.parse::<FileName>().expect("a name")),
            file_size: None,
            checksum: None,
            references: 1,
            since: None,
            example: Example { attachment_id: 1, res_model: None, res_id: None, res_field: None },
        };
        let mut wanted: Vec<Reference> = names.iter().map(wanted).collect();
        wanted.sort_by_key(|r| r.name);
        let directory = self.scratch.join(into);
        blocking(async {
            let repository = self.repository(Some(&self.recovery)).await;
            let captures = self.captures(&repository).await;
            let (live, _) = live::index(&repository, "production", "shop", None).await.expect("pieces");
            let request = Request {
                environment: "production",
                captures: captures.iter().collect(),
                live: live.map(Arc::new),
                live_damaged: false,
                stop: captures[0].restore_point.lsn,
                directory: &directory,
                owner: None,
            };
            let wanted = futures::stream::iter(wanted.into_iter().map(Ok));
            let done = restore::restore(&repository, &request, wanted, &Runtime::silent()).await.expect("restored");
            assert_eq!(done.present, done.verified);
            done.missing.into_iter().map(|m| m.store_fname).collect()
        })
    }
}

fn stop(running: Running) -> Value {
    running.signal(Signal::SIGTERM);
    running.wait(PATIENCE).ok().json()["watched"].clone()
}

#[test]
fn a_file_that_came_and_went_between_captures_can_be_restored() {
    let estate = Estate::new();
    estate.attach(b"before the watcher");
    let running = estate.watch(&QUICK);
    let short = estate.attach(b"created and collected between two captures");
    let kept = estate.attach(b"created and kept");
    wait_until("both are stored", PATIENCE, || estate.in_pieces().is_superset(&[short.clone(), kept.clone()].into()));
    let show = || estate.lifeboat.run(&["--format", "json", "show", "-e", "production"]).ok().json();
    // Restore points of captures are older than these files; the watcher's mark is not.
    let clock = || estate.cluster.psql("shop", "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')");
    let after = clock();
    let another = estate.attach(b"so that there is a mark behind that moment");
    wait_until("it is complete to here", PATIENCE, || {
        let live = show()["environments"][0]["watched"].clone();
        live[0]["time"].as_str().is_some_and(|at| at > after.as_str())
    });
    clean(&estate.restore("with the pieces"), 4);
    estate.delete_and_collect(&short);

    // The pieces are good without a capture, and without their watcher.
    running.kill9();
    assert_eq!(estate.unrestorable(&[short.clone()].into(), "killed"), Vec::<String>::new());
    let verified = estate.lifeboat.run(&["--format", "json", "verify", "-e", "production"]).ok().json();
    assert_eq!(verified["verify"]["unreferenced"], serde_json::json!([0, 0]), "{verified:#}");

    let capture = estate.capture(0);
    let collection = &capture["filestore_capture"]["collection"];
    assert_eq!((&collection["watched"], &collection["watched_gone"]), (&3.into(), &1.into()), "{capture:#}");
    assert!(files_below(&estate.scratch.join("repository/production/filestore-live")).is_empty());
    let all = BTreeSet::from([short, kept, another]);
    assert_eq!(estate.unrestorable(&all, "captured"), Vec::<String>::new());
    clean(&estate.restore("after the capture"), 3);
}

#[test]
fn the_last_files_are_stored_when_it_is_stopped_and_missed_ones_when_it_starts() {
    let estate = Estate::new();
    estate.attach(b"so that there is a filestore");
    let running = estate.watch(&["--store-every", "1h"]);
    let waiting = estate.attach(b"written a moment before the stop");
    let watched = stop(running);
    assert_eq!((&watched["files"], &watched["databases"]), (&1.into(), &serde_json::json!(["shop"])), "{watched:#}");
    assert!(estate.in_pieces().contains(&waiting));
    let missed = estate.attach(b"written while nobody watched");
    let running = estate.watch(&QUICK);
    assert_eq!(estate.unrestorable(&[waiting, missed].into(), "r"), Vec::<String>::new());
    assert_eq!(stop(running)["captures"], 1);
}

#[test]
fn a_torn_file_is_stored_when_it_is_whole() {
    let estate = Estate::new();
    let running = estate.watch(&QUICK);
    let name = estate.put(b"first half, second half");
    estate.write(&name, b"first half");
    wait_until("it is seen", PATIENCE, || {
        estate.in_pieces().contains(&name) || {
            // Complete it only after the watcher had a chance to read the half.
            estate.write(&name, b"first half, second half");
            estate.in_pieces().contains(&name)
        }
    });
    drop(stop(running));
}

#[test]
fn an_overflow_of_the_kernels_queue_is_made_up_for() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("the kernel's limit");
    let limit: usize = limit.trim().parse().expect("a number");
    if limit > 50_000 {
        crate::common::skip!("the kernel's queue holds {limit} events");
    }
    let estate = Estate::new();
    estate.attach(b"one file");
    // In directories that appear, files are found by looking; only those that are watched make events.
    for n in 0..=255 {
        fs::create_dir_all(estate.filestore().join(format!("{n:02x}"))).expect("created");
    }
    let running = estate.watch(&QUICK);
    let before = running.stderr().matches("filestore of shop: captured").count();
    running.signal(Signal::SIGSTOP);
    let names: BTreeSet<String> =
        (0..limit + 1000).map(|n| estate.put(format!("file {n} of a flood").as_bytes())).collect();
    running.signal(Signal::SIGCONT);
    wait_until("the flood is told", PATIENCE, || running.stderr().contains("the kernel's queue"));
    wait_until("a capture made up for it", PATIENCE, || {
        running.stderr().matches("filestore of shop: captured").count() > before
    });
    assert_eq!(stop(running)["overflows"], 1);
    let capture = estate.capture(0);
    assert_eq!(capture["filestore_capture"]["files_present"], names.len() as u64 + 1);
    assert_eq!(estate.unrestorable(&names.iter().take(50).cloned().collect(), "r"), Vec::<String>::new());
}

#[test]
fn renamed_new_and_dropped_databases_are_followed() {
    let estate = Estate::new();
    estate.configure(&estate.cluster.dsn(), "", "");
    let first = estate.attach(b"under the old name");
    let running = estate.watch(&QUICK);
    estate.cluster.psql("postgres", "ALTER DATABASE shop RENAME TO store");
    fs::rename(estate.filestore(), estate.data_dir.join("filestore/store")).expect("renamed");
    wait_until("it is found under its new name", PATIENCE, || {
        running.stderr().contains("filestore of store: captured, 1 files, 0 new")
    });
    let digits = hex::encode(Sha1::digest(b"under the new name"));
    let path = estate.data_dir.join("filestore/store").join(&digits[..2]);
    fs::create_dir_all(&path).expect("created");
    fs::write(path.join(&digits), b"under the new name").expect("written");
    estate.create("second");
    estate.cluster.psql("second", "UPDATE ir_config_parameter SET value = '99999999-2222-3333-4444-555555555555'");
    fs::create_dir_all(estate.data_dir.join("filestore/second")).expect("created");
    wait_until("the new database is found", PATIENCE, || running.stderr().contains("filestore of second: captured"));
    estate.cluster.psql("postgres", "DROP DATABASE second");
    fs::remove_dir_all(estate.data_dir.join("filestore/second")).expect("removed");
    wait_until("it is no longer watched", PATIENCE, || running.stderr().contains("database second is gone"));
    blocking(async {
        let repository = estate.repository(None).await;
        let uuid = Some("11111111-2222-3333-4444-555555555555");
        let until = Instant::now() + PATIENCE;
        while live::index(&repository, "production", "store", uuid)
            .await
            .expect("pieces")
            .0
            .is_none_or(|i| i.records.iter().all(|r| !r.name.to_string().ends_with(&digits)))
        {
            assert!(Instant::now() < until, "the file under the new name is not stored");
        }
    });
    let watched = stop(running);
    assert_eq!(watched["databases"], serde_json::json!(["store"]));
    assert_eq!(estate.unrestorable(&[first].into(), "r"), Vec::<String>::new());
}

/// An Odoo at work: files and rows come, rows go, what is marked is collected some time later. Returns what
/// the database referred to at moments on the way.
fn odoo_at_work(estate: &Estate, until: &AtomicBool, collecting: &AtomicBool) -> Vec<BTreeSet<String>> {
    blocking(async {
        let client = estate.cluster.connect("shop").await;
        let (mut moments, mut n) = (Vec::new(), 0_u32);
        let mut created: BTreeMap<String, Instant> = BTreeMap::new();
        while !until.load(Ordering::SeqCst) {
            n += 1;
            let name = estate.put(format!("document {n} of {:?}", std::thread::current().id()).as_bytes());
            let insert = "INSERT INTO ir_attachment (name, store_fname) VALUES ('x', $1)";
            client.execute(insert, &[&name]).await.expect("inserted");
            created.insert(name, Instant::now());
            if n.is_multiple_of(7) {
                let rows =
                    client.query("SELECT store_fname FROM ir_attachment WHERE store_fname IS NOT NULL", &[]).await;
                moments.push(rows.expect("read").iter().map(|r| r.get(0)).collect());
            }
            if n.is_multiple_of(3) && collecting.load(Ordering::SeqCst) {
                // Odoo collects once a day; here, what is older than the watcher needs by far.
                let old = created.iter().find(|(_, at)| at.elapsed() > Duration::from_secs(5)).map(|(n, _)| n.clone());
                if let Some(old) = old {
                    created.remove(&old);
                    client.execute("DELETE FROM ir_attachment WHERE store_fname = $1", &[&old]).await.expect("deleted");
                    estate.write(&format!("checklist/{old}"), b"");
                    fs::remove_file(estate.filestore().join(&old)).expect("collected");
                    fs::remove_file(estate.filestore().join(format!("checklist/{old}"))).expect("unmarked");
                }
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        moments
    })
}

#[test]
fn every_moment_of_a_busy_odoo_can_be_restored_although_the_watcher_was_killed() {
    let estate = Estate::new();
    let (done, collecting) = (AtomicBool::new(false), AtomicBool::new(true));
    let moments = std::thread::scope(|scope| {
        let odoo = scope.spawn(|| odoo_at_work(&estate, &done, &collecting));
        let mut running = estate.watch(&["--store-every", "50ms", "--scan-every", "3s"]);
        for round in 0..3 {
            let before = running.stderr().matches("filestore of shop: captured").count();
            wait_until("captures beside the watcher", PATIENCE, || {
                running.stderr().matches("filestore of shop: captured").count() >= before + 2
            });
            // Nothing is collected while nobody watches, as Odoo's daily collection would hardly be.
            collecting.store(false, Ordering::SeqCst);
            running.kill9();
            running = estate.watch(&["--store-every", "50ms", "--scan-every", "3s"]);
            collecting.store(round < 2, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
        let moments = odoo.join().expect("no panic");
        stop(running);
        moments
    });
    let all: BTreeSet<String> = moments.iter().flatten().cloned().collect();
    let now = files_below(&estate.filestore());
    assert!(all.iter().any(|name| !now.contains(name)), "nothing was collected: the test proves nothing");
    assert!(moments.len() > 20);
    assert_eq!(estate.unrestorable(&all, "everything"), Vec::<String>::new());
}

#[test]
fn without_a_watcher_what_came_and_went_is_counted() {
    let estate = Estate::new();
    estate.attach(b"first");
    estate.capture(0);
    let short = estate.attach(b"created and collected between two captures");
    estate.delete_and_collect(&short);
    estate.attach(b"another");
    let capture = estate.capture(0);
    let collection = &capture["filestore_capture"]["collection"];
    assert_eq!((&collection["short_lived"], &collection["watched"]), (&1.into(), &0.into()), "{capture:#}");
    assert_eq!(estate.unrestorable(&[short.clone()].into(), "r"), [short], "scans alone cannot have it");
    let said = estate.lifeboat.run(&["backup", "filestore", "-e", "production"]).ok().stdout;
    assert!(!said.contains("came and went"), "it is told once: {said}");
}
