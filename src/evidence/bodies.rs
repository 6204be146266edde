//! What an entry says about each kind of backup and about a restore. Every field is always present in
//! the JSON; what is not known is null.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::evidence::drill_record::{Phase, StopPoint};
use crate::evidence::merkle;
use crate::units::{Lsn, Timeline};

/// A complete base backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseBackup {
    /// Names the backup: `backup:ID` as a restore target.
    pub id: String,
    /// The label given to PostgreSQL.
    pub label: String,
    /// The cluster's system identifier.
    pub system_id: String,
    /// The timeline it was taken on.
    pub timeline: Timeline,
    /// Where recovery from it begins.
    pub start_lsn: Lsn,
    /// From where on it is consistent.
    pub stop_lsn: Lsn,
    /// When it began.
    pub start_time: DateTime<Utc>,
    /// When it ended.
    pub stop_time: DateTime<Utc>,
    /// The server's version, as it names itself.
    pub server_version: String,
    /// The cluster's WAL segment size in bytes.
    pub wal_segment_size: u64,
    /// Whether the cluster checks its pages.
    pub data_checksums: bool,
    /// Number of tablespaces besides the default ones.
    pub tablespaces: u32,
    /// The databases in it.
    pub databases: Vec<String>,
    /// Number of files.
    pub files: u64,
    /// Size of the cluster in bytes.
    pub logical_bytes: u64,
    /// Bytes that this backup added to the repository.
    pub stored_bytes: u64,
    /// Packs that this backup added to the repository.
    pub new_packs: u64,
    /// SHA-256 of the manifest object.
    pub manifest: String,
    /// How the cluster was read: `direct` or `streamed`.
    pub reader: String,
    /// Bytes that were read of the cluster to find what changed.
    #[serde(default)]
    pub bytes_read: u64,
    /// Id of the base backup whose unchanged pages it took over; null for one that read and stored
    /// everything. Neither needs the other to be restored.
    #[serde(default)]
    pub previous: Option<String>,
    /// Blocks whose checksum was wrong at the source; stored as they were.
    #[serde(default)]
    pub damaged: Vec<DamagedBlock>,
    /// The WAL without which it cannot be restored.
    pub wal: WalNeeded,
    /// What the source answered to the checks that compare; null where no check does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Box<Baseline>>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// What the source answered at one instant after a base backup, for drills to compare with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Place in WAL of the instant: all that was committed before it was seen, and nothing behind it. Null where no such
    /// instant could be had.
    pub lsn: Option<Lsn>,
    /// When the source was asked.
    pub taken_at: DateTime<Utc>,
    /// SHA-256 of the sealed object that holds the answers.
    pub answers: Option<String>,
    /// Databases that were asked, and `cluster`.
    pub databases: Vec<String>,
    /// Number of answers.
    pub checks: u64,
    /// Why there are none, or not all.
    pub reason: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// A block of a relation that was damaged at the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedBlock {
    /// Path of the file below the data directory.
    pub path: String,
    /// Number of the block, counted through all files of the relation's fork.
    pub block: u32,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for DamagedBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} block {}: {}", self.path, self.block, self.what)
    }
}

/// First and last WAL segment that a base backup needs to become consistent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalNeeded {
    /// Name of the first segment.
    pub first: String,
    /// Name of the last segment.
    pub last: String,
}

/// A range of WAL without holes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WalRange {
    /// The timeline.
    pub timeline: Timeline,
    /// Name of the first segment.
    pub first: String,
    /// Name of the last segment.
    pub last: String,
    /// Number of segments.
    pub segments: u64,
    /// Their size in the repository, in bytes.
    pub stored_bytes: u64,
    /// [`wal_digest`] of the stored segments.
    pub digest: String,
    /// End of the last segment.
    pub end_lsn: Lsn,
    /// Commit time of the last transaction in it, where there is one.
    pub last_commit_time: Option<DateTime<Utc>>,
}

/// RFC 6962 root over one line for each stored WAL object, in order: `name size sha256`, where size
/// and hash are those of the stored bytes; so a single segment can be proven to be in a range.
pub fn wal_digest<'a>(objects: impl IntoIterator<Item = (&'a str, u64, &'a str)>) -> String {
    merkle::root_of(objects.into_iter().map(|(name, size, sha256)| format!("{name} {size} {sha256}")))
}

/// A capture of one database's filestore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilestoreCapture {
    /// Names the capture.
    pub id: String,
    /// Odoo's `data_dir`.
    pub data_dir: String,
    /// The database it belongs to.
    pub database: String,
    /// Odoo's `database.uuid`, where readable.
    pub database_uuid: Option<String>,
    /// Set in the database before the scan began.
    pub restore_point: RestorePoint,
    /// When the scan began.
    pub scan_started: DateTime<Utc>,
    /// When it ended.
    pub scan_finished: DateTime<Utc>,
    /// Files found.
    pub files_present: u64,
    /// Files that were not in the repository.
    pub files_new: u64,
    /// Size of the new files in bytes.
    pub bytes_new: u64,
    /// Files of earlier captures that are no longer at the source; they stay in the repository.
    pub files_disappeared: u64,
    /// Files whose content does not belong to their name, or that could not be read.
    pub suspects: Vec<Suspect>,
    /// Files that the database refers to.
    pub referenced: u64,
    /// Files that the database refers to and that the source does not have.
    pub missing_at_source: Vec<String>,
    /// SHA-256 of the index object.
    pub index: String,
    /// Whether everything that could be captured was.
    pub complete: bool,
    /// Attachments whose content is kept outside database and filestore, which no backup of these covers.
    #[serde(default)]
    pub not_covered: Vec<NotCovered>,
    /// What Odoo's garbage collection has to do with this capture; null in entries of older versions.
    #[serde(default)]
    pub collection: Option<Collection>,
}

