//! What a configuration export is, and what changed between two of them.
//!
//! Promises: file names are unique, sorted and safe as relative paths; what could not be read is
//! named with its reason, so a partial export never looks complete; and two exports of an
//! unchanged environment have equal digests, although some sources (`\restrict` keys in dumps,
//! next calls of crons, process ids) differ every time.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The member of a JSON file of ours that holds what changes by itself; drift ignores it.
pub(crate) const VOLATILE: &str = "volatile";

/// One file of an export, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Stable logical name, a relative path: `postgresql/pg_hba.conf`, `odoo/retail/modules.json`.
    pub name: String,
    /// Path on the host, or the query or program that it came from.
    pub origin: String,
    /// Permission bits on the host; absent for what was not a file or was read through SQL from afar.
    pub mode: Option<u32>,
    /// The bytes.
    pub content: Vec<u8>,
}

impl ConfigFile {
    /// SHA-256 (hex) of what counts for drift: the content, without what differs at every reading
    /// (`\restrict` keys of `pg_dumpall`, the `volatile` member of JSON files made by an export).
    pub fn drift_digest(&self) -> String {
        let made_here = !self.name.starts_with("files/") && !self.origin.starts_with('/');
        if made_here && self.name.ends_with(".json") {
            if let Ok(serde_json::Value::Object(mut object)) = serde_json::from_slice(&self.content) {
                object.remove(VOLATILE);
                return hex::encode(Sha256::digest(serde_json::Value::Object(object).to_string()));
            }
        } else if made_here && self.name.ends_with(".sql") {
            let mut hash = Sha256::new();
            for line in self.content.split_inclusive(|b| *b == b'\n') {
                if !line.starts_with(b"\\restrict ") && !line.starts_with(b"\\unrestrict ") {
                    hash.update(line);
                }
            }
            return hex::encode(hash.finalize());
        }
        hex::encode(Sha256::digest(&self.content))
    }
}

/// A file, or a part of one, that belongs to the export and could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// The logical name that it has, or would have.
    pub name: String,
    /// Where it was looked for.
    pub origin: String,
    /// Why it is missing, for people.
    pub reason: String,
}

/// Everything that was collected at one time.
#[derive(Debug, Clone)]
pub struct Export {
    /// Sorted by name, no name twice.
    pub files: Vec<ConfigFile>,
    /// What is missing. A name that also stands in `files` means: a part of that file is missing.
    pub unreadable: Vec<Unreadable>,
    /// When the collection began.
    pub taken_at: DateTime<Utc>,
}

impl Export {
    /// Whether something that belongs to the export is missing from it.
    pub fn is_partial(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Name and drift digest of every file: what to keep for [`diff`].
    pub fn digests(&self) -> Vec<(String, String)> {
        self.files.iter().map(|f| (f.name.clone(), f.drift_digest())).collect()
    }
}

/// How a file differs from the previous export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Was not there before.
    Added,
    /// Is no longer there.
    Removed,
    /// Has other content.
    Changed,
    /// Was there before and cannot be read now; whether it changed is unknown.
    Unreadable,
}

/// One difference between two exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Logical name of the file.
    pub name: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What changed since `previous` (as [`Export::digests`] gave it), sorted by name.
pub fn diff(previous: &[(String, String)], now: &Export) -> Vec<Change> {
    changes(previous, &now.digests(), &now.unreadable)
}

/// The same from names and digests alone, whatever digests they are.
pub(super) fn changes(before: &[(String, String)], now: &[(String, String)], gaps: &[Unreadable]) -> Vec<Change> {
    let before: BTreeMap<&str, &str> = before.iter().map(|(n, d)| (n.as_str(), d.as_str())).collect();
    let after: BTreeMap<&str, &str> = now.iter().map(|(n, d)| (n.as_str(), d.as_str())).collect();
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let unreadable = |name: &str| gaps.iter().any(|u| u.name == name);
    let change = |name: &&str| {
        let kind = match (before.get(name), after.get(name)) {
            (None, _) => ChangeKind::Added,
            (Some(_), None) if unreadable(name) => ChangeKind::Unreadable,
            (Some(_), None) => ChangeKind::Removed,
            (Some(a), Some(b)) if a != b => ChangeKind::Changed,
            _ => return None,
        };
        Some(Change { name: (*name).to_owned(), kind })
    };
    names.iter().filter_map(change).collect()
}

/// Gathers files and failures while an export runs.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    files: BTreeMap<String, ConfigFile>,
    unreadable: Vec<Unreadable>,
}

