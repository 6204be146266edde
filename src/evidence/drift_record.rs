//! What an entry says of drift: which files and settings of the configuration changed between two exports, what that
//! means by the rules in force, and no value of anything.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::config::DriftSeverity;

/// More changes than this are counted, not named.
pub const NAMED: usize = 400;

/// The difference between two configuration exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftRecord {
    /// The later export.
    pub export: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// The earlier one.
    pub compared_with: String,
    /// When that was taken.
    pub compared_at: DateTime<Utc>,
    /// What changed, critical first; at most [`NAMED`].
    pub changes: Vec<DriftChange>,
    /// Changes that are not named.
    pub left_out: u64,
    /// Changes that matter, all of them.
    pub critical: u64,
    /// Changes that somebody may want to know.
    pub notices: u64,
    /// Changes that were to be expected.
    pub expected: u64,
    /// Changes that a rule ignores.
    pub ignored: u64,
}

/// One changed file or setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftChange {
    /// Logical name of the file.
    pub file: String,
    /// The setting in it; null for the file itself, or for one whose settings are not told apart.
    pub setting: Option<String>,
    /// What happened to it.
    pub change: Changed,
    /// What that means.
    pub severity: DriftSeverity,
    /// Why, as the rule says.
    pub why: Option<String>,
}

/// What happened to a file or setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    /// Was not there before, or is not there in the other environment.
    Added,
    /// Is no longer there, or only in the other environment.
    Removed,
    /// Is different.
    Changed,
    /// Was there and cannot be read now.
    Unreadable,
    /// Is the same secret in two environments.
    Shared,
}

impl DriftRecord {
    /// What somebody must look at.
    pub fn critical(&self) -> impl Iterator<Item = &DriftChange> {
        self.changes.iter().filter(|change| change.severity == DriftSeverity::Critical)
    }

    /// The same in one line, for an alert; empty where nothing is critical.
    pub fn alert(&self) -> Option<String> {
        let first = self.critical().next()?;
        let why = first.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let more = match self.critical {
            0 | 1 => String::new(),
            n => format!(", and {} more", n - 1),
        };
        Some(format!(
            "{first} changed between configuration exports {} and {}{why}{more}",
            self.compared_with, self.export
        ))
    }
}

impl std::fmt::Display for DriftChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.setting {
            Some(setting) => write!(f, "{} in {}", setting, self.file),
            None => f.write_str(&self.file),
        }
    }
}
