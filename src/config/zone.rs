//! Time zones and local times in configuration files, and the one place that turns a local time into an instant.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeZone as _, Utc};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};

use super::raw::Located;
use super::source::Source;
use super::suggest::nearest;
use crate::error::Result;

/// Which of two instants is meant where a clock shows a time twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twice {
    /// The first, before the clock goes back.
    First,
    /// The second.
    Second,
}

/// The instant at which clocks in `zone` show `local`. A time that they jump over becomes the instant of the jump: what
/// was meant for it happens as soon as it can.
pub fn instant(local: NaiveDateTime, zone: Tz, twice: Twice) -> DateTime<Utc> {
    use chrono::LocalResult::{Ambiguous, None, Single};
    match zone.from_local_datetime(&local) {
        Single(at) => at.to_utc(),
        Ambiguous(first, second) => if twice == Twice::First { first } else { second }.to_utc(),
        None => match GapInfo::new(&local, &zone).and_then(|gap| gap.end) {
            Some(end) => end.to_utc(),
            // Beyond what is known of the zone: as if it had no rules.
            Option::None => local.and_utc(),
        },
    }
}

/// Reads a zone's name; absent: UTC.
pub(super) fn zone(source: &Source, raw: Option<&Located<String>>) -> Result<Tz> {
    let Some(raw) = raw else { return Ok(Tz::UTC) };
    raw.value.parse().map_err(|_| {
        let error = source.error(&raw.span, format!("there is no time zone \"{}\"", raw.value));
        match nearest(&raw.value, TZ_VARIANTS.iter().map(|zone| zone.name())) {
            Some(near) => error.hint(format!("did you mean \"{near}\"?")),
            None => error.hint("write its name in the time zone database, for example \"Europe/Brussels\""),
        }
    })
}

/// Reads a local time: a day, or a day and a time.
pub(super) fn local(text: &str) -> Option<NaiveDateTime> {
    let text = text.trim();
    let times = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"];
    let day = || Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(chrono::NaiveTime::MIN));
    times.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok()).or_else(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: Tz, twice: Twice) -> String {
        instant(local(text).expect("a time"), zone, twice).to_rfc3339()
    }

    #[test]
    fn local_times_become_instants_even_where_clocks_jump() {
        let brussels = Tz::Europe__Brussels;
        assert_eq!(at("2027-01-01", brussels, Twice::First), "2026-12-31T23:00:00+00:00");
        assert_eq!(at("2027-03-28 02:30", brussels, Twice::First), "2027-03-28T01:00:00+00:00", "jumped over");
        assert_eq!(at("2027-10-31T02:30:00", brussels, Twice::First), "2027-10-31T00:30:00+00:00");
        assert_eq!(at("2027-10-31T02:30", brussels, Twice::Second), "2027-10-31T01:30:00+00:00");
        assert_eq!(at("2027-03-14 02:00", Tz::America__New_York, Twice::Second), "2027-03-14T07:00:00+00:00");
        for wrong in ["", "2027-02-30", "tomorrow", "2027-01-01T25:00", "2027-01-01T12:00Z"] {
            assert_eq!(local(wrong), None, "{wrong}");
        }
    }
}
