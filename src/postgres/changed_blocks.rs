//! Which blocks of the cluster's relations changed between two positions of WAL, put together from what
//! was kept of each segment.
//!
//! It promises: a page of a main or init fork that a record in `[from, to)` writes is named. It relies on
//! the caller for three things that no WAL says: blocks behind the length that a file had at `from` are
//! new; free space maps and visibility maps are never named and count as changed ([`Touched::limit`] is
//! 0); and `pg_checksums`, run while the server was down, changes every page.
//!
//! Where a stretch of WAL is not covered without a hole, there is no answer at all, only the reason.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::block_files::{BlockFiles, Keeper, Stretch};
use super::relation_file::BLOCKS_IN_FILE;
use super::wal::{BlockMap, ForkBlocks, RelationFork, SegmentName, TimelineHistory, WalReader};
use crate::units::Lsn;

/// Length of a WAL page, on which a record may end exactly; the next begins behind a header.
const PAGE: u64 = 8192;
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;

/// Why it is not known what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotCovered(String);

impl fmt::Display for NotCovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotCovered {}

/// The WAL between two positions of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct WalSpan<'a> {
    /// The cluster.
    pub system_id: u64,
    /// Its `wal_segment_size`.
    pub segment_size: u64,
    /// The timeline that it is on, with its ancestors.
    pub history: &'a TimelineHistory,
    /// Start of the first record that counts: where the previous backup started.
    pub from: Lsn,
    /// Start of the first record that does not count: where this backup starts.
    pub to: Lsn,
}

/// What changed between two positions.
#[derive(Debug, Clone)]
pub struct ChangedBlocks(BlockMap);

/// What changed of one fork.
#[derive(Debug, Clone, Copy)]
pub struct Touched<'a> {
    limit: Option<u32>,
    blocks: Option<&'a ForkBlocks>,
}

impl ChangedBlocks {
    /// Puts together what was kept for `span`. What is not kept is read from `pg_wal`, the directory of
    /// a server that still has it, where one is given.
    pub fn load(files: &BlockFiles, span: &WalSpan<'_>, pg_wal: Option<&Path>) -> Result<Self, NotCovered> {
        let mut covered = Covered { reached: span.from, map: BlockMap::default(), last: None };
        let mut number = span.from.segment(span.segment_size);
        while !span.ends_at(covered.reached) {
            let mut why = None;
            let mut complete = false;
            for (name, leave) in span.files(number) {
                match files.read(&name).and_then(|stretch| covered.take(span, stretch, leave)) {
                    Ok(all) => complete |= all,
                    Err(e) => why = why.or(Some(e)),
                }
            }
            if let Some(pg_wal) = pg_wal.filter(|_| !complete && !span.ends_at(covered.reached)) {
                for (name, leave) in span.files(number) {
                    let read = span.read(files, covered.last.clone(), &pg_wal.join(name.to_string()), &name);
                    complete |= read.is_some_and(|stretch| covered.take(span, stretch, leave).is_ok_and(|all| all));
                }
            }
            if !complete && !span.ends_at(covered.reached) {
                let name =
                    SegmentName::new(span.history.of_segment(number, span.segment_size), number, span.segment_size);
                let why = why.unwrap_or_else(|| format!("the changed blocks of {name} are not kept to its end"));
                return Err(NotCovered(format!("from {} on: {why}", covered.reached)));
            }
            number += 1;
        }
        match covered.map.doubt() {
            Some(why) => Err(NotCovered(why.to_owned())),
            None => Ok(Self(covered.map)),
        }
    }

    /// What changed of a fork. Free space maps and visibility maps count as changed from the first block on.
    pub fn touched(&self, fork: &RelationFork) -> Touched<'_> {
        let whole = !fork.fork.is_mapped() || self.0.database_replaced(fork.tablespace, fork.database);
        let blocks = self.0.fork(fork);
        let limit = blocks.and_then(ForkBlocks::limit);
        Touched { limit: if whole { Some(0) } else { limit }, blocks }
    }

    /// Whether all of a database in a tablespace was created, replaced or dropped.
    pub fn database_replaced(&self, tablespace: u32, database: u32) -> bool {
        self.0.database_replaced(tablespace, database)
    }

    /// All that is known.
    pub fn map(&self) -> &BlockMap {
        &self.0
    }
}

