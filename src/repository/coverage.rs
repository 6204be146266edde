//! What the WAL archive covers: pure reasoning over the names in it.
//!
//! Recovery along a timeline reads, for each segment number, the file of the newest timeline on its
//! line that had begun by then (`XLogFileReadAnyTLI` in `xlogrecovery.c`); the same rule is used here,
//! so what this says is reachable is what PostgreSQL will find.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::ranges::Ranges;
use crate::units::{Lsn, Timeline};
use crate::wal_name::{SegmentName, segment_name};

/// WAL files of one timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimelineWal {
    /// Numbers of the complete segments.
    pub segments: BTreeSet<u64>,
    /// For segments of which only pieces are there: how many bytes from their start are covered.
    pub live: BTreeMap<u64, u64>,
    /// Ancestors, oldest first: timeline, and where it was left. From the history file.
    pub ancestors: Vec<(Timeline, Lsn)>,
    /// Segments that retention gave up: their absence is no damage.
    pub retired: Ranges,
}

/// The WAL of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// Size of a segment in bytes.
    pub segment_size: u64,
    /// By timeline.
    pub timelines: BTreeMap<Timeline, TimelineWal>,
}

/// A stretch of a line that runs on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// The timeline.
    pub timeline: Timeline,
    /// Where it began.
    pub from: Lsn,
    /// Where it was left for the next; `None` for the last.
    pub to: Option<Lsn>,
}

/// Segments that are missing although later ones are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Timeline of the missing segments.
    pub timeline: Timeline,
    /// Name of the first missing segment.
    pub first: String,
    /// Name of the last missing segment.
    pub last: String,
    /// How many are missing.
    pub segments: u64,
    /// WAL before this position can be reached from before the gap.
    pub from: Lsn,
    /// WAL from this position on needs a base backup behind the gap.
    pub to: Lsn,
    /// Whether all of it was given up by retention: nothing is wrong then.
    pub retired: bool,
}

/// How far WAL reaches without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Position behind the last byte.
    pub end: Lsn,
    /// Timeline there.
    pub timeline: Timeline,
    /// What ends it, where it is not just the end of what there is.
    pub gap: Option<Gap>,
}

/// A branch of history that a line does not follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// The timeline.
    pub timeline: Timeline,
    /// Where it parts from the line.
    pub fork: Lsn,
    /// Where its WAL ends.
    pub end: Lsn,
}

impl Coverage {
    /// Takes out what retention gave up, whether the store still has it or not.
    pub fn hide(&mut self, retired: &BTreeMap<Timeline, Ranges>) {
        for (timeline, segments) in retired {
            let Some(wal) = self.timelines.get_mut(timeline) else { continue };
            wal.segments.retain(|number| !segments.contains(*number));
            wal.live.retain(|number, _| !segments.contains(*number));
            wal.retired.extend(segments);
        }
    }

    /// Whether retention gave up all of `first..=last` along `line`.
    fn is_retired(&self, line: &[Leg], first: u64, last: u64) -> bool {
        let mut at = first;
        while at <= last {
            let wal = line.iter().filter_map(|leg| self.timelines.get(&leg.timeline));
            match wal.filter_map(|wal| wal.retired.end_of(at)).max() {
                Some(end) => at = end.saturating_add(1),
                None => return false,
            }
        }
        true
    }

    /// Branches that hold WAL beside `line`: what was written to them is not on it.
    pub fn left_behind(&self, line: &[Leg]) -> Vec<Branch> {
        let mut branches = Vec::new();
        for (&timeline, wal) in &self.timelines {
            let fork = match line.iter().find(|leg| leg.timeline == timeline) {
                Some(Leg { to: None, .. }) => continue,
                Some(Leg { to: Some(to), .. }) => *to,
                None => wal.ancestors.last().map_or(Lsn(0), |(_, switch)| *switch),
            };
            let complete = wal.segments.last().map_or(0, |last| (last + 1) * self.segment_size);
            let live = wal.live.last_key_value().map_or(0, |(number, covered)| number * self.segment_size + covered);
            let shared = (fork.segment(self.segment_size) + 1) * self.segment_size;
            // A complete segment with the fork inside may hold nothing behind it; pieces tell exactly.
            if live > fork.0 || complete > shared {
                branches.push(Branch { timeline, fork, end: Lsn(live.max(complete)) });
            }
        }
        branches
    }

    /// The timeline that recovery follows by default: the newest.
    pub fn newest(&self) -> Option<Timeline> {
        self.timelines.keys().next_back().copied()
    }

