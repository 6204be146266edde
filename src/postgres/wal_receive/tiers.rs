//! How pieces of the segment being written are merged, so that they stay few.
//!
//! An idle cluster with a heartbeat commits a few hundred bytes each second, and each commit is a
//! piece of its own. Every [`FANOUT`]th piece of a level takes the ones before it along and becomes one
//! piece of the next level: thousands of seconds are a handful of objects, and each byte is written
//! again once for each level, which only small pieces ever climb.

use crate::repository::wal_archive::SegmentSummary;

/// So many pieces of one level become one of the next.
const FANOUT: usize = 32;

/// A merged piece is not larger; so this much of what was cut before is kept in memory.
pub(super) const MERGE_LIMIT: u64 = 1 << 20;

/// A piece that may still be merged.
#[derive(Debug)]
struct Entry {
    level: u32,
    offset: u64,
    end: u64,
    summary: SegmentSummary,
}

/// The pieces that this receiver cut from the segment being written.
#[derive(Debug, Default)]
pub(super) struct Tiers(Vec<Entry>);

/// What to store next.
#[derive(Debug, PartialEq)]
pub(super) struct Cut {
    /// First byte, within the segment.
    pub(super) offset: u64,
    /// What is in it, merged pieces included.
    pub(super) summary: SegmentSummary,
    /// Pieces that it makes superfluous: first byte and end.
    pub(super) replaces: Vec<(u64, u64)>,
}

impl Tiers {
    /// Takes note of new bytes `offset..end` and says which bytes are to be stored in one piece.
    pub(super) fn cut(&mut self, offset: u64, end: u64, summary: SegmentSummary) -> Cut {
        let mut cut = Cut { offset, summary, replaces: Vec::new() };
        let mut level = 0;
        while let Some(from) = self.0.len().checked_sub(FANOUT - 1)
            && self.0[from..].iter().all(|e| e.level == level)
            && end - self.0[from].offset <= MERGE_LIMIT
        {
            for entry in self.0.drain(from..).rev() {
                cut.offset = entry.offset;
                cut.summary = joined(entry.summary, cut.summary);
                cut.replaces.push((entry.offset, entry.end));
            }
            level += 1;
        }
        self.0.push(Entry { level, offset: cut.offset, end, summary: cut.summary.clone() });
        cut
    }

    /// A new segment begins.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The summary of two stretches, one behind the other.
fn joined(first: SegmentSummary, second: SegmentSummary) -> SegmentSummary {
    let both = |a: Option<_>, b: Option<_>, pick: fn(_, _) -> _| a.zip(b).map(|(a, b)| pick(a, b)).or(a).or(b);
    let mut restore_points = first.restore_points;
    restore_points.extend(second.restore_points);
    SegmentSummary {
        system_id: first.system_id,
        start: first.start,
        end: second.end,
        last_record_end: second.last_record_end.or(first.last_record_end),
        commits: first.commits + second.commits,
        restore_points,
        first_commit_time: both(first.first_commit_time, second.first_commit_time, Ord::min),
        last_commit_time: both(first.last_commit_time, second.last_commit_time, Ord::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Lsn;

    fn summary(start: u64, end: u64) -> SegmentSummary {
        SegmentSummary {
            system_id: 1,
            start: Lsn(start),
            end: Lsn(end),
            last_record_end: None,
            commits: 1,
            restore_points: Vec::new(),
            first_commit_time: None,
            last_commit_time: None,
        }
    }

    #[test]
    fn a_day_of_heartbeats_is_a_handful_of_pieces() {
        let mut tiers = Tiers::default();
        let mut stored = std::collections::BTreeSet::new();
        let mut written = 0;
        let day = 86_400;
        for second in 0..day {
            let (offset, end) = (second * 10, second * 10 + 10);
            let cut = tiers.cut(offset, end, summary(offset, end));
            for piece in &cut.replaces {
                assert!(stored.remove(piece), "only what is there is replaced");
            }
            assert_eq!((cut.summary.start, cut.summary.end), (Lsn(cut.offset), Lsn(end)));
            assert_eq!(cut.summary.commits, (end - cut.offset) / 10);
            assert!(stored.insert((cut.offset, end)));
            written += end - cut.offset;
        }
        assert!(stored.len() < 100, "{}", stored.len());
        assert!(written < 5 * day * 10, "{written}");
        let mut covered = 0;
        for (offset, end) in stored {
            assert_eq!(offset, covered);
            covered = end;
        }
        assert_eq!(covered, day * 10);
    }

    #[test]
    fn large_pieces_are_left_as_they_are() {
        let mut tiers = Tiers::default();
        for number in 0..100 {
            let (offset, end) = (number * 100_000, (number + 1) * 100_000);
            assert_eq!(tiers.cut(offset, end, summary(offset, end)).replaces, []);
        }
    }
}
