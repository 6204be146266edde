//! What the calendars of an estate say about an instant: what is forbidden and until when, how fast base backups may
//! read, which objectives are in force.
//!
//! Deny wins: what one calendar denies, no other one allows. Where calendars of kind `allow` exist for an effect and an
//! environment, it is forbidden whenever none of them has a window. Of several objectives or rates the tightest counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Datelike as _, TimeZone as _, Utc};
use serde::Serialize;

use super::windows::{Window, windows};
use crate::config::{Calendar, CalendarKind, Effect, Estate};
use crate::units::ByteSize;

/// What is looked ahead for the end of something forbidden, in windows.
const STEPS: usize = 1000;

/// The calendars of an estate.
#[derive(Debug)]
pub struct Calendars {
    calendars: Vec<Calendar>,
    /// Unrolled windows of each calendar by year, each in order.
    years: Mutex<BTreeMap<i32, Arc<Vec<Vec<Window>>>>>,
}

/// Something is forbidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forbidden {
    /// Name of the calendar.
    pub calendar: String,
    /// What the calendar or its window is, for people.
    pub title: Option<String>,
    /// When no calendar forbids it any more; `None`: not within sight.
    pub until: Option<DateTime<Utc>>,
}

/// The objectives of an environment at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectivesInForce {
    /// Recovery point objective.
    pub rpo: Duration,
    /// Recovery time objective.
    pub rto: Duration,
    /// The calendars that tighten one of them.
    pub calendars: Vec<String>,
}

/// A window of a calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CalendarWindow {
    /// Name of the calendar.
    pub calendar: String,
    /// What it is, for people: the window's title, or the calendar's.
    pub title: Option<String>,
    /// When it begins.
    pub from: DateTime<Utc>,
    /// When it ends.
    pub to: DateTime<Utc>,
}

/// What makes an effect hold, and when that one ceases to; `None`: not within sight.
struct Holds<'a> {
    calendar: &'a Calendar,
    title: Option<String>,
    until: Option<DateTime<Utc>>,
}

impl Calendars {
    /// Those of `estate`.
    pub fn new(estate: &Estate) -> Self {
        Self { calendars: estate.calendars.clone(), years: Mutex::new(BTreeMap::new()) }
    }

    /// The calendars themselves.
    pub fn all(&self) -> &[Calendar] {
        &self.calendars
    }

    /// Why `effect` (one that forbids) holds for `environment` at `at`; `None` where it does not.
    pub fn forbidden(&self, environment: &str, effect: Effect, at: DateTime<Utc>) -> Option<Forbidden> {
        let Holds { calendar, title, until: end } = self.forbids(environment, effect, at)?;
        let (mut until, mut steps) = (end, 0);
        while let Some(end) = until {
            match self.forbids(environment, effect, end) {
                None => break,
                Some(next) => until = next.until,
            }
            steps += 1;
            if steps == STEPS {
                until = None;
            }
        }
        Some(Forbidden { calendar: calendar.name.clone(), title, until })
    }

    /// The last instant after `from` and not after `to` at which `effect` ceased to hold for `environment`.
    pub fn last_allowed(
        &self,
        environment: &str,
        effect: Effect,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let mut ends: Vec<DateTime<Utc>> = Vec::new();
        for (index, calendar) in self.concerned(environment, effect) {
            for window in self.between(index, from, to) {
                ends.push(if calendar.kind == CalendarKind::Deny { window.to } else { window.from });
            }
        }
        ends.retain(|end| *end > from && *end <= to && self.forbids(environment, effect, *end).is_none());
        ends.into_iter().max()
    }

    /// Most bytes that a base backup of `environment` may read in a second at `at`, and who says so; `None`: no
    /// calendar limits it.
    pub fn max_rate(&self, environment: &str, at: DateTime<Utc>) -> Option<(ByteSize, &str)> {
        let holding = self.holding(environment, at).filter(|c| c.effects.contains(&Effect::SlowBaseBackups));
        holding.filter_map(|c| Some((c.max_rate?, c.name.as_str()))).min()
    }

    /// The objectives of `environment` at `at`, where `rpo` and `rto` are the usual ones.
    pub fn objectives(&self, environment: &str, rpo: Duration, rto: Duration, at: DateTime<Utc>) -> ObjectivesInForce {
        let mut found = ObjectivesInForce { rpo, rto, calendars: Vec::new() };
        for calendar in self.holding(environment, at) {
            let (tighter_rpo, tighter_rto) = (calendar.rpo.filter(|t| *t < rpo), calendar.rto.filter(|t| *t < rto));
            if tighter_rpo.is_some() || tighter_rto.is_some() {
                found.rpo = found.rpo.min(tighter_rpo.unwrap_or(rpo));
                found.rto = found.rto.min(tighter_rto.unwrap_or(rto));
                found.calendars.push(calendar.name.clone());
            }
        }
        found
    }

