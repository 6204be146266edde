//! Two sets of masked files, and how they differ: setting by setting where a file has settings, and as a unified diff.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use similar::TextDiff;

use super::{MaskedExport, Rules};
use crate::config::{DriftBetween, DriftSeverity};
use crate::configuration::mask::MaskedFile;
use crate::configuration::settings::settings;
use crate::evidence::drift_record::Changed;

/// Lines of context around a change.
const CONTEXT: usize = 2;

/// Lines of a file's diff; what is more is counted.
const LINES: usize = 400;

/// How two exports differ.
#[derive(Debug, Clone, Serialize)]
pub struct Drift {
    /// The earlier export, or the one that is compared.
    pub from: Side,
    /// The later export, or that of the other environment.
    pub to: Side,
    /// Files that differ, the most severe first.
    pub files: Vec<FileDrift>,
    /// Differences that a rule ignores; they are not in `files`.
    pub ignored: u64,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The environment.
    pub environment: String,
    /// The export.
    pub export: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDrift {
    /// Logical name.
    pub file: String,
    /// The most severe of its differences.
    pub severity: DriftSeverity,
    /// What differs, the most severe first.
    pub differences: Vec<Difference>,
    /// Unified diff of the masked texts; `None` where there is none to show.
    pub diff: Option<String>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The setting; `None`: the file itself.
    pub setting: Option<String>,
    /// What happened.
    pub change: Changed,
    /// What it was, masked.
    pub before: Option<String>,
    /// What it is, masked.
    pub after: Option<String>,
    /// What that means.
    pub severity: DriftSeverity,
    /// Why, as the rule says.
    pub why: Option<String>,
}

impl Drift {
    /// Every difference with its file, the most severe first.
    pub fn differences(&self) -> impl Iterator<Item = (&str, &Difference)> {
        let all = self.files.iter().flat_map(|file| file.differences.iter().map(|d| (file.file.as_str(), d)));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(_, difference)| std::cmp::Reverse(difference.severity));
        all.into_iter()
    }

    /// How many differences have this severity.
    pub fn count(&self, severity: DriftSeverity) -> u64 {
        self.differences().filter(|(_, d)| d.severity == severity).count() as u64
    }

    /// Whether nothing differs that a rule does not ignore.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// Compares two exports as they are named.
pub(super) fn compare(from: &MaskedExport, to: &MaskedExport, rules: Rules<'_>, between: DriftBetween) -> Drift {
    let before: BTreeMap<&str, &MaskedFile> = from.files.iter().map(|f| (f.name.as_str(), f)).collect();
    let after: BTreeMap<&str, &MaskedFile> = to.files.iter().map(|f| (f.name.as_str(), f)).collect();
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let mut drift = Drift { from: from.side(), to: to.side(), files: Vec::new(), ignored: 0 };
    for name in names {
        let pair = (before.get(name).copied(), after.get(name).copied());
        let found = match pair {
            (Some(a), Some(b)) => differences(a, b),
            (None, _) => vec![plain(Changed::Added)],
            (Some(_), None) if to.lacks(name) => vec![plain(Changed::Unreadable)],
            (Some(_), None) => vec![plain(Changed::Removed)],
        };
        drift.add(name, found, pair, rules, between);
    }
    drift.files.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.file.cmp(&b.file)));
    drift
}

impl Drift {
    /// Judges the differences of one file and keeps those that are to be told.
    pub(super) fn add(
        &mut self,
        name: &str,
        found: Vec<Difference>,
        (before, after): (Option<&MaskedFile>, Option<&MaskedFile>),
        rules: Rules<'_>,
        between: DriftBetween,
    ) {
        let mut told = Vec::new();
        for mut difference in found {
            if let Some(rule) = rules.deciding(between, name, difference.setting.as_deref()) {
                difference.severity = rule.severity;
                difference.why.clone_from(&rule.why);
            }
            match difference.severity {
                DriftSeverity::Ignored => self.ignored += 1,
                _ => told.push(difference),
            }
        }
        told.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.setting.cmp(&b.setting)));
        let Some(severity) = told.first().map(|d| d.severity) else { return };
        let texts = (before.and_then(|f| f.text.as_deref()), after.and_then(|f| f.text.as_deref()));
        let diff = match texts {
            (Some(a), Some(b)) if a != b => Some(unified(a, b)),
            _ => None,
        };
        self.files.push(FileDrift { file: name.to_owned(), severity, differences: told, diff });
    }
}

/// A difference that no rule has judged yet.
pub(super) fn plain(change: Changed) -> Difference {
    Difference { setting: None, change, before: None, after: None, severity: DriftSeverity::Notice, why: None }
}

/// How one file differs from itself.
fn differences(before: &MaskedFile, after: &MaskedFile) -> Vec<Difference> {
    let mut found = Vec::new();
    if let (Some(a), Some(b)) = (before.mode, after.mode)
        && a != b
    {
        let mode = |mode: u32| Some(format!("{mode:04o}"));
        let setting = Some("permissions".to_owned());
        found.push(Difference { setting, before: mode(a), after: mode(b), ..plain(Changed::Changed) });
    }
    let same = match (&before.text, &after.text) {
        (Some(a), Some(b)) => a == b,
        // The digest is of the content as it is; only where there is no text it counts.
        _ => before.digest == after.digest,
    };
    if same {
        return found;
    }
    match (settings(before), settings(after)) {
        (Some(a), Some(b)) => {
            let mut names: BTreeSet<&String> = a.keys().collect();
            names.extend(b.keys());
            for name in names {
                let (before, after) = (a.get(name).cloned(), b.get(name).cloned());
                let change = match (&before, &after) {
                    (None, _) => Changed::Added,
                    (_, None) => Changed::Removed,
                    (Some(a), Some(b)) if a == b => continue,
                    _ => Changed::Changed,
                };
                found.push(Difference { setting: Some(name.clone()), before, after, ..plain(change) });
            }
            if found.iter().all(|d| d.setting.as_deref() == Some("permissions")) {
                found.push(Difference { setting: Some("comments".to_owned()), ..plain(Changed::Changed) });
            }
        }
        _ => found.push(plain(Changed::Changed)),
    }
    found
}

/// The unified diff, cut where it is too long to read.
fn unified(before: &str, after: &str) -> String {
    let diff = TextDiff::configure().timeout(std::time::Duration::from_secs(2)).diff_lines(before, after);
    let text = diff.unified_diff().context_radius(CONTEXT).to_string();
    let lines = text.lines().count();
    if lines <= LINES {
        return text;
    }
    let kept: String = text.split_inclusive('\n').take(LINES).collect();
    format!("{kept}… and {} more lines\n", lines - LINES)
}
