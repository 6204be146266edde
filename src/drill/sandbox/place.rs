//! The directories of one drill, and the proof that they are gone afterwards. Each is in the drill's journal
//! before it is made; a drill that is dropped before it ran takes them away again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::container;
use super::inside::{Door, Programs};
use super::journal::{Begun, Contained, Journal, PREFIX};
use super::local::Spec;
use super::processes;
use crate::config::DrillContainer;
use crate::disk::failed;
use crate::error::Result;
use crate::evidence::drill_record::Cleanup;
use crate::postgres::account::{Account, hand_over, running_as};
use crate::runtime::blocking;

/// Begins the name of the directory with the short path.
pub(super) const SHORT_PREFIX: &str = "lifeboat-run-";
/// How long removal is tried while somebody still writes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Size of each file system in memory where the environment sets no limit of memory.
const MEMORY_FILES: u64 = 1 << 30;
/// Directory of what the sinkhole writes, which programs inside do not see.
const EGRESS: &str = "egress";
/// This program in the drill's directory, where the servers' account can run it.
pub(super) const PROGRAM_FILE: &str = "lifeboat";
/// Directory of the drill that is `/tmp` inside: what programs leave there counts and goes with the drill.
pub(super) const TEMPORARY: &str = "tmp";

/// Where a drill may work.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Holds the drill's directory; needs the space of the restored copy.
    pub parent: PathBuf,
    /// Holds a directory for sockets; a short path.
    pub temporary: PathBuf,
    /// The account that programs run as; `None` stays the running one.
    pub account: Option<Account>,
    /// Whether the restored copy stays.
    pub keep: bool,
}

/// The directories of one drill.
#[derive(Debug)]
pub struct Sandbox {
    id: String,
    root: PathBuf,
    short: PathBuf,
    account: Option<Account>,
    keep: bool,
    destroyed: bool,
    journal: Arc<Journal>,
}

