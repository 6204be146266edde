//! From the tar streams of a base backup to the repository: every directory, link and file becomes a
//! line of the manifest, every page that is neither zeros nor known from before goes into the pipeline.
//!
//! Runs on a blocking thread, fed through a bounded channel, so a slow store slows the server down
//! instead of filling memory.

use std::io::Read;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::direct::page::{self, Verdict};
use super::harvest::{Harvest, Seen};
use super::incremental_file::{IncrementalHead, whole_path};
use super::kept::Kept;
use super::previous::Previous;
use super::progress::Names;
use super::relation_file::RelationFile;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::evidence::entry::DamagedBlock;
use crate::repository::StreamWriter;
use crate::repository::base_manifest::FileEntry;
use crate::repository::page_sums::PAGE;
use crate::repository::page_writer::PageWriter;
use crate::units::Lsn;

/// How much of a file is looked at at once; a multiple of [`PAGE`].
const CHUNK: usize = 32 * PAGE;

/// What the protocol reader hands over.
#[derive(Debug)]
pub(super) enum Item {
    /// A tar stream begins; its paths lie below this prefix ("" or "pg_tblspc/<oid>/").
    Archive(String),
    /// PostgreSQL's own manifest begins.
    Manifest,
    /// Bytes of what began last.
    Data(Bytes),
    /// The server finished; without this the backup is incomplete.
    Finished,
}

/// Reads all items, writes what is not in `previous` to `content`. Pages that are older than `judge` are judged
/// by their checksum: the server has read torn ones again before it sent them. Every file is added to `names`.
pub(super) fn take_in(
    items: mpsc::Receiver<Item>,
    content: StreamWriter,
    previous: Arc<Previous>,
    judge: Option<Lsn>,
    names: Names,
) -> Result<(Harvest, Vec<DamagedBlock>)> {
    let mut source = Source { items, current: Bytes::new(), next: None };
    let (content, harvest) = (PageWriter::new(content), Harvest::default());
    let mut intake = Intake { content, previous, harvest, judge, damaged: Vec::new(), names };
    loop {
        match source.next_item()? {
            Item::Archive(prefix) => intake.archive(&mut source, &prefix)?,
            // The server's manifest is about what it sent, not about pages taken over from before.
            Item::Manifest if !intake.previous.is_empty() => {
                std::io::copy(&mut source, &mut std::io::sink()).or_err(ErrorKind::Source, || cut_off().message())?;
            }
            Item::Manifest => {
                let file = FileEntry { path: "backup_manifest".into(), mode: 0o600, ..FileEntry::default() };
                intake.file(&mut source, file)?;
            }
            Item::Data(_) => return Err(error::internal("base backup data came before an archive")),
            Item::Finished => {
                let (content, stored) = intake.content.finish()?;
                content.finish()?;
                return Ok((Harvest { stored, ..intake.harvest }, intake.damaged));
            }
        }
    }
}

struct Intake {
    content: PageWriter<StreamWriter>,
    previous: Arc<Previous>,
    harvest: Harvest,
    judge: Option<Lsn>,
    damaged: Vec<DamagedBlock>,
    names: Names,
}

impl Intake {
    fn archive(&mut self, source: &mut Source, prefix: &str) -> Result<()> {
        let broken = || "the tar stream of the base backup does not parse".to_owned();
        let mut archive = tar::Archive::new(&mut *source);
        for entry in archive.entries().or_err(ErrorKind::Source, broken)? {
            let mut entry = entry.or_err(ErrorKind::Source, broken)?;
            let header = entry.header();
            let mode = header.mode().or_err(ErrorKind::Source, broken)? & 0o7777;
            let mtime = header.mtime().or_err(ErrorKind::Source, broken)?;
            let kind = header.entry_type();
            let name = String::from_utf8(entry.path_bytes().into_owned())
                .or_err(ErrorKind::Source, || "the cluster holds a file whose name is not UTF-8".to_owned())?;
            let name = name.trim_start_matches("./").trim_end_matches('/');
            let path = format!("{prefix}{name}");
            if kind.is_dir() {
                if !name.is_empty() {
                    self.harvest.dirs.push((path, mode));
                }
            } else if kind.is_symlink() {
                let target =
                    entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
                self.harvest.links.push((path, target));
            } else if kind.is_file()
                && let Some(path) = whole_path(&path)
            {
                self.incremental(&mut entry, FileEntry { path, mode, mtime, ..FileEntry::default() })?;
            } else if kind.is_file() && path == "backup_label" {
                let mut label = Vec::new();
                entry.read_to_end(&mut label).or_err(ErrorKind::Source, broken)?;
                let file = FileEntry { path, mode, mtime, ..FileEntry::default() };
                self.file(&mut without_incremental(&label).as_slice(), file)?;
            } else if kind.is_file() {
                self.file(&mut entry, FileEntry { path, mode, mtime, ..FileEntry::default() })?;
            } else {
                return Err(error::source(format!(
                    "the base backup holds {path}, of a kind that is not known ({kind:?})"
                )));
            }
        }
        // What pads the archive behind its end mark.
        std::io::copy(source, &mut std::io::sink()).or_err(ErrorKind::Source, broken)?;
        Ok(())
    }

