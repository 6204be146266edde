//! Which WAL segments must stay. Pure.

use std::collections::BTreeMap;

use crate::ranges::Ranges;
use crate::repository::coverage::Coverage;
use crate::units::{Lsn, Timeline};

/// WAL that must stay, with its end as a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// The line of history to follow.
    pub(super) line: Timeline,
    /// From here on.
    pub(super) from: Lsn,
    /// Number of the last segment.
    pub(super) last: u64,
}

/// The segments that these stretches need, by timeline. Where one timeline was left for another inside a segment, both
/// have a file of it, and both stay.
pub(super) fn wanted(coverage: &Coverage, stretches: &[Stretch]) -> BTreeMap<Timeline, Ranges> {
    let size = coverage.segment_size;
    let mut wanted: BTreeMap<Timeline, Ranges> = BTreeMap::new();
    for stretch in stretches {
        let first = stretch.from.segment(size);
        for leg in coverage.line(stretch.line) {
            let begins = leg.from.segment(size).max(first);
            let ends = leg.to.map_or(u64::MAX, |left| left.previous_segment(size)).min(stretch.last);
            wanted.entry(leg.timeline).or_default().insert(begins, ends);
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::coverage::TimelineWal;

    const SIZE: u64 = 16 << 20;

    fn coverage(timelines: &[(u32, &[(u32, u64)])]) -> Coverage {
        let of = |(timeline, ancestors): &(u32, &[(u32, u64)])| {
            let ancestors = ancestors.iter().map(|(t, left)| (Timeline(*t), Lsn(*left))).collect();
            (Timeline(*timeline), TimelineWal { ancestors, ..TimelineWal::default() })
        };
        Coverage { segment_size: SIZE, timelines: timelines.iter().map(of).collect() }
    }

    fn found(coverage: &Coverage, stretches: &[(u32, u64, u64)]) -> Vec<(u32, Vec<(u64, u64)>)> {
        let stretches: Vec<Stretch> = stretches
            .iter()
            .map(|(line, from, last)| Stretch { line: Timeline(*line), from: Lsn(*from), last: *last })
            .collect();
        let wanted = wanted(coverage, &stretches);
        wanted.into_iter().map(|(t, r)| (t.0, r.iter().collect::<Vec<_>>())).filter(|(_, r)| !r.is_empty()).collect()
    }

    #[test]
    fn a_point_needs_its_own_segments_and_a_line_all_that_follow() {
        let wal = coverage(&[(1, &[])]);
        assert_eq!(found(&wal, &[(1, 3 * SIZE + 40, 4)]), [(1, vec![(3, 4)])]);
        assert_eq!(found(&wal, &[(1, 3 * SIZE, 4), (1, 9 * SIZE, u64::MAX)]), [(1, vec![(3, 4), (9, u64::MAX)])]);
    }

    #[test]
    fn at_a_switch_both_timelines_keep_their_file() {
        let inside = coverage(&[(1, &[]), (2, &[(1, 5 * SIZE + 100)])]);
        assert_eq!(found(&inside, &[(2, 3 * SIZE, u64::MAX)]), [(1, vec![(3, 5)]), (2, vec![(5, u64::MAX)])]);
        let border = coverage(&[(1, &[]), (2, &[(1, 5 * SIZE)])]);
        assert_eq!(found(&border, &[(2, 3 * SIZE, u64::MAX)]), [(1, vec![(3, 4)]), (2, vec![(5, u64::MAX)])]);
        assert_eq!(found(&inside, &[(2, 6 * SIZE, 7)]), [(2, vec![(6, 7)])], "nothing of what lies before");
        assert_eq!(found(&inside, &[(1, 3 * SIZE, u64::MAX)]), [(1, vec![(3, u64::MAX)])], "its own branch");
    }
}