impl Sandbox {
    /// Begins the journal and makes the directories.
    pub fn create(ground: &Ground, begun: &Begun) -> Result<Self> {
        let Ground { parent, temporary, account, keep } = ground;
        std::fs::create_dir_all(parent).map_err(|e| failed("cannot create", parent, e))?;
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| failed("cannot find", path, e));
        let sandbox = Self {
            id: begun.id.clone(),
            root: absolute(parent)?.join(format!("{PREFIX}{}", begun.id)),
            short: absolute(temporary)?.join(format!("{SHORT_PREFIX}{}", begun.id)),
            account: account.clone(),
            keep: *keep,
            destroyed: false,
            journal: Arc::new(Journal::begin(parent, begun)?),
        };
        sandbox.make()?;
        Ok(sandbox)
    }

    fn make(&self) -> Result<()> {
        // The server's account must be able to pass through; what is inside has modes of its own.
        for (directory, mode) in [(&self.root, 0o711), (&self.short, 0o700)] {
            self.journal.make_dir(directory)?;
            set_mode(directory, mode)?;
        }
        hand_over(&self.short, self.account.as_ref())?;
        for name in [TEMPORARY, EGRESS] {
            let directory = self.root.join(name);
            std::fs::create_dir(&directory).map_err(|e| failed("cannot create", &directory, e))?;
            set_mode(&directory, 0o700)?;
            hand_over(&directory, self.account.as_ref())?;
        }
        Ok(())
    }

    /// The journal: stages are noted in it.
    pub fn journal(&self) -> Arc<Journal> {
        self.journal.clone()
    }

    /// The directory of what is restored.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory for sockets and a server's files, with a short path.
    pub fn short(&self) -> &Path {
        &self.short
    }

    /// This program, where a sandbox placed it.
    pub fn program(&self) -> PathBuf {
        self.root.join(PROGRAM_FILE)
    }

    /// The restored data directory.
    pub fn pgdata(&self) -> PathBuf {
        self.root.join("pgdata")
    }

    /// The restored attachments.
    pub fn filestore(&self) -> PathBuf {
        self.root.join("filestore")
    }

    /// Where a tablespace goes; each has a directory of its own.
    pub fn tablespace(&self, number: usize) -> PathBuf {
        self.root.join(format!("tablespace-{number}"))
    }

    /// Where attempts to connect out are written, one JSON object on each line.
    pub fn egress_log(&self) -> PathBuf {
        egress_log(&self.root)
    }

    /// What a local sandbox around these directories is like: it reads `readable` beside the operating system's
    /// programs, and has ways in to `ports`.
    pub fn spec(&self, readable: Vec<PathBuf>, ports: &[u16], max_memory: Option<u64>) -> Spec {
        let Account { name, uid, gid } = self.account_inside();
        Spec {
            root: self.root.clone(),
            writable: vec![self.short.clone()],
            readable,
            account: name,
            uid,
            gid,
            doors: self.doors(ports),
            egress: self.egress_log(),
            memory_files: memory_files(max_memory),
            programs: Programs::default(),
        }
    }

    /// The same made of containers; `major` is the PostgreSQL that its image must hold.
    pub fn container(
        &self,
        config: DrillContainer,
        readable: Vec<PathBuf>,
        ports: &[u16],
        max_memory: Option<u64>,
        major: Option<u32>,
    ) -> container::Spec {
        let Account { name, uid, gid } = self.account_inside();
        container::Spec {
            drill: self.id.clone(),
            root: self.root.clone(),
            short: self.short.clone(),
            temporary: self.root.join(TEMPORARY),
            readable,
            account: name,
            uid,
            gid,
            doors: self.doors(ports),
            egress: self.egress_log(),
            memory_files: memory_files(max_memory),
            memory: max_memory,
            programs: Programs { processes: config.processes, ..Programs::default() },
            config,
            major,
        }
    }

    /// The account of programs inside: that of servers, or the running one.
    fn account_inside(&self) -> Account {
        let (uid, gid) = (nix::unistd::Uid::effective().as_raw(), nix::unistd::Gid::effective().as_raw());
        self.account.clone().unwrap_or_else(|| Account { name: running_as(), uid, gid })
    }

    fn doors(&self, ports: &[u16]) -> Vec<Door> {
        ports.iter().map(|port| Door { port: *port, socket: self.short.join(format!("in-{port}")) }).collect()
    }

    /// Removes what was restored so far, unless it is to be kept, of a drill that is given up.
    pub async fn empty(&self) -> Result<()> {
        let root = self.root.clone();
        let keep = self.keep;
        blocking(move || {
            let entries = std::fs::read_dir(&root).into_iter().flatten().flatten();
            entries.filter(|entry| !keep && entry.path().is_dir()).for_each(|entry| {
                // Whoever still writes there makes this fail; it is tried again.
                let _ = std::fs::remove_dir_all(entry.path());
            });
            Ok(())
        })
        .await
    }

    /// Destroys everything, unless it is to be kept, and looks whether it is gone. Programs must have ended.
    pub async fn destroy(&mut self, now: DateTime<Utc>) -> Result<Cleanup> {
        self.destroyed = true;
        if self.keep {
            let short = self.short.clone();
            let mut cleanup = destroy(&self.id, &[short], &self.journal.contained(), now).await?;
            cleanup.created.insert(0, self.root.display().to_string());
            cleanup.residue.insert(0, format!("{} (kept on request)", self.root.display()));
            return Ok(cleanup);
        }
        let directories = [self.root.clone(), self.short.clone()];
        destroy(&self.id, &directories, &self.journal.contained(), now).await
    }

    /// Removes the journal: the drill is recorded, and nothing is left that the next start should clean up.
    pub fn close(self, cleanup: &Cleanup) -> Result<()> {
        match is_left(cleanup) {
            true => Ok(()),
            false => self.journal.close(),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.destroyed {
            return;
        }
        for directory in [&self.root, &self.short] {
            remove(directory);
        }
        // Containers take an engine to remove; whoever reads the journal does it.
        if !self.root.exists() && !self.short.exists() && self.journal.contained().is_empty() {
            let _ = self.journal.close();
        }
    }
}

/// Where attempts to connect out are written, in the directory of a drill.
pub(super) fn egress_log(root: &Path) -> PathBuf {
    root.join(EGRESS).join("egress.jsonl")
}

/// Whether something is left that nobody asked to keep.
pub fn is_left(cleanup: &Cleanup) -> bool {
    cleanup.residue.iter().any(|residue| !residue.contains("kept on request"))
}

fn set_mode(directory: &Path, mode: u32) -> Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(directory, mode).map_err(|e| failed("cannot open", directory, e))
}