/// Attachments in one storage that filestore captures do not cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotCovered {
    /// The storage: `s3`, `azure`, `swift`, the code of an `fs_storage`, `cloud_storage`; `unknown` where
    /// the reference is none that Odoo writes.
    pub storage: String,
    /// Attachments in it.
    pub attachments: u64,
    /// Their size in bytes as the rows give it; many add-ons leave it empty.
    pub bytes: u64,
    /// The bucket, container or host, where one reference names it.
    pub place: Option<String>,
}

impl std::fmt::Display for NotCovered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = if self.attachments == 1 { "" } else { "s" };
        write!(f, "{} attachment{s} ({}) in {}", self.attachments, crate::units::ByteSize(self.bytes), self.storage)?;
        self.place.as_ref().map_or(Ok(()), |place| write!(f, " at {place}"))
    }
}

/// What came and went between two captures, as far as it can be known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collection {
    /// Files that Odoo has marked for its next garbage collection.
    pub candidates: u64,
    /// When that is due, where the database tells.
    pub due: Option<DateTime<Utc>>,
    /// Files that the watcher had stored since the previous capture.
    pub watched: u64,
    /// Of those, files that were gone again when this capture looked: scans alone would not have them.
    pub watched_gone: u64,
    /// Files that were seen (by the scan, by the watcher or in the database) and were gone, unstored, before
    /// they could be read.
    pub unseen: u64,
    /// The highest attachment id so far.
    pub newest_attachment: Option<i64>,
    /// Attachments created since the previous capture that have no row any more: deleted, or rolled back. An
    /// upper bound of the files that came and went unseen; null where there is nothing to compare with.
    pub short_lived: Option<u64>,
}

/// A named place in the WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub lsn: Lsn,
    /// When it was set.
    pub time: DateTime<Utc>,
}

/// A file that could not be backed up as it should, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Name of the file.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An export of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationExport {
    /// Names the export.
    pub id: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// Number of files.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// SHA-256 of the manifest object.
    pub manifest: String,
    /// Keyed digest of the whole set: equal for equal configuration, and tells nothing else.
    pub digest: String,
    /// SHA-256 of the object that holds its files without their secrets; null in entries of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<String>,
    /// Files that differ from the previous export.
    pub changed: Vec<String>,
    /// What could not be read.
    pub unreadable: Vec<Suspect>,
}

/// A restore for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restore {
    /// Names the restore.
    pub id: String,
    /// The target as asked for.
    pub requested: String,
    /// What that target is in the WAL.
    pub resolved: StopPoint,
    /// The base backup that it began with.
    pub base_backup: String,
    /// Where recovery stopped; null where the operator runs it (`--no-start`).
    pub reached_lsn: Option<Lsn>,
    /// Where the data directory was written.
    pub pgdata: String,
    /// Where the filestore was written, if it was.
    pub filestore: Option<String>,
    /// Where the configuration was written, if it was.
    pub configuration: Option<String>,
    /// Bytes written.
    pub bytes: u64,
    /// Of a delta restore: bytes that were right where they lay, and were not written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept_bytes: u64,
    /// Attachments that could not be restored, by name.
    pub missing_attachments: Vec<String>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Its phases.
    pub phases: Vec<Phase>,
    /// Of a restore of one database alone: what became of it. The cluster was restored aside, in `pgdata`, and removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantRestore>,
}

/// One database that was restored alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TenantRestore {
    /// Its name in the backed-up cluster.
    pub database: String,
    /// Odoo's `database.uuid` in the restored state; null where it is no Odoo.
    pub uuid: Option<String>,
    /// The cluster that it was loaded into, as `host:port`; null for an archive.
    pub cluster: Option<String>,
    /// System identifier of that cluster.
    pub system_id: Option<String>,
    /// Its name there.
    pub name: Option<String>,
    /// The archive that was written; null where it was loaded.
    pub archive: Option<String>,
    /// SHA-256 of the archive.
    pub archive_sha256: Option<String>,
    /// Tables that were compared after loading.
    pub tables: u64,
    /// Rows that were counted in both.
    pub rows: u64,
    /// Whether it got a new `database.uuid` and secret.
    pub new_identity: bool,
    /// Columns that were masked.
    pub masked_columns: u64,
    /// Whether it was neutralised, and that was proven.
    pub neutralised: bool,
}

// The shape that serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
