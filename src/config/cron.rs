//! Cron expressions as they are written in a `[[job]]`: five fields, minute to day of the week.

use std::fmt;

use chrono::{DateTime, Utc};

use super::raw::Located;
use super::source::Source;
use crate::error::Result;

/// A cron expression that matches some time. `schedule/cron.rs` tells when, in a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronExpression {
    text: String,
    pattern: croner::Cron,
    every_hour: bool,
}

impl CronExpression {
    /// Reads an expression; says why it is none.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        use croner::parser::{CronParser, Seconds, Year};
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let pattern = parser.parse(text.trim()).map_err(|e| e.to_string())?;
        if pattern.find_next_occurrence(&DateTime::UNIX_EPOCH, true).is_err() {
            return Err("no day matches it".to_owned());
        }
        let every_hour = (0..24).all(|hour| pattern.pattern.hour_match(hour).unwrap_or(false));
        Ok(Self { text: text.trim().to_owned(), pattern, every_hour })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// In words, in English.
    pub fn words(&self) -> String {
        self.pattern.describe()
    }

    /// Whether it wants every hour of the day: then it goes by time that passes, not by the clock on the wall.
    pub fn every_hour(&self) -> bool {
        self.every_hour
    }

    /// The first time after `local` that matches, by a clock that never jumps: both are local times, written as UTC.
    pub fn after(&self, local: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.pattern.find_next_occurrence(&local, false).ok()
    }

    /// The last time at or before `local` that matches, likewise.
    pub fn at_or_before(&self, local: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.pattern.find_previous_occurrence(&local, true).ok()
    }
}

impl fmt::Display for CronExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Judges a `cron` key.
pub(super) fn cron(source: &Source, raw: &Located<String>) -> Result<CronExpression> {
    CronExpression::parse(&raw.value).map_err(|why| {
        source.error(&raw.span, format!("\"{}\" is not a cron expression: {why}", raw.value)).hint(
            "five fields: minute, hour, day of the month, month, day of the week; \"30 1 * * *\" is 01:30 every day",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_strictly() {
        for good in ["30 1 * * *", "*/15 * * * *", "0 3 L * *", "0 3 * * TUE#2", "@daily", "0 4 * * 7"] {
            CronExpression::parse(good).expect(good);
        }
        for wrong in ["", "1 2 3", "0 30 1 * * *", "60 1 * * *", "0 0 30 2 *", "x * * * *", "0 3 * * * 2027"] {
            assert!(CronExpression::parse(wrong).is_err(), "{wrong}");
        }
        assert!(CronExpression::parse("7 * * * *").expect("valid").every_hour());
        assert!(!CronExpression::parse("7 */2 * * *").expect("valid").every_hour());
    }
}