    /// The line of history that ends on `timeline`, oldest leg first.
    pub fn line(&self, timeline: Timeline) -> Vec<Leg> {
        let ancestors = self.timelines.get(&timeline).map(|t| t.ancestors.as_slice()).unwrap_or_default();
        let mut from = Lsn(0);
        let mut legs = Vec::with_capacity(ancestors.len() + 1);
        for &(ancestor, switch) in ancestors {
            legs.push(Leg { timeline: ancestor, from, to: Some(switch) });
            from = switch;
        }
        legs.push(Leg { timeline, from, to: None });
        legs
    }

    /// The complete file for segment `number` along `line`. Where a timeline was left within the segment, its own
    /// file goes another way behind that place: pieces of the newer one say more.
    pub fn complete(&self, line: &[Leg], number: u64) -> Option<SegmentName> {
        let complete = self.pick(line, number, |wal| wal.segments.contains(&number))?;
        let live = self.pick(line, number, |wal| wal.live.contains_key(&number));
        live.is_none_or(|live| live.timeline <= complete.timeline).then_some(complete)
    }

    /// The segment of which pieces are there, and how many bytes they cover.
    pub fn live(&self, line: &[Leg], number: u64) -> Option<(SegmentName, u64)> {
        let name = self.pick(line, number, |wal| wal.live.contains_key(&number))?;
        Some((name, self.timelines[&name.timeline].live[&number]))
    }

    fn pick(&self, line: &[Leg], number: u64, has: impl Fn(&TimelineWal) -> bool) -> Option<SegmentName> {
        line.iter()
            .rev()
            .filter(|leg| leg.from.segment(self.segment_size) <= number)
            // What a timeline went on to write after it was left belongs to another line.
            .filter(|leg| leg.to.is_none_or(|left| number <= left.previous_segment(self.segment_size)))
            .find(|leg| self.timelines.get(&leg.timeline).is_some_and(&has))
            .map(|leg| SegmentName::new(leg.timeline, number, self.segment_size))
    }

    /// Where the last bytes of a timeline are when its last segment was not archived as such: at the beginning
    /// of the same segment of the timeline that it was left for, which is a copy up to the switch.
    pub fn continued(&self, segment: &SegmentName) -> Option<(SegmentName, Lsn)> {
        let number = segment.number(self.segment_size).ok()?;
        let own = self.timelines.get(&segment.timeline);
        if own.is_some_and(|wal| wal.segments.contains(&number)) {
            return None;
        }
        let covered = own.and_then(|wal| wal.live.get(&number)).copied().unwrap_or_default();
        let newer = self.timelines.iter().filter_map(|(timeline, wal)| {
            let (_, left) = wal.ancestors.last().filter(|(ancestor, _)| *ancestor == segment.timeline)?;
            let has = wal.segments.contains(&number) || wal.live.contains_key(&number);
            let more = left.segment(self.segment_size) == number && left.0 % self.segment_size > covered;
            (has && more).then_some((SegmentName::new(*timeline, number, self.segment_size), *left))
        });
        newer.max_by_key(|(_, left)| *left)
    }

    /// How far WAL reaches along `line` from `start` on; `None` where even the segment of `start` is missing.
    pub fn reach(&self, line: &[Leg], start: Lsn) -> Option<Reach> {
        let mut number = start.segment(self.segment_size);
        let mut reached: Option<(Lsn, Timeline)> = None;
        loop {
            let (complete, live) = (self.complete(line, number), self.live(line, number));
            if let Some(name) = complete {
                reached = Some((Lsn((number + 1) * self.segment_size), name.timeline));
                number += 1;
                continue;
            }
            if let Some((name, covered)) = live {
                reached = Some((Lsn(number * self.segment_size + covered), name.timeline));
            }
            let (end, timeline) = reached?;
            return Some(Reach { end, timeline, gap: self.gap_at(line, number, end) });
        }
    }

