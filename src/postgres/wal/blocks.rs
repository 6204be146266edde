//! Which blocks of which relations a stretch of WAL changes.
//!
//! The meaning is that of PostgreSQL 17's WAL summaries (`src/common/blkreftable.c`): for each fork a
//! set of blocks, and a *limit* where the fork was created, cut or dropped: from the limit on every
//! block counts as changed, so none is listed there. Maps of stretches can be merged in any order.
//!
//! Free space maps and visibility maps are not in it, because WAL does not name every change of
//! theirs: a row that is deleted clears a bit of the visibility map without a reference to its block
//! (`visibilitymap_clear`), and cutting a relation clears the tail of the map's last page.

use std::collections::btree_map::{self, BTreeMap};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// The forks of a relation (`ForkNumber` in `src/include/common/relpath.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The rows or index entries.
    Main,
    /// The free space map (`_fsm`).
    FreeSpaceMap,
    /// The visibility map (`_vm`).
    VisibilityMap,
    /// What an unlogged relation begins with after a crash (`_init`).
    Init,
}

impl Fork {
    /// Number of the fork in WAL.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Main => 0,
            Self::FreeSpaceMap => 1,
            Self::VisibilityMap => 2,
            Self::Init => 3,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Main, Self::FreeSpaceMap, Self::VisibilityMap, Self::Init].get(usize::from(number)).copied()
    }

    /// Whether WAL names every block of this fork that it changes.
    pub fn is_mapped(self) -> bool {
        matches!(self, Self::Main | Self::Init)
    }
}

/// A fork of a relation, as WAL and file names call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFork {
    /// Number of the tablespace; 1663 is `pg_default`, 1664 `pg_global`.
    pub tablespace: u32,
    /// Number of the database; 0 for relations shared by all.
    pub database: u32,
    /// Number of the file (`pg_class.relfilenode`).
    pub relation: u32,
    /// The fork.
    pub fork: Fork,
}

/// A set of block numbers, small for few and for many.
#[derive(Debug, Clone, Default)]
pub struct BlockSet(BTreeMap<u16, Chunk>);

/// So many numbers of a chunk take as much room in a list as in a bitmap.
const FEW: usize = 4096;

/// Those of 65,536 consecutive blocks that are in the set.
#[derive(Debug, Clone)]
enum Chunk {
    /// In rising order.
    Few(Vec<u16>),
    Many(Box<[u64; 1024]>),
}

impl Chunk {
    fn insert(&mut self, block: u16) {
        match self {
            Self::Few(list) => {
                // WAL mostly names blocks in rising order, or the same one again.
                if list.last().is_none_or(|last| *last < block) {
                    list.push(block);
                } else if let Err(at) = list.binary_search(&block) {
                    list.insert(at, block);
                }
                if list.len() > FEW {
                    let mut bits = Box::new([0; 1024]);
                    list.iter().for_each(|b| set(&mut bits, *b));
                    *self = Self::Many(bits);
                }
            }
            Self::Many(bits) => set(bits, block),
        }
    }

    fn contains(&self, block: u16) -> bool {
        match self {
            Self::Few(list) => list.binary_search(&block).is_ok(),
            Self::Many(bits) => bits[usize::from(block / 64)] & (1 << (block % 64)) != 0,
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = u16> + '_> {
        match self {
            Self::Few(list) => Box::new(list.iter().copied()),
            Self::Many(bits) => Box::new(bits.iter().zip(0_u16..).flat_map(|(word, at)| {
                let mut left = *word;
                std::iter::from_fn(move || {
                    let bit = u16::try_from(left.trailing_zeros()).expect("at most 64");
                    (left != 0).then(|| {
                        left &= left - 1;
                        at * 64 + bit
                    })
                })
            })),
        }
    }

    fn truncate(&mut self, end: u16) {
        match self {
            Self::Few(list) => list.retain(|b| *b < end),
            Self::Many(bits) => {
                for (word, first) in bits.iter_mut().zip((0_u32..).step_by(64)) {
                    let keep = u32::from(end).saturating_sub(first);
                    *word &= if keep >= 64 { u64::MAX } else { (1 << keep) - 1 };
                }
            }
        }
    }
}

fn set(bits: &mut [u64; 1024], block: u16) {
    bits[usize::from(block / 64)] |= 1 << (block % 64);
}

fn split(block: u32) -> (u16, u16) {
    ((block >> 16) as u16, block as u16)
}

impl BlockSet {
    pub(super) fn insert(&mut self, block: u32) {
        let (high, low) = split(block);
        match self.0.entry(high) {
            btree_map::Entry::Occupied(mut chunk) => chunk.get_mut().insert(low),
            btree_map::Entry::Vacant(chunk) => {
                chunk.insert(Chunk::Few(vec![low]));
            }
        }
    }

