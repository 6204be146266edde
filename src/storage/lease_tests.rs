//! Tests only: leases in memory, in a folder and on S3 over HTTP, with a clock that tests set.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::join_all;
use object_store::memory::InMemory;
use url::Url;

use super::fault::{Fault, FaultStore, Operation};
use super::lease::{Attempt, Before, Contender, Holding, Lease, Renewal, Terms, holder};
use super::moto::Moto;
use super::store::{RetryPolicy, Store};
use super::{Location, layout, open};
use crate::error::ErrorKind;
use crate::runtime::{Clock, Runtime};

const SECOND: Duration = Duration::from_secs(1);

/// Both clocks of one host.
#[derive(Debug, Clone, Default)]
struct Host(Arc<Mutex<(Duration, i64)>>);

impl Host {
    fn passes(&self, seconds: u32) {
        let mut clocks = self.0.lock().expect("not poisoned");
        clocks.0 += SECOND * seconds;
        clocks.1 += i64::from(seconds);
    }

    fn set_wall(&self, seconds: i64) {
        self.0.lock().expect("not poisoned").1 = seconds;
    }

    fn runtime(&self) -> Runtime {
        Runtime::silent().with_clock(self.clone())
    }
}

impl Clock for Host {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0.lock().expect("not poisoned").1, 0).expect("in range")
    }
    fn ticks(&self) -> Duration {
        self.0.lock().expect("not poisoned").0
    }
}

fn contender(store: &Store, host: &Host, owner: &str) -> Contender {
    Contender::new(store, &host.runtime(), "production", "jobs", owner, Terms::default()).expect("random numbers")
}

async fn taken(contender: &mut Contender) -> (Lease, Before) {
    match contender.take(0).await.expect("the store works") {
        Attempt::Taken(lease, before) => (*lease, before),
        Attempt::Held(other) => panic!("held by {other:?}"),
    }
}

async fn held(contender: &mut Contender) -> Holding {
    match contender.take(0).await.expect("the store works") {
        Attempt::Held(other) => other,
        Attempt::Taken(lease, before) => panic!("took {lease:?} after {before:?}"),
    }
}

fn memory() -> Store {
    Store::new(Arc::new(InMemory::new()), "memory:", RetryPolicy::default(), Runtime::silent())
}