    /// The gap that begins with segment `number`, where something follows it on the line.
    fn gap_at(&self, line: &[Leg], number: u64, from: Lsn) -> Option<Gap> {
        let next = line
            .iter()
            .filter_map(|leg| {
                let wal = self.timelines.get(&leg.timeline)?;
                let first = (number + 1).max(leg.from.segment(self.segment_size));
                // What a timeline went on to write after it was left follows nothing on this line.
                let last = leg.to.map_or(u64::MAX, |left| left.previous_segment(self.segment_size));
                let mut following = (first <= last).then_some(first..=last).into_iter();
                following.find_map(|numbers| {
                    let complete = wal.segments.range(numbers.clone()).next().copied();
                    complete.into_iter().chain(wal.live.range(numbers).next().map(|live| *live.0)).min()
                })
            })
            .min()?;
        let timeline = line
            .iter()
            .rev()
            .find(|leg| leg.from.segment(self.segment_size) <= number)
            .map_or(Timeline(1), |leg| leg.timeline);
        Some(Gap {
            timeline,
            first: segment_name(timeline, number, self.segment_size),
            last: segment_name(timeline, next - 1, self.segment_size),
            segments: next - number,
            from,
            to: Lsn(next * self.segment_size),
            retired: self.is_retired(line, number, next - 1),
        })
    }

