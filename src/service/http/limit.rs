//! How much anybody may ask: each client for itself, and all together. A client's own limit comes first, so that one
//! who asks too much uses up only his own share. What was refused costs next to nothing.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::client::Client;
use super::problem::Problem;

/// Clients that are counted at once; beyond, those that were quiet are forgotten.
const CLIENTS: usize = 20_000;
/// Attempts to sign in, or with a wrong token, that one client has in a minute.
const ATTEMPTS: u32 = 10;

/// The limits of the server.
#[derive(Debug)]
pub(crate) struct Limits {
    each: DefaultKeyedRateLimiter<IpAddr>,
    all: DefaultDirectRateLimiter,
    attempts: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

impl Limits {
    /// `each` requests in a second for one client (three times as many at once), `all` for all together.
    pub(crate) fn new(each: u32, all: u32) -> Self {
        let rate = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            each: RateLimiter::keyed(Quota::per_second(rate(each)).allow_burst(rate(each.saturating_mul(3)))),
            all: RateLimiter::direct(Quota::per_second(rate(all)).allow_burst(rate(all.saturating_mul(2)))),
            attempts: RateLimiter::keyed(Quota::per_minute(rate(ATTEMPTS))),
            clock: DefaultClock::default(),
        }
    }

    /// Counts one request.
    pub(crate) fn admit(&self, client: &Client) -> Result<(), Problem> {
        forget(&self.each);
        if let Err(until) = self.each.check_key(&client.bucket()) {
            let wait = until.wait_time_from(self.clock.now());
            return Err(Problem::too_many("this client asks too often", seconds(wait)));
        }
        self.all.check().map_err(|until| {
            Problem::too_many("the service is asked too often", seconds(until.wait_time_from(self.clock.now())))
        })
    }

    /// Counts one attempt to prove who one is, before it is looked at.
    pub(crate) fn attempt(&self, client: &Client) -> Result<(), Problem> {
        forget(&self.attempts);
        self.attempts.check_key(&client.bucket()).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            Problem::too_many("too many attempts to sign in", seconds(wait))
        })
    }
}

/// Keeps the table of clients bounded: one whose share is whole again need not be known.
fn forget(limiter: &DefaultKeyedRateLimiter<IpAddr>) {
    if limiter.len() > CLIENTS {
        limiter.retain_recent();
        limiter.shrink_to_fit();
    }
}

fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs()).unwrap_or(u32::MAX - 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> Client {
        Client { address: IpAddr::from(n.to_be_bytes()), secure: false }
    }

    #[test]
    fn one_who_asks_too_much_leaves_the_others_their_share() {
        let limits = Limits::new(10, 100);
        let admitted = (0..1000).filter(|_| limits.admit(&client(1)).is_ok()).count();
        assert!((30..60).contains(&admitted), "{admitted}");
        let refused = limits.admit(&client(1)).expect_err("over its share");
        assert_eq!(refused.status, 429);
        assert!(refused.retry_after.is_some());
        assert!((0..20).all(|_| limits.admit(&client(2)).is_ok()), "another client is served");
        assert!((3..500).any(|n| limits.admit(&client(n)).is_err()), "all together have a limit too");
    }

    #[test]
    fn attempts_to_sign_in_are_few() {
        let limits = Limits::new(1000, 1000);
        let tried = (0..100).filter(|_| limits.attempt(&client(1)).is_ok()).count();
        assert!((10..=11).contains(&tried), "{tried}");
    }

    #[test]
    fn the_table_of_clients_stays_bounded() {
        let limits = Limits::new(1_000_000, 1_000_000);
        for n in 0..100_000 {
            let _ = limits.admit(&client(n));
        }
        assert!(limits.each.len() <= 2 * CLIENTS, "{}", limits.each.len());
    }
}