    /// All windows of the calendars of `environment` that have something in common with the time from `from` to `to`, in order.
    pub fn windows(&self, environment: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<CalendarWindow> {
        let mut all = Vec::new();
        for (index, calendar) in self.calendars.iter().enumerate() {
            if calendar.environments.iter().any(|e| e == environment) {
                all.extend(self.between(index, from, to).into_iter().map(|window| CalendarWindow {
                    calendar: calendar.name.clone(),
                    title: window.title.or_else(|| calendar.title.clone()),
                    from: window.from,
                    to: window.to,
                }));
            }
        }
        all.sort_by_key(|window| window.from);
        all
    }

    /// Which calendar makes `effect` hold at `at`, and when that one ceases to; not when another one goes on.
    fn forbids(&self, environment: &str, effect: Effect, at: DateTime<Utc>) -> Option<Holds<'_>> {
        let concerned: Vec<(usize, &Calendar)> = self.concerned(environment, effect).collect();
        let title = |calendar: &Calendar, window: &Window| window.title.clone().or_else(|| calendar.title.clone());
        let denies = concerned.iter().filter(|(_, calendar)| calendar.kind == CalendarKind::Deny);
        let denies = denies.flat_map(|(index, calendar)| self.covering(*index, at).map(|w| (*calendar, w)));
        if let Some((calendar, window)) = denies.max_by_key(|(_, window)| window.to) {
            return Some(Holds { calendar, title: title(calendar, &window), until: Some(window.to) });
        }
        let mut allows = concerned.iter().filter(|(_, calendar)| calendar.kind == CalendarKind::Allow).peekable();
        let first = allows.peek()?.1;
        let mut next: Option<DateTime<Utc>> = None;
        for (index, _) in allows {
            if self.covering(*index, at).is_some() {
                return None;
            }
            let begins = self.next_beginning(*index, at);
            next = next.into_iter().chain(begins).min();
        }
        Some(Holds { calendar: first, title: first.title.clone(), until: next })
    }

    fn concerned(&self, environment: &str, effect: Effect) -> impl Iterator<Item = (usize, &Calendar)> {
        let concerns =
            move |c: &Calendar| c.effects.contains(&effect) && c.environments.iter().any(|e| e == environment);
        self.calendars.iter().enumerate().filter(move |(_, calendar)| concerns(calendar))
    }

    /// The calendars of `environment` that have a window at `at`; none of kind `allow`.
    fn holding(&self, environment: &str, at: DateTime<Utc>) -> impl Iterator<Item = &Calendar> {
        self.calendars.iter().enumerate().filter_map(move |(index, calendar)| {
            let is_its = calendar.kind == CalendarKind::Deny && calendar.environments.iter().any(|e| e == environment);
            (is_its && self.covering(index, at).is_some()).then_some(calendar)
        })
    }

    /// The window that covers `at` and ends last.
    fn covering(&self, calendar: usize, at: DateTime<Utc>) -> Option<Window> {
        let year = self.year(at.year());
        let windows = year[calendar].iter().take_while(|window| window.from <= at);
        windows.filter(|window| window.to > at).max_by_key(|window| window.to).cloned()
    }

    fn next_beginning(&self, calendar: usize, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        (after.year()..after.year() + 3)
            .find_map(|year| self.year(year)[calendar].iter().map(|window| window.from).find(|from| *from > after))
    }

