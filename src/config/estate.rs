//! The validated configuration: what the rest of Lifeboat works with.
//!
//! Every path is absolute, every name fits where it is used, every reference holds. Values are
//! built only by [`Estate::load`], so whoever receives one need not check it again.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alerts::AlertsConfig;
use super::calendar::Calendar;
use super::check::Check;
use super::drift::DriftRule;
use super::drill_container::DrillContainer;
use super::drill_odoo::DrillOdoo;
use super::job::Job;
use super::masking::MaskingRule;
use super::repository::{KeysConfig, RepositoryConfig};
use super::restore::RestoreConfig;
use super::retention::Retention;
use super::runbook::RunbookConfig;
use super::secret::SecretRef;
use super::service::{EnvironmentService, ServiceConfig};
use super::suggest::nearest;
use super::text::ConfigText;
use crate::error::{self, Result};
use crate::units::ByteSize;

/// All environments under one configuration.
#[derive(Debug, Clone)]
pub struct Estate {
    /// The file that was loaded, absolute.
    pub file: PathBuf,
    /// The words that it was read from.
    pub text: ConfigText,
    /// Where backups are kept.
    pub repository: RepositoryConfig,
    /// Who can read them.
    pub keys: KeysConfig,
    /// How `lifeboat serve` runs.
    pub service: ServiceConfig,
    /// Who is told what is wrong.
    pub alerts: AlertsConfig,
    /// The environments, in the order of the files.
    pub environments: Vec<Environment>,
    /// The checks of all suites, in the order of the files.
    pub checks: Vec<Check>,
    /// What the service does by schedule; the built-in jobs where none is configured.
    pub jobs: Vec<Job>,
    /// When what is forbidden, slower or more urgent than usual.
    pub calendars: Vec<Calendar>,
    /// How columns are masked in copies for other environments, each column once.
    pub masking: Vec<MaskingRule>,
    /// What changes of the configuration mean, in the order of the files; the first that fits decides.
    pub drift: Vec<DriftRule>,
    /// What runbooks say beyond configuration and repository.
    pub runbook: RunbookConfig,
    /// The policy that the estate is held against.
    pub policy: Option<PathBuf>,
    /// SHA-256 over names and contents of all configuration files, in hexadecimal.
    pub digest: String,
}

impl Estate {
    /// The environment called `name`.
    pub fn environment(&self, name: &str) -> Result<&Environment> {
        self.environments.iter().find(|e| e.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.environments.iter().map(|e| e.name.as_str()).collect();
            let error = error::usage(format!("there is no environment \"{name}\" in {}", self.file.display()));
            match (nearest(name, names.iter().copied()), names.is_empty()) {
                (_, true) => error.hint("add an [[environment]]; lifeboat.example.toml and schedules/ show how"),
                (Some(near), _) => {
                    error.hint(format!("did you mean {near}?")).hint(format!("environments: {}", names.join(", ")))
                }
                (None, _) => error.hint(format!("environments: {}", names.join(", "))),
            }
        })
    }

    /// The checks that drills of `environment` run: those of the suites that it names, or all.
    pub fn checks_for<'a>(&'a self, environment: &'a Environment) -> impl Iterator<Item = &'a Check> {
        let suites = environment.drill.checks.as_deref();
        self.checks.iter().filter(move |c| suites.is_none_or(|s| s.contains(&c.suite)))
    }
}

/// One Odoo deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its name in commands and in the repository.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// The team that answers for it.
    pub owner: String,
    /// What kinds of data it holds, in the organisation's own words.
    pub data_classes: Vec<String>,
    /// How much loss and downtime are acceptable.
    pub objectives: Objectives,
    /// What a restore takes that no drill can measure.
    pub assumed: Assumed,
    /// The PostgreSQL cluster.
    pub postgres: PostgresConfig,
    /// The Odoo instances on this cluster.
    pub odoo: Vec<OdooConfig>,
    /// What else belongs to the configuration export.
    pub configuration: ConfigurationSources,
    /// How its drills run.
    pub drill: DrillConfig,
    /// Which recovery points are kept; `None`: all of them, for ever.
    pub retention: Option<Retention>,
    /// What a restore of it needs.
    pub restore: RestoreConfig,
    /// What the service does for it, and where.
    pub service: EnvironmentService,
}

/// What an environment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Serves customers.
    Production,
    /// A rehearsal of production.
    Staging,
    /// Tests.
    Qa,
    /// Training of users.
    Training,
    /// Extra capacity for peak season.
    PeakSeason,
    /// Anything else.
    Other,
}

