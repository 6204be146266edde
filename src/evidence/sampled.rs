//! What a drill's record says about its choice of a target and about what it restored: enough to draw
//! again, to tell what was proven, and to fit how long the next restore will take.

use serde::{Deserialize, Serialize};

use crate::evidence::draw::Revealed;

/// How the target of a drill was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    /// The rule.
    pub method: SamplingMethod,
    /// What the rule found, in a line.
    pub why: String,
    /// The random draw, with its seed; null for every other rule.
    pub draw: Option<Revealed>,
}

/// Rules by which a target is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingMethod {
    /// The last transaction in the repository.
    Latest,
    /// Somebody named it.
    Given,
    /// The oldest moment that can be restored.
    Oldest,
    /// A second of the recovery window, each as likely as any other.
    Random,
    /// The moment with the most WAL to replay: just before the next base backup.
    Longest,
}

/// What a drill restored, in amounts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The databases of the restored cluster, templates left out.
    pub databases: Vec<String>,
    /// Size of the base backup's files.
    pub base_bytes: u64,
    /// WAL from the start of the base backup to the stop point.
    pub wal_bytes: u64,
    /// Size of the attachments that were restored.
    pub attachment_bytes: u64,
}
