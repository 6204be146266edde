//! What of one file is stored already and need not be stored again: a page is known by its LSN, or by its
//! sums.
//!
//! By LSN: it is older than the backup that stored the page that stands there ([`super::previous`] says
//! when that may be believed). By sums: CRC-32C and XXH3-64 of what was read are those of what was stored
//! at the same offset of the same file. That needs no belief in history, so it also tells of packs that an
//! interrupted backup left, and of clusters whose pages change without a new LSN.

use std::sync::Arc;

use crate::repository::page_sums::{PAGE, SumPlace, Sums};
use crate::units::Lsn;

/// What is stored of one file.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    /// Stretches by offset.
    ranges: Vec<Range>,
    damaged: Vec<u32>,
    /// Stretches that are stored, but are to be read again.
    pub(super) again: Vec<(u64, u64)>,
    sums: Arc<Sums>,
}

/// A stretch whose pages are unchanged if they are older than `since`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) end: u64,
    /// 0 where no LSN tells.
    pub(super) since: Lsn,
    /// Where the sum of its first page stands; those of the others follow.
    pub(super) sums: Option<SumPlace>,
}

impl Range {
    fn continues(&self, last: &Self) -> bool {
        let sums = last.sums.map(|place| place.plus((last.end - last.from) / PAGE as u64));
        last.end == self.from && last.since == self.since && sums == self.sums
    }
}

impl Kept {
    /// Nothing yet, of a file whose `damaged` pages are to be stored anew, and whose pages have these sums.
    pub(super) fn new(damaged: &[u32], sums: Arc<Sums>) -> Self {
        let page = |number: &u32| (u64::from(*number) * PAGE as u64, (u64::from(*number) + 1) * PAGE as u64);
        let again = damaged.iter().map(page).collect();
        Self { ranges: Vec::new(), damaged: damaged.to_vec(), again, sums }
    }

    /// Adds a stretch, in the order of offsets.
    pub(super) fn add(&mut self, range: Range) {
        match self.ranges.last_mut() {
            Some(last) if range.continues(last) => last.end = range.end,
            _ if range.since.0 != 0 || range.sums.is_some() => self.ranges.push(range),
            _ => {}
        }
    }

    /// Whether it knows of no page.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The same, but no LSN tells.
    pub(super) fn by_sums(mut self) -> Self {
        self.ranges.retain(|range| range.sums.is_some());
        self.ranges.iter_mut().for_each(|range| range.since = Lsn(0));
        self
    }

    /// Whether the page at `offset`, found with `lsn` in its header, is the one that was stored.
    pub(super) fn page(&self, offset: u64, lsn: Lsn, bytes: &[u8]) -> bool {
        let Some(range) = self.range(offset).filter(|_| bytes.len() == PAGE) else { return false };
        // Pages without an LSN were changed by something that writes no WAL; there are hardly any.
        let old = lsn.0 != 0 && lsn < range.since;
        let sum = || self.sums.at(range.sums?.plus((offset - range.from) / PAGE as u64));
        old || sum().is_some_and(|sum| sum.both_are_of(bytes))
    }

    fn range(&self, offset: u64) -> Option<&Range> {
        let after = self.ranges.partition_point(|range| range.from <= offset);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        let whole = offset + PAGE as u64 <= range.end && (offset - range.from).is_multiple_of(PAGE as u64);
        (whole && !self.damaged.contains(&((offset / PAGE as u64) as u32))).then_some(range)
    }
}
