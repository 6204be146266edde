//! What a base backup stored so far, noted on this host while it runs: after a crash or a failure the
//! next attempt takes over what lies in the repository instead of storing it again.
//!
//! The file is a cache like everything in the state directory: without it the next backup just begins
//! anew, and where it cannot be written (a full disk) this one goes on without it. One line says which attempt it was, then come files and durable packs in any order; a line that a
//! crash cut off is ignored. What was stored counts as of the *start* of that attempt, as a previous base
//! backup counts as of its start (see [`super::previous`]).

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::order::Span;
use super::present::Present;
use crate::error::{self, Error, Result};
use crate::event::Event;
use crate::repository::base_manifest::FileStat;
use crate::repository::page_writer::Stored;
use crate::repository::{PackInfo, PackWatcher};
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};

/// Which attempt it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    pub(super) repository: String,
    pub(super) system_id: u64,
    pub(super) timeline: Timeline,
    pub(super) start_lsn: Lsn,
    /// Id of the backup that it was built on.
    pub(super) previous: Option<String>,
    /// Pages carried checksums.
    pub(super) checksums: bool,
    /// No page changed without a new LSN.
    pub(super) hints_logged: bool,
}

impl Attempt {
    /// Whether `other` may go on with it: it builds on the same, and this one's beginning is in the cluster's past.
    fn is_continued_by(&self, other: &Self, present: &Present) -> bool {
        self.repository == other.repository
            && self.previous == other.previous
            // Switched while the server was down, pages change and keep their LSN.
            && self.checksums == other.checksums
            && self.hints_logged == other.hints_logged
            && self.system_id == present.system_id
            && self.start_lsn <= present.lsn
            && present.history.contains(self.timeline, self.start_lsn)
    }
}

/// A file of which something was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NotedFile {
    /// Number that parts refer to.
    pub(super) number: u32,
    pub(super) path: String,
    pub(super) stat: Option<FileStat>,
}

/// A durable pack: what it holds as file, offset in it, length, frame in the pack, offset in that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NotedPack {
    pub(super) info: PackInfo,
    pub(super) sums: String,
    pub(super) parts: Vec<(u32, u64, u32, u64, u32)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Attempt(Attempt),
    File(NotedFile),
    Pack(NotedPack),
}

/// What an earlier attempt left.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) attempt: Attempt,
    pub(super) files: Vec<NotedFile>,
    pub(super) packs: Vec<NotedPack>,
}

impl Unfinished {
    /// The first number that neither a file nor a part of one without a name has.
    fn next_number(&self) -> u32 {
        let parts = self.packs.iter().flat_map(|pack| pack.parts.iter().map(|part| part.0));
        self.files.iter().map(|file| file.number).chain(parts).max().map_or(0, |last| last + 1)
    }
}

impl NotedPack {
    /// The sums of its pages.
    pub(super) fn sums(&self) -> Option<Vec<u8>> {
        BASE64.decode(&self.sums).ok()
    }
}

/// The notes of one backup: those it goes on with, or new ones.
#[derive(Debug)]
pub(super) struct Progress {
    file: ProgressFile,
    attempt: Attempt,
    /// Number of the next file; `None` where the notes begin with this attempt.
    next_number: Option<u32>,
}

impl Progress {
    /// Notes of a backup that builds on `attempt.previous`; what an interrupted attempt left, where this
    /// backup may go on with it. `None` where another backup of the environment holds the notes.
    pub(super) fn open(
        state_dir: &Path,
        environment: &str,
        attempt: Attempt,
        present: &Present,
    ) -> Result<Option<(Self, Option<Unfinished>)>> {
        let Some(mut file) = ProgressFile::open(state_dir, environment)? else { return Ok(None) };
        let unfinished =
            file.unfinished().filter(|u| !u.packs.is_empty() && u.attempt.is_continued_by(&attempt, present));
        let next_number = unfinished.as_ref().map(Unfinished::next_number);
        Ok(Some((Self { file, attempt, next_number }, unfinished)))
    }

