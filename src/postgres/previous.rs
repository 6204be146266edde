//! The base backup before: what of it a new one takes over instead of storing it again.
//!
//! A page whose LSN lies before the previous backup's start has not changed since: whatever changed it
//! before was written to disk by the checkpoint with which that backup started (`access/transam/README`).
//! That needs data checksums or `wal_log_hints`; without, only WAL itself tells what changed.
//! And it holds only if the previous backup belongs to the same history, so [`Previous::find`] takes none
//! whose end the cluster's present timeline does not contain: a cluster that was rewound, restored to an
//! earlier state or replaced is read whole.

use std::collections::{HashMap, HashSet};

use super::backup_manifest::ManifestText;
use super::present::Present;
use super::progress::{NotedFile, Unfinished};
use super::relation_file::RelationFile;
use crate::error::{self, ErrorKind, Result};
use crate::event::Event;
use crate::evidence::entry::BaseBackup;
use crate::evidence::{Body, LedgerEntry};
use crate::repository::Repository;
use crate::repository::base_manifest::{BaseManifest, FileEntry, FileStat};
use crate::repository::meta::MetaObject;
use crate::repository::page_sums::{PAGE, SumsWriter};
use crate::repository::splice::{Change, splice, worn_frames};
use crate::repository::{PackInfo, PackTable};
use crate::runtime::Runtime;
use crate::storage::layout;
use crate::units::{Lsn, Timeline};

/// What an earlier base backup holds.
#[derive(Debug, Default)]
pub(super) struct Previous {
    /// Its id; `None` where there is none to build on.
    pub(super) id: Option<String>,
    /// Where it started: older pages are unchanged.
    pub(super) since: Lsn,
    /// Whether a page with an older LSN is an older page. Without data checksums and `wal_log_hints`,
    /// VACUUM marks pages as all-visible without moving their LSN, and an old page beside the new
    /// visibility map would give wrong answers.
    pub(super) by_lsn: bool,
    /// Its timeline and the end of the WAL it needs.
    pub(super) stop: Option<(Timeline, Lsn)>,
    /// Its packs.
    pub(super) packs: PackTable,
    files: HashMap<String, FileEntry>,
    /// Frames whose pages are to be stored anew.
    worn: HashSet<u64>,
    /// Packs that an interrupted attempt stored and no ledger entry names, from this one on.
    adopted: usize,
    /// Number of their first frame, and where that attempt started.
    resumed: Option<(u64, Lsn)>,
    /// Metadata objects made for them.
    pub(super) adopted_sums: Vec<MetaObject>,
}

impl Previous {
    /// The newest base backup that the present state of the cluster grew out of.
    pub(super) async fn find(
        repository: &Repository,
        environment: &str,
        entries: &[LedgerEntry],
        present: &Present,
        runtime: &Runtime,
    ) -> Result<Self> {
        let bases = entries.iter().rev().filter_map(|e| match &e.statement.predicate.body {
            Body::BaseBackup(base) => Some(base),
            _ => None,
        });
        for base in bases {
            if !present.grew_out_of(base) {
                continue;
            }
            let manifest = match whole_manifest(repository, environment, base).await {
                Ok(manifest) => manifest,
                // What is damaged must not be built upon; what is stored anew does not depend on it.
                Err(e) if e.kind() == ErrorKind::Integrity => {
                    runtime.emit(Event::Warning(format!(
                        "base backup {} is damaged, so this one does not build on it: {e}; `lifeboat verify` tells more",
                        base.id
                    )));
                    continue;
                }
                Err(e) => return Err(e),
            };
            if manifest.header.server_version / 10_000 == present.server_version / 10_000 {
                let by_lsn = manifest.header.hints_logged && present.hints_logged();
                return Ok(Self { by_lsn, stop: Some((base.timeline, base.stop_lsn)), ..Self::of(manifest)? });
            }
        }
        Ok(Self::default())
    }

    fn of(manifest: BaseManifest) -> Result<Self> {
        let BaseManifest { header, files, packs, .. } = manifest;
        let worn = worn_frames(&files, &packs)?;
        Ok(Self {
            id: Some(header.id),
            since: header.start_lsn,
            adopted: packs.packs().len(),
            packs,
            files: files.into_iter().map(|f| (f.path.clone(), f)).collect(),
            worn,
            ..Self::default()
        })
    }

    /// Lays over it what an interrupted attempt stored, as far as it is still in the repository.
    pub(super) async fn resume(
        mut self,
        repository: &Repository,
        environment: &str,
        unfinished: Unfinished,
        hints_logged: bool,
    ) -> Result<Self> {
        self.by_lsn = hints_logged && (self.by_lsn || self.id.is_none());
        let first_frame = self.packs.frames();
        let files: HashMap<u32, &NotedFile> = unfinished.files.iter().map(|f| (f.number, f)).collect();
        let mut sums = SumsWriter::new(repository, environment);
        let mut adopted = Vec::new();
        for pack in &unfinished.packs {
            let there = repository.store.info(&layout::pack(environment, &pack.info.sha256)).await?;
            let (Some(there), Some(pages)) = (there, pack.sums()) else { continue };
            if there.size == pack.info.size {
                sums.pack(&pack.info.sha256, &pages).await?;
                adopted.push(pack);
            }
        }
        let mut infos: Vec<PackInfo> = adopted.iter().map(|p| p.info.clone()).collect();
        self.adopted_sums = sums.finish(&mut infos).await?;
        for (pack, info) in adopted.into_iter().zip(infos) {
            let first = self.packs.push(info);
            let mut changes: HashMap<&str, (&NotedFile, Vec<Change>)> = HashMap::new();
            for &(number, file_offset, length, frame, offset) in &pack.parts {
                let Some(file) = files.get(&number) else { continue };
                let at = Some((first + frame, offset));
                let change = Change { file_offset, length: u64::from(length), at };
                changes.entry(&file.path).or_insert_with(|| (file, Vec::new())).1.push(change);
            }
            for (path, (noted, mut changes)) in changes {
                let entry = self.files.entry(path.to_owned()).or_default();
                if entry.stat.map(|s| s.inode) != noted.stat.map(|s| s.inode) {
                    // Never "unchanged": it was not read to its end.
                    let stat = noted.stat.map(|stat| FileStat { asked: 0, ..stat });
                    *entry = FileEntry { path: path.to_owned(), stat, ..FileEntry::default() };
                }
                changes.sort_unstable_by_key(|c| c.file_offset);
                // What lies there now is no content that was ever whole: only pages tell what may be kept.
                entry.digest = None;
                let end = changes.last().map_or(0, |c| c.file_offset + c.length);
                entry.size = entry.size.max(end);
                entry.runs = splice(&entry.runs, &self.packs, entry.size, &changes)?;
            }
        }
        self.resumed = Some((first_frame, unfinished.attempt.start_lsn));
        Ok(self)
    }

