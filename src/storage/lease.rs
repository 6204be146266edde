//! A lease: the right of one process to do one duty of an environment, for a short while, kept in the store.
//!
//! It is a sequence of create-only objects, `<environment>/leases/<duty>/<number>`, of which the highest counts.
//! Creating the next number is the compare-and-swap, so every store that can hold a repository can hold leases.
//!
//! It promises that no two processes have a valid lease ([`Lease::is_valid`]) of one duty at one instant, whatever
//! the clocks of their hosts say, however long one of them stands still, and however late a request arrives:
//!
//! * A holder counts from *before* it asked for the object. Somebody else takes over only after having watched one
//!   and the same object for longer than that, plus a margin, by a clock that only counts: no wall clock is ever
//!   compared with another host's.
//! * A renewal that returns while the object before it is still valid cannot have met a takeover. Any other
//!   creation may have landed where an object was deleted meanwhile; so it is followed by a look, and counts only
//!   if nobody is ahead.
//! * A look cannot miss the object that counts: the newest ones stay when older ones are deleted, deletions of one
//!   duty are rarer than a look may take, and a look that took longer is not believed.
//!
//! Validity ends when either clock says so: a counting clock stands still while a machine is suspended, a wall
//! clock can be set back. What a holder began before and ends after is not the business of a lease: the
//! ledger refuses it (`evidence/fence.rs`), and `repository/duty.rs` puts both together.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layout;
use super::store::{RetryPolicy, Store};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::runtime::Runtime;

/// How many of the newest objects stay when older ones are deleted.
const KEPT: u64 = 4;

/// So many times as long as it lasts passes between two deletions, each of which costs a listing and a look.
const TIDY_AFTER: u32 = 4;

/// How long leases last. All instances that share a repository should agree; a holder's own terms count for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long one renewal is valid.
    pub lasts: Duration,
    /// How long a holder waits until it renews.
    pub renew_after: Duration,
    /// How much longer another one waits before it takes over: more than two clocks drift apart meanwhile.
    pub margin: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { lasts: seconds(60), renew_after: seconds(20), margin: seconds(15) }
    }
}

/// What stands in the store: who holds a duty, as `docs/format.md` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Version of this object.
    pub format: u32,
    /// The duty.
    pub duty: String,
    /// Number of this object.
    pub number: u64,
    /// Grows with every change of the holder.
    pub generation: u64,
    /// Name of the instance, for people.
    pub owner: String,
    /// Random; names one run of one process.
    pub process: String,
    /// When it was taken or renewed, by the holder's clock.
    pub renewed_at: DateTime<Utc>,
    /// When it ends unless it is renewed, by the holder's clock. For people: nobody else's clock is held against it.
    pub expires_at: DateTime<Utc>,
    /// How long it lasts, in milliseconds.
    pub lasts_ms: u64,
    /// Whether the holder gave it up; then anybody may take it at once.
    pub released: bool,
}

/// What is the same for every object of one contender.
#[derive(Debug, Clone)]
struct Seat {
    store: Store,
    runtime: Runtime,
    environment: String,
    duty: String,
    owner: String,
    process: String,
    terms: Terms,
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    ticks: Duration,
    wall: DateTime<Utc>,
}

/// The object that counts.
#[derive(Debug)]
struct Top {
    holding: Holding,
    digest: [u8; 32],
    numbers: Vec<u64>,
    /// When it was asked for.
    asked: Duration,
}

/// A process that wants the lease of a duty. It must be asked again and again ([`Contender::take`]): what it has
/// watched is what allows it to take over.
#[derive(Debug)]
pub struct Contender {
    seat: Seat,
    watched: Option<Watched>,
    /// Processes that have ended for certain.
    dead: Vec<String>,
}

#[derive(Debug)]
struct Watched {
    digest: [u8; 32],
    since: Duration,
}

