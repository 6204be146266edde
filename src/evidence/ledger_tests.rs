//! The ledger under writers that race, stall and are cut off.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::local::LocalFileSystem;

use super::*;
use crate::error::ErrorKind;
use crate::evidence::checkpoint::Checkpoint;
use crate::evidence::fence::LeaseTaken;
use crate::evidence::testing::{body, key, ledger, memory, trust};
use crate::runtime::Clock;
use crate::storage::store::RetryPolicy;

async fn append(ledger: &Ledger, signer: u8, what: &str) -> Result<Appended> {
    ledger.append(&Runtime::silent(), &key(signer), Vec::new(), body(what)).await
}

fn told(entries: &[LedgerEntry]) -> Vec<String> {
    let what = |e: &LedgerEntry| match &e.statement.predicate.body {
        Body::Skipped(skipped) => skipped.what.clone(),
        other => other.kind().to_owned(),
    };
    entries.iter().map(what).collect()
}

#[tokio::test]
async fn entries_come_back_in_order_linked_and_signed() {
    let store = memory();
    let ledger = ledger(&store, &[1, 2]);
    let object = Subject::new("production/data/00ff", "00ff");
    let first = ledger.append(&Runtime::silent(), &key(1), vec![object.clone()], body("one")).await.expect("appended");
    let second = append(&ledger, 2, "two").await.expect("appended");
    append(&ledger, 1, "three").await.expect("appended");

    let entries = ledger.entries().await.expect("sound");
    assert_eq!(told(&entries), ["one", "two", "three"]);
    assert_eq!((first.sequence, first.previous.as_deref()), (1, None));
    assert_eq!(second.previous.as_deref(), Some(first.sha256.as_str()));
    assert_eq!(entries[1].statement.predicate.previous.as_deref(), Some(first.sha256.as_str()));
    assert_eq!(entries[1].signers, [key(2).verifying_key().id()]);
    assert_eq!(entries[0].statement.subject, [object]);
    let about = Subject::new("production/ledger/00000000000000000001.json", first.sha256);
    assert_eq!(entries[1].statement.subject, [about], "in-toto wants a subject");
    assert_eq!(told(&ledger.entries_since(1).await.expect("sound")), ["two", "three"]);
    assert_eq!(told(&ledger.entries_since(3).await.expect("sound")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_once_all_succeed_without_gap_or_loss() {
    let store = memory();
    let writers = (1..=4).map(|writer| {
        let ledger = ledger(&store, &[1, 2, 3, 4]);
        tokio::spawn(async move {
            for n in 0..10 {
                append(&ledger, writer, &format!("{writer}-{n}")).await.expect("appended");
                tokio::task::yield_now().await;
            }
        })
    });
    for writer in writers {
        writer.await.expect("no panic");
    }
    let reader = ledger(&store, &[1, 2, 3, 4]);
    let entries = reader.entries().await.expect("sound");
    let mut all = told(&entries);
    all.sort_unstable();
    let mut expected: Vec<String> = (1..=4).flat_map(|w| (0..10).map(move |n| format!("{w}-{n}"))).collect();
    expected.sort_unstable();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn an_entry_that_is_to_follow_a_certain_one_follows_it_or_is_not_written() {
    let store = memory();
    let (one, two) = (ledger(&store, &[1]), ledger(&store, &[1]));
    let steps = [
        (&one, 0, "a", Some(1)),
        (&two, 0, "somebody was there before", None),
        (&two, 1, "b", Some(2)),
        (&one, 1, "this process had not seen it", None),
        (&one, 2, "c", Some(3)),
    ];
    for (writer, known, what, number) in steps {
        let runtime = Runtime::silent();
        let appended = writer.append_after(&runtime, &key(1), Vec::new(), body(what), known).await.expect("reached");
        assert_eq!(appended.map(|a| a.sequence), number, "{what}");
    }
    assert_eq!(told(&one.entries().await.expect("sound")), ["a", "b", "c"]);
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }
}

#[tokio::test]
async fn hosts_that_record_the_same_at_the_same_time_with_the_same_key_make_two_entries() {
    let store = memory();
    let runtime = Runtime::silent().with_clock(Stopped);
    let signer = key(1);
    let (one, two) = (ledger(&store, &[1]), ledger(&store, &[1]));
    // The second host looked before the first one wrote.
    *two.end.lock().await = Some(End { chain: Chain::beginning(), overtaken: None });
    let first = one.append(&runtime, &signer, Vec::new(), body("same")).await.expect("appended");
    let second = two.append(&runtime, &signer, Vec::new(), body("same")).await.expect("appended");
    assert_eq!((first.sequence, second.sequence), (1, 2));
    assert_eq!(one.entries().await.expect("sound").len(), 2);
}

#[tokio::test]
async fn the_checkpoint_follows_each_append_and_other_tools_can_check_it() {
    let store = memory();
    let ledger = ledger(&store, &[1]);
    for n in 1..=5 {
        append(&ledger, 1, "x").await.expect("appended");
        let note = store.get("production/ledger/checkpoint").await.expect("checkpoint");
        let note = String::from_utf8(note.to_vec()).expect("text");
        let trust = trust(&[1]);
        let (checkpoint, _) = Checkpoint::open(&note, "lifeboat/0123abcd/production", &trust).expect("sound");
        assert_eq!(checkpoint.size, n);
        let mut leaves = Vec::new();
        for object in store.list("production/ledger/").await.expect("list").iter().filter(|o| o.key.ends_with("json")) {
            leaves.push(merkle::leaf_hash(&store.get(&object.key).await.expect("entry")));
        }
        assert_eq!(checkpoint.root, merkle::root(&leaves));
    }
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_written_is_a_warning_and_is_made_up_for() {
    let folder = tempfile::tempdir().expect("folder");
    let local = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("store"));
    let impatient = RetryPolicy { give_up_after: Duration::ZERO, ..RetryPolicy::default() };
    let store = Store::new(local, "file:", impatient, Runtime::silent());
    let ledger = ledger(&store, &[1]);
    append(&ledger, 1, "one").await.expect("appended");

    let checkpoint = folder.path().join("production/ledger/checkpoint");
    std::fs::remove_file(&checkpoint).expect("removed");
    std::fs::create_dir_all(checkpoint.join("in-the-way")).expect("folder");
    let warnings = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = warnings.clone();
    let runtime = Runtime::new(move |event| seen.lock().expect("lock").push(format!("{event:?}")));
    let second = ledger.append(&runtime, &key(1), Vec::new(), body("two")).await.expect("appended all the same");
    assert_eq!(second.sequence, 2);
    assert!(warnings.lock().expect("lock")[0].contains("Warning"), "{warnings:?}");

    std::fs::remove_dir_all(&checkpoint).expect("removed");
    append(&ledger, 1, "three").await.expect("appended");
    assert!(std::fs::read_to_string(&checkpoint).expect("checkpoint").contains("\n3\n"));
}

#[tokio::test]
async fn nothing_is_appended_to_a_ledger_that_was_cut_off_or_by_a_stranger() {
    let store = memory();
    append(&ledger(&store, &[1]), 1, "one").await.expect("appended");
    append(&ledger(&store, &[1]), 1, "two").await.expect("appended");
    let stranger = append(&ledger(&store, &[1]), 2, "three").await.expect_err("not enrolled");
    assert_eq!(stranger.kind(), ErrorKind::Denied);

    store.delete_all(vec!["production/ledger/00000000000000000002.json".into()]).await.expect("deleted");
    let refused = append(&ledger(&store, &[1]), 1, "three").await.expect_err("cut off");
    assert_eq!(refused.kind(), ErrorKind::Integrity);
    assert!(refused.message().contains("entry 2: missing at the end"), "{refused}");
    assert_eq!(ledger(&store, &[1]).entries().await.expect_err("cut off").kind(), ErrorKind::Integrity);
    let sound = ledger(&store, &[1]).read().await.expect("read").entries;
    assert_eq!(told(&sound), ["one"], "a restore can go on with what is sound");
}

#[tokio::test]
async fn an_interrupted_first_append_leaves_a_ledger_that_goes_on() {
    let store = memory();
    append(&ledger(&store, &[1]), 1, "one").await.expect("appended");
    store.delete_all(vec!["production/ledger/checkpoint".into()]).await.expect("deleted");
    assert_eq!(append(&ledger(&store, &[1]), 1, "two").await.expect("appended").sequence, 2);
}

fn takes_over(generation: u64) -> Body {
    Body::Lease(LeaseTaken {
        duty: "jobs".into(),
        generation,
        owner: "host-2".into(),
        previous_owner: Some("host-1".into()),
        previous_generation: Some(generation - 1),
        expired_at: None,
    })
}

fn fenced(store: &Store, generation: u64) -> Ledger {
    let fence = Fence { environment: "production".into(), duty: "jobs".into(), generation };
    ledger(store, &[1, 2]).with_fence(Some(fence))
}

#[tokio::test]
async fn a_stalled_writer_appends_nothing_behind_a_takeover() {
    let store = memory();
    let stalled = fenced(&store, 1);
    append(&stalled, 1, "before").await.expect("appended");
    // It stands still here, knowing the end of the ledger, while the other one takes over.
    let successor = fenced(&store, 2);
    successor.append(&Runtime::silent(), &key(2), Vec::new(), takes_over(2)).await.expect("appended");
    let refused = append(&stalled, 1, "after").await.expect_err("overtaken");
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert!(refused.message().contains("host-2 does jobs of production now (generation 2, entry 2"), "{refused}");
    append(&stalled, 1, "again").await.expect_err("for good");
    append(&fenced(&store, 1), 1, "as a new process").await.expect_err("which reads the ledger first");
    append(&successor, 2, "goes on").await.expect("appended");
    append(&ledger(&store, &[1, 2]), 1, "a person").await.expect("acts under no lease");
    let other = |text: &str| ledger(&store, &[1, 2]).with_fence(Some(text.parse().expect("a fence")));
    append(&other("production/wal:1"), 1, "another duty").await.expect("not concerned");
    append(&other("staging/jobs:1"), 1, "another environment").await.expect("not concerned");
    let told = told(&ledger(&store, &[1, 2]).entries().await.expect("sound"));
    let expected = ["before", "lease", "goes on", "a person", "another duty", "another environment"];
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_race_with_a_takeover_are_before_it_or_refused() {
    for _ in 0..20 {
        let store = memory();
        let writers = (0..3).map(|writer| {
            let ledger = fenced(&store, 1);
            tokio::spawn(async move {
                let mut written = 0;
                while append(&ledger, 1, &format!("{writer}-{written}")).await.is_ok() {
                    written += 1;
                    tokio::task::yield_now().await;
                }
                written
            })
        });
        let writers: Vec<_> = writers.collect();
        let successor = fenced(&store, 2);
        let taken = successor.append(&Runtime::silent(), &key(2), Vec::new(), takes_over(2)).await.expect("taken");
        let mut written = 0;
        for writer in writers {
            written += writer.await.expect("no panic");
        }
        let entries = ledger(&store, &[1, 2]).entries().await.expect("sound");
        assert_eq!(entries.len(), written + 1, "what was reported as written is there, and nothing else");
        assert_eq!(entries.last().map(|e| e.sequence), Some(taken.sequence), "nothing follows");
    }
}
