//! What the kernel tells of filestores (inotify).
//!
//! ```text
//! data_dir/filestore        databases come, go, are renamed
//! └── <database>            directories of names come
//!     └── <2 or 3 hex>      files are written (closed after writing, or moved in)
//! ```
//!
//! A directory that appears is watched first and then looked into, so no file falls between. Promises: a
//! file that was written in a watched directory is told, or it is told that something was missed: the
//! kernel's queue overflowed, or a directory could not be watched. Whoever is told so must scan.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;

use super::super::name::FileName;
use super::super::scan::first_byte;
use crate::error::{self, ErrorKind, Result, ResultExt};

/// What happened since the last look.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Files that were written, with the directory of their database.
    pub(super) files: Vec<(Arc<Path>, FileName)>,
    /// Directories of databases of which something was missed, and why.
    pub(super) missed: Vec<(Arc<Path>, String)>,
    /// Events were dropped, so something was missed everywhere.
    pub(super) overflow: bool,
    /// Directories of databases came or went.
    pub(super) databases_moved: bool,
}

#[derive(Debug, Clone)]
enum Place {
    Filestores,
    Database(Arc<Path>),
    Names(Arc<Path>, String),
}

/// The watched directories.
#[derive(Debug)]
pub(super) struct Watches {
    queue: AsyncFd<Queue>,
    places: HashMap<WatchDescriptor, Place>,
}

#[derive(Debug)]
struct Queue(Inotify);

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watches {
    pub(super) fn new() -> Result<Self> {
        let what = || "cannot watch directories (inotify)".to_owned();
        let queue = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).or_err(ErrorKind::Source, what)?;
        // Deprecated because it trusts `as_raw_fd` to be right for ever; ours is. The successor is unsafe to call.
        #[expect(deprecated)]
        let queue = AsyncFd::new(Queue(queue)).or_err(ErrorKind::Internal, what)?;
        Ok(Self { queue, places: HashMap::new() })
    }

    /// Watches the directory that holds those of databases; `false` where it is not there yet.
    pub(super) fn filestores(&mut self, directory: &Path) -> Result<bool> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_ONLYDIR;
        self.add(directory, flags, Place::Filestores)
    }

    /// Watches the directory of a database and those of names in it; `false` where it is not there yet. May
    /// be repeated.
    pub(super) fn database(&mut self, directory: &Arc<Path>) -> Result<bool> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        if !self.add(directory, flags, Place::Database(directory.clone()))? {
            return Ok(false);
        }
        let entries = std::fs::read_dir(directory).map_err(|e| refused(directory, e))?;
        for entry in entries {
            let name = entry.map_err(|e| refused(directory, e))?.file_name();
            self.names(directory, &name)?;
        }
        Ok(true)
    }

    /// Watches a directory of names.
    fn names(&mut self, directory: &Arc<Path>, name: &OsStr) -> Result<bool> {
        let Some(name) = name.to_str().filter(|name| first_byte(name).is_some()) else { return Ok(false) };
        let flags = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        self.add(&directory.join(name), flags, Place::Names(directory.clone(), name.to_owned()))
    }

    /// No longer watches a database.
    pub(super) fn forget(&mut self, directory: &Path) {
        let queue = &self.queue.get_ref().0;
        self.places.retain(|wd, place| {
            let keep = !matches!(place, Place::Database(d) | Place::Names(d, _) if **d == *directory);
            if !keep {
                // A directory that is gone is no longer watched anyway.
                let _ = queue.rm_watch(*wd);
            }
            keep
        });
    }

    fn add(&mut self, path: &Path, flags: AddWatchFlags, place: Place) -> Result<bool> {
        match self.queue.get_ref().0.add_watch(path, flags) {
            Ok(wd) => {
                self.places.insert(wd, place);
                Ok(true)
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(e) => Err(refused(path, e.into())),
        }
    }

    /// Waits until there is something to look at.
    pub(super) async fn ready(&self) -> Result<()> {
        let mut guard = self.queue.readable().await.or_err(ErrorKind::Internal, || "inotify".to_owned())?;
        // Everything that is there now is read after this; what comes later makes it ready again.
        guard.clear_ready();
        Ok(())
    }

    /// Everything that has happened so far.
    pub(super) fn drain(&mut self, seen: &mut Seen) -> Result<()> {
        loop {
            match self.queue.get_ref().0.read_events() {
                Ok(events) => events.into_iter().for_each(|event| self.take(event, seen)),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(error::source("cannot read what changed in the filestores").source(e)),
            }
        }
    }

    fn take(&mut self, event: InotifyEvent, seen: &mut Seen) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            seen.overflow = true;
            return;
        }
        let Some(place) = self.places.get(&event.wd).cloned() else { return };
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            self.places.remove(&event.wd);
        }
        let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_UNMOUNT;
        match (place, event.name) {
            (Place::Filestores, Some(_)) => seen.databases_moved |= event.mask.contains(AddWatchFlags::IN_ISDIR),
            (Place::Filestores, None) => seen.databases_moved |= event.mask.intersects(gone),
            (Place::Database(directory), None) if event.mask.intersects(gone) => {
                seen.missed.push((directory, "its directory was moved, removed or unmounted".to_owned()));
                seen.databases_moved = true;
            }
            (Place::Database(directory), Some(name)) if event.mask.contains(AddWatchFlags::IN_ISDIR) => {
                if let Err(e) = self.look_inside(&directory, &name, seen) {
                    seen.missed.push((directory, e.message()));
                }
            }
            (Place::Names(directory, parent), Some(file)) => {
                let name = file.to_str().and_then(|file| FileName::in_directory(&parent, file));
                seen.files.extend(name.map(|name| (directory, name)));
            }
            (Place::Names(directory, _), None) if event.mask.contains(AddWatchFlags::IN_UNMOUNT) => {
                seen.missed.push((directory, "it was unmounted".to_owned()));
            }
            _ => {}
        }
    }

    /// A directory appeared: watches it, then tells the files that were there before the watch was.
    fn look_inside(&mut self, directory: &Arc<Path>, name: &OsStr, seen: &mut Seen) -> Result<()> {
        if !self.names(directory, name)? {
            return Ok(());
        }
        let path = directory.join(name);
        let parent = name.to_string_lossy();
        let entries = match std::fs::read_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| refused(&path, e))?,
        };
        for entry in entries {
            let file = entry.map_err(|e| refused(&path, e))?.file_name();
            let name = file.to_str().and_then(|file| FileName::in_directory(&parent, file));
            seen.files.extend(name.map(|name| (directory.clone(), name)));
        }
        Ok(())
    }

    /// The databases that are watched.
    pub(super) fn databases(&self) -> BTreeSet<PathBuf> {
        let database = |place: &Place| match place {
            Place::Database(directory) => Some(directory.to_path_buf()),
            _ => None,
        };
        self.places.values().filter_map(database).collect()
    }
}

