//! The windows of a calendar as intervals in time.
//!
//! A rule is unrolled by clocks that never jump and each window is then placed in its zone: it begins as early and
//! ends as late as its local times allow, so a jump of clocks never makes a forbidden time shorter than it says.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use crate::config::{Lasts, Twice, WindowRule, instant};

/// More windows of one rule in the time asked for are not unrolled.
const MOST: u16 = 20_000;

/// A window.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// When it begins.
    pub from: DateTime<Utc>,
    /// When it ends; this instant does not belong to it any more.
    pub to: DateTime<Utc>,
    /// What it is, for people.
    pub title: Option<String>,
}

/// All windows of `rule` that have something in common with the time from `from` to `to`, in order.
pub fn windows(rule: &WindowRule, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<Window> {
    let slack = TimeDelta::days(2) + TimeDelta::from_std(rule.lasts.at_most()).unwrap_or(TimeDelta::days(367));
    // Local times never differ from UTC by more than a day.
    let (first, last) = ((from - slack).naive_utc(), (to + TimeDelta::days(2)).naive_utc());
    let mut starts: Vec<NaiveDateTime> = match &rule.rule {
        None => vec![rule.starts],
        Some(recurring) => {
            let zoneless = |at: NaiveDateTime| at.and_utc().with_timezone(&rrule::Tz::UTC);
            let set = rrule::RRuleSet::new(zoneless(rule.starts)).rrule(recurring.clone());
            let found = set.after(zoneless(first)).before(zoneless(last)).all(MOST);
            found.dates.iter().map(|at| at.naive_utc()).collect()
        }
    };
    starts.extend(&rule.also);
    starts.retain(|at| (first..=last).contains(at) && !rule.except.contains(at));
    starts.sort_unstable();
    starts.dedup();
    let place = |start: NaiveDateTime| {
        let from = instant(start, rule.zone, Twice::First);
        let to = match rule.lasts {
            Lasts::Days(days) => instant(start + TimeDelta::days(i64::from(days)), rule.zone, Twice::Second),
            Lasts::Time(span) => from + TimeDelta::from_std(span).unwrap_or(TimeDelta::days(366)),
        };
        Window { from, to, title: rule.title.clone() }
    };
    starts.into_iter().map(place).filter(|window| window.from < to && window.to > from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::testing::{estate, utc};

    /// The windows of a calendar with this body, in local time.
    fn unrolled(window: &str, from: &str, to: &str) -> Vec<String> {
        let estate = estate(&format!(
            "[[calendar]]\nname = \"c\"\ntime_zone = \"Europe/Brussels\"\neffects = [\"forbid-drills\"]\n[[calendar.window]]\n{window}\n"
        ));
        let rule = &estate.calendars[0].windows[0];
        let shown = |at: DateTime<Utc>| at.with_timezone(&rule.zone).format("%Y-%m-%d %H:%M%:::z").to_string();
        windows(rule, utc(from), utc(to)).into_iter().map(|w| format!("{} to {}", shown(w.from), shown(w.to))).collect()
    }

    #[test]
    fn days_are_days_of_the_calendar_and_hours_are_hours() {
        let year = ("2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z");
        let spring = unrolled("starts = \"2027-03-27\"\nlasts = \"2d\"", year.0, year.1);
        assert_eq!(spring, ["2027-03-27 00:00+01 to 2027-03-29 00:00+02"]);
        let hours = unrolled("starts = \"2027-03-27T12:00\"\nlasts = \"23h\"", year.0, year.1);
        assert_eq!(hours, ["2027-03-27 12:00+01 to 2027-03-28 12:00+02"], "23 hours pass");
        let ends = unrolled("starts = \"2027-03-27T12:00\"\nends = \"2027-03-28T12:00\"", year.0, year.1);
        assert_eq!(ends, ["2027-03-27 12:00+01 to 2027-03-28 12:00+02"]);
        let twice = unrolled("starts = \"2027-10-30T02:30\"\nlasts = \"1d\"", year.0, year.1);
        assert_eq!(twice, ["2027-10-30 02:30+02 to 2027-10-31 02:30+01"], "as late as it may mean");
    }

    #[test]
    fn rules_count_in_local_time() {
        let fridays = "starts = \"2026-09-04T22:00\"\nlasts = \"4h\"\nrrule = \"FREQ=WEEKLY;UNTIL=20261112T225959Z\"\nexcept = [\"2026-10-16T22:00\"]";
        let found = unrolled(fridays, "2026-10-05T00:00:00Z", "2027-01-01T00:00:00Z");
        let expected = ["2026-10-09 22:00+02", "2026-10-23 22:00+02", "2026-10-30 22:00+01", "2026-11-06 22:00+01"];
        assert_eq!(found.iter().map(|w| &w[..19]).collect::<Vec<_>>(), expected);
        // The Monday before Black Friday, for seven weeks.
        let freeze = "starts = \"2024-11-25\"\nlasts = \"49d\"\nrrule = \"FREQ=YEARLY;BYMONTH=11;BYDAY=MO;BYMONTHDAY=19,20,21,22,23,24,25\"";
        let found = unrolled(freeze, "2026-01-01T00:00:00Z", "2028-01-01T00:00:00Z");
        let expected = [
            "2025-11-24 00:00+01 to 2026-01-12 00:00+01",
            "2026-11-23 00:00+01 to 2027-01-11 00:00+01",
            "2027-11-22 00:00+01 to 2028-01-10 00:00+01",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_ends_of_the_time_asked_for_do_not_cut_windows() {
        let daily = "starts = \"2027-01-01T20:00\"\nlasts = \"8h\"\nrrule = \"FREQ=DAILY;COUNT=3\"";
        let all = unrolled(daily, "2026-01-01T00:00:00Z", "2028-01-01T00:00:00Z");
        assert_eq!(all.len(), 3);
        assert_eq!(unrolled(daily, "2027-01-02T02:00:00Z", "2027-01-02T02:01:00Z"), all[..1]);
        assert_eq!(unrolled(daily, "2027-01-02T03:00:00Z", "2027-01-02T03:01:00Z"), Vec::<String>::new(), "it is over");
        assert_eq!(unrolled(daily, "2027-01-02T18:59:00Z", "2027-01-02T19:00:00Z"), Vec::<String>::new());
    }
}
