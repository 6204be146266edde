//! What a run of `prune` did, or would do; its serialised form is the documented JSON.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::rules::Verdict;
use crate::evidence::bodies_retention::{Gone, KeepRules, Left};

/// What a run did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The environment.
    pub environment: String,
    /// When the run began.
    pub now: DateTime<Utc>,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The rules; null: none are configured, so nothing is ever deleted.
    pub rules: Option<KeepRules>,
    /// Every moment from here on is kept; null: everything is.
    pub recent_from: Option<DateTime<Utc>>,
    /// The oldest moment that can be restored afterwards.
    pub oldest: Option<DateTime<Utc>>,
    /// Every recovery point, in the order of the ledger.
    pub points: Vec<Point>,
    /// WAL.
    pub wal: WalReport,
    /// What was retired and is needed again.
    pub revived: Option<Revived>,
    /// Deletions that were carried out, or would be.
    pub deleted: Vec<Deletion>,
    /// What was retired, or would be.
    pub retired: Option<Retired>,
    /// What was retired earlier and waits.
    pub waiting: Vec<Waiting>,
    /// Lock dates that were moved on.
    pub locks: Option<Locks>,
    /// Backups that lack objects: entry, and what is missing.
    pub damaged: Vec<Damaged>,
    /// What somebody should know.
    pub notes: Vec<String>,
}

/// A recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// What becomes of it, and why.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether an earlier run retired it: it counts as gone unless something needs it again.
    pub retired: bool,
}

/// WAL segments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WalReport {
    /// Complete segments in the archive.
    pub segments: u64,
    /// Those that something needs.
    pub wanted: u64,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Revived {
    /// Number of the ledger entry; null in a dry run.
    pub entry: Option<u64>,
    /// What.
    pub gone: Gone,
}

/// A deletion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deletion {
    /// Number of the `delete` entry; null in a dry run.
    pub entry: Option<u64>,
    /// What.
    pub gone: Gone,
    /// Objects that are gone, or would go.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Objects that were to go and are needed again.
    pub spared: u64,
    /// Objects that the store did not let go.
    pub left: u64,
    /// Some of those.
    pub left_named: Vec<Left>,
}

/// What was retired.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Retired {
    /// Number of the ledger entry; null in a dry run.
    pub entry: Option<u64>,
    /// It is not deleted before.
    pub not_before: DateTime<Utc>,
    /// What.
    pub gone: Gone,
    /// Number of objects.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// Something that was retired earlier.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Waiting {
    /// Number of the `retire` entry.
    pub entry: u64,
    /// It is not deleted before.
    pub not_before: DateTime<Utc>,
    /// Number of objects.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// Lock dates that were moved on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Locks {
    /// Nothing that is referenced can be deleted before.
    pub until: DateTime<Utc>,
    /// Objects whose date was set.
    pub objects: u64,
    /// Objects whose date could not be set.
    pub failed: u64,
}

/// A backup that lacks objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Number of its ledger entry.
    pub sequence: u64,
    /// What is wrong.
    pub what: String,
}
