//! The configuration files as they are written: every key, its type, whether it may be absent.
//!
//! Nothing here is judged beyond its type; values carry their place in the file ([`Located`]) so
//! that the judges (`load`, `read`, `check`, `repository`) can point at it. The doc comments are
//! the descriptions in the JSON Schema that `lifeboat config schema` prints.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use super::alerts::RawAlerts;
use super::calendar::RawCalendar;
use super::drift::RawDriftRule;
use super::drill_container::RawDrillContainer;
use super::drill_odoo::RawDrillOdoo;
use super::estate::{CheckpointMode, Purpose, ReaderMode};
use super::job::RawJob;
use super::policy_raw::RawPolicySection;
use super::raw_check::RawCheck;
use super::raw_secret::RawSecret;
use super::repository::LockMode;
use super::restore::RawRestore;
use super::runbook::RawRunbook;
use super::service::{RawEnvironmentService, RawService};
use crate::units::{ByteSize, Span};

/// A value and the bytes of the file that it was read from.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(d)?;
        Ok(Self { span: spanned.span(), value: spanned.into_inner() })
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A configuration file of Lifeboat: `lifeboat.toml` or a file that it includes.
/// `include`, `[repository]`, `[keys]`, `[service]`, `[alerts]`, `[policy]` and `[runbook]` belong in `lifeboat.toml` only.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Lifeboat configuration file", rename = "File")]
pub(super) struct RawFile {
    /// Further files, as paths or patterns (`*`, `?`, `**`) relative to this file. A pattern may match nothing; a path must exist.
    pub(super) include: Option<Located<Vec<Located<String>>>>,
    /// Where backups are kept.
    pub(super) repository: Option<Located<RawRepository>>,
    /// Who can read them.
    pub(super) keys: Option<Located<RawKeys>>,
    /// How `lifeboat serve` runs.
    pub(super) service: Option<Located<RawService>>,
    /// Who is told what is wrong.
    pub(super) alerts: Option<Located<RawAlerts>>,
    /// The policy that the estate is held against.
    pub(super) policy: Option<Located<RawPolicySection>>,
    /// What generated runbooks say that no program can know.
    pub(super) runbook: Option<Located<RawRunbook>>,
    /// The environments that are backed up.
    #[serde(default)]
    pub(super) environment: Vec<RawEnvironment>,
    /// The name under which `drill.checks` chooses the checks of this file; by default the file's name without `.toml`.
    pub(super) suite: Option<Located<String>>,
    /// The assertions that a drill makes about restored databases.
    #[serde(default)]
    pub(super) check: Vec<RawCheck>,
    /// What the service does by schedule; with none in the whole estate, what is built in.
    #[serde(default)]
    pub(super) job: Vec<RawJob>,
    /// Times in which something is forbidden, slower or more urgent than usual.
    #[serde(default)]
    pub(super) calendar: Vec<RawCalendar>,
    /// How columns are masked in copies for other environments: `"table.column" = "rule"`.
    #[serde(default)]
    pub(super) masking: BTreeMap<String, Located<RawRule>>,
    /// What a change of the configuration, or a difference between environments, means; the first rule that fits decides.
    #[serde(default)]
    pub(super) drift: Vec<RawDriftRule>,
}

/// Where backups are kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Repository")]
pub(super) struct RawRepository {
    /// `s3://bucket/prefix`, `file:///absolute/path`, `az://container/prefix` or `gs://bucket/prefix`.
    pub(super) url: Located<String>,
    /// Address of an S3-compatible store, `http://…` or `https://…`; absent: AWS.
    pub(super) endpoint: Option<Located<String>>,
    /// Region of the bucket.
    pub(super) region: Option<Located<String>>,
    /// S3 access key; absent: the usual AWS chain.
    pub(super) access_key_id: Option<Located<RawSecret>>,
    /// S3 secret key; needed when `access_key_id` is given.
    pub(super) secret_access_key: Option<Located<RawSecret>>,
    /// S3 session token of temporary credentials.
    pub(super) session_token: Option<Located<RawSecret>>,
    /// How long a failing store is tried again; default `5m`.
    pub(super) retry_for: Option<Located<Span>>,
    /// zstd level from 1 (fast) to 19 (small); default 3.
    pub(super) compression_level: Option<Located<i32>>,
    /// Lock objects against deletion, where the bucket has Object Lock; absent: not.
    pub(super) object_lock: Option<Located<RawObjectLock>>,
}