    fn file(&mut self, reader: &mut impl Read, mut file: FileEntry) -> Result<()> {
        let (kept, relation) = (self.kept(&file.path)?, RelationFile::at(&file.path));
        let number = self.number(&file.path);
        let mut chunk = [0; CHUNK];
        loop {
            let filled = read_full(reader, &mut chunk)
                .or_err(ErrorKind::Source, || format!("the base backup ended in the middle of {}", file.path))?;
            for page in chunk[..filled].chunks(PAGE) {
                self.check(&mut file, relation, page);
                if page::is_zero(page) {
                    self.harvest.zero(number, file.size, page.len() as u64);
                } else if !kept.as_ref().is_some_and(|k| k.page(file.size, page::lsn(page), page)) {
                    self.content.page(number, file.size, page)?;
                }
                file.size += page.len() as u64;
            }
            if filled < CHUNK {
                break;
            }
        }
        self.harvest.files.push(Seen { entry: file, over: kept.is_some(), gone: false });
        Ok(())
    }

    /// The changed blocks of a file: PostgreSQL's own incremental backup.
    fn incremental(&mut self, reader: &mut impl Read, mut file: FileEntry) -> Result<()> {
        let unsound = |path: &str, why: &str| {
            error::source(format!("the incremental backup of {path} cannot be used: {why}"))
                .meaning("the backup was not committed")
                .hint("`lifeboat backup base --full` reads everything")
        };
        let Some(before) = self.previous.file(&file.path) else {
            return Err(unsound(&file.path, "the previous backup does not have the file"));
        };
        let damaged_before = before.damaged.clone();
        // The server sends what WAL names, whatever the LSN.
        let kept = self.previous.kept(before)?.by_sums();
        let number = self.number(&file.path);
        let relation = RelationFile::at(&file.path);
        let head = IncrementalHead::read(reader).map_err(|why| unsound(&file.path, &why))?;
        let offset = |block: u32| u64::from(block) * PAGE as u64;
        let mut page = [0; PAGE];
        let mut zeros_from = head.cut;
        for &block in &head.blocks {
            reader.read_exact(&mut page).map_err(|e| unsound(&file.path, &format!("it ends early: {e}")))?;
            file.size = offset(block);
            self.check(&mut file, relation, &page);
            if block > zeros_from {
                self.harvest.zero(number, offset(zeros_from), offset(block) - offset(zeros_from));
            }
            match page::is_zero(&page) {
                true => self.harvest.zero(number, offset(block), PAGE as u64),
                false if kept.page(offset(block), page::lsn(&page), &page) => {}
                false => self.content.page(number, offset(block), &page)?,
            }
            zeros_from = zeros_from.max(block + 1);
        }
        file.size = offset(head.length());
        // A damaged page that was not written since is not sent again, and is as damaged as it was.
        for number in damaged_before {
            if number < head.cut && head.blocks.binary_search(&number).is_err() {
                let block = relation.map_or(number, |r| page::block_number(r.number, number));
                let what = "its checksum was wrong when an earlier backup read it, and it was not written since";
                file.damaged.push(number);
                self.damaged.push(DamagedBlock { path: file.path.clone(), block, what: what.into() });
            }
        }
        file.damaged.sort_unstable();
        self.harvest.files.push(Seen { entry: file, over: true, gone: false });
        Ok(())
    }

    /// Notes the page at the end of what was read of `file` where its checksum is wrong.
    fn check(&mut self, file: &mut FileEntry, relation: Option<RelationFile>, page: &[u8]) {
        let (Some(relation), Some(start), Ok(whole)) = (relation, self.judge, page.try_into()) else { return };
        let number = (file.size / PAGE as u64) as u32;
        let block = page::block_number(relation.number, number);
        let verdict = page::judge(whole, block, true);
        let (Verdict::Unsound { .. }, Some((lsn, what))) = (verdict, verdict.flaw()) else { return };
        if lsn >= start {
            return;
        }
        file.damaged.push(number);
        self.damaged.push(DamagedBlock { path: file.path.clone(), block, what });
    }

    /// What is stored of a file.
    fn kept(&self, path: &str) -> Result<Option<Kept>> {
        self.previous.file(path).map(|before| self.previous.kept(before)).transpose()
    }

    /// Number of the file that comes next.
    fn number(&self, path: &str) -> u32 {
        self.names.add(path, None);
        self.harvest.files.len() as u32
    }
}

/// `backup_label` without the lines by which PostgreSQL refuses to start from an incremental backup: what
/// is restored is whole.
fn without_incremental(label: &[u8]) -> Vec<u8> {
    label
        .split_inclusive(|b| *b == b'\n')
        .filter(|line| !line.starts_with(b"INCREMENTAL FROM"))
        .flatten()
        .copied()
        .collect()
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The channel as a reader: it ends where the next archive or the manifest begins.
struct Source {
    items: mpsc::Receiver<Item>,
    current: Bytes,
    next: Option<Item>,
}

impl Source {
    fn next_item(&mut self) -> Result<Item> {
        match self.next.take() {
            Some(item) => Ok(item),
            None => self.items.blocking_recv().ok_or_else(cut_off),
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            if self.next.is_some() {
                return Ok(0);
            }
            match self.items.blocking_recv() {
                Some(Item::Data(bytes)) => self.current = bytes,
                Some(other) => self.next = Some(other),
                None => return Err(std::io::Error::other(cut_off())),
            }
        }
        let take = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..take]);
        Ok(take)
    }
}

fn cut_off() -> error::Error {
    error::source("the connection ended before the base backup was complete")
}

#[cfg(test)]
#[path = "intake_tests.rs"]
pub(super) mod tests;
