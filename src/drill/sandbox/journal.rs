//! The journal of a drill: what it makes, written down *before* it is made, and the stage that it is in. It
//! lies beside the drill's directory, is written line by line, and is locked (`flock`) by the Lifeboat that
//! runs the drill. The kernel lets go of the lock when that ends, however it ends: a journal without a lock is
//! of a dead drill, and tells everything that is needed to clean up and to record it.

use std::fs::File;
use std::io::{ErrorKind as Io, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::disk::failed;
use crate::error::{self, Result};
use crate::evidence::sampled::Sampling;

/// Begins the names of drills' directories and journals.
pub(super) const PREFIX: &str = "lifeboat-drill-";
const SUFFIX: &str = ".journal";
/// The stage before the first.
const BEGINNING: &str = "beginning";

/// What is known of a drill before anything is made for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Id of the drill.
    pub id: String,
    /// Id of the repository that it restores from, and is recorded in.
    pub repository: String,
    /// The environment.
    pub environment: String,
    /// What is restored to, as asked for.
    pub requested: String,
    /// Account and host of whoever asked.
    pub operator: String,
    /// SHA-256 of the configuration in force.
    pub config_digest: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When the disaster is supposed to have happened.
    pub incident_time: DateTime<Utc>,
    /// How the target was chosen: whoever records a killed drill reveals its draw.
    #[serde(default)]
    pub sampling: Option<Sampling>,
}

/// A container of a drill.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contained {
    /// Socket of the engine that has it.
    pub engine: PathBuf,
    /// Its name there.
    pub name: String,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Begun(Box<Begun>),
    /// This directory is made next.
    Directory(PathBuf),
    /// This container is made next.
    Container(Contained),
    /// This stage begins.
    Stage(String),
}

/// The journal of a living drill.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<Flock<File>>,
    stage: Mutex<String>,
    contained: Mutex<Vec<Contained>>,
}

impl Journal {
    /// Begins a journal in `parent`.
    pub fn begin(parent: &Path, begun: &Begun) -> Result<Self> {
        let path = parent.join(format!("{PREFIX}{}{SUFFIX}", begun.id));
        let failed = |e| failed("cannot write the drill's journal", &path, e);
        loop {
            let file = File::options().append(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
            // Somebody who reaps may look at it between these two lines, find it empty and remove it.
            let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
            if names(&path, &file) {
                let stage = Mutex::new(BEGINNING.to_owned());
                let journal = Self { path, file: Mutex::new(file), stage, contained: Mutex::default() };
                journal.write(&Line::Begun(Box::new(begun.clone())))?;
                return Ok(journal);
            }
        }
    }

    /// Notes that a directory is made next, and makes it.
    pub fn make_dir(&self, directory: &Path) -> Result<()> {
        self.write(&Line::Directory(directory.to_owned()))?;
        std::fs::create_dir(directory).map_err(|e| failed("cannot create", directory, e))
    }

    /// Notes that an engine is asked for a container next.
    pub fn container(&self, engine: &Path, name: &str) -> Result<()> {
        let contained = Contained { engine: engine.to_owned(), name: name.to_owned() };
        self.write(&Line::Container(contained.clone()))?;
        self.contained.lock().unwrap_or_else(PoisonError::into_inner).push(contained);
        Ok(())
    }

    /// Every container that was noted.
    pub fn contained(&self) -> Vec<Contained> {
        self.contained.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a stage begins.
    pub fn stage(&self, name: &str) -> Result<()> {
        name.clone_into(&mut self.stage.lock().unwrap_or_else(PoisonError::into_inner));
        self.write(&Line::Stage(name.to_owned()))
    }

    /// The stage that runs.
    pub fn stage_now(&self) -> String {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes the journal: what it names is gone, and recorded.
    pub fn close(&self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| failed("cannot remove", &self.path, e))
    }

    fn write(&self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line).expect("plain data");
        text.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let before = file.metadata().map_or(0, |meta| meta.len());
        let write = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        write.map_err(|e| {
            // Half a line, of a disk that is full, would spoil the next one.
            let _ = file.set_len(before);
            failed("cannot write the drill's journal", &self.path, e)
        })
    }
}

/// Whether a path is still the name of an open file.
fn names(path: &Path, file: &File) -> bool {
    match (std::fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(open)) => (there.dev(), there.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}

/// The journal of a drill whose Lifeboat is gone; nobody else reaps it while this is held.
#[derive(Debug)]
pub struct Dead {
    path: PathBuf,
    /// Holds the lock.
    _file: Flock<File>,
    /// The drill.
    pub begun: Begun,
    /// Every directory that it made, or was about to make.
    pub directories: Vec<PathBuf>,
    /// Every container that it made, or was about to make.
    pub contained: Vec<Contained>,
    /// The stage that it was in.
    pub stage: String,
}

impl Dead {
    /// Removes the journal: what it names is gone, and recorded.
    pub fn close(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| failed("cannot remove", &self.path, e))
    }
}

/// The dead drills below `parent` that this account began. A journal of another account is not believed.
pub fn dead(parent: &Path) -> Result<Vec<Dead>> {
    let entries = match std::fs::read_dir(parent) {
        Err(e) if e.kind() == Io::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| failed("cannot look for dead drills in", parent, e))?,
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if ours && let Some(dead) = open_dead(&entry.path())? {
            found.push(dead);
        }
    }
    found.sort_by(|a, b| a.begun.id.cmp(&b.begun.id));
    Ok(found)
}

