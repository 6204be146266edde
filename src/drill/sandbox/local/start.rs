//! `sandbox:start`: makes the namespaces, starts PID 1 in them, and ends with it.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

use super::spec::{Told, tell};
use crate::drill::sandbox::inside::{Refusal, close_inherited};

/// Makes the namespaces and waits for the end of PID 1.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    close_inherited();
    match namespaces().and_then(|()| first_process(arguments)) {
        Ok(code) => code,
        Err(refusal) => {
            tell(&Told::Refused(refusal));
            ExitCode::from(3)
        }
    }
}

fn namespaces() -> Result<(), Refusal> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| Refusal::new("a user namespace cannot be made", e))?;
    map(0, uid.as_raw(), 0, gid.as_raw())?;
    let others = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(others).map_err(|e| Refusal::new("network, mount and process namespaces cannot be made", e))
}

/// Maps one user and one group of a new user namespace to those of its parent.
pub(super) fn map(uid: u32, outer_uid: u32, gid: u32, outer_gid: u32) -> Result<(), Refusal> {
    // Absent before Linux 3.19; denied already in a nested namespace.
    let _ = std::fs::write("/proc/self/setgroups", "deny");
    for (file, inner, outer) in [("uid_map", uid, outer_uid), ("gid_map", gid, outer_gid)] {
        std::fs::write(format!("/proc/self/{file}"), format!("{inner} {outer} 1\n"))
            .map_err(|e| Refusal::io("accounts cannot be mapped into a user namespace", &e))?;
    }
    Ok(())
}

fn first_process(arguments: &[OsString]) -> Result<ExitCode, Refusal> {
    let failed = |e: std::io::Error| Refusal::io("PID 1 of the sandbox cannot be started", &e);
    let mut child = Command::new("/proc/self/exe").arg(super::INIT).args(arguments).spawn().map_err(failed)?;
    tell(&Told::Started(child.id()));
    let status = child.wait().map_err(failed)?;
    Ok(ExitCode::from(status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1))))
}
