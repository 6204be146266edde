//! Two environments side by side. What is called differently by nature is brought together first: a database of one
//! is compared with the database of the other that has its name, or with the only one that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;

use super::compare::{self, Difference, Drift};
use super::{MaskedExport, Rules};
use crate::config::DriftBetween;
use crate::configuration::settings::settings;
use crate::evidence::drift_record::Changed;

/// What masking puts in the place of a secret.
static SECRET: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("<(?:secret|private key) [0-9a-f]{12}>").expect("a pattern"));

/// Compares `other` with `this`.
pub(super) fn compare(this: &MaskedExport, other: &MaskedExport, rules: Rules<'_>) -> Drift {
    let renamed = renamed(other, &pairs(this, other));
    let mut drift = compare::compare(this, &renamed, rules, DriftBetween::Environments);
    for (file, settings) in shared(this, other) {
        let found: Vec<Difference> = settings
            .into_iter()
            .map(|setting| Difference {
                setting: Some("secret".to_owned()),
                before: setting.clone(),
                after: setting,
                ..compare::plain(Changed::Shared)
            })
            .collect();
        match drift.files.iter_mut().position(|known| known.file == file) {
            Some(at) => {
                let mut known = drift.files.remove(at);
                drift.add(&file, found, (None, None), rules, DriftBetween::Environments);
                if let Some(added) = drift.files.last_mut().filter(|added| added.file == file) {
                    known.severity = known.severity.max(added.severity);
                    known.differences.append(&mut added.differences);
                    known
                        .differences
                        .sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.setting.cmp(&b.setting)));
                    drift.files.pop();
                }
                drift.files.push(known);
            }
            None => drift.add(&file, found, (None, None), rules, DriftBetween::Environments),
        }
    }
    drift.files.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.file.cmp(&b.file)));
    drift
}

/// Databases with an Odoo in them, as the export has them.
fn databases(export: &MaskedExport) -> BTreeSet<&str> {
    let modules = export.files.iter().filter_map(|f| f.name.strip_prefix("odoo/")?.strip_suffix("/modules.json"));
    modules.collect()
}

/// Which database of the other environment stands for which of this one.
fn pairs(this: &MaskedExport, other: &MaskedExport) -> BTreeMap<String, String> {
    let (mine, theirs) = (databases(this), databases(other));
    let mut pairs: BTreeMap<String, String> =
        mine.intersection(&theirs).map(|name| ((*name).to_owned(), (*name).to_owned())).collect();
    let left: Vec<_> = mine.difference(&theirs).collect();
    let right: Vec<_> = theirs.difference(&mine).collect();
    if let ([mine], [theirs]) = (left.as_slice(), right.as_slice()) {
        pairs.insert((**theirs).to_owned(), (**mine).to_owned());
    }
    pairs
}

/// The other environment's files under the names that this one's have, also within files that list databases.
fn renamed(other: &MaskedExport, pairs: &BTreeMap<String, String>) -> MaskedExport {
    let mut renamed = other.clone();
    for (theirs, mine) in pairs.iter().filter(|(theirs, mine)| theirs != mine) {
        let (old, new) = (format!("odoo/{theirs}/"), format!("odoo/{mine}/"));
        for file in &mut renamed.files {
            if let Some(rest) = file.name.strip_prefix(&old) {
                file.name = format!("{new}{rest}");
            }
            if matches!(file.name.as_str(), "postgresql/databases.json" | "postgresql/extensions.json")
                && let Some(text) = &mut file.text
                // Both in one cluster: then the name is taken, and means what it says.
                && !text.contains(&format!("\"{mine}\""))
            {
                *text = text.replace(&format!("\"{theirs}\""), &format!("\"{mine}\""));
            }
        }
        for gap in &mut renamed.missing {
            if let Some(rest) = gap.name.strip_prefix(&old) {
                gap.name = format!("{new}{rest}");
            }
        }
    }
    renamed.files.sort_by(|a, b| a.name.cmp(&b.name));
    renamed
}

/// Secrets that both environments hold: by file, the settings of this environment that hold them.
fn shared(this: &MaskedExport, other: &MaskedExport) -> BTreeMap<String, BTreeSet<Option<String>>> {
    let held = |export: &MaskedExport| -> BTreeSet<String> {
        let texts = export.files.iter().filter_map(|f| f.text.as_deref());
        texts.flat_map(|text| SECRET.find_iter(text).map(|m| m.as_str().to_owned())).collect()
    };
    let theirs = held(other);
    let mut shared: BTreeMap<String, BTreeSet<Option<String>>> = BTreeMap::new();
    for file in &this.files {
        let Some(text) = &file.text else { continue };
        if !SECRET.find_iter(text).any(|m| theirs.contains(m.as_str())) {
            continue;
        }
        let holds = |value: &str| SECRET.find_iter(value).any(|m| theirs.contains(m.as_str()));
        let settings = settings(file).unwrap_or_default();
        let named: BTreeSet<Option<String>> =
            settings.iter().filter(|(_, value)| holds(value)).map(|(name, _)| Some(name.clone())).collect();
        let entry = shared.entry(file.name.clone()).or_default();
        match named.is_empty() {
            true => drop(entry.insert(None)),
            false => entry.extend(named),
        }
    }
    shared
}
