//! The stored bytes of a base backup cut into parts that lie in one frame and belong to one file.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{self, Result};
use crate::repository::base_manifest::BaseManifest;
use crate::repository::packs::PackTable;

/// Files of the source that must not come back: they would make the copy follow another server.
pub(super) const LEFT_OUT: [&str; 4] = ["standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts"];

/// A part of one frame that belongs into one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) frame: u64,
    pub(super) offset: u32,
    pub(super) length: u32,
    /// The file's place in the manifest.
    pub(super) file: u32,
    pub(super) file_offset: u64,
}

impl Slice {
    /// A part of this part.
    pub(super) fn part(self, range: Range<u32>) -> Self {
        Self {
            offset: self.offset + range.start,
            length: range.end - range.start,
            file_offset: self.file_offset + u64::from(range.start),
            ..self
        }
    }

    /// Whether another part begins where this one ends, in the frame and in the file.
    pub(super) fn continued_by(self, next: Self) -> bool {
        let (frame, offset) = (self.frame, self.offset + self.length);
        (frame, offset, self.file, self.end()) == (next.frame, next.offset, next.file, next.file_offset)
    }

    /// Where the part ends in its file.
    pub(super) fn end(self) -> u64 {
        self.file_offset + u64::from(self.length)
    }
}

/// Whether a restore writes this file.
pub(super) fn is_restored(path: &str) -> bool {
    !LEFT_OUT.contains(&path)
}

/// Cuts the runs of all files that are restored at frame borders; sorted by frame.
pub(super) fn slices(manifest: &BaseManifest) -> Result<Vec<Slice>> {
    let mut slices = Vec::new();
    for (index, file) in manifest.files.iter().enumerate() {
        if !is_restored(&file.path) {
            continue;
        }
        for run in &file.runs {
            if run.file_offset + run.length > file.size {
                return Err(error::integrity(format!("the manifest places bytes of {} behind its end", file.path)));
            }
            manifest.packs.cut(run.frame, run.offset, run.length, |frame, offset, length, done| {
                slices.push(Slice { frame, offset, length, file: index as u32, file_offset: run.file_offset + done });
            })?;
        }
    }
    sort_by_frame(&mut slices);
    Ok(slices)
}

pub(super) fn sort_by_frame(slices: &mut [Slice]) {
    slices.sort_unstable_by_key(|s| (s.frame, s.file, s.file_offset));
}

/// The distinct frames of slices that are sorted by frame.
pub(super) fn frames(slices: &[Slice]) -> Vec<u64> {
    let mut frames: Vec<u64> = slices.iter().map(|s| s.frame).collect();
    frames.dedup();
    frames
}

/// The slices of one frame; `slices` are sorted by frame.
pub(super) fn of_frame(slices: &[Slice], frame: u64) -> &[Slice] {
    let from = slices.partition_point(|s| s.frame < frame);
    let rest = &slices[from..];
    &rest[..rest.iter().take_while(|s| s.frame == frame).count()]
}

/// The numbers of the packs whose page sums stand in the same metadata object: what is read and held in
/// memory together. Packs without sums are in no group.
pub(super) fn groups(table: &PackTable) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, pack) in table.packs().iter().enumerate() {
        if let Some(object) = &pack.sums {
            groups.entry(object).or_default().push(number);
        }
    }
    groups.into_values().collect()
}

/// The slices of these packs, in the order of files; `slices` are sorted by frame.
pub(super) fn of_packs(slices: &[Slice], table: &PackTable, packs: &[usize]) -> Vec<Slice> {
    let mut found = Vec::new();
    for pack in packs {
        let first = table.first_frame_of(*pack);
        let end = first + table.packs()[*pack].frames.len() as u64;
        let from = slices.partition_point(|s| s.frame < first);
        let to = slices.partition_point(|s| s.frame < end);
        found.extend_from_slice(&slices[from..to]);
    }
    found.sort_unstable_by_key(|s| (s.file, s.file_offset));
    found
}