/// What became of an attempt to take a lease.
#[derive(Debug)]
pub enum Attempt {
    /// The lease is ours.
    Taken(Box<Lease>, Before),
    /// Somebody else has it, or was faster.
    Held(Holding),
}

/// What there was before a lease was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// Nothing in the store.
    Nothing,
    /// Its holder gave it up, having ended what it did.
    Released(Holding),
    /// An attempt of this very process whose answer was lost; what was before that is not known any more.
    Own(Holding),
    /// Its holder did not renew it. It may be alive, and not know.
    Expired(Holding),
}

/// A lease that this process took. Dropping it does not give it up; it expires.
#[derive(Debug)]
pub struct Lease {
    seat: Seat,
    generation: u64,
    number: u64,
    renewed: Duration,
    valid_until: Duration,
    expires_at: DateTime<Utc>,
    tidied: Duration,
}

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// It is ours as before.
    Kept,
    /// Somebody else has it; stop at once.
    Lost(Holding),
}

impl Seat {
    fn now(&self) -> Moment {
        Moment { ticks: self.runtime.ticks(), wall: self.runtime.now() }
    }

    fn key(&self, number: u64) -> String {
        layout::lease(&self.environment, &self.duty, number)
    }

    fn holding(&self, number: u64, generation: u64, at: Moment) -> Holding {
        Holding {
            format: 1,
            duty: self.duty.clone(),
            number,
            generation,
            owner: self.owner.clone(),
            process: self.process.clone(),
            renewed_at: at.wall,
            expires_at: at.wall + delta(self.terms.lasts),
            lasts_ms: millis(self.terms.lasts),
            released: false,
        }
    }

    /// Creates an object; `Some`: another one stands there.
    async fn create(&self, holding: &Holding) -> Result<Option<Holding>> {
        let bytes = Bytes::from(serde_json::to_vec(holding).expect("a lease is plain data"));
        let key = self.key(holding.number);
        match self.store.create_or_get(&key, bytes.clone()).await? {
            Some(there) if there != bytes => parse(&key, &there).map(Some),
            _ => Ok(None),
        }
    }

    /// The object that counts; `None` where there never was one.
    async fn look(&self) -> Result<Option<Top>> {
        let began = self.runtime.ticks();
        let prefix = layout::leases(&self.environment, &self.duty);
        let listed = self.store.list(&prefix).await?;
        let took = self.runtime.ticks().saturating_sub(began);
        if took > self.terms.lasts / 4 {
            let what = format!("listing {prefix} took {} s, too long to know who holds the lease", took.as_secs());
            return Err(error::repository(what).meaning("nothing was taken; it is tried again"));
        }
        let number = |key: &str| key.strip_prefix(&prefix)?.parse().ok().filter(|n| self.key(*n) == key);
        let numbers: Vec<u64> = listed.iter().filter_map(|object| number(&object.key)).collect();
        let Some(highest) = numbers.iter().max().copied() else { return Ok(None) };
        let key = self.key(highest);
        let Some(bytes) = self.store.find(&key).await? else {
            return Err(error::repository(format!("{key} was deleted while it was read")));
        };
        let (holding, digest) = (parse(&key, &bytes)?, Sha256::digest(&bytes).into());
        Ok(Some(Top { holding, digest, numbers, asked: began }))
    }
}

