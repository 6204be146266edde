//! What an environment has in the repository: its ledger, sorted by kind, and its WAL.
//!
//! Rebuilt from the store at every call: there is no catalogue that could be lost or stale.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::coverage::{Coverage, TimelineWal};
use super::retention::State;
use super::wal_archive::{WalArchive, chain};
use super::{Repository, wal_listing};
use crate::error::{self, ErrorKind, Result};
use crate::evidence::entry::{BaseBackup, ConfigurationExport, FilestoreCapture};
use crate::evidence::{Body, Ledger, LedgerEntry};
use crate::units::{Lsn, Timeline};
use crate::wal_name::WalFileName;

/// Everything of one environment.
#[derive(Debug)]
pub struct Catalogue {
    /// Name of the environment.
    pub environment: String,
    /// Sound ledger entries, in order.
    pub entries: Vec<LedgerEntry>,
    /// What is wrong with the ledger or the names in the archive. A restore goes on with what is sound,
    /// and says so.
    pub ledger_problems: Vec<String>,
    /// The WAL archive, where anything was archived.
    pub wal: Option<Coverage>,
    /// How far watchers have completed filestores since their last captures; filled in by those who ask
    /// the filestore for it.
    pub live: Vec<LiveMark>,
    /// What retention gave up, and what is held.
    pub retention: State,
}

/// Everything that a database referred to up to here is stored, because a watcher saw it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LiveMark {
    /// The database, under the name that it had then.
    pub database: String,
    /// Odoo's `database.uuid`, where readable.
    pub database_uuid: Option<String>,
    /// Up to here in the WAL.
    pub lsn: Lsn,
    /// The time of that.
    pub time: DateTime<Utc>,
}

impl Catalogue {
    /// Reads the catalogue of `environment`.
    pub async fn load(repository: &Repository, environment: &str) -> Result<Self> {
        let ledger = ledger(repository, environment).await?;
        let reading = ledger.read().await?;
        let ledger_problems = reading.problems.iter().map(|p| p.what.clone()).collect();
        let mut catalogue = Self {
            environment: environment.to_owned(),
            retention: State::of(&reading.entries),
            entries: reading.entries,
            ledger_problems,
            wal: None,
            live: Vec::new(),
        };
        let archive = WalArchive::new(repository, environment);
        let size = segment_size(&catalogue.entries);
        catalogue.wal = look(archive, size, &mut catalogue.ledger_problems).await?;
        if let Some(wal) = &mut catalogue.wal {
            catalogue.retention.hide(wal);
        }
        Ok(catalogue)
    }

    /// The entries whose backups retention has not given up.
    fn living(&self) -> impl DoubleEndedIterator<Item = &LedgerEntry> {
        self.retention.living(&self.entries)
    }

    /// Base backups, oldest first, but for those that were retired or deleted.
    pub fn bases(&self) -> impl DoubleEndedIterator<Item = &BaseBackup> {
        self.living().filter_map(|e| match &e.statement.predicate.body {
            Body::BaseBackup(base) => Some(base),
            _ => None,
        })
    }

    /// Filestore captures, oldest first, but for those that were retired or deleted.
    pub fn captures(&self) -> impl DoubleEndedIterator<Item = &FilestoreCapture> {
        self.living().filter_map(|e| match &e.statement.predicate.body {
            Body::FilestoreCapture(capture) => Some(capture),
            _ => None,
        })
    }

    /// Configuration exports, oldest first, but for those that were retired or deleted.
    pub fn exports(&self) -> impl DoubleEndedIterator<Item = &ConfigurationExport> {
        self.living().filter_map(|e| match &e.statement.predicate.body {
            Body::ConfigurationExport(export) => Some(export),
            _ => None,
        })
    }

    /// The ledger entry of a base backup that retention has given up.
    pub fn retired_base(&self, id: &str) -> Option<&LedgerEntry> {
        let named = |e: &&LedgerEntry| matches!(&e.statement.predicate.body, Body::BaseBackup(base) if base.id == id);
        self.entries.iter().filter(|e| self.retention.is_gone(e.sequence)).find(named)
    }
}

/// Size of a WAL segment, as the newest base backup tells it, gone or not.
pub(super) fn segment_size(entries: &[LedgerEntry]) -> Option<u64> {
    entries.iter().rev().find_map(|e| match &e.statement.predicate.body {
        Body::BaseBackup(base) => Some(base.wal_segment_size),
        _ => None,
    })
}

/// The ledger of an environment, with what this host has seen of it, behind the fence of `repository` where it has one.
pub async fn ledger(repository: &Repository, environment: &str) -> Result<Ledger> {
    let trust = repository.trust().await?;
    let ledger = Ledger::new(repository.store.clone(), environment, &repository.descriptor.repository, trust)
        .with_cache(repository.ledger_cache(environment));
    Ok(ledger.with_fence(repository.fence().cloned()))
}

