//! RPO as measured by a drill (`drills-and-evidence`, section 3.1).
//!
//! The incident is supposed to happen when the drill begins. *Exposure* is the time from the last
//! recovered commit to the incident: the upper bound of what can be lost, and all that a drill can
//! know, because it never asks production. The filestore counts as recovered up to the same moment
//! when every file that the restored database refers to was restored: that is measured, not inferred
//! from a schedule.

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::Environment;
use crate::evidence::drill_record::{AttachmentReconciliation, MissingCause, Rpo, RpoComponents};
use crate::repository::catalogue::Catalogue;
use crate::restore::Resolved;

/// Measures the loss of a drill that restored to `target`.
pub fn rpo(
    catalogue: &Catalogue,
    environment: &Environment,
    target: &Resolved,
    attachments: &[AttachmentReconciliation],
    incident_time: DateTime<Utc>,
) -> Rpo {
    let objective_seconds = environment.objectives.rpo.as_secs_f64();
    let recovered = target.last_kept.map(|t| t.time);
    let since = |time: DateTime<Utc>| seconds((incident_time - time).max(TimeDelta::zero()));
    // Without any commit since the base backup, the backup itself is the last thing known.
    let base_time = catalogue.bases().find(|b| b.id == target.base).map(|b| b.stop_time);
    let exposure_seconds = recovered.or(base_time).map_or(f64::INFINITY, since);
    let not_captured = attachments.iter().flat_map(|a| &a.missing).any(|m| m.cause != MissingCause::DamagedAtSource);
    let filestore = match (attachments.is_empty(), not_captured) {
        (true, _) => None,
        (false, false) => Some(exposure_seconds),
        (false, true) => catalogue.captures().next_back().map(|c| since(c.restore_point.time).max(exposure_seconds)),
    };
    let composite = filestore.map_or(exposure_seconds, |f| f.max(exposure_seconds));
    let asked_for_latest = target.requested == "latest";
    let measured = if asked_for_latest { composite } else { 0.0 };
    Rpo {
        objective_seconds,
        exposure_seconds,
        loss_window_seconds: None,
        lost_transactions: None,
        lost_bytes: None,
        left_out_on_purpose: false,
        incident_time,
        last_recovered_commit_time: recovered,
        last_durable_commit_time: if asked_for_latest {
            recovered
        } else {
            target.first_lost.map(|t| t.time).or(recovered)
        },
        components: RpoComponents {
            database: Some(exposure_seconds),
            filestore,
            configuration: catalogue.exports().next_back().map(|e| since(e.taken_at)),
            composite: Some(composite),
        },
        // A drill to a chosen past moment loses the rest on purpose: that says nothing about the RPO.
        met: measured <= objective_seconds,
    }
}

fn seconds(delta: TimeDelta) -> f64 {
    delta.as_seconds_f64()
}
