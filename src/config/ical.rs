//! iCalendar files (RFC 5545) as windows of a calendar: events with times in UTC, in a zone or floating, whole
//! days, recurrences with exceptions, and single occurrences that were moved or cancelled.
//!
//! A zone is known by its name in the time zone database (or as Windows calls it); `VTIMEZONE` definitions are not evaluated.
//! Floating times are those of the calendar's own zone. What cannot be understood is an error: a window that
//! is quietly missing is a drill in the middle of a sale.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeZone as _};
use chrono_tz::Tz;
use icalendar::parser::{Component, Property, read_calendar, unfold};

use super::calendar::{LONGEST, Lasts, WindowRule, rule};
use crate::error::{self, Result};

/// What Outlook and Exchange call the zones that their users most often write; others are refused by name.
const WINDOWS_ZONES: [(&str, Tz); 14] = [
    ("Romance Standard Time", Tz::Europe__Brussels),
    ("W. Europe Standard Time", Tz::Europe__Berlin),
    ("Central Europe Standard Time", Tz::Europe__Budapest),
    ("Central European Standard Time", Tz::Europe__Warsaw),
    ("GMT Standard Time", Tz::Europe__London),
    ("Greenwich Standard Time", Tz::Atlantic__Reykjavik),
    ("E. Europe Standard Time", Tz::Europe__Chisinau),
    ("FLE Standard Time", Tz::Europe__Kyiv),
    ("GTB Standard Time", Tz::Europe__Bucharest),
    ("Eastern Standard Time", Tz::America__New_York),
    ("Central Standard Time", Tz::America__Chicago),
    ("Mountain Standard Time", Tz::America__Denver),
    ("Pacific Standard Time", Tz::America__Los_Angeles),
    ("UTC", Tz::UTC),
];

/// A time as a property gives it.
#[derive(Debug, Clone, Copy)]
struct When {
    local: NaiveDateTime,
    zone: Tz,
    whole_day: bool,
}

/// The windows in the events of an iCalendar file; `floating` is the zone of times that name none.
pub(super) fn windows(text: &str, floating: Tz, path: &Path) -> Result<Vec<WindowRule>> {
    let wrong = |why: String| {
        error::config(format!("{}: {why}", path.display()))
            .meaning("the calendar is not used at all, so that no window of it is quietly missing")
    };
    let unfolded = unfold(text);
    let calendar = read_calendar(&unfolded).map_err(|_| wrong("this is not an iCalendar file".to_owned()))?;
    let mut events = calendar.components.iter().filter(|c| c.name.as_str().eq_ignore_ascii_case("VEVENT")).peekable();
    if events.peek().is_none() {
        return Err(wrong("there is no event in it".to_owned()));
    }
    let mut windows: Vec<WindowRule> = Vec::new();
    // Index of the recurring window by UID, for the occurrences that were moved.
    let mut by_uid: BTreeMap<String, usize> = BTreeMap::new();
    let mut moved = Vec::new();
    for event in events {
        let name = title(event).unwrap_or_else(|| "an event without a summary".to_owned());
        let cancelled = value(event, "STATUS").is_some_and(|status| status.eq_ignore_ascii_case("CANCELLED"));
        let uid = value(event, "UID").unwrap_or_default().to_owned();
        if let Some(property) = find(event, "RECURRENCE-ID") {
            let of = time(property, floating).map_err(|why| wrong(format!("{name}: {why}")))?;
            moved.push((uid.clone(), of));
        } else if !cancelled {
            by_uid.insert(uid.clone(), windows.len());
        }
        if !cancelled {
            windows.push(window(event, floating).map_err(|why| wrong(format!("{name}: {why}")))?);
        }
    }
    for (uid, of) in moved {
        if let Some(series) = by_uid.get(&uid).and_then(|index| windows.get_mut(*index)) {
            series.except.push(in_zone(of, series.zone));
        }
    }
    Ok(windows)
}

