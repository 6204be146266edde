//! in-toto Statements, version 1: which objects an entry is about, and the entry itself.

use serde::{Deserialize, Serialize};

use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::evidence::entry::{Entry, FORMAT};

/// The statement type of in-toto's specification.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The type of our predicate, a ledger entry.
pub const PREDICATE_TYPE: &str = "urn:lifeboat:ledger-entry:v1";

/// An object in the repository that an entry commits, by name and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Name of the object in the repository.
    pub name: String,
    /// Its digests.
    pub digest: Digests,
}

/// Digests of an object's stored bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Subject {
    /// The object `name`, whose bytes have this SHA-256.
    pub fn new(name: impl Into<String>, sha256: impl Into<String>) -> Self {
        Self { name: name.into(), digest: Digests { sha256: sha256.into() } }
    }
}

/// A statement: the payload of every envelope in the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The objects that the entry commits; in-toto wants at least one.
    pub subject: Vec<Subject>,
    /// [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// What happened.
    pub predicate: Entry,
}

impl Statement {
    /// A statement of `entry` about `subject`.
    pub fn new(subject: Vec<Subject>, predicate: Entry) -> Self {
        let (statement_type, predicate_type) = (STATEMENT_TYPE.to_owned(), PREDICATE_TYPE.to_owned());
        Self { statement_type, subject, predicate_type, predicate }
    }

    /// The payload to sign.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a statement has text keys only and always serialises")
    }

    /// Reads a payload whose signature was checked.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let probe: Probe = serde_json::from_slice(bytes)
            .or_err(ErrorKind::Integrity, || "the payload is not a statement of Lifeboat".to_owned())?;
        if probe.statement_type != STATEMENT_TYPE || probe.predicate_type != PREDICATE_TYPE {
            return Err(error::integrity(format!(
                "a {} with a {}, not a ledger entry",
                probe.statement_type, probe.predicate_type
            )));
        }
        if probe.predicate.format != FORMAT {
            return Err(error::integrity(format!(
                "written in format {}; this Lifeboat reads format {FORMAT}",
                probe.predicate.format
            ))
            .hint("use the version of Lifeboat that wrote it, or a newer one"));
        }
        serde_json::from_slice(bytes).or_err(ErrorKind::Integrity, || "the statement is malformed".to_owned())
    }
}

/// What has to be right before the rest may be understood.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(rename = "_type")]
    statement_type: String,
    predicate_type: String,
    predicate: ProbedEntry,
}

#[derive(Deserialize)]
struct ProbedEntry {
    format: u32,
}
