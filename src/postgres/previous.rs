//! The base backup before: what of it a new one takes over instead of storing it again.
//!
//! A page whose LSN lies before the previous backup's start has not changed since: whatever changed it
//! before was written to disk by the checkpoint with which that backup started (`access/transam/README`).
//! That needs data checksums or `wal_log_hints`; without, WAL itself tells what changed, or the pages' sums.
//! And it holds only if the previous backup belongs to the same history, so [`Previous::find`] takes none
//! whose end the cluster's present timeline does not contain: a cluster that was rewound, restored to an
//! earlier state or replaced is read whole.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::backup_manifest::ManifestText;
use super::kept::{Kept, Range};
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
use crate::repository::page_sums::{PAGE, SUM, Sums, SumsWriter};
use crate::repository::retention::{State, guard};
use crate::repository::splice::{Change, splice, worn_frames};
use crate::repository::{PackInfo, PackTable};
use crate::runtime::Runtime;
use crate::storage::layout;
use crate::units::{Lsn, Timeline};

/// Of so many pages at most the sums are held in memory: 96 MiB of sums, for 64 GiB of pages.
const MOST_SUMS: u64 = 8 << 20;

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
    by_lsn: bool,
    /// Its timeline and the end of the WAL it needs.
    pub(super) stop: Option<(Timeline, Lsn)>,
    /// Its packs.
    pub(super) packs: PackTable,
    files: HashMap<String, FileEntry>,
    /// Files of which an interrupted attempt stored something, that laid over what the backup has.
    noted: HashMap<String, FileEntry>,
    /// Sums of pages of `packs`, as far as they are known.
    sums: Arc<Sums>,
    /// Frames whose pages are to be stored anew.
    worn: HashSet<u64>,
    /// Packs that an interrupted attempt stored and no ledger entry names, from this one on.
    adopted: usize,
    /// Number of their first frame, and where that attempt started; 0 where no LSN tells.
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
        // What was retired goes soon, and is not to be kept alive by what builds on it.
        let state = State::of(entries);
        let bases = state.living(entries).rev().filter_map(|e| match &e.statement.predicate.body {
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

    /// Lays over it what an interrupted attempt stored, as far as it is still in the repository. It counts by
    /// LSN as a backup of its own, and by sums.
    pub(super) async fn resume(
        mut self,
        repository: &Repository,
        environment: &str,
        entries: &[LedgerEntry],
        unfinished: Unfinished,
    ) -> Result<Self> {
        let first_frame = self.packs.frames();
        let files: HashMap<u32, &NotedFile> = unfinished.files.iter().map(|f| (f.number, f)).collect();
        let mut sums = SumsWriter::new(repository, environment);
        let mut adopted = Vec::new();
        // Nothing refers to these packs yet: retention may be about to delete them.
        let doomed = guard::doomed(repository, environment, &State::of(entries)).await?;
        for pack in &unfinished.packs {
            if doomed.contains(&format!("data/{}", pack.info.sha256)) {
                continue;
            }
            let there = repository.store.info(&layout::pack(environment, &pack.info.sha256)).await?;
            let (Some(there), Some(pages)) = (there, pack.sums()) else { continue };
            if there.size == pack.info.size && pages.len() as u64 == page_count(&pack.info) * SUM as u64 {
                sums.pack(&pack.info.sha256, &pages).await?;
                adopted.push((pack, pages));
            }
        }
        let mut infos: Vec<PackInfo> = adopted.iter().map(|(pack, _)| pack.info.clone()).collect();
        self.adopted_sums = sums.finish(&mut infos).await?;
        let mut sums = Sums::default();
        for ((pack, pages), info) in adopted.into_iter().zip(infos) {
            let (number, first) = (self.packs.packs().len(), self.packs.push(info));
            sums.add(&self.packs, number, pages);
            let mut changes: HashMap<&str, (&NotedFile, Vec<Change>)> = HashMap::new();
            for &(number, file_offset, length, frame, offset) in &pack.parts {
                let Some(file) = files.get(&number) else { continue };
                let at = Some((first + frame, offset));
                let change = Change { file_offset, length: u64::from(length), at };
                changes.entry(&file.path).or_insert_with(|| (file, Vec::new())).1.push(change);
            }
            for (path, (noted, changes)) in changes {
                self.note(path, noted, changes)?;
            }
        }
        self.sums = Arc::new(sums);
        let since = if unfinished.attempt.hints_logged { unfinished.attempt.start_lsn } else { Lsn(0) };
        self.resumed = Some((first_frame, since));
        Ok(self)
    }

    /// Lays what one pack holds of a file over what is stored of it.
    fn note(&mut self, path: &str, noted: &NotedFile, mut changes: Vec<Change>) -> Result<()> {
        let entry = self.noted.entry(path.to_owned()).or_insert_with(|| {
            // Never "unchanged": it was not read to its end.
            let stat = noted.stat.map(|stat| FileStat { asked: 0, ..stat });
            let new = || FileEntry { path: path.to_owned(), stat, ..FileEntry::default() };
            self.files.get(path).cloned().unwrap_or_else(new)
        });
        if let (Some(before), Some(now)) = (entry.stat, noted.stat)
            && before.inode != now.inode
        {
            // Content of two files, so no inode is that of both.
            entry.stat = None;
        }
        // What lies there now is no content that was ever whole: only pages tell what may be kept.
        entry.digest = None;
        changes.sort_unstable_by_key(|c| c.file_offset);
        let end = changes.last().map_or(0, |c| c.file_offset + c.length);
        entry.size = entry.size.max(end);
        entry.runs = splice(&entry.runs, &self.packs, entry.size, &changes)?;
        Ok(())
    }

    /// Reads the sums of its pages where nothing else tells which are unchanged: no LSN, and no WAL, says the
    /// caller. So many as [`MOST_SUMS`] says; pages of other packs are stored anew.
    pub(super) async fn read_sums(&mut self, repository: &Repository, environment: &str) -> Result<()> {
        if self.id.is_none() || self.by_lsn {
            return Ok(());
        }
        let mut pages = 0;
        let wanted: Vec<usize> = (0..self.adopted)
            .take_while(|number| {
                pages += page_count(&self.packs.packs()[*number]);
                pages <= MOST_SUMS
            })
            .collect();
        match Sums::read_packs(repository, environment, &self.packs, &wanted).await {
            Ok(read) => Arc::make_mut(&mut self.sums).merge(read),
            // They save work, and nothing is built on what is not known.
            Err(e) if e.kind() == ErrorKind::Integrity => {
                tracing::warn!("pages are not compared with those of the previous base backup: {e}");
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Whether there is nothing to take over.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.noted.is_empty()
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

    /// The same, where no LSN tells.
    #[cfg(test)]
    pub(super) fn without_lsn(self) -> Self {
        Self { by_lsn: false, ..self }
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

    /// What is stored of a file.
    pub(super) fn file(&self, path: &str) -> Option<&FileEntry> {
        self.noted.get(path).or_else(|| self.files.get(path))
    }

    /// The file as the backup has it, without what was noted of an interrupted attempt: that knows but parts
    /// of a file.
    pub(super) fn whole_file(&self, path: &str) -> Option<&FileEntry> {
        self.files.get(path)
    }

    /// The stretches of a file that may be taken over: stored, not worn, not damaged.
    pub(super) fn kept(&self, file: &FileEntry) -> Result<Kept> {
        let mut kept = Kept::new(&file.damaged, self.sums.clone());
        let has_lsn = RelationFile::at(&file.path).is_some_and(|relation| relation.has_lsn());
        let own = if self.by_lsn { self.since } else { Lsn(0) };
        for run in &file.runs {
            self.packs.cut(run.frame, run.offset, run.length, |frame, offset, length, done| {
                let from = run.file_offset + done;
                let end = from + u64::from(length);
                if self.worn.contains(&frame) {
                    kept.again.push((from, end));
                    return;
                }
                let since = match self.resumed {
                    Some((first, since)) if frame >= first => since,
                    _ => own,
                };
                let since = if has_lsn { since } else { Lsn(0) };
                kept.add(Range { from, end, since, sums: self.sums.place(&self.packs, frame, offset) });
            })?;
        }
        Ok(kept)
    }
}

fn page_count(pack: &PackInfo) -> u64 {
    pack.frames.iter().map(|frame| u64::from(frame.1).div_ceil(PAGE as u64)).sum()
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
