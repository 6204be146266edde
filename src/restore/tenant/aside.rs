//! The place aside in which a whole cluster is restored for the sake of one database.
//!
//! Everything that such a restore makes is noted in a journal in this place *before* it is made: the place itself, a
//! database under a temporary name in another cluster, files beside their final name. One way leads to an empty place,
//! [`Aside::clean`]: at the end, after a failure, after an interruption, and for a place whose Lifeboat was killed
//! ([`reap`]; whether it lives tells a lock on the place). What cannot be removed from here, a database in a cluster
//! that is not at hand, stays in the journal and is named with the command that removes it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::load::Target;
use crate::disk::{failed, sync_dir};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::postgres::server::end_orphan;
use crate::runtime::{Runtime, blocking};

/// What the names of these places begin with.
const PREFIX: &str = "lifeboat-tenant-";
/// Marks files that are not whole yet; the id follows.
const UNFINISHED: &str = ".lifeboat-";
const JOURNAL: &str = "journal.json";
const LOCK: &str = "lock";
/// How long emptying a place is tried.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a restore has made outside its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    /// What is restored, for people.
    what: String,
    /// Databases under temporary names.
    loading: Vec<Loading>,
    /// Files and directories beside their final names.
    unfinished: Vec<PathBuf>,
}

/// A database under a temporary name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Loading {
    /// System identifier of its cluster.
    cluster: String,
    /// Where that is, for people.
    place: String,
    database: String,
}

/// A locked place of this process.
#[derive(Debug)]
pub struct Aside {
    root: PathBuf,
    id: String,
    journal: Journal,
    /// Held as long as this process lives.
    _lock: File,
    cleaned: bool,
}

impl Aside {
    /// Makes and locks a place below `parent`; `what` says for what.
    pub fn create(parent: &Path, id: &str, what: &str) -> Result<Self> {
        std::fs::create_dir_all(parent).map_err(|e| failed("cannot create", parent, e))?;
        let root = parent.join(format!("{PREFIX}{id}"));
        // Under another name until it is locked: nobody takes it for one that a killed process left.
        let unlocked = parent.join(format!("{UNFINISHED}tenant-{id}"));
        let make = || -> std::io::Result<File> {
            std::fs::create_dir(&unlocked)?;
            // The server's account must be able to pass through; what is inside has modes of its own.
            std::fs::set_permissions(&unlocked, std::fs::Permissions::from_mode(0o711))?;
            let lock = File::create(unlocked.join(LOCK))?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            std::fs::rename(&unlocked, &root)?;
            Ok(lock)
        };
        let lock = make().map_err(|e| failed("cannot make", &root, e))?;
        let journal = Journal { what: what.to_owned(), ..Journal::default() };
        let aside = Self { root, id: id.to_owned(), journal, _lock: lock, cleaned: false };
        aside.save()?;
        Ok(aside)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the whole cluster will be restored in the place of this id below `parent`.
    pub fn pgdata_of(parent: &Path, id: &str) -> PathBuf {
        parent.join(format!("{PREFIX}{id}")).join("pgdata")
    }

    /// Where the whole cluster is restored.
    pub fn pgdata(&self) -> PathBuf {
        self.root.join("pgdata")
    }

    /// Where its tablespace of this number goes.
    pub fn tablespace(&self, number: usize) -> PathBuf {
        self.root.join(format!("tablespace-{number}"))
    }

    /// Notes a database that is going to be made, and gives its temporary name.
    pub(super) fn loading(&mut self, cluster: &str, place: &str) -> Result<String> {
        let database = format!("lifeboat_loading_{}", self.id.to_lowercase());
        self.journal.loading.push(Loading {
            cluster: cluster.to_owned(),
            place: place.to_owned(),
            database: database.clone(),
        });
        self.save()?;
        Ok(database)
    }

    /// Notes that the database has its final name, or is gone.
    pub(super) fn loaded(&mut self, database: &str) -> Result<()> {
        self.journal.loading.retain(|l| l.database != database);
        self.save()
    }

    /// Notes a file or directory that is going to be made beside `path`, and gives its name.
    pub(super) fn unfinished(&mut self, path: &Path) -> Result<PathBuf> {
        let name = path.file_name().ok_or_else(|| error::usage(format!("{} names no file", path.display())))?;
        let beside = path.with_file_name(format!(".{}{UNFINISHED}{}", name.to_string_lossy(), self.id));
        self.journal.unfinished.push(beside.clone());
        self.save()?;
        Ok(beside)
    }

    fn save(&self) -> Result<()> {
        save(&self.root, &self.journal)
    }

    /// Removes everything that was made and is not finished; `target` is the cluster that is at hand.
    pub(super) async fn clean(mut self, target: Option<&Target>, runtime: &Runtime) -> Result<()> {
        self.cleaned = true;
        clean(&self.root, self.journal.clone(), target, runtime).await
    }
}

impl Drop for Aside {
    /// A future that was dropped leaves its cluster behind: the part that is large goes at once, the journal stays.
    fn drop(&mut self) {
        if !self.cleaned {
            let _ = remove_all_but_journal(&self.root);
        }
    }
}

fn save(root: &Path, journal: &Journal) -> Result<()> {
    let (path, new) = (root.join(JOURNAL), root.join(format!("{JOURNAL}.new")));
    let bytes = serde_json::to_vec(journal).expect("a journal is plain data");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)
    };
    write().map_err(|e| failed("cannot write", &path, e))?;
    sync_dir(root)
}