    /// Whether `block` is in the set.
    pub fn contains(&self, block: u32) -> bool {
        let (high, low) = split(block);
        self.0.get(&high).is_some_and(|chunk| chunk.contains(low))
    }

    /// All blocks, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(high, chunk)| chunk.iter().map(move |low| u32::from(*high) << 16 | u32::from(low)))
    }

    /// The blocks in `range`, in rising order.
    pub fn range(&self, range: Range<u32>) -> impl Iterator<Item = u32> + '_ {
        let chunks = split(range.start).0..=split(range.end.saturating_sub(1).max(range.start)).0;
        self.0
            .range(chunks)
            .flat_map(|(high, chunk)| chunk.iter().map(move |low| u32::from(*high) << 16 | u32::from(low)))
            .filter(move |block| range.contains(block))
    }

    /// Leaves only blocks before `end`.
    fn truncate(&mut self, end: u32) {
        let (high, low) = split(end);
        drop(self.0.split_off(&high.saturating_add(1)));
        if let Some(chunk) = self.0.get_mut(&high) {
            chunk.truncate(low);
        }
        self.0.retain(|_, chunk| chunk.iter().next().is_some());
    }
}

impl PartialEq for BlockSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for BlockSet {}

/// What is changed of one fork.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForkBlocks {
    pub(super) limit: Option<u32>,
    pub(super) blocks: BlockSet,
}

impl ForkBlocks {
    /// From here on every block may be changed.
    pub fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// The changed blocks before the limit.
    pub fn blocks(&self) -> &BlockSet {
        &self.blocks
    }

    pub(super) fn mark(&mut self, block: u32) {
        if self.limit.is_none_or(|limit| block < limit) {
            self.blocks.insert(block);
        }
    }

    pub(super) fn cut(&mut self, limit: u32) {
        if self.limit.is_none_or(|known| limit < known) {
            self.limit = Some(limit);
            self.blocks.truncate(limit);
        }
    }
}

/// What a stretch of WAL changes of relations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockMap {
    pub(super) forks: HashMap<RelationFork, ForkBlocks>,
    pub(super) databases: BTreeSet<(u32, u32)>,
    pub(super) doubt: Option<String>,
}

impl BlockMap {
    /// What is changed of a fork; none where nothing is. Ask [`BlockMap::database_replaced`] too.
    pub fn fork(&self, fork: &RelationFork) -> Option<&ForkBlocks> {
        self.forks.get(fork)
    }

    /// All forks of which something is changed, in no order.
    pub fn forks(&self) -> impl Iterator<Item = (&RelationFork, &ForkBlocks)> {
        self.forks.iter()
    }

    /// Whether all of a database in a tablespace was created, replaced or dropped.
    pub fn database_replaced(&self, tablespace: u32, database: u32) -> bool {
        self.databases.contains(&(tablespace, database))
    }

    /// Databases for which [`BlockMap::database_replaced`] says yes, as (tablespace, database).
    pub fn databases(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.databases.iter().copied()
    }

    /// Why more may be changed than the map says.
    pub fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    /// Adds what another stretch changes.
    pub fn merge(&mut self, other: &Self) {
        for (fork, theirs) in &other.forks {
            let ours = self.forks.entry(*fork).or_default();
            theirs.limit.into_iter().for_each(|limit| ours.cut(limit));
            theirs.blocks.iter().for_each(|block| ours.mark(block));
        }
        self.databases.extend(&other.databases);
        if self.doubt.is_none() {
            self.doubt.clone_from(&other.doubt);
        }
    }

