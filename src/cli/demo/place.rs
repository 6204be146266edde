//! The directory that a demo lives in: made before anything else, removed after everything else.
//!
//! Only what the demo made itself is ever removed, by name. A mark with a lock on it says that a demo
//! runs there; a mark without the lock says that one was killed, and the next demo cleans up after it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind as Io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use rustix::fs::{FlockOperation, flock};

use super::cluster::{children_of, is_alive};
use crate::disk::require_empty;
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::postgres::account::Account;

const PREFIX: &str = "lifeboat-demo-";
const MARK: &str = ".lifeboat-demo";

/// Everything that a demo makes in its directory; the report is not among it.
const CONTENTS: [&str; 9] = [
    "lifeboat.toml",
    "recovery.key",
    "restore-tests",
    "state",
    "repository",
    "production",
    "restored",
    "drills",
    "socket",
];

/// Where the report goes when no directory is named.
const REPORT: &str = "lifeboat-demo-report";

/// The longest directory whose sockets PostgreSQL can still bind (107 bytes with `/socket/.s.PGSQL.5432.lock`).
const LONGEST: usize = 70;

/// How long leftovers of an interrupted demo may take to go.
const PATIENCE: Duration = Duration::from_secs(15);

/// A demo's directory.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    /// Whether the directory itself was made here.
    made: bool,
    report: PathBuf,
    sockets: PathBuf,
    account: Option<Account>,
    /// Holds the lock.
    _mark: File,
    /// Sockets of a demo whose own path does not suit them.
    _elsewhere: Option<tempfile::TempDir>,
}

impl Place {
    /// Makes the directory: `dir`, which must be absent or empty, or one below `temporary`.
    pub(super) fn create(dir: Option<&Path>, temporary: &Path, account: Option<Account>) -> Result<Self> {
        sweep(temporary);
        let (root, made, report) = match dir {
            Some(dir) => {
                let root = absolute(dir)?;
                let made = !root.exists();
                if !made && is_leftover(&root) {
                    clear(&root);
                }
                require_empty(&root)?;
                fs::create_dir_all(&root).map_err(|e| cannot("create", &root, e))?;
                let report = root.join("report");
                (root, made, report)
            }
            None => {
                let root = tempfile::Builder::new().prefix(PREFIX).tempdir_in(temporary);
                let root = root.map_err(|e| cannot("make a directory in", temporary, e))?.keep();
                (root, true, absolute(Path::new(REPORT))?)
            }
        };
        let mark = root.join(MARK);
        let mark = File::create(&mark).map_err(|e| cannot("create", &mark, e))?;
        flock(&mark, FlockOperation::NonBlockingLockExclusive)
            .or_err(ErrorKind::Internal, || format!("another demo works in {}", root.display()))?;
        let mut place =
            Self { sockets: root.join("socket"), root, made, report, account, _mark: mark, _elsewhere: None };
        match place.fill() {
            Ok(()) => Ok(place),
            Err(e) => {
                place.remove();
                Err(e)
            }
        }
    }

    fn fill(&mut self) -> Result<()> {
        if self.made {
            // Servers run as another account, which must be able to pass through.
            open(&self.root, 0o711)?;
        }
        if let Some(account) = &self.account {
            require_passable(&self.root, account)?;
        }
        fs::create_dir_all(&self.report)
            .map_err(|e| cannot("create", &self.report, e).hint("name a directory for everything: `--dir DIR`"))?;
        for name in ["restore-tests", "repository", "production", "restored", "drills"] {
            self.directory(name, 0o755)?;
        }
        if !is_fit_for_sockets(&self.root) {
            let elsewhere = tempfile::Builder::new().prefix(PREFIX).tempdir_in("/tmp");
            let elsewhere = elsewhere.map_err(|e| cannot("make a directory in", Path::new("/tmp"), e))?;
            self.sockets = elsewhere.path().to_owned();
            self._elsewhere = Some(elsewhere);
        } else {
            self.directory("socket", 0o700)?;
        }
        self.give(&self.sockets)
    }

