//! One watched database: what is waiting to be stored, what was missed, when it is scanned next. Decides
//! and does nothing.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::super::live::{self, Mark};
use super::super::name::FileName;
use super::super::tenants::Tenant;

/// More names than this are not kept: a scan finds them.
const MAX_PENDING: usize = 100_000;

/// Names in one piece.
const MAX_BATCH: usize = 5_000;

/// After so many tries a file that stays torn is left to the scan, which judges it.
const TRIES: u32 = 30;

/// The first pause after a capture that failed.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(30);

/// What is known of a watched database.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) tenant: Tenant,
    pub(super) directory: Arc<Path>,
    pub(super) uuid: Option<String>,
    /// Folder of its pieces.
    pub(super) key: String,
    /// Whether its directories are watched.
    pub(super) watched: bool,
    /// Files to be stored, and how often that was tried.
    pending: HashMap<FileName, u32>,
    /// Files that pieces hold since the last capture.
    stored: HashSet<FileName>,
    /// How often something was missed.
    losses: u64,
    /// The same when the running capture began.
    losses_then: u64,
    /// Whether everything is stored but what is pending: a capture was complete, and nothing was missed since
    /// it began.
    proven: bool,
    failures: u32,
    pub(super) next_scan: DateTime<Utc>,
    /// The newest mark that was proven and stored.
    pub(super) mark: Option<Mark>,
    /// The last piece, where it holds no more than a mark.
    pub(super) idle_piece: Option<String>,
}

impl Tracked {
    pub(super) fn new(tenant: Tenant, uuid: Option<String>, now: DateTime<Utc>) -> Self {
        Self {
            directory: tenant.directory().into(),
            key: live::tenant_key(&tenant, uuid.as_deref()),
            tenant,
            uuid,
            watched: false,
            pending: HashMap::new(),
            stored: HashSet::new(),
            losses: 0,
            losses_then: 0,
            proven: false,
            failures: 0,
            next_scan: now,
            mark: None,
            idle_piece: None,
        }
    }

    /// A file was written.
    pub(super) fn written(&mut self, name: FileName, now: DateTime<Utc>) {
        if self.stored.contains(&name) {
            return;
        }
        if self.pending.len() >= MAX_PENDING {
            self.pending = HashMap::new();
            self.missed(now);
            return;
        }
        self.pending.entry(name).or_default();
    }

