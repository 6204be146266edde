//! Ledger entries about WAL: which ranges are complete, and the digest of what is stored.
//!
//! WAL objects commit themselves, so these entries are no commit: they are what an auditor holds
//! against the store later. One entry covers one unbroken run of complete segments of one timeline that no
//! earlier entry covers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use crate::error::{self, Result};
use crate::evidence::bodies::{WalRange, wal_digest};
use crate::evidence::{Appended, Body, Ledger};
use crate::repository::Repository;
use crate::repository::catalogue::coverage;
use crate::repository::wal_archive::WalArchive;
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};
use crate::wal_name::{SegmentName, WalFileName};

/// Stored size and SHA-256 of segments that this process wrote itself.
pub type StoredSegments = HashMap<SegmentName, (u64, String)>;

/// Objects read back at the same time.
const PARALLEL: usize = 4;

/// Records the complete segments that no entry covers yet; what was stored is read back.
pub async fn record(
    repository: &Repository,
    environment: &str,
    ledger: &Ledger,
    runtime: &Runtime,
) -> Result<Vec<Appended>> {
    record_with(repository, environment, ledger, &StoredSegments::new(), runtime).await
}

/// [`record`] for whoever wrote some of the segments and knows their digests.
pub async fn record_with(
    repository: &Repository,
    environment: &str,
    ledger: &Ledger,
    known: &StoredSegments,
    runtime: &Runtime,
) -> Result<Vec<Appended>> {
    let signer = repository.signer()?;
    let archive = WalArchive::new(repository, environment);
    let entries = ledger.entries().await?;
    let bodies = || entries.iter().map(|e| &e.statement.predicate.body);
    let size = bodies().rev().find_map(|b| match b {
        Body::BaseBackup(base) => Some(base.wal_segment_size),
        _ => None,
    });
    let Some(coverage) = coverage(archive, size).await? else { return Ok(Vec::new()) };
    let size = coverage.segment_size;
    let mut recorded: BTreeMap<Timeline, BTreeSet<u64>> = BTreeMap::new();
    for body in bodies() {
        if let Body::WalRange(range) = body {
            let number = |name: &str| name.parse::<SegmentName>().and_then(|n| n.number(size));
            recorded.entry(range.timeline).or_default().extend(number(&range.first)?..=number(&range.last)?);
        }
    }
    let mut appended = Vec::new();
    for (timeline, wal) in &coverage.timelines {
        let covered = recorded.remove(timeline).unwrap_or_default();
        for run in runs(wal.segments.difference(&covered).copied()) {
            let range = describe(archive, *timeline, run, size, known).await?;
            appended.push(ledger.append(runtime, signer, Vec::new(), Body::WalRange(range)).await?);
        }
    }
    Ok(appended)
}

/// First and last of each unbroken run of ascending numbers.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

async fn describe(
    archive: WalArchive<'_>,
    timeline: Timeline,
    (first, last): (u64, u64),
    segment_size: u64,
    known: &StoredSegments,
) -> Result<WalRange> {
    let name = |number| SegmentName::new(timeline, number, segment_size);
    let objects: Vec<(String, u64, String)> = futures::stream::iter(first..=last)
        .map(|number| async move {
            let name = name(number);
            let (size, sha256) = match known.get(&name) {
                Some((size, sha256)) => (*size, sha256.clone()),
                None => {
                    let stored = archive.stored_bytes(&WalFileName::Segment(name)).await?.ok_or_else(|| {
                        error::integrity(format!("{name} was listed in the archive, but cannot be read there"))
                    })?;
                    (stored.len() as u64, hex::encode(Sha256::digest(&stored)))
                }
            };
            Ok::<_, error::Error>((name.to_string(), size, sha256))
        })
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    let mut last_commit_time = None;
    for number in (first..=last).rev() {
        last_commit_time = archive.segment_summary(&name(number)).await?.and_then(|s| s.last_commit_time);
        if last_commit_time.is_some() {
            break;
        }
    }
    Ok(WalRange {
        timeline,
        first: name(first).to_string(),
        last: name(last).to_string(),
        segments: last - first + 1,
        stored_bytes: objects.iter().map(|o| o.1).sum(),
        digest: wal_digest(objects.iter().map(|(name, size, sha256)| (name.as_str(), *size, sha256.as_str()))),
        end_lsn: Lsn((last + 1) * segment_size),
        last_commit_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::catalogue::ledger;
    use crate::repository::testing;
    use crate::repository::wal_archive::{SegmentSummary, WalSummary};
    use crate::vault::Class;

    const SIZE: u64 = 1 << 20;

    async fn put(archive: WalArchive<'_>, number: u64) -> (SegmentName, (u64, String)) {
        let name = SegmentName::new(Timeline(1), number, SIZE);
        let mut sealer = archive.sealer(Class::Wal, 1).expect("sealer");
        sealer.write(&number.to_le_bytes());
        let summary = SegmentSummary {
            system_id: 1,
            start: Lsn(number * SIZE),
            end: Lsn((number + 1) * SIZE),
            last_record_end: None,
            commits: 0,
            restore_points: Vec::new(),
            first_commit_time: None,
            last_commit_time: None,
        };
        let summary = WalSummary::Segment(summary);
        let stored = archive.put(&WalFileName::Segment(name), sealer, Some(&summary)).await.expect("put");
        (name, (stored.size, stored.sha256.expect("new")))
    }

    #[tokio::test]
    async fn every_segment_is_recorded_once_by_runs() {
        let (repository, _) = testing::repository_and_writer().await;
        let archive = WalArchive::new(&repository, "production");
        let ledger = ledger(&repository, "production").await.expect("ledger");
        let mut known = StoredSegments::new();
        for number in [2, 3, 6] {
            known.extend([put(archive, number).await]);
        }
        let runtime = Runtime::silent();
        let told = |entries: Vec<crate::evidence::LedgerEntry>| -> Vec<WalRange> {
            let bodies = entries.into_iter().map(|e| e.statement.predicate.body);
            bodies.filter_map(|b| if let Body::WalRange(r) = b { Some(r) } else { None }).collect()
        };
        assert_eq!(record(&repository, "production", &ledger, &runtime).await.expect("recorded").len(), 2);
        put(archive, 4).await;
        let again = record_with(&repository, "production", &ledger, &known, &runtime).await.expect("recorded");
        assert_eq!(again.len(), 1);
        assert!(record(&repository, "production", &ledger, &runtime).await.expect("nothing new").is_empty());
        let ranges = told(ledger.entries().await.expect("sound"));
        let names: Vec<_> = ranges.iter().map(|r| (&r.first[16..], &r.last[16..], r.segments)).collect();
        assert_eq!(names, [("00000002", "00000003", 2), ("00000006", "00000006", 1), ("00000004", "00000004", 1)]);
        let from_memory = wal_digest([2, 3].map(|n| {
            let (name, (size, sha256)) = known.get_key_value(&SegmentName::new(Timeline(1), n, SIZE)).expect("known");
            (Box::leak(name.to_string().into_boxed_str()) as &str, *size, sha256.as_str())
        }));
        assert_eq!(ranges[0].digest, from_memory, "what was read back is what was written");
        assert_eq!(ranges[0].end_lsn, Lsn(4 * SIZE));
    }
}
