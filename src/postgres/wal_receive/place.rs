//! Where receiving begins: pure reasoning over what the archive has and what the server keeps.

use crate::error::{self, Error};
use crate::postgres::wal::TimelineHistory;
use crate::repository::coverage::Coverage;
use crate::units::{Lsn, Timeline};

/// A place to start streaming from: the start of a segment of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) timeline: Timeline,
    pub(super) at: Lsn,
}

/// What the server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    /// Where the slot makes it keep WAL from.
    pub(super) restart: Option<Lsn>,
    /// The oldest WAL that lies in its `pg_wal`, slot or not, where it says so.
    pub(super) oldest: Option<Lsn>,
    /// The end of its WAL.
    pub(super) flush: Lsn,
}

/// Places to start from, best first; the next is for when the server no longer has the WAL of the one
/// before. All but the first may leave a gap.
///
/// Everything between the last complete segment before the slot's restart position and that position may
/// still be there, so it is asked for first.
pub(super) fn candidates(
    history: &TimelineHistory,
    coverage: Option<&Coverage>,
    server: Kept,
    segment_size: u64,
) -> Vec<Place> {
    let Kept { restart, oldest, flush } = server;
    let of_line = |number: u64| history.of_segment(number, segment_size);
    let has = |timeline: Timeline, number: u64| {
        coverage.is_some_and(|c| c.timelines.get(&timeline).is_some_and(|w| w.segments.contains(&number)))
    };
    let complete = |number: u64| has(of_line(number), number);
    let kept = restart.unwrap_or(flush).segment(segment_size);
    let first = if complete(kept) {
        (kept..).find(|n| !complete(*n)).expect("an archive is finite")
    } else {
        let last_before = history.line().filter_map(|timeline| {
            let wal = coverage?.timelines.get(&timeline)?;
            wal.segments.range(..kept).rev().copied().find(|n| of_line(*n) == timeline)
        });
        last_before.max().map_or(kept, |n| n + 1)
    };
    let place = |timeline, number: u64| Place { timeline, at: Lsn(number * segment_size) };
    let mut places = vec![place(oldest_wanted(history, coverage, first, segment_size), first)];
    let oldest = oldest.map_or(kept, |lsn| lsn.segment(segment_size).min(kept));
    for number in [first, oldest.max(first), kept.max(first), flush.segment(segment_size).max(kept).max(first)] {
        let next = place(of_line(number), number);
        if !places.contains(&next) {
            places.push(next);
        }
    }
    places
}

/// The complete segment before `first`: streamed again, its bytes prove that the server goes on with the
/// history that is archived. A clone goes on with a history of its own from some earlier position.
pub(super) fn proof(
    history: &TimelineHistory,
    coverage: Option<&Coverage>,
    first: Place,
    segment_size: u64,
) -> Option<Place> {
    let number = first.at.segment(segment_size).checked_sub(1)?;
    let timeline = history.of_segment(number, segment_size);
    let there = coverage?.timelines.get(&timeline)?.segments.contains(&number);
    there.then_some(Place { timeline, at: Lsn(number * segment_size) })
}

/// Where the run of complete segments ends that begins at `place`.
pub(super) fn complete_to(coverage: Option<&Coverage>, place: Place, segment_size: u64) -> Lsn {
    let wal = coverage.and_then(|c| c.timelines.get(&place.timeline));
    let missing = |number: &u64| !wal.is_some_and(|wal| wal.segments.contains(number));
    let first = (place.at.segment(segment_size)..).find(missing).expect("an archive is finite");
    Lsn(first * segment_size)
}

/// Refuses a primary that has written less of its timeline than the archive holds: it never sent that.
pub(super) fn refuse_behind(coverage: &Coverage, server: Timeline, flush: Lsn) -> Option<Error> {
    let wal = coverage.timelines.get(&server)?;
    let size = coverage.segment_size;
    let complete = wal.segments.last().map_or(0, |last| (last + 1) * size);
    let live = wal.live.last_key_value().map_or(0, |(number, covered)| number * size + covered);
    let end = Lsn(complete.max(live));
    (flush < end).then(|| {
        error::integrity(format!(
            "the repository holds WAL of timeline {} up to {end}, and this server has written only up to {flush}",
            server.0
        ))
        .meaning(
            "it is a clone, or a copy restored to an earlier state, and no part of the history that is archived here; \
             its WAL was NOT kept",
        )
        .hint("find the server that should not archive here, and stop its archiving")
        .hint("a restored copy that is to live on beside the original needs an environment of its own")
    })
}

