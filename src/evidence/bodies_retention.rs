//! What an entry says about retention: what is to go, what came back, what was deleted, and what somebody holds.
//!
//! ```text
//! retire ──────── after a delay ────────▶ delete ─▶ … objects vanish … ─▶ deleted
//!    └─ a hold, a rule, a new backup needs it ─▶ revive
//! ```
//!
//! Backups are named by the numbers of the ledger entries that committed them, WAL by timeline and segment. From a
//! `retire` on, what it names counts as gone, though it can be revived; from a `delete` on, nothing may refer to it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ranges::Ranges;
use crate::units::{Lsn, Timeline};

/// The rules in force, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepRules {
    /// Every moment of the last so many seconds is kept.
    pub recent_seconds: u64,
    /// The last base backup of each of so many days.
    pub daily: u32,
    /// The last base backup of each of so many weeks (ISO 8601, from Monday).
    pub weekly: u32,
    /// The last base backup of each of so many months.
    pub monthly: u32,
    /// The last base backup of each of so many years.
    pub yearly: u32,
    /// So many base backups are kept whatever their age.
    pub minimum_base_backups: u32,
    /// What was retired is deleted after so many seconds.
    pub delete_after_seconds: u64,
    /// Objects that nothing refers to are left alone for so many seconds.
    pub unreferenced_after_seconds: u64,
    /// Name of the time zone in which days, weeks, months and years begin.
    pub time_zone: String,
}

/// WAL segments of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalSegments {
    /// The timeline.
    pub timeline: Timeline,
    /// Numbers of the segments, first and last of each range.
    pub segments: Ranges,
}

/// What an entry about retention is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Numbers of the ledger entries that committed the backups.
    pub entries: Ranges,
    /// Base backups among them.
    pub base_backups: u64,
    /// Filestore captures among them.
    pub filestore_captures: u64,
    /// Configuration exports among them.
    pub configuration_exports: u64,
    /// WAL.
    pub wal: Vec<WalSegments>,
}

impl Gone {
    /// Whether it is about nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.wal.iter().all(|w| w.segments.is_empty())
    }

    /// What it is about: how many, the word for one, the word for several. Empty where only leftovers are.
    pub fn counts(&self) -> Vec<(u64, &'static str, &'static str)> {
        let segments = self.wal.iter().map(|w| w.segments.count()).sum();
        let mut counts = vec![
            (self.base_backups, "base backup", "base backups"),
            (self.filestore_captures, "filestore capture", "filestore captures"),
            (self.configuration_exports, "configuration export", "configuration exports"),
            (segments, "WAL segment", "WAL segments"),
        ];
        counts.retain(|(count, ..)| *count > 0);
        counts
    }
}

/// Something is to be deleted, after a delay in which it can be revived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retire {
    /// SHA-256 of the object under `meta/` that lists every object, and says why each recovery point stays or goes.
    pub list: String,
    /// The rules in force.
    pub rules: KeepRules,
    /// It is not deleted before.
    pub not_before: DateTime<Utc>,
    /// The backups and the WAL.
    pub gone: Gone,
    /// Number of objects in the list.
    pub objects: u64,
    /// Their stored size in bytes.
    pub bytes: u64,
    /// Base backups that stay.
    pub kept_base_backups: u64,
    /// The oldest moment that can still be restored.
    pub oldest: Option<DateTime<Utc>>,
}

/// Something that was retired is needed after all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revive {
    /// The backups and the WAL.
    pub gone: Gone,
    /// Why.
    pub reason: String,
}

/// From here on, nothing may refer to what this names: its objects are being deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delete {
    /// Numbers of the `retire` entries that are carried out; what they name and this does not was needed again.
    pub retired_by: Vec<u64>,
    /// SHA-256 of the object under `meta/` that lists every object.
    pub list: String,
    /// The backups and the WAL.
    pub gone: Gone,
    /// Number of objects in the list.
    pub objects: u64,
    /// Their stored size in bytes.
    pub bytes: u64,
    /// Objects that were to go and stay, because something refers to them again.
    pub spared: u64,
}

/// The objects of a `delete` are gone, as far as the store allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deleted {
    /// Number of the `delete` entry.
    pub delete: u64,
    /// Objects of its list that are gone.
    pub objects: u64,
    /// Their stored size in bytes.
    pub bytes: u64,
    /// Objects that the store did not let go: locked, or under a legal hold.
    pub left: u64,
    /// Some of those, by name, and why.
    pub left_named: Vec<Left>,
}

/// An object that the store did not let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Name of the object in the repository.
    pub object: String,
    /// Why it is still there.
    pub reason: String,
}

/// Somebody holds recovery points: nothing that they need is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Names the hold.
    pub id: String,
    /// What is held.
    pub scope: HoldScope,
    /// As it was asked for.
    pub requested: String,
    /// Until when; null: until it is released.
    pub until: Option<DateTime<Utc>>,
    /// Why.
    pub reason: String,
}

/// What a hold is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldScope {
    /// One base backup, and the WAL that makes it consistent.
    BaseBackup {
        /// Its id.
        id: String,
    },
    /// Every moment of a span, which may be a single one.
    Times {
        /// The first moment.
        from: DateTime<Utc>,
        /// The last one.
        to: DateTime<Utc>,
    },
    /// A place in WAL.
    Position {
        /// The timeline it lies on.
        timeline: Timeline,
        /// The place.
        lsn: Lsn,
    },
}

/// A hold was removed before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Id of the hold.
    pub hold: String,
    /// Why.
    pub reason: String,
}

/// The lock dates of everything that is still referenced were moved on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LockExtension {
    /// `governance` or `compliance`.
    pub mode: String,
    /// Nothing that was referenced can be deleted before.
    pub until: DateTime<Utc>,
    /// Objects whose date was set.
    pub objects: u64,
    /// Objects whose date could not be set.
    pub failed: u64,
}
