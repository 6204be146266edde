//! The index of names of one tenant's filestore: what is stored, where, and when it was seen.
//!
//! Promises: a name that was stored keeps its location for ever, whatever happens at the source; a
//! million names take about 50 MiB. In the repository it is layered: captures add *segments*, and the
//! index object of a capture names all of them (`segments`), so it is complete by itself.

use std::num::NonZeroU32;

use chrono::{DateTime, Utc};

use super::name::FileName;
use super::segments::{Header, SegmentRef};
use super::stamps::Stamp;
use crate::error::{self, Result};
use crate::evidence::entry::Suspect;
use crate::repository::{PackInfo, PackTable};

/// A stored file. Small, because there may be millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Size of the content in bytes.
    pub length: u64,
    /// Frame that holds the first byte, counted through the packs of all segments.
    pub(super) frame: u32,
    /// Offset of the first byte in that frame's plaintext.
    pub offset: u32,
    first_seen: u32,
    last_seen: Option<NonZeroU32>,
    /// Its name.
    pub name: FileName,
}

const _: () = assert!(size_of::<Record>() == 48, "a million names must stay small");

impl Record {
    pub(super) fn new(name: FileName, length: u64, frame: u64, offset: u32, first_seen: u32) -> Result<Self> {
        let frame = u32::try_from(frame).map_err(|_| error::integrity("a filestore index counts too many frames"))?;
        Ok(Self { length, frame, offset, first_seen, last_seen: None, name })
    }

    #[must_use]
    pub(super) fn gone(mut self, last_seen: Option<NonZeroU32>) -> Self {
        self.last_seen = last_seen;
        self
    }

    pub(super) fn move_to(&mut self, frame: u64) -> Result<()> {
        self.frame = u32::try_from(frame).map_err(|_| error::integrity("a filestore index counts too many frames"))?;
        Ok(())
    }

    /// Frame that holds the first byte, counted through the packs of all segments.
    pub fn frame(&self) -> u64 {
        self.frame.into()
    }

    /// When the file was first stored, in seconds since 1970.
    pub fn first_seen(&self) -> u32 {
        self.first_seen
    }

    /// The last scan that saw it, in seconds since 1970; `None`: the newest one did.
    pub fn last_seen(&self) -> Option<u32> {
        self.last_seen.map(NonZeroU32::get)
    }
}

/// Seconds since 1970, as records keep them: good until 2106.
pub(super) fn seconds(time: DateTime<Utc>) -> NonZeroU32 {
    u32::try_from(time.timestamp()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX)
}

/// An index in memory.
#[derive(Debug)]
pub struct Index {
    /// Whose it is and which capture wrote it.
    pub header: Header,
    /// The stored files, sorted by name.
    pub records: Vec<Record>,
    /// Files that were damaged at the source when the capture was taken.
    pub damaged: Vec<Suspect>,
    /// The packs of all segments, when they were asked for.
    pub packs: PackTable,
    pub(super) segments: Vec<SegmentRef>,
    /// Packs of the segment that comes next, in order.
    pub(super) pending: Vec<PackInfo>,
    /// What the directories looked like when they were listed last.
    pub(super) stamps: Vec<Stamp>,
    /// When all directories were listed last.
    pub(super) listed_at: Option<DateTime<Utc>>,
}

/// What a scan found against an index.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// On disk and not in the index, sorted.
    pub(super) new: Vec<FileName>,
    /// No longer on disk.
    pub(super) gone: Vec<FileName>,
    /// On disk again.
    pub(super) back: Vec<FileName>,
}

impl Index {
    /// An index of nothing.
    pub(super) fn empty(header: Header) -> Self {
        Self {
            header,
            records: Vec::new(),
            damaged: Vec::new(),
            packs: PackTable::default(),
            segments: Vec::new(),
            pending: Vec::new(),
            stamps: Vec::new(),
            listed_at: None,
        }
    }

    /// The record of a name.
    pub fn find(&self, name: &FileName) -> Option<&Record> {
        self.position(name).map(|at| &self.records[at])
    }

    pub(super) fn position(&self, name: &FileName) -> Option<usize> {
        self.records.binary_search_by(|r| r.name.cmp(name)).ok()
    }

    /// How many frames the packs of all segments have.
    pub(super) fn frames(&self) -> u64 {
        self.segments.iter().map(|s| s.frames).sum()
    }

    /// Number of the frame that comes next.
    pub(super) fn next_frame(&self) -> u64 {
        self.frames() + self.pending.iter().map(|p| p.frames.len() as u64).sum::<u64>()
    }

    /// Takes over what stands elsewhere: packs, and the records in them, whose frames are counted from the
    /// first of these packs.
    pub(super) fn adopt(&mut self, others: impl IntoIterator<Item = (Vec<PackInfo>, Vec<Record>)>) -> Result<()> {
        let mut all = Vec::new();
        for (packs, records) in others {
            let base = self.next_frame();
            for record in records {
                let moved =
                    Record::new(record.name, record.length, base + record.frame(), record.offset, record.first_seen)?;
                all.push(moved.gone(record.last_seen));
            }
            self.pending.extend(packs);
        }
        self.add(all);
        Ok(())
    }

    /// Adds records in any order. Two captures at once may have stored the same name: the older
    /// location is kept, the newer word on whether the file is there.
    pub(super) fn add(&mut self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        match self.records.is_empty() {
            true => self.records = records,
            false => self.records.extend(records),
        }
        self.records.sort_unstable_by_key(|r| (r.name, r.frame, r.offset));
        self.records.dedup_by(|later, kept| {
            let same = later.name == kept.name;
            if same {
                kept.last_seen = later.last_seen;
            }
            same
        });
    }

