//! What a check's statement returned, small: however many rows there are, memory does not grow.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Rows that are kept as text.
pub(super) const ROWS_KEPT: usize = 50;

/// Longest text of a row that is kept.
const ROW_LENGTH: usize = 300;

/// What became of asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The statement ran.
    Answered(Answer),
    /// The check does not apply to this database; why.
    NotApplicable {
        /// Why.
        reason: String,
    },
    /// The statement could not be run.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The rows that a statement returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// How many there are.
    pub count: u64,
    /// Digest of all of them, whatever their order.
    pub digest: String,
    /// The first ones, as `column=value …`.
    pub rows: Vec<String>,
    /// The newest time in their last column.
    pub newest: Option<DateTime<Utc>>,
}

/// Gathers an [`Answer`] row by row.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    count: u64,
    sum: [u64; 4],
    rows: Vec<String>,
    newest: Option<DateTime<Utc>>,
}

impl Gatherer {
    /// Adds one row: column names and values.
    pub(super) fn add<'a>(&mut self, fields: impl Iterator<Item = (&'a str, Option<&'a str>)>) {
        let keep = self.rows.len() < ROWS_KEPT;
        let (mut text, mut hash, mut last) = (String::new(), Sha256::new(), None);
        for (name, value) in fields {
            match value {
                Some(value) => {
                    hash.update((value.len() as u64 + 1).to_be_bytes());
                    hash.update(value.as_bytes());
                }
                None => hash.update(0_u64.to_be_bytes()),
            }
            if keep && text.len() < ROW_LENGTH {
                let space = if text.is_empty() { "" } else { " " };
                text += &format!("{space}{name}={}", value.unwrap_or("NULL"));
            }
            last = value;
        }
        self.count += 1;
        // A sum does not depend on the order, and counts equal rows as often as they come.
        let digest: [u8; 32] = hash.finalize().into();
        let mut carry = 0;
        for (sum, bytes) in self.sum.iter_mut().zip(digest.chunks_exact(8)).rev() {
            let word = u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
            let total = u128::from(*sum) + u128::from(word) + carry;
            *sum = total as u64;
            carry = total >> 64;
        }
        if keep {
            self.rows.push(text.chars().take(ROW_LENGTH).collect());
        }
        self.newest = self.newest.max(last.and_then(time));
    }

    pub(super) fn finish(self) -> Answer {
        let mut hash = Sha256::new();
        hash.update(self.count.to_be_bytes());
        for word in self.sum {
            hash.update(word.to_be_bytes());
        }
        Answer { count: self.count, digest: hex::encode(hash.finalize()), rows: self.rows, newest: self.newest }
    }
}

/// A time as PostgreSQL writes it with `DateStyle = ISO` and `TimeZone = UTC`. Odoo keeps UTC in columns without a zone.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let plain = text.strip_suffix("+00").unwrap_or(text);
    let parsed = NaiveDateTime::parse_from_str(plain, "%Y-%m-%d %H:%M:%S%.f");
    let date = || plain.parse::<NaiveDate>().ok().and_then(|date| date.and_hms_opt(0, 0, 0));
    parsed.ok().or_else(date).map(|t| t.and_utc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gathered(rows: &[Vec<Option<String>>]) -> Answer {
        let mut gatherer = Gatherer::default();
        for row in rows {
            gatherer.add(row.iter().map(|v| ("c", v.as_deref())));
        }
        gatherer.finish()
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_everything_else_does(
            rows in proptest::collection::vec(proptest::collection::vec(proptest::option::of("[ab|]{0,3}"), 2), 1..8),
            at in any::<prop::sample::Index>(),
        ) {
            let answer = gathered(&rows);
            let mut turned = rows.clone();
            turned.rotate_left(at.index(rows.len()));
            prop_assert_eq!(&gathered(&turned).digest, &answer.digest);
            let mut other = rows.clone();
            let row = &mut other[at.index(rows.len())];
            row[0] = Some(row[0].as_ref().map_or("x".into(), |v| format!("{v}x")));
            prop_assert_ne!(&gathered(&other).digest, &answer.digest);
            let mut twice = rows.clone();
            twice.push(rows[at.index(rows.len())].clone());
            prop_assert_ne!(&gathered(&twice).digest, &answer.digest);
        }
    }

    #[test]
    fn null_is_no_text_and_the_newest_time_is_found() {
        let row = |value: Option<&str>| vec![Some("a".to_owned()), value.map(str::to_owned)];
        assert_ne!(gathered(&[row(None)]).digest, gathered(&[row(Some(""))]).digest);
        let times =
            [row(Some("2026-11-22 20:35:05.25")), row(None), row(Some("2026-11-22 20:35:06+00")), row(Some("no"))];
        assert_eq!(gathered(&times).newest.map(|t| t.to_rfc3339()).as_deref(), Some("2026-11-22T20:35:06+00:00"));
        assert!(gathered(&[row(Some("2026-11-23"))]).newest.is_some(), "a date is a time");
        assert_eq!(gathered(&[row(None)]).rows, ["c=a c=NULL"]);
    }
}