impl Contender {
    /// A process that wants to do `duty` of `environment`; `owner` is the instance's name, for people.
    ///
    /// # Errors
    /// Internal, where the operating system gives no random numbers.
    pub fn new(
        store: &Store,
        runtime: &Runtime,
        environment: &str,
        duty: &str,
        owner: &str,
        terms: Terms,
    ) -> Result<Self> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| error::internal("the operating system gives no random numbers"))?;
        // Whoever holds a lease asks again soon; waiting long inside one request would only hide that it ran out.
        let retry = store.retry();
        let patience = RetryPolicy { give_up_after: retry.give_up_after.min(terms.lasts / 4), ..retry };
        let seat = Seat {
            store: store.with_retry(patience),
            runtime: runtime.clone(),
            environment: environment.to_owned(),
            duty: duty.to_owned(),
            owner: owner.to_owned(),
            process: hex::encode(id),
            terms,
        };
        Ok(Self { seat, watched: None, dead: Vec::new() })
    }

    /// Names the process that contends, and processes that have ended for certain: leases under their names are taken
    /// as those of this very process are, without waiting for their end. What they began is fenced off all the same.
    pub fn is_process(&mut self, process: &str, dead: &[String]) {
        self.seat.process = process.to_owned();
        self.dead = dead.to_vec();
    }

    /// The duty that it wants.
    pub fn duty(&self) -> &str {
        &self.seat.duty
    }

    /// The instance that it speaks for.
    pub fn owner(&self) -> &str {
        &self.seat.owner
    }

    /// The environment whose duty it wants.
    pub fn environment(&self) -> &str {
        &self.seat.environment
    }

    /// Tries once, without waiting. A generation is given that is higher than `above` and than any before it.
    ///
    /// # Errors
    /// Repository, where the store fails; integrity, where an object is not a lease.
    pub async fn take(&mut self, above: u64) -> Result<Attempt> {
        let (number, generation, before) = match self.seat.look().await? {
            None => (1, above + 1, Before::Nothing),
            Some(top) => {
                let watched = self.watch(&top);
                let holding = top.holding;
                let patience = Duration::from_millis(holding.lasts_ms) + self.seat.terms.margin;
                let (number, generation) = (holding.number + 1, holding.generation.max(above) + 1);
                let before = match () {
                    () if holding.released => Before::Released(holding),
                    () if holding.process == self.seat.process => Before::Own(holding),
                    () if watched > patience || self.dead.contains(&holding.process) => Before::Expired(holding),
                    () => return Ok(Attempt::Held(holding)),
                };
                (number, generation, before)
            }
        };
        let began = self.seat.now();
        if let Some(faster) = self.seat.create(&self.seat.holding(number, generation, began)).await? {
            return Ok(Attempt::Held(faster));
        }
        match self.seat.look().await? {
            Some(top) if top.holding.number == number => {
                let (seat, terms) = (self.seat.clone(), self.seat.terms);
                let (valid_until, expires_at) = (began.ticks + terms.lasts, began.wall + delta(terms.lasts));
                let (renewed, tidied) = (began.ticks, began.ticks);
                let lease = Lease { seat, generation, number, renewed, valid_until, expires_at, tidied };
                Ok(Attempt::Taken(Box::new(lease), before))
            }
            Some(top) => Ok(Attempt::Held(top.holding)),
            None => Err(error::repository(format!("{} was written and is not listed", self.seat.key(number)))
                .hint("run `lifeboat doctor`, which probes the store")),
        }
    }

    /// How long this very object has counted, at least.
    fn watch(&mut self, top: &Top) -> Duration {
        match &self.watched {
            Some(watched) if watched.digest == top.digest => top.asked.saturating_sub(watched.since),
            _ => {
                self.watched = Some(Watched { digest: top.digest, since: self.seat.runtime.ticks() });
                Duration::ZERO
            }
        }
    }
}

impl Lease {
    /// Its generation: higher than that of every holder before.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The duty.
    pub fn duty(&self) -> &str {
        &self.seat.duty
    }

    /// The environment.
    pub fn environment(&self) -> &str {
        &self.seat.environment
    }