    /// Something may not have been seen: only a scan can tell.
    pub(super) fn missed(&mut self, now: DateTime<Utc>) {
        self.losses += 1;
        self.proven = false;
        self.next_scan = self.next_scan.min(now);
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven && self.watched
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes names to be stored now; whether these are all, so that a mark from before holds when they are stored.
    pub(super) fn batch(&mut self) -> (HashMap<FileName, u32>, bool) {
        if self.pending.len() <= MAX_BATCH {
            return (std::mem::take(&mut self.pending), true);
        }
        let names: Vec<FileName> = self.pending.keys().take(MAX_BATCH).copied().collect();
        (names.into_iter().filter_map(|name| self.pending.remove_entry(&name)).collect(), false)
    }

    /// These were stored.
    pub(super) fn stored(&mut self, names: impl Iterator<Item = FileName>) {
        if self.stored.len() >= MAX_PENDING {
            self.stored.clear();
        }
        self.stored.extend(names);
    }

    /// These could not be stored now: torn, unreadable, or the store did not answer (`tried` is then false).
    pub(super) fn again(&mut self, names: impl Iterator<Item = (FileName, u32)>, tried: bool, now: DateTime<Utc>) {
        for (name, tries) in names {
            match tries + u32::from(tried) {
                TRIES.. => self.missed_until_scan(now),
                tries => drop(self.pending.insert(name, tries)),
            }
        }
    }

    /// A file stays torn: it is written very slowly, or damaged. The next scan judges it, when it comes.
    fn missed_until_scan(&mut self, now: DateTime<Utc>) {
        let planned = self.next_scan;
        self.missed(now);
        self.next_scan = planned;
    }

    /// Whether a scan is due, where one comes `every` so often. One that is further away was planned by a clock that
    /// was set back since.
    pub(super) fn scan_is_due(&self, now: DateTime<Utc>, every: Duration) -> bool {
        self.next_scan <= now || (self.next_scan - now).to_std().is_ok_and(|wait| wait > every)
    }

    pub(super) fn scan_begins(&mut self) {
        self.losses_then = self.losses;
    }

    /// A capture ended: `complete`, or not, or it failed (`None`); `next` is when the next one is due.
    pub(super) fn scan_ended(&mut self, complete: Option<bool>, next: DateTime<Utc>, now: DateTime<Utc>) {
        match complete {
            Some(complete) => {
                self.stored.clear();
                self.failures = 0;
                self.proven = complete && self.losses == self.losses_then;
                self.next_scan = if self.losses == self.losses_then { next } else { now };
            }
            None => {
                let pause = FIRST_PAUSE * 2_i32.pow(self.failures.min(10));
                self.failures += 1;
                self.next_scan = (now + pause).min(next);
            }
        }
    }
}

/// When the next scan is due: `every` so often, and shortly before Odoo collects.
pub(super) fn next_scan(
    now: DateTime<Utc>,
    every: Duration,
    collection: Option<DateTime<Utc>>,
    before: Duration,
) -> DateTime<Utc> {
    let span = |duration| TimeDelta::from_std(duration).unwrap_or(TimeDelta::days(365));
    let regular = now + span(every);
    match collection.map(|due| due - span(before)) {
        Some(eve) if eve > now => regular.min(eve),
        _ => regular,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracked() -> (Tracked, DateTime<Utc>) {
        let now = DateTime::from_timestamp(1_000_000, 0).expect("valid");
        let tenant = Tenant { database: "shop".into(), data_dir: "/odoo".into() };
        let mut tracked = Tracked::new(tenant, None, now);
        tracked.watched = true;
        (tracked, now)
    }

    fn name(n: u32) -> FileName {
        let mut sha1 = [0; 20];
        sha1[..4].copy_from_slice(&n.to_be_bytes());
        FileName::new(sha1)
    }

    #[test]
    fn only_a_complete_scan_without_a_loss_proves() {
        let (mut t, now) = tracked();
        let later = now + TimeDelta::hours(1);
        assert!(!t.is_proven());
        t.scan_begins();
        t.scan_ended(Some(false), later, now);
        assert!(!t.is_proven());
        t.scan_begins();
        t.missed(now);
        t.scan_ended(Some(true), later, now);
        assert!(!t.is_proven(), "something was missed while it scanned");
        assert_eq!(t.next_scan, now, "so it scans again");
        t.scan_begins();
        t.scan_ended(Some(true), later, now);
        assert!(t.is_proven());
        assert_eq!(t.next_scan, later);
        t.missed(now);
        assert!(!t.is_proven());
        assert_eq!(t.next_scan, now);
    }

    #[test]
    fn memory_is_bounded_and_what_does_not_fit_is_scanned() {
        let (mut t, now) = tracked();
        t.scan_begins();
        t.scan_ended(Some(true), now + TimeDelta::hours(1), now);
        (0..MAX_PENDING as u32).for_each(|n| t.written(name(n), now));
        assert!(t.is_proven());
        let (batch, all) = t.batch();
        assert_eq!((batch.len(), all), (MAX_BATCH, false));
        t.again(batch.into_iter(), false, now);
        t.written(name(u32::MAX), now);
        assert!(!t.is_proven() && !t.has_pending());
        assert_eq!(t.next_scan, now);
    }

    #[test]
    fn a_torn_file_is_tried_again_and_then_left_to_the_scan() {
        let (mut t, now) = tracked();
        let later = now + TimeDelta::hours(1);
        t.scan_begins();
        t.scan_ended(Some(true), later, now);
        t.written(name(1), now);
        for _ in 1..TRIES {
            let (batch, all) = t.batch();
            assert!(all && batch.len() == 1 && t.is_proven());
            t.again(batch.into_iter(), true, now);
        }
        let (batch, _) = t.batch();
        t.again(batch.into_iter(), true, now);
        assert!(!t.has_pending() && !t.is_proven(), "a damaged file leaves the proof to a scan");
        assert_eq!(t.next_scan, later, "which comes when it is due");
        t.stored([name(2)].into_iter());
        t.written(name(2), now);
        assert!(!t.has_pending(), "what is stored is not stored again");
    }

    #[test]
    fn scans_come_regularly_and_before_the_collection() {
        let (_, now) = tracked();
        let (hour, minutes) = (Duration::from_secs(3600), Duration::from_secs(180));
        let at = |minutes| now + TimeDelta::minutes(minutes);
        assert_eq!(next_scan(now, hour, None, minutes), at(60));
        assert_eq!(next_scan(now, hour, Some(at(30)), minutes), at(27));
        assert_eq!(next_scan(now, hour, Some(at(600)), minutes), at(60));
        assert_eq!(next_scan(now, hour, Some(at(2)), minutes), at(60), "the eve has begun, and this scan was in it");
        assert_eq!(next_scan(now, hour, Some(at(-5)), minutes), at(60));
    }

    #[test]
    fn a_clock_that_was_a_year_ahead_for_a_while_puts_no_scan_off() {
        let (mut t, now) = tracked();
        let (hour, year) = (Duration::from_secs(3600), TimeDelta::days(366));
        t.scan_begins();
        t.scan_ended(Some(true), next_scan(now + year, hour, None, hour), now + year);
        assert!(!t.scan_is_due(now + year + TimeDelta::minutes(59), hour));
        assert!(t.scan_is_due(now + year + TimeDelta::minutes(60), hour));
        assert!(t.scan_is_due(now, hour), "the clock is right again");
    }

    #[test]
    fn failures_are_repeated_with_patience() {
        let (mut t, now) = tracked();
        let regular = now + TimeDelta::hours(1);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            t.scan_begins();
            t.scan_ended(None, regular, now);
            pauses.push((t.next_scan - now).num_seconds());
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
    }
}
