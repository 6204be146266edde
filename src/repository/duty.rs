//! Duties of an environment that one instance of the service does at a time, and how an instance gets one: the lease
//! in the store and the fence in the ledger, put together so that neither can be forgotten.
//!
//! [`take`] returns a duty only when every older holder is either known to have ended ([`Before::Released`]) or fenced
//! off by an entry in the ledger. So what happened under an older generation is in the ledger before that entry, or
//! never will be: whoever reads the ledger after `take` knows what was done.

use crate::error::Result;
use crate::evidence::entry::Body;
use crate::evidence::fence::{Fence, LeaseTaken};
use crate::repository::Repository;
use crate::runtime::Runtime;
use crate::storage::lease::{Attempt, Before, Contender, Holding, Lease, Terms};

/// What instances share out among themselves, for each environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Duty {
    /// Receiving WAL.
    Wal,
    /// Watching filestores.
    Filestore,
    /// Scheduled jobs but drills.
    Jobs,
    /// Drills, which may run on other hosts than the rest.
    Drills,
}

impl Duty {
    /// All of them.
    pub const ALL: [Duty; 4] = [Duty::Wal, Duty::Filestore, Duty::Jobs, Duty::Drills];

    /// Its name in the repository.
    pub fn name(self) -> &'static str {
        match self {
            Duty::Wal => "wal",
            Duty::Filestore => "filestore",
            Duty::Jobs => "jobs",
            Duty::Drills => "drills",
        }
    }
}

/// What became of an attempt to take a duty.
#[derive(Debug)]
pub enum Taking {
    /// It is ours, and everybody before is out.
    Taken(Box<Lease>),
    /// Somebody else has it.
    Held(Holding),
}

/// A contender for `duty` of `environment`; `instance` is the name of this instance, for people.
///
/// # Errors
/// Internal, where the operating system gives no random numbers.
pub fn contender(
    repository: &Repository,
    runtime: &Runtime,
    environment: &str,
    duty: Duty,
    instance: &str,
    terms: Terms,
) -> Result<Contender> {
    Contender::new(&repository.store, runtime, environment, duty.name(), instance, terms)
}

/// Tries once to take the duty. `above` is the highest generation that the ledger knows
/// ([`crate::evidence::fence::highest_generation`]); it counts where the objects in the store are gone.
///
/// # Errors
/// Repository, where the store fails; denied, where the ledger knows a higher generation than `above`; config, where this
/// host may not sign. Then the duty is not ours, although the lease may stand in the store; the next attempt finds it.
pub async fn take(contender: &mut Contender, repository: &Repository, runtime: &Runtime, above: u64) -> Result<Taking> {
    let signer = repository.signer()?;
    let (lease, before) = match contender.take(above).await? {
        Attempt::Held(holding) => return Ok(Taking::Held(holding)),
        Attempt::Taken(lease, before) => (lease, before),
    };
    let previous = match before {
        Before::Released(_) => return Ok(Taking::Taken(lease)),
        Before::Nothing => None,
        Before::Own(holding) | Before::Expired(holding) => Some(holding),
    };
    let fence = fence(&lease);
    let taken = LeaseTaken {
        duty: fence.duty.clone(),
        generation: fence.generation,
        owner: contender.owner().to_owned(),
        previous_owner: previous.as_ref().map(|h| h.owner.clone()),
        previous_generation: previous.as_ref().map(|h| h.generation),
        expired_at: previous.as_ref().map(|h| h.expires_at),
    };
    let ledger = super::catalogue::ledger(repository, &fence.environment).await?.with_fence(Some(fence));
    ledger.append(runtime, signer, Vec::new(), Body::Lease(taken)).await?;
    Ok(Taking::Taken(lease))
}

