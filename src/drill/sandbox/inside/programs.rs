//! What each program of a sandbox may take for itself.

use serde::{Deserialize, Serialize};

/// Limits of each program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// Open files.
    pub files: u64,
    /// Processes and threads of the account in the sandbox.
    pub processes: u64,
    /// Bytes of one file; `None`: no limit.
    pub file_size: Option<u64>,
}

impl Default for Programs {
    fn default() -> Self {
        Self { files: 8192, processes: 4096, file_size: None }
    }
}
