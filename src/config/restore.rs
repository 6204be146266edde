//! `[environment.restore]`: whether a restore of an environment needs a second person.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::raw::Located;
use super::read::text;
use super::repository::positive;
use super::source::Source;
use crate::error::Result;
use crate::units::Span;

/// What a restore of an environment needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreConfig {
    /// Whether it needs the approval of a second person.
    pub approval: bool,
    /// Who may approve; `None`: everybody but the requester.
    pub approvers: Option<Vec<String>>,
    /// How long a request waits, and how long an approval can be used.
    pub approval_lasts: Duration,
}

const DEFAULT_LASTS: Duration = Duration::from_secs(4 * 3600);

impl Default for RestoreConfig {
    fn default() -> Self {
        Self { approval: false, approvers: None, approval_lasts: DEFAULT_LASTS }
    }
}

/// What a restore of an environment needs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Restore")]
pub(super) struct RawRestore {
    /// Whether `lifeboat restore` needs the approval of a second person; default false.
    approval: Option<bool>,
    /// Names of those who may approve; absent: everybody but whoever asked.
    approvers: Option<Located<Vec<Located<String>>>>,
    /// How long a request waits, and how long an approval can be used; default `4h`.
    approval_lasts: Option<Located<Span>>,
}

/// Judges `[environment.restore]`.
pub(super) fn restore(source: &Source, raw: RawRestore) -> Result<RestoreConfig> {
    let approvers = match raw.approvers {
        None => None,
        Some(list) if list.value.is_empty() => {
            return Err(source
                .error(&list.span, "no approver is listed, so nobody could approve a restore")
                .hint("remove `approvers` to let everybody but the requester approve"));
        }
        Some(list) => {
            let names: Vec<String> =
                list.value.iter().map(|name| text(source, "approvers", name)).collect::<Result<_>>()?;
            if let ([_], Some(true)) = (names.as_slice(), raw.approval) {
                return Err(source
                    .error(&list.span, "only one approver is listed")
                    .meaning("that person could never restore, and nobody could while he is away")
                    .hint("list at least two"));
            }
            Some(names)
        }
    };
    let lasts = raw.approval_lasts.map(|l| positive(source, "approval_lasts", &l)).transpose()?;
    Ok(RestoreConfig {
        approval: raw.approval.unwrap_or_default(),
        approvers,
        approval_lasts: lasts.unwrap_or(DEFAULT_LASTS),
    })
}
