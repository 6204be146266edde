//! What `/proc` says of a sandbox: who belongs to it, what they take, and that nobody is left.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{self, Result};

/// How long a killed process may take to go.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Every process of this host.
fn all() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Processes whose working directory lies in `root` (a deleted directory still shows its old name), or that
/// live in a mount namespace where `root` is mounted: the inside of a sandbox.
pub fn working_in(root: &Path) -> Vec<u32> {
    let ours = namespace(std::process::id(), "mnt");
    let belongs = |pid: &u32| {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
        cwd.is_ok_and(|cwd| cwd.starts_with(root)) || namespace(*pid, "mnt") != ours && mounts(*pid, root)
    };
    all().filter(belongs).collect()
}

/// Processes of a PID namespace, by the name of the namespace in `/proc` (`pid:[4026532000]`).
pub fn of_pid_namespace(name: &str) -> Vec<u32> {
    all().filter(|pid| namespace(*pid, "pid").as_deref() == Some(name)).collect()
}

/// The namespace of a process, as `/proc` names it; `None` where that cannot be told.
pub fn namespace(pid: u32, kind: &str) -> Option<String> {
    Some(std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?.to_str()?.to_owned())
}

/// Whether a process sees a mount at exactly `root`.
fn mounts(pid: u32, root: &Path) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|place| unescaped(place) == root.as_os_str().to_string_lossy())
}

/// A path in `mountinfo`, where blanks and backslashes are written in octal.
pub fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Memory of processes in bytes: each page counted once, shared ones in parts (PSS).
pub fn memory(processes: &[u32]) -> u64 {
    processes.iter().filter_map(|pid| proportional(*pid)).sum()
}

fn proportional(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// How many processes the kernel has ended for want of memory in the control group of a process; `None` where that
/// cannot be told.
pub fn ended_for_memory(pid: u32) -> Option<u64> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let (below, file) = events_of_memory(&groups)?;
    let text = std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(below).join(file)).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    count.trim().parse().ok()
}

/// Directory and file that tell it, of version 1 (a hierarchy for memory) or 2 (one for all).
fn events_of_memory(groups: &str) -> Option<(String, &'static str)> {
    let mut parts = groups.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
    let first = parts.clone().find(|[_, kinds, _]: &[&str; 3]| kinds.split(',').any(|kind| kind == "memory"));
    match first {
        Some([_, _, path]) => Some((format!("memory{path}"), "memory.oom_control")),
        None => {
            let [_, _, path] = parts.find(|[number, kinds, _]| *number == "0" && kinds.is_empty())?;
            Some((path.trim_start_matches('/').to_owned(), "memory.events"))
        }
    }
}

/// Kills what `find` finds until it finds nothing more.
///
/// # Errors
/// Internal, naming the processes that do not end.
pub async fn end(find: impl Fn() -> Vec<u32>) -> Result<()> {
    let began = Instant::now();
    loop {
        let left = find();
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let left: Vec<String> = left.iter().map(u32::to_string).collect();
            return Err(error::internal(format!("processes of the sandbox do not end: {}", left.join(", ")))
                .hint("look what they wait for (`cat /proc/PID/stack`), end them, and run `lifeboat drill reap`"));
        }
        for pid in left {
            // It may end by itself between the look and the signal.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mounts_are_read_as_they_are() {
        assert_eq!(unescaped(r"/a\040b/c\134d"), r"/a b/c\d");
        assert_eq!(unescaped(r"/end\04"), r"/end\04");
    }

    #[test]
    fn the_group_that_limits_memory_is_found() {
        let hybrid = "6:pids:/a\n4:memory:/libpod_parent/b\n0::/c\n";
        let file = ("memory/libpod_parent/b".to_owned(), "memory.oom_control");
        assert_eq!(events_of_memory(hybrid), Some(file));
        assert_eq!(events_of_memory("0::/system.slice/d\n"), Some(("system.slice/d".to_owned(), "memory.events")));
        assert_eq!(events_of_memory(""), None);
    }

    #[tokio::test]
    async fn those_who_work_in_a_directory_are_found_and_ended() {
        let folder = tempfile::tempdir().expect("dir");
        let mut child =
            std::process::Command::new("sleep").arg("600").current_dir(folder.path()).spawn().expect("sleep");
        let pid = child.id();
        assert_eq!(working_in(folder.path()), [pid]);
        assert!(memory(&[pid]) > 4096);
        let reaping = std::thread::spawn(move || child.wait());
        end(|| working_in(folder.path())).await.expect("ended");
        assert!(!reaping.join().expect("joined").expect("reaped").success());
    }
}