/// What every store must do.
async fn contract(store: &Store) {
    let host = Host::default();
    let (mut a, mut b) = (contender(store, &host, "a"), contender(store, &host, "b"));
    assert_eq!(holder(store, "production", "jobs").await.expect("read"), None);
    let (mut lease, before) = taken(&mut a).await;
    assert_eq!((lease.generation(), before), (1, Before::Nothing));
    assert_eq!(held(&mut b).await.owner, "a");
    assert!(lease.is_valid());
    assert_eq!(lease.renew_in(), 20 * SECOND);

    // Renewed in time: nobody gets it, and old objects go.
    for _ in 0..20 {
        host.passes(20);
        assert_eq!(lease.renew().await.expect("renewed"), Renewal::Kept);
        assert_eq!(held(&mut b).await.generation, 1);
    }
    let objects = store.list(&layout::leases("production", "jobs")).await.expect("listed").len();
    assert!(objects <= 16, "{objects} objects are left");

    // Given up: the other one has it at once.
    lease.release().await.expect("released");
    let (mut lease, before) = taken(&mut b).await;
    assert_eq!(lease.generation(), 2);
    assert!(matches!(before, Before::Released(holding) if holding.owner == "a"));
    assert_eq!(holder(store, "production", "jobs").await.expect("read").expect("somebody").owner, "b");

    // Not renewed: it ends, and somebody gets it who watched for long enough.
    assert_eq!(held(&mut a).await.owner, "b");
    host.passes(61);
    assert!(!lease.is_valid());
    assert_eq!(held(&mut a).await.owner, "b");
    host.passes(15);
    let (mut mine, before) = taken(&mut a).await;
    assert_eq!(mine.generation(), 3);
    assert!(matches!(before, Before::Expired(holding) if holding.owner == "b"));
    assert!(matches!(lease.renew().await.expect("told"), Renewal::Lost(holding) if holding.owner == "a"));
    assert!(!lease.is_valid());
    host.passes(20);
    assert_eq!(mine.renew().await.expect("renewed"), Renewal::Kept);

    // Many at once.
    mine.release().await.expect("released");
    let many = (0..12).map(|n| {
        let mut one = contender(store, &host, &format!("host-{n}"));
        tokio::spawn(async move { one.take(0).await })
    });
    let mut winners = 0;
    for attempt in join_all(many).await {
        if let Attempt::Taken(lease, _) = attempt.expect("no panic").expect("the store works") {
            assert_eq!(lease.generation(), 4);
            winners += 1;
        }
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn leases_in_memory() {
    contract(&memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_in_a_folder() {
    let dir = tempfile::tempdir().expect("temp dir");
    let location = Location::new(Url::from_file_path(dir.path()).expect("absolute"));
    contract(&open(&location, &Runtime::silent()).await.expect("opens")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_on_s3() {
    let Some(moto) = Moto::start("leases_on_s3").await else { return };
    let location = moto.bucket("leases").await;
    contract(&open(&location, &Runtime::silent()).await.expect("opens")).await;
}

#[tokio::test]
async fn wall_clocks_of_other_hosts_do_not_matter() {
    let store = memory();
    let (one, two) = (Host::default(), Host::default());
    two.set_wall(10 * 86_400);
    let (mut a, mut b) = (contender(&store, &one, "a"), contender(&store, &two, "b"));
    let (mut lease, _) = taken(&mut a).await;
    assert_eq!(held(&mut b).await.owner, "a", "ten days ahead, and yet it does not look expired");
    for _ in 0..10 {
        for host in [&one, &two] {
            host.passes(20);
        }
        lease.renew().await.expect("renewed");
        held(&mut b).await;
    }
}

#[tokio::test]
async fn a_holder_trusts_the_worse_of_its_two_clocks() {
    let (store, host) = (memory(), Host::default());
    let (mut lease, _) = taken(&mut contender(&store, &host, "a")).await;
    host.set_wall(61);
    assert!(!lease.is_valid(), "the machine was suspended: the counting clock stood still");
    assert_eq!(lease.renew().await.expect("nobody has it"), Renewal::Kept);
    assert!(lease.is_valid());
    host.passes(59);
    host.set_wall(0);
    assert!(lease.is_valid());
    host.passes(2);
    assert!(!lease.is_valid(), "the wall clock was set back");
}

/// A holder sleeps so long that its successor's objects are deleted: its next number is free again.
#[tokio::test]
async fn a_free_number_below_the_highest_is_not_taken_for_the_next_one() {
    let (store, host) = (memory(), Host::default());
    let (mut a, mut b) = (contender(&store, &host, "a"), contender(&store, &host, "b"));
    let (mut asleep, _) = taken(&mut a).await;
    held(&mut b).await;
    host.passes(76);
    let (mut lease, _) = taken(&mut b).await;
    for _ in 0..20 {
        host.passes(20);
        assert_eq!(lease.renew().await.expect("renewed"), Renewal::Kept);
    }
    assert_eq!(store.find(&layout::lease("production", "jobs", 2)).await.expect("proven"), None, "deleted");
    assert!(matches!(asleep.renew().await.expect("told"), Renewal::Lost(holding) if holding.owner == "b"));
    assert!(!asleep.is_valid());
    // What it left behind confuses nobody.
    assert_eq!(held(&mut a).await.owner, "b");
    host.passes(20);
    assert_eq!(lease.renew().await.expect("renewed"), Renewal::Kept);
}

#[tokio::test]
async fn an_answer_that_is_lost_costs_nothing() {
    let faults = FaultStore::new(InMemory::new());
    let host = Host::default();
    // Nothing is tried twice, so every lost answer reaches the lease.
    let retry = RetryPolicy { give_up_after: Duration::ZERO, ..RetryPolicy::default() };
    let store = Store::new(Arc::new(faults.clone()), "test:", retry, Runtime::silent());
    let mut a = Contender::new(&store, &host.runtime(), "production", "jobs", "a", Terms::default()).expect("made");
    // Taken, but the look that confirms it fails: not ours yet, and found by the next attempt.
    faults.nth(Operation::List, 2, Fault::Fails);
    let failure = a.take(0).await.expect_err("the look failed");
    assert_eq!(failure.kind(), ErrorKind::Repository);
    let (mut lease, before) = taken(&mut a).await;
    assert!(matches!(before, Before::Own(_)), "so whoever was before is fenced off: {before:?}");
    assert_eq!(lease.generation(), 2);
    host.passes(20);
    faults.nth(Operation::Put, 1, Fault::LosesAnswer);
    faults.nth(Operation::Get, 1, Fault::Fails);
    lease.renew().await.expect_err("nobody knows");
    assert!(lease.is_valid(), "for as long as the renewal before lasts");
    assert_eq!(lease.remaining(), 40 * SECOND);
    host.passes(1);
    assert_eq!(lease.renew().await.expect("renewed"), Renewal::Kept);
    assert_eq!(lease.remaining(), 60 * SECOND);
}

#[tokio::test]
async fn generations_grow_even_where_the_objects_were_deleted() {
    let (store, host) = (memory(), Host::default());
    let mut a = contender(&store, &host, "a");
    match a.take(7).await.expect("taken") {
        Attempt::Taken(lease, Before::Nothing) => assert_eq!(lease.generation(), 8),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_lease_is_named() {
    let (store, host) = (memory(), Host::default());
    let key = layout::lease("production", "jobs", 3);
    store.create(&key, "{}".into()).await.expect("written");
    let error = contender(&store, &host, "a").take(0).await.expect_err("no lease");
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert!(error.message().contains(&key), "{error}");
}