impl<'a> Touched<'a> {
    /// Whether nothing changed.
    pub fn is_nothing(&self) -> bool {
        self.limit.is_none() && self.blocks.is_none()
    }

    /// From this block of the fork on everything may have changed.
    pub fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// Whether a block may have changed.
    pub fn block(&self, block: u32) -> bool {
        self.limit.is_some_and(|limit| block >= limit) || self.blocks.is_some_and(|b| b.blocks().contains(block))
    }

    /// The changed blocks before the limit that lie in segment file `file` of the fork (0 for the one
    /// without a suffix), in rising order, counted from the beginning of the *fork*.
    pub fn in_file(&self, file: u32) -> impl Iterator<Item = u32> + use<'a> {
        let first = file.saturating_mul(BLOCKS_IN_FILE);
        let end = first.saturating_add(BLOCKS_IN_FILE).min(self.limit.unwrap_or(u32::MAX));
        self.blocks.into_iter().flat_map(move |b| b.blocks().range(first..end.max(first)))
    }
}

/// What is covered so far.
struct Covered {
    /// All records from the beginning to here are in the map.
    reached: Lsn,
    map: BlockMap,
    last: Option<Stretch>,
}

impl Covered {
    /// Adds a stretch, of which the line leaves the timeline at `leave`; whether it reaches to the end of
    /// its segment.
    fn take(&mut self, span: &WalSpan<'_>, stretch: Stretch, leave: Lsn) -> Result<bool, String> {
        if stretch.system_id != span.system_id || stretch.segment_size != span.segment_size {
            return Err(format!("what is kept is that of cluster {}", stretch.system_id));
        }
        if stretch.start > span.behind_header(self.reached) {
            return Err(format!("what is kept begins only at {}", stretch.start));
        }
        self.map.merge(&stretch.map);
        self.reached = self.reached.max(stretch.end.min(leave));
        let complete = stretch.is_complete() && stretch.end <= leave;
        self.last = Some(stretch);
        Ok(complete)
    }
}

