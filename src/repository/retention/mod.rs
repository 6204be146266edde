//! Retention and collection: what is kept, for how long, and how the rest is deleted without ever deleting what is needed.
//!
//! ```text
//! facts ─▶ rules (pure): every backup stays or goes, and why ─▶ wal (pure): which segments ─▶ mark: which objects
//!                                                                                               │
//!    writers ── guard ──▶ ledger ◀── retire … revive … delete … deleted ◀── prune ◀──────────────┘
//! ```
//!
//! **Why nothing that is needed is deleted.** Everything that refers to objects is committed by a ledger entry, and the
//! ledger is one sequence. `delete` is an entry too, written before the first object goes, and only as the very next one
//! after those by which it was marked. So a commit stands either before it, and then the marking saw it; or behind it, and
//! then the writer, which looks at every `delete` since it began ([`guard`]), refuses to commit what the list names. No
//! clock and no lease is part of that; safe ages only keep writers from working in vain. Programs that do not know
//! these entries refuse the ledger, so they commit nothing either. Pieces of a filestore watcher commit themselves: a
//! watcher puts one within the hour or not at all, and nothing so young goes.
//!
//! **Why a killed run does no harm.** Each step is an entry, or a deletion that may be repeated. The next run reads the
//! ledger and goes on: it finishes deletions that have no `deleted` entry, and lists what a lost list left behind.
//!
//! `state` reads the ledger, `list` is the object that an entry names, `hold` is how people hold recovery points.

mod facts;
pub mod guard;
pub mod hold;
mod keeping;
mod list;
mod mark;
pub mod prune;
pub mod report;
pub mod rules;
pub mod state;
mod wal;

pub use prune::{Options, prune};
pub use report::Report;
pub use state::State;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod prune_tests;
#[cfg(test)]
mod testing;