fn window(event: &Component<'_>, floating: Tz) -> std::result::Result<WindowRule, String> {
    let starts = time(find(event, "DTSTART").ok_or("it has no DTSTART")?, floating)?;
    let lasts = match (find(event, "DTEND"), find(event, "DURATION")) {
        (Some(end), _) => {
            let end = time(end, starts.zone)?;
            let days = starts.whole_day && end.whole_day;
            let span = match days || end.zone == starts.zone {
                true => end.local - starts.local,
                false => instant(end) - instant(starts),
            };
            let span = span.to_std().map_err(|_| "it ends before it begins")?;
            if days { Lasts::of(span) } else { exact(span, end.zone == starts.zone) }
        }
        (None, Some(duration)) => duration_of(duration.val.as_str()).ok_or("its DURATION is not one")?,
        (None, None) if starts.whole_day => Lasts::Days(1),
        (None, None) => return Err("it has neither DTEND nor DURATION".to_owned()),
    };
    if lasts.at_most() > LONGEST {
        return Err("it lasts longer than 366 days".to_owned());
    }
    if lasts.at_most().is_zero() {
        return Err("it lasts no time".to_owned());
    }
    if find(event, "EXRULE").is_some() {
        return Err("EXRULE is not understood; write EXDATE".to_owned());
    }
    let rules = event.properties.iter().filter(|p| p.name.as_str().eq_ignore_ascii_case("RRULE"));
    let mut rules = rules.map(|p| rule(p.val.as_str(), starts.local, starts.zone));
    let rule = rules.next().transpose()?;
    if rules.next().is_some() {
        return Err("it has more than one RRULE".to_owned());
    }
    let dates = |name| times(event, name, starts);
    Ok(WindowRule {
        title: title(event),
        starts: starts.local,
        lasts,
        zone: starts.zone,
        rule,
        also: dates("RDATE")?,
        except: dates("EXDATE")?,
    })
}

/// A span between two local times of one zone is so many days of the calendar; else it is time.
fn exact(span: Duration, one_zone: bool) -> Lasts {
    if one_zone { Lasts::of(span) } else { Lasts::Time(span) }
}

fn find<'a>(event: &'a Component<'_>, name: &str) -> Option<&'a Property<'a>> {
    event.properties.iter().find(|p| p.name.as_str().eq_ignore_ascii_case(name))
}

fn value<'a>(event: &'a Component<'_>, name: &str) -> Option<&'a str> {
    find(event, name).map(|p| p.val.as_str().trim())
}

fn title(event: &Component<'_>) -> Option<String> {
    let text = value(event, "SUMMARY")?.replace("\\n", " ").replace("\\N", " ").replace('\\', "");
    (!text.is_empty()).then_some(text)
}

fn parameter<'a>(property: &'a Property<'_>, name: &str) -> Option<&'a str> {
    let found = property.params.iter().find(|p| p.key.as_str().eq_ignore_ascii_case(name))?;
    Some(found.val.as_ref()?.as_str().trim_matches('"'))
}

/// All times of all properties called `name`, in the zone of `starts`.
fn times(event: &Component<'_>, name: &str, starts: When) -> std::result::Result<Vec<NaiveDateTime>, String> {
    let mut all = Vec::new();
    for property in event.properties.iter().filter(|p| p.name.as_str().eq_ignore_ascii_case(name)) {
        if parameter(property, "VALUE").is_some_and(|value| value.eq_ignore_ascii_case("PERIOD")) {
            return Err(format!("{name} with periods is not understood"));
        }
        let zone = zone_of(property, starts.zone)?;
        for text in property.val.as_str().split(',') {
            let when = parse(text, zone)?;
            // A day without a time, beside a series of times: that day's.
            let local = match when.whole_day && !starts.whole_day {
                true => when.local.date().and_time(starts.local.time()),
                false => in_zone(when, starts.zone),
            };
            all.push(local);
        }
    }
    Ok(all)
}

fn time(property: &Property<'_>, floating: Tz) -> std::result::Result<When, String> {
    parse(property.val.as_str(), zone_of(property, floating)?)
}

fn zone_of(property: &Property<'_>, otherwise: Tz) -> std::result::Result<Tz, String> {
    let Some(name) = parameter(property, "TZID") else { return Ok(otherwise) };
    // Some programs write "/mozilla.org/20050126_1/Europe/Brussels".
    let known = |name: &str| name.parse::<Tz>().ok();
    let of_path = || {
        let parts: Vec<&str> = name.split('/').collect();
        (1..parts.len()).find_map(|from| known(&parts[from..].join("/")))
    };
    let of_windows = || WINDOWS_ZONES.iter().find(|(windows, _)| *windows == name).map(|(_, zone)| *zone);
    known(name).or_else(of_windows).or_else(of_path).ok_or_else(|| format!("the time zone \"{name}\" is not known"))
}

