//! Files of an export without their secrets, so that people can read what changed and a host that only
//! backs up may keep it: the contents themselves it can seal and not open again.
//!
//! Promises: a secret is replaced by a keyed digest of it, `<secret 3f9a2c81d04b>`, so that a changed
//! secret is seen as changed, the same secret in two places as the same, and nobody without the index
//! key can try guesses against it. In doubt a value is taken for a secret: what is masked too much is still
//! compared. What is no text, or too long for people, is kept as a digest of the whole.
//!
//! What counts as a secret: values of names that say so (`words`), in any of the notations that
//! configuration comes in (`text`, `json`); passwords in URLs and connection strings; private keys; tokens
//! and password hashes of known make; in files that nobody here knows, whatever looks random (`looks`).
//! What changes by itself (`volatile` members, `\restrict` keys of dumps) is left out.

mod json;
mod looks;
mod text;
mod words;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::export::ConfigFile;
use crate::vault::IndexKey;
use crate::vault::index_key::MacBuilder;

/// A text above this is compared as a whole.
const LARGEST: usize = 2 << 20;

/// Names of files that hold nothing but secrets, whatever their notation.
const SEALED: [&str; 10] =
    [".pgpass", "pgpass", ".htpasswd", "htpasswd", "id_rsa", "id_ed25519", "passwd", "shadow", "credentials", ".netrc"];

/// A file of an export without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskedFile {
    /// Logical name, as in the export.
    pub name: String,
    /// Where it came from, without secrets.
    pub origin: String,
    /// Permission bits.
    pub mode: Option<u32>,
    /// The masked text; `None` where the file is no text.
    pub text: Option<String>,
    /// Keyed digest of the whole content, for what is no text.
    pub digest: String,
}

/// Masks secrets under a repository's index key.
#[derive(Debug, Clone)]
pub(crate) struct Masker {
    mac: MacBuilder,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    /// `ir_config_parameter`, exported.
    Parameters,
    /// `pg_settings`, exported.
    Settings,
    /// Running processes, exported.
    Processes,
    /// Other facts, exported: columns were chosen so that they hold no secret.
    Facts,
    /// Roles, as `pg_dumpall` writes them.
    Sql,
    /// JSON from elsewhere.
    Json,
    /// Lines.
    Lines,
    /// Nothing but secrets.
    Sealed,
}

impl Masker {
    /// With the index key, the same secret gets the same digest everywhere in the repository.
    pub(crate) fn new(key: &IndexKey) -> Self {
        Self { mac: key.content_mac() }
    }

    /// The file without its secrets.
    pub(crate) fn mask(&self, file: &ConfigFile) -> MaskedFile {
        let text = std::str::from_utf8(&file.content).ok().filter(|t| t.len() <= LARGEST && !t.contains('\0'));
        let masked = text.map(|text| match notation(file, text) {
            Notation::Parameters => self.parameters(text),
            Notation::Settings => self.settings(text),
            Notation::Processes => self.processes(text),
            Notation::Facts => self.facts(text),
            Notation::Json => self.foreign_json(text),
            Notation::Sql => self.sql(text),
            Notation::Lines => self.lines(text),
            Notation::Sealed => self.sealed(text),
        });
        MaskedFile {
            name: file.name.clone(),
            origin: self.plain(&file.origin),
            mode: file.mode,
            text: masked,
            digest: self.digest("content", &file.content),
        }
    }

    /// What stands in the place of a secret.
    pub(super) fn secret(&self, value: &str) -> String {
        self.stand_in("secret", value)
    }

    /// What stands in the place of something that is no secret and too long to read, or of a secret of a
    /// kind that people know by name.
    fn stand_in(&self, what: &str, value: &str) -> String {
        format!("<{what} {}>", &self.digest("secret", value.as_bytes())[..12])
    }

    fn digest(&self, about: &str, value: &[u8]) -> String {
        let mut mac = self.mac.clone();
        for part in [b"masked configuration".as_slice(), about.as_bytes(), value] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        hex::encode(mac.finish())
    }

    /// A file whose every line is a secret: how many there are can be seen, and which changed.
    fn sealed(&self, text: &str) -> String {
        if text.contains("-----BEGIN ") {
            return self.keys(text).into_owned();
        }
        text.lines()
            .map(|line| if line.trim().is_empty() { "\n".to_owned() } else { self.secret(line) + "\n" })
            .collect()
    }
}

fn notation(file: &ConfigFile, text: &str) -> Notation {
    // Files made by an export say a query or a program as their origin, files of the host a path.
    let made_here = !file.name.starts_with("files/") && !file.origin.starts_with('/');
    let base = file.name.rsplit('/').next().unwrap_or_default();
    let extension = base.rsplit_once('.').map(|(_, extension)| extension).unwrap_or_default();
    match base {
        "parameters.json" if made_here => Notation::Parameters,
        "settings.json" if made_here => Notation::Settings,
        "environment.json" if made_here => Notation::Processes,
        _ if made_here && extension == "json" => Notation::Facts,
        _ if made_here && extension == "sql" => Notation::Sql,
        _ if SEALED.contains(&base) || matches!(extension, "key" | "p12" | "pfx" | "age" | "kdbx" | "htpasswd") => {
            Notation::Sealed
        }
        _ if file.name.starts_with("odoo/keys/") || file.name.contains("/tls/") && extension == "key" => {
            Notation::Sealed
        }
        _ if text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<serde_json::Value>(text).is_ok() => {
            Notation::Json
        }
        _ => Notation::Lines,
    }
}
