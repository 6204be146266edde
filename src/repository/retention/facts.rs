//! What there is, read from the store: the plain facts that the rules decide by, and every object of the WAL archive.
//!
//! Whoever deletes must know; so what other readers tell and leave out (a strange name in the archive, a damaged history
//! file) ends this one with an error.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::rules::{Base, Capture, Decision, Export, Facts, Line, Until};
use super::state::{Named, State};
use super::wal::{self, Stretch};
use crate::error::{self, Result};
use crate::evidence::{Body, LedgerEntry};
use crate::ranges::Ranges;
use crate::repository::Repository;
use crate::repository::catalogue::{Catalogue, coverage, segment_size};
use crate::repository::coverage::Coverage;
use crate::repository::frontier::Recovery;
use crate::repository::wal_archive::WalArchive;
use crate::repository::window::lies_on;
use crate::storage::layout;
use crate::units::{Lsn, Timeline};
use crate::wal_name::{SegmentName, WalFileName};

/// An object under `wal/` or `wal-live/`.
#[derive(Debug, Clone)]
pub(super) struct WalObject {
    /// Name below the environment.
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) modified: DateTime<Utc>,
    pub(super) timeline: Timeline,
    /// Number of the segment that it is, or belongs to; `None` for what is never deleted.
    pub(super) segment: Option<u64>,
    /// Whether it is a piece of a segment, or the complete one.
    pub(super) is: WalKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalKind {
    Segment,
    Piece,
    Other,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) facts: Facts,
    pub(super) coverage: Option<Coverage>,
    pub(super) wal: Vec<WalObject>,
}

/// Gathers the facts. Backups in `damaged` (numbers of entries) count as ones that cannot be restored.
pub(super) async fn gather(
    repository: &Repository,
    environment: &str,
    entries: &[LedgerEntry],
    state: &State,
    damaged: &BTreeMap<u64, String>,
) -> Result<Found> {
    let archive = WalArchive::new(repository, environment);
    let size = segment_size(entries);
    let mut coverage = coverage(archive, size).await?;
    if let Some(coverage) = &mut coverage {
        state.hide_deleted(coverage);
        ancestry_is_known(coverage, environment)?;
    }
    let wal = wal_objects(repository, environment, coverage.as_ref().map(|c| c.segment_size).or(size)).await?;

    // As if nothing were retired: what was may be needed again.
    let retention = State { retired: Named::default(), ..state.clone() };
    let catalogue = Catalogue {
        environment: environment.to_owned(),
        entries: entries.to_vec(),
        ledger_problems: Vec::new(),
        wal: coverage.clone(),
        live: Vec::new(),
        retention,
    };
    let recovery = Recovery::load(repository, &catalogue).await;
    let newest = recovery.windows.iter().map(|w| w.to.time).max();
    let lines: Vec<(Timeline, Vec<_>)> =
        coverage.iter().flat_map(|c| c.timelines.keys().map(|t| (*t, c.line(*t)))).collect();
    let written = |timeline| wal.iter().filter(|o| o.timeline == timeline).map(|o| o.modified).max();
    let mut facts = Facts {
        newest,
        lines: lines
            .iter()
            .filter_map(|(timeline, _)| Some(Line { timeline: *timeline, written: written(*timeline)? }))
            .collect(),
        holds: state.holds.iter().filter(|h| h.released.is_none()).map(|h| h.hold.clone()).collect(),
        ..Facts::default()
    };
    let mut reaches = recovery.bases.iter();
    for entry in catalogue.retention.living(&catalogue.entries) {
        let sequence = entry.sequence;
        match &entry.statement.predicate.body {
            Body::BaseBackup(base) => {
                let reach = reaches.next();
                let broken = match reach {
                    Some(reach) => damaged.get(&sequence).cloned().or_else(|| reach.broken.clone()),
                    None => Some("nobody knows how far its WAL reaches".to_owned()),
                };
                facts.bases.push(Base {
                    sequence,
                    id: base.id.clone(),
                    timeline: base.timeline,
                    start: base.start_lsn,
                    stop: base.stop_lsn,
                    stop_time: base.stop_time,
                    databases: base.databases.clone(),
                    lines: lines.iter().filter(|(_, line)| lies_on(base, line)).map(|(t, _)| *t).collect(),
                    broken,
                });
            }
            Body::FilestoreCapture(capture) => facts.captures.push(Capture {
                sequence,
                id: capture.id.clone(),
                time: capture.restore_point.time,
                scanned: capture.scan_finished,
                database: capture.database.clone(),
                data_dir: capture.data_dir.clone(),
                uuid: capture.database_uuid.clone(),
            }),
            Body::ConfigurationExport(export) => {
                facts.exports.push(Export { sequence, id: export.id.clone(), time: export.taken_at });
            }
            _ => {}
        }
    }
    Ok(Found { facts, coverage, wal })
}

/// Without a history file nobody can tell which WAL a newer timeline goes on from.
fn ancestry_is_known(coverage: &Coverage, environment: &str) -> Result<()> {
    let oldest = coverage.timelines.keys().next().copied();
    let unknown =
        coverage.timelines.iter().find(|(timeline, wal)| Some(**timeline) != oldest && wal.ancestors.is_empty());
    match unknown {
        None => Ok(()),
        Some((timeline, _)) => Err(error::integrity(format!(
            "the history of timeline {} is not in the archive of {environment}, so nobody can tell what it grew out of",
            timeline.0
        ))
        .meaning("nothing is retired or deleted, because any WAL of older timelines may be needed")
        .hint(format!("`lifeboat wal push` the file {timeline}.history from a server's pg_wal"))),
    }
}

