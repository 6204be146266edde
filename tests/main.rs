//! The integration tests, one binary: a module for each capability, helpers in `common`.

mod common;
mod format;
mod harness_smoke;
mod wal;