/// How objects are locked against deletion.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ObjectLock")]
pub(super) struct RawObjectLock {
    /// `governance` (may be lifted with a special permission) or `compliance` (by nobody).
    pub(super) mode: LockMode,
    /// For how many days from when an object is stored; `lifeboat prune` moves the dates of what is needed on.
    pub(super) days: Located<u32>,
}

/// Who can read backups.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Keys")]
pub(super) struct RawKeys {
    /// age recipients (`age1…`) of those who can restore; at least one.
    pub(super) recipients: Located<Vec<Located<String>>>,
    /// The recovery key; only where restores and drills run.
    pub(super) identity: Option<Located<RawSecret>>,
    /// Directory of the signing key, the index key and caches; default `/var/lib/lifeboat`.
    pub(super) state_dir: Option<Located<String>>,
}

/// One Odoo deployment: a PostgreSQL cluster, its Odoo instances and its configuration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Environment")]
pub(super) struct RawEnvironment {
    /// Name in commands and in the repository: lower-case letters, digits and hyphens.
    pub(super) name: Located<String>,
    /// What it is for.
    pub(super) purpose: Purpose,
    /// The team that answers for it.
    pub(super) owner: Located<String>,
    /// What kinds of data it holds, in the organisation's own words; policies refer to them.
    #[serde(default)]
    pub(super) data_classes: Vec<Located<String>>,
    /// How much loss and how much time without service are acceptable.
    pub(super) objectives: RawObjectives,
    /// The PostgreSQL cluster.
    pub(super) postgres: RawPostgres,
    /// The Odoo instances on this cluster.
    #[serde(default)]
    pub(super) odoo: Vec<RawOdoo>,
    /// What else belongs to the configuration export.
    pub(super) configuration: Option<RawConfiguration>,
    /// How its drills run.
    pub(super) drill: Option<RawDrill>,
    /// What a restore of it needs.
    pub(super) restore: Option<RawRestore>,
    /// What the service does for it, and where.
    pub(super) service: Option<RawEnvironmentService>,
    /// Which recovery points are kept; absent: nothing is ever deleted.
    pub(super) retention: Option<RawRetention>,
}

/// Which recovery points of an environment are kept. `lifeboat prune` carries it out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Retention")]
pub(super) struct RawRetention {
    /// Every moment of the last so long, counted back from the newest recovery point, for example `30d`.
    pub(super) recent: Located<Span>,
    /// The last base backup of each of so many days that have one; default 0.
    pub(super) daily: Option<u32>,
    /// The last base backup of each of so many weeks (from Monday) that have one; default 0.
    pub(super) weekly: Option<u32>,
    /// The last base backup of each of so many months that have one; default 0.
    pub(super) monthly: Option<u32>,
    /// The last base backup of each of so many years that have one; default 0.
    pub(super) yearly: Option<u32>,
    /// So many base backups that can be restored are kept whatever their age; at least 1, default 2.
    pub(super) minimum_base_backups: Option<Located<u32>>,
    /// Pause between retiring, which can be taken back, and deleting; default `7d`.
    pub(super) delete_after: Option<Located<Span>>,
    /// Objects that no backup refers to are left alone for so long, for somebody may be writing it; default `3d`.
    pub(super) unreferenced_after: Option<Located<Span>>,
    /// Time zone in which days, weeks, months and years begin; default `UTC`.
    pub(super) time_zone: Option<Located<String>>,
}

/// Objectives of an environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Objectives")]
pub(super) struct RawObjectives {
    /// Recovery point objective: the most recent work that may be lost.
    pub(super) rpo: Located<Span>,
    /// Recovery time objective: the longest time until the data is back.
    pub(super) rto: Located<Span>,
    /// What a drill cannot measure: how long people take. Counted into the time until the data is back, and marked.
    pub(super) assumed: Option<RawAssumed>,
}

/// Assumed times of people, beside what a drill measures.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Assumed")]
pub(super) struct RawAssumed {
    /// Until somebody knows that there is a disaster.
    pub(super) detect: Option<Located<Span>>,
    /// Until somebody has decided to restore.
    pub(super) decide: Option<Located<Span>>,
    /// Until users reach the restored system: addresses, DNS, load balancers.
    pub(super) cut_over: Option<Located<Span>>,
    /// Until the business has accepted it.
    pub(super) accept: Option<Located<Span>>,
    /// Where these figures come from: an incident, an exercise, an estimate.
    pub(super) basis: Option<Located<String>>,
}

