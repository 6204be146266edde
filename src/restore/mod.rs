//! Restore: the plan (pure), then the run (resumable steps).

pub mod files;
pub mod plan;
pub mod resolve;
pub mod target;
pub mod wal_server;

pub use target::Target;