/// The fence of what is done under `lease`.
pub fn fence(lease: &Lease) -> Fence {
    Fence { environment: lease.environment().to_owned(), duty: lease.duty().to_owned(), generation: lease.generation() }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use chrono::{DateTime, Utc};

    use super::*;
    use crate::error::ErrorKind;
    use crate::evidence::testing::body;
    use crate::repository::catalogue::ledger;
    use crate::repository::testing::repository_and_writer;
    use crate::runtime::Clock;

    #[derive(Clone, Default)]
    struct Hand(Arc<Mutex<Duration>>);

    impl Clock for Hand {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH + self.ticks()
        }
        fn ticks(&self) -> Duration {
            *self.0.lock().expect("not poisoned")
        }
    }

    fn lease(taking: Taking) -> Lease {
        match taking {
            Taking::Taken(lease) => *lease,
            Taking::Held(holding) => panic!("held by {holding:?}"),
        }
    }

    #[tokio::test]
    async fn whoever_takes_over_fences_off_whoever_had_it() {
        let (repository, _) = repository_and_writer().await;
        let hand = Hand::default();
        let runtime = Runtime::silent().with_clock(hand.clone());
        let contender =
            |instance| contender(&repository, &runtime, "production", Duty::Jobs, instance, Terms::default());
        let (mut a, mut b) = (contender("a").expect("made"), contender("b").expect("made"));
        let first = lease(take(&mut a, &repository, &runtime, 0).await.expect("taken"));
        let stalled = ledger(&repository, "production").await.expect("ledger").with_fence(Some(fence(&first)));
        let signer = repository.signer().expect("signs");
        stalled.append(&runtime, signer, Vec::new(), body("in time")).await.expect("appended");
        assert!(matches!(take(&mut b, &repository, &runtime, 0).await.expect("told"), Taking::Held(_)));
        *hand.0.lock().expect("not poisoned") += Duration::from_secs(76);
        let second = lease(take(&mut b, &repository, &runtime, 0).await.expect("taken"));
        let late = stalled.append(&runtime, signer, Vec::new(), body("late")).await.expect_err("fenced off");
        assert_eq!(late.kind(), ErrorKind::Denied);
        // In order: no entry, because nobody is left who could do anything.
        second.release().await.expect("released");
        let third = lease(take(&mut a, &repository, &runtime, 0).await.expect("taken"));
        assert_eq!(third.generation(), 3);
        let entries = ledger(&repository, "production").await.expect("ledger").entries().await.expect("sound");
        let kinds: Vec<&str> = entries.iter().map(|e| e.statement.predicate.body.kind()).collect();
        assert_eq!(kinds, ["lease", "skipped", "lease"]);
        assert_eq!(crate::evidence::fence::highest_generation(&entries, "jobs"), 2);
    }

    #[tokio::test]
    async fn where_the_objects_are_gone_the_ledger_knows_the_generation() {
        let (repository, _) = repository_and_writer().await;
        let hand = Hand::default();
        let runtime = Runtime::silent().with_clock(hand.clone());
        let make = |name: &str| contender(&repository, &runtime, "e", Duty::Wal, name, Terms::default());
        let first = lease(take(&mut make("a").expect("made"), &repository, &runtime, 4).await.expect("taken"));
        assert_eq!(first.generation(), 5);
        let prefix = crate::storage::layout::leases("e", "wal");
        let objects = repository.store.list(&prefix).await.expect("listed").into_iter().map(|o| o.key).collect();
        repository.store.delete_all(objects).await.expect("deleted");
        let mut b = make("b").expect("made");
        let refused = take(&mut b, &repository, &runtime, 0).await.expect_err("a generation of the past");
        assert_eq!(refused.kind(), ErrorKind::Denied);
        let entries = ledger(&repository, "e").await.expect("ledger").entries().await.expect("sound");
        let above = crate::evidence::fence::highest_generation(&entries, "wal");
        assert_eq!(lease(take(&mut b, &repository, &runtime, above).await.expect("taken")).generation(), 6);
    }
}
