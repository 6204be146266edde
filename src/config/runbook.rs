//! `[runbook]`: what generated runbooks say that no program can know: whom to call, where the recovery key lies.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::raw::Located;
use super::read::text;
use super::source::Source;
use crate::error::Result;

/// Where runbooks restore to when nothing is said.
const RESTORED: &str = "/srv/restored";

/// What runbooks say beyond configuration and repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunbookConfig {
    /// How each owner is reached, by the name that environments give.
    pub contacts: BTreeMap<String, String>,
    /// Where the recovery keys lie, and who can open that.
    pub recovery_key: Option<String>,
    /// Where a second copy of the repository is.
    pub second_copy: Option<String>,
    /// Directory that the commands restore into.
    pub restored: PathBuf,
}

impl Default for RunbookConfig {
    fn default() -> Self {
        Self { contacts: BTreeMap::new(), recovery_key: None, second_copy: None, restored: PathBuf::from(RESTORED) }
    }
}

/// The section as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Runbook")]
pub(super) struct RawRunbook {
    /// How each owner is reached, day and night: `"erp-platform" = "+49 30 1234567, on call"`.
    #[serde(default)]
    pub(super) contacts: BTreeMap<String, Located<String>>,
    /// Where the recovery keys lie, and who can open that place. Never a key itself.
    pub(super) recovery_key: Option<Located<String>>,
    /// Where a second copy of the repository is, for the loss of a region.
    pub(super) second_copy: Option<Located<String>>,
    /// Directory that the commands restore into; default `/srv/restored`.
    pub(super) restored: Option<Located<String>>,
}

/// Judges the section.
pub(super) fn runbook(source: &Source, raw: Option<RawRunbook>) -> Result<RunbookConfig> {
    let Some(raw) = raw else { return Ok(RunbookConfig::default()) };
    for said in raw.contacts.values().chain(&raw.recovery_key).chain(&raw.second_copy) {
        if said.value.to_ascii_uppercase().contains("AGE-SECRET-KEY-") {
            return Err(source
                .error(&said.span, "a recovery key stands here")
                .meaning("runbooks are printed and passed on; whoever has this file can open every backup")
                .hint("write where the key lies, and replace this key: it counts as lost"));
        }
    }
    let contact = |(owner, said): (String, Located<String>)| Ok((owner, text(source, "contacts", &said)?));
    Ok(RunbookConfig {
        contacts: raw.contacts.into_iter().map(contact).collect::<Result<_>>()?,
        recovery_key: raw.recovery_key.map(|said| text(source, "recovery_key", &said)).transpose()?,
        second_copy: raw.second_copy.map(|said| text(source, "second_copy", &said)).transpose()?,
        restored: raw.restored.map_or_else(|| PathBuf::from(RESTORED), |said| source.resolve(&said.value)),
    })
}
