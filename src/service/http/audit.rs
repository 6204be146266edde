//! Who did what: one line of JSON for each sign-in, action and refusal, in `<state_dir>/audit.jsonl`. Each line carries
//! the SHA-256 of the line before it, so that one that was taken out or changed is noticed; whoever can write the file
//! can of course write all of it anew, so ship it elsewhere where that matters. What changes an environment is in its
//! signed ledger as well.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::client::Client;
use super::visitor::Visitor;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::runtime::Runtime;

/// The longest stretch at the end of the file that is read.
const TAIL: u64 = 256 << 10;
/// The longest text in a line that came from a request.
const LONGEST: usize = 300;

/// The audit log.
#[derive(Debug)]
pub(crate) struct Audit {
    path: PathBuf,
    file: Mutex<Open>,
    runtime: Runtime,
}

#[derive(Debug)]
struct Open {
    file: File,
    previous: Option<String>,
}

/// A line of the audit log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Line {
    /// When.
    pub(crate) at: chrono::DateTime<chrono::Utc>,
    /// Who; null where nobody was signed in.
    pub(crate) person: Option<String>,
    /// His role.
    pub(crate) role: Option<String>,
    /// The address that he came from.
    pub(crate) client: String,
    /// What he did.
    pub(crate) action: String,
    /// To what.
    pub(crate) detail: String,
    /// How it ended.
    pub(crate) outcome: String,
    /// SHA-256 of the line before; null in the first.
    pub(crate) previous: Option<String>,
}

impl Audit {
    /// Opens the log in `directory`, and goes on behind its last line.
    ///
    /// # Errors
    /// Config where the file cannot be opened.
    pub(crate) fn open(directory: &Path, runtime: &Runtime) -> Result<Self> {
        let path = directory.join("audit.jsonl");
        let cannot = || format!("cannot open the audit log {}", path.display());
        std::fs::create_dir_all(directory).or_err(ErrorKind::Config, cannot)?;
        let mut options = OpenOptions::new();
        options.create(true).read(true).append(true).mode(0o600);
        let mut file = options.open(&path).or_err(ErrorKind::Config, cannot)?;
        let lines = tail(&mut file).or_err(ErrorKind::Config, cannot)?;
        let previous = lines.last().map(|line| hash(line));
        Ok(Self { path, file: Mutex::new(Open { file, previous }), runtime: runtime.clone() })
    }

    /// Notes something. What cannot be noted is told loudly, and happens all the same: an approval at 3 a.m. must not
    /// fail because a disk is full.
    pub(crate) fn note(&self, client: &Client, visitor: Option<&Visitor>, action: &str, detail: &str, outcome: &str) {
        let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let mut open = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line {
            at: self.runtime.now(),
            person: visitor.map(|v| v.name.clone()),
            role: visitor.map(|v| v.role.to_string()),
            client: client.address.to_string(),
            action: action.to_owned(),
            detail: short(detail),
            outcome: short(outcome),
            previous: open.previous.clone(),
        };
        let mut text = serde_json::to_string(&line).expect("plain data");
        tracing::info!(target: "lifeboat::audit", "{text}");
        let next = hash(&text);
        text.push('\n');
        match open.file.write_all(text.as_bytes()) {
            Ok(()) => open.previous = Some(next),
            Err(e) => self.runtime.emit(Event::Warning(format!(
                "the audit log {} cannot be written ({e}); not noted: {}",
                self.path.display(),
                text.trim_end()
            ))),
        }
    }

    /// The last `most` lines, newest first.
    ///
    /// # Errors
    /// Internal where the file cannot be read.
    pub(crate) fn newest(&self, most: usize) -> Result<Vec<Line>> {
        let cannot = || format!("cannot read the audit log {}", self.path.display());
        let mut file = File::open(&self.path).or_err(ErrorKind::Internal, cannot)?;
        let lines = tail(&mut file).or_err(ErrorKind::Internal, cannot)?;
        Ok(lines.iter().rev().filter_map(|line| serde_json::from_str(line).ok()).take(most).collect())
    }
}

fn hash(line: &str) -> String {
    hex::encode(Sha256::digest(line))
}

/// Whole lines at the end of the file.
fn tail(file: &mut File) -> std::io::Result<Vec<String>> {
    let length = file.seek(SeekFrom::End(0))?;
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    if from > 0 {
        lines.next();
    }
    Ok(lines.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_linked_over_restarts_and_a_cut_shows() {
        let directory = tempfile::tempdir().expect("directory");
        let client = Client { address: [127, 0, 0, 1].into(), secure: false };
        for round in 0..3 {
            let audit = Audit::open(directory.path(), &Runtime::silent()).expect("opens");
            for n in 0..2 {
                audit.note(&client, None, "sign in", &format!("{round}.{n} \"<&>\n{}", "x".repeat(9999)), "refused");
            }
        }
        let text = std::fs::read_to_string(directory.path().join("audit.jsonl")).expect("log");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "a line for each, whatever stands in it");
        let mut previous = None;
        for line in &lines {
            let said: Line = serde_json::from_str(line).expect("JSON");
            assert_eq!(said.previous, previous);
            assert!(said.detail.len() <= LONGEST);
            previous = Some(hash(line));
        }
        let audit = Audit::open(directory.path(), &Runtime::silent()).expect("opens");
        let newest = audit.newest(2).expect("read");
        assert!(newest.len() == 2 && newest[0].detail.starts_with("2.1"), "{newest:?}");
    }
}
