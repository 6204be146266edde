//! `[environment.retention]`: how long recovery points are kept. Without it nothing is ever deleted.

use std::time::Duration;

use chrono_tz::Tz;

use super::raw::{Located, RawRetention};
use super::repository::positive;
use super::source::Source;
use crate::error::Result;
use crate::units::Span;

const DELETE_AFTER: Duration = Duration::from_secs(7 * 86_400);
const UNREFERENCED_AFTER: Duration = Duration::from_secs(3 * 86_400);
const MINIMUM: u32 = 2;

/// Which recovery points of an environment are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Every moment of the last so long.
    pub recent: Duration,
    /// The last base backup of each of so many days.
    pub daily: u32,
    /// The last base backup of each of so many weeks.
    pub weekly: u32,
    /// The last base backup of each of so many months.
    pub monthly: u32,
    /// The last base backup of each of so many years.
    pub yearly: u32,
    /// So many base backups whatever their age; at least 1.
    pub minimum_base_backups: u32,
    /// Pause between retiring and deleting.
    pub delete_after: Duration,
    /// Objects that nothing refers to are left alone for so long.
    pub unreferenced_after: Duration,
    /// Where days, weeks, months and years begin.
    pub time_zone: Tz,
}

/// Judges `[environment.retention]`.
pub(super) fn retention(source: &Source, raw: RawRetention) -> Result<Retention> {
    let span = |key, raw: Option<Located<Span>>, default| raw.map_or(Ok(default), |raw| positive(source, key, &raw));
    let minimum = match &raw.minimum_base_backups {
        Some(minimum) if minimum.value == 0 => {
            return Err(source
                .error(&minimum.span, "`minimum_base_backups` is zero")
                .meaning("with no backups for a while, everything could be deleted")
                .hint("1 keeps the newest base backup whatever its age; the default is 2"));
        }
        minimum => minimum.as_ref().map_or(MINIMUM, |minimum| minimum.value),
    };
    let time_zone = match &raw.time_zone {
        None => Tz::UTC,
        Some(zone) => zone.value.parse().map_err(|_| {
            source
                .error(&zone.span, format!("\"{}\" is not the name of a time zone", zone.value))
                .hint("write for example \"Europe/Berlin\" or \"UTC\"")
        })?,
    };
    Ok(Retention {
        recent: positive(source, "recent", &raw.recent)?,
        daily: raw.daily.unwrap_or_default(),
        weekly: raw.weekly.unwrap_or_default(),
        monthly: raw.monthly.unwrap_or_default(),
        yearly: raw.yearly.unwrap_or_default(),
        minimum_base_backups: minimum,
        delete_after: span("delete_after", raw.delete_after, DELETE_AFTER)?,
        unreferenced_after: span("unreferenced_after", raw.unreferenced_after, UNREFERENCED_AFTER)?,
        time_zone,
    })
}
