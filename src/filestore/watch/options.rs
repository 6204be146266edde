//! How to watch, and what came of it.

use std::time::Duration;

use serde::Serialize;

/// How to watch.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// New files are stored this often.
    pub store_every: Duration,
    /// Everything is scanned this often.
    pub scan_every: Duration,
    /// And this long before Odoo collects.
    pub before_collection: Duration,
    /// zstd level of packs.
    pub level: i32,
}

/// What a watcher did until it was stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Watched {
    /// The databases, at the end.
    pub databases: Vec<String>,
    /// Files that it stored between captures.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Pieces that it wrote.
    pub pieces: u64,
    /// Captures that it took.
    pub captures: u64,
    /// How often events were dropped, so that a scan had to make up for it.
    pub overflows: u64,
    /// Files that were gone before they could be read.
    pub unseen: u64,
}