fn memory_files(max_memory: Option<u64>) -> u64 {
    max_memory.map_or(MEMORY_FILES, |most| most.min(MEMORY_FILES))
}

/// Removes the containers and directories of a drill, and looks for what is left of them.
pub(super) async fn destroy(
    drill: &str,
    directories: &[PathBuf],
    contained: &[Contained],
    now: DateTime<Utc>,
) -> Result<Cleanup> {
    let gone = container::gone::remove(drill, contained).await;
    let directories = directories.to_vec();
    let mut cleanup = blocking(move || Ok(destroy_directories(&directories, now))).await?;
    cleanup.created.extend(gone.created);
    cleanup.residue.extend(gone.residue);
    cleanup.destroyed = if cleanup.residue.is_empty() { cleanup.created.clone() } else { Vec::new() };
    Ok(cleanup)
}

/// Removes directories and everything in them, and looks for what is left: themselves, and processes that work
/// or have mounts there.
fn destroy_directories(directories: &[PathBuf], now: DateTime<Utc>) -> Cleanup {
    for directory in directories {
        remove(directory);
    }
    let created: Vec<String> = directories.iter().map(|d| d.display().to_string()).collect();
    let mut residue = Vec::new();
    for directory in directories {
        if directory.symlink_metadata().is_ok() {
            residue.push(directory.display().to_string());
        }
        let working = processes::working_in(directory);
        residue.extend(working.iter().map(|pid| format!("process {pid} works in {}", directory.display())));
    }
    Cleanup { created, destroyed: Vec::new(), residue, verified_at: Some(now) }
}

/// Removes a directory; a thread that still writes there may need a moment to notice. What cannot be removed
/// shows as residue.
fn remove(directory: &Path) {
    let began = Instant::now();
    while let Err(e) = std::fs::remove_dir_all(directory) {
        let busy = matches!(e.kind(), std::io::ErrorKind::DirectoryNotEmpty);
        if !busy || began.elapsed() > PATIENCE {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::{dead, tests::begun};
    use super::*;

    fn ground(parent: &Path, keep: bool) -> Ground {
        Ground { parent: parent.join("drills"), temporary: parent.to_owned(), account: None, keep }
    }

    fn left(parent: &Path) -> usize {
        std::fs::read_dir(parent).expect("dir").count()
    }

    #[tokio::test]
    async fn destruction_is_looked_at_not_assumed() {
        let parent = tempfile::tempdir().expect("dir");
        let now = Utc::now();
        let mut sandbox = Sandbox::create(&ground(parent.path(), false), &begun("a")).expect("sandbox");
        std::fs::create_dir_all(sandbox.pgdata().join("base")).expect("dir");
        let root = sandbox.root().to_owned();
        let mut child =
            std::process::Command::new("sleep").arg("60").current_dir(sandbox.pgdata()).spawn().expect("sleep");
        let cleanup = sandbox.destroy(now).await.expect("looked");
        assert!(!root.exists());
        assert!(cleanup.residue.iter().any(|r| r.contains(&child.id().to_string())), "{cleanup:?}");
        // Something is left: the next start shall find the journal.
        sandbox.close(&cleanup).expect("closed");
        child.kill().expect("kill");
        child.wait().expect("wait");
        let found = dead(&parent.path().join("drills")).expect("looked");
        assert!(destroy_directories(&found[0].directories, now).residue.is_empty());
    }

    #[tokio::test]
    async fn what_is_kept_stays_and_the_rest_goes() {
        let parent = tempfile::tempdir().expect("dir");
        let mut kept = Sandbox::create(&ground(parent.path(), true), &begun("b")).expect("sandbox");
        let (root, short) = (kept.root().to_owned(), kept.short().to_owned());
        let cleanup = kept.destroy(Utc::now()).await.expect("looked");
        assert!(cleanup.residue[0].contains("kept on request"));
        kept.close(&cleanup).expect("closed");
        assert!(root.exists() && !short.exists());
        assert_eq!(left(&parent.path().join("drills")), 1, "the journal of a kept copy stays");

        // A drill that never ran leaves nothing.
        std::fs::remove_dir_all(root).expect("removed");
        drop(Sandbox::create(&ground(parent.path(), false), &begun("c")).expect("sandbox"));
        assert_eq!((left(&parent.path().join("drills")), left(parent.path())), (0, 1));
    }
}
