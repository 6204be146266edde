//! A directory for one test, and the account that its servers run as.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::unistd::{Gid, Uid, User};

/// An account by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The account for PostgreSQL servers: `postgres` when the tests run as root (PostgreSQL refuses
/// root), `None` otherwise: then servers run as whoever runs the tests.
pub(crate) fn server_account() -> Option<Account> {
    if !Uid::effective().is_root() {
        return None;
    }
    let user = User::from_name("postgres").ok().flatten();
    let user = user.expect("an account named postgres, because PostgreSQL refuses to run as root");
    Some(Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

/// Gives `path` and all below it to the servers' account.
pub(crate) fn own(path: &Path) {
    let Some(account) = server_account() else { return };
    let (uid, gid) = (Some(Uid::from_raw(account.uid)), Some(Gid::from_raw(account.gid)));
    for entry in walkdir::WalkDir::new(path) {
        let entry = entry.expect("a readable directory");
        if !entry.path_is_symlink() {
            nix::unistd::chown(entry.path(), uid, gid).expect("root may change owners");
        }
    }
}

/// A port on the loopback interface that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// A directory `lifeboat-test-…`, open to every account, removed when its last clone is dropped, also
/// when the test panics. A test that left something at work in it fails.
#[derive(Debug, Clone)]
pub(crate) struct Scratch {
    directory: Arc<Directory>,
}

#[derive(Debug)]
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // Processes that were killed just now may write a last word yet.
        let mut removed = fs::remove_dir_all(&self.0);
        for _ in 0..40 {
            if removed.is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            removed = fs::remove_dir_all(&self.0);
        }
        let Err(error) = removed else { return };
        let names = |place: &Path| walkdir::WalkDir::new(place).into_iter().flatten().map(|e| e.path().to_owned());
        let left: Vec<PathBuf> = names(&self.0).take(20).collect();
        let said = format!("{} cannot be removed: {error}; it has {left:#?}", self.0.display());
        if std::thread::panicking() {
            eprintln!("{said}");
        } else {
            panic!("{said}");
        }
    }
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("lifeboat-test-").tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
        Self { directory: Arc::new(Directory(directory.keep())) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory.0
    }

    /// A path in it; nothing is made.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// A new directory in it that belongs to the servers' account.
    pub(crate) fn server_dir(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir(&path).expect("a new directory");
        own(&path);
        path
    }

    /// A new file in it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().expect("a path in the directory")).expect("a directory");
        fs::write(&path, content).expect("a file");
        path
    }
}

/// A command that runs as the servers' account, in a directory that it can enter.
pub(crate) fn as_server(program: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C.UTF-8").env_remove("PGDATA");
    if let Some(account) = server_account() {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Runs a command to its end; panics with what it said unless it succeeds.
#[track_caller]
pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
