//! The manifest of a configuration export: a metadata object that the host which backs up can open,
//! so it holds names, places and keyed digests and nothing of the contents.
//!
//! ```text
//! {"export": …} {"file": …}… {"missing": …}… {"pack": …}…
//! ```

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::export::Unreadable;
use crate::error::{self, Result};
use crate::repository::meta;
use crate::repository::{PackInfo, PackTable, Repository};

/// The format that this Lifeboat writes and reads.
pub(super) const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Export { format: u32, id: String, taken_at: DateTime<Utc> },
    File(FileLine),
    Missing(Unreadable),
    Pack(PackInfo),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FileLine {
    pub(super) name: String,
    pub(super) origin: String,
    pub(super) mode: Option<u32>,
    pub(super) size: u64,
    /// Where the content stands: frame, counted through the manifest's packs, and offset in it.
    pub(super) at: (u64, u32),
    /// Keyed digest of what counts for drift.
    pub(super) digest: String,
}

/// A manifest in memory.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    pub(super) files: Vec<FileLine>,
    pub(super) missing: Vec<Unreadable>,
    pub(super) packs: PackTable,
}

impl Manifest {
    pub(super) async fn read(repository: &Repository, environment: &str, sha256: &str) -> Result<Self> {
        let mut manifest = Self::default();
        let mut known = false;
        meta::read(repository, environment, sha256, |line: Line| {
            match line {
                Line::Export { format, .. } => known = format == FORMAT,
                Line::File(file) => manifest.files.push(file),
                Line::Missing(gap) => manifest.missing.push(gap),
                Line::Pack(pack) => drop(manifest.packs.push(pack)),
            }
            Ok(())
        })
        .await?;
        match known {
            true => Ok(manifest),
            false => Err(error::integrity(format!("meta/{sha256} is not a configuration export of format {FORMAT}"))
                .hint("a newer Lifeboat may have written it: use that one")),
        }
    }
}

/// A digest that tells nothing to those who lack the index key, not even that two files are equal.
pub(super) fn keyed(repository: &Repository, name: &str, digest: &str) -> String {
    let mut mac = repository.seal.index.content_mac();
    for part in ["configuration", name, digest] {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part.as_bytes());
    }
    hex::encode(mac.finish())
}