fn open_dead(path: &Path) -> Result<Option<Dead>> {
    let no_links = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    // It may have been closed since, and what cannot be opened is not this account's.
    let Ok(file) = File::options().read(true).custom_flags(no_links).open(path) else { return Ok(None) };
    let meta = file.metadata().map_err(|e| failed("cannot look at", path, e))?;
    if !meta.is_file() || meta.uid() != nix::unistd::Uid::effective().as_raw() || meta.mode() & 0o022 != 0 {
        return Ok(None);
    }
    let Ok(file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return Ok(None) };
    if !names(path, &file) {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed("cannot read", path, e))?;
    let Some(dead) = parse(path, &text)? else {
        // Killed before the first line was whole: nothing was made yet.
        std::fs::remove_file(path).map_err(|e| failed("cannot remove", path, e))?;
        return Ok(None);
    };
    let Parsed { begun, directories, contained, stage } = dead;
    Ok(Some(Dead { path: path.to_owned(), _file: file, begun, directories, contained, stage }))
}

struct Parsed {
    begun: Begun,
    directories: Vec<PathBuf>,
    contained: Vec<Contained>,
    stage: String,
}

/// Reads a journal; `None` where it has no whole line. Half a line at its end was never acted upon.
fn parse(path: &Path, text: &str) -> Result<Option<Parsed>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.lines();
    let unreadable = |line: &str, e: serde_json::Error| {
        error::internal(format!("the drill's journal {} does not parse: {line}", path.display()))
            .source(e)
            .hint("remove the directories that it names by hand, then the journal")
    };
    let read = |line: &str| serde_json::from_str::<Line>(line).map_err(|e| unreadable(line, e));
    let Some(first) = lines.next() else { return Ok(None) };
    let Line::Begun(begun) = read(first)? else {
        return Err(error::internal(format!("the drill's journal {} has no beginning", path.display())));
    };
    let (mut directories, mut contained, mut stage) = (Vec::new(), Vec::new(), BEGINNING.to_owned());
    for line in lines {
        match read(line)? {
            Line::Begun(_) => {}
            Line::Directory(directory) => directories.push(directory),
            Line::Container(container) => contained.push(container),
            Line::Stage(name) => stage = name,
        }
    }
    Ok(Some(Parsed { begun: *begun, directories, contained, stage }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::drill) fn begun(id: &str) -> Begun {
        let time = "2026-11-22T03:00:00Z".parse().expect("a time");
        Begun {
            id: id.into(),
            repository: "r".into(),
            environment: "production".into(),
            requested: "latest".into(),
            operator: "me@here".into(),
            config_digest: "00".into(),
            started_at: time,
            incident_time: time,
            sampling: None,
        }
    }

    #[test]
    fn only_the_dead_are_found_and_they_tell_what_they_made() {
        let parent = tempfile::tempdir().expect("dir");
        let journal = Journal::begin(parent.path(), &begun("a")).expect("begun");
        let directory = parent.path().join("made");
        journal.make_dir(&directory).expect("made");
        journal.container(Path::new("/run/engine.sock"), "lifeboat-a-gate").expect("written");
        journal.stage("replaying WAL").expect("written");
        assert!(dead(parent.path()).expect("looked").is_empty(), "it lives");
        let path = journal.path.clone();
        drop(journal);
        // Half a line: the machine lost power.
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("open")
            .write_all(b"{\"stage\":\"run")
            .expect("half");
        let found = dead(parent.path()).expect("looked");
        assert_eq!((found[0].stage.as_str(), &found[0].directories), ("replaying WAL", &vec![directory]));
        assert_eq!(found[0].begun, begun("a"));
        let contained = Contained { engine: "/run/engine.sock".into(), name: "lifeboat-a-gate".into() };
        assert_eq!(found[0].contained, [contained]);
        assert!(dead(parent.path()).expect("looked").is_empty(), "somebody reaps it");
        found.into_iter().next().expect("one").close().expect("closed");
        assert!(!path.exists());
    }

    #[test]
    fn a_journal_without_a_whole_line_made_nothing_and_goes() {
        let parent = tempfile::tempdir().expect("dir");
        let path = parent.path().join("lifeboat-drill-x.journal");
        File::options().create_new(true).write(true).mode(0o600).open(&path).expect("a file");
        assert!(dead(parent.path()).expect("looked").is_empty());
        assert!(!path.exists());
        // What others may write is not believed.
        std::fs::write(&path, "{}\n").expect("write");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("mode");
        assert!(dead(parent.path()).expect("looked").is_empty());
        assert!(path.exists());
    }
}
