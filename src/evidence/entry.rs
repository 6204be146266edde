//! A ledger entry: what happened, when, told by whom, and where it stands in the chain.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::evidence::approval::{Action, Approval};
pub use crate::evidence::bodies::{
    BaseBackup, Baseline, Collection, ConfigurationExport, DamagedBlock, FilestoreCapture, NotCovered, Restore,
    RestorePoint, Suspect, TenantRestore, WalNeeded, WalRange,
};
use crate::evidence::bodies_retention::{Delete, Deleted, Hold, LockExtension, Release, Retire, Revive};
use crate::evidence::draw::{DrillDraw, Revealed};
use crate::evidence::drift_record::DriftRecord;
use crate::evidence::drill_record::DrillRecord;
use crate::evidence::fence::LeaseTaken;
use crate::evidence::job_record::JobRecord;
pub use crate::evidence::notices::{SilenceChange, Undelivered};

/// The format that this Lifeboat writes and reads.
pub const FORMAT: u32 = 1;

/// The predicate of a ledger's statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// [`FORMAT`].
    pub format: u32,
    /// Random, so that no two entries are equal, even where two hosts record the same at the same time.
    pub id: String,
    /// The repository that the entry was written to.
    pub repository: String,
    /// The environment whose ledger it stands in.
    pub environment: String,
    /// Its place, from 1.
    pub sequence: u64,
    /// SHA-256 of the previous envelope's bytes; null in the first entry.
    pub previous: Option<String>,
    /// When it was written, by the recorder's clock.
    pub recorded_at: DateTime<Utc>,
    /// Who wrote it.
    pub recorded_by: Recorder,
    /// What happened.
    pub body: Body,
}

/// The program and host that wrote an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorder {
    /// Version of Lifeboat.
    pub version: String,
    /// Name of the host.
    pub host: String,
}

impl Recorder {
    /// This program on this host.
    pub fn this_program() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "unknown" } else { host.trim() };
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), host: host.to_owned() }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// A base backup of the cluster is complete.
    BaseBackup(BaseBackup),
    /// WAL is complete and verified over a range.
    WalRange(WalRange),
    /// A filestore was captured.
    FilestoreCapture(FilestoreCapture),
    /// The configuration was exported.
    ConfigurationExport(ConfigurationExport),
    /// The configuration is not what it was at the export before.
    Drift(DriftRecord),
    /// Something was restored, for good.
    Restore(Restore),
    /// A random draw for a drill is committed to, before it is drawn.
    DrillDraw(DrillDraw),
    /// A drill ended, well or badly.
    Drill(Box<DrillRecord>),
    /// A restore was asked for, approved, denied, or carried out with or without approval.
    Approval(Approval),
    /// A person did something by way of the service.
    Action(Action),
    /// Something was attempted and failed.
    Failure(Failure),
    /// Something that was due was not attempted.
    Skipped(Skipped),
    /// Alerts are silenced, or no longer.
    Silence(SilenceChange),
    /// Somebody could not be told that something is wrong.
    Undelivered(Undelivered),
    /// Something is to be deleted, after a delay.
    Retire(Retire),
    /// Something that was retired is needed after all.
    Revive(Revive),
    /// Nothing may refer to this any more: it is being deleted.
    Delete(Delete),
    /// Objects of a deletion are gone.
    Deleted(Deleted),
    /// Somebody holds recovery points.
    Hold(Hold),
    /// A hold was removed.
    Release(Release),
    /// Lock dates of what is still referenced were moved on.
    LockExtension(LockExtension),
    /// A scheduled job was run, put off or missed.
    Job(JobRecord),
    /// An instance took over a duty from one that may be alive.
    Lease(LeaseTaken),
}

impl Body {
    /// The kind, as written in the entry.
    pub fn kind(&self) -> &'static str {
        match self {
            Body::BaseBackup(_) => "base_backup",
            Body::WalRange(_) => "wal_range",
            Body::FilestoreCapture(_) => "filestore_capture",
            Body::ConfigurationExport(_) => "configuration_export",
            Body::Drift(_) => "drift",
            Body::Restore(_) => "restore",
            Body::DrillDraw(_) => "drill_draw",
            Body::Drill(_) => "drill",
            Body::Approval(_) => "approval",
            Body::Action(_) => "action",
            Body::Failure(_) => "failure",
            Body::Skipped(_) => "skipped",
            Body::Silence(_) => "silence",
            Body::Undelivered(_) => "undelivered",
            Body::Retire(_) => "retire",
            Body::Revive(_) => "revive",
            Body::Delete(_) => "delete",
            Body::Deleted(_) => "deleted",
            Body::Hold(_) => "hold",
            Body::Release(_) => "release",
            Body::LockExtension(_) => "lock_extension",
            Body::Job(_) => "job",
            Body::Lease(_) => "lease",
        }
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What was attempted: `backup base`, `drill run`.
    pub attempted: String,
    /// The class of the error.
    pub error_kind: String,
    /// The error, with its causes.
    pub message: String,
    /// What it means for the data, where that was said.
    pub meaning: Option<String>,
    /// What to do next.
    pub hints: Vec<String>,
    /// When the attempt began.
    pub started_at: DateTime<Utc>,
    /// How long it lasted, in seconds.
    pub seconds: f64,
    /// The random draw of a drill that failed before it had a record; null otherwise.
    #[serde(default)]
    pub draw: Option<Revealed>,
}

impl Failure {
    /// The record of `error`, which ended what began at `started_at`.
    pub fn new(attempted: impl Into<String>, error: &Error, started_at: DateTime<Utc>, seconds: f64) -> Self {
        Self {
            attempted: attempted.into(),
            error_kind: class(error.kind()).to_owned(),
            message: error.message(),
            meaning: error.what_it_means().map(str::to_owned),
            hints: error.hints().to_vec(),
            started_at,
            seconds,
            draw: None,
        }
    }
}

/// The name of an error's class in the ledger; part of the format.
fn class(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Absent => "absent",
        ErrorKind::Usage => "usage",
        ErrorKind::Config => "config",
        ErrorKind::Source => "source",
        ErrorKind::Repository => "repository",
        ErrorKind::Integrity => "integrity",
        ErrorKind::NotRecoverable => "not_recoverable",
        ErrorKind::CheckFailed => "check_failed",
        ErrorKind::ObjectiveMissed => "objective_missed",
        ErrorKind::Denied => "denied",
        ErrorKind::Partial => "partial",
        ErrorKind::Internal => "internal",
        ErrorKind::Interrupted => "interrupted",
    }
}

/// Something that was due and was not attempted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// What was due.
    pub what: String,
    /// Why it was left out.
    pub reason: String,
    /// When it was due.
    pub due_at: DateTime<Utc>,
}
