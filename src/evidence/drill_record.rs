//! The record of one drill: what was restored from what, where it stopped, what was checked, how long
//! it took, and what was left behind. The union of what the auditors' frameworks ask for, as far as a
//! local drill can tell it truthfully; nothing is filled in that was not measured, null stands for it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::evidence::egress_record::Egress;
use crate::evidence::odoo_record::{Boot, Neutralised};
use crate::evidence::sampled::{Restored, Sampling};
pub use crate::evidence::selftest::SelfTest;
use crate::units::{Lsn, Timeline};

/// Version of the drill record.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything that is known about one drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// Names the drill.
    pub id: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The environment that was restored.
    pub environment: String,
    /// What the environment is for: `production`.
    pub purpose: String,
    /// Who answers for the environment.
    pub owner: String,
    /// Why the drill was run.
    pub trigger: Trigger,
    /// Who ran it: account and host.
    pub operator: String,
    /// The program that ran it.
    pub tool: Tool,
    /// SHA-256 of the configuration files in force.
    pub config_digest: String,
    /// What was restored from; null if the drill failed before that was known.
    pub sources: Option<SourceSet>,
    /// When the disaster is supposed to have happened.
    pub incident_time: DateTime<Utc>,
    /// How the target was chosen; null in records from before that was told.
    #[serde(default)]
    pub sampling: Option<Sampling>,
    /// Where recovery was to stop, and where it stopped.
    pub target: Target,
    /// Where it was restored to; null if the drill failed before there was one.
    pub sandbox: Option<Sandbox>,
    /// What was restored, in amounts; null if the drill failed before that was known.
    #[serde(default)]
    pub restored: Option<Restored>,
    /// What was done, in order.
    pub phases: Vec<Phase>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// Attachments of each database, held against the restored files.
    pub attachments: Vec<AttachmentReconciliation>,
    /// How each Odoo database was made harmless; empty where no Odoo was to be started.
    #[serde(default)]
    pub neutralised: Vec<Neutralised>,
    /// How Odoo came up on each database.
    #[serde(default)]
    pub boots: Vec<Boot>,
    /// What the copy tried to reach outside its sandbox; null where nobody listened.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// Loss of data against the objective; null if the drill failed before it could be measured.
    pub rpo: Option<Rpo>,
    /// Time to recover against the objective.
    pub rto: Rto,
    /// The newest self-test of the checks: that of this drill, or the last one before it. Null where there was none.
    #[serde(default)]
    pub selftest: Option<SelfTest>,
    /// What was created, and that it is gone.
    pub cleanup: Cleanup,
    /// What somebody should look at.
    pub findings: Vec<String>,
    /// The error that ended the drill early, if one did.
    pub error: Option<String>,
    /// The stage in which Lifeboat was killed; null for a drill that Lifeboat brought to an end.
    #[serde(default)]
    pub killed_in: Option<String>,
    /// The outcome.
    pub verdict: Verdict,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
}

/// Why a drill was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// What kind of reason.
    pub kind: TriggerKind,
    /// The schedule, change or incident that it refers to.
    pub reference: Option<String>,
}

/// Kinds of reasons for a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    /// Somebody asked for it.
    Manual,
    /// It was due.
    Calendar,
    /// Something was changed.
    Change,
    /// After an incident.
    Incident,
}

/// The program that ran the drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its version.
    pub version: String,
    /// SHA-256 of the running binary, where readable.
    pub binary_sha256: Option<String>,
}

/// What a restore reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSet {
    /// The base backup.
    pub base_backup: String,
    /// SHA-256 of its manifest.
    pub manifest: String,
    /// Where the base backup starts.
    pub start_lsn: Lsn,
    /// Where it is consistent.
    pub stop_lsn: Lsn,
    /// First WAL segment.
    pub wal_first: String,
    /// Last WAL segment.
    pub wal_last: String,
    /// The timeline at the target.
    pub timeline: Timeline,
    /// Filestore captures.
    pub filestores: Vec<FilestoreSource>,
    /// The configuration export, if there is one.
    pub configuration: Option<String>,
    /// Ids of the keys that opened the data.
    pub key_ids: Vec<String>,
}

/// A filestore capture that was restored from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilestoreSource {
    /// The database it belongs to.
    pub database: String,
    /// The capture.
    pub capture: String,
    /// SHA-256 of its index.
    pub index: String,
}

/// A place in the WAL where recovery stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPoint {
    /// The timeline.
    pub timeline: Timeline,
    /// The position.
    pub lsn: Lsn,
    /// Commit time of the last transaction before it, where there is one.
    pub time: Option<DateTime<Utc>>,
}

/// Where recovery was to stop, and where it stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// As asked for.
    pub requested: String,
    /// What that is in the WAL.
    pub resolved: Option<StopPoint>,
    /// Where recovery stopped.
    pub actual: Option<StopPoint>,
    /// Whether the last transaction replayed is known to be the intended one.
    pub as_intended: bool,
}

/// Where a drill restores to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// `local`, `container`, or `none`.
    pub kind: String,
    /// The account that the server ran as.
    pub account: String,
    /// What it could reach.
    pub network: String,
    /// The restored server's version; empty if the drill failed before it ran.
    pub server_version: String,
    /// Whether programs could reach nothing outside; null in records that do not tell.
    #[serde(default)]
    pub sealed: Option<bool>,
    /// The kinds of namespaces that programs had of their own.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Version of Landlock's interface that was enforced; null where the kernel has none.
    #[serde(default)]
    pub landlock_abi: Option<u32>,
    /// Limits of disk, memory and time that were enforced.
    #[serde(default)]
    pub limits: Vec<String>,
    /// Name and version of the engine that ran its containers; null where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The images that its containers ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
}

