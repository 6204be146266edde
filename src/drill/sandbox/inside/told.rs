//! What the processes inside are told on their command lines, and how they say that a host refuses them.

use std::collections::BTreeMap;
use std::ffi::OsString;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Result, ResultExt, internal};

/// Reads the argument at `place`.
pub(in crate::drill::sandbox) fn argument<T: for<'de> Deserialize<'de>>(
    arguments: &[OsString],
    place: usize,
) -> Result<T> {
    let text = arguments.get(place).and_then(|a| a.to_str()).ok_or_else(|| internal("an argument is missing"))?;
    serde_json::from_str(text).or_err(ErrorKind::Internal, || "an argument does not parse".to_owned())
}

/// What a host does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::drill::sandbox) struct Refusal {
    /// What was tried.
    pub(in crate::drill::sandbox) what: String,
    /// Why it failed.
    pub(in crate::drill::sandbox) why: String,
    /// Whether the host's policy forbids it, rather than something being wrong.
    pub(in crate::drill::sandbox) policy: bool,
}

impl Refusal {
    pub(in crate::drill::sandbox) fn new(what: impl Into<String>, why: Errno) -> Self {
        let policy =
            matches!(why, Errno::EPERM | Errno::EACCES | Errno::ENOSPC | Errno::ENOSYS | Errno::EUSERS | Errno::EINVAL);
        Self { what: what.into(), why: why.desc().to_owned(), policy }
    }

    pub(in crate::drill::sandbox) fn io(what: impl Into<String>, why: &std::io::Error) -> Self {
        match why.raw_os_error() {
            Some(number) => Self::new(what, Errno::from_raw(number)),
            None => Self { what: what.into(), why: why.to_string(), policy: false },
        }
    }
}

/// Closes what this process inherited beside its standard streams, so that nothing leads out of the sandbox.
pub(in crate::drill::sandbox) fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for number in open.into_iter().filter(|number| *number > 2) {
        // The directory that was just listed is closed already.
        let _ = nix::unistd::close(number);
    }
}

/// Waits for those who ended and have lost their parent: a task of PID 1.
pub(in crate::drill::sandbox) fn reap_orphans() {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// The namespaces that this process is in: kind and name in `/proc`.
pub(in crate::drill::sandbox) fn namespaces() -> BTreeMap<String, String> {
    let kinds = ["user", "net", "mnt", "pid", "ipc", "uts"];
    let named = |kind: &str| Some((kind.to_owned(), std::fs::read_link(format!("/proc/self/ns/{kind}")).ok()?));
    kinds.iter().filter_map(|kind| named(kind)).map(|(kind, name)| (kind, name.display().to_string())).collect()
}
