//! What a base backup stored so far, noted on this host while it runs: after a crash or a failure the
//! next attempt takes over what lies in the repository instead of storing it again.
//!
//! The file is a cache like everything in the state directory: without it the next backup just begins
//! anew. One line says which attempt it was, then come files and durable packs in any order; a line that a
//! crash cut off is ignored. What was stored counts as of the *start* of that attempt, as a previous base
//! backup counts as of its start (see [`super::previous`]).

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::order::Span;
use super::present::Present;
use crate::disk::failed;
use crate::error::Result;
use crate::repository::base_manifest::FileStat;
use crate::repository::page_writer::Stored;
use crate::repository::{PackInfo, PackWatcher};
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
}

impl Attempt {
    /// Whether `other` may go on with it: it builds on the same, and this one's beginning is in the cluster's past.
    fn is_continued_by(&self, other: &Self, present: &Present) -> bool {
        self.repository == other.repository
            && self.previous == other.previous
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
        let next_number = unfinished.as_ref().map(|u| u.files.iter().map(|f| f.number + 1).max().unwrap_or_default());
        Ok(Some((Self { file, attempt, next_number }, unfinished)))
    }

    /// From now on notes what is stored of `seen`, by a backup that began as `span` says.
    pub(super) fn watch(&mut self, span: &Span, seen: &[NamedFile]) -> Result<Box<dyn PackWatcher>> {
        if self.next_number.is_none() {
            self.attempt.timeline = span.timeline;
            self.attempt.start_lsn = span.start_lsn;
            self.file.begin(&self.attempt)?;
        }
        Ok(Box::new(self.file.watch(seen, self.next_number.unwrap_or_default())?))
    }

    /// Removes the notes: the backup is committed.
    pub(super) fn finish(self) {
        // What stays behind is found to be of an earlier backup and forgotten.
        let _ = std::fs::remove_file(&self.file.path);
    }
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
        std::fs::create_dir_all(&dir).map_err(|e| failed("cannot create", &dir, e))?;
        let path = dir.join(format!("{environment}.progress"));
        let mut options = File::options();
        let file = options.read(true).append(true).create(true).open(&path);
        let file = file.map_err(|e| failed("cannot open", &path, e))?;
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
        begun.map_err(|e| failed("cannot write", &self.path, e))
    }

    /// Notes what is stored of `seen` from now on; numbers of files begin at `first`.
    fn watch(&self, seen: &[NamedFile], first: u32) -> Result<Watcher> {
        let file = self.file.try_clone().map_err(|e| failed("cannot open", &self.path, e))?;
        let files = seen.iter().cloned().map(Some).collect();
        Ok(Watcher { file, first, files })
    }
}

fn put(file: &mut File, line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line).expect("plain data");
    text.push(b'\n');
    file.write_all(&text)
}

/// Path of a file, and what the file system said of it.
pub(super) type NamedFile = (String, Option<FileStat>);

/// Notes packs as they become durable.
#[derive(Debug)]
struct Watcher {
    file: File,
    first: u32,
    /// Files that were not named yet.
    files: Vec<Option<NamedFile>>,
}

impl Watcher {
    fn note(&mut self, pack: &PackInfo, sums: &[u8], parts: &[Stored]) -> std::io::Result<()> {
        for part in parts {
            if let Some((path, stat)) = self.files.get_mut(part.file as usize).and_then(Option::take) {
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

    #[test]
    fn what_was_noted_is_read_back_and_a_cut_off_line_is_not() {
        let folder = tempfile::tempdir().expect("dir");
        let attempt =
            Attempt { repository: "r".into(), system_id: 7, timeline: Timeline(2), start_lsn: Lsn(9), previous: None };
        let mut file = ProgressFile::open(folder.path(), "production").expect("open").expect("free");
        assert!(ProgressFile::open(folder.path(), "production").expect("open").is_none(), "held");
        assert!(file.unfinished().is_none());
        file.begin(&attempt).expect("begin");
        let seen = ["a", "b"].map(|path| (path.to_owned(), None));
        let pack =
            |name: &str| PackInfo { sha256: name.into(), size: 1, first: 0, frames: vec![(1, 8192, 0)], sums: None };
        let part = Stored { file: 1, file_offset: 8192, length: 8192, frame: 0, offset: 0 };
        let mut watcher = file.watch(&seen, 10).expect("watch");
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
    }
}
