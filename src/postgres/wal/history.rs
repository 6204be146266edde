//! Timeline history files and the line of ancestors they draw.
//!
//! `NNNNNNNN.history` lists, oldest first, the timelines that timeline N descends from, each with the
//! position where it was left (`readTimeLineHistory`, `writeTimeLineHistory` in
//! `src/backend/access/transam/timeline.c`). Timeline 1 has no such file. The rules are PostgreSQL's:
//! lines that begin with `#` and empty lines mean nothing, timelines rise, the text behind the
//! position is for people.

use std::fmt;

use crate::error::{self, Result};
use crate::units::{Lsn, Timeline};

/// An ancestor and where it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline that was left.
    pub timeline: Timeline,
    /// First byte that is not on it any more.
    pub switch: Lsn,
    /// Why, for people.
    pub reason: String,
}

/// A timeline and its ancestors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: Timeline,
    ancestors: Vec<Ancestor>,
}

impl TimelineHistory {
    /// A timeline without ancestors.
    pub fn first(timeline: Timeline) -> Self {
        Self { timeline, ancestors: Vec::new() }
    }

    /// Reads the history file of `timeline`.
    pub fn parse(timeline: Timeline, text: &str) -> Result<Self> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start_matches([' ', '\t', '\r']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| {
                error::integrity(format!("{timeline}.history, line {}: {why}", number + 1))
                    .meaning("recovery could follow the wrong timeline; the file was not used")
            };
            let ancestor = parse_line(line).ok_or_else(|| wrong("not \"timeline position reason\""))?;
            if ancestors.last().is_some_and(|last| last.timeline >= ancestor.timeline) {
                return Err(wrong("timelines must rise"));
            }
            if ancestors.last().is_some_and(|last| last.switch > ancestor.switch) {
                return Err(wrong("positions must not fall"));
            }
            if ancestor.timeline >= timeline {
                return Err(wrong("an ancestor must be older than its descendant"));
            }
            ancestors.push(ancestor);
        }
        Ok(Self { timeline, ancestors })
    }

    /// The timeline whose history this is.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Its ancestors, oldest first.
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// All timelines of the line, oldest first, this one last.
    pub fn line(&self) -> impl Iterator<Item = Timeline> + '_ {
        self.ancestors.iter().map(|a| a.timeline).chain([self.timeline])
    }

    /// The timeline that holds the byte at `position` on this line (`tliOfPointInHistory`).
    pub fn holding(&self, position: Lsn) -> Timeline {
        self.ancestors.iter().find(|a| position < a.switch).map_or(self.timeline, |a| a.timeline)
    }

    /// Where this line left `timeline`; none for the newest and for strangers (`tliSwitchPoint`).
    pub fn switch_from(&self, timeline: Timeline) -> Option<Lsn> {
        self.ancestors.iter().find(|a| a.timeline == timeline).map(|a| a.switch)
    }

    /// Whether WAL of `timeline` that ends at `end` lies on this line, so that a backup which needs it
    /// can be recovered to this timeline.
    pub fn contains(&self, timeline: Timeline, end: Lsn) -> bool {
        match self.switch_from(timeline) {
            Some(switch) => end <= switch,
            None => timeline == self.timeline,
        }
    }

    /// The timeline whose file is to be read for segment `number`: the newest that has begun by the
    /// segment's end. Where a timeline begins within a segment, its file holds the ancestor's bytes too.
    pub fn of_segment(&self, number: u64, segment_size: u64) -> Timeline {
        self.ancestors.iter().find(|a| number < a.switch.segment(segment_size)).map_or(self.timeline, |a| a.timeline)
    }

    /// Adds this timeline to the ancestors of a new one that begins at `switch`.
    pub fn descend(&self, timeline: Timeline, switch: Lsn, reason: impl Into<String>) -> Self {
        let mut ancestors = self.ancestors.clone();
        ancestors.push(Ancestor { timeline: self.timeline, switch, reason: reason.into() });
        Self { timeline, ancestors }
    }
}

impl fmt::Display for TimelineHistory {
    /// The file as PostgreSQL writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for a in &self.ancestors {
            writeln!(f, "{}\t{}\t{}", a.timeline.0, a.switch, a.reason)?;
        }
        Ok(())
    }
}

fn parse_line(line: &str) -> Option<Ancestor> {
    let mut rest = line.splitn(2, char::is_whitespace);
    let timeline = rest.next()?.parse().ok().filter(|t| *t > 0)?;
    let rest = rest.next()?.trim_start();
    let (position, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some(Ancestor { timeline: Timeline(timeline), switch: position.parse().ok()?, reason: reason.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "1\t0/30000D8\tno recovery target specified\n\n2\t0/5000000\tbefore 2000-01-01 00:00:00+00\n";

    fn history() -> TimelineHistory {
        TimelineHistory::parse(Timeline(5), FILE).expect("valid")
    }

    #[test]
    fn a_file_as_postgresql_writes_it_is_read_and_written() {
        let history = history();
        assert_eq!(history.line().collect::<Vec<_>>(), [Timeline(1), Timeline(2), Timeline(5)]);
        assert_eq!(history.ancestors()[1].reason, "before 2000-01-01 00:00:00+00");
        assert_eq!(history.to_string(), FILE.replace("\n\n", "\n"));
        let commented = format!("# by hand\n  \n{FILE}");
        assert_eq!(TimelineHistory::parse(Timeline(5), &commented).expect("valid"), history);
        assert_eq!(TimelineHistory::parse(Timeline(1), "").expect("valid"), TimelineHistory::first(Timeline(1)));
    }

    #[test]
    fn every_position_lies_on_one_timeline() {
        let history = history();
        for (lsn, timeline) in [("0/1", 1), ("0/30000D7", 1), ("0/30000D8", 2), ("0/4FFFFFF", 2), ("0/5000000", 5)] {
            assert_eq!(history.holding(lsn.parse().expect("valid")), Timeline(timeline), "{lsn}");
        }
        assert!(history.contains(Timeline(1), Lsn(0x30000D8)));
        assert!(!history.contains(Timeline(1), Lsn(0x30000D9)));
        assert!(history.contains(Timeline(5), Lsn(u64::MAX)));
        assert!(!history.contains(Timeline(3), Lsn(1)));
        assert_eq!(history.switch_from(Timeline(2)), Some(Lsn(0x5000000)));
    }

    #[test]
    fn a_segment_is_read_from_the_newest_timeline_that_has_it() {
        let history = history();
        let size = 16 << 20;
        for (number, timeline) in [(2, 1), (3, 2), (4, 2), (5, 5), (6, 5)] {
            assert_eq!(history.of_segment(number, size), Timeline(timeline), "{number}");
        }
    }

    #[test]
    fn a_descendant_lists_its_parent_last() {
        let child = history().descend(Timeline(6), Lsn(0x6000000), "drill");
        assert_eq!(child, TimelineHistory::parse(Timeline(6), &format!("{FILE}5\t0/6000000\tdrill\n")).expect("valid"));
    }

    #[test]
    fn damaged_files_are_refused() {
        for wrong in [
            "1\n",
            "x\t0/1\n",
            "1\t0\n",
            "0\t0/1\tr\n",
            "2\t0/1\tr\n1\t0/2\tr\n",
            "1\t0/2\tr\n2\t0/1\tr\n",
            "5\t0/1\tr\n",
        ] {
            assert!(TimelineHistory::parse(Timeline(5), wrong).is_err(), "{wrong:?}");
        }
    }
}
