//! Which moment a drill restores: the newest, the oldest, the one with the longest replay, or a random
//! second of everything that can be restored.
//!
//! Relies on [`crate::evidence::draw`]: a random second is drawn from a frame and by a seed that a
//! ledger entry committed to before, so that nobody can pick a nice one.

use chrono::{DateTime, Utc};

use super::longest::replays;
use crate::error::{self, Result};
use crate::event::Event;
use crate::evidence::Body;
use crate::evidence::draw::{DrillDraw, Frame, Interval, METHOD, Revealed, Seed};
use crate::evidence::sampled::{Sampling, SamplingMethod};
use crate::repository::Repository;
use crate::repository::catalogue::{Catalogue, ledger};
use crate::repository::frontier::Recovery;
use crate::repository::wal_archive::WalArchive;
use crate::repository::window::Window;
use crate::restore::{self, Target};
use crate::runtime::Runtime;
use crate::units::{ByteSize, Timeline};

/// A rule that chooses the target of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// The last transaction in the repository.
    Latest,
    /// The oldest moment that can be restored.
    Oldest,
    /// A random second, by a seed that is committed to the ledger first.
    Random,
    /// Just before the next base backup: the most WAL to replay.
    Longest,
}

/// A target, and how it came about.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Where to restore to.
    pub target: Target,
    /// The timeline to follow; `None`: the newest.
    pub timeline: Option<Timeline>,
    /// What the record says about the choice.
    pub sampling: Sampling,
}

impl Chosen {
    /// A target that somebody named.
    pub fn given(target: Target) -> Self {
        let (method, why) = match target {
            Target::Latest => (SamplingMethod::Latest, "the last transaction in the repository"),
            _ => (SamplingMethod::Given, "named by whoever ran the drill"),
        };
        Self { target, timeline: None, sampling: Sampling { method, why: why.to_owned(), draw: None } }
    }

    /// Whether a moment of the past was chosen: what came after it is left out on purpose.
    pub fn is_past(&self) -> bool {
        self.target != Target::Latest
    }
}

/// Chooses by `sample`. A random draw is committed to the ledger here: from then on a drill that does not
/// reveal it counts as abandoned.
pub async fn choose(
    sample: Sample,
    repository: &Repository,
    catalogue: &Catalogue,
    runtime: &Runtime,
) -> Result<Chosen> {
    if sample == Sample::Latest {
        return Ok(Chosen::given(Target::Latest));
    }
    let recovery = Recovery::load(repository, catalogue).await;
    match sample {
        Sample::Latest => Ok(Chosen::given(Target::Latest)),
        Sample::Oldest => oldest(&recovery.windows, catalogue),
        Sample::Longest => longest(&recovery.windows, catalogue),
        Sample::Random => random(&recovery.windows, repository, catalogue, runtime).await,
    }
}

fn nothing(catalogue: &Catalogue) -> error::Error {
    error::not_recoverable(format!(
        "nothing of {} can be restored, so there is nothing to choose from",
        catalogue.environment
    ))
    .hint(format!("`lifeboat show -e {}` tells what is missing", catalogue.environment))
}

/// The timeline to ask for, where it is not the one that is followed anyway.
fn chosen_line(catalogue: &Catalogue, line: Timeline) -> Option<Timeline> {
    (catalogue.wal.as_ref().and_then(|wal| wal.newest()) != Some(line)).then_some(line)
}

fn oldest(windows: &[Window], catalogue: &Catalogue) -> Result<Chosen> {
    let window = windows.first().ok_or_else(|| nothing(catalogue))?;
    let base = catalogue.bases().filter(|b| window.bases.contains(&b.id)).min_by_key(|b| b.stop_lsn);
    let base = base.ok_or_else(|| nothing(catalogue))?;
    let why = format!("the oldest moment that can be restored: base backup {} alone", base.id);
    Ok(Chosen {
        target: Target::Backup(base.id.clone()),
        timeline: chosen_line(catalogue, window.line),
        sampling: Sampling { method: SamplingMethod::Oldest, why, draw: None },
    })
}

fn longest(windows: &[Window], catalogue: &Catalogue) -> Result<Chosen> {
    let replay = replays(windows, catalogue.bases()).into_iter().max_by_key(|r| r.bytes);
    let replay = replay.ok_or_else(|| nothing(catalogue))?;
    let moment =
        if replay.still_growing { "up to the newest WAL" } else { "just before the next base backup was complete" };
    let why =
        format!("the longest replay, {} of WAL from base backup {} {moment}", ByteSize(replay.bytes), replay.base);
    Ok(Chosen {
        target: Target::Lsn(replay.until),
        timeline: chosen_line(catalogue, replay.line),
        sampling: Sampling { method: SamplingMethod::Longest, why, draw: None },
    })
}