/// What an environment's owner accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objectives {
    /// Recovery point objective: the most recent work that may be lost.
    pub rpo: Duration,
    /// Recovery time objective: the longest time until the data is back.
    pub rto: Duration,
}

/// How long people take in a disaster, as far as that was said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assumed {
    /// Until somebody knows.
    pub detect: Option<Duration>,
    /// Until somebody has decided.
    pub decide: Option<Duration>,
    /// Until users reach the restored system.
    pub cut_over: Option<Duration>,
    /// Until the business has accepted it.
    pub accept: Option<Duration>,
    /// Where these figures come from.
    pub basis: Option<String>,
}

impl Assumed {
    /// All of them together, in seconds.
    pub fn seconds(&self) -> f64 {
        [self.detect, self.decide, self.cut_over, self.accept]
            .into_iter()
            .flatten()
            .map(|d| d.as_secs_f64())
            .fold(0.0, |all, seconds| all + seconds)
    }
}

/// How to reach a PostgreSQL cluster and how to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// Connection string without a password; parses as [`tokio_postgres::Config`].
    pub dsn: String,
    /// The role's password.
    pub password: Option<SecretRef>,
    /// Certificate authority of the server.
    pub tls_root: Option<PathBuf>,
    /// Physical replication slot.
    pub slot: String,
    /// Directory of PostgreSQL's programs.
    pub bin_dir: Option<PathBuf>,
    /// Account for restored servers when Lifeboat is root.
    pub run_as: Option<String>,
    /// Checkpoint that a base backup asks for.
    pub checkpoint: CheckpointMode,
    /// Upper bound of reading during a base backup, per second; within what `BASE_BACKUP` accepts.
    pub max_rate: Option<ByteSize>,
    /// How base backups read the cluster.
    pub reader: ReaderMode,
    /// Threads of the direct reader; `None`: one for each core.
    pub reader_threads: Option<usize>,
    /// Pause between heartbeats on an idle cluster.
    pub heartbeat: Duration,
}

/// The checkpoint that a base backup begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointMode {
    /// At once: the backup begins sooner, with a burst of writes.
    #[default]
    Fast,
    /// Spread over the server's checkpoint interval: gentle, but the backup begins minutes later.
    Spread,
}

/// How base backups read the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReaderMode {
    /// Direct where the data directory can be read on this host, else streamed.
    #[default]
    Auto,
    /// Files of the data directory, read by several threads on this host.
    Direct,
    /// `BASE_BACKUP` over the network.
    Streamed,
}

/// An Odoo instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OdooConfig {
    /// Holds `filestore/<database>`.
    pub data_dir: PathBuf,
    /// `odoo.conf`.
    pub config_file: Option<PathBuf>,
    /// Its databases; `None`: every database with an Odoo schema.
    pub databases: Option<Vec<String>>,
    /// Add-on directories beyond those in `odoo.conf`.
    pub addons_paths: Vec<PathBuf>,
}

/// Further sources of the configuration export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationSources {
    /// Absolute paths or patterns for [`expand_glob`](super::expand_glob).
    pub files: Vec<String>,
    /// Whether to read the environment of running Odoo processes.
    pub process_environment: bool,
}

impl Default for ConfigurationSources {
    fn default() -> Self {
        Self { files: Vec::new(), process_environment: true }
    }
}

/// How drills of an environment run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrillConfig {
    /// Directory for the restored copy; `None`: the system's temporary directory.
    pub work_dir: Option<PathBuf>,
    /// Directory that receives the reports.
    pub report_dir: Option<PathBuf>,
    /// Suites to run, each of which exists; `None`: all.
    pub checks: Option<Vec<String>>,
    /// The Odoo that is started on the restored databases; `None`: none is.
    pub odoo: Option<DrillOdoo>,
    /// Modules that may stay as they are where their source or their script does not serve to neutralise them.
    pub allow_unneutralised: Vec<String>,
    /// What keeps the programs of a drill in.
    pub sandbox: SandboxKind,
    /// Most disk that a drill may take; `None`: what is free.
    pub max_disk: Option<ByteSize>,
    /// Most memory that the processes of a drill may take together; `None`: no limit.
    pub max_memory: Option<ByteSize>,
    /// Longest time that a drill may take; `None`: no limit.
    pub max_duration: Option<Duration>,
}

/// What keeps the programs of a drill in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SandboxKind {
    /// Namespaces of this host: no route out, no file but the drill's own and those of the operating system.
    #[default]
    Local,
    /// Containers of an engine on this host: no route out, no file but the drill's own and those of the images.
    Container(DrillContainer),
    /// Nothing: a directory of its own and a server without TCP. Odoo is not started, and the report says so.
    None,
}
