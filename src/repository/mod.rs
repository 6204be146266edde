//! The repository: its descriptor and keys, packs, manifests, indexes, the WAL archive, the catalogue
//! and verification. What is written here is immutable; what no ledger entry names does not exist.

pub mod base_manifest;
pub mod catalogue;
pub mod coverage;
pub mod descriptor;
pub mod fetch;
pub mod frontier;
pub mod meta;
pub mod open;
pub mod packs;
pub mod state_dir;
pub mod verify;
pub mod wal_archive;
pub mod window;

#[cfg(test)]
pub(crate) mod testing;

pub use open::{Initialised, Repository, init};
pub use packs::{PackInfo, PackTable, PackTask, StreamWriter};
pub use state_dir::StateDir;
