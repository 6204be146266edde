//! When a cron expression is due by the clocks of a time zone, those that jump included.
//!
//! It promises: on every day that the expression names, it is due as often as it says. A time that clocks jump over in
//! spring is due when they have jumped (several in one jump: once); a time that they show twice in autumn is due the
//! first time. An expression for every hour of the day (`*/15 * * * *`) goes by time that passes instead: it is due in
//! both of two equal hours, and not for an hour that never was.
//!
//! Expressions are matched against clocks that never jump (`croner`, in UTC), and the times found are then placed in
//! the zone; so what jumps do is decided here alone.

use chrono::{DateTime, Duration, NaiveDateTime, Offset as _, TimeZone as _, Utc};
use chrono_tz::Tz;

use crate::config::{CronExpression, Twice, instant};

/// Farther than any jump of a clock reaches.
const JUMP: Duration = Duration::hours(3);

/// The first time after `after` at which it is due.
pub fn next(cron: &CronExpression, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let local = local(zone, after);
    if !jumps_near(zone, after) {
        let found = cron.after(local)?;
        return place(cron, zone, found.naive_utc()).into_iter().flatten().find(|at| *at > after);
    }
    let mut at = local - JUMP;
    let mut best: Option<DateTime<Utc>> = None;
    loop {
        at = match cron.after(at) {
            Some(at) => at,
            None => return best,
        };
        for placed in place(cron, zone, at.naive_utc()).into_iter().flatten().filter(|placed| *placed > after) {
            best = Some(best.map_or(placed, |best| best.min(placed)));
        }
        // What is shown twice lies at most a jump behind what comes after it.
        if best.is_some() && at > local + JUMP {
            return best;
        }
    }
}

/// The last time at or before `until` at which it was due.
pub fn last(cron: &CronExpression, zone: Tz, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let local = local(zone, until);
    if !jumps_near(zone, until) {
        let found = cron.at_or_before(local)?;
        return place(cron, zone, found.naive_utc()).into_iter().flatten().rfind(|at| *at <= until);
    }
    let mut at = local + JUMP;
    let mut best: Option<DateTime<Utc>> = None;
    loop {
        at = cron.at_or_before(at)?;
        for placed in place(cron, zone, at.naive_utc()).into_iter().flatten().filter(|placed| *placed <= until) {
            best = Some(best.map_or(placed, |best| best.max(placed)));
        }
        if best.is_some() && at < local - JUMP {
            return best;
        }
        at -= Duration::seconds(1);
    }
}

/// What clocks in `zone` show, written as UTC.
fn local(zone: Tz, at: DateTime<Utc>) -> DateTime<Utc> {
    zone.from_utc_datetime(&at.naive_utc()).naive_local().and_utc()
}

fn jumps_near(zone: Tz, at: DateTime<Utc>) -> bool {
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc();
    offset(at - JUMP) != offset(at + JUMP)
}

