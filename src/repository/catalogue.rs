//! What an environment has in the repository: its ledger, sorted by kind, and its WAL.
//!
//! Rebuilt from the store at every call: there is no catalogue that could be lost or stale.

use serde::Serialize;

use super::Repository;
use super::coverage::{Coverage, TimelineWal};
use super::wal_archive::{WalArchive, chain};
use crate::error::Result;
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
    /// What is wrong with the ledger. A restore goes on with what is sound, and says so.
    pub ledger_problems: Vec<String>,
    /// The WAL archive, where anything was archived.
    pub wal: Option<Coverage>,
}

/// A reason why a part of the catalogue cannot be used, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble(pub String);

impl Catalogue {
    /// Reads the catalogue of `environment`.
    pub async fn load(repository: &Repository, environment: &str) -> Result<Self> {
        let ledger = ledger(repository, environment).await?;
        let reading = ledger.read().await?;
        let ledger_problems = reading.problems.iter().map(|p| p.what.clone()).collect();
        let mut catalogue =
            Self { environment: environment.to_owned(), entries: reading.entries, ledger_problems, wal: None };
        catalogue.wal = coverage(WalArchive::new(repository, environment), catalogue.segment_size()).await?;
        Ok(catalogue)
    }

    /// Base backups, oldest first.
    pub fn bases(&self) -> impl DoubleEndedIterator<Item = &BaseBackup> {
        self.entries.iter().filter_map(|e| match &e.statement.predicate.body {
            Body::BaseBackup(base) => Some(base),
            _ => None,
        })
    }

    /// Filestore captures, oldest first.
    pub fn captures(&self) -> impl DoubleEndedIterator<Item = &FilestoreCapture> {
        self.entries.iter().filter_map(|e| match &e.statement.predicate.body {
            Body::FilestoreCapture(capture) => Some(capture),
            _ => None,
        })
    }

    /// Configuration exports, oldest first.
    pub fn exports(&self) -> impl DoubleEndedIterator<Item = &ConfigurationExport> {
        self.entries.iter().filter_map(|e| match &e.statement.predicate.body {
            Body::ConfigurationExport(export) => Some(export),
            _ => None,
        })
    }

    fn segment_size(&self) -> Option<u64> {
        self.bases().next_back().map(|b| b.wal_segment_size)
    }
}

/// The ledger of an environment.
pub async fn ledger(repository: &Repository, environment: &str) -> Result<Ledger> {
    let trust = repository.trust().await?;
    Ok(Ledger::new(repository.store.clone(), environment, &repository.descriptor.repository, trust))
}

/// Looks at the names in the WAL archive. The segment size comes from a base backup, or else from the
/// summary of an archived segment.
pub async fn coverage(archive: WalArchive<'_>, known_size: Option<u64>) -> Result<Option<Coverage>> {
    let timelines = archive.timelines().await?;
    let mut files = Vec::with_capacity(timelines.len());
    let mut segment_size = known_size;
    for timeline in timelines {
        let names: Vec<WalFileName> = archive.list(timeline).await?.into_iter().map(|(name, _)| name).collect();
        let live = archive.live_segments(timeline).await?;
        if segment_size.is_none() {
            segment_size = size_from(archive, &names).await?;
        }
        files.push((timeline, names, live));
    }
    let Some(segment_size) = segment_size else { return Ok(None) };
    let mut coverage = Coverage { segment_size, timelines: Default::default() };
    for (timeline, names, live_segments) in files {
        let mut wal = TimelineWal::default();
        for name in &names {
            if let WalFileName::Segment(segment) = name {
                wal.segments.insert(segment.number(segment_size)?);
            }
        }
        for segment in live_segments {
            let number = segment.number(segment_size)?;
            if !wal.segments.contains(&number)
                && let Some(last) = chain(archive.pieces(&segment).await?).last()
            {
                wal.live.insert(number, last.end);
            }
        }
        if names.contains(&WalFileName::History { timeline })
            && let Some(text) = archive.history(timeline).await?
        {
            wal.ancestors = parse_history(&text);
        }
        coverage.timelines.insert(timeline, wal);
    }
    Ok((!coverage.timelines.is_empty()).then_some(coverage))
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
