//! Drift in the ledger.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::compare::Drift;
use super::{MaskedExport, Rules, changes, load};
use crate::config::DriftSeverity;
use crate::error::Result;
use crate::evidence::drift_record::{DriftChange, DriftRecord, NAMED};
use crate::evidence::entry::ConfigurationExport;
use crate::evidence::{Body, Ledger, LedgerEntry};
use crate::repository::Repository;
use crate::runtime::Runtime;

/// What the newest drift entry says.
pub fn latest(entries: &[LedgerEntry]) -> Option<&DriftRecord> {
    entries.iter().rev().find_map(|entry| match &entry.statement.predicate.body {
        Body::Drift(drift) => Some(drift),
        _ => None,
    })
}

/// Drift that a rule calls critical, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CriticalDrift {
    /// The export that shows it.
    pub export: String,
    /// When that was taken.
    pub taken_at: DateTime<Utc>,
    /// What changed, and why that matters.
    pub said: String,
}

/// The critical drift of exports that were taken after `since`, oldest first.
pub fn critical_since(entries: &[LedgerEntry], since: DateTime<Utc>) -> Vec<CriticalDrift> {
    let drifts = entries.iter().filter_map(|entry| match &entry.statement.predicate.body {
        Body::Drift(drift) if drift.taken_at > since => Some(drift),
        _ => None,
    });
    let critical = drifts.filter_map(|drift| {
        let (export, taken_at) = (drift.export.clone(), drift.taken_at);
        drift.alert().map(|said| CriticalDrift { export, taken_at, said })
    });
    critical.collect()
}

/// An export, and its masked form where that is at hand.
type Known<'a> = (&'a ConfigurationExport, Option<MaskedExport>);

/// Compares two exports that follow each other, and appends what changed; nothing where nothing did, or where one of them
/// is of a Lifeboat that kept no masked form.
pub(in crate::configuration) async fn append(
    repository: &Repository,
    ledger: &Ledger,
    before: Known<'_>,
    now: Known<'_>,
    rules: Rules<'_>,
    runtime: &Runtime,
) -> Result<Option<Drift>> {
    if before.0.masked.is_none() || now.0.masked.is_none() {
        return Ok(None);
    }
    let masked = async |(entry, masked): Known<'_>| match masked {
        Some(masked) => Ok(masked),
        None => load(repository, rules.environment, entry).await,
    };
    let drift = changes(&masked(before).await?, &masked(now).await?, rules);
    if !drift.is_empty() || drift.ignored > 0 {
        let body = Body::Drift(record(&drift));
        ledger.append(runtime, repository.signer()?, Vec::new(), body).await?;
    }
    Ok(Some(drift))
}

/// What is recorded of it: names, no values.
pub(super) fn record(drift: &Drift) -> DriftRecord {
    let change = |(file, difference): (&str, &super::Difference)| DriftChange {
        file: file.to_owned(),
        setting: difference.setting.clone(),
        change: difference.change,
        severity: difference.severity,
        why: difference.why.clone(),
    };
    let all = drift.differences().count();
    DriftRecord {
        export: drift.to.export.clone(),
        taken_at: drift.to.taken_at,
        compared_with: drift.from.export.clone(),
        compared_at: drift.from.taken_at,
        changes: drift.differences().take(NAMED).map(change).collect(),
        left_out: all.saturating_sub(NAMED) as u64,
        critical: drift.count(DriftSeverity::Critical),
        notices: drift.count(DriftSeverity::Notice),
        expected: drift.count(DriftSeverity::Expected),
        ignored: drift.ignored,
    }
}
