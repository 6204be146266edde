//! Random draws that cannot be chosen afterwards.
//!
//! Before a random drill an entry commits to the hash of a secret seed and to the *sampling frame*:
//! every second that could be restored when it was written. The drawn second follows from the seed,
//! the hash of that entry and the frame alone; the drill's record reveals the seed, so anybody can
//! draw again. A commitment that nothing reveals is a drill that was abandoned, and shows.
//!
//! ```text
//! seed (32 random bytes) ─▶ SHA-256 ─┐
//! windows of the repository ─▶ frame ─┴─▶ entry n: drill_draw ─▶ its SHA-256 ─┐
//! seed ───────────────────────────────────────────────────────────────────────┴─▶ index ─▶ second
//! ```
//!
//! What this cannot do: a host whose program was changed could try seeds before it commits to one.
//! It then has to do so for every drill, with a program whose hash stands in every record.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{self, Result};
use crate::units::{Lsn, Timeline};

/// The one way of drawing that there is so far; named in each commitment.
pub const METHOD: &str = "sha256-counter-1";
/// What each block of the stream of random numbers begins with.
const DOMAIN: &[u8] = b"lifeboat draw 1\n";

/// A commitment to a random draw, written before it is drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillDraw {
    /// How it is drawn: [`METHOD`].
    pub method: String,
    /// SHA-256 of the seed, in hexadecimal.
    pub seed_sha256: String,
    /// What is drawn from.
    pub frame: Frame,
}

/// What a second is drawn from: everything that could be restored when the draw was committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Stretches of whole seconds, in the order in which they are counted.
    pub intervals: Vec<Interval>,
    /// The timelines that recovery ends on.
    pub timelines: Vec<Timeline>,
    /// The databases of the cluster, as the newest base backup knew them; a drill restores them all.
    pub databases: Vec<String>,
    /// Ledger entries that the frame was made from.
    pub ledger_entries: u64,
    /// Where the archived WAL of the newest stretch ended.
    pub wal_end: Option<Lsn>,
}

/// Whole seconds that can be restored, first and last included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The first second.
    pub from: DateTime<Utc>,
    /// The last second.
    pub to: DateTime<Utc>,
    /// The timeline that recovery follows.
    pub timeline: Timeline,
}

impl Interval {
    /// The whole seconds in a stretch of time; `None` where there is none.
    pub fn within(from: DateTime<Utc>, to: DateTime<Utc>, timeline: Timeline) -> Option<Self> {
        let first = match from.trunc_subsecs(0) {
            whole if whole < from => whole + TimeDelta::seconds(1),
            whole => whole,
        };
        let last = to.trunc_subsecs(0);
        (first <= last).then_some(Self { from: first, to: last, timeline })
    }

    /// How many seconds it has.
    pub fn seconds(&self) -> u64 {
        (self.to - self.from).num_seconds().max(-1).saturating_add(1).unsigned_abs()
    }
}

impl Frame {
    /// How many seconds can be drawn.
    pub fn seconds(&self) -> u64 {
        self.intervals.iter().map(Interval::seconds).fold(0, u64::saturating_add)
    }

    /// The second with this number, counted from 0 through the intervals in their order.
    pub fn second(&self, index: u64) -> Option<(DateTime<Utc>, Timeline)> {
        let mut left = index;
        for interval in &self.intervals {
            match left.checked_sub(interval.seconds()) {
                None => {
                    return Some((interval.from + TimeDelta::seconds(i64::try_from(left).ok()?), interval.timeline));
                }
                Some(rest) => left = rest,
            }
        }
        None
    }
}

/// The secret of a draw.
#[derive(Clone)]
pub struct Seed([u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(…)")
    }
}

impl Seed {
    /// From the operating system's random numbers.
    pub fn random() -> Result<Self> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed)
            .map_err(|_| error::internal("the operating system gives no random numbers"))?;
        Ok(Self(seed))
    }

    /// A given seed, as one that was revealed.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut seed = [0; 32];
        hex::decode_to_slice(text, &mut seed).ok()?;
        Some(Self(seed))
    }

    /// What is committed.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(self.0))
    }

    /// A number below `bound` for the entry with this hash: each of them is as likely as any other.
    pub fn number(&self, entry: &[u8; 32], bound: u64) -> Option<u64> {
        // Numbers above the last whole multiple would make the small ones likelier: they are left out.
        let left_out = (u64::MAX.checked_rem(bound)? + 1) % bound;
        (0_u64..).find_map(|counter| {
            let mut block = Sha256::new();
            block.update(DOMAIN);
            block.update(self.0);
            block.update(entry);
            block.update(counter.to_be_bytes());
            let block: [u8; 32] = block.finalize().into();
            let number = u64::from_be_bytes(block[..8].try_into().expect("eight of 32 bytes"));
            (number <= u64::MAX - left_out).then_some(number % bound)
        })
    }
}

/// A draw with its seed: what the drill's record says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revealed {
    /// Number of the entry that committed it.
    pub entry: u64,
    /// SHA-256 of that entry's envelope.
    pub entry_sha256: String,
    /// The seed, in hexadecimal.
    pub seed: String,
    /// How many seconds could have been drawn.
    pub seconds: u64,
    /// Which of them was drawn, from 0.
    pub index: u64,
    /// That second.
    pub second: DateTime<Utc>,
    /// The timeline that it is on.
    pub timeline: Timeline,
}

impl Revealed {
    /// Draws from the frame that the entry with this number and hash committed.
    pub fn draw(seed: &Seed, frame: &Frame, entry: u64, entry_sha256: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(entry_sha256, &mut hash).ok()?;
        let seconds = frame.seconds();
        let index = seed.number(&hash, seconds)?;
        let (second, timeline) = frame.second(index)?;
        let (entry_sha256, seed) = (entry_sha256.to_owned(), hex::encode(seed.0));
        Some(Self { entry, entry_sha256, seed, seconds, index, second, timeline })
    }
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
