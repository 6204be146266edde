//! Masked exports in the repository: a metadata object beside the manifest, sealed under the index key.
//!
//! ```text
//! {"masked": …} {"file": …}… {"missing": …}…
//! ```

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Side;
use crate::configuration::export::Unreadable;
use crate::configuration::mask::{MaskedFile, Masker};
use crate::configuration::store::read;
use crate::error::{self, ErrorKind, Result};
use crate::evidence::entry::ConfigurationExport;
use crate::evidence::{Body, LedgerEntry};
use crate::repository::Repository;
use crate::repository::meta::{self, MetaWriter};
use crate::repository::retention::State;

/// The format that this Lifeboat writes and reads.
const FORMAT: u32 = 1;

/// An export without its secrets.
#[derive(Debug, Clone)]
pub struct MaskedExport {
    /// The environment.
    pub environment: String,
    /// Id of the export.
    pub export: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// Its files, sorted by name.
    pub files: Vec<MaskedFile>,
    /// What it lacks.
    pub missing: Vec<Unreadable>,
}

impl MaskedExport {
    /// Which export it is.
    pub(super) fn side(&self) -> Side {
        Side { environment: self.environment.clone(), export: self.export.clone(), taken_at: self.taken_at }
    }

    /// Whether a file belongs to the export and could not be read.
    pub(super) fn lacks(&self, name: &str) -> bool {
        self.missing.iter().any(|gap| gap.name == name)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Masked { format: u32, export: String, taken_at: DateTime<Utc> },
    File(MaskedFile),
    Missing(Unreadable),
}

/// Stores a masked export; returns its name under `meta/` and its size.
pub(in crate::configuration) async fn store(repository: &Repository, export: &MaskedExport) -> Result<(String, u64)> {
    let mut writer = MetaWriter::new(repository)?;
    writer.line(&Line::Masked { format: FORMAT, export: export.export.clone(), taken_at: export.taken_at })?;
    for file in &export.files {
        writer.line(&Line::File(file.clone()))?;
    }
    for gap in &export.missing {
        writer.line(&Line::Missing(gap.clone()))?;
    }
    let object = writer.put(repository, &export.environment).await?;
    Ok((object.sha256, object.size))
}

/// The masked form of a committed export. One of an older Lifeboat has none: it is made from the contents, which a
/// recovery identity opens.
pub async fn load(repository: &Repository, environment: &str, entry: &ConfigurationExport) -> Result<MaskedExport> {
    let mut export = MaskedExport {
        environment: environment.to_owned(),
        export: entry.id.clone(),
        taken_at: entry.taken_at,
        files: Vec::new(),
        missing: Vec::new(),
    };
    let Some(masked) = &entry.masked else {
        let (files, missing) = read(repository, environment, entry).await.map_err(|e| match e.kind() {
            ErrorKind::Denied => e
                .context(format!("configuration export {} is of a Lifeboat that kept no masked form of it", entry.id))
                .hint("compare where the recovery key is, or take two exports with this Lifeboat first"),
            _ => e,
        })?;
        let masker = Masker::new(&repository.seal.index);
        export.files = files.iter().map(|file| masker.mask(file)).collect();
        export.missing = missing;
        return Ok(export);
    };
    let mut known = false;
    meta::read(repository, environment, masked, |line: Line| {
        match line {
            Line::Masked { format, .. } => known = format == FORMAT,
            Line::File(file) => export.files.push(file),
            Line::Missing(gap) => export.missing.push(gap),
        }
        Ok(())
    })
    .await?;
    match known {
        true => Ok(export),
        false => Err(error::integrity(format!("meta/{masked} is not a masked export of format {FORMAT}"))
            .hint("a newer Lifeboat may have written it: use that one")),
    }
}

/// Committed exports, newest first.
pub fn newest(entries: &[LedgerEntry]) -> impl Iterator<Item = &ConfigurationExport> {
    let state = State::of(entries);
    let living = entries.iter().rev().filter(move |entry| !state.is_gone(entry.sequence));
    living.filter_map(|entry| match &entry.statement.predicate.body {
        Body::ConfigurationExport(export) => Some(export),
        _ => None,
    })
}
