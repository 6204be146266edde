//! Tests only: hours of many contenders in simulated time, on a store that is slow, fails, loses answers, delivers
//! requests long after they were sent, and lists in the most unhelpful way that a directory may be read in.
//!
//! Time passes only when nobody has anything to do, so an hour takes milliseconds and the same seed gives the same hour.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::channel::oneshot;
use futures::executor::LocalPool;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use futures::task::LocalSpawnExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::lease::{Attempt, Contender, Renewal, Terms};
use super::store::{RetryPolicy, Store};
use crate::runtime::{Clock, Runtime};

const SECOND: Duration = Duration::from_secs(1);

/// A generator of numbers that is the same for the same seed.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.roll().is_multiple_of(n)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_millis(self.roll() % (most.as_millis() as u64 + 1))
    }
}

/// Simulated time, and who waits for it.
#[derive(Clone, Default)]
struct World(Arc<Mutex<WorldState>>);

#[derive(Default)]
struct WorldState {
    now: Duration,
    waiting: BinaryHeap<Reverse<(Duration, usize)>>,
    alarms: Vec<Option<oneshot::Sender<()>>>,
}

impl World {
    fn now(&self) -> Duration {
        self.0.lock().expect("not poisoned").now
    }

    async fn sleep(&self, span: Duration) {
        let (alarm, rings) = oneshot::channel();
        {
            let mut state = self.0.lock().expect("not poisoned");
            let (at, number) = (state.now + span, state.alarms.len());
            state.alarms.push(Some(alarm));
            state.waiting.push(Reverse((at, number)));
        }
        let _ = rings.await;
    }

    fn run(&self, pool: &mut LocalPool, until: Duration) {
        loop {
            pool.run_until_stalled();
            let alarm = {
                let mut state = self.0.lock().expect("not poisoned");
                match state.waiting.pop() {
                    Some(Reverse((at, number))) if at <= until => {
                        state.now = at;
                        state.alarms[number].take()
                    }
                    _ => return,
                }
            };
            let _ = alarm.map(|alarm| alarm.send(()));
        }
    }
}

/// The clocks of one host: one counts a little too fast or too slowly, the other one is wrong and is set now and then.
#[derive(Clone)]
struct HostClock {
    world: World,
    /// Millionths.
    rate: u32,
    offset: Arc<Mutex<i64>>,
}

impl Clock for HostClock {
    fn now(&self) -> DateTime<Utc> {
        let at = TimeDelta::from_std(self.ticks()).expect("short");
        DateTime::UNIX_EPOCH + at + TimeDelta::seconds(*self.offset.lock().expect("not poisoned"))
    }
    fn ticks(&self) -> Duration {
        self.world.now() * self.rate / 1_000_000
    }
}

/// The store as one host sees it.
struct Bad {
    inner: Arc<InMemory>,
    world: World,
    dice: Mutex<Dice>,
    /// From then on it works.
    heals: Duration,
}

impl fmt::Debug for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bad")
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bad")
    }
}

impl Bad {
    /// Somewhere on the way: mostly short, sometimes for minutes. Whether the message arrives.
    async fn way(&self) -> Result<()> {
        let (pause, lost) = {
            let mut dice = self.dice.lock().expect("not poisoned");
            let healed = self.world.now() >= self.heals;
            match dice.roll() % 40 {
                0 if !healed => (dice.up_to(400 * SECOND), dice.one_in(2)),
                1 | 2 if !healed => (dice.up_to(20 * SECOND), dice.one_in(2)),
                _ => (dice.up_to(SECOND / 5), false),
            }
        };
        self.world.sleep(pause).await;
        if lost { Err(Error::Generic { store: "bad", source: "lost on the way".into() }) } else { Ok(()) }
    }

    async fn listed(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        self.way().await?;
        let before: Vec<ObjectMeta> = self.inner.list(prefix.as_ref()).try_collect().await?;
        self.way().await?;
        let after: Vec<ObjectMeta> = self.inner.list(prefix.as_ref()).try_collect().await?;
        // What was there all the time is seen; what came or went meanwhile may be.
        let all_the_time = |meta: &ObjectMeta| after.iter().any(|other| other.location == meta.location);
        let came = after.iter().filter(|meta| !before.iter().any(|other| other.location == meta.location));
        let mut dice = self.dice.lock().expect("not poisoned");
        let mut seen: Vec<ObjectMeta> =
            before.iter().filter(|meta| all_the_time(meta) || dice.one_in(2)).cloned().collect();
        seen.extend(came.filter(|_| dice.one_in(2)).cloned());
        Ok(seen)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Bad {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.way().await?;
        let result = self.inner.put_opts(path, payload, options).await;
        self.way().await?;
        result
    }
    async fn put_multipart_opts(&self, path: &Path, o: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, o).await
    }
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.way().await?;
        let result = self.inner.get_opts(path, options).await;
        self.way().await?;
        result
    }
    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // Deletions arrive one by one, each as late as it likes.
        let bad = Bad {
            inner: Arc::clone(&self.inner),
            world: self.world.clone(),
            dice: Mutex::new(Dice(self.dice.lock().expect("not poisoned").roll())),
            heals: self.heals,
        };
        let bad = Arc::new(bad);
        let one = move |path: Result<Path>| {
            let bad = Arc::clone(&bad);
            async move {
                let path = path?;
                bad.way().await?;
                let one = path.clone();
                let mut done = bad.inner.delete_stream(stream::once(async move { Ok(one) }).boxed());
                while done.next().await.is_some() {}
                bad.way().await?;
                Ok(path)
            }
        };
        paths.then(one).boxed()
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let bad = Bad {
            inner: Arc::clone(&self.inner),
            world: self.world.clone(),
            dice: Mutex::new(Dice(self.dice.lock().expect("not poisoned").roll())),
            heals: self.heals,
        };
        let prefix = prefix.cloned();
        stream::once(async move { bad.listed(prefix).await.map(|seen| stream::iter(seen.into_iter().map(Ok))) })
            .try_flatten()
            .boxed()
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A stretch of time in which a process was right to believe that it held the lease.
#[derive(Debug, Clone, PartialEq)]
struct Held {
    who: usize,
    generation: u64,
    from: Duration,
    to: Duration,
}

