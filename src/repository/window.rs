//! What can be restored: recovery windows and the watermark. Pure: plain data in, plain data out.
//!
//! A base backup can be restored when its WAL is there from its start to its stop without a hole. From
//! its stop on, every transaction up to where the WAL reaches can be the last one restored: that is its
//! window. Bases whose WAL runs into the same end share one window, which begins with the oldest.
//!
//! ```text
//! base A ●━━━━━━━━━━━━━━━━━━┃ gap  ░░░░░░░ base B ●━━━━━━━━━ base C ●━━━━━━▶ end of the WAL
//!        └── window 1 ──────┘                     └── window 2 ───────────┘
//! ```
//!
//! [`super::frontier`] reads what is needed from the store; a caller that has a catalogue begins there.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::catalogue::LiveMark;
use super::coverage::{Coverage, Gap, Leg};
use crate::evidence::entry::{BaseBackup, ConfigurationExport, FilestoreCapture};
use crate::units::{Lsn, Timeline};
use crate::wal_name::segment_name;

/// A place in the history of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Point {
    /// The timeline.
    pub timeline: Timeline,
    /// The position.
    pub lsn: Lsn,
    /// The time that belongs to it.
    pub time: DateTime<Utc>,
}

/// A base backup and how far its WAL reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BaseReach {
    /// Id of the base backup.
    pub id: String,
    /// From where on it is consistent; the time is when the backup was complete.
    pub stop: Point,
    /// The timeline that recovery from it ends on.
    pub line: Timeline,
    /// Where its WAL ends and on which timeline; `None` where even the first segment is missing.
    pub end: Option<(Lsn, Timeline)>,
    /// The missing segments that end it, where later ones are there.
    pub gap: Option<Gap>,
    /// Why it cannot be restored; `None` where it can.
    pub broken: Option<String>,
    /// The first segment whose absence makes it unrestorable.
    pub missing: Option<String>,
}

/// A stretch of history every moment of which can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Its first moment: the stop of its oldest base backup.
    pub from: Point,
    /// Its last moment: where the WAL ends, and the time up to which no commit is missing.
    pub to: Point,
    /// Time of the newest commit in it, where one is known.
    pub last_commit: Option<DateTime<Utc>>,
    /// The base backups that it can be restored from, oldest first.
    pub bases: Vec<String>,
    /// The timeline that recovery in it ends on.
    pub line: Timeline,
    /// The missing segments that end it, where later ones are there.
    pub ended_by: Option<Gap>,
}

impl Window {
    /// Whether the state at `time` can be restored.
    pub fn contains(&self, time: DateTime<Utc>) -> bool {
        (self.from.time..=self.to.time).contains(&time)
    }

    /// Whether recovery in it can stop at `lsn`.
    pub fn contains_lsn(&self, lsn: Lsn) -> bool {
        (self.from.lsn..=self.to.lsn).contains(&lsn)
    }
}

/// For each base backup, how far its WAL reaches, in the order given.
pub fn reaches<'a>(bases: impl IntoIterator<Item = &'a BaseBackup>, wal: Option<&Coverage>) -> Vec<BaseReach> {
    bases.into_iter().map(|base| reach_of(base, wal)).collect()
}

fn reach_of(base: &BaseBackup, wal: Option<&Coverage>) -> BaseReach {
    let stop = Point { timeline: base.timeline, lsn: base.stop_lsn, time: base.stop_time };
    let (id, line) = (base.id.clone(), base.timeline);
    let mut of = BaseReach { id, stop, line, end: None, gap: None, broken: None, missing: None };
    let Some(wal) = wal else {
        of.broken = Some(format!("no WAL is archived; it needs {} to {}", base.wal.first, base.wal.last));
        of.missing = Some(base.wal.first.clone());
        return of;
    };
    let line = line_of(base, wal);
    of.line = line.last().map_or(base.timeline, |leg| leg.timeline);
    let Some(reach) = wal.reach(&line, base.start_lsn) else {
        of.broken = Some(format!("WAL segment {} is missing, where its replay starts", base.wal.first));
        of.missing = Some(base.wal.first.clone());
        return of;
    };
    // What the old timeline went on to write after it was left is not part of this line.
    let left_at = line.iter().find(|leg| leg.timeline == reach.timeline).and_then(|leg| leg.to);
    let end = left_at.map_or(reach.end, |left| reach.end.min(left));
    if end < base.stop_lsn {
        let missing = segment_name(reach.timeline, end.segment(wal.segment_size), wal.segment_size);
        of.broken = Some(match &reach.gap {
            Some(gap) => format!("WAL segment {} is missing, before its end at {}", gap.first, base.stop_lsn),
            None => format!("its WAL ends at {end}, before {missing} and its end at {}", base.stop_lsn),
        });
        of.missing = Some(missing);
    }
    of.end = Some((end, reach.timeline));
    of.gap = reach.gap;
    of
}

/// The newest line of history that the base lies on; its own timeline where it lies on no other.
pub fn line_of(base: &BaseBackup, wal: &Coverage) -> Vec<Leg> {
    let lines = wal.timelines.keys().rev().map(|timeline| wal.line(*timeline));
    lines.into_iter().find(|line| lies_on(base, line)).unwrap_or_else(|| wal.line(base.timeline))
}

/// Whether a base backup lies on a line of history, from its start to its stop.
pub fn lies_on(base: &BaseBackup, line: &[Leg]) -> bool {
    line.iter().any(|leg| {
        leg.timeline == base.timeline
            && leg.from <= base.start_lsn
            && leg.to.is_none_or(|switch| switch >= base.stop_lsn)
    })
}

