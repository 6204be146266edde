//! `[[drift]]`: what a change of the configuration means, file by file and setting by setting.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::glob::matches_any;
use super::raw::Located;
use super::source::Source;
use crate::error::Result;

/// What a change means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftSeverity {
    /// Not told, only counted.
    Ignored,
    /// Told, and nothing to look at: it changes by itself, or is each environment's own.
    Expected,
    /// Somebody may want to know.
    Notice,
    /// Somebody must look: alerted, and exit code 8.
    Critical,
}

/// Between what the difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftBetween {
    /// Two exports of one environment: a change in time.
    #[default]
    Exports,
    /// Two environments: a lack of parity.
    Environments,
}

/// What a difference means; the first rule that fits decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriftRule {
    /// Pattern (`*`, `?`, over slashes too) of logical file names.
    pub file: String,
    /// Pattern of settings; `None`: all, and files without settings.
    pub setting: Option<String>,
    /// The environments that it is for; `None`: all.
    pub environments: Option<Vec<String>>,
    /// Between what.
    pub between: DriftBetween,
    /// What the difference means.
    pub severity: DriftSeverity,
    /// Why, for people.
    pub why: Option<String>,
}

impl DriftRule {
    /// Whether the rule speaks about this difference.
    pub fn fits(&self, environment: &str, between: DriftBetween, file: &str, setting: Option<&str>) -> bool {
        self.between == between
            && self.environments.as_ref().is_none_or(|names| names.iter().any(|n| n == environment))
            && matches_any(&self.file, file)
            && self.setting.as_ref().is_none_or(|pattern| setting.is_some_and(|s| matches_any(pattern, s)))
    }
}

/// A rule as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DriftRule")]
pub(super) struct RawDriftRule {
    /// Pattern (`*` and `?`, over slashes too) of the export's file names, such as `odoo/*/parameters.json`.
    pub(super) file: Located<String>,
    /// Pattern of settings in the file; absent: all of it. `permissions` stands for the file's mode, `comments` for a
    /// change that touches no setting, `secret` (between environments) for a secret that both use.
    pub(super) setting: Option<Located<String>>,
    /// The environments that the rule is for; absent: all.
    pub(super) environments: Option<Located<Vec<Located<String>>>>,
    /// Between `exports` of one environment (default), or between `environments`.
    #[serde(default)]
    pub(super) between: DriftBetween,
    /// `ignored` (only counted), `expected` (told), `notice` (the default where no rule fits), `critical` (alerted, exit code 8).
    pub(super) severity: DriftSeverity,
    /// Why, for those who read it.
    pub(super) why: Option<Located<String>>,
}

/// Judges one rule.
pub(super) fn drift_rule(source: &Source, raw: RawDriftRule) -> Result<DriftRule> {
    let text = |key, raw: &Located<String>| super::read::text(source, key, raw);
    Ok(DriftRule {
        file: text("file", &raw.file)?,
        setting: raw.setting.as_ref().map(|s| text("setting", s)).transpose()?,
        environments: raw.environments.map(|list| list.value.into_iter().map(|name| name.value).collect()),
        between: raw.between,
        severity: raw.severity,
        why: raw.why.as_ref().map(|why| text("why", why)).transpose()?,
    })
}

/// The rules that come with Lifeboat, which follow those of the estate.
pub fn builtin_drift_rules() -> &'static [DriftRule] {
    static RULES: std::sync::LazyLock<Vec<DriftRule>> = std::sync::LazyLock::new(|| {
        let source = Source::builtin("drift.toml", include_str!("drift.toml"));
        let raw = source.parse().expect("the rules of this program parse");
        let judged = raw.drift.into_iter().map(|rule| drift_rule(&source, rule));
        judged.collect::<Result<_>>().expect("the rules of this program are sound")
    });
    &RULES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides_and_patterns_reach_over_slashes_and_dots() {
        let severity = |between, file, setting| {
            let fits = |rule: &&DriftRule| rule.fits("production", between, file, setting);
            builtin_drift_rules().iter().find(fits).map(|rule| rule.severity)
        };
        use DriftBetween::{Environments, Exports};
        let (critical, expected) = (Some(DriftSeverity::Critical), Some(DriftSeverity::Expected));
        assert_eq!(severity(Exports, "postgresql/settings.json", Some("fsync")), critical);
        assert_eq!(severity(Exports, "postgresql/settings.json", Some("work_mem")), None);
        assert_eq!(severity(Exports, "postgresql/pg_hba.conf", None), critical);
        assert_eq!(severity(Exports, "odoo/instance-2/odoo.conf", Some("data_dir")), critical);
        assert_eq!(severity(Exports, "odoo/shop/parameters.json", Some("web.base.url")), expected);
        assert_eq!(severity(Environments, "odoo/shop/modules.json", Some("sale.latest_version")), critical);
        assert_eq!(severity(Environments, "postgresql/databases.json", Some("shop.collate")), critical);
        assert_eq!(severity(Environments, "postgresql/databases.json", Some("shop.owner")), expected);
        assert_eq!(severity(Environments, "postgresql/conf.d/x.conf", Some("port")), expected);
        for rule in builtin_drift_rules() {
            assert!(rule.why.is_some(), "{rule:?} does not say why");
        }
    }
}