impl Collector {
    /// Keeps a file. The same origin twice is one file; another origin under a taken name gets a
    /// name of its own, because losing one of the two would be silent.
    pub(crate) fn add(&mut self, file: ConfigFile) {
        let mut file = file;
        let wanted = file.name.clone();
        let mut turn = 2;
        while let Some(there) = self.files.get(&file.name) {
            if there.origin == file.origin {
                return;
            }
            file.name = format!("{wanted}~{turn}");
            turn += 1;
        }
        self.files.insert(file.name.clone(), file);
    }

    /// Keeps a value as a JSON file.
    pub(crate) fn json(&mut self, name: impl Into<String>, origin: impl Into<String>, value: &serde_json::Value) {
        let content = format!("{value:#}\n").into_bytes();
        self.add(ConfigFile { name: name.into(), origin: origin.into(), mode: None, content });
    }

    /// Names something that could not be read.
    pub(crate) fn missing(&mut self, name: impl Into<String>, origin: impl Into<String>, reason: impl Into<String>) {
        let gap = Unreadable { name: name.into(), origin: origin.into(), reason: reason.into() };
        if !self.unreadable.contains(&gap) {
            self.unreadable.push(gap);
        }
    }

    /// Keeps the JSON of a query, or the reason why there is none.
    pub(crate) fn query(&mut self, name: String, origin: String, result: Result<serde_json::Value, String>) {
        match result {
            Ok(value) => self.json(name, origin, &value),
            Err(reason) => self.missing(name, origin, reason),
        }
    }

    pub(crate) fn finish(self, taken_at: DateTime<Utc>) -> Export {
        let mut unreadable = self.unreadable;
        unreadable.sort_by(|a, b| (&a.name, &a.origin).cmp(&(&b.name, &b.origin)));
        Export { files: self.files.into_values().collect(), unreadable, taken_at }
    }
}

/// A name as one component of a logical name: database names may hold slashes and worse.
pub(crate) fn component(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if at == 0 => safe.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => safe.push(char::from(byte)),
            _ => safe.push_str(&format!("%{byte:02X}")),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, origin: &str, content: &str) -> ConfigFile {
        ConfigFile { name: name.into(), origin: origin.into(), mode: None, content: content.as_bytes().to_vec() }
    }

    fn export(files: Vec<ConfigFile>, unreadable: Vec<Unreadable>) -> Export {
        let mut collector = Collector { unreadable, ..Collector::default() };
        files.into_iter().for_each(|f| collector.add(f));
        collector.finish(DateTime::UNIX_EPOCH)
    }

    #[test]
    fn diff_names_every_kind_of_change() {
        let before = export(["a", "b", "c", "d"].map(|n| file(n, "/x", n)).to_vec(), vec![]).digests();
        let gap = Unreadable { name: "d".into(), origin: "/x".into(), reason: "EACCES".into() };
        let now = export(vec![file("a", "/x", "a"), file("b", "/x", "other"), file("e", "/x", "")], vec![gap]);
        let found: Vec<_> = diff(&before, &now).into_iter().map(|c| (c.name, c.kind)).collect();
        let expected = [
            ("b", ChangeKind::Changed),
            ("c", ChangeKind::Removed),
            ("d", ChangeKind::Unreadable),
            ("e", ChangeKind::Added),
        ];
        assert_eq!(found, expected.map(|(n, k)| (n.to_owned(), k)));
        assert!(diff(&now.digests(), &now).is_empty());
    }

    #[test]
    fn what_changes_by_itself_is_not_drift_but_is_kept_in_foreign_files() {
        let a = file("odoo/x/crons.json", "query", r#"{"crons":[1],"volatile":{"next":1}}"#);
        let b = file("odoo/x/crons.json", "query", r#"{"crons":[1],"volatile":{"next":2}}"#);
        let c = file("odoo/x/crons.json", "query", r#"{"crons":[2],"volatile":{"next":2}}"#);
        assert_eq!(a.drift_digest(), b.drift_digest());
        assert_ne!(b.drift_digest(), c.drift_digest());
        let foreign = |n| file("files/etc/x.json", "/etc/x.json", &format!(r#"{{"volatile":{n}}}"#)).drift_digest();
        assert_ne!(foreign(1), foreign(2));
        let dump = |key| file("postgresql/globals.sql", "pg_dumpall", &format!("\\restrict {key}\nCREATE ROLE x;\n"));
        assert_eq!(dump("abc").drift_digest(), dump("def").drift_digest());
    }

    #[test]
    fn a_taken_name_never_hides_another_file() {
        let both = export(vec![file("n", "/1", "1"), file("n", "/2", "2"), file("n", "/1", "1")], vec![]);
        assert_eq!(both.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["n", "n~2"]);
    }

    #[test]
    fn database_names_become_safe_components() {
        assert_eq!(component("retail-19.0"), "retail-19.0");
        assert_eq!(component("../etc"), "%2E.%2Fetc");
        assert_ne!(component("é"), component("è"));
    }
}