    fn between(&self, calendar: usize, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<Window> {
        let mut all: Vec<Window> = Vec::new();
        for year in from.year()..=to.year() {
            all.extend(self.year(year)[calendar].iter().filter(|w| w.from <= to && w.to > from).cloned());
        }
        // One that lasts over the turn of a year stands in both.
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The windows of all calendars that have something in common with a year (UTC).
    fn year(&self, year: i32) -> Arc<Vec<Vec<Window>>> {
        let mut years = self.years.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = years.get(&year) {
            return Arc::clone(known);
        }
        let start = |year| Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).single().unwrap_or(DateTime::<Utc>::MAX_UTC);
        let of = |calendar: &Calendar| {
            let rules = calendar.windows.iter();
            let mut all: Vec<Window> = rules.flat_map(|rule| windows(rule, start(year), start(year + 1))).collect();
            all.sort_unstable();
            all
        };
        let unrolled = Arc::new(self.calendars.iter().map(of).collect::<Vec<_>>());
        // A service that runs for years needs few of them at a time.
        if years.len() > 8 {
            years.clear();
        }
        years.insert(year, Arc::clone(&unrolled));
        unrolled
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schedule::testing::{estate, utc};

    const SEASON: &str = r#"
        [[calendar]]
        name = "peak"
        title = "Black Friday to the sales"
        time_zone = "Europe/Brussels"
        purposes = ["production"]
        effects = ["forbid-drills", "forbid-restores", "slow-base-backups"]
        max_rate = "20MiB"
        objectives = { rpo = "10s", rto = "2h" }
        [[calendar.window]]
        starts = "2026-11-23"
        ends = "2027-01-04"

        [[calendar]]
        name = "inventory"
        title = "count of stock"
        environments = ["production"]
        effects = ["forbid-drills", "slow-base-backups"]
        max_rate = "5MiB"
        objectives = { rpo = "20s" }
        [[calendar.window]]
        title = "counting"
        starts = "2027-01-03T22:00"
        lasts = "10h"

        [[calendar]]
        name = "nights"
        kind = "allow"
        time_zone = "Europe/Brussels"
        environments = ["staging", "production"]
        effects = ["forbid-drills"]
        [[calendar.window]]
        starts = "2026-01-01T20:00"
        lasts = "10h"
        rrule = "FREQ=DAILY"
    "#;

    fn calendars() -> Calendars {
        Calendars::new(&estate(SEASON))
    }

    fn why(environment: &str, at: &str) -> Option<(String, Option<DateTime<Utc>>)> {
        let found = calendars().forbidden(environment, Effect::ForbidDrills, utc(at))?;
        Some((found.calendar, found.until))
    }

    #[test]
    fn deny_wins_over_allow_and_the_end_counts_all_calendars() {
        // A night: allowed, but denied by the peak. That ends at midnight; then the counting goes on until 08:00 UTC,
        // which is day, so it is the next evening at 20:00 local time.
        let all_over = Some(utc("2027-01-04T19:00:00Z"));
        assert_eq!(why("production", "2026-12-01T22:00:00Z"), Some(("peak".into(), all_over)));
        assert_eq!(why("production", "2027-01-04T03:00:00Z"), Some(("inventory".into(), all_over)));
        // By day, outside of peak: not allowed.
        assert_eq!(
            why("production", "2026-06-01T10:00:00Z"),
            Some(("nights".into(), Some(utc("2026-06-01T18:00:00Z"))))
        );
        assert_eq!(why("production", "2026-06-01T19:00:00Z"), None);
        assert_eq!(why("staging", "2026-12-01T22:00:00Z"), None, "the peak is not for staging");
        assert_eq!(why("production", "2026-11-22T22:59:59Z"), None);
        assert_eq!(why("production", "2026-11-22T23:00:00Z").expect("the peak").0, "peak");
        let restores = calendars().forbidden("production", Effect::ForbidRestores, utc("2026-12-24T12:00:00Z"));
        let restores = restores.expect("the peak");
        assert_eq!(restores.title.as_deref(), Some("Black Friday to the sales"));
        assert_eq!(restores.until, Some(utc("2027-01-03T23:00:00Z")));
    }

    #[test]
    fn objectives_and_rates_are_the_tightest_in_force() {
        let calendars = calendars();
        let minute = Duration::from_secs(60);
        let at = |time| calendars.objectives("production", minute, 60 * minute, utc(time));
        assert_eq!(
            at("2026-06-01T00:00:00Z"),
            ObjectivesInForce { rpo: minute, rto: 60 * minute, calendars: Vec::new() }
        );
        let peak = at("2026-12-01T00:00:00Z");
        assert_eq!((peak.rpo, peak.rto), (Duration::from_secs(10), 60 * minute), "two hours are not tighter than one");
        assert_eq!(peak.calendars, ["peak"]);
        let both = at("2027-01-03T22:30:00Z");
        assert_eq!((both.rpo, both.calendars.len()), (Duration::from_secs(10), 2));
        let rate = |time| calendars.max_rate("production", utc(time));
        assert_eq!(rate("2027-01-03T22:30:00Z"), Some((ByteSize(5 << 20), "inventory")));
        assert_eq!(rate("2027-01-01T22:30:00Z"), Some((ByteSize(20 << 20), "peak")));
        assert_eq!(rate("2027-06-01T00:00:00Z"), None);
    }

    #[test]
    fn windows_are_listed_once_even_over_the_turn_of_the_year() {
        let calendars = calendars();
        let listed = calendars.windows("production", utc("2026-12-31T00:00:00Z"), utc("2027-01-01T12:00:00Z"));
        let names: Vec<&str> = listed.iter().map(|w| w.calendar.as_str()).collect();
        assert_eq!(names, ["peak", "nights", "nights"]);
        let ended =
            |from: &str, to: &str| calendars.last_allowed("production", Effect::ForbidDrills, utc(from), utc(to));
        assert_eq!(ended("2026-12-20T00:00:00Z", "2027-01-04T12:00:00Z"), None);
        assert_eq!(ended("2026-12-20T00:00:00Z", "2027-01-05T00:00:00Z"), Some(utc("2027-01-04T19:00:00Z")));
    }

    proptest! {
        #[test]
        fn what_is_forbidden_is_so_until_the_end_that_is_told_and_not_at_it(
            hours in 0_i64..24 * 500, part in 0_i64..1000
        ) {
            let calendars = calendars();
            let at = utc("2026-06-01T00:00:00Z") + chrono::TimeDelta::hours(hours);
            let forbids = |at| calendars.forbidden("production", Effect::ForbidDrills, at);
            if let Some(found) = forbids(at) {
                let until = found.until.expect("it ends");
                prop_assert!(until > at);
                prop_assert_eq!(forbids(until), None);
                prop_assert!(forbids(at + (until - at) * part as i32 / 1000).is_some());
            }
        }
    }
}