/// The instants at which it is due for a local time that it matches: in order, mostly one.
fn place(cron: &CronExpression, zone: Tz, local: NaiveDateTime) -> [Option<DateTime<Utc>>; 2] {
    use chrono::LocalResult;
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) => [Some(at.to_utc()), None],
        LocalResult::Ambiguous(first, second) if cron.every_hour() => [Some(first.to_utc()), Some(second.to_utc())],
        LocalResult::None if cron.every_hour() => [None, None],
        _ => [Some(instant(local, zone, Twice::First)), None],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expression(text: &str) -> CronExpression {
        CronExpression::parse(text).expect("valid")
    }

    fn utc(text: &str) -> DateTime<Utc> {
        format!("{text}:00Z").parse().expect("a time")
    }

    /// All times in a stretch, by going forwards.
    fn due(text: &str, zone: Tz, from: &str, to: &str) -> Vec<String> {
        let (cron, mut at, mut all) = (expression(text), utc(from), Vec::new());
        while let Some(found) = next(&cron, zone, at).filter(|found| *found <= utc(to)) {
            all.push(found.with_timezone(&zone).format("%d %H:%M%:::z").to_string());
            at = found;
        }
        all
    }

    const BRUSSELS: Tz = Tz::Europe__Brussels;
    const NEW_YORK: Tz = Tz::America__New_York;

    #[test]
    fn nothing_is_lost_in_spring() {
        let spring = |text| due(text, BRUSSELS, "2027-03-27T12:00", "2027-03-28T12:00");
        assert_eq!(spring("30 2 * * *"), ["28 03:00+02"]);
        assert_eq!(spring("30 2,14 * * *"), ["27 14:30+01", "28 03:00+02"], "a list, too");
        assert_eq!(spring("*/20 2 * * *"), ["28 03:00+02"], "three of one jump are one");
        assert_eq!(spring("0 2,3 * * *"), ["28 03:00+02"], "it is due at 3 anyway");
        assert_eq!(spring("0 */2 * * *").len(), 13, "{:?}", spring("0 */2 * * *"));
        assert_eq!(spring("0 * * * *").len(), 24, "24 hours pass");
        assert_eq!(due("30 2 * * *", NEW_YORK, "2027-03-14T05:00", "2027-03-15T05:00"), ["14 03:00-04"]);
        assert_eq!(due("30 0 * * *", Tz::Africa__Cairo, "2027-04-29T12:00", "2027-04-30T12:00"), ["30 01:00+03"]);
    }

    #[test]
    fn nothing_is_doubled_in_autumn() {
        let autumn = |text| due(text, BRUSSELS, "2027-10-30T12:00", "2027-10-31T12:00");
        assert_eq!(autumn("30 2 * * *"), ["31 02:30+02"]);
        assert_eq!(autumn("30 2,14 * * *"), ["30 14:30+02", "31 02:30+02"]);
        assert_eq!(autumn("*/20 2 * * *"), ["31 02:00+02", "31 02:20+02", "31 02:40+02"]);
        assert_eq!(autumn("0 * * * *").len(), 24, "24 hours pass");
        assert_eq!(due("30 1 * * *", NEW_YORK, "2027-11-07T03:00", "2027-11-08T03:00"), ["07 01:30-04"]);
    }

    #[test]
    fn days_of_the_month_and_the_week() {
        let utc = |text, to| due(text, Tz::UTC, "2027-01-30T12:00", to);
        assert_eq!(utc("0 3 L * *", "2027-03-01T00:00"), ["31 03:00+00", "28 03:00+00"]);
        assert_eq!(utc("0 3 * * SUN", "2027-02-08T00:00"), ["31 03:00+00", "07 03:00+00"]);
        assert_eq!(utc("0 3 * * TUE#1", "2027-03-03T00:00"), ["02 03:00+00", "02 03:00+00"]);
    }

    /// Minute by minute: an oracle that is too slow to be wrong in the same way.
    fn by_the_minute(cron: &CronExpression, zone: Tz, from: DateTime<Utc>, minutes: i64) -> Vec<DateTime<Utc>> {
        let matches = |local: DateTime<Utc>| cron.at_or_before(local) == Some(local);
        let mut all = Vec::new();
        let mut shown_before = std::collections::BTreeSet::new();
        // Clocks may show a time for the second time: look back far enough to have seen the first.
        for minute in -240..=minutes {
            let at = from + Duration::minutes(minute);
            let (now, before) = (local(zone, at), local(zone, at - Duration::minutes(1)));
            let first_time = shown_before.insert(now);
            let mut is_due = matches(now) && (first_time || cron.every_hour());
            if !cron.every_hour() {
                // The minutes that were jumped over.
                let mut skipped = before + Duration::minutes(1);
                while skipped < now {
                    is_due |= matches(skipped);
                    skipped += Duration::minutes(1);
                }
            }
            if is_due && minute > 0 {
                all.push(at);
            }
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn forwards_backwards_and_minute_by_minute_agree(
            minute in prop_oneof![Just("0".to_owned()), Just("*/20".to_owned()), (0_u32..60).prop_map(|m| m.to_string())],
            hour in prop_oneof![Just("*".to_owned()), Just("*/3".to_owned()), Just("1,2,3".to_owned()), (0_u32..4).prop_map(|h| h.to_string())],
            zone in prop::sample::select(vec![BRUSSELS, NEW_YORK, Tz::Australia__Lord_Howe, Tz::Africa__Cairo, Tz::America__Santiago, Tz::UTC]),
            jump in prop::sample::select(vec!["2027-03-28T00:30", "2027-10-31T00:30", "2027-03-14T06:30", "2027-11-07T05:30",
                "2027-10-02T15:00", "2027-04-03T14:30", "2027-04-29T21:30", "2027-10-28T20:30", "2027-09-05T03:30", "2027-04-04T02:30"]),
            offset in -600_i64..600,
        ) {
            let cron = expression(&format!("{minute} {hour} * * *"));
            let from = utc(jump) + Duration::minutes(offset - 300);
            let expected = by_the_minute(&cron, zone, from, 900);
            let mut found = Vec::new();
            let mut at = from;
            while let Some(due) = next(&cron, zone, at).filter(|due| *due <= from + Duration::minutes(900)) {
                prop_assert!(due > at);
                found.push(due);
                at = due;
            }
            prop_assert_eq!(&found, &expected);
            let mut back = Vec::new();
            let mut at = from + Duration::minutes(900);
            while let Some(due) = last(&cron, zone, at).filter(|due| *due > from) {
                back.push(due);
                at = due - Duration::seconds(1);
            }
            back.reverse();
            prop_assert_eq!(&back, &expected);
        }
    }
}
