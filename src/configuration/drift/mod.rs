//! Drift: what changed between two configuration exports, or differs between two environments, readable and without
//! secrets.
//!
//! Promises: works with the index key, which a host that backs up has, because an export keeps its files masked
//! beside the sealed ones (`masked`); a changed secret is seen as changed and is not shown; every difference has a
//! severity by rule; what changes by itself was left out by masking, or is classed as expected.
//!
//! * `compare`: two sets of masked files → differences, pure;
//! * `parity`: the same between environments: names that differ by nature are brought together first;
//! * `masked`: masked exports in the repository;
//! * `record`: what the ledger says of it.

mod compare;
mod masked;
mod parity;
mod record;

#[cfg(test)]
mod tests;

pub use compare::{Difference, Drift, FileDrift, Side};
pub use masked::{MaskedExport, load, newest};
pub use record::{CriticalDrift, critical_since, latest};

pub(super) use masked::store;
pub(super) use record::append;

use crate::config::{DriftBetween, DriftRule, builtin_drift_rules};

/// The rules in force for one comparison.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Those of the estate, which come first.
    pub own: &'a [DriftRule],
    /// The environment that is looked at.
    pub environment: &'a str,
}

impl<'a> Rules<'a> {
    /// The rule that decides about a difference.
    fn deciding(&self, between: DriftBetween, file: &str, setting: Option<&str>) -> Option<&'a DriftRule> {
        let fits = |rule: &&DriftRule| rule.fits(self.environment, between, file, setting);
        self.own.iter().find(fits).or_else(|| builtin_drift_rules().iter().find(fits))
    }
}

/// What changed from `before` to `now`, both of one environment.
pub fn changes(before: &MaskedExport, now: &MaskedExport, rules: Rules<'_>) -> Drift {
    compare::compare(before, now, rules, DriftBetween::Exports)
}

/// How `other` differs from `this`, another environment.
pub fn parity(this: &MaskedExport, other: &MaskedExport, rules: Rules<'_>) -> Drift {
    parity::compare(this, other, rules)
}