fn refused(path: &Path, e: io::Error) -> error::Error {
    let full = e.raw_os_error() == Some(Errno::ENOSPC as i32);
    let refused = error::source(format!("cannot watch {}", path.display()))
        .meaning("new files in it are stored by the next capture only, not within a second")
        .source(e);
    match full {
        true => {
            refused.hint("raise the kernel's limit: sysctl fs.inotify.max_user_watches=524288 (257 for each database)")
        }
        false => refused.hint("give the account that runs Lifeboat read access to the filestore"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u32, directory: &str) -> String {
        format!("{directory}/{directory}{n:038}")
    }

    fn told(seen: &Seen) -> BTreeSet<String> {
        seen.files.iter().map(|(_, name)| name.to_string()).collect()
    }

    #[tokio::test]
    async fn files_are_told_in_old_directories_and_in_new_ones() {
        let dir = tempfile::tempdir().expect("temp dir");
        let database: Arc<Path> = dir.path().join("shop").into();
        let write = |name: &str| {
            let path = database.join(name);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
            std::fs::write(path, "x").expect("written");
        };
        let mut watches = Watches::new().expect("inotify");
        assert!(watches.filestores(dir.path()).expect("watched"));
        assert!(!watches.database(&database).expect("not there yet"));
        write(&name(1, "ab"));
        let mut seen = Seen::default();
        watches.drain(&mut seen).expect("drained");
        assert!(seen.databases_moved && seen.files.is_empty());
        assert!(watches.database(&database).expect("watched"));

        // In a directory that was there, in one that came, with a file that came before its watch; no markers.
        for file in [name(2, "ab"), name(3, "cd"), name(4, "cd"), "checklist/ab/x".into(), "ab/odd".into()] {
            write(&file);
        }
        let moved = dir.path().join("elsewhere");
        std::fs::write(&moved, "x").expect("written");
        std::fs::rename(&moved, database.join(name(5, "ab"))).expect("moved in");
        watches.ready().await.expect("something came");
        let mut seen = Seen::default();
        watches.drain(&mut seen).expect("drained");
        let expected = [name(2, "ab"), name(3, "cd"), name(4, "cd"), name(5, "ab")];
        assert_eq!(told(&seen), BTreeSet::from(expected));
        assert!(!seen.overflow && seen.missed.is_empty());

        std::fs::rename(&database, dir.path().join("renamed")).expect("renamed");
        let mut seen = Seen::default();
        watches.drain(&mut seen).expect("drained");
        assert!(seen.databases_moved);
        assert_eq!(&*seen.missed[0].0, &*database);
        watches.forget(&database);
        assert!(watches.databases().is_empty());
    }

    #[tokio::test]
    async fn an_overflowing_queue_is_told() {
        let dir = tempfile::tempdir().expect("temp dir");
        let database: Arc<Path> = dir.path().into();
        std::fs::create_dir(dir.path().join("ab")).expect("created");
        let mut watches = Watches::new().expect("inotify");
        assert!(watches.database(&database).expect("watched"));
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("the kernel's limit");
        let limit: u32 = limit.trim().parse().expect("a number");
        for n in 0..limit.min(100_000) + 100 {
            std::fs::write(dir.path().join(name(n, "ab")), "").expect("written");
        }
        let mut seen = Seen::default();
        watches.drain(&mut seen).expect("drained");
        assert!(seen.overflow);
    }
}