    /// From now on notes what is stored of `names`, by a backup that began as `span` says; `None` where it cannot.
    pub(super) fn watch(&mut self, span: &Span, names: &Names, runtime: &Runtime) -> Option<Box<dyn PackWatcher>> {
        if self.next_number.is_none() {
            self.attempt.timeline = span.timeline;
            self.attempt.start_lsn = span.start_lsn;
            if let Err(failure) = self.file.begin(&self.attempt) {
                not_noted(&failure, runtime);
                return None;
            }
        }
        match self.file.watch(names, self.next_number.unwrap_or_default()) {
            Ok(watcher) => Some(Box::new(watcher)),
            Err(failure) => {
                not_noted(&failure, runtime);
                None
            }
        }
    }

    /// Removes the notes: the backup is committed.
    pub(super) fn finish(self) {
        // What stays behind is found to be of an earlier backup and forgotten.
        let _ = std::fs::remove_file(&self.file.path);
    }
}

/// Tells that this backup cannot be gone on with, should it be interrupted.
pub(super) fn not_noted(failure: &Error, runtime: &Runtime) {
    let what = failure.message();
    runtime.emit(Event::Warning(format!("{what}: if this base backup is interrupted, the next one begins anew")));
}

/// The file of one environment, held by one backup at a time.
#[derive(Debug)]
struct ProgressFile {
    path: PathBuf,
    file: File,
}

impl ProgressFile {
    /// Opens it; `None` where another backup of the environment holds it.
    fn open(state_dir: &Path, environment: &str) -> Result<Option<Self>> {
        let dir = state_dir.join("base");
        std::fs::create_dir_all(&dir).map_err(|e| failed("create", &dir, e))?;
        let path = dir.join(format!("{environment}.progress"));
        let mut options = File::options();
        let file = options.read(true).append(true).create(true).open(&path);
        let file = file.map_err(|e| failed("open", &path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { path, file })),
            Err(_) => Ok(None),
        }
    }

    /// What earlier attempts left in it.
    fn unfinished(&mut self) -> Option<Unfinished> {
        self.file.rewind().ok()?;
        let mut lines = BufReader::new(&self.file).lines().map_while(std::result::Result::ok);
        let Ok(Line::Attempt(attempt)) = serde_json::from_str(&lines.next()?) else { return None };
        let mut unfinished = Unfinished { attempt, files: Vec::new(), packs: Vec::new() };
        for line in lines {
            // A line that a crash cut off is no loss: its pack is stored once more.
            match serde_json::from_str(&line) {
                Ok(Line::File(file)) => unfinished.files.push(file),
                Ok(Line::Pack(pack)) => unfinished.packs.push(pack),
                Ok(Line::Attempt(_)) | Err(_) => {}
            }
        }
        Some(unfinished)
    }

    /// Forgets what earlier attempts left, and begins `attempt`.
    fn begin(&mut self, attempt: &Attempt) -> Result<()> {
        let begun = self.file.set_len(0).and_then(|()| put(&mut self.file, &Line::Attempt(attempt.clone())));
        begun.map_err(|e| failed("write", &self.path, e))
    }

    /// Notes what is stored of `names` from now on; numbers of files begin at `first`.
    fn watch(&self, names: &Names, first: u32) -> Result<Watcher> {
        let file = self.file.try_clone().map_err(|e| failed("open", &self.path, e))?;
        Ok(Watcher { file, first, names: names.clone() })
    }
}

fn failed(what: &str, path: &Path, e: std::io::Error) -> Error {
    error::internal(format!("cannot {what} {}", path.display())).source(e)
}

fn put(file: &mut File, line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line).expect("plain data");
    text.push(b'\n');
    file.write_all(&text)
}

/// The files of a backup by number: path, and what the file system said of it. A reader names each before it
/// stores anything of it; what was noted once is forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Mutex<Vec<Option<NamedFile>>>>);

type NamedFile = (String, Option<FileStat>);

impl Names {
    /// Names the next file.
    pub(super) fn add(&self, path: &str, stat: Option<FileStat>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Some((path.to_owned(), stat)));
    }

    /// The name of a file that was not asked for yet.
    fn take(&self, number: u32) -> Option<NamedFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number as usize)?.take()
    }
}

/// Notes packs as they become durable.
#[derive(Debug)]
struct Watcher {
    file: File,
    first: u32,
    names: Names,
}

