//! The part of a drill's record that tells of Odoo itself: how each restored database was made harmless before
//! any Odoo process saw it, and how Odoo came up on it.

use serde::{Deserialize, Serialize};

/// How one Odoo database was made harmless.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neutralised {
    /// The database.
    pub database: String,
    /// Odoo's major version there: that of the module `base`.
    pub odoo: u32,
    /// Modules that are installed.
    pub modules: u64,
    /// Scripts of modules (`data/neutralize.sql`) that were run.
    pub scripts: Vec<Script>,
    /// Installed modules whose source was not found, so that nobody knows what they would have neutralised.
    pub unneutralised: Vec<String>,
    /// Of those, and of modules whose script failed, the ones that the configuration allows.
    pub allowed: Vec<String>,
    /// What Lifeboat's own statements changed.
    pub steps: Vec<Step>,
    /// Servers that the database named before, to which nothing may be tried any more.
    pub silenced: Vec<Silenced>,
    /// `database.uuid` as restored; null where there was none.
    pub uuid_before: Option<String>,
    /// `database.uuid` of the copy.
    pub uuid_after: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// A module's own script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The module.
    pub module: String,
    /// Where the script was read.
    pub path: String,
    /// SHA-256 of the script.
    pub sha256: String,
}

/// One of Lifeboat's own statements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub id: String,
    /// Rows that it changed.
    pub rows: u64,
}

/// A server that a neutralised channel led to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Silenced {
    /// `mail`, `fetchmail`, `webhook`.
    pub channel: String,
    /// Its host name or address.
    pub host: String,
}

/// How Odoo came up on one database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// The database.
    pub database: String,
    /// What Odoo calls itself in its log; null if it did not get there.
    pub odoo: Option<String>,
    /// From its start to a loaded registry, in seconds; null if it did not get there.
    pub seconds: Option<f64>,
    /// Modules that the database has installed.
    pub modules_installed: u64,
    /// Modules that Odoo loaded; null if its log does not say.
    pub modules_loaded: Option<u64>,
    /// Lines of its log by level.
    pub log: LogCount,
    /// The first problems that the log tells of.
    pub problems: Vec<String>,
    /// The first warnings.
    pub warnings: Vec<String>,
}

/// Lines of Odoo's log by level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCount {
    /// All lines.
    pub lines: u64,
    /// `WARNING`.
    pub warnings: u64,
    /// `ERROR` and `CRITICAL`.
    pub errors: u64,
    /// Tracebacks.
    pub tracebacks: u64,
}