async fn random(
    windows: &[Window],
    repository: &Repository,
    catalogue: &Catalogue,
    runtime: &Runtime,
) -> Result<Chosen> {
    let frame = frame(windows, repository, catalogue).await?;
    if frame.seconds() == 0 {
        return Err(error::not_recoverable(format!(
            "no whole second of {} lies between two archived transactions, so there is none to draw",
            catalogue.environment
        ))
        .hint("let `lifeboat wal receive` run for some seconds behind the base backup")
        .hint("`--sample latest` restores the last transaction"));
    }
    let seed = Seed::random()?;
    let draw = DrillDraw { method: METHOD.to_owned(), seed_sha256: seed.sha256(), frame };
    let signer = repository.signer()?;
    let ledger = ledger(repository, &catalogue.environment).await?;
    let committed = ledger.append(runtime, signer, Vec::new(), Body::DrillDraw(draw.clone())).await?;
    let drawn = Revealed::draw(&seed, &draw.frame, committed.sequence, &committed.sha256)
        .ok_or_else(|| error::internal("a frame that is not empty gave no second"))?;
    runtime.emit(Event::Note(format!(
        "drew {} out of {} seconds that can be restored; entry {} of the ledger committed to the seed before",
        drawn.second.format("%Y-%m-%d %H:%M:%S UTC"),
        drawn.seconds,
        drawn.entry
    )));
    let why = format!("second {} of {}, drawn at random", drawn.index + 1, drawn.seconds);
    Ok(Chosen {
        target: Target::Time(drawn.second),
        timeline: chosen_line(catalogue, drawn.timeline),
        sampling: Sampling { method: SamplingMethod::Random, why, draw: Some(drawn) },
    })
}

/// Every whole second that lies between two archived transactions, so that recovery has a place to stop.
async fn frame(windows: &[Window], repository: &Repository, catalogue: &Catalogue) -> Result<Frame> {
    let mut intervals = Vec::new();
    for window in windows {
        let Some(last) = window.last_commit else { continue };
        let Some(first) = first_commit(window, repository, catalogue).await? else { continue };
        intervals.extend(Interval::within(first, last, window.line));
    }
    let mut timelines: Vec<Timeline> = windows.iter().map(|w| w.line).collect();
    timelines.sort_unstable();
    timelines.dedup();
    Ok(Frame {
        intervals: apart(intervals),
        timelines,
        databases: catalogue.bases().next_back().map(|b| b.databases.clone()).unwrap_or_default(),
        ledger_entries: catalogue.entries.last().map_or(0, |e| e.sequence),
        wal_end: windows.iter().max_by_key(|w| (w.to.time, w.line)).map(|w| w.to.lsn),
    })
}

/// The time of the first transaction behind the window's oldest base backup: before it, there is none to stop at.
async fn first_commit(
    window: &Window,
    repository: &Repository,
    catalogue: &Catalogue,
) -> Result<Option<DateTime<Utc>>> {
    let Some(base) = catalogue.bases().filter(|b| window.bases.contains(&b.id)).min_by_key(|b| b.stop_lsn) else {
        return Ok(None);
    };
    let archive = WalArchive::new(repository, &catalogue.environment);
    let target = Target::Backup(base.id.clone());
    let resolved = restore::resolve(archive, catalogue, &target, chosen_line(catalogue, window.line)).await?;
    Ok(resolved.first_lost.map(|transaction| transaction.time))
}

/// The same seconds, each once for each timeline, in order: a second that counts twice would be drawn twice as often.
fn apart(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_by_key(|i| (i.timeline, i.from, i.to));
    let mut apart: Vec<Interval> = Vec::new();
    for interval in intervals {
        match apart.last_mut() {
            Some(last) if last.timeline == interval.timeline && interval.from <= last.to => {
                last.to = last.to.max(interval.to);
            }
            _ => apart.push(interval),
        }
    }
    apart.sort_by_key(|i| (i.from, i.timeline));
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_of_a_timeline_counts_twice() {
        let at = |second| DateTime::from_timestamp(second, 0).expect("a time");
        let interval = |&(from, to, timeline): &(i64, i64, u32)| Interval {
            from: at(from),
            to: at(to),
            timeline: Timeline(timeline),
        };
        let merged = |given: &[(i64, i64, u32)]| -> Vec<(i64, i64, u32)> {
            let merged = apart(given.iter().map(interval).collect());
            merged.iter().map(|i| (i.from.timestamp(), i.to.timestamp(), i.timeline.0)).collect()
        };
        assert_eq!(merged(&[(50, 60, 1), (0, 10, 1), (10, 20, 1)]), [(0, 20, 1), (50, 60, 1)]);
        assert_eq!(merged(&[(0, 10, 1), (5, 15, 2)]), [(0, 10, 1), (5, 15, 2)], "two states at the same time");
        assert_eq!(merged(&[(0, 30, 1), (5, 15, 1)]), [(0, 30, 1)]);
    }

    #[test]
    fn only_the_latest_is_not_of_the_past() {
        assert!(!Chosen::given(Target::Latest).is_past());
        let named = Chosen::given(Target::Name("before".into()));
        assert!(named.is_past() && named.sampling.method == SamplingMethod::Given);
    }
}
