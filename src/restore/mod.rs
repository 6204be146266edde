//! Restore: the target is resolved to a record in WAL, the plan is made (pure), then carried out in
//! journalled steps.
//!
//! ```text
//! target ─▶ resolve ─▶ plan ─▶ run ─▶ files ─▶ recover (server, wal_server) ─▶ settle
//!                               └─▶ journal, phases
//! ```

pub mod approval;
pub mod attachments;
mod clear;
mod delta;
pub mod files;
#[cfg(test)]
mod files_tests;
pub mod journal;
mod manifest_text;
pub mod masking;
pub mod messenger;
mod occupied;
pub mod phases;
pub mod plan;
pub mod recover;
mod refusals;
pub mod resolve;
pub mod run;
pub mod settle;
mod slices;
pub mod target;
pub mod tenant;
pub mod tools;
pub mod wal_server;
#[cfg(test)]
mod wal_server_tests;
pub(crate) mod walk;

pub use plan::{Plan, Wishes, plan};
pub use resolve::{Resolved, resolve};
pub use run::{Done, continues, delta_refused, run};
pub use target::Target;
pub use tools::Tools;