/// The timeline to begin segment `number` with. Where timelines change within it, the old one's part
/// is wanted too, unless it is there.
fn oldest_wanted(history: &TimelineHistory, coverage: Option<&Coverage>, number: u64, segment_size: u64) -> Timeline {
    let start = Lsn(number * segment_size);
    let mut timeline = history.holding(start);
    while let Some(switch) = history.switch_from(timeline) {
        let there = coverage.and_then(|c| c.timelines.get(&timeline)).is_some_and(|wal| {
            wal.segments.contains(&number) || wal.live.get(&number).is_some_and(|end| start.0 + end >= switch.0)
        });
        if switch.segment(segment_size) != number || !there {
            break;
        }
        timeline = history.holding(switch);
    }
    timeline
}

/// Refuses a server that goes on with a timeline which the archive knows to have been left.
pub(super) fn refuse_left_behind(coverage: &Coverage, server: Timeline, flush: Lsn) -> Option<Error> {
    coverage.timelines.keys().filter(|t| **t > server).find_map(|newer| {
        let left = coverage.line(*newer).iter().find(|leg| leg.timeline == server)?.to?;
        (flush > left).then(|| left_behind(&format!("this server is at {flush}"), server, left, *newer))
    })
}

/// The error for WAL of a timeline behind the place where it was left; `who` says what has it.
pub(in crate::postgres) fn left_behind(who: &str, timeline: Timeline, left: Lsn, newer: Timeline) -> Error {
    error::integrity(format!(
        "{who} on timeline {}, which was left at {left} for timeline {}",
        timeline.0, newer.0
    ))
    .meaning(
        "it is of an old primary that came back, or of a copy restored to an earlier state; this WAL is not part of the \
         history that is archived here and was NOT kept",
    )
    .hint("point `postgres.dsn` at the present primary; stop `archive_command` and `wal receive` on the other server")
    .hint("pg_rewind or a new standby brings an old primary back in")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::coverage::TimelineWal;

    const SIZE: u64 = 16 << 20;

    /// Timeline, complete segments, live segments, ancestors.
    type Wal<'a> = (u32, &'a [u64], &'a [(u64, u64)], &'a [(u32, u64)]);

    fn coverage(timelines: &[Wal<'_>]) -> Coverage {
        let timelines = timelines.iter().map(|(timeline, segments, live, ancestors)| {
            let wal = TimelineWal {
                segments: segments.iter().copied().collect(),
                live: live.iter().copied().collect(),
                ancestors: ancestors.iter().map(|(t, l)| (Timeline(*t), Lsn(*l))).collect(),
                ..TimelineWal::default()
            };
            (Timeline(*timeline), wal)
        });
        Coverage { segment_size: SIZE, timelines: timelines.collect() }
    }

    fn places(
        history: &TimelineHistory,
        coverage: Option<&Coverage>,
        restart: Option<u64>,
        flush: u64,
    ) -> Vec<(u32, u64)> {
        let at = |number: u64| Lsn(number * SIZE + 99);
        let server = Kept { restart: restart.map(at), oldest: None, flush: Lsn(flush * SIZE + 7) };
        candidates(history, coverage, server, SIZE).iter().map(|p| (p.timeline.0, p.at.0 / SIZE)).collect()
    }

    #[test]
    fn a_fresh_archive_begins_where_the_slot_does() {
        let first = TimelineHistory::first(Timeline(1));
        assert_eq!(places(&first, None, Some(5), 7), [(1, 5), (1, 7)]);
        assert_eq!(places(&first, None, None, 7), [(1, 7)]);
    }

    #[test]
    fn nothing_that_the_server_keeps_is_left_out() {
        let first = TimelineHistory::first(Timeline(1));
        let wal = coverage(&[(1, &[2, 3, 4], &[(5, 10)], &[])]);
        assert_eq!(places(&first, Some(&wal), Some(5), 5), [(1, 5)]);
        assert_eq!(places(&first, Some(&wal), Some(3), 5), [(1, 5)], "3 and 4 are there");
        assert_eq!(places(&first, Some(&wal), Some(8), 9), [(1, 5), (1, 8), (1, 9)], "5 to 7 may still be there");
        let holey = coverage(&[(1, &[2, 3, 8, 9], &[], &[])]);
        assert_eq!(places(&first, Some(&holey), Some(3), 10), [(1, 4), (1, 10)], "the hole is filled");
    }

    #[test]
    fn what_lies_in_pg_wal_makes_a_gap_smaller() {
        let first = TimelineHistory::first(Timeline(1));
        let wal = coverage(&[(1, &[2, 3, 4], &[], &[])]);
        let from = |oldest| {
            let server =
                Kept { restart: Some(Lsn(9 * SIZE)), oldest: Some(Lsn(oldest * SIZE)), flush: Lsn(9 * SIZE + 5) };
            candidates(&first, Some(&wal), server, SIZE).iter().map(|p| p.at.0 / SIZE).collect::<Vec<_>>()
        };
        assert_eq!(from(7), [5, 7, 9]);
        assert_eq!(from(2), [5, 9], "nothing is missing");
        assert_eq!(from(10), [5, 9]);
    }

    #[test]
    fn the_segment_before_is_the_proof() {
        let two = TimelineHistory::first(Timeline(1)).descend(Timeline(2), Lsn(4 * SIZE + 1000), "");
        let wal = coverage(&[(1, &[2, 3], &[(4, 1000)], &[]), (2, &[4], &[], &[(1, 4 * SIZE + 1000)])]);
        let of = |timeline, number| {
            let first = Place { timeline: Timeline(timeline), at: Lsn(number * SIZE) };
            proof(&two, Some(&wal), first, SIZE).map(|p| (p.timeline.0, p.at.0 / SIZE))
        };
        assert_eq!((of(1, 4), of(2, 4), of(2, 5)), (Some((1, 3)), Some((1, 3)), Some((2, 4))));
        assert_eq!((of(1, 2), of(2, 7)), (None, None));
        let place = |number: u64| Place { timeline: Timeline(1), at: Lsn(number * SIZE) };
        assert_eq!(complete_to(Some(&wal), place(2), SIZE), Lsn(4 * SIZE));
        assert_eq!(complete_to(Some(&wal), place(4), SIZE), Lsn(4 * SIZE));
        assert_eq!(complete_to(None, place(4), SIZE), Lsn(4 * SIZE));
    }

    #[test]
    fn a_primary_that_wrote_less_than_the_archive_has_is_no_primary_of_ours() {
        let wal = coverage(&[(1, &[2, 3], &[(4, 500)], &[])]);
        assert!(refuse_behind(&wal, Timeline(1), Lsn(4 * SIZE + 499)).is_some());
        assert!(refuse_behind(&wal, Timeline(1), Lsn(4 * SIZE + 500)).is_none());
        assert!(refuse_behind(&wal, Timeline(2), Lsn(0)).is_none());
    }

    #[test]
    fn a_timeline_is_received_to_its_end_before_the_next() {
        let two = TimelineHistory::first(Timeline(1)).descend(Timeline(2), Lsn(4 * SIZE + 1000), "");
        let at = |wal: &Coverage| places(&two, Some(wal), Some(6), 6)[0];
        assert_eq!(at(&coverage(&[(1, &[2], &[], &[])])), (1, 3));
        assert_eq!(at(&coverage(&[(1, &[2, 3], &[(4, 500)], &[])])), (1, 4));
        assert_eq!(at(&coverage(&[(1, &[2, 3], &[(4, 1000)], &[])])), (2, 4));
        assert_eq!(at(&coverage(&[(1, &[2, 3, 4, 5], &[], &[])])), (2, 4), "5 lies on the abandoned branch");
        assert_eq!(at(&coverage(&[(1, &[2, 3, 4, 5], &[], &[]), (2, &[4, 5], &[], &[])])), (2, 6));
        let gone = places(&two, Some(&coverage(&[(1, &[2, 3], &[], &[])])), Some(6), 6);
        assert_eq!(gone, [(1, 4), (2, 4), (2, 6)]);
    }

    #[test]
    fn an_old_primary_that_went_on_is_refused() {
        let wal = coverage(&[(1, &[2, 3], &[], &[]), (2, &[4], &[], &[(1, 4 * SIZE + 1000)])]);
        assert!(refuse_left_behind(&wal, Timeline(1), Lsn(4 * SIZE + 1001)).is_some());
        assert!(refuse_left_behind(&wal, Timeline(1), Lsn(4 * SIZE + 1000)).is_none(), "a standby that is behind");
        assert!(refuse_left_behind(&wal, Timeline(2), Lsn(9 * SIZE)).is_none());
    }
}
