//! RPO and RTO as measured by a drill (`drills-and-evidence`, section 3).
//!
//! *Exposure* is the time from the last recovered commit to the disaster: the upper bound of what can
//! be lost. Where [`super::loss`] can see what was lost, the *loss window* is the exact figure, and
//! counts instead. The filestore counts as recovered up to the same moment when every file that the
//! restored database refers to was restored: that is measured, not inferred from a schedule.
//!
//! What people need in a disaster no drill can measure: those phases are taken from the configuration,
//! marked as assumed, and count.

use chrono::{DateTime, TimeDelta, Utc};

use super::loss::Loss;
use crate::config::{Assumed, Environment};
use crate::evidence::drill_record::{AttachmentReconciliation, Basis, MissingCause, Phase, Rpo, RpoComponents};
use crate::repository::catalogue::Catalogue;
use crate::restore::Resolved;

/// When the disaster struck, and what is known about it.
#[derive(Debug, Clone, Copy)]
pub struct Disaster<'a> {
    /// When it happened, or is supposed to have happened.
    pub incident_time: DateTime<Utc>,
    /// Whether a moment of the past was restored without one: what came after it was left out on purpose.
    pub left_out_on_purpose: bool,
    /// What can be seen of the loss.
    pub loss: &'a Loss,
}

/// Measures the loss of a drill that restored to `target`.
pub fn rpo(
    catalogue: &Catalogue,
    environment: &Environment,
    target: &Resolved,
    attachments: &[AttachmentReconciliation],
    disaster: Disaster<'_>,
) -> Rpo {
    let Disaster { incident_time, left_out_on_purpose, loss } = disaster;
    let objective_seconds = environment.objectives.rpo.as_secs_f64();
    let recovered = target.last_kept.map(|t| t.time);
    let since = |time: DateTime<Utc>| seconds((incident_time - time).max(TimeDelta::zero()));
    // Without any commit since the base backup, the backup itself is the last thing known.
    let base_time = catalogue.bases().find(|b| b.id == target.base).map(|b| b.stop_time);
    let exposure_seconds = recovered.or(base_time).map_or(f64::INFINITY, since);
    let database = loss.window_seconds.unwrap_or(exposure_seconds);
    let not_captured = attachments.iter().flat_map(|a| &a.missing).any(|m| m.cause != MissingCause::DamagedAtSource);
    let filestore = match (attachments.is_empty(), not_captured) {
        (true, _) => None,
        (false, false) => Some(database),
        (false, true) => catalogue.captures().next_back().map(|c| since(c.restore_point.time).max(database)),
    };
    let composite = filestore.map_or(database, |f| f.max(database));
    let asked_for_latest = target.requested == "latest";
    Rpo {
        objective_seconds,
        exposure_seconds,
        loss_window_seconds: loss.window_seconds,
        lost_transactions: loss.transactions,
        lost_bytes: loss.bytes,
        left_out_on_purpose,
        incident_time,
        last_recovered_commit_time: recovered,
        last_durable_commit_time: if asked_for_latest {
            recovered
        } else {
            target.first_lost.map(|t| t.time).or(recovered)
        },
        components: RpoComponents {
            database: Some(database),
            filestore,
            configuration: catalogue.exports().next_back().map(|e| since(e.taken_at)),
            composite: Some(composite),
        },
        // A drill to a chosen past moment loses the rest on purpose: that says nothing about the RPO.
        met: left_out_on_purpose || composite <= objective_seconds,
    }
}

/// What people need, before and after what a drill measures.
pub fn assumed(assumed: &Assumed) -> (Vec<Phase>, Vec<Phase>) {
    let basis = assumed.basis.as_deref().unwrap_or("configured without saying where the figure comes from");
    let phase = |name: &str, took: Option<std::time::Duration>| {
        took.map(|took| Phase {
            name: name.to_owned(),
            started_at: None,
            seconds: took.as_secs_f64(),
            basis: Basis::Assumed,
            note: Some(basis.to_owned()),
        })
    };
    let before = [phase("noticing the disaster", assumed.detect), phase("deciding to restore", assumed.decide)];
    let after = [phase("switching users over", assumed.cut_over), phase("acceptance by the business", assumed.accept)];
    (before.into_iter().flatten().collect(), after.into_iter().flatten().collect())
}

fn seconds(delta: TimeDelta) -> f64 {
    delta.as_seconds_f64()
}
