//! What binds a document to the configuration that it was written from, and whether it still says what a new one would.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::model::Runbook;
use crate::error::{self, ErrorKind, Result, ResultExt as _};

/// What a document says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// 1.
    pub format: u32,
    /// The environment.
    pub environment: String,
    /// When it was written.
    pub written_at: DateTime<Utc>,
    /// Version of the program that wrote it.
    pub version: String,
    /// SHA-256 over the configuration files.
    pub configuration: String,
    /// SHA-256 over all commands.
    pub commands: String,
    /// The scenarios in it.
    pub scenarios: Vec<String>,
    /// SHA-256 over the document's own text.
    pub text: String,
}

/// Whether a document still holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Configuration and commands are the same.
    Current,
    /// The configuration is another one; what to do is the same.
    SameCommands,
    /// What to do is not what it says any more.
    Outdated,
    /// Somebody changed the document.
    Edited,
}

impl Marker {
    pub(super) fn of(runbook: &Runbook, text: &str) -> Self {
        Self {
            format: 1,
            environment: runbook.environment.clone(),
            written_at: runbook.written_at,
            version: runbook.version.to_owned(),
            configuration: runbook.configuration.clone(),
            commands: digest(&runbook.commands()),
            scenarios: runbook.scenarios.iter().map(|s| s.id.to_owned()).collect(),
            text: digest(text),
        }
    }

    /// The marker in one line; it holds no `--` and nothing that ends a comment.
    pub(super) fn line(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers").replace("--", "-\\u002d").replace('>', "\\u003e")
    }
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// The marker of a document, and whether its text is the one that it was written with.
pub fn read_marker(document: &str) -> Result<(Marker, bool)> {
    let none = || {
        error::usage("this is no runbook of Lifeboat: it does not say what it was written from")
            .hint("`lifeboat runbook -e ENV --out DIR` writes one")
    };
    let (line, text) = match document.split_once("<!-- lifeboat-runbook: ") {
        Some((text, rest)) => (rest.split_once(" -->").ok_or_else(none)?.0.to_owned(), text.to_owned()),
        None => {
            let (_, rest) = document.split_once("<meta name=\"lifeboat-runbook\" content=\"").ok_or_else(none)?;
            let line = rest.split_once('"').ok_or_else(none)?.0;
            let (_, main) = document.split_once("<main>").ok_or_else(none)?;
            let text = main.rsplit_once("</main>").ok_or_else(none)?.0;
            (line.replace("&quot;", "\"").replace("&amp;", "&"), text.to_owned())
        }
    };
    let marker: Marker = serde_json::from_str(&line)
        .or_err(ErrorKind::Usage, || "what this runbook says of itself cannot be read".into())?;
    let whole = marker.text == digest(&text);
    Ok((marker, whole))
}

/// Whether a document with this marker holds beside `now`, the runbook of the same scenarios written anew.
pub fn standing(marker: &Marker, whole: bool, now: &Runbook) -> Standing {
    match (whole, marker.commands == digest(&now.commands()), marker.configuration == now.configuration) {
        (false, ..) => Standing::Edited,
        (true, false, _) => Standing::Outdated,
        (true, true, false) => Standing::SameCommands,
        (true, true, true) => Standing::Current,
    }
}