    fn directory(&self, name: &str, mode: u32) -> Result<PathBuf> {
        let path = self.join(name);
        DirBuilder::new().mode(mode).create(&path).map_err(|e| cannot("create", &path, e))?;
        // The process may have a stricter umask than the servers' account can live with.
        open(&path, mode)?;
        Ok(path)
    }

    /// A new directory that belongs to the servers' account.
    pub(super) fn server_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory(name, 0o700)?;
        self.give(&path)?;
        Ok(path)
    }

    fn give(&self, path: &Path) -> Result<()> {
        match &self.account {
            Some(a) => chown(path, Some(a.uid), Some(a.gid)).map_err(|e| cannot("hand over", path, e)),
            None => Ok(()),
        }
    }

    /// A path in the directory.
    pub(super) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the report goes.
    pub(super) fn report(&self) -> &Path {
        &self.report
    }

    /// Where servers put their sockets: a short path that only their account can enter.
    pub(super) fn sockets(&self) -> &Path {
        &self.sockets
    }

    pub(super) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Leaves everything where it is.
    pub(super) fn keep(self) {
        // Only the mark would make a later demo take it for a leftover.
        let _ = fs::remove_file(self.root.join(MARK));
    }

    /// Removes everything but the report; tells what could not be removed. Work that was interrupted may
    /// still be writing, so this looks again until nothing comes back.
    pub(super) fn remove(self) -> Option<Error> {
        let began = Instant::now();
        let mut gone = 0;
        loop {
            clear(&self.root);
            // An empty report directory is of no use; one with a report in it stays.
            let _ = fs::remove_dir(&self.report);
            let children: Vec<u32> = children_of(std::process::id()).into_iter().filter(|p| is_alive(*p)).collect();
            if self.made {
                let _ = fs::remove_dir(&self.root);
            }
            let remains = |path: &PathBuf| path.exists();
            let left = CONTENTS.iter().map(|name| self.root.join(name)).find(remains);
            let holds_report = self.report.starts_with(&self.root) && self.report.exists();
            let left = left.or_else(|| (self.made && !holds_report).then(|| self.root.clone()).filter(remains));
            gone = if left.is_none() && children.is_empty() { gone + 1 } else { 0 };
            match (left, children.as_slice()) {
                // A write that was under way makes its directories anew: gone is what stays gone.
                (None, []) if gone > 4 => return None,
                (left, children) if began.elapsed() > PATIENCE => {
                    // What still runs was started by this demo, and nothing of it is of use any more.
                    children.iter().for_each(|pid| end(*pid, Signal::SIGKILL));
                    return left.map(|path| {
                        error::internal(format!("{} could not be removed", path.display()))
                            .hint(format!("rm -r {}", self.root.display()))
                    });
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// Whether sockets below `root` have paths that the system binds and that need no quotes in any setting.
fn is_fit_for_sockets(root: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    root.as_os_str().len() <= LONGEST && root.to_str().is_some_and(|path| path.chars().all(plain))
}

/// Removes what a demo makes in `root`.
fn clear(root: &Path) {
    for name in CONTENTS.iter().chain([&MARK]) {
        let path = root.join(name);
        // What cannot be removed is found out by looking, not by asking.
        let _ = match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(_) => Ok(()),
        };
    }
}

/// Cleans up after demos that were killed.
fn sweep(temporary: &Path) {
    let Ok(entries) = fs::read_dir(temporary) else { return };
    let named = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX));
    for root in named.map(|e| e.path()).filter(|path| is_leftover(path)) {
        clear(&root);
        let _ = fs::remove_dir(&root);
    }
}

/// Whether a demo of ours was killed in `root`; ends the servers that it left behind.
fn is_leftover(root: &Path) -> bool {
    let ours = |path: &Path| path.symlink_metadata().is_ok_and(|m| m.uid() == Uid::effective().as_raw());
    let mark = root.join(MARK);
    if !ours(root) || !ours(&mark) {
        return false;
    }
    let free = File::open(&mark).is_ok_and(|f| flock(&f, FlockOperation::NonBlockingLockExclusive).is_ok());
    if free {
        let servers = servers_in(root);
        servers.iter().for_each(|pid| end(*pid, Signal::SIGKILL));
        let began = Instant::now();
        while servers.iter().any(|pid| is_alive(*pid)) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    free
}

/// PostgreSQL's processes that work in a data directory below `root`.
fn servers_in(root: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let works_there = |pid: &u32| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        fs::read_to_string(proc.join("comm")).is_ok_and(|name| name.trim() == "postgres")
            && fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(root))
    };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(works_there).collect()
}