    /// Whether it is ours now. Where not, nothing may be begun; it can still be renewed unless somebody has it.
    pub fn is_valid(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// For how long it is ours unless it is renewed.
    pub fn remaining(&self) -> Duration {
        let now = self.seat.now();
        let wall = (self.expires_at - now.wall).to_std().unwrap_or_default();
        self.valid_until.saturating_sub(now.ticks).min(wall)
    }

    /// How long to wait before it is renewed.
    pub fn renew_in(&self) -> Duration {
        let due = self.renewed + self.seat.terms.renew_after;
        due.saturating_sub(self.seat.runtime.ticks()).min(self.remaining())
    }

    /// Makes it last longer. After an error it is ours for as long as [`Lease::is_valid`] says, and may be renewed
    /// again. Renewing much too often does nothing.
    ///
    /// # Errors
    /// Repository, where the store fails; integrity, where an object is not a lease.
    pub async fn renew(&mut self) -> Result<Renewal> {
        let began = self.seat.now();
        if began.ticks < self.renewed + self.seat.terms.lasts / 8 && self.is_valid() {
            return Ok(Renewal::Kept);
        }
        let mut number = self.number + 1;
        while let Some(there) = self.seat.create(&self.seat.holding(number, self.generation, began)).await? {
            if there.process != self.seat.process || there.generation != self.generation {
                return Ok(Renewal::Lost(there));
            }
            // A renewal of ours whose answer was lost.
            self.number = number;
            number += 1;
        }
        let undisturbed = self.is_valid();
        self.number = number;
        if undisturbed {
            self.extend(began);
        }
        let untidy = began.ticks >= self.tidied + self.seat.terms.lasts * TIDY_AFTER;
        if untidy || !undisturbed {
            match self.seat.look().await? {
                Some(top) if top.holding.number == number => {
                    self.extend(began);
                    if untidy {
                        self.tidy(&top.numbers).await?;
                    }
                }
                Some(top) => return Ok(Renewal::Lost(top.holding)),
                None => return Err(error::repository(format!("{} is not listed", self.seat.key(number)))),
            }
        }
        Ok(Renewal::Kept)
    }

    /// Gives it up, after everything that was done under it has ended, and whoever may still act under an older
    /// generation is fenced off: the next holder begins at once and asks no further.
    ///
    /// # Errors
    /// Repository, where the store fails; then it expires.
    pub async fn release(self) -> Result<()> {
        let at = self.seat.now();
        let holding = self.seat.holding(self.number + 1, self.generation, at);
        self.seat.create(&Holding { expires_at: at.wall, released: true, ..holding }).await.map(|_| ())
    }

    fn extend(&mut self, began: Moment) {
        self.renewed = began.ticks;
        self.valid_until = began.ticks + self.seat.terms.lasts;
        self.expires_at = began.wall + delta(self.seat.terms.lasts);
    }

    async fn tidy(&mut self, numbers: &[u64]) -> Result<()> {
        let old: Vec<String> =
            numbers.iter().filter(|n| **n + KEPT <= self.number).map(|n| self.seat.key(*n)).collect();
        if !old.is_empty() && self.is_valid() {
            self.seat.store.delete_all(old).await?;
        }
        self.tidied = self.seat.runtime.ticks();
        Ok(())
    }
}

/// Who holds `duty` of `environment`, for showing; nothing follows from it.
///
/// # Errors
/// Repository, where the store fails; integrity, where the object is not a lease.
pub async fn holder(store: &Store, environment: &str, duty: &str) -> Result<Option<Holding>> {
    let listed = store.list(&layout::leases(environment, duty)).await?;
    let Some(last) = listed.last() else { return Ok(None) };
    match store.find(&last.key).await? {
        Some(bytes) => parse(&last.key, &bytes).map(Some),
        None => Ok(None),
    }
}

fn parse(key: &str, bytes: &[u8]) -> Result<Holding> {
    let holding: Holding = serde_json::from_slice(bytes).or_err(ErrorKind::Integrity, || {
        format!("{key} is not a lease; remove it if no other service runs on this repository")
    })?;
    match layout::lease_number(key) {
        Some(number) if number == holding.number => Ok(holding),
        _ => Err(error::integrity(format!("{key} says that it is number {}", holding.number))),
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
