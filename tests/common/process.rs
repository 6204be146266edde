//! Processes: ending them, and what `/proc` says of them.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(60);

/// Signals a server and waits for its end; SIGKILL when it does not.
pub(super) fn end(mut server: Child, signal: Signal) -> ExitStatus {
    let pid = Pid::from_raw(server.id().cast_signed());
    let _ = kill(pid, signal);
    let until = Instant::now() + PATIENCE;
    loop {
        match server.try_wait().expect("a child") {
            Some(status) => return status,
            None if Instant::now() > until => {
                let _ = kill(pid, Signal::SIGKILL);
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The processes whose parent is `parent`.
pub(crate) fn children_of(parent: u32) -> BTreeSet<u32> {
    let processes =
        fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|pid| status_field(*pid, "PPid:").is_some_and(|value| value == parent.to_string())).collect()
}

/// Whether a process is there and not merely waiting to be reaped.
pub(crate) fn alive(pid: u32) -> bool {
    status_field(pid, "State:").is_some_and(|state| !state.starts_with('Z'))
}

pub(super) fn status_field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}
