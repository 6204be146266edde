//! Restore: the plan (pure), then the run (resumable steps).

pub mod files;
pub mod resolve;
pub mod target;

pub use target::Target;