fn parse(text: &str, zone: Tz) -> std::result::Result<When, String> {
    let text = text.trim();
    let wrong = || format!("\"{text}\" is not a time");
    if text.len() == 8 {
        let day = NaiveDate::parse_from_str(text, "%Y%m%d").map_err(|_| wrong())?;
        return Ok(When { local: day.and_time(NaiveTime::MIN), zone, whole_day: true });
    }
    let (text, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(text) => (text, Tz::UTC),
        None => (text, zone),
    };
    let local = NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S").map_err(|_| wrong())?;
    Ok(When { local, zone, whole_day: false })
}

fn instant(when: When) -> chrono::DateTime<chrono::Utc> {
    super::zone::instant(when.local, when.zone, super::zone::Twice::First)
}

/// The same moment by clocks in `zone`; a whole day is the same day everywhere.
fn in_zone(when: When, zone: Tz) -> NaiveDateTime {
    match when.whole_day || when.zone == zone {
        true => when.local,
        false => zone.from_utc_datetime(&instant(when).naive_utc()).naive_local(),
    }
}

/// `P7W`, `P1DT2H30M`, `PT90M`.
fn duration_of(text: &str) -> Option<Lasts> {
    let text = text.trim().trim_start_matches('+').strip_prefix('P')?;
    let (date, time) = text.split_once('T').map_or((text, ""), |(date, time)| (date, time));
    let mut total: u64 = 0;
    for (part, units) in [(date, &[('W', 604_800), ('D', 86_400)][..]), (time, &[('H', 3600), ('M', 60), ('S', 1)][..])]
    {
        let mut digits = String::new();
        for c in part.chars() {
            match c.is_ascii_digit() {
                true => digits.push(c),
                false => {
                    let (_, seconds) = units.iter().find(|(unit, _)| *unit == c)?;
                    total = total.checked_add(digits.parse::<u64>().ok()?.checked_mul(*seconds)?)?;
                    digits.clear();
                }
            }
        }
        if !digits.is_empty() {
            return None;
        }
    }
    Some(if time.is_empty() { Lasts::of(Duration::from_secs(total)) } else { Lasts::Time(Duration::from_secs(total)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(events: &str) -> Result<Vec<WindowRule>> {
        let text = format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{}END:VCALENDAR\r\n", events.replace('\n', "\r\n"));
        windows(&text, Tz::Europe__Brussels, Path::new("retail.ics"))
    }

    fn one(lines: &str) -> std::result::Result<WindowRule, String> {
        let text = format!("BEGIN:VEVENT\nUID:1\nSUMMARY:Sale\n{lines}\nEND:VEVENT\n");
        read(&text).map(|mut windows| windows.remove(0)).map_err(|e| e.message())
    }

    fn shown(lines: &str) -> String {
        let w = one(lines).expect("an event");
        format!("{} {} {:?}", w.starts, w.zone, w.lasts)
    }

    #[test]
    fn times_in_all_forms() {
        let at = |a: &str, b: &str| shown(&format!("{a}\n{b}"));
        assert_eq!(at("DTSTART:20261123T080000Z", "DTEND:20261123T100000Z"), "2026-11-23 08:00:00 UTC Time(7200s)");
        assert_eq!(at("DTSTART:20261123T080000", "DURATION:PT90M"), "2026-11-23 08:00:00 Europe/Brussels Time(5400s)");
        assert_eq!(
            at("DTSTART;TZID=America/New_York:20261123T080000", "DTEND;TZID=Europe/Brussels:20261123T150000"),
            "2026-11-23 08:00:00 America/New_York Time(3600s)"
        );
        assert_eq!(
            at("DTSTART;TZID=\"Romance Standard Time\":20261123T080000", "DURATION:P1W"),
            "2026-11-23 08:00:00 Europe/Brussels Days(7)"
        );
        assert_eq!(
            at("DTSTART;TZID=/mozilla.org/20050126_1/Europe/Paris:20261123T080000", "DURATION:P1D"),
            "2026-11-23 08:00:00 Europe/Paris Days(1)"
        );
        assert_eq!(
            at("DTSTART;VALUE=DATE:20261123", "DTEND;VALUE=DATE:20270104"),
            "2026-11-23 00:00:00 Europe/Brussels Days(42)"
        );
        assert_eq!(shown("DTSTART;VALUE=DATE:20261123"), "2026-11-23 00:00:00 Europe/Brussels Days(1)");
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_name() {
        for (lines, why) in [
            ("DTSTART:20261123T080000Z", "neither DTEND nor DURATION"),
            ("DTSTART;TZID=Nowhere:20261123T080000\nDURATION:PT1H", "the time zone \"Nowhere\" is not known"),
            ("DTSTART:yesterday\nDURATION:PT1H", "\"yesterday\" is not a time"),
            ("DTEND:20261123T080000Z", "no DTSTART"),
            ("DTSTART:20261123T080000Z\nDTEND:20261122T080000Z", "ends before it begins"),
            ("DTSTART:20261123T080000Z\nDURATION:PT1H\nRRULE:FREQ=SOMETIMES", "SOMETIMES"),
            ("DTSTART:20261123T080000Z\nDURATION:PT1H\nRRULE:FREQ=SECONDLY", "at most every hour"),
            ("DTSTART:20261123T080000Z\nDURATION:PT1H\nRDATE;VALUE=PERIOD:20261123T080000Z/PT1H", "periods"),
            ("DTSTART:20261123T080000Z\nDURATION:P400D", "longer than 366 days"),
        ] {
            let said = one(lines).expect_err(lines);
            assert!(said.contains(why) && said.contains("Sale") && said.contains("retail.ics"), "{said}");
        }
        assert!(read("").expect_err("empty").message().contains("no event"));
        assert!(windows("hello", Tz::UTC, Path::new("x.ics")).is_err());
        assert!(windows("", Tz::UTC, Path::new("x.ics")).is_err());
    }

    #[test]
    fn exceptions_moves_and_cancellations() {
        let windows = read(
            "BEGIN:VEVENT\nUID:a\nDTSTART;TZID=Europe/Brussels:20260904T220000\nDURATION:PT4H\n\
             RRULE:FREQ=WEEKLY;UNTIL=20261231T225959Z\nEXDATE;TZID=Europe/Brussels:20260911T220000\n\
             EXDATE:20260918T200000Z\nEXDATE;VALUE=DATE:20260925\nEND:VEVENT\n\
             BEGIN:VEVENT\nUID:a\nRECURRENCE-ID;TZID=Europe/Brussels:20261002T220000\n\
             DTSTART;TZID=Europe/Brussels:20261003T220000\nDURATION:PT4H\nSUMMARY:moved\\, once\nEND:VEVENT\n\
             BEGIN:VEVENT\nUID:a\nRECURRENCE-ID;TZID=Europe/Brussels:20261009T220000\nSTATUS:CANCELLED\n\
             DTSTART;TZID=Europe/Brussels:20261009T220000\nDURATION:PT4H\nEND:VEVENT\n\
             BEGIN:VEVENT\nUID:b\nSTATUS:CANCELLED\nDTSTART:20260101T000000Z\nDURATION:PT1H\nEND:VEVENT\n",
        )
        .expect("a calendar");
        assert_eq!(windows.len(), 2, "{windows:?}");
        let except: Vec<String> = windows[0].except.iter().map(ToString::to_string).collect();
        let expected = ["2026-09-11 22", "2026-09-18 22", "2026-09-25 22", "2026-10-02 22", "2026-10-09 22"];
        assert_eq!(except, expected.map(|day| format!("{day}:00:00")));
        assert_eq!(windows[1].title.as_deref(), Some("moved, once"));
        assert_eq!(windows[1].starts.to_string(), "2026-10-03 22:00:00");
    }

    #[test]
    fn long_lines_are_unfolded() {
        let window =
            one("DTSTART:20261123T080000Z\nDURATION:PT1H\nDESCRIPTION:a\n long story\nRRULE:FREQ=WEEKLY;BY\n DAY=MO");
        assert!(window.expect("an event").rule.is_some());
    }
}