/// The windows, oldest first. `last_commit` tells the time of the newest commit before the end of a
/// base's WAL, as far as that is known.
pub fn windows(reaches: &[BaseReach], last_commit: impl Fn(&BaseReach) -> Option<DateTime<Utc>>) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for base in reaches.iter().filter(|base| base.broken.is_none()) {
        let Some((end, timeline)) = base.end else { continue };
        let same = |w: &&mut Window| w.to.lsn == end && w.to.timeline == timeline && w.line == base.line;
        if let Some(window) = windows.iter_mut().find(same) {
            window.bases.push(base.id.clone());
            // The stop of a base proves that everything before it is there, commits or not.
            window.to.time = window.to.time.max(base.stop.time);
            if base.stop.lsn < window.from.lsn {
                window.from = base.stop;
            }
            continue;
        }
        let last_commit = last_commit(base);
        let time = last_commit.map_or(base.stop.time, |commit| commit.max(base.stop.time));
        windows.push(Window {
            from: base.stop,
            to: Point { timeline, lsn: end, time },
            last_commit,
            bases: vec![base.id.clone()],
            line: base.line,
            ended_by: base.gap.clone(),
        });
    }
    windows.sort_by_key(|w| (w.from.time, w.to.time));
    windows
}

/// The window that holds `time`; where branches of history overlap, the one on the newest line.
pub fn holding(windows: &[Window], time: DateTime<Utc>) -> Option<&Window> {
    windows.iter().filter(|w| w.contains(time)).max_by_key(|w| (w.line, w.to.lsn))
}

/// The window in which recovery can stop at `lsn`; where branches overlap, the one on the newest line.
pub fn holding_lsn(windows: &[Window], lsn: Lsn) -> Option<&Window> {
    windows.iter().filter(|w| w.contains_lsn(lsn)).max_by_key(|w| (w.line, w.to.lsn))
}

/// The restorable moments next to one that is not restorable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// The last one before it.
    pub before: Option<Point>,
    /// The first one after it.
    pub after: Option<Point>,
}

/// The restorable moments nearest to `time`. Where `time` itself is restorable, both lie around it.
pub fn nearest(windows: &[Window], time: DateTime<Utc>) -> Nearest {
    let ends = windows.iter().map(|w| w.to).filter(|to| to.time <= time);
    let starts = windows.iter().map(|w| w.from).filter(|from| from.time > time);
    Nearest { before: ends.max_by_key(|p| (p.time, p.lsn)), after: starts.min_by_key(|p| (p.time, p.lsn)) }
}

/// The same for a position.
pub fn nearest_lsn(windows: &[Window], lsn: Lsn) -> Nearest {
    let ends = windows.iter().map(|w| w.to).filter(|to| to.lsn <= lsn);
    let starts = windows.iter().map(|w| w.from).filter(|from| from.lsn > lsn);
    Nearest { before: ends.max_by_key(|p| p.lsn), after: starts.min_by_key(|p| p.lsn) }
}

/// The parts that must be restorable together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The database cluster.
    Database,
    /// A database's filestore.
    Filestore,
    /// The configuration.
    Configuration,
}

/// Up to when one part is restorable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Which part.
    pub part: Part,
    /// The database whose filestore it is.
    pub database: Option<String>,
    /// Up to when it is restorable; `None` where it never was backed up completely.
    pub time: Option<DateTime<Utc>>,
    /// Whether the watermark is where it is because of this part.
    pub limits: bool,
}

/// The newest time at which database, filestore and configuration are all restorable and agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Watermark {
    /// The time; `None` where a part has no backup.
    pub time: Option<DateTime<Utc>>,
    /// The parts, and which of them limits it.
    pub components: Vec<Component>,
}

/// The watermark of an environment. `odoo` says whether a filestore belongs to it even though none
/// was captured yet.
pub fn watermark<'a>(
    windows: &[Window],
    captures: impl IntoIterator<Item = &'a FilestoreCapture>,
    live: &[LiveMark],
    newest_base: Option<&BaseBackup>,
    newest_export: Option<&ConfigurationExport>,
    odoo: bool,
) -> Watermark {
    let part = |part, database, time| Component { part, database, time, limits: false };
    let mut components = vec![part(Part::Database, None, windows.iter().map(|w| w.to.time).max())];
    let mut filestores: Vec<Component> = Vec::new();
    for capture in captures {
        // A database that a later base backup no longer finds was dropped: its filestore ended with it.
        if newest_base.is_some_and(|b| b.start_time > capture.scan_finished && !b.databases.contains(&capture.database))
        {
            continue;
        }
        let time = capture.complete.then_some(capture.restore_point.time);
        match filestores.iter_mut().find(|c| c.database.as_ref() == Some(&capture.database)) {
            Some(known) => known.time = known.time.max(time),
            None => filestores.push(part(Part::Filestore, Some(capture.database.clone()), time)),
        }
    }
    for mark in live {
        // A mark stands on a capture: without one there is nothing that it could complete.
        let known = filestores.iter_mut().find(|c| c.database.as_ref() == Some(&mark.database));
        if let Some(known) = known.filter(|known| known.time.is_some()) {
            known.time = known.time.max(Some(mark.time));
        }
    }
    if filestores.is_empty() && odoo {
        filestores.push(part(Part::Filestore, None, None));
    }
    components.extend(filestores);
    components.push(part(Part::Configuration, None, newest_export.map(|e| e.taken_at)));
    // `None` sorts first: a part without a backup limits more than any time does.
    let lowest = components.iter().map(|c| c.time).min().flatten();
    for component in &mut components {
        component.limits = component.time == lowest;
    }
    Watermark { time: lowest, components }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