async fn wal_objects(repository: &Repository, environment: &str, size: Option<u64>) -> Result<Vec<WalObject>> {
    let mut objects = Vec::new();
    let below = format!("{environment}/");
    for prefix in [layout::wal(environment), layout::wal_live(environment)] {
        for object in repository.store.list(&prefix).await? {
            let Some(name) = object.key.strip_prefix(&below) else { continue };
            let parts: Vec<&str> = name.split('/').collect();
            let (segment, is) = match parts.as_slice() {
                ["wal", _, file] => match file.parse() {
                    Ok(WalFileName::Segment(segment)) => (Some(segment), WalKind::Segment),
                    Ok(WalFileName::Partial(segment) | WalFileName::BackupHistory { segment, .. }) => {
                        (Some(segment), WalKind::Other)
                    }
                    Ok(WalFileName::History { .. }) | Err(_) => continue,
                },
                ["wal-live", _, segment, _] => match segment.parse::<SegmentName>() {
                    Ok(segment) => (Some(segment), WalKind::Piece),
                    Err(_) => continue,
                },
                _ => continue,
            };
            let Some((segment, size)) = segment.zip(size) else { continue };
            objects.push(WalObject {
                name: name.to_owned(),
                size: object.size,
                modified: object.modified,
                timeline: segment.timeline,
                segment: segment.number(size).ok(),
                is,
            });
        }
    }
    Ok(objects)
}

/// The segments that must stay, by timeline; `None`: all of them.
pub(super) async fn wanted_wal(
    repository: &Repository,
    environment: &str,
    found: &Found,
    decision: &Decision,
) -> Result<Option<BTreeMap<Timeline, Ranges>>> {
    let (Some(coverage), Some(demands)) = (&found.coverage, &decision.wal) else { return Ok(None) };
    let archive = WalArchive::new(repository, environment);
    let mut stretches = Vec::with_capacity(demands.len());
    for demand in demands {
        let last = match demand.until {
            Until::End => u64::MAX,
            Until::Position(lsn) => lsn.previous_segment(coverage.segment_size),
            Until::Time(time) => first_over(archive, coverage, demand.line, demand.from, time).await?,
        };
        stretches.push(Stretch { line: demand.line, from: demand.from, last });
    }
    Ok(Some(wal::wanted(coverage, &stretches)))
}

/// Number of the first segment along a line with a commit behind `time`, found by halving; the last one where there is none.
async fn first_over(
    archive: WalArchive<'_>,
    coverage: &Coverage,
    line: Timeline,
    from: Lsn,
    time: DateTime<Utc>,
) -> Result<u64> {
    let line = coverage.line(line);
    let Some(reach) = coverage.reach(&line, from) else { return Ok(u64::MAX) };
    let (mut low, mut high) = (from.segment(coverage.segment_size), reach.end.previous_segment(coverage.segment_size));
    let mut is_over = false;
    while low <= high {
        let middle = low + (high - low) / 2;
        let mut found = None;
        for number in middle..=high {
            let Some(name) = coverage.complete(&line, number) else { break };
            found = archive.segment_summary(&name).await?.and_then(|s| s.first_commit_time);
            if found.is_some() {
                break;
            }
        }
        match found {
            Some(first) if first <= time => low = middle + 1,
            found => {
                is_over |= found.is_some();
                if middle == low {
                    break;
                }
                high = middle;
            }
        }
    }
    // Where WAL ends before that time, what comes may be needed, too.
    Ok(if is_over { low + 1 } else { u64::MAX })
}

/// The segments of the archive that nothing wants, written before `old`.
pub(super) fn going_wal(
    found: &Found,
    wanted: Option<&BTreeMap<Timeline, Ranges>>,
    old: DateTime<Utc>,
) -> BTreeMap<Timeline, Ranges> {
    let mut going: BTreeMap<Timeline, Ranges> = BTreeMap::new();
    for object in found.wal.iter().filter(|o| o.is == WalKind::Segment && o.modified < old) {
        if let Some(number) = object.segment.filter(|n| !is_wanted(wanted, object.timeline, *n)) {
            going.entry(object.timeline).or_default().insert(number, number);
        }
    }
    going
}

/// Whether a segment must stay.
pub(super) fn is_wanted(wanted: Option<&BTreeMap<Timeline, Ranges>>, timeline: Timeline, number: u64) -> bool {
    wanted.is_none_or(|wanted| wanted.get(&timeline).is_some_and(|segments| segments.contains(number)))
}

/// The objects of the archive that nothing needs: what nothing wants, and pieces of segments that are complete.
pub(super) fn expendable_wal<'f>(
    found: &'f Found,
    wanted: Option<&'f BTreeMap<Timeline, Ranges>>,
) -> impl Iterator<Item = &'f WalObject> {
    let complete: BTreeSet<(Timeline, u64)> =
        found.wal.iter().filter(|o| o.is == WalKind::Segment).filter_map(|o| Some((o.timeline, o.segment?))).collect();
    found.wal.iter().filter(move |object| {
        let Some(number) = object.segment else { return false };
        let superseded = object.is == WalKind::Piece && complete.contains(&(object.timeline, number));
        superseded || !is_wanted(wanted, object.timeline, number)
    })
}