struct Player {
    who: usize,
    world: World,
    clock: HostClock,
    contender: Contender,
    dice: Dice,
    quiet_after: Duration,
    log: Rc<RefCell<Vec<Held>>>,
}

impl Player {
    /// In world time, how long a span of this host's counting clock is, rounded up.
    fn real(&self, ticks: Duration) -> Duration {
        ticks * 1_000_000 / self.clock.rate
    }

    async fn play(mut self) {
        loop {
            let mut lease = match self.contender.take(0).await {
                Ok(Attempt::Taken(lease, _)) => lease,
                Ok(Attempt::Held(_)) | Err(_) => {
                    let pause = self.dice.up_to(20 * SECOND);
                    self.world.sleep(pause).await;
                    continue;
                }
            };
            loop {
                let (from, generation) = (self.world.now(), lease.generation());
                let to = from + self.real(lease.remaining());
                if to > from {
                    self.log.borrow_mut().push(Held { who: self.who, generation, from, to });
                }
                let quiet = self.world.now() >= self.quiet_after;
                if !quiet && self.dice.one_in(12) {
                    // Cut short: what it knew itself to be is over when it asks to be released.
                    for held in self.log.borrow_mut().iter_mut().filter(|held| held.who == self.who) {
                        held.to = held.to.min(self.world.now());
                    }
                    let _ = lease.release().await;
                    break;
                }
                if !quiet && self.dice.one_in(20) {
                    *self.clock.offset.lock().expect("not poisoned") += self.dice.roll() as i64 % 7200;
                }
                let stall = if !quiet && self.dice.one_in(15) { 300 * SECOND } else { SECOND };
                let pause = lease.renew_in() + self.dice.up_to(stall);
                self.world.sleep(pause).await;
                match lease.renew().await {
                    Ok(Renewal::Lost(_)) => break,
                    // Neither a failure nor a renewal makes it end.
                    Ok(Renewal::Kept) | Err(_) => {}
                }
                if !quiet && !lease.is_valid() && self.dice.one_in(3) {
                    break; // gone away without a word
                }
            }
        }
    }
}

fn simulate(seed: u64) -> Vec<Held> {
    let world = World::default();
    let inner = Arc::new(InMemory::new());
    let log = Rc::new(RefCell::new(Vec::new()));
    let mut dice = Dice(seed);
    let mut pool = LocalPool::new();
    let (quiet_after, end) = (3600 * SECOND, 4800 * SECOND);
    for who in 0..5 {
        let clock = HostClock {
            world: world.clone(),
            rate: 995_000 + (dice.roll() % 10_000) as u32,
            offset: Arc::new(Mutex::new(dice.roll() as i64 % 1_000_000)),
        };
        let bad = Bad {
            inner: Arc::clone(&inner),
            world: world.clone(),
            dice: Mutex::new(Dice(dice.roll())),
            heals: quiet_after,
        };
        let retry = RetryPolicy { give_up_after: Duration::ZERO, ..RetryPolicy::default() };
        let store = Store::new(Arc::new(bad), "bad:", retry, Runtime::silent());
        let runtime = Runtime::silent().with_clock(clock.clone());
        let owner = format!("host-{who}");
        let contender = Contender::new(&store, &runtime, "e", "jobs", &owner, Terms::default()).expect("made");
        let (world, dice, log) = (world.clone(), Dice(dice.roll()), Rc::clone(&log));
        let player = Player { who, world, clock, contender, dice, quiet_after, log };
        pool.spawner().spawn_local(player.play()).expect("spawned");
    }
    world.run(&mut pool, end);
    drop(pool);
    Rc::try_unwrap(log).expect("all players are gone").into_inner()
}

#[test]
fn no_two_contenders_hold_a_lease_at_once_whatever_happens() {
    // `Store` sets time limits with tokio's clock, which stands still here.
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = tokio.enter();
    let (mut takings, mut lasted) = (0, Duration::ZERO);
    for seed in 0..150 {
        let mut held = simulate(seed);
        held.sort_by_key(|h| h.from);
        for (n, one) in held.iter().enumerate() {
            let clash = held[n + 1..].iter().take_while(|later| later.from < one.to).find(|l| l.who != one.who);
            assert_eq!(clash, None, "seed {seed}: at the same time as {one:?}");
        }
        for pair in held.windows(2) {
            assert!(pair[0].generation <= pair[1].generation, "seed {seed}: {pair:?}");
            assert!(
                pair[0].who == pair[1].who || pair[0].generation < pair[1].generation,
                "seed {seed}: one generation, two holders: {pair:?}"
            );
            takings += usize::from(pair[0].generation < pair[1].generation);
        }
        // When all is well again, one has it and keeps it.
        let late: Vec<usize> = held.iter().filter(|h| h.from > 4200 * SECOND).map(|h| h.who).collect();
        assert!(!late.is_empty() && late.iter().all(|who| *who == late[0]), "seed {seed}: {late:?}");
        lasted += held.iter().map(|h| h.to.saturating_sub(h.from).min(20 * SECOND)).sum::<Duration>();
    }
    assert!(takings > 150 * 10, "the simulation is too peaceful: {takings} changes");
    assert!(lasted > 150 * 1000 * SECOND, "hardly anybody ever held it: {lasted:?}");
}
