//! `[[calendar]]`: times in which something is forbidden, slower or more urgent than usual.
//!
//! Windows are kept as rules, not as intervals; `schedule/windows.rs` unrolls them. Rules count in local time: "every
//! Friday at 22:00" stays 22:00 when clocks change.

use std::path::Path;
use std::time::Duration;

use chrono::NaiveDateTime;
use chrono_tz::Tz;
use rrule::{RRule, Unvalidated, Validated};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Environment;
use super::check::is_name;
use super::estate::Purpose;
use super::ical;
use super::job::chosen;
use super::raw::Located;
use super::read::text;
use super::repository::positive;
use super::source::Source;
use super::zone::{local, zone};
use crate::error::Result;
use crate::units::{ByteSize, Span};

/// The longest window: what lasts longer is no window, but the rule.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Times with effects on some environments.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar {
    /// Its name, unique in the estate; stands in the ledger beside what it put off.
    pub name: String,
    /// Why it exists, for people.
    pub title: Option<String>,
    /// Whether its effects hold in its windows, or outside of them.
    pub kind: CalendarKind,
    /// The environments that it is for.
    pub environments: Vec<String>,
    /// What it does.
    pub effects: Vec<Effect>,
    /// Most bytes that base backups read in a second, with [`Effect::SlowBaseBackups`].
    pub max_rate: Option<ByteSize>,
    /// Recovery point objective while it holds, where that is tighter than usual.
    pub rpo: Option<Duration>,
    /// Recovery time objective, likewise.
    pub rto: Option<Duration>,
    /// When.
    pub windows: Vec<WindowRule>,
}

/// Whether a calendar's effects hold inside or outside of its windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CalendarKind {
    /// In its windows.
    #[default]
    Deny,
    /// Outside of them: only in its windows the thing is allowed, unless another calendar denies it.
    Allow,
}

/// What a calendar does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// No drill begins.
    ForbidDrills,
    /// No restore to production, but by breaking glass.
    ForbidRestores,
    /// Base backups read no faster than `max_rate`.
    SlowBaseBackups,
}

/// One or many windows.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowRule {
    /// What it is, for people.
    pub title: Option<String>,
    /// When the first one begins, by clocks in `zone`.
    pub starts: NaiveDateTime,
    /// How long each lasts.
    pub lasts: Lasts,
    /// The zone whose clocks count.
    pub zone: Tz,
    /// How it comes back, in local time; `None`: it does not.
    pub rule: Option<RRule<Validated>>,
    /// Further beginnings.
    pub also: Vec<NaiveDateTime>,
    /// Beginnings that do not count.
    pub except: Vec<NaiveDateTime>,
}

/// How long a window lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// So many days of the calendar, whatever clocks do meanwhile.
    Days(u32),
    /// So much time.
    Time(Duration),
}

/// Times in which something is forbidden, slower or more urgent than usual.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Calendar")]
pub(super) struct RawCalendar {
    /// Its name, unique in the estate; stands in the ledger beside what it put off.
    pub(super) name: Located<String>,
    /// Why it exists, for people.
    title: Option<Located<String>>,
    /// `deny`: the effects hold in its windows. `allow`: they hold outside of them. Default `deny`; deny wins over allow.
    #[serde(default)]
    kind: CalendarKind,
    /// Names of the environments that it is for; with neither this nor `purposes`: all.
    environments: Option<Located<Vec<Located<String>>>>,
    /// It is for the environments of these purposes too.
    #[serde(default)]
    purposes: Vec<Purpose>,
    /// The zone whose clocks its windows are about, such as `Europe/Brussels`; default `UTC`.
    time_zone: Option<Located<String>>,
    /// What it does: `forbid-drills`, `forbid-restores`, `slow-base-backups`.
    #[serde(default)]
    effects: Vec<Located<Effect>>,
    /// With `slow-base-backups`: most bytes that a base backup reads in a second.
    max_rate: Option<Located<ByteSize>>,
    /// Objectives that are tighter than usual.
    objectives: Option<Located<RawSeasonObjectives>>,
    /// When.
    #[serde(default)]
    window: Vec<Located<RawWindow>>,
    /// An iCalendar file whose events are windows too, relative to this file.
    ical: Option<Located<String>>,
}

/// Objectives while a calendar holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SeasonObjectives")]
struct RawSeasonObjectives {
    /// Recovery point objective; counts where it is tighter than the environment's.
    rpo: Option<Located<Span>>,
    /// Recovery time objective, likewise.
    rto: Option<Located<Span>>,
}