fn remove_all_but_journal(root: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name() == JOURNAL || entry.file_name() == LOCK {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Empties a place and, when nothing that it made is left anywhere, removes it.
async fn clean(root: &Path, mut journal: Journal, target: Option<&Target>, runtime: &Runtime) -> Result<()> {
    end_orphan(&root.join("pgdata")).await?;
    let unfinished = std::mem::take(&mut journal.unfinished);
    let place = root.to_owned();
    blocking(move || {
        for path in &unfinished {
            // Only what bears our mark: a journal is a file, and files can be edited.
            if path.file_name().is_some_and(|name| name.to_string_lossy().contains(UNFINISHED)) {
                remove(path).map_err(|e| failed("cannot remove", path, e))?;
            }
        }
        // An interrupted restore may have threads that still write a file; they end by themselves, unseen.
        let began = Instant::now();
        loop {
            match remove_all_but_journal(&place) {
                Err(_) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(100)),
                other => return other.map_err(|e| failed("cannot empty", &place, e)),
            }
        }
    })
    .await?;
    let mut left = Vec::new();
    for loading in std::mem::take(&mut journal.loading) {
        match target.filter(|t| t.system_id == loading.cluster) {
            Some(target) => target.drop_database(&loading.database).await?,
            None => left.push(loading),
        }
    }
    journal.loading = left;
    if journal.loading.is_empty() {
        return std::fs::remove_dir_all(root).map_err(|e| failed("cannot remove", root, e));
    }
    save(root, &journal)?;
    for loading in &journal.loading {
        runtime.emit(Event::Warning(format!(
            "an interrupted restore of {} left the database {} in {}: remove it with `ALTER DATABASE {} WITH IS_TEMPLATE \
             false; DROP DATABASE {}`, then the directory {}",
            journal.what,
            loading.database,
            loading.place,
            quote(&loading.database),
            quote(&loading.database),
            root.display()
        )));
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    let gone = match std::fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    match gone {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Cleans the places below `parent` whose Lifeboat was killed.
pub(super) async fn reap(parent: &Path, target: Option<&Target>, runtime: &Runtime) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Ok(()) };
    for entry in entries.flatten() {
        let root = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || !root.is_dir() {
            continue;
        }
        let Ok(lock) = File::open(root.join(LOCK)) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let bytes = std::fs::read(root.join(JOURNAL)).unwrap_or_default();
        // Without a journal nothing was made but the directory.
        let journal = match bytes.is_empty() {
            true => Journal::default(),
            false => serde_json::from_slice(&bytes).or_err(ErrorKind::Internal, || {
                format!("the journal in {} does not parse; look at it and remove the directory", root.display())
            })?,
        };
        runtime.emit(Event::Note(format!("removing what an interrupted restore left in {}", root.display())));
        clean(&root, journal, target, runtime).await?;
    }
    Ok(())
}

/// A name as an SQL identifier.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_lives_as_long_as_its_process_and_is_reaped_after_it() {
        let parent = tempfile::tempdir().expect("dir");
        let runtime = Runtime::silent();
        let mut aside = Aside::create(parent.path(), "a", "x").expect("aside");
        let beside = aside.unfinished(&parent.path().join("x.zip")).expect("noted");
        std::fs::write(&beside, "half").expect("write");
        std::fs::create_dir_all(aside.pgdata().join("base")).expect("dir");
        reap(parent.path(), None, &runtime).await.expect("reaps");
        assert!(aside.pgdata().exists() && beside.exists(), "a living place was reaped");
        // As a process that is killed leaves it: the lock is gone, nothing else.
        aside.cleaned = true;
        drop(aside);
        reap(parent.path(), None, &runtime).await.expect("reaps");
        assert_eq!(std::fs::read_dir(parent.path()).expect("dir").count(), 0);
    }

    #[tokio::test]
    async fn a_database_in_a_cluster_that_is_not_at_hand_is_not_forgotten() {
        let parent = tempfile::tempdir().expect("dir");
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let told = seen.clone();
        let runtime = Runtime::new(move |event| told.lock().expect("lock").push(format!("{event:?}")));
        let mut aside = Aside::create(parent.path(), "A", "shop").expect("aside");
        let name = aside.loading("7", "host:5432").expect("noted");
        std::fs::create_dir_all(aside.pgdata()).expect("dir");
        drop(aside);
        for _ in 0..2 {
            seen.lock().expect("lock").clear();
            reap(parent.path(), None, &runtime).await.expect("reaps");
            let told = seen.lock().expect("lock").join("\n");
            assert!(told.contains(&format!("DROP DATABASE \\\"{name}\\\"")), "{told}");
        }
        assert!(!parent.path().join("lifeboat-tenant-A/pgdata").exists());
    }
}
