//! A fence: what keeps a process that lost its lease without knowing from recording anything.
//!
//! Whoever takes over a duty from a holder that may still be alive first appends an entry of kind `lease` with its
//! higher generation. A ledger with a fence ([`crate::evidence::Ledger::with_fence`]) refuses to append behind such an
//! entry. That is atomic: an entry is committed by creating the next number, and who creates it has read all before.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{self, Error, Result};
use crate::evidence::entry::Body;
use crate::evidence::read::LedgerEntry;

/// Somebody took over a duty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTaken {
    /// The duty: `wal`, `filestore`, `jobs` or `drills`.
    pub duty: String,
    /// The generation from now on; entries of lower ones do not follow.
    pub generation: u64,
    /// The instance that has it now.
    pub owner: String,
    /// The instance that had it and did not renew it; null where the store knew none.
    pub previous_owner: Option<String>,
    /// The generation of that one; null where the store knew none.
    pub previous_generation: Option<u64>,
    /// When that one's lease ended, by its own clock; null where the store knew none.
    pub expired_at: Option<DateTime<Utc>>,
}

/// Under which generation of which duty a process acts; written `production/jobs:7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The environment.
    pub environment: String,
    /// The duty.
    pub duty: String,
    /// The generation of the process's lease.
    pub generation: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.environment, self.duty, self.generation)
    }
}

impl FromStr for Fence {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = || {
            let (environment, rest) = text.split_once('/')?;
            let (duty, generation) = rest.split_once(':')?;
            let generation = generation.parse().ok()?;
            let named = !environment.is_empty() && !duty.is_empty();
            named.then(|| Self { environment: environment.to_owned(), duty: duty.to_owned(), generation })
        };
        parts().ok_or_else(|| error::usage(format!("\"{text}\" is not a fence; one looks like production/jobs:7")))
    }
}

impl Fence {
    /// The last takeover among `entries` that this fence gives way to.
    pub(crate) fn overtaken(&self, entries: &[LedgerEntry]) -> Option<Overtaken> {
        entries.iter().rev().find_map(|entry| match &entry.statement.predicate.body {
            Body::Lease(taken) if taken.duty == self.duty && taken.generation > self.generation => {
                Some(Overtaken { sequence: entry.sequence, owner: taken.owner.clone(), generation: taken.generation })
            }
            _ => None,
        })
    }
}

/// A takeover that a fence gives way to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overtaken {
    sequence: u64,
    owner: String,
    generation: u64,
}

impl Overtaken {
    /// Why the process that acts under `fence` may not record anything.
    pub(crate) fn refusal(&self, fence: &Fence) -> Error {
        let Self { sequence, owner, generation } = self;
        error::denied(format!(
            "another instance took over: {owner} does {} of {} now (generation {generation}, entry {sequence} of the \
             ledger), and this process acts under generation {}",
            fence.duty, fence.environment, fence.generation
        ))
        .meaning("what this process did is not recorded, so it does not count; nothing was overwritten")
        .hint("nothing is to be done: the other instance goes on. This one stood still, or did not reach the store")
    }
}

/// The highest generation of `duty` that took over, according to `entries`; 0 where none did.
pub fn highest_generation<'a>(entries: impl IntoIterator<Item = &'a LedgerEntry>, duty: &str) -> u64 {
    let generations = entries.into_iter().filter_map(|entry| match &entry.statement.predicate.body {
        Body::Lease(taken) if taken.duty == duty => Some(taken.generation),
        _ => None,
    });
    generations.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_read_as_it_is_written() {
        let fence: Fence = "peak-2026/jobs:7".parse().expect("valid");
        assert_eq!((fence.environment.as_str(), fence.duty.as_str(), fence.generation), ("peak-2026", "jobs", 7));
        assert_eq!(fence.to_string(), "peak-2026/jobs:7");
        for wrong in ["", "jobs:7", "production/jobs", "production/jobs:", "production/jobs:-1", "/jobs:1", "p/:1"] {
            assert!(wrong.parse::<Fence>().is_err(), "{wrong}");
        }
    }
}