    /// A block is written.
    pub(super) fn mark(&mut self, fork: RelationFork, block: u32) {
        if fork.fork.is_mapped() {
            self.forks.entry(fork).or_default().mark(block);
        }
    }

    /// A fork is created, cut to `limit` blocks or dropped.
    pub(super) fn cut(&mut self, fork: RelationFork, limit: u32) {
        if fork.fork.is_mapped() {
            self.forks.entry(fork).or_default().cut(limit);
        }
    }

    /// All of a database in a tablespace is created or dropped.
    pub(super) fn replace_database(&mut self, tablespace: u32, database: u32) {
        self.databases.insert((tablespace, database));
    }

    /// The map cannot be relied upon.
    pub(super) fn distrust(&mut self, why: impl Into<String>) {
        self.doubt.get_or_insert_with(|| why.into());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fork(relation: u32) -> RelationFork {
        RelationFork { tablespace: 1663, database: 5, relation, fork: Fork::Main }
    }

    #[test]
    fn blocks_behind_a_limit_are_changed_without_being_listed() {
        let mut map = BlockMap::default();
        for block in [7, 3, 70_000, 3, 131_072] {
            map.mark(fork(1), block);
        }
        map.cut(fork(1), 70_000);
        map.mark(fork(1), 70_001);
        map.cut(fork(1), 80_000);
        let touched = map.fork(&fork(1)).expect("touched");
        assert_eq!((touched.limit(), touched.blocks().iter().collect::<Vec<_>>()), (Some(70_000), vec![3, 7]));
        map.cut(fork(1), 0);
        assert_eq!(map.fork(&fork(1)).expect("touched").blocks().iter().count(), 0);
    }

    #[test]
    fn maps_that_wal_does_not_name_are_left_out() {
        let mut map = BlockMap::default();
        for unmapped in [Fork::FreeSpaceMap, Fork::VisibilityMap] {
            map.mark(RelationFork { fork: unmapped, ..fork(1) }, 0);
            map.cut(RelationFork { fork: unmapped, ..fork(1) }, 0);
        }
        assert_eq!(map, BlockMap::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_set_holds_what_was_put_in(
            blocks in prop::collection::vec(prop_oneof![0_u32..9000, 60_000_u32..70_000, any::<u32>()], 0..9000),
            dense in prop::bool::ANY,
            from in 0_u32..80_000, length in 0_u32..80_000, end in prop_oneof![0_u32..80_000, any::<u32>()],
        ) {
            let mut expected: BTreeSet<u32> = blocks.iter().copied().collect();
            if dense {
                expected.extend(100..6000);
            }
            let mut set = BlockSet::default();
            expected.iter().rev().for_each(|b| set.insert(*b));
            blocks.iter().for_each(|b| set.insert(*b));
            prop_assert!(set.iter().eq(expected.iter().copied()));
            prop_assert!(set.range(from..from + length).eq(expected.range(from..from + length).copied()));
            prop_assert!(blocks.iter().all(|b| set.contains(*b)));
            prop_assert_eq!(set.contains(end), expected.contains(&end));
            set.truncate(end);
            prop_assert!(set.iter().eq(expected.range(..end).copied()));
        }

        #[test]
        fn the_order_of_merging_does_not_matter(
            changes in prop::collection::vec((0_usize..3, 1_u32..4, any::<bool>(), 0_u32..200), 0..200)
        ) {
            let mut parts = [BlockMap::default(), BlockMap::default(), BlockMap::default()];
            let mut whole = BlockMap::default();
            for (part, relation, cut, number) in changes {
                for map in [&mut parts[part], &mut whole] {
                    if cut { map.cut(fork(relation), number) } else { map.mark(fork(relation), number) }
                }
            }
            for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
                let mut merged = BlockMap::default();
                order.iter().for_each(|part| merged.merge(&parts[*part]));
                prop_assert_eq!(&merged, &whole);
            }
        }
    }
}
