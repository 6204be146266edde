//! What the repository tells about an environment, as far as policies ask.

use chrono::{DateTime, Utc};

use crate::config::Environment;
use crate::configuration::drift;
use crate::evidence::drift_record::DriftRecord;
use crate::evidence::drill_record::{DrillRecord, Verdict};
use crate::evidence::sampled::SamplingMethod;
use crate::evidence::wording::verdict_word;
use crate::evidence::{Body, LedgerEntry};
use crate::repository::catalogue::Catalogue;
use crate::repository::frontier::Recovery;
use crate::repository::window::{self, Part};

/// What was read of an environment.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The newest moment that can be restored.
    pub newest: Option<DateTime<Utc>>,
    /// When the newest base backup ended.
    pub base_at: Option<DateTime<Utc>>,
    /// When the newest configuration export was taken.
    pub export_at: Option<DateTime<Utc>>,
    /// Up to when each filestore is captured.
    pub filestores: Vec<(String, Option<DateTime<Utc>>)>,
    /// Drills, newest first.
    pub drills: Vec<DrillFact>,
    /// When the newest complete self-test ended.
    pub selftest_at: Option<DateTime<Utc>>,
    /// The newest drift, where it holds something critical that nobody has decided about: when, and what.
    pub critical_drift: Option<(DateTime<Utc>, String)>,
    /// Databases of other environments that were loaded into this one.
    pub refreshes: Vec<Refresh>,
}

/// A drill.
#[derive(Debug, Clone)]
pub struct DrillFact {
    /// Its id.
    pub id: String,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// Its verdict in words.
    pub verdict: String,
    /// Whether it brought back sound data, whatever the objectives.
    pub sound: bool,
    /// Whether it was sealed.
    pub sealed: bool,
    /// Whether an Odoo was started.
    pub odoo: bool,
    /// Whether its moment was drawn at random.
    pub random: bool,
    /// How long recovery took, with what is assumed.
    pub rto_seconds: Option<f64>,
}

/// A database of another environment that was loaded into this one.
#[derive(Debug, Clone)]
pub struct Refresh {
    /// Which, when.
    pub what: String,
    /// Whether it was masked and neutralised.
    pub masked: bool,
}

impl Evidence {
    /// From the catalogues of all environments: what was loaded into this one stands in the ledgers of the others.
    pub fn of(environment: &Environment, catalogue: &Catalogue, recovery: &Recovery, others: &[&Catalogue]) -> Self {
        let mark = window::watermark(
            &recovery.windows,
            catalogue.captures(),
            &catalogue.live,
            catalogue.bases().next_back(),
            catalogue.exports().next_back(),
            !environment.odoo.is_empty(),
        );
        let filestores = mark.components.iter().filter(|c| c.part == Part::Filestore && c.database.is_some());
        let records: Vec<&DrillRecord> = catalogue
            .entries
            .iter()
            .rev()
            .filter_map(|entry| match &entry.statement.predicate.body {
                Body::Drill(record) => Some(record.as_ref()),
                _ => None,
            })
            .collect();
        let selftest = records.iter().filter_map(|r| r.selftest.as_ref()).filter(|t| t.is_complete());
        let system = catalogue.bases().next_back().map(|base| base.system_id.as_str());
        Self {
            newest: recovery.windows.iter().map(|w| w.to.time).max(),
            base_at: catalogue.bases().next_back().map(|base| base.stop_time),
            export_at: catalogue.exports().next_back().map(|export| export.taken_at),
            filestores: filestores.map(|c| (c.database.clone().unwrap_or_default(), c.time)).collect(),
            selftest_at: selftest.map(|test| test.finished_at).max(),
            drills: records.into_iter().map(fact).collect(),
            critical_drift: drift::latest(&catalogue.entries)
                .filter(|drift| !is_decided(&catalogue.entries, drift))
                .and_then(|drift| drift.alert().map(|alert| (drift.taken_at, alert))),
            refreshes: others.iter().flat_map(|other| refreshes(other, system)).collect(),
        }
    }

    /// Drills that brought back sound data, newest first.
    pub(super) fn passed(&self) -> impl Iterator<Item = &DrillFact> {
        self.drills.iter().filter(|drill| drill.sound)
    }
}

fn fact(record: &DrillRecord) -> DrillFact {
    DrillFact {
        id: record.id.clone(),
        at: record.finished_at,
        verdict: verdict_word(record.verdict).to_lowercase(),
        sound: matches!(record.verdict, Verdict::Passed | Verdict::ObjectiveMissed),
        sealed: record.sandbox.as_ref().is_some_and(|s| s.sealed == Some(true)),
        odoo: record.boots.iter().any(|boot| boot.seconds.is_some()),
        random: record.sampling.as_ref().is_some_and(|s| s.method == SamplingMethod::Random),
        rto_seconds: record.rto.total_seconds(),
    }
}

/// Databases that were taken from `other` and loaded into the cluster with this system identifier.
fn refreshes(other: &Catalogue, system: Option<&str>) -> Vec<Refresh> {
    let into = |entry: &crate::evidence::LedgerEntry| {
        let said = &entry.statement.predicate;
        let Body::Restore(restore) = &said.body else { return None };
        let tenant = restore.tenant.as_ref()?;
        let here = system.is_some() && tenant.system_id.as_deref() == system;
        let name = tenant.name.as_deref().unwrap_or(&tenant.database);
        here.then(|| Refresh {
            what: format!("{name} of {}, {}", other.environment, said.recorded_at.format("%Y-%m-%d")),
            masked: tenant.masked_columns > 0 && tenant.neutralised,
        })
    };
    other.entries.iter().filter_map(into).collect()
}

/// Whether somebody has decided about a drift: has silenced it since, with a reason that the ledger keeps. A silence of
/// everything says nothing about it.
pub(super) fn is_decided(entries: &[LedgerEntry], drift: &DriftRecord) -> bool {
    entries.iter().map(|entry| &entry.statement.predicate).any(|said| match &said.body {
        Body::Silence(silence) => {
            said.recorded_at > drift.taken_at
                && silence.until.is_some()
                && silence.condition.as_deref() == Some("configuration_drift")
                && silence.subject.as_ref().is_none_or(|subject| *subject == drift.export)
        }
        _ => false,
    })
}
