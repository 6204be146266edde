//! The self-test of a check suite: damage that was done to copies of the restored data, and which check noticed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A self-test, in the record of the drill that ran it and in those of later drills.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// Id of the drill that ran it.
    pub drill: String,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// Every kind of damage.
    pub cases: Vec<DamageCase>,
}

/// One kind of damage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DamageCase {
    /// Names it.
    pub id: String,
    /// What was done.
    pub title: String,
    /// What came of it.
    pub outcome: DamageOutcome,
    /// The checks that turned red.
    pub caught_by: Vec<String>,
    /// What was damaged, or why nothing was.
    pub detail: String,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// What came of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DamageOutcome {
    /// A check turned red.
    Found,
    /// Every check stayed green: the suite is blind to this.
    Missed,
    /// It could not be done; that says nothing of the suite.
    Skipped,
}

impl SelfTest {
    /// Cases with an outcome.
    fn count(&self, outcome: DamageOutcome) -> usize {
        self.cases.iter().filter(|c| c.outcome == outcome).count()
    }

    /// Whether damage was done, and every damage was found.
    pub fn is_complete(&self) -> bool {
        self.count(DamageOutcome::Missed) == 0 && self.count(DamageOutcome::Found) > 0
    }

    /// `11 of 12 damages found, 1 skipped`.
    pub fn score(&self) -> String {
        let (found, missed, skipped) =
            (self.count(DamageOutcome::Found), self.count(DamageOutcome::Missed), self.count(DamageOutcome::Skipped));
        let tail = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
        format!("{found} of {} damages found{tail}", found + missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(outcome: DamageOutcome) -> DamageCase {
        DamageCase {
            id: "a".into(),
            title: "b".into(),
            outcome,
            caught_by: Vec::new(),
            detail: String::new(),
            seconds: 0.0,
        }
    }

    #[test]
    fn what_was_skipped_counts_for_neither_side_and_nothing_done_proves_nothing() {
        use DamageOutcome::{Found, Missed, Skipped};
        let test = |outcomes: &[DamageOutcome]| SelfTest {
            drill: "d".into(),
            finished_at: DateTime::UNIX_EPOCH,
            cases: outcomes.iter().map(|o| case(*o)).collect(),
        };
        let all = test(&[Found, Found, Skipped]);
        assert_eq!((all.score().as_str(), all.is_complete()), ("2 of 2 damages found, 1 skipped", true));
        let blind = test(&[Found, Missed]);
        assert_eq!((blind.score().as_str(), blind.is_complete()), ("1 of 2 damages found", false));
        assert!(!test(&[Skipped]).is_complete());
    }
}