    /// Notes that a file is gone since `last_seen`, or there again.
    pub(super) fn note(&mut self, name: &FileName, last_seen: Option<NonZeroU32>) {
        if let Some(at) = self.position(name) {
            self.records[at].last_seen = last_seen;
        }
    }

    /// Begins to hold a scan against the index.
    pub(super) fn sweep(&mut self) -> Sweep<'_> {
        let last_seen = seconds(self.header.scan_finished);
        Sweep { records: &mut self.records, at: 0, last_seen, taken: 0, changes: Changes::default() }
    }
}

/// A merge of the index with the sorted names of a scan, which arrive in parts.
#[derive(Debug)]
pub(super) struct Sweep<'a> {
    records: &'a mut [Record],
    at: usize,
    last_seen: NonZeroU32,
    /// Files that were there and still are, without having been listed.
    taken: u64,
    changes: Changes,
}

impl Sweep<'_> {
    /// The names that begin with `byte` are what they were.
    pub(super) fn unchanged(&mut self, byte: u8) {
        while self.records.get(self.at).is_some_and(|r| r.name.first_byte() < byte) {
            self.miss();
        }
        let same = self.records[self.at..].iter().take_while(|r| r.name.first_byte() == byte);
        let (all, there) = same.fold((0, 0), |(all, there), r| (all + 1, there + u64::from(r.last_seen.is_none())));
        (self.at, self.taken) = (self.at + all, self.taken + there);
    }

    pub(super) fn part(&mut self, names: &[FileName]) {
        for name in names {
            while self.records.get(self.at).is_some_and(|r| r.name < *name) {
                self.miss();
            }
            match self.records.get_mut(self.at).filter(|r| r.name == *name) {
                Some(record) => {
                    if record.last_seen.take().is_some() {
                        self.changes.back.push(*name);
                    }
                    self.at += 1;
                }
                None => self.changes.new.push(*name),
            }
        }
    }

    /// The changes, and the number of files in parts that were not listed.
    pub(super) fn end(mut self) -> (Changes, u64) {
        while self.at < self.records.len() {
            self.miss();
        }
        (self.changes, self.taken)
    }

    fn miss(&mut self) {
        let record = &mut self.records[self.at];
        if record.last_seen.is_none() {
            // What came after the last scan was seen when it was stored.
            record.last_seen = Some(self.last_seen.max(NonZeroU32::new(record.first_seen).unwrap_or(self.last_seen)));
            self.changes.gone.push(record.name);
        }
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::segments::testing::header;
    use super::*;

    fn name(n: u8) -> FileName {
        FileName::new([n; 20])
    }

    fn index(names: impl IntoIterator<Item = u8>) -> Index {
        let mut index = Index::empty(header("one", 100));
        index.add(names.into_iter().map(|n| Record::new(name(n), 1, n.into(), 0, 1).expect("small")).collect());
        index
    }

    fn sweep(index: &mut Index, names: &[u8]) -> Changes {
        let mut sweep = index.sweep();
        for part in names.chunks(3) {
            sweep.part(&part.iter().map(|n| name(*n)).collect::<Vec<_>>());
        }
        sweep.end().0
    }

    proptest! {
        #[test]
        fn a_sweep_is_a_set_difference(
            known in proptest::collection::btree_set(0u8..40, 0..30),
            first in proptest::collection::btree_set(0u8..40, 0..30),
            second in proptest::collection::btree_set(0u8..40, 0..30),
        ) {
            let names = |set: &mut dyn Iterator<Item = u8>| set.map(name).collect::<Vec<_>>();
            let mut index = index(known.iter().copied());
            let changes = sweep(&mut index, &first.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(&changes.new, &names(&mut first.difference(&known).copied()));
            prop_assert_eq!(&changes.gone, &names(&mut known.difference(&first).copied()));
            prop_assert!(changes.back.is_empty());
            let changes = sweep(&mut index, &second.iter().copied().collect::<Vec<_>>());
            let was_there = |n: &u8| first.contains(n);
            prop_assert_eq!(&changes.back, &names(&mut known.intersection(&second).copied().filter(|n| !was_there(n))));
            prop_assert_eq!(&changes.gone, &names(&mut known.difference(&second).copied().filter(was_there)));
            for n in &known {
                prop_assert_eq!(index.find(&name(*n)).expect("nothing is forgotten").last_seen().is_none(), second.contains(n));
            }
        }
    }

    #[test]
    fn a_part_that_was_not_listed_keeps_its_state_and_its_neighbours_do_not() {
        let mut index = index([3, 5, 7]);
        index.note(&name(5), NonZeroU32::new(9));
        let mut more = name(5).sha1();
        more[19] = 6;
        index.add(vec![Record::new(FileName::new(more), 1, 9, 0, 1).expect("small")]);
        let mut sweep = index.sweep();
        sweep.unchanged(5);
        sweep.part(&[name(7)]);
        let (changes, taken) = sweep.end();
        assert_eq!((changes.gone, changes.back, changes.new, taken), (vec![name(3)], vec![], vec![], 1));
        assert_eq!(index.find(&name(5)).and_then(Record::last_seen), Some(9));
    }

    #[test]
    fn of_two_places_for_a_name_the_older_one_is_kept() {
        let mut index = index([3]);
        index.note(&name(3), NonZeroU32::new(9));
        index.add(vec![Record::new(name(3), 1, 77, 5, 2).expect("small")]);
        let record = index.find(&name(3)).expect("there");
        assert_eq!((record.frame(), record.last_seen(), index.records.len()), (3, None, 1));
    }
}
