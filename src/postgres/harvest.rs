//! What a reader of the cluster found and stored, and how it becomes a manifest: new pages are laid over
//! those of the previous base backup, so that every manifest is complete.

use super::previous::Previous;
use crate::error::Result;
use crate::repository::base_manifest::{BaseManifest, FileEntry, Header};
use crate::repository::page_writer::Stored;
use crate::repository::splice::{Change, compact, splice};
use crate::repository::{PackTable, Written};

/// A file as a reader found it.
#[derive(Debug)]
pub(super) struct Seen {
    /// What the manifest says of it; its runs come from what was stored.
    pub(super) entry: FileEntry,
    /// Whether what was stored goes over the previous backup's content, instead of replacing it.
    pub(super) over: bool,
    /// Whether it vanished before it was read.
    pub(super) gone: bool,
}

/// Everything that a reader found.
#[derive(Debug, Default)]
pub(super) struct Harvest {
    /// Directories: path and mode.
    pub(super) dirs: Vec<(String, u32)>,
    /// Links: path and target.
    pub(super) links: Vec<(String, String)>,
    /// Files; their places are the numbers in `stored` and `zeroed`.
    pub(super) files: Vec<Seen>,
    /// What was stored of them.
    pub(super) stored: Vec<Stored>,
    /// Stretches that are zeros: file, offset, length.
    pub(super) zeroed: Vec<(u32, u64, u64)>,
}

impl Harvest {
    /// Notes a page of zeros.
    pub(super) fn zero(&mut self, file: u32, offset: u64, length: u64) {
        note_zero(&mut self.zeroed, file, offset, length);
    }

    /// The manifest: `written` holds what was stored, `previous` what is taken over.
    pub(super) fn into_manifest(self, header: Header, previous: &Previous, written: &Written) -> Result<BaseManifest> {
        let Self { dirs, links, files: seen, stored, zeroed } = self;
        let first_new = previous.packs.frames();
        let mut packs = previous.packs.clone();
        for pack in &written.packs {
            packs.push(pack.clone());
        }
        let mut changes: Vec<(u32, Change)> = Vec::with_capacity(stored.len() + zeroed.len());
        changes.extend(stored.into_iter().map(|s| {
            let at = Some((first_new + s.frame, s.offset));
            (s.file, Change { file_offset: s.file_offset, length: u64::from(s.length), at })
        }));
        changes.extend(
            zeroed.into_iter().map(|(file, file_offset, length)| (file, Change { file_offset, length, at: None })),
        );
        changes.sort_unstable_by_key(|(file, change)| (*file, change.file_offset));
        let mut files = Vec::with_capacity(seen.len());
        let mut rest = changes.as_slice();
        let mut of_file = Vec::new();
        for (number, Seen { mut entry, over, gone }) in seen.into_iter().enumerate() {
            let count = rest.partition_point(|(file, _)| *file as usize <= number);
            of_file.clear();
            of_file.extend(rest[..count].iter().map(|(_, change)| *change));
            rest = &rest[count..];
            if gone {
                continue;
            }
            let before = previous.file(&entry.path).filter(|_| over).map_or(&[][..], |f| &f.runs);
            entry.runs = splice(before, &packs, entry.size, &of_file)?;
            files.push(entry);
        }
        let packs: PackTable = compact(&mut files, packs)?;
        Ok(BaseManifest { header, dirs, links, files, packs })
    }
}

/// Adds a stretch of zeros to a list, joined to the last one where it continues it.
pub(super) fn note_zero(zeroed: &mut Vec<(u32, u64, u64)>, file: u32, offset: u64, length: u64) {
    match zeroed.last_mut() {
        Some((last, from, so_far)) if *last == file && *from + *so_far == offset => *so_far += length,
        _ => zeroed.push((file, offset, length)),
    }
}
