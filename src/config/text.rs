//! The words of a configuration, as they were read at one moment.
//!
//! A service goes on with the configuration that it loaded, whatever happens to the files afterwards; so it hands
//! these words to the commands that it starts. They hold no secret: secrets are given by reference.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// `lifeboat.toml`, and the files that it included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigText {
    /// Path and text of each file, `lifeboat.toml` first, the others in the order in which they were read.
    pub(super) files: Vec<(PathBuf, String)>,
}

impl ConfigText {
    /// Path of the main file.
    pub fn file(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |(path, _)| path)
    }
}