/// One or many windows of a calendar.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Window")]
struct RawWindow {
    /// What it is, for people.
    title: Option<Located<String>>,
    /// When the first one begins, by the calendar's clocks: `2026-11-23` or `2026-11-23T08:00`.
    starts: Located<String>,
    /// How long each lasts; whole days are days of the calendar. Exactly one of `lasts` and `ends` is given.
    lasts: Option<Located<Span>>,
    /// When the first one ends.
    ends: Option<Located<String>>,
    /// How it comes back, as RFC 5545 says: `FREQ=YEARLY;BYMONTH=11;BYDAY=4FR`; absent: it does not.
    rrule: Option<Located<String>>,
    /// Beginnings that do not count.
    #[serde(default)]
    except: Vec<Located<String>>,
}

/// Judges one calendar; `environments` are all of the estate, `read` gives the text of an iCalendar file.
pub(super) fn calendar(
    source: &Source,
    raw: RawCalendar,
    environments: &[Environment],
    read: &mut dyn FnMut(&Path) -> Result<String>,
) -> Result<Calendar> {
    if !is_name(&raw.name.value) {
        return Err(source
            .error(&raw.name.span, "this is not the name of a calendar")
            .hint("use up to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or digit"));
    }
    let slows = raw.effects.iter().any(|e| e.value == Effect::SlowBaseBackups);
    match &raw.max_rate {
        None if slows => {
            return Err(source
                .error(&raw.name.span, "this calendar slows base backups down and does not say how much")
                .hint("add for example max_rate = \"20MiB\""));
        }
        Some(rate) if !slows => {
            return Err(
                source.error(&rate.span, "`max_rate` is given, but \"slow-base-backups\" is not among the effects")
            );
        }
        Some(rate) if !(32 << 10..=1 << 30).contains(&rate.value.0) => {
            return Err(source
                .error(&rate.span, format!("PostgreSQL cannot limit a base backup to {} per second", rate.value))
                .hint("it accepts 32 KiB to 1 GiB"));
        }
        _ => {}
    }
    if raw.kind == CalendarKind::Allow {
        let strange = raw.effects.iter().find(|e| e.value == Effect::SlowBaseBackups).map(|e| &e.span);
        if let Some(span) = strange.or(raw.objectives.as_ref().map(|o| &o.span)) {
            return Err(source
                .error(
                    span,
                    "a calendar of kind \"allow\" says when something forbidden is allowed; this is not forbidden",
                )
                .hint("make it a calendar of its own, of kind \"deny\""));
        }
    }
    let objectives = raw.objectives.as_ref().map(|o| &o.value);
    let objective = |key, raw: Option<&Located<Span>>| raw.map(|raw| positive(source, key, raw)).transpose();
    let (rpo, rto) = (
        objective("rpo", objectives.and_then(|o| o.rpo.as_ref()))?,
        objective("rto", objectives.and_then(|o| o.rto.as_ref()))?,
    );
    if raw.effects.is_empty() && rpo.is_none() && rto.is_none() {
        return Err(source
            .error(&raw.name.span, "this calendar has no effect")
            .hint("add effects = [\"forbid-drills\"], or objectives = { rpo = \"10s\" }"));
    }
    let zone = zone(source, raw.time_zone.as_ref())?;
    let mut windows = Vec::new();
    for raw in raw.window {
        windows.push(window(source, raw, zone)?);
    }
    if let Some(file) = &raw.ical {
        let path = source.resolve(&text(source, "ical", file)?);
        let events = read(&path).and_then(|text| ical::windows(&text, zone, &path));
        windows.extend(events.map_err(|e| e.context(source.place(&file.span)))?);
    }
    if windows.is_empty() {
        return Err(source
            .error(&raw.name.span, "this calendar has no window")
            .hint("add [[calendar.window]], or ical = \"file.ics\""));
    }
    Ok(Calendar {
        environments: chosen(source, raw.environments, &raw.purposes, environments)?,
        title: raw.title.as_ref().map(|title| text(source, "title", title)).transpose()?,
        name: raw.name.value,
        kind: raw.kind,
        effects: raw.effects.into_iter().map(|e| e.value).collect(),
        max_rate: raw.max_rate.map(|rate| rate.value),
        rpo,
        rto,
        windows,
    })
}

