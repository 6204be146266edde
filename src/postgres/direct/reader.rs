//! Reading the files of a running cluster with several threads: each takes stretches of files from one
//! list, checks the pages, and stores what the previous backup does not have.
//!
//! A page that is being written while it is read may be torn: it is read again. One that stays unsound is
//! damaged, unless it was written after the backup began: then WAL holds it whole. A file that shrinks
//! while it is read is filled up with zeros, as BASE_BACKUP does, and one that vanishes is left out: replay
//! brings both into the state that WAL says.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::listing::Kind;
use super::page::{self, Verdict};
use super::plan::{How, Task};
use super::throttle::Throttle;
use crate::disk::failed;
use crate::error::{self, Error, ErrorKind, Result};
use crate::event::Event;
use crate::evidence::entry::DamagedBlock;
use crate::postgres::harvest::note_zero;
use crate::postgres::kept::Kept;
use crate::postgres::relation_file::RelationFile;
use crate::repository::page_sums::PAGE;
use crate::repository::page_writer::{FrameOut, PageWriter, Stored};
use crate::runtime::Runtime;
use crate::units::Lsn;

/// Stretches of relations that threads take at once.
const UNIT: u64 = 16 << 20;

/// How much is read at once.
const CHUNK: usize = 32 * PAGE;

/// Pauses before an unsound page is read again.
const AGAIN: [Duration; 3] = [Duration::ZERO, Duration::from_millis(5), Duration::from_millis(50)];

/// What all threads share.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) data: PathBuf,
    pub(super) tasks: Vec<Task>,
    units: Vec<Unit>,
    next: AtomicUsize,
    /// Where the backup starts: newer pages come from WAL.
    pub(super) start: Lsn,
    /// Whether pages carry checksums.
    pub(super) checksums: bool,
    pub(super) throttle: Throttle,
    pub(super) stopped: AtomicBool,
    pub(super) runtime: Runtime,
}

#[derive(Debug, Clone, Copy)]
struct Unit {
    file: u32,
    from: u64,
    end: u64,
}

/// What became of a file that is stored whole or not at all.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Gone,
    Kept { digest: String },
    Stored { digest: String },
}

/// What one thread did.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) stored: Vec<Stored>,
    pub(super) zeroed: Vec<(u32, u64, u64)>,
    pub(super) outcomes: Vec<(u32, Outcome)>,
    /// File, page of it, and what is to be told.
    pub(super) damaged: Vec<(u32, u32, DamagedBlock)>,
    pub(super) bytes_read: u64,
}

/// Name of the phase that reports progress.
pub(super) use crate::postgres::base_backup::PHASE;

impl Reading {
    pub(super) fn new(
        data: PathBuf,
        tasks: Vec<Task>,
        start: Lsn,
        checksums: bool,
        throttle: Throttle,
        runtime: Runtime,
    ) -> Self {
        let mut units = Vec::new();
        for (file, task) in tasks.iter().enumerate() {
            let file = file as u32;
            let size = task.found.size;
            match task.how {
                How::Unread => {}
                _ if has_lsn(task) => {
                    let starts = (0..size.max(1)).step_by(UNIT as usize);
                    let all = starts.map(|from| Unit { file, from, end: (from + UNIT).min(size) });
                    units.extend(all.filter(|unit| task.how.touches(unit.from, unit.end)));
                }
                _ => units.push(Unit { file, from: 0, end: size }),
            }
        }
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { data, tasks, units, next, start, checksums, throttle, stopped, runtime }
    }

    /// Bytes that may have to be read.
    pub(super) fn bytes(&self) -> u64 {
        let of = |task: &Task| match &task.how {
            How::Unread => 0,
            How::Stretches(stretches, _) => stretches.iter().map(|(from, end)| end - from).sum(),
            _ => task.found.size,
        };
        self.tasks.iter().map(of).sum()
    }

    /// One thread's work; ends when nothing is left.
    pub(super) fn work<O: FrameOut>(&self, out: O) -> Result<Share> {
        let (writer, share, path) = (PageWriter::new(out), Share::default(), PathBuf::new());
        let mut hand = Hand { reading: self, writer, share, chunk: vec![0; CHUNK], path };
        while let Some(unit) = self.units.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(error::interrupted("reading the cluster was stopped"));
            }
            let result = hand.unit(*unit);
            if let Err(e) = result {
                self.stopped.store(true, Ordering::Relaxed);
                return Err(e);
            }
        }
        let Hand { writer, mut share, .. } = hand;
        share.stored = writer.finish()?.1;
        Ok(share)
    }
}

/// Whether the pages of this file are read with their LSN.
fn has_lsn(task: &Task) -> bool {
    matches!(task.found.kind, Kind::Relation(file) if file.has_lsn())
}

struct Hand<'a, O> {
    reading: &'a Reading,
    writer: PageWriter<O>,
    share: Share,
    chunk: Vec<u8>,
    /// The file being read.
    path: PathBuf,
}

