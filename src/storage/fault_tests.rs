//! Tests only: every way in which a store can fail ends in a correct result or a clear error.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};

use super::fault::{Fault, FaultStore, Operation};
use super::store::{Created, RetryPolicy, Store};
use super::{Location, probe};
use crate::error::ErrorKind;
use crate::event::Event;
use crate::runtime::Runtime;

const RETRY: RetryPolicy = RetryPolicy {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(4),
    give_up_after: Duration::from_millis(200),
};

fn faulty() -> (Store, FaultStore<InMemory>) {
    let faults = FaultStore::new(InMemory::new());
    (Store::new(Arc::new(faults.clone()), "test:", RETRY, Runtime::silent()), faults)
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_is_new_and_written_once() {
    let (store, faults) = faulty();
    faults.nth(Operation::Put, 1, Fault::LosesAnswer);
    assert_eq!(store.create("k", "mine".into()).await.expect("written"), Created::New);
    assert_eq!(faults.count(Operation::Put), 1);
}

#[tokio::test]
async fn a_create_whose_answer_and_read_back_are_lost_is_still_new() {
    let (store, faults) = faulty();
    faults.nth(Operation::Put, 1, Fault::LosesAnswer);
    faults.nth(Operation::Get, 1, Fault::Fails);
    // The second put meets the first one's object: it is ours, and must not look like another writer's.
    assert_eq!(store.create_or_get("k", "mine".into()).await.expect("written"), None);
    assert_eq!(faults.count(Operation::Put), 2);
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_meets_another_writer() {
    let (store, faults) = faulty();
    faults.inner().put(&Path::from("k"), "theirs".into()).await.expect("put");
    faults.nth(Operation::Put, 1, Fault::Fails);
    assert_eq!(store.create("k", "mine".into()).await.expect_err("theirs").kind(), ErrorKind::Integrity);
    assert_eq!(store.get("k").await.expect("kept"), "theirs");
}

#[tokio::test]
async fn a_conflict_that_nobody_won_is_tried_again() {
    let (store, faults) = faulty();
    faults.nth(Operation::Put, 1, Fault::ConflictNobodyWon);
    faults.nth(Operation::Put, 2, Fault::ConflictNobodyWon);
    assert_eq!(store.create("k", "mine".into()).await.expect("third time"), Created::New);
    assert_eq!(faults.count(Operation::Put), 3);
    assert_eq!(store.get("k").await.expect("there"), "mine");
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_told() {
    let faults = FaultStore::new(InMemory::new());
    let told = Arc::new(Mutex::new(Vec::new()));
    let runtime = Runtime::new({
        let told = Arc::clone(&told);
        move |event| told.lock().expect("unpoisoned").push(event)
    });
    let store = Store::new(Arc::new(faults.clone()), "test:", RETRY, runtime);
    for operation in [Operation::Put, Operation::Get, Operation::Head, Operation::List, Operation::Delete] {
        faults.nth(operation, 1, Fault::Fails);
    }
    faults.nth(Operation::Get, 2, Fault::TruncatesBody);
    faults.nth(Operation::Get, 3, Fault::TruncatesBody);
    // The put fails, and so does reading back; then it succeeds.
    assert_eq!(store.create("a/k", "body".into()).await.expect("put"), Created::New);
    assert_eq!(store.get("a/k").await.expect("read whole"), "body");
    faults.nth(Operation::Get, 1, Fault::TruncatesBody);
    assert_eq!(store.get_range("a/k", 1..3).await.expect("read in part"), "od");
    assert_eq!(store.info("a/k").await.expect("head").map(|info| info.size), Some(4));
    assert_eq!(store.list("a/").await.expect("listed").len(), 1);
    store.delete_all(vec!["a/k".into()]).await.expect("deleted");
    let retries = told.lock().expect("unpoisoned").iter().filter(|e| matches!(e, Event::StoreRetry { .. })).count();
    assert_eq!(retries, 7);
}

#[tokio::test]
async fn a_listing_that_breaks_off_is_never_taken_for_the_whole() {
    let (store, faults) = faulty();
    for key in ["a/1", "a/2", "a/3"] {
        store.create(key, "x".into()).await.expect("new");
    }
    faults.nth(Operation::List, 1, Fault::LosesAnswer);
    assert_eq!(store.list("a/").await.expect("second time").len(), 3);
    faults.always(Operation::List, Fault::LosesAnswer);
    assert_eq!(store.list("a/").await.expect_err("never whole").kind(), ErrorKind::Repository);
}

#[tokio::test]
async fn an_outage_ends_in_a_clear_error_and_passes() {
    let (store, faults) = faulty();
    faults.begin_outage();
    for error in [
        store.create("k", "x".into()).await.expect_err("outage"),
        store.find("k").await.expect_err("outage is no absence"),
        store.info("k").await.expect_err("outage is no absence"),
        store.list("").await.expect_err("outage is no emptiness"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Repository);
        assert!(error.message().contains("in test: (tried for") && error.message().contains("broke"), "{error}");
        assert!(!error.hints().is_empty() && error.what_it_means().is_some());
    }
    assert!(faults.count(Operation::Put) > 3, "it was tried more than once");
    faults.heal();
    assert_eq!(store.create("k", "x".into()).await.expect("healed"), Created::New);
}

#[tokio::test]
async fn an_outage_shorter_than_the_patience_is_survived() {
    let (store, faults) = faulty();
    let store = store.with_retry(RetryPolicy { give_up_after: Duration::from_secs(30), ..RETRY });
    faults.begin_outage();
    let writing = tokio::spawn(async move { store.create("k", "x".into()).await });
    while faults.count(Operation::Put) < 3 {
        tokio::task::yield_now().await;
    }
    faults.heal();
    assert_eq!(writing.await.expect("no panic").expect("written"), Created::New);
}

#[tokio::test]
async fn lasting_failures_are_not_tried_again() {
    for (fault, word) in [(Fault::Denied, "credentials"), (Fault::DiskFull, "full")] {
        let (store, faults) = faulty();
        faults.always(Operation::Put, fault);
        faults.always(Operation::Get, fault);
        let error = store.create("k", "x".into()).await.expect_err("lasting");
        assert_eq!(error.kind(), ErrorKind::Repository);
        assert!(error.what_it_means().is_some_and(|meaning| meaning.contains(word)), "{error}");
        assert_eq!(faults.count(Operation::Put), 1);
        assert_eq!(store.find("k").await.expect_err("no proof").kind(), ErrorKind::Repository);
        assert_eq!(faults.count(Operation::Get), 1);
        faults.heal();
        assert_eq!(store.find("k").await.expect("proven"), None, "nothing is visible");
    }
}

#[tokio::test]
async fn a_store_that_stops_answering_is_noticed() {
    let (store, faults) = faulty();
    let store = store.with_answer_within(Duration::from_millis(20));
    faults.nth(Operation::Put, 1, Fault::Hangs);
    assert_eq!(store.create("k", "x".into()).await.expect("second time"), Created::New);
    faults.nth(Operation::Get, 1, Fault::Hangs);
    assert_eq!(store.get("k").await.expect("second time"), "x");
    faults.always(Operation::Get, Fault::Hangs);
    let error = store.get("k").await.expect_err("never");
    assert!(error.message().contains("gave no answer"), "{error}");
}

#[tokio::test]
async fn calls_are_recorded() {
    let (store, faults) = faulty();
    store.create("k", "body".into()).await.expect("new");
    store.get_range("k", 1..3).await.expect("part");
    let calls = faults.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!((calls[0].operation, calls[0].key.as_str(), calls[0].bytes), (Operation::Put, "k", 4));
    assert_eq!((calls[1].operation, calls[1].range.clone()), (Operation::Get, Some(1..3)));
    faults.forget_calls();
    assert_eq!(faults.count(Operation::Put), 0);
}

/// A store that ignores `If-None-Match`, as several S3-compatible ones do.
#[derive(Debug)]
struct Careless(InMemory);

impl std::fmt::Display for Careless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Careless")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Careless {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.0.put_opts(path, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await
    }
    async fn put_multipart_opts(&self, p: &Path, o: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(p, o).await
    }
    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.0.get_opts(path, options).await
    }
    fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.0.delete_stream(paths)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_store_that_replaces_objects_is_refused() {
    let store = Store::new(Arc::new(Careless(InMemory::new())), "test:", RETRY, Runtime::silent());
    let location = Location::new("file:///not-used");
    let error = probe(&store, &location, &Runtime::silent()).await.expect_err("careless");
    assert_eq!(error.kind(), ErrorKind::Repository);
    assert!(error.message().contains("replaced"), "{error}");
    assert!(error.hints().iter().any(|hint| hint.contains("providers.md")));
    assert!(store.list("probe/").await.expect("listed").is_empty(), "cleaned up after a refusal too");
}

#[tokio::test]
async fn a_store_that_keeps_what_is_deleted_or_cuts_bodies_is_refused() {
    let location = Location::new("file:///not-used");
    let (store, faults) = faulty();
    faults.always(Operation::Get, Fault::TruncatesBody);
    let error = probe(&store, &location, &Runtime::silent()).await.expect_err("short bodies");
    assert!(error.message().contains("announced"), "{error}");
    let (store, faults) = faulty();
    faults.always(Operation::Delete, Fault::Denied);
    let error = probe(&store, &location, &Runtime::silent()).await.expect_err("no deletes");
    assert_eq!(error.kind(), ErrorKind::Repository, "{error}");
    let (store, _) = faulty();
    probe(&store, &location, &Runtime::silent()).await.expect("memory is fit");
    let body: Bytes = store.find("probe/x").await.expect("proven").unwrap_or_default();
    assert!(body.is_empty());
}
