//! The base backup before: what of it a new one takes over instead of storing it again.
//!
//! A page whose LSN lies before the previous backup's start has not changed since: whatever changed it
//! before was written to disk by the checkpoint with which that backup started (`access/transam/README`).
//! That holds only if the previous backup belongs to the same history, so [`Previous::find`] takes none
//! whose end the cluster's present timeline does not contain: a cluster that was rewound, restored to an
//! earlier state or replaced is read whole.

use std::collections::{HashMap, HashSet};

use super::replication::ReplicationConnection;
use super::wal::TimelineHistory;
use crate::error::Result;
use crate::evidence::entry::BaseBackup;
use crate::evidence::{Body, LedgerEntry};
use crate::repository::Repository;
use crate::repository::base_manifest::{BaseManifest, FileEntry};
use crate::repository::packs::PackTable;
use crate::repository::page_sums::PAGE;
use crate::repository::splice::worn_frames;
use crate::units::{Lsn, Timeline};

/// What an earlier base backup holds.
#[derive(Debug, Default)]
pub(super) struct Previous {
    /// Its id; `None` where there is none to build on.
    pub(super) id: Option<String>,
    /// Where it started: older pages are unchanged.
    pub(super) since: Lsn,
    /// Its packs.
    pub(super) packs: PackTable,
    files: HashMap<String, FileEntry>,
    /// Frames whose pages are to be stored anew.
    worn: HashSet<u64>,
}

/// Where a cluster stands.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) system_id: u64,
    /// Its timeline, and those that came before.
    pub(super) history: TimelineHistory,
    /// End of its WAL, or some place shortly before.
    pub(super) lsn: Lsn,
    /// `server_version_num`.
    pub(super) server_version: u32,
}

impl Previous {
    /// The newest base backup that the present state of the cluster grew out of.
    pub(super) async fn find(
        repository: &Repository,
        environment: &str,
        entries: &[LedgerEntry],
        present: &Present,
    ) -> Result<Self> {
        let bases = entries.iter().rev().filter_map(|e| match &e.statement.predicate.body {
            Body::BaseBackup(base) => Some(base),
            _ => None,
        });
        for base in bases {
            if !present.grew_out_of(base) {
                continue;
            }
            let manifest = BaseManifest::read(repository, environment, &base.manifest).await?;
            if manifest.header.server_version / 10_000 == present.server_version / 10_000 {
                return Self::of(manifest);
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
            packs,
            files: files.into_iter().map(|f| (f.path.clone(), f)).collect(),
            worn,
        })
    }

    /// A previous backup whose pages before `since` are unchanged.
    #[cfg(test)]
    pub(super) fn built_on(manifest: BaseManifest, since: Lsn) -> Result<Self> {
        Ok(Self { since, ..Self::of(manifest)? })
    }

    /// What it holds of a file.
    pub(super) fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.get(path)
    }

    /// The stretches of a file that may be taken over: stored, not worn, not damaged.
    pub(super) fn kept(&self, file: &FileEntry) -> Result<Kept> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut note = |from: u64, end: u64| match ranges.last_mut() {
            Some(last) if last.1 == from => last.1 = end,
            _ => ranges.push((from, end)),
        };
        for run in &file.runs {
            if self.worn.is_empty() {
                note(run.file_offset, run.file_offset + run.length);
                continue;
            }
            self.packs.cut(run.frame, run.offset, run.length, |frame, _, length, done| {
                let from = run.file_offset + done;
                if !self.worn.contains(&frame) {
                    note(from, from + u64::from(length));
                }
            })?;
        }
        Ok(Kept { since: self.since, ranges, damaged: file.damaged.clone() })
    }

    /// Whether everything stored of a file may be taken over as it is.
    pub(super) fn is_sound(&self, file: &FileEntry) -> Result<bool> {
        if !file.damaged.is_empty() {
            return Ok(false);
        }
        let stored: u64 = file.runs.iter().map(|r| r.length).sum();
        let kept: u64 = self.kept(file)?.ranges.iter().map(|(from, end)| end - from).sum();
        Ok(stored == kept)
    }
}

impl Present {
    /// Asks the server.
    pub(super) async fn of(connection: &mut ReplicationConnection) -> Result<Self> {
        let system = connection.identify_system().await?;
        let history = match system.timeline {
            Timeline(1) => TimelineHistory::first(Timeline(1)),
            timeline => {
                let (_, text) = connection.timeline_history(timeline).await?;
                TimelineHistory::parse(timeline, &String::from_utf8_lossy(&text))?
            }
        };
        let (system_id, server_version) = (system.system_id, connection.server_version());
        Ok(Self { system_id, history, lsn: system.flush_lsn, server_version })
    }

    /// Whether that backup, to its end, is part of this cluster's past.
    fn grew_out_of(&self, base: &BaseBackup) -> bool {
        base.system_id == self.system_id.to_string()
            && base.stop_lsn <= self.lsn
            && self.history.contains(base.timeline, base.stop_lsn)
    }
}

/// What the previous backup has of one file.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    since: Lsn,
    /// Stretches by offset, not touching each other.
    ranges: Vec<(u64, u64)>,
    damaged: Vec<u32>,
}

impl Kept {
    /// Whether the page at `offset`, found with `lsn` in its header, is the one that was stored.
    pub(super) fn page(&self, offset: u64, lsn: Lsn) -> bool {
        // Pages without an LSN were changed by something that writes no WAL; there are hardly any.
        lsn.0 != 0 && lsn < self.since && self.has(offset)
    }

    /// Whether the page at `offset` is stored and may be taken over.
    pub(super) fn has(&self, offset: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.0 <= offset);
        let stored = after.checked_sub(1).is_some_and(|i| offset + PAGE as u64 <= self.ranges[i].1);
        stored && !self.damaged.contains(&((offset / PAGE as u64) as u32))
    }
}
