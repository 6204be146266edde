//! Plans of restores, and their approvals.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::word;
use crate::evidence::approval::{Approvals, Decision, Status};

/// The restore that is planned, or that approval is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// `latest`, a time with zone, `lsn:X/Y`, `name:RESTORE_POINT` or `backup:ID`.
    pub(crate) to: String,
    /// The data directory, an absolute path on the host of the restore.
    pub(crate) pgdata: String,
    /// Where attachments go, absolute.
    #[serde(default)]
    pub(crate) filestore: Option<String>,
    /// Where the configuration goes, absolute.
    #[serde(default)]
    pub(crate) configuration: Option<String>,
    /// The timeline to follow; absent: the newest.
    #[serde(default)]
    pub(crate) timeline: Option<u32>,
    /// Whether what lies in the data directory is made equal to the backup.
    #[serde(default)]
    pub(crate) delta: bool,
    /// With `delta`: whether another cluster, or transactions that the repository lacks, may be given up.
    #[serde(default)]
    pub(crate) force: bool,
    /// The host on which the restore will run; absent: the host of this service.
    #[serde(default)]
    pub(crate) host: Option<String>,
    /// Of a request for approval: why.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// A plan.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Planned {
    /// As `lifeboat --format json restore --plan` has it.
    #[schema(value_type = Object)]
    pub(crate) plan: Value,
    /// What an approval is bound to.
    pub(crate) plan_sha256: String,
    /// Whether the environment wants an approval.
    pub(crate) approval_required: bool,
    /// The command that carries it out.
    pub(crate) command: String,
}

/// A decision about an approval.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decide {
    /// Why.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// Where an approval stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalView {
    /// Its id.
    id: String,
    /// The environment.
    environment: String,
    /// `waiting`, `approved`, `denied`, `used`, `expired` or `broken_glass`.
    #[schema(value_type = String)]
    status: Status,
    /// When that ends.
    until: Option<DateTime<Utc>>,
    /// The restore that it is about.
    #[schema(value_type = Object)]
    plan: Value,
    /// Its digest.
    plan_sha256: String,
    /// Who asked for it.
    requested_by: Said,
    /// Who agreed.
    approved_by: Option<Said>,
    /// Who refused.
    denied_by: Option<Said>,
    /// Who used it.
    used_by: Option<Said>,
    /// The command that uses it.
    command: String,
}

/// Who said something, and when.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Said {
    /// The name.
    name: String,
    /// How it is known: `account`, `token` or `oidc`.
    known_by: String,
    /// The host that recorded it.
    host: String,
    /// When.
    at: DateTime<Utc>,
    /// Number of the ledger entry.
    sequence: u64,
    /// Why.
    reason: Option<String>,
}

impl Said {
    fn of(decision: &Decision) -> Self {
        Self {
            name: decision.person.name.clone(),
            known_by: word(&decision.person.known_by),
            host: decision.person.host.clone(),
            at: decision.at,
            sequence: decision.sequence,
            reason: decision.reason.clone(),
        }
    }
}

impl ApprovalView {
    pub(crate) fn of(approval: &Approvals, now: DateTime<Utc>) -> Self {
        Self {
            id: approval.id.clone(),
            environment: approval.plan.environment.clone(),
            status: approval.status(now),
            until: approval.until(now),
            plan: serde_json::to_value(&approval.plan).unwrap_or_default(),
            plan_sha256: approval.plan_sha256.clone(),
            requested_by: Said::of(&approval.requested),
            approved_by: approval.approved.as_ref().map(Said::of),
            denied_by: approval.denied.as_ref().map(Said::of),
            used_by: approval.used.as_ref().map(Said::of),
            command: approval.plan.command(&approval.id),
        }
    }
}

/// Approvals of an environment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalList {
    /// Newest first.
    pub(crate) approvals: Vec<ApprovalView>,
}
