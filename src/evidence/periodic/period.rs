//! A month, a quarter or a year, in UTC.

use std::str::FromStr;

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use serde::Serialize;

use crate::error::{self, Error, Result};

/// A span of the calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Period {
    /// As it is written: `2026-11`, `2026-Q4`, `2026`.
    pub name: String,
    /// Its first moment.
    pub from: DateTime<Utc>,
    /// The first moment behind it.
    pub to: DateTime<Utc>,
}

impl Period {
    /// The last month that is over at `now`.
    pub fn last_month(now: DateTime<Utc>) -> Self {
        let first = now.date_naive().with_day(1).expect("every month has a first day");
        let before = first.checked_sub_months(Months::new(1)).expect("years are small");
        Self::of(format!("{}", before.format("%Y-%m")), before, 1)
    }

    /// Whether a moment lies in it.
    pub fn contains(&self, at: DateTime<Utc>) -> bool {
        (self.from..self.to).contains(&at)
    }

    fn of(name: String, first: NaiveDate, months: u32) -> Self {
        let start = |day: NaiveDate| day.and_hms_opt(0, 0, 0).expect("midnight").and_utc();
        let end = first.checked_add_months(Months::new(months)).expect("years are small");
        Self { name, from: start(first), to: start(end) }
    }
}

impl FromStr for Period {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            error::usage(format!("\"{text}\" is not a period"))
                .hint("write a month, a quarter or a year: 2026-11, 2026-Q4, 2026")
        };
        let (year, rest) = text.split_once('-').map_or((text, None), |(year, rest)| (year, Some(rest)));
        let year: i32 = year.parse().ok().filter(|year| (1970..10_000).contains(year)).ok_or_else(wrong)?;
        let (month, months) = match rest {
            None => (1, 12),
            Some(quarter) if quarter.starts_with(['Q', 'q']) => {
                let number: u32 = quarter[1..].parse().ok().filter(|n| (1..=4).contains(n)).ok_or_else(wrong)?;
                (number * 3 - 2, 3)
            }
            Some(month) if month.len() == 2 => (month.parse().map_err(|_| wrong())?, 1),
            Some(_) => return Err(wrong()),
        };
        let first = NaiveDate::from_ymd_opt(year, month, 1).ok_or_else(wrong)?;
        Ok(Self::of(text.to_uppercase(), first, months))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_quarters_and_years() {
        let of = |text: &str| text.parse::<Period>().map(|p| format!("{} {}", p.from.date_naive(), p.to.date_naive()));
        assert_eq!(of("2026-11").expect("a month"), "2026-11-01 2026-12-01");
        assert_eq!(of("2026-12").expect("a month"), "2026-12-01 2027-01-01");
        assert_eq!(of("2026-Q4").expect("a quarter"), "2026-10-01 2027-01-01");
        assert_eq!(of("2026").expect("a year"), "2026-01-01 2027-01-01");
        for wrong in ["", "26", "2026-13", "2026-1", "2026-Q5", "November", "2026-11-29"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        let now = "2027-01-15T10:00:00Z".parse().expect("a time");
        assert_eq!(Period::last_month(now).name, "2026-12");
        assert!(Period::last_month(now).contains("2026-12-31T23:59:59Z".parse().expect("a time")));
        assert!(!Period::last_month(now).contains("2027-01-01T00:00:00Z".parse().expect("a time")));
    }
}
