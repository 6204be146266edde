//! What the processes of a sandbox are told, as JSON on their command lines. It holds no secret.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Result, ResultExt, internal};

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

/// A way in: a Unix socket that leads to a port of the sandbox's loopback interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// The port.
    pub port: u16,
    /// The socket; a short path.
    pub socket: PathBuf,
}

/// Limits of each program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// Open files.
    pub files: u64,
    /// Processes and threads of the account in the sandbox.
    pub processes: u64,
    /// Bytes of one file; `None`: no limit.
    pub file_size: Option<u64>,
}

impl Default for Programs {
    fn default() -> Self {
        Self { files: 8192, processes: 4096, file_size: None }
    }
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

/// Reads the argument at `place`.
pub(super) fn argument<T: for<'de> Deserialize<'de>>(arguments: &[OsString], place: usize) -> Result<T> {
    let text = arguments.get(place).and_then(|a| a.to_str()).ok_or_else(|| internal("an argument is missing"))?;
    serde_json::from_str(text).or_err(ErrorKind::Internal, || "an argument does not parse".to_owned())
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

/// What a host does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    /// What was tried.
    pub(super) what: String,
    /// Why it failed.
    pub(super) why: String,
    /// Whether the host's policy forbids it, rather than something being wrong.
    pub(super) policy: bool,
}

impl Refusal {
    pub(super) fn new(what: impl Into<String>, why: nix::errno::Errno) -> Self {
        use nix::errno::Errno;
        let policy =
            matches!(why, Errno::EPERM | Errno::EACCES | Errno::ENOSPC | Errno::ENOSYS | Errno::EUSERS | Errno::EINVAL);
        Self { what: what.into(), why: why.desc().to_owned(), policy }
    }

    pub(super) fn io(what: impl Into<String>, why: &std::io::Error) -> Self {
        match why.raw_os_error() {
            Some(number) => Self::new(what, nix::errno::Errno::from_raw(number)),
            None => Self { what: what.into(), why: why.to_string(), policy: false },
        }
    }
}

/// Tells Lifeboat.
pub(super) fn tell(told: &Told) {
    use std::io::Write;
    let line = serde_json::to_string(told).expect("plain data");
    let mut out = std::io::stdout().lock();
    // A Lifeboat that is gone needs not be told; the pipe ends this process too.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Closes what this process inherited beside its standard streams, so that nothing leads out of the sandbox.
pub(super) fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for number in open.into_iter().filter(|number| *number > 2) {
        // The directory that was just listed is closed already.
        let _ = nix::unistd::close(number);
    }
}
