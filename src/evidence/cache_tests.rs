//! The cache of a ledger: that it saves requests, and that nothing is believed because it stands there.

use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;

use super::cache::LedgerCache;
use super::testing::{body, key, ledger, trust};
use super::{Ledger, verify_ledger};
use crate::error::ErrorKind;
use crate::runtime::Runtime;
use crate::storage::fault::{FaultStore, Operation};
use crate::storage::store::RetryPolicy;
use crate::storage::{Store, layout};

struct Place {
    folder: tempfile::TempDir,
    calls: FaultStore<InMemory>,
    store: Store,
}

impl Place {
    /// A ledger with `entries` entries.
    async fn with(entries: usize) -> Self {
        let calls = FaultStore::new(InMemory::new());
        let store = Store::new(Arc::new(calls.clone()), "memory:", RetryPolicy::default(), Runtime::silent());
        let writer = ledger(&store, &[1]);
        for n in 0..entries {
            writer.append(&Runtime::silent(), &key(1), Vec::new(), body(&n.to_string())).await.expect("appended");
        }
        Self { folder: tempfile::tempdir().expect("folder"), calls, store }
    }

    fn cache(&self) -> LedgerCache {
        LedgerCache::new(self.folder.path(), "0123abcd", "production")
    }

    fn ledger(&self) -> Ledger {
        ledger(&self.store, &[1]).with_cache(Some(self.cache()))
    }

    /// How many objects were read and how often was listed, to read the ledger as it is.
    async fn cost(&self, entries: usize) -> (usize, usize) {
        self.calls.forget_calls();
        assert_eq!(self.ledger().entries().await.expect("sound").len(), entries);
        (self.calls.count(Operation::Get), self.calls.count(Operation::List))
    }

    async fn append(&self, what: &str) {
        self.ledger().append(&Runtime::silent(), &key(1), Vec::new(), body(what)).await.expect("appended");
    }

    async fn problems(&self) -> Vec<String> {
        self.ledger().read().await.expect("read").problems.into_iter().map(|p| p.what).collect()
    }

    async fn delete(&self, number: u64) {
        self.store.delete_all(vec![layout::ledger_entry("production", number)]).await.expect("deleted");
    }

    async fn replace(&self, number: u64, bytes: Bytes) {
        self.store.replace(&layout::ledger_entry("production", number), bytes).await.expect("replaced");
    }
}

#[tokio::test]
async fn what_was_seen_is_not_fetched_again() {
    let place = Place::with(40).await;
    assert_eq!(place.cost(40).await, (41, 1), "the checkpoint and every entry");
    assert_eq!(place.cost(40).await, (1, 1), "the checkpoint");
    place.append("more").await;
    assert_eq!(place.cost(41).await, (2, 1), "the checkpoint and what is new");
    std::fs::remove_file(place.cache().path()).expect("removed");
    assert_eq!(place.cost(41).await, (42, 1), "it may be removed at any time");
    // Without a checkpoint that speaks for the end, the end itself is asked.
    place.store.delete_all(vec![layout::checkpoint("production")]).await.expect("deleted");
    assert_eq!(place.cost(41).await, (2, 1));
}

#[tokio::test]
async fn a_cache_that_was_tampered_with_is_of_no_use() {
    let place = Place::with(3).await;
    place.cost(3).await;
    let sound = std::fs::read(place.cache().path()).expect("file");
    // A byte in the middle; an entry that a stranger signed; entries of another order; the last one cut off.
    let mut flipped = sound.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let stranger = Place::with(0).await;
    let forger = ledger(&stranger.store, &[1, 2]);
    for what in ["0", "1", "2"] {
        forger.append(&Runtime::silent(), &key(2), Vec::new(), body(what)).await.expect("appended");
    }
    forger.with_cache(Some(stranger.cache())).entries().await.expect("sound to itself");
    let forged = std::fs::read(stranger.cache().path()).expect("file");
    for bad in [flipped, forged, sound[..sound.len() - 3].to_vec(), b"nonsense".to_vec(), Vec::new()] {
        std::fs::write(place.cache().path(), &bad).expect("written");
        assert_eq!(place.ledger().entries().await.expect("sound").len(), 3);
        assert_eq!(std::fs::read(place.cache().path()).expect("file"), sound, "it is made anew");
    }
}

#[tokio::test]
async fn a_store_that_lost_or_changed_what_was_seen_is_found_out() {
    let place = Place::with(5).await;
    place.cost(5).await;
    let kept = place.store.get(&layout::ledger_entry("production", 5)).await.expect("there");
    let checkpoint = place.store.get(&layout::checkpoint("production")).await.expect("there");
    // Set back by somebody who can sign: fewer entries, and a checkpoint that fits them.
    place.delete(5).await;
    place.delete(4).await;
    place.store.delete_all(vec![layout::checkpoint("production")]).await.expect("deleted");
    ledger(&place.store, &[1])
        .append(&Runtime::silent(), &key(1), Vec::new(), body("another past"))
        .await
        .expect("without the cache, nobody can tell");
    let problems = place.problems().await;
    assert!(problems.iter().any(|p| p.contains("this host has seen it") && p.starts_with("missing")), "{problems:?}");
    let refused = place.ledger().append(&Runtime::silent(), &key(1), Vec::new(), body("x")).await;
    assert_eq!(refused.expect_err("refused").kind(), ErrorKind::Integrity);
    // Once more of the other past is there, the numbers are, but not what they held.
    ledger(&place.store, &[1]).append(&Runtime::silent(), &key(1), Vec::new(), body("and on")).await.expect("appended");
    let problems = place.problems().await;
    assert!(problems.iter().any(|p| p.starts_with("not what it was")), "{problems:?}");
    // It stays found out, until somebody says that it was meant.
    assert!(!place.problems().await.is_empty());
    std::fs::remove_file(place.cache().path()).expect("removed");
    assert_eq!(place.problems().await, Vec::<String>::new());
    drop((kept, checkpoint));
}

#[tokio::test]
async fn damage_in_the_middle_is_the_verifier_s_to_find_and_it_reads_the_store_alone() {
    let place = Place::with(5).await;
    place.cost(5).await;
    place.replace(2, Bytes::from_static(b"{}")).await;
    assert_eq!(place.problems().await, Vec::<String>::new(), "what was seen is sound, and is what is used");
    let report = verify_ledger(&place.store, "production", "0123abcd", &trust(&[1])).await.expect("read");
    assert!(!report.ok, "the store is damaged");
    let plain = ledger(&place.store, &[1]).with_cache(None).read().await.expect("read");
    assert!(!plain.problems.is_empty());
    place.delete(3).await;
    let report = verify_ledger(&place.store, "production", "0123abcd", &trust(&[1])).await.expect("read");
    assert!(report.problems.iter().any(|p| p.what.contains("missing")), "{:?}", report.problems);
}