fn end(pid: u32, signal: Signal) {
    // It may have ended by itself.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

fn require_passable(root: &Path, account: &Account) -> Result<()> {
    for folder in root.ancestors() {
        let m = fs::metadata(folder).map_err(|e| cannot("look at", folder, e))?;
        let bit = match () {
            () if m.uid() == account.uid => 0o100,
            () if m.gid() == account.gid => 0o010,
            () => 0o001,
        };
        if m.mode() & bit == 0 {
            return Err(error::usage(format!("the account {} cannot enter {}", account.name, folder.display()))
                .meaning("PostgreSQL refuses to run as root, so the demo's servers run as that account")
                .hint("name a directory that it can reach, for example `--dir /var/tmp/lifeboat-demo`"));
        }
    }
    Ok(())
}

fn open(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| cannot("open", path, e))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).or_err(ErrorKind::Usage, || format!("{} is not a path", path.display()))
}

fn cannot(what: &str, path: &Path, e: std::io::Error) -> Error {
    let kind = if e.kind() == Io::PermissionDenied { ErrorKind::Usage } else { ErrorKind::Internal };
    Error::new(kind, format!("cannot {what} {}", path.display())).source(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_demo_made_is_removed() {
        let temporary = tempfile::tempdir().expect("dir");
        let dir = temporary.path().join("mine");
        let place = Place::create(Some(&dir), temporary.path(), None).expect("place");
        assert!(Place::create(Some(&dir), temporary.path(), None).is_err(), "a demo runs there");
        fs::write(dir.join("notes"), "of a person").expect("write");
        fs::write(place.report().join("drill.html"), "passed").expect("write");
        assert!(place.remove().is_none());
        let mut left: Vec<_> = fs::read_dir(&dir).expect("dir").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["notes", "report"]);
        let refused = Place::create(Some(&dir), temporary.path(), None).expect_err("not empty");
        assert_eq!(refused.kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_killed_demo_hinders_no_other_and_a_kept_one_stays() {
        let temporary = tempfile::tempdir().expect("dir");
        let new = |dir: Option<&Path>| Place::create(dir, temporary.path(), None).expect("place");
        let folder = |name: &str| {
            let path = temporary.path().join(format!("{PREFIX}{name}"));
            fs::create_dir_all(path.join("repository")).expect("dir");
            path
        };
        let (killed, kept) = (folder("killed"), folder("kept"));
        fs::write(killed.join(MARK), "").expect("mark");
        let named = temporary.path().join("named");
        fs::create_dir_all(named.join("production/pgdata")).expect("dir");
        fs::write(named.join(MARK), "").expect("mark");

        let running = new(Some(&temporary.path().join(format!("{PREFIX}running"))));
        let again = new(Some(&named));
        assert!(!killed.exists() && kept.exists() && running.root().exists());
        assert!(!again.join("production/pgdata").exists());
        let root = again.root().to_owned();
        again.keep();
        new(Some(&temporary.path().join("other"))).remove();
        assert!(root.join("repository").exists(), "kept");
        assert!(running.remove().is_none());
    }
}
