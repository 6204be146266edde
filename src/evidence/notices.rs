//! Entries about who was told what, and who did not want to be.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A silence begins, or ends before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceChange {
    /// Its id; an entry with an id that is known changes that silence.
    pub id: String,
    /// Only this condition (`rpo_missed`, …); null: all of the environment.
    pub condition: Option<String>,
    /// Only about this: a job, a slot; null: whatever it is about.
    pub subject: Option<String>,
    /// When it ends by itself; null: it ends now.
    pub until: Option<DateTime<Utc>>,
    /// Who made it.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// Somebody could not be told that something is wrong. One entry when it begins, none for each try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// The receiver's name.
    pub receiver: String,
    /// The instance of the service that tried.
    pub instance: String,
    /// What should have been told: condition and subject, one line each.
    pub alerts: Vec<String>,
    /// Why it was not.
    pub reason: String,
}
