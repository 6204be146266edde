//! `policy.toml` as it is written; `policy.rs` judges it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::calendar::Effect;
use super::estate::Purpose;
use super::job_kind::JobKind;
use super::raw::Located;
use super::repository::LockMode;
use crate::units::Span;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Lifeboat policy file", rename = "PolicyFile")]
pub(super) struct RawPolicy {
    /// What some environments must have; every rule that is for an environment binds it.
    #[serde(default)]
    pub(super) rule: Vec<RawRule>,
    /// What is let pass for a time.
    #[serde(default)]
    pub(super) exception: Vec<RawException>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PolicyRule")]
pub(super) struct RawRule {
    /// Its name, unique in the file.
    pub(super) name: Located<String>,
    /// Why it is so.
    pub(super) why: Option<Located<String>>,
    /// Binds environments of these purposes; absent: of any.
    #[serde(default)]
    pub(super) purposes: Vec<Purpose>,
    /// Binds these environments; absent: any.
    #[serde(default)]
    pub(super) environments: Vec<Located<String>>,
    /// Binds environments with one of these data classes; absent: whatever they hold.
    #[serde(default)]
    pub(super) data_classes: Vec<Located<String>>,
    /// The most work that may be lost: the objective is this or less, and is met now.
    pub(super) rpo: Option<Located<Span>>,
    /// The longest time to recover: the objective is this or less, and drills meet it.
    pub(super) rto: Option<Located<Span>>,
    /// The owner is one of these.
    #[serde(default)]
    pub(super) owners: Vec<Located<String>>,
    /// The environment says the class of its data.
    #[serde(default)]
    pub(super) classified: bool,
    /// Who must be able to open backups.
    pub(super) recipients: Option<RawRecipients>,
    /// Kinds of store: `s3`, `file`, `az`, `gs`.
    #[serde(default)]
    pub(super) stores: Vec<Located<String>>,
    /// The connection to PostgreSQL is encrypted, or a socket of the host.
    #[serde(default)]
    pub(super) encrypted_connection: bool,
    /// How old the newest base backup may be.
    pub(super) base_backup_every: Option<Located<Span>>,
    /// How old the newest configuration export may be.
    pub(super) configuration_every: Option<Located<Span>>,
    /// How old what is captured of each filestore may be.
    pub(super) filestore_every: Option<Located<Span>>,
    /// How long recovery points are kept at least; an environment without `[environment.retention]` keeps all.
    pub(super) retention: Option<RawRetentionDuty>,
    /// How objects are locked at least: `"compliance"`, `"governance"`, or with a time: `{ mode = "compliance", least = "30d" }`.
    pub(super) lock: Option<RawLock>,
    /// What drills must be like.
    pub(super) drill: Option<RawDrillDuty>,
    /// The service does these by schedule: `base`, `drill`, `verify` …
    #[serde(default)]
    pub(super) scheduled: Vec<JobKind>,
    /// A restore of it needs the approval of a second person.
    #[serde(default)]
    pub(super) approvals: bool,
    /// Some calendar has these effects for it: `forbid-drills`, `forbid-restores`, `slow-base-backups`.
    #[serde(default)]
    pub(super) calendars: Vec<Effect>,
    /// Copies of other environments are loaded into it masked and neutralised only.
    #[serde(default)]
    pub(super) masked_refresh_only: bool,
    /// How long critical drift may stand as the newest drift.
    pub(super) critical_drift_within: Option<Located<Span>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PolicyRecipients")]
pub(super) struct RawRecipients {
    /// So many at least.
    pub(super) at_least: Option<Located<usize>>,
    /// These are among them.
    #[serde(default)]
    pub(super) all_of: Vec<Located<String>>,
    /// None but these.
    #[serde(default)]
    pub(super) only: Vec<Located<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PolicyRetention")]
pub(super) struct RawRetentionDuty {
    /// Every moment of the last so long can be restored.
    pub(super) recent: Option<Located<Span>>,
    /// A recovery point of each of so many days.
    pub(super) daily: Option<u32>,
    /// A recovery point of each of so many weeks.
    pub(super) weekly: Option<u32>,
    /// A recovery point of each of so many months.
    pub(super) monthly: Option<u32>,
    /// A recovery point of each of so many years.
    pub(super) yearly: Option<u32>,
    /// So many base backups whatever their age (`minimum_base_backups`).
    pub(super) base_backups: Option<u32>,
    /// Pause between retiring and deleting.
    pub(super) delete_after: Option<Located<Span>>,
}

/// How objects are locked: the mode alone, or with a time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a lock is \"compliance\", \"governance\" or { mode = \"compliance\", least = \"30d\" }")]
#[schemars(rename = "PolicyLock")]
pub(super) enum RawLock {
    /// Only who may lift it.
    Mode(LockMode),
    /// That, and for how long.
    For(RawLockFor),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PolicyLockFor")]
pub(super) struct RawLockFor {
    /// `governance` (may be lifted with a special permission, or by nobody) or `compliance` (by nobody).
    pub(super) mode: LockMode,
    /// For how long from when an object is stored; in days.
    pub(super) least: Span,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PolicyDrill")]
pub(super) struct RawDrillDuty {
    /// How long ago the newest drill that passed may be.
    pub(super) every: Option<Located<Span>>,
    /// Drills run in a sealed sandbox.
    #[serde(default)]
    pub(super) sealed: bool,
    /// Drills start Odoo on the restored databases.
    #[serde(default)]
    pub(super) odoo: bool,
    /// How long ago the newest drill to a random moment may be.
    pub(super) random_every: Option<Located<Span>>,
    /// How long ago the newest self-test of the checks may be.
    pub(super) selftest_every: Option<Located<Span>>,
    /// These suites of checks run.
    #[serde(default)]
    pub(super) suites: Vec<Located<String>>,
    /// Limits of disk, memory and time are set.
    #[serde(default)]
    pub(super) limits: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PolicyException")]
pub(super) struct RawException {
    /// The environment.
    pub(super) environment: Located<String>,
    /// The requirement, as `lifeboat policy check` names it.
    pub(super) requirement: Located<String>,
    /// The last day, `2026-12-31`.
    pub(super) until: Located<String>,
    /// Why.
    pub(super) why: Located<String>,
    /// Who has decided that.
    pub(super) by: Located<String>,
}

/// `[policy]` in `lifeboat.toml`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PolicySection")]
pub(super) struct RawPolicySection {
    /// The policy, relative to this file; default `policy.toml` beside it, where that exists.
    pub(super) file: Located<String>,
}