    /// Whether there is nothing to take over.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether a pack was stored by an interrupted attempt, and is not named by the ledger yet.
    pub(super) fn is_adopted(&self, sha256: &str) -> bool {
        self.packs.packs()[self.adopted..].iter().any(|p| p.sha256 == sha256)
    }

    /// A previous backup whose pages before `since` are unchanged.
    #[cfg(test)]
    pub(super) fn built_on(manifest: BaseManifest, since: Lsn) -> Result<Self> {
        Ok(Self { since, by_lsn: true, ..Self::of(manifest)? })
    }

    /// It as PostgreSQL's own manifest, for UPLOAD_MANIFEST: of which only names, sizes and the range of
    /// WAL count, so the sums of files are left at zero.
    pub(super) fn manifest_text(
        &self,
        server_version: u32,
        system_id: u64,
        (timeline, stop): (Timeline, Lsn),
    ) -> std::io::Result<Vec<u8>> {
        let mut text = ManifestText::new(Vec::new(), server_version, system_id)?;
        // Visibility maps change without WAL naming their blocks: the server is to send them whole.
        let named = |f: &&FileEntry| RelationFile::at(&f.path).is_none_or(|r| r.has_lsn());
        for file in self.files.values().filter(named) {
            text.file(&file.path, file.size, file.mtime as i64, 0)?;
        }
        text.finish(timeline, self.since, stop)
    }

    /// What it holds of a file.
    pub(super) fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.get(path)
    }

    /// The stretches of a file that may be taken over: stored, not worn, not damaged.
    pub(super) fn kept(&self, file: &FileEntry) -> Result<Kept> {
        let mut ranges: Vec<Range> = Vec::new();
        let page = |number: &u32| (u64::from(*number) * PAGE as u64, (u64::from(*number) + 1) * PAGE as u64);
        let mut again: Vec<(u64, u64)> = file.damaged.iter().map(page).collect();
        let mut note = |from: u64, end: u64, since: Lsn| match ranges.last_mut() {
            Some(last) if last.end == from && last.since == since => last.end = end,
            _ => ranges.push(Range { from, end, since }),
        };
        for run in &file.runs {
            let since = match self.resumed {
                // Runs that an attempt stored lie within one frame.
                Some((first, since)) if run.frame >= first => since,
                _ => self.since,
            };
            if self.worn.is_empty() {
                note(run.file_offset, run.file_offset + run.length, since);
                continue;
            }
            self.packs.cut(run.frame, run.offset, run.length, |frame, _, length, done| {
                let from = run.file_offset + done;
                match self.worn.contains(&frame) {
                    true => again.push((from, from + u64::from(length))),
                    false => note(from, from + u64::from(length), since),
                }
            })?;
        }
        Ok(Kept { ranges, damaged: file.damaged.clone(), again })
    }
}

/// The manifest of a backup whose packs are all there, as far as the store's listing tells.
async fn whole_manifest(repository: &Repository, environment: &str, base: &BaseBackup) -> Result<BaseManifest> {
    let manifest = BaseManifest::read(repository, environment, &base.manifest).await?;
    let listed = repository.store.list(&layout::packs(environment)).await?;
    let there: HashMap<&str, u64> = listed.iter().map(|o| (o.key.as_str(), o.size)).collect();
    for pack in manifest.packs.packs() {
        let key = layout::pack(environment, &pack.sha256);
        if there.get(key.as_str()) != Some(&pack.size) {
            return Err(error::integrity(format!("{key} is missing or has another size")));
        }
    }
    Ok(manifest)
}

/// What the previous backup has of one file.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    /// Stretches by offset.
    ranges: Vec<Range>,
    damaged: Vec<u32>,
    /// Stretches that are stored, but are to be read again.
    pub(super) again: Vec<(u64, u64)>,
}

/// A stretch whose pages are unchanged if they are older than `since`.
#[derive(Debug, Clone, Copy)]
struct Range {
    from: u64,
    end: u64,
    since: Lsn,
}

impl Kept {
    /// Whether the page at `offset`, found with `lsn` in its header, is the one that was stored.
    pub(super) fn page(&self, offset: u64, lsn: Lsn) -> bool {
        // Pages without an LSN were changed by something that writes no WAL; there are hardly any.
        lsn.0 != 0 && self.range(offset).is_some_and(|range| lsn < range.since)
    }

    fn range(&self, offset: u64) -> Option<&Range> {
        let after = self.ranges.partition_point(|range| range.from <= offset);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        let whole = offset + PAGE as u64 <= range.end;
        (whole && !self.damaged.contains(&((offset / PAGE as u64) as u32))).then_some(range)
    }
}
