//! Lifeboat: backup, recovery and proof of recovery for Odoo estates on PostgreSQL.
//!
//! Arrows point down only: `cli → service → schedule → {drill, restore, sources} → repository → {vault, storage}`, with
//! `evidence` beside `repository`. See `docs/architecture.md`.

pub mod checks;
pub mod cli;
pub mod config;
pub mod configuration;
pub mod disk;
pub mod drill;
pub mod error;
pub mod event;
pub mod evidence;
pub mod filestore;
pub mod policy;
pub mod postgres;
pub mod ranges;
pub mod repository;
pub mod restore;
pub mod runbook;
pub mod runtime;
pub mod schedule;
pub mod service;
pub mod storage;
pub mod units;
pub mod vault;
pub mod wal_name;

pub use error::{Error, ErrorKind, Result};

/// Helpers of the integration tests, for unit tests that need a server.
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod test_common;