/// An image that a container of a drill ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What it was for: `postgres`, `odoo`.
    pub part: String,
    /// As it was pinned, by its digest.
    pub reference: String,
    /// Its id, as the engine told it of the running container.
    pub id: String,
}

/// A span of the work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// When it began; null where it is assumed.
    pub started_at: Option<DateTime<Utc>>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Whether that was measured.
    pub basis: Basis,
    /// What to know about it; for an assumed phase, where the figure comes from.
    pub note: Option<String>,
}

/// Whether a figure was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// By this drill's clock.
    Measured,
    /// Taken from the configuration: a drill cannot measure how long people take.
    Assumed,
}

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its id in the check suite.
    pub id: String,
    /// What it asserts, in one line.
    pub title: String,
    /// Why that matters.
    pub why: String,
    /// How much a failure weighs.
    pub severity: Severity,
    /// The database it ran in, or what else it looked at.
    pub scope: String,
    /// The result.
    pub result: CheckResult,
    /// The figure or message behind the result.
    pub detail: String,
    /// The first offending rows.
    pub rows: Vec<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// How much a failed check weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Must hold in every sound database: a failure fails the drill.
    Hard,
    /// Holds unless the source already broke it: a failure is a finding.
    Baseline,
    /// Only tells.
    Info,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// It holds.
    Passed,
    /// It does not hold.
    Failed,
    /// There is nothing that it could look at.
    NotApplicable,
    /// It could not be run; that is no success.
    Error,
    /// It only tells.
    Info,
}

/// The attachments of one database, held against the restored files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentReconciliation {
    /// The database.
    pub database: String,
    /// Files that the restored database refers to.
    pub referenced: u64,
    /// Files of those that were restored.
    pub present: u64,
    /// Files of those whose content is what their name says.
    pub verified: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Files that are not there.
    pub missing: Vec<MissingAttachment>,
}

/// A file that an attachment refers to and that could not be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingAttachment {
    /// Name of the file in the filestore.
    pub store_fname: String,
    /// The model of the record that it is attached to.
    pub model: Option<String>,
    /// Id of the attachment (`ir_attachment.id`).
    pub id: i64,
    /// Whose fault it is.
    pub cause: MissingCause,
}

/// Why a file could not be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingCause {
    /// It was damaged or missing before it could be backed up.
    DamagedAtSource,
    /// It was sound at the source; the backup lost it.
    LostByUs,
    /// No capture saw it: it was stored after the last one, or Odoo collected it before the next.
    NotCaptured,
}

/// Loss of data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rpo {
    /// The objective in force, in seconds.
    pub objective_seconds: f64,
    /// From the last recovered commit to the incident: the upper bound of what can be lost.
    pub exposure_seconds: f64,
    /// From the first lost commit to the incident, where lost transactions can be seen; 0 if none was lost.
    pub loss_window_seconds: Option<f64>,
    /// Number of committed transactions that were lost, where that can be seen.
    pub lost_transactions: Option<u64>,
    /// Bytes of WAL behind the last that was recovered, where that can be seen.
    #[serde(default)]
    pub lost_bytes: Option<u64>,
    /// Whether a moment of the past was asked for: then what came after it was left out, not lost, and says nothing
    /// about the objective.
    #[serde(default)]
    pub left_out_on_purpose: bool,
    /// When the disaster is supposed to have happened.
    pub incident_time: DateTime<Utc>,
    /// The last transaction that the restored cluster has.
    pub last_recovered_commit_time: Option<DateTime<Utc>>,
    /// The last transaction that the repository has.
    pub last_durable_commit_time: Option<DateTime<Utc>>,
    /// Loss by component, and of the estate as a whole.
    pub components: RpoComponents,
    /// Whether the objective was met.
    pub met: bool,
}

/// Seconds lost, by component; null where there is none or it could not be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RpoComponents {
    /// Databases.
    pub database: Option<f64>,
    /// Filestores.
    pub filestore: Option<f64>,
    /// Configuration.
    pub configuration: Option<f64>,
    /// From the last time at which all of them can be restored and agree.
    pub composite: Option<f64>,
}

/// Time to recover.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rto {
    /// The objective in force, in seconds.
    pub objective_seconds: f64,
    /// From an empty machine to validated data (TRT); null if the drill did not get there.
    pub measured_seconds: Option<f64>,
    /// Sum of the assumed phases, which a drill cannot measure.
    pub assumed_seconds: f64,
    /// Whether the objective was met.
    pub met: bool,
}

/// What a drill left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleanup {
    /// What it created.
    pub created: Vec<String>,
    /// What it destroyed.
    pub destroyed: Vec<String>,
    /// What is still there, or was kept on request.
    pub residue: Vec<String>,
    /// When that was verified; null if it was not.
    pub verified_at: Option<DateTime<Utc>>,
}

/// The outcome of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Restored, every hard check holds, objectives met.
    Passed,
    /// Not restored, or the restored data is not what it must be.
    Failed,
    /// Restored and sound, but too slow or with too much lost.
    ObjectiveMissed,
    /// Lifeboat was killed before the drill came to an end: it says nothing about the backup.
    NotCompleted,
}
