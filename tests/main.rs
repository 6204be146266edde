//! The integration tests, one binary: a module for each capability, helpers in `common`.

mod common;
mod demo;
mod harness_smoke;
mod wal;