impl WalSpan<'_> {
    /// The files that may hold segment `number`, with the positions where the line leaves their
    /// timelines. A segment in which the timeline changes exists for both; the newer one begins with a
    /// copy of the older one's bytes.
    fn files(&self, number: u64) -> Vec<(SegmentName, Lsn)> {
        let (start, end) = (Lsn(number * self.segment_size), Lsn((number + 1) * self.segment_size));
        let mut from = Lsn(0);
        let mut files = Vec::new();
        let ancestors = self.history.ancestors().iter().map(|a| (a.timeline, a.switch));
        for (timeline, leave) in ancestors.chain([(self.history.timeline(), Lsn(u64::MAX))]) {
            if from < end && leave > start {
                files.push((SegmentName::new(timeline, number, self.segment_size), leave));
            }
            from = leave;
        }
        files
    }

    /// Where the record behind `position` begins at the earliest.
    fn behind_header(&self, position: Lsn) -> Lsn {
        if position.0.is_multiple_of(self.segment_size) {
            Lsn(position.0 + LONG_HEADER)
        } else if position.0.is_multiple_of(PAGE) {
            Lsn(position.0 + SHORT_HEADER)
        } else {
            position
        }
    }

    fn ends_at(&self, reached: Lsn) -> bool {
        self.behind_header(reached) >= self.to
    }

    /// Reads a segment of a server that has written everything before [`WalSpan::to`].
    fn read(&self, files: &BlockFiles, before: Option<Stretch>, path: &Path, name: &SegmentName) -> Option<Stretch> {
        let start = name.start(self.segment_size).ok()?;
        let wanted = self.to.0.checked_sub(start.0)?.min(self.segment_size);
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(wanted).read_to_end(&mut bytes).ok()?;
        let mut reader = WalReader::new(self.segment_size, start, Some(self.system_id)).ok()?;
        reader.set_newest_timeline(name.timeline);
        let before = before.filter(|before| before.number().is_some_and(|n| (n + 1) * self.segment_size == start.0));
        let keeper = Keeper::after(before, files.clone(), &mut reader, name.timeline, self.segment_size);
        reader.feed(&bytes, |_| {}).ok()?;
        keeper.finish(&bytes, reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::wal::{Fork, Unfinished};
    use crate::repository::StateDir;
    use crate::runtime::Runtime;
    use crate::units::Timeline;

    const SIZE: u64 = 1 << 20;

    fn at(segments: f64) -> Lsn {
        Lsn((segments * SIZE as f64) as u64)
    }

    fn fork(relation: u32) -> RelationFork {
        RelationFork { tablespace: 1663, database: 5, relation, fork: Fork::Main }
    }

    /// What is kept of a segment, with one block of relation `number` and the number of its timeline.
    fn stretch(timeline: u32, number: u32, start: Lsn, end: Lsn) -> Stretch {
        let mut bytes = vec![0, 0, 1, 0xFF, 0x0C, 5];
        bytes.extend([u8::try_from(number).expect("small"), 0, 0, 1, u8::try_from(timeline).expect("small")]);
        Stretch {
            system_id: 7,
            timeline: Timeline(timeline),
            segment_size: SIZE,
            at: Lsn(u64::from(number) * SIZE),
            start,
            end,
            map: BlockMap::decode(&bytes).expect("one block"),
            unfinished: None,
        }
    }

    fn whole(timeline: u32, number: u32) -> Stretch {
        stretch(timeline, number, at(number.into()), at(f64::from(number) + 1.0))
    }

    /// The record that begins at `end` of the stretch goes on behind its segment.
    fn going_on(mut stretch: Stretch) -> Stretch {
        let mut bytes = stretch.end.0.to_le_bytes().to_vec();
        bytes.extend([0; 12 + 24]);
        stretch.unfinished = Unfinished::from_bytes(&bytes);
        assert!(stretch.unfinished.is_some());
        stretch
    }

    fn history() -> TimelineHistory {
        TimelineHistory::first(Timeline(1)).descend(Timeline(2), at(5.5), "promoted")
    }

    fn load(kept: &[Stretch], from: Lsn, to: Lsn) -> Result<ChangedBlocks, String> {
        let folder = tempfile::tempdir().expect("dir");
        let files = BlockFiles::new(&StateDir::new(folder.path()), "production", &Runtime::silent());
        kept.iter().for_each(|stretch| files.write(stretch));
        let span = WalSpan { system_id: 7, segment_size: SIZE, history: &history(), from, to };
        ChangedBlocks::load(&files, &span, None).map_err(|why| why.to_string())
    }

    #[test]
    fn segments_make_one_map() {
        let kept = [whole(1, 3), going_on(stretch(1, 4, at(4.0), at(4.75))), stretch(2, 5, at(4.75), at(5.25))];
        let found = load(&kept, at(3.5), at(5.25)).expect("covered");
        for (relation, timeline) in [(3, 1), (4, 1), (5, 2)] {
            assert_eq!(found.touched(&fork(relation)).in_file(0).collect::<Vec<_>>(), [timeline], "{relation}");
        }
        assert!(found.touched(&fork(6)).is_nothing());
        assert!(load(&kept, at(3.5), at(5.25 + 0.01)).is_err(), "the last one does not reach that far");
        assert!(load(&kept, at(2.9), at(4.0)).is_err(), "the first one begins later");
        assert!(load(&kept[..1], at(3.5), at(4.0)).is_ok());
        assert!(load(&kept[..1], at(3.5), Lsn(at(4.0).0 + 40)).is_ok(), "only a page header lies between");
        assert!(load(&kept[..1], at(3.5), Lsn(at(4.0).0 + 48)).is_err());
    }

    #[test]
    fn a_hole_is_no_answer() {
        let missing = load(&[whole(1, 2), whole(1, 4)], at(2.0), at(4.5)).expect_err("no segment 3");
        assert!(missing.contains("000000010000000000000003 are not kept"), "{missing}");
        let late = load(&[whole(1, 2), stretch(1, 3, at(3.1), at(4.0))], at(2.0), at(3.5)).expect_err("hole");
        assert!(late.contains("begins only at"), "{late}");
        let crossing = [going_on(stretch(1, 2, at(2.0), at(2.75))), whole(1, 3)];
        assert!(load(&crossing, at(2.0), at(3.5)).is_err(), "nobody knows the record across the border");
        let early = load(&[stretch(1, 2, at(2.0), at(2.5)), whole(1, 3)], at(2.0), at(3.5)).expect_err("partial");
        assert!(early.contains("not kept to its end"), "{early}");
        let foreign = load(&[Stretch { system_id: 8, ..whole(1, 2) }], at(2.0), at(2.5)).expect_err("foreign");
        assert!(foreign.contains("cluster 8"), "{foreign}");
        let mut doubtful = whole(1, 2);
        doubtful.map = BlockMap::decode(&[3, b'w', b'h', b'y', 0, 0]).expect("a doubt");
        assert_eq!(load(&[doubtful], at(2.0), at(2.5)).expect_err("doubtful"), "why");
    }

    #[test]
    fn only_the_line_counts() {
        let (old, new) = (stretch(1, 5, at(5.0), at(5.5)), stretch(2, 5, at(5.5), at(6.0)));
        assert!(load(&[old.clone(), new], at(5.0), at(5.9)).is_ok());
        assert!(load(std::slice::from_ref(&old), at(5.0), at(5.9)).is_err());
        assert!(load(&[old, whole(2, 5)], at(5.0), at(5.9)).is_ok(), "the newer one holds the older one's bytes");
        assert!(load(&[whole(2, 5)], at(5.0), at(5.9)).is_ok());
        assert!(load(&[whole(1, 5)], at(5.0), at(5.5)).is_ok());
        assert!(load(&[whole(1, 5)], at(5.0), at(5.9)).is_err(), "an old primary that went on");
        assert!(load(&[whole(2, 4)], at(4.0), at(4.5)).is_err(), "timeline 2 had not begun");
        assert!(load(&[whole(1, 5), whole(1, 6)], at(5.0), at(6.5)).is_err());
    }

    #[test]
    fn files_of_a_gibibyte_are_asked_one_by_one() {
        let mut bytes = vec![0, 0, 1, 0xFF, 0x0C, 5, 77, 0];
        // Limit 262146; blocks 131071, 131072, 262143, 262144.
        bytes.extend([0x83, 0x80, 0x10, 4, 0xFF, 0xFF, 0x07, 0, 0xFE, 0xFF, 0x07, 0]);
        let found = ChangedBlocks(BlockMap::decode(&bytes).expect("a map"));
        let touched = found.touched(&fork(77));
        let file = |number| touched.in_file(number).collect::<Vec<_>>();
        assert_eq!(
            [file(0), file(1), file(2), file(3)],
            [vec![131_071], vec![131_072, 262_143], vec![262_144], vec![]]
        );
        assert_eq!(touched.limit(), Some(262_146));
        assert!(touched.block(262_144) && !touched.block(262_145) && touched.block(262_146) && touched.block(u32::MAX));
    }

    #[test]
    fn what_wal_does_not_name_is_changed() {
        let found = ChangedBlocks(BlockMap::decode(&[0, 1, 0xFF, 0x0C, 5, 0]).expect("a database"));
        assert_eq!(found.touched(&fork(1)).limit(), Some(0));
        let elsewhere = RelationFork { database: 6, ..fork(1) };
        assert!(found.touched(&elsewhere).is_nothing());
        for unmapped in [Fork::FreeSpaceMap, Fork::VisibilityMap] {
            assert_eq!(found.touched(&RelationFork { fork: unmapped, ..elsewhere }).limit(), Some(0));
        }
    }
}
