//! `sandbox:enter`: joins the namespaces of a sandbox, starts a program in them, hands it SIGINT, SIGQUIT and
//! SIGTERM, and ends as it ends.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::spec::Spec;
use crate::drill::sandbox::inside::{argument, close_inherited, forwarded};
use crate::drill::sandbox::place::PROGRAM_FILE;
use crate::error::{self, ErrorKind, Result, ResultExt};

/// Which sandbox, and what runs in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// What the sandbox is like.
    pub(super) spec: Spec,
    /// Its PID 1, as seen from outside.
    pub(super) pid: u32,
    /// Its PID namespace: the number of a process may belong to another by now.
    pub(super) pid_namespace: String,
}

/// Runs the program; the exit code is its own, 128 + n where signal n ended it.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    close_inherited();
    match run(arguments) {
        Ok(status) => ExitCode::from(code(status)),
        Err(e) => {
            eprintln!("lifeboat: the sandbox cannot be entered: {}", e.message());
            ExitCode::from(125)
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(125);
    u8::try_from(number).unwrap_or(125)
}

fn run(arguments: &[OsString]) -> Result<ExitStatus> {
    let entry: Entry = argument(arguments, 0)?;
    let directory = std::env::current_dir().or_err(ErrorKind::Internal, || "no working directory".to_owned())?;
    join(&entry)?;
    // Signals wait until they can be handed on; the program lets them through again for itself.
    let mut awaited = forwarded();
    awaited.add(Signal::SIGCHLD);
    awaited.thread_block().or_err(ErrorKind::Internal, || "signals cannot be held back".to_owned())?;
    let program = entry.spec.root.join(PROGRAM_FILE);
    let mut command = Command::new(&program);
    command.arg(super::PROGRAM).arg(entry.spec.to_argument()).arg(directory).args(&arguments[1..]);
    let started = command.spawn();
    let mut child = started.or_err(ErrorKind::Internal, || format!("cannot start {}", program.display()))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    loop {
        if let Some(status) = child.try_wait().or_err(ErrorKind::Internal, || "a program is lost".to_owned())? {
            return Ok(status);
        }
        match SigSet::wait(&awaited) {
            // It may have ended in the meantime.
            Ok(signal) if signal != Signal::SIGCHLD => drop(kill(pid, signal)),
            _ => {}
        }
    }
}

/// Joins every namespace of the sandbox, the user namespace first: it gives the right to join the others.
fn join(entry: &Entry) -> Result<()> {
    let gone = || "the sandbox has ended".to_owned();
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("net", CloneFlags::CLONE_NEWNET),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let mut open = Vec::new();
    for (kind, flag) in kinds {
        let file = File::open(format!("/proc/{}/ns/{kind}", entry.pid)).or_err(ErrorKind::Internal, gone)?;
        open.push((file, flag));
    }
    let now = std::fs::read_link(format!("/proc/{}/ns/pid", entry.pid)).or_err(ErrorKind::Internal, gone)?;
    if now.as_os_str() != entry.pid_namespace.as_str() {
        return Err(error::internal(gone()));
    }
    for (file, flag) in open {
        setns(file, flag).or_err(ErrorKind::Internal, || "a namespace cannot be joined".to_owned())?;
    }
    Ok(())
}