impl Watcher {
    fn note(&mut self, pack: &PackInfo, sums: &[u8], parts: &[Stored]) -> std::io::Result<()> {
        for part in parts {
            if let Some((path, stat)) = self.names.take(part.file) {
                put(&mut self.file, &Line::File(NotedFile { number: self.first + part.file, path, stat }))?;
            }
        }
        let part = |p: &Stored| (self.first + p.file, p.file_offset, p.length, p.frame, p.offset);
        let parts = parts.iter().map(part).collect();
        let noted = NotedPack { info: pack.clone(), sums: BASE64.encode(sums), parts };
        put(&mut self.file, &Line::Pack(noted))
    }
}

impl PackWatcher for Watcher {
    fn durable(&mut self, pack: &PackInfo, sums: &[u8], parts: &[Stored]) {
        // A note that cannot be written costs the next attempt some work, and this one nothing.
        if let Err(e) = self.note(pack, sums, parts) {
            tracing::warn!("the progress of the base backup cannot be noted: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::wal::TimelineHistory;

    fn attempt() -> Attempt {
        let (timeline, start_lsn) = (Timeline(2), Lsn(9));
        let (checksums, hints_logged) = (true, true);
        let repository = "r".into();
        Attempt { repository, system_id: 7, timeline, start_lsn, previous: None, checksums, hints_logged }
    }

    #[test]
    fn only_the_same_cluster_in_its_present_state_goes_on() {
        let present = |system_id, lsn| {
            let history = TimelineHistory::first(Timeline(2));
            let (checksums, log_hints) = (true, false);
            Present { system_id, history, lsn: Lsn(lsn), server_version: 150_000, checksums, log_hints }
        };
        let goes_on = |change: fn(&mut Attempt), present: Present| {
            let mut next = attempt();
            change(&mut next);
            attempt().is_continued_by(&next, &present)
        };
        assert!(goes_on(|_| {}, present(7, 9)));
        assert!(!goes_on(|_| {}, present(8, 9)), "another cluster");
        assert!(!goes_on(|_| {}, present(7, 8)), "restored to an earlier state");
        assert!(!goes_on(|a| a.repository = "s".into(), present(7, 9)));
        assert!(!goes_on(|a| a.previous = Some("b".into()), present(7, 9)));
        assert!(!goes_on(|a| a.checksums = false, present(7, 9)));
        assert!(!goes_on(|a| a.hints_logged = false, present(7, 9)));
        let other = Present { history: TimelineHistory::first(Timeline(3)), ..present(7, 9) };
        assert!(!goes_on(|_| {}, other), "another timeline");
    }

    #[test]
    fn what_was_noted_is_read_back_and_a_cut_off_line_is_not() {
        let folder = tempfile::tempdir().expect("dir");
        let attempt = attempt();
        let mut file = ProgressFile::open(folder.path(), "production").expect("open").expect("free");
        assert!(ProgressFile::open(folder.path(), "production").expect("open").is_none(), "held");
        assert!(file.unfinished().is_none());
        file.begin(&attempt).expect("begin");
        let names = Names::default();
        ["a", "b"].iter().for_each(|path| names.add(path, None));
        let pack =
            |name: &str| PackInfo { sha256: name.into(), size: 1, first: 0, frames: vec![(1, 8192, 0)], sums: None };
        let part = Stored { file: 1, file_offset: 8192, length: 8192, frame: 0, offset: 0 };
        let mut watcher = file.watch(&names, 10).expect("watch");
        watcher.durable(&pack("p1"), b"sums", &[part]);
        watcher.durable(&pack("p2"), b"", &[part]);
        file.file.write_all(b"{\"pack\":{\"inf").expect("a crash");
        drop((file, watcher));
        let mut file = ProgressFile::open(folder.path(), "production").expect("open").expect("free again");
        let found = file.unfinished().expect("something");
        assert_eq!(found.attempt, attempt);
        assert_eq!(found.files, [NotedFile { number: 11, path: "b".into(), stat: None }], "named once");
        assert_eq!(found.packs.len(), 2);
        assert_eq!(found.packs[0].sums().as_deref(), Some(b"sums".as_slice()));
        assert_eq!(found.packs[1].parts, [(11, 8192, 8192, 0, 0)]);
        let unnamed = NotedPack { parts: vec![(70, 0, 8192, 0, 0)], ..found.packs[1].clone() };
        assert_eq!(Unfinished { packs: vec![unnamed], ..found }.next_number(), 71, "a part keeps its number to itself");
    }
}