fn window(source: &Source, raw: Located<RawWindow>, zone: Tz) -> Result<WindowRule> {
    let (raw, span) = (raw.value, raw.span);
    let time = |raw: &Located<String>| {
        local(&raw.value).ok_or_else(|| {
            source
                .error(&raw.span, format!("\"{}\" is not a local time", raw.value))
                .hint("write \"2026-11-23\" or \"2026-11-23T08:00\", as clocks in the calendar's time_zone show it")
        })
    };
    let starts = time(&raw.starts)?;
    let (lasts, at) = match (&raw.lasts, &raw.ends) {
        (Some(lasts), None) => (Lasts::of(positive(source, "lasts", lasts)?), &lasts.span),
        (None, Some(ends)) => match (time(ends)? - starts).to_std() {
            Ok(span) if !span.is_zero() => (Lasts::of(span), &ends.span),
            _ => return Err(source.error(&ends.span, "this window ends before it begins")),
        },
        _ => {
            return Err(source
                .error(&span, "a window says how long it lasts, or when it ends")
                .hint("give it one of `lasts` and `ends`"));
        }
    };
    if lasts.at_most() > LONGEST {
        return Err(source.error(at, "a window lasts at most 366 days"));
    }
    let rule = raw.rrule.as_ref().map(|raw| {
        rule(&raw.value, starts, zone)
            .map_err(|why| source.error(&raw.span, format!("\"{}\" is not a recurrence rule: {why}", raw.value)))
    });
    Ok(WindowRule {
        title: raw.title.as_ref().map(|title| text(source, "title", title)).transpose()?,
        rule: rule.transpose()?,
        starts,
        lasts,
        zone,
        also: Vec::new(),
        except: raw.except.iter().map(time).collect::<Result<_>>()?,
    })
}

/// Reads a recurrence rule to local time, in which it is unrolled: `UNTIL` in UTC, as RFC 5545 wants it beside a zone,
/// becomes local. Says why it is none.
pub(super) fn rule(text: &str, starts: NaiveDateTime, zone: Tz) -> std::result::Result<RRule<Validated>, String> {
    use chrono::{NaiveDate, TimeZone as _};
    let text = text.trim();
    let text = text.strip_prefix("RRULE:").unwrap_or(text);
    let mut parts = Vec::new();
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once('=') else { return Err(format!("\"{part}\" is no NAME=value")) };
        let (key, value) = (key.to_ascii_uppercase(), value.to_ascii_uppercase());
        let value = match (key.as_str(), value.as_str()) {
            ("FREQ", "SECONDLY" | "MINUTELY") => return Err("windows come back at most every hour".to_owned()),
            ("UNTIL", until) => {
                let wrong = || format!("\"{until}\" is no time");
                let local = match until.strip_suffix('Z') {
                    Some(utc) => {
                        let at = NaiveDateTime::parse_from_str(utc, "%Y%m%dT%H%M%S").map_err(|_| wrong())?;
                        zone.from_utc_datetime(&at).naive_local()
                    }
                    None if until.contains('T') => {
                        NaiveDateTime::parse_from_str(until, "%Y%m%dT%H%M%S").map_err(|_| wrong())?
                    }
                    // A day: all of it.
                    None => NaiveDate::parse_from_str(until, "%Y%m%d")
                        .ok()
                        .and_then(|day| day.and_hms_opt(23, 59, 59))
                        .ok_or_else(wrong)?,
                };
                format!("{}Z", local.format("%Y%m%dT%H%M%S"))
            }
            (_, value) => value.to_owned(),
        };
        parts.push(format!("{key}={value}"));
    }
    let rule: RRule<Unvalidated> = parts.join(";").parse().map_err(|e: rrule::RRuleError| e.to_string())?;
    rule.validate(starts.and_utc().with_timezone(&rrule::Tz::UTC)).map_err(|e| e.to_string())
}

impl Lasts {
    /// Whole days are days of the calendar.
    pub(super) fn of(span: Duration) -> Self {
        const DAY: u64 = 86_400;
        match (span.as_secs() % DAY, span.subsec_nanos(), u32::try_from(span.as_secs() / DAY)) {
            (0, 0, Ok(days)) if days > 0 => Lasts::Days(days),
            _ => Lasts::Time(span),
        }
    }

    /// The most time that it can last.
    pub fn at_most(self) -> Duration {
        match self {
            // A day of the calendar is at most an hour or two longer than 24.
            Lasts::Days(days) => Duration::from_secs(86_400) * days,
            Lasts::Time(span) => span,
        }
    }
}