    /// Unbroken ranges of complete segments of one timeline: first and last number.
    pub fn runs(&self, timeline: Timeline) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &number in self.timelines.get(&timeline).map(|t| &t.segments).into_iter().flatten() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        runs
    }

    /// All gaps along the line of the newest timeline, but for those that retention made.
    pub fn gaps(&self) -> Vec<Gap> {
        let Some(newest) = self.newest() else { return Vec::new() };
        let line = self.line(newest);
        let first = line.iter().filter_map(|leg| self.timelines.get(&leg.timeline)?.segments.first().copied()).min();
        let mut gaps = Vec::new();
        let mut start = first.map(|number| Lsn(number * self.segment_size));
        while let Some(at) = start {
            let gap = self.reach(&line, at).and_then(|r| r.gap);
            start = gap.as_ref().map(|g| g.to);
            gaps.extend(gap.filter(|g| !g.retired));
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    /// Timeline, complete segments, live segments with their covered bytes, ancestors with their switches.
    type Row<'a> = (u32, &'a [u64], &'a [(u64, u64)], &'a [(u32, u64)]);

    fn coverage(timelines: &[Row<'_>]) -> Coverage {
        let timelines = timelines
            .iter()
            .map(|(timeline, segments, live, ancestors)| {
                let wal = TimelineWal {
                    segments: segments.iter().copied().collect(),
                    live: live.iter().copied().collect(),
                    ancestors: ancestors.iter().map(|(t, l)| (Timeline(*t), Lsn(*l))).collect(),
                    ..TimelineWal::default()
                };
                (Timeline(*timeline), wal)
            })
            .collect();
        Coverage { segment_size: SIZE, timelines }
    }

    #[test]
    fn reach_runs_through_complete_segments_into_the_live_one() {
        let wal = coverage(&[(1, &[2, 3, 4], &[(5, 700)], &[])]);
        let line = wal.line(Timeline(1));
        let reach = wal.reach(&line, Lsn(2 * SIZE + 40)).expect("reaches");
        assert_eq!(reach, Reach { end: Lsn(5 * SIZE + 700), timeline: Timeline(1), gap: None });
        assert_eq!(wal.reach(&line, Lsn(SIZE)), None);
        assert!(wal.gaps().is_empty());
    }

    #[test]
    fn a_hole_ends_the_reach_and_is_named() {
        let wal = coverage(&[(1, &[2, 3, 6, 7], &[], &[])]);
        let reach = wal.reach(&wal.line(Timeline(1)), Lsn(2 * SIZE)).expect("reaches");
        assert_eq!(reach.end, Lsn(4 * SIZE));
        let gap = reach.gap.expect("gap");
        assert_eq!((gap.first.as_str(), gap.segments), ("000000010000000000000004", 2));
        assert_eq!(gap.last, "000000010000000000000005");
        assert_eq!(wal.gaps(), [gap]);
        assert_eq!(wal.runs(Timeline(1)), [(2, 3), (6, 7)]);
    }

    #[test]
    fn what_retention_gave_up_is_no_hole() {
        let mut wal = coverage(&[(1, &[2, 3, 4, 5, 8], &[(9, 7)], &[])]);
        let gone = |numbers: &[u64]| BTreeMap::from([(Timeline(1), numbers.iter().copied().collect::<Ranges>())]);
        wal.hide(&gone(&[4, 5]));
        let reach = wal.reach(&wal.line(Timeline(1)), Lsn(2 * SIZE)).expect("reaches");
        let gap = reach.gap.expect("ends there");
        assert_eq!((reach.end, gap.segments, gap.retired), (Lsn(4 * SIZE), 4, false), "6 and 7 were lost");
        wal.hide(&gone(&[6, 7]));
        assert!(wal.reach(&wal.line(Timeline(1)), Lsn(2 * SIZE)).expect("reaches").gap.expect("ends").retired);
        assert!(wal.gaps().is_empty());
    }

    #[test]
    fn a_line_crosses_to_the_new_timeline_in_the_segment_of_the_switch() {
        // Timeline 1 was left inside segment 4, of which only pieces were archived.
        let switch = 4 * SIZE + 1000;
        let wal = coverage(&[(1, &[2, 3], &[(4, 1000)], &[]), (2, &[4, 5], &[(6, 8)], &[(1, switch)])]);
        let line = wal.line(Timeline(2));
        assert_eq!(line.len(), 2);
        let reach = wal.reach(&line, Lsn(2 * SIZE)).expect("reaches");
        assert_eq!((reach.end, reach.timeline), (Lsn(6 * SIZE + 8), Timeline(2)));
        assert_eq!(wal.complete(&line, 4).expect("there").timeline, Timeline(2));
        assert_eq!(wal.complete(&line, 3).expect("there").timeline, Timeline(1));
        let old = wal.reach(&wal.line(Timeline(1)), Lsn(2 * SIZE)).expect("reaches");
        assert_eq!(old.end, Lsn(switch));
    }

    #[test]
    fn what_a_timeline_wrote_after_it_was_left_is_not_on_the_new_line() {
        let switch = 4 * SIZE + 1000;
        let wal = coverage(&[(1, &[2, 3, 4, 5, 6], &[], &[]), (2, &[], &[(4, 5000)], &[(1, switch)])]);
        let reach = wal.reach(&wal.line(Timeline(2)), Lsn(2 * SIZE)).expect("reaches");
        let expected = Reach { end: Lsn(4 * SIZE + 5000), timeline: Timeline(2), gap: None };
        assert_eq!(reach, expected);
        assert_eq!((wal.complete(&wal.line(Timeline(2)), 4), wal.complete(&wal.line(Timeline(2)), 5)), (None, None));
        let old = wal.reach(&wal.line(Timeline(1)), Lsn(2 * SIZE)).expect("reaches");
        assert_eq!(old.end, Lsn(7 * SIZE));
        // A switch on the border of segments 4 and 5: segment 5 is the new timeline's alone.
        let wal = coverage(&[(1, &[4, 5], &[], &[]), (2, &[], &[], &[(1, 5 * SIZE)])]);
        assert_eq!(wal.reach(&wal.line(Timeline(2)), Lsn(4 * SIZE)).expect("reaches").end, Lsn(5 * SIZE));
    }

    #[test]
    fn the_end_of_a_timeline_is_found_in_the_one_that_follows() {
        let switch = 4 * SIZE + 1000;
        let name = |timeline| SegmentName::new(Timeline(timeline), 4, SIZE);
        let of = |own: &[u64], live: &[(u64, u64)]| {
            coverage(&[(1, own, live, &[]), (2, &[4], &[], &[(1, switch)])]).continued(&name(1))
        };
        assert_eq!(of(&[3], &[]), Some((name(2), Lsn(switch))));
        assert_eq!(of(&[3], &[(4, 999)]), Some((name(2), Lsn(switch))));
        assert_eq!(of(&[3], &[(4, 1000)]), None, "its own pieces reach as far");
        assert_eq!(of(&[3, 4], &[]), None);
        let deeper = coverage(&[(1, &[3], &[], &[]), (3, &[4], &[], &[(1, 3 * SIZE + 5), (2, switch)])]);
        assert_eq!(deeper.continued(&name(1)), None, "timeline 3 did not leave timeline 1 there");
    }

    #[test]
    fn what_an_old_primary_wrote_behind_the_fork_is_named() {
        let switch = 4 * SIZE + 1000;
        let wal = coverage(&[(1, &[2, 3], &[(4, 5000)], &[]), (2, &[4], &[], &[(1, switch)])]);
        let expected = Branch { timeline: Timeline(1), fork: Lsn(switch), end: Lsn(4 * SIZE + 5000) };
        assert_eq!(wal.left_behind(&wal.line(Timeline(2))), [expected]);
        let wal = coverage(&[(1, &[2, 3], &[(4, 1000)], &[]), (2, &[4], &[], &[(1, switch)])]);
        assert!(wal.left_behind(&wal.line(Timeline(2))).is_empty());
    }
}
