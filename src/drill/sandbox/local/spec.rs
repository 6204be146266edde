//! What the processes of a local sandbox are told, as JSON on their command lines. It holds no secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::drill::sandbox::inside::{Door, Programs, Refusal};

/// What a sandbox is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The drill's directory; seen inside at its own path, and written.
    pub root: PathBuf,
    /// Further directories that are written, at their own paths.
    pub writable: Vec<PathBuf>,
    /// Files and directories that are read, beside the operating system's own.
    pub readable: Vec<PathBuf>,
    /// Name of the account inside.
    pub account: String,
    /// Its user id, inside and outside.
    pub uid: u32,
    /// Its group id, inside and outside.
    pub gid: u32,
    /// Ways in.
    pub doors: Vec<Door>,
    /// Where attempts to connect out are written, in a directory that programs do not see.
    pub egress: PathBuf,
    /// Size of each of the file systems in memory (`/dev/shm`), in bytes.
    pub memory_files: u64,
    /// Limits of each program.
    pub programs: Programs,
}

impl Spec {
    pub(super) fn to_argument(&self) -> String {
        serde_json::to_string(self).expect("a specification is plain data")
    }

    /// The directory that programs do not see.
    pub(super) fn hidden(&self) -> Option<&std::path::Path> {
        self.egress.parent().filter(|dir| *dir != self.root)
    }
}

/// What the processes of a sandbox tell Lifeboat while it starts, one JSON object on each line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    /// PID 1 was started; its number as seen from outside.
    Started(u32),
    /// It stands.
    Ready(Ready),
    /// The host refuses it.
    Refused(Refusal),
}

/// A sandbox that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ready {
    /// Its namespaces: kind and name in `/proc`.
    pub(super) namespaces: BTreeMap<String, String>,
    /// How a program inside was confined.
    pub(super) confinement: Confinement,
}

/// How a program inside is confined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confinement {
    /// Version of Landlock's interface that was enforced.
    pub(super) landlock_abi: Option<u32>,
}

/// Tells Lifeboat.
pub(super) fn tell(told: &Told) {
    use std::io::Write;
    let line = serde_json::to_string(told).expect("plain data");
    let mut out = std::io::stdout().lock();
    // A Lifeboat that is gone needs not be told; the pipe ends this process too.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
