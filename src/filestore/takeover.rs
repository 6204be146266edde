//! What a capture takes over from a watcher, and what it reads again.
//!
//! A watcher stores what came within a second in a pack of its own. A capture reads the files of small packs
//! again, into full ones, so that a restore need not fetch thousands of objects; it takes over the records of
//! packs that are large enough, and of files that are gone at the source.

use std::collections::HashSet;
use std::num::NonZeroU32;

use super::index::Index;
use super::live::Piece;
use super::name::FileName;
use crate::error::Result;

/// The names to read: what Odoo may collect soon comes first, and what a watcher stored well is left out.
pub(super) fn in_order(new: &[FileName], candidates: &[FileName], pieces: &[Piece]) -> Vec<FileName> {
    let stored: HashSet<FileName> =
        pieces.iter().filter(|p| p.is_large()).flat_map(|p| p.records.iter().map(|r| r.name)).collect();
    let mut names: Vec<FileName> = new.iter().filter(|name| !stored.contains(name)).copied().collect();
    names.sort_by_cached_key(|name| candidates.binary_search(name).is_err());
    names
}

/// What was taken over from a watcher.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Files of those that are no longer at the source.
    pub(super) gone: u64,
}

/// Takes over what a watcher stored and the index does not have: files in full packs, and files that are
/// gone at the source. `new` is what the scan saw and the index did not have.
pub(super) fn adopt(index: &mut Index, pieces: &[Piece], new: &[FileName]) -> Result<Adopted> {
    let mut done = Adopted::default();
    let mut names = HashSet::new();
    let mut others = Vec::new();
    for piece in pieces {
        let mut records = Vec::new();
        for record in piece.records.iter().filter(|r| index.find(&r.name).is_none()) {
            if !names.insert(record.name) {
                continue;
            }
            let there = piece.is_large() && new.binary_search(&record.name).is_ok();
            let last_seen = if there { None } else { NonZeroU32::new(record.first_seen()) };
            done.files += 1;
            done.bytes += record.length;
            done.gone += u64::from(!there);
            records.push(record.gone(last_seen));
        }
        if !records.is_empty() {
            others.push((piece.packs.clone(), records));
        }
    }
    index.adopt(others)?;
    Ok(done)
}
