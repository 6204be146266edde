//! From frames to files: each under a temporary name until its content is whole and right.
//!
//! Called from several threads, one for each pack. A file within one frame is hashed on its way; one
//! that crosses frames, and so perhaps packs, is written in parts and read again when the last part
//! has come. No file is open longer than one part takes, so nothing grows with size or number.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sha1::{Digest, Sha1};

use super::index::Index;
use super::name::FileName;
use super::restore::PHASE;
use crate::disk::{Owner, failed};
use crate::error::{self, Result};
use crate::event::Event;
use crate::repository::fetch::FrameSink;
use crate::runtime::Runtime;

/// A part of one frame that belongs into one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) file_offset: u64,
    pub(super) frame: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    /// Number of the file's record in the index.
    pub(super) file: u32,
}

/// Receives frames and makes files.
#[derive(Debug)]
pub(super) struct Materialiser {
    directory: PathBuf,
    owner: Option<Owner>,
    index: Arc<Index>,
    /// Sorted by frame.
    slices: Vec<Slice>,
    done: Vec<AtomicBool>,
    /// Bytes that are still to come, of files in several parts.
    rest: Mutex<HashMap<u32, u64>>,
    runtime: Runtime,
}

impl Materialiser {
    pub(super) fn new(
        directory: &Path,
        owner: Option<Owner>,
        index: &Arc<Index>,
        mut slices: Vec<Slice>,
        runtime: &Runtime,
    ) -> Self {
        slices.sort_unstable_by_key(|s| (s.frame, s.offset));
        let done = index.records.iter().map(|_| AtomicBool::new(false)).collect();
        let (directory, runtime) = (directory.to_owned(), runtime.clone());
        Self { directory, owner, index: index.clone(), slices, done, rest: Mutex::default(), runtime }
    }

    /// The frames that are wanted, sorted, each once.
    pub(super) fn frames(&self) -> Vec<u64> {
        let mut frames: Vec<u64> = self.slices.iter().map(|s| s.frame.into()).collect();
        frames.dedup();
        frames
    }

    /// Removes what is half there, because a pack could not be read.
    pub(super) fn clean_up(&self) {
        for (file, _) in self.rest.lock().expect("no holder panics").drain() {
            // Where that fails it may stay: its name is not an attachment's.
            let _ = std::fs::remove_file(self.temporary(&self.index.records[file as usize].name));
        }
    }

    /// Whether the file of this record is there, whole and right.
    pub(super) fn is_done(&self, file: usize) -> bool {
        self.done[file].load(Ordering::Acquire)
    }

    fn temporary(&self, name: &FileName) -> PathBuf {
        self.directory.join(format!("{name}.lifeboat"))
    }

    fn take(&self, slice: &Slice, bytes: &[u8]) -> Result<()> {
        let file = self.index.records[slice.file as usize];
        let temporary = self.temporary(&file.name);
        let whole = u64::from(slice.length) == file.length;
        let opened = self.open(&temporary, whole).map_err(|e| failed("cannot create", &temporary, e))?;
        opened.write_all_at(bytes, slice.file_offset).map_err(|e| failed("cannot write", &temporary, e))?;
        let found: [u8; 20] = if whole {
            Sha1::digest(bytes).into()
        } else {
            {
                let mut rest = self.rest.lock().expect("no holder panics");
                let left = rest.entry(slice.file).or_insert(file.length);
                *left -= u64::from(slice.length);
                if *left > 0 {
                    return Ok(());
                }
                rest.remove(&slice.file);
            }
            // An interrupted restore may have left a longer file.
            opened.set_len(file.length).map_err(|e| failed("cannot cut", &temporary, e))?;
            digest(&temporary).map_err(|e| failed("cannot read again", &temporary, e))?
        };
        if found != file.name.sha1() {
            self.runtime.emit(Event::Warning(format!(
                "the stored content of {} has the SHA-1 {}; it was not written",
                file.name,
                hex::encode(found)
            )));
            return std::fs::remove_file(&temporary).map_err(|e| failed("cannot remove", &temporary, e));
        }
        let path = self.directory.join(file.name.path());
        std::fs::rename(&temporary, &path).map_err(|e| failed("cannot rename to", &path, e))?;
        self.done[slice.file as usize].store(true, Ordering::Release);
        Ok(())
    }

    fn open(&self, path: &Path, whole: bool) -> io::Result<File> {
        let create = || OpenOptions::new().write(true).create(true).truncate(whole).mode(0o640).open(path);
        let file = match create() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_dir(path.parent().expect("a file has a directory"), self.owner)?;
                create()?
            }
            other => other?,
        };
        if let Some(owner) = self.owner {
            std::os::unix::fs::fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(file)
    }
}

/// Makes a directory that belongs to `owner`; another thread may make it at the same time.
pub(super) fn make_dir(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path)?;
    match owner {
        Some(owner) => std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)),
        None => Ok(()),
    }
}

fn digest(path: &Path) -> io::Result<[u8; 20]> {
    let mut file = File::open(path)?;
    let mut hash = Sha1::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}

impl FrameSink for Materialiser {
    fn frame(&self, number: u64, plaintext: &[u8]) -> Result<()> {
        let first = self.slices.partition_point(|s| u64::from(s.frame) < number);
        let mut bytes = 0;
        for slice in self.slices[first..].iter().take_while(|s| u64::from(s.frame) == number) {
            let from = slice.offset as usize;
            let part = plaintext
                .get(from..from + slice.length as usize)
                .ok_or_else(|| error::integrity(format!("frame {number} is shorter than the filestore index says")))?;
            self.take(slice, part)?;
            bytes += u64::from(slice.length);
        }
        self.runtime.emit(Event::Progress { phase: PHASE.into(), bytes });
        Ok(())
    }
}