/// Looks at the names in the WAL archive; anything strange there is an integrity error. The segment size
/// comes from a base backup, or else from the summary of an archived segment.
pub async fn coverage(archive: WalArchive<'_>, known_size: Option<u64>) -> Result<Option<Coverage>> {
    let mut troubles = Vec::new();
    let coverage = look(archive, known_size, &mut troubles).await?;
    match troubles.into_iter().next() {
        None => Ok(coverage),
        Some(trouble) => Err(error::integrity(trouble)),
    }
}

/// The same for those who must go on: what is strange is left out and told.
async fn look(
    archive: WalArchive<'_>,
    known_size: Option<u64>,
    troubles: &mut Vec<String>,
) -> Result<Option<Coverage>> {
    // What is being written comes first: a segment that is completed meanwhile is then seen twice, and not never.
    let mut live = wal_listing::live(archive).await?;
    let (mut complete, strange) = wal_listing::complete(archive).await?;
    troubles.extend(strange.into_iter().map(|key| format!("{key} is not named as a WAL file")));
    let mut segment_size = known_size;
    for names in complete.values() {
        if segment_size.is_none() {
            segment_size = tolerate(size_from(archive, names).await, troubles)?.flatten();
        }
    }
    let Some(segment_size) = segment_size else { return Ok(None) };
    let mut coverage = Coverage { segment_size, timelines: Default::default() };
    let timelines: BTreeSet<Timeline> = complete.keys().chain(live.keys()).copied().collect();
    for timeline in timelines {
        let names = complete.remove(&timeline).unwrap_or_default();
        let mut wal = TimelineWal::default();
        for name in &names {
            if let WalFileName::Segment(segment) = name {
                wal.segments.extend(tolerate(segment.number(segment_size), troubles)?);
            }
        }
        for (segment, pieces) in live.remove(&timeline).unwrap_or_default() {
            let Some(number) = tolerate(segment.number(segment_size), troubles)? else { continue };
            if wal.segments.contains(&number) {
                continue;
            }
            let pieces = tolerate(pieces, troubles)?.unwrap_or_default();
            wal.live.extend(chain(pieces).last().map(|last| (number, last.end)));
        }
        if names.contains(&WalFileName::History { timeline }) {
            let text = tolerate(archive.history(timeline).await, troubles)?.flatten();
            wal.ancestors = text.map_or_else(Vec::new, |text| parse_history(&text));
        }
        coverage.timelines.insert(timeline, wal);
    }
    Ok((!coverage.timelines.is_empty()).then_some(coverage))
}

/// Damage is told and left out; anything else (a store that cannot be reached) stays an error.
fn tolerate<T>(result: Result<T>, troubles: &mut Vec<String>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == ErrorKind::Integrity => {
            troubles.push(e.message());
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

async fn size_from(archive: WalArchive<'_>, names: &[WalFileName]) -> Result<Option<u64>> {
    for name in names {
        if let WalFileName::Segment(segment) = name
            && let Some(summary) = archive.segment_summary(segment).await?
        {
            return Ok(Some(summary.end.0 - summary.start.0));
        }
    }
    Ok(None)
}

/// Timeline and switch position of each line of a history file (`src/backend/access/transam/timeline.c`).
fn parse_history(text: &str) -> Vec<(Timeline, Lsn)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((Timeline(words.next()?.parse().ok()?), words.next()?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::repository::testing;
    use crate::repository::wal_archive::{SegmentSummary, WalSummary};
    use crate::vault::Class;

    #[tokio::test]
    async fn a_stray_object_in_the_archive_is_told_and_hides_nothing() {
        let (repository, _) = testing::repository_and_writer().await;
        let archive = WalArchive::new(&repository, "production");
        let name: WalFileName = "000000010000000000000002".parse().expect("name");
        let mut sealer = archive.sealer(Class::Wal, 1).expect("sealer");
        sealer.write(b"wal");
        let summary = SegmentSummary { start: Lsn(2 << 24), end: Lsn(3 << 24), ..SegmentSummary::default() };
        archive.put(&name, sealer, Some(&WalSummary::Segment(summary))).await.expect("put");
        repository.store.create("production/wal/00000001/notes.txt", Bytes::from_static(b"x")).await.expect("put");
        let catalogue = Catalogue::load(&repository, "production").await.expect("loads all the same");
        assert!(catalogue.ledger_problems.iter().any(|p| p.contains("notes.txt")), "{:?}", catalogue.ledger_problems);
        assert!(catalogue.wal.expect("WAL").timelines[&Timeline(1)].segments.contains(&2));
        assert_eq!(coverage(archive, None).await.expect_err("strict").kind(), ErrorKind::Integrity);
    }
}