impl<O: FrameOut> Hand<'_, O> {
    fn unit(&mut self, unit: Unit) -> Result<()> {
        let task = &self.reading.tasks[unit.file as usize];
        let path = self.reading.data.join(&task.found.path);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.share.outcomes.push((unit.file, Outcome::Gone));
                return Ok(());
            }
            Err(e) => return Err(unreadable(&path, e)),
        };
        self.path = path;
        if has_lsn(task) { self.pages(unit, task, &file) } else { self.whole(unit, task, &file) }
    }

    /// A stretch of a relation.
    fn pages(&mut self, unit: Unit, task: &Task, file: &File) -> Result<()> {
        match &task.how {
            How::Stretches(stretches, kept) => {
                let first = stretches.partition_point(|(_, end)| *end <= unit.from);
                for (from, end) in stretches[first..].iter().take_while(|(from, _)| *from < unit.end) {
                    let part = Unit { from: unit.from.max(*from), end: unit.end.min(*end), ..unit };
                    self.stretch(part, task, file, Some(kept))?;
                }
                Ok(())
            }
            How::Pages(kept) => self.stretch(unit, task, file, Some(kept)),
            _ => self.stretch(unit, task, file, None),
        }
    }

    fn stretch(&mut self, unit: Unit, task: &Task, file: &File, kept: Option<&Kept>) -> Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let mut at = unit.from;
        while at < unit.end {
            let length = ((unit.end - at) as usize).min(CHUNK);
            self.read(file, &mut chunk[..length], at)?;
            for page in chunk[..length].chunks_mut(PAGE) {
                if page::is_zero(page) {
                    note_zero(&mut self.share.zeroed, unit.file, at, page.len() as u64);
                } else if page.len() < PAGE {
                    self.writer.page(unit.file, at, page)?;
                } else {
                    let lsn = self.check(unit.file, task, file, at, page)?;
                    if !kept.is_some_and(|kept| kept.page(at, lsn, page)) {
                        self.writer.page(unit.file, at, page)?;
                    }
                }
                at += page.len() as u64;
            }
        }
        self.chunk = chunk;
        Ok(())
    }

    /// Judges a page and reads it again while it is unsound; tells its LSN.
    fn check(&mut self, number: u32, task: &Task, file: &File, at: u64, page: &mut [u8]) -> Result<Lsn> {
        let Kind::Relation(RelationFile { number: segment, .. }) = task.found.kind else { return Ok(Lsn(0)) };
        let place = (at / PAGE as u64) as u32;
        let block = page::block_number(segment, place);
        let mut pauses = AGAIN.iter();
        loop {
            let whole: &[u8; PAGE] = (&*page).try_into().expect("only whole pages are checked");
            let verdict = page::judge(whole, block, self.reading.checksums);
            let Some((lsn, what)) = verdict.flaw() else {
                // Zeros, since it was looked at, are a truncation, which WAL brings.
                return Ok(if let Verdict::Sound { lsn } = verdict { lsn } else { Lsn(0) });
            };
            let Some(pause) = pauses.next() else {
                if lsn < self.reading.start {
                    let path = task.found.path.clone();
                    self.share.damaged.push((number, place, DamagedBlock { path, block, what }));
                }
                return Ok(Lsn(u64::MAX));
            };
            std::thread::sleep(*pause);
            self.read(file, page, at)?;
        }
    }

    /// A file without pages that tell when they changed.
    fn whole(&mut self, unit: Unit, task: &Task, file: &File) -> Result<()> {
        if let How::IfChanged { digest, size } = &task.how
            && *size == task.found.size
            && self.digest(unit, file)? == *digest
        {
            self.share.outcomes.push((unit.file, Outcome::Kept { digest: digest.clone() }));
            return Ok(());
        }
        let mut hasher = Xxh3::new();
        self.each_chunk(unit, file, |hand, at, chunk| {
            hasher.update(chunk);
            for (number, page) in chunk.chunks(PAGE).enumerate() {
                let at = at + (number * PAGE) as u64;
                match page::is_zero(page) {
                    true => note_zero(&mut hand.share.zeroed, unit.file, at, page.len() as u64),
                    false => hand.writer.page(unit.file, at, page)?,
                }
            }
            Ok(())
        })?;
        self.share.outcomes.push((unit.file, Outcome::Stored { digest: format!("{:032x}", hasher.digest128()) }));
        Ok(())
    }

    fn digest(&mut self, unit: Unit, file: &File) -> Result<String> {
        let mut hasher = Xxh3::new();
        self.each_chunk(unit, file, |_, _, chunk| {
            hasher.update(chunk);
            Ok(())
        })?;
        Ok(format!("{:032x}", hasher.digest128()))
    }

    /// Reads a file piece by piece: what `each` gets is where it begins and its bytes.
    fn each_chunk(
        &mut self,
        unit: Unit,
        file: &File,
        mut each: impl FnMut(&mut Self, u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let mut at = 0;
        while at < unit.end {
            let length = ((unit.end - at) as usize).min(CHUNK);
            self.read(file, &mut chunk[..length], at)?;
            each(self, at, &chunk[..length])?;
            at += length as u64;
        }
        self.chunk = chunk;
        Ok(())
    }

    /// Fills `buffer` from the file; with zeros where it ends early.
    fn read(&mut self, file: &File, buffer: &mut [u8], at: u64) -> Result<()> {
        self.reading.throttle.take(buffer.len() as u64);
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(unreadable(&self.path, e)),
            }
        }
        buffer[filled..].fill(0);
        self.share.bytes_read += buffer.len() as u64;
        self.reading.runtime.emit(Event::Progress { phase: PHASE.into(), bytes: buffer.len() as u64 });
        Ok(())
    }
}

fn unreadable(path: &std::path::Path, e: std::io::Error) -> Error {
    let denied = e.kind() == std::io::ErrorKind::PermissionDenied;
    let error = Error::new(ErrorKind::Source, failed("cannot read", path, e).message())
        .meaning("the base backup would lack this file, so it was not committed");
    if denied {
        error.hint("run as the account that owns the cluster, or set `reader = \"streamed\"`")
    } else {
        error.hint("if the disk is failing, take a copy of it first; `reader = \"streamed\"` reads through the server")
    }
}
