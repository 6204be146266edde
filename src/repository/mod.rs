//! The repository: its descriptor and keys, packs, manifests, indexes, the WAL archive, the catalogue
//! and verification. What is written here is immutable; what no ledger entry names does not exist.

pub mod base_manifest;
pub mod catalogue;
pub mod coverage;
pub mod descriptor;
pub mod duty;
pub mod fetch;
pub mod frontier;
pub mod meta;
pub mod open;
mod pack_put;
pub mod pack_sink;
pub mod pack_stream;
pub mod packs;
pub mod page_sums;
pub mod page_writer;
pub mod retention;
mod spare;
pub mod splice;
pub mod state_dir;
pub mod verify;
pub mod wal_archive;
mod wal_listing;
pub mod window;

#[cfg(test)]
pub(crate) mod testing;

pub use open::{Initialised, Repository, init};
pub use pack_put::{PackWatcher, Written};
pub use pack_stream::{PackTask, StreamWriter};
pub use packs::{PackInfo, PackTable};
pub use state_dir::StateDir;
