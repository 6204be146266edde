//! What damaged files and references to missing ones amount to: who needs them, and whether a capture is complete.

use super::ingest::Flaw;
use super::name::FileName;
use super::references::Held;
use super::{Example, Reference};
use crate::evidence::entry::Suspect;

/// A file in trouble and who needs it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Damage {
    /// Its name.
    pub file: String,
    /// What is wrong.
    pub reason: String,
    /// One of the attachments that refer to it; null where none does.
    pub attachment: Option<Example>,
}

/// What flaws and references amount to.
pub(super) struct Verdict {
    pub(super) suspects: Vec<Suspect>,
    /// Everything that a restore must not blame on the repository.
    pub(super) damaged: Vec<Suspect>,
    pub(super) damage: Vec<Damage>,
    pub(super) complete: bool,
}

impl Verdict {
    pub(super) fn new(flawed: &[(FileName, Flaw)], held: &Held) -> Self {
        let mut damage: Vec<Damage> = flawed
            .iter()
            .map(|(name, flaw)| Damage {
                file: name.to_string(),
                reason: flaw.to_string(),
                attachment: held.flawed.get(name).cloned(),
            })
            .collect();
        let odd = "its directory does not belong to its name, so no content can be right";
        damage.extend(held.odd.iter().map(|r| self::damage(r, odd)));
        let suspects: Vec<Suspect> = damage.iter().map(suspect).collect();
        damage.extend(held.missing.iter().map(|r| self::damage(r, "missing at the source")));
        let complete = damage.iter().all(|d| d.attachment.is_none());
        Self { suspects, damaged: damage.iter().map(suspect).collect(), damage, complete }
    }
}

pub(super) fn damage(reference: &Reference, reason: &str) -> Damage {
    let attachment = Some(reference.example.clone());
    Damage { file: reference.store_fname.clone(), reason: reason.to_owned(), attachment }
}

pub(super) fn suspect(damage: &Damage) -> Suspect {
    let who = match &damage.attachment {
        Some(example) => format!("; needed by {example}"),
        None => "; no attachment needs it".to_owned(),
    };
    Suspect { name: damage.file.clone(), reason: format!("{}{who}", damage.reason) }
}
