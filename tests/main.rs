//! The integration tests, one binary: a module for each capability, helpers in `common`.

mod capture;
mod common;
mod format;
mod demo;
mod harness_smoke;
mod inspect;
mod versions;
mod wal;
