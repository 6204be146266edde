//! What all drills of an environment together say: what was proven, and how long the next restore will take.

use serde::Serialize;

use crate::evidence::forecast::Forecast;
use crate::evidence::proven::Proven;

/// The state of proof of an environment, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outlook {
    /// What was proven.
    pub coverage: Proven,
    /// How long a restore will take at the worst moment; null without a measured drill, or with nothing to restore.
    pub forecast: Option<Forecast>,
}
