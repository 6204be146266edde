//! Receiving WAL as it is written, through a physical replication slot.
//!
//! It promises: what is reported to PostgreSQL as flushed is durable in the store and reachable there
//! without a hole; every complete segment was checked before it was kept; a diverging cluster is
//! refused and overwrites nothing. It relies on the slot: PostgreSQL keeps what was not reported, so
//! any process here may die at any moment.
//!
//! ```text
//!                     cut                      jobs
//! session ── bytes ────────► intake (thread) ────────► storer ──► wal-live/, wal/
//!    ▲  socket, status        checks, counts, seals      puts one by one, for ever
//!    └──────────────────────────── durable ◄───────────────┘
//! ```
//!
//! `heal` fetches what is missing further back. `run` begins again after outages and timelines, `prepare` finds out and `place` decides where, `tiers` keeps
//! pieces few.

mod heal;
mod intake;
mod options;
mod place;
mod prepare;
mod run;
mod session;
mod storer;
mod tiers;

pub(super) use intake::{diverged, summary};
pub use options::{ReceiveOptions, Received, Slot, Until};
pub(super) use place::left_behind;
pub(super) use prepare::piece_macs;
pub use run::receive;