/// The PostgreSQL cluster of an environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Postgres")]
pub(super) struct RawPostgres {
    /// Connection string, `key=value` pairs or a URL, without a password.
    pub(super) dsn: Located<String>,
    /// Password of the role in `dsn`.
    pub(super) password: Option<Located<RawSecret>>,
    /// Certificate authority (PEM) that the server's certificate must come from.
    pub(super) tls_root: Option<Located<String>>,
    /// Physical replication slot, created when absent; default `lifeboat`.
    pub(super) slot: Option<Located<String>>,
    /// Directory of PostgreSQL's programs; absent: found by major version.
    pub(super) bin_dir: Option<Located<String>>,
    /// Account for restored servers when Lifeboat runs as root.
    pub(super) run_as: Option<Located<String>>,
    /// Whether a base backup asks for an immediate or a spread checkpoint; default `fast`.
    pub(super) checkpoint: Option<CheckpointMode>,
    /// Upper bound of the bytes that a base backup reads in a second; absent: none.
    pub(super) max_rate: Option<Located<ByteSize>>,
    /// How base backups read the cluster: `auto`, `direct` or `streamed`; default `auto`.
    pub(super) reader: Option<ReaderMode>,
    /// Threads that read the cluster directly, 1 to 64; absent: one for each core.
    pub(super) reader_threads: Option<Located<usize>>,
    /// Pause between heartbeats when the cluster is idle; default: a quarter of `rpo`, `1s` to `15s`.
    pub(super) heartbeat: Option<Located<Span>>,
}

/// An Odoo instance.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Odoo")]
pub(super) struct RawOdoo {
    /// Odoo's `data_dir`; holds `filestore/<database>`.
    pub(super) data_dir: Located<String>,
    /// `odoo.conf`, for the configuration export.
    pub(super) config_file: Option<Located<String>>,
    /// Databases of this instance; absent: every database with an Odoo schema.
    pub(super) databases: Option<Located<Vec<Located<String>>>>,
    /// Add-on directories beyond those in `odoo.conf`.
    #[serde(default)]
    pub(super) addons_paths: Vec<Located<String>>,
}

/// Further sources of the configuration export.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Configuration")]
pub(super) struct RawConfiguration {
    /// Files, directories or patterns to export too: Traefik, Redis, Helm values, units.
    #[serde(default)]
    pub(super) files: Vec<Located<String>>,
    /// Whether to read `ODOO_*` and `PG*` from the environment of running Odoo processes; default true.
    pub(super) process_environment: Option<bool>,
}

/// How drills of an environment run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Drill")]
pub(super) struct RawDrill {
    /// Directory for the restored copy; absent: the system's temporary directory.
    pub(super) work_dir: Option<Located<String>>,
    /// Directory that receives the reports; absent: only where `--report` says.
    pub(super) report_dir: Option<Located<String>>,
    /// Suites of checks to run; absent: all.
    pub(super) checks: Option<Located<Vec<Located<String>>>>,
    /// The Odoo that is started on the restored databases; absent: none is.
    pub(super) odoo: Option<RawDrillOdoo>,
    /// Installed modules that may stay un-neutralised although their source is not found or their script fails.
    #[serde(default)]
    pub(super) allow_unneutralised: Vec<Located<String>>,
    /// What keeps the programs of a drill in: `local` (default; namespaces of this host, no route out), `container` (Podman or Docker, no route out) or `none` (not sealed: PostgreSQL runs beside everything else, Odoo is not started).
    pub(super) sandbox: Option<Located<RawSandbox>>,
    /// Engine and images for `sandbox = "container"`.
    pub(super) container: Option<RawDrillContainer>,
    /// Most disk that a drill may take; absent: what is free, less a reserve.
    pub(super) max_disk: Option<Located<ByteSize>>,
    /// Most memory that the processes of a drill may take together; absent: no limit.
    pub(super) max_memory: Option<Located<ByteSize>>,
    /// Longest time that a drill may take; absent: no limit.
    pub(super) max_duration: Option<Located<Span>>,
}

/// Kinds of sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Sandbox")]
pub(super) enum RawSandbox {
    /// Namespaces of this host.
    Local,
    /// Containers of an engine on this host.
    Container,
    /// Nothing.
    None,
}

/// What becomes of a column's values.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a rule: a word such as \"hash\", or { constant = \"…\" }")]
#[schemars(rename = "MaskingRule")]
pub(super) enum RawRule {
    /// `null`, `hash`, `fake-name`, `fake-email`, `scramble-digits`, `keep`, or `delete-rows` for a table.
    Word(String),
    /// The same value for all.
    Constant {
        /// The value.
        constant: String,
    },
}
