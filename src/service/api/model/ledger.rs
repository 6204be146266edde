//! Ledgers.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A stretch of a ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LedgerPage {
    /// The environment.
    pub(crate) environment: String,
    /// Entries, newest first; each was verified when it was read.
    pub(crate) entries: Vec<Row>,
    /// What is wrong in this stretch.
    pub(crate) problems: Vec<String>,
    /// `before` of the next older stretch; null: this is the beginning.
    pub(crate) older: Option<u64>,
}

/// A ledger entry in one line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Row {
    /// Its number.
    pub(crate) sequence: u64,
    /// When it was recorded.
    pub(crate) recorded_at: DateTime<Utc>,
    /// Its kind.
    pub(crate) kind: String,
    /// What it says.
    pub(crate) summary: String,
    /// Whether it tells of something that went wrong.
    pub(crate) bad: bool,
    /// SHA-256 of its bytes.
    pub(crate) sha256: String,
}

/// A ledger entry.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LedgerStatement {
    /// Its number.
    pub(crate) sequence: u64,
    /// SHA-256 of its bytes.
    pub(crate) sha256: String,
    /// Ids of the keys that signed it.
    pub(crate) signers: Vec<String>,
    /// The in-toto statement that was signed.
    #[schema(value_type = Object)]
    pub(crate) statement: Value,
}

/// A whole ledger, verified.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Verification {
    /// Whether nothing at all is wrong.
    pub(crate) ok: bool,
    /// Objects under the names of entries.
    pub(crate) entries: u64,
    /// The report, as `lifeboat --format json evidence verify` has it.
    #[schema(value_type = Object)]
    pub(crate) report: Value,
}
