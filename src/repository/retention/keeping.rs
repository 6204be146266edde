//! What the rules keep, gathered rule by rule, each with its reason; and the verdicts that follow.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, TimeDelta, Utc};

use super::rules::{Base, Capture, Demand, Export, Facts, Kind, Until, Verdict, Why, why};
use crate::config::Retention;
use crate::evidence::bodies_retention::{Hold, HoldScope};
use crate::units::{Lsn, Span};

/// Clocks of two hosts may differ by so much; points so near to a border count as inside.
pub(super) const CLOCKS: TimeDelta = TimeDelta::minutes(5);

/// A span that is restorable, and what it is kept for.
struct Kept {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    why: Why,
}

/// What is kept so far.
pub(super) struct Keeping<'f> {
    facts: &'f Facts,
    /// Why base backups stay, by entry.
    pub(super) why: BTreeMap<u64, Vec<Why>>,
    pub(super) demands: Vec<Demand>,
    /// What filestores and configuration must go with.
    spans: Vec<Kept>,
}

impl<'f> Keeping<'f> {
    /// Nothing yet.
    pub(super) fn new(facts: &'f Facts) -> Self {
        Self { facts, why: BTreeMap::new(), demands: Vec::new(), spans: Vec::new() }
    }

    fn keep(&mut self, base: &Base, because: Why) {
        let reasons = self.why.entry(base.sequence).or_default();
        if !reasons.contains(&because) {
            reasons.push(because);
        }
    }

    fn usable(&self) -> impl DoubleEndedIterator<Item = &'f Base> + use<'f> {
        self.facts.bases.iter().filter(|b| b.broken.is_none())
    }

    /// Every moment from `from` on, on every line of history that was written to since.
    pub(super) fn recent(&mut self, rules: &Retention, from: DateTime<Utc>) {
        let early = from.checked_sub_signed(margin(rules)).unwrap_or(from);
        let span = Span(rules.recent);
        for base in self.facts.bases.iter().filter(|b| b.stop_time > early) {
            self.keep(base, why("recent", format!("within the last {span}")));
        }
        let newest = self.facts.lines.iter().map(|l| l.timeline).max();
        for line in self.facts.lines.iter().filter(|l| Some(l.timeline) == newest || l.written >= early) {
            let on_line: Vec<&Base> = self.usable().filter(|b| b.lines.contains(&line.timeline)).collect();
            let anchor = on_line.iter().filter(|b| b.stop_time <= early).max_by_key(|b| (b.stop, b.sequence)).copied();
            if let Some(anchor) = anchor {
                self.keep(
                    anchor,
                    why("reaches_recent", format!("recovery to the oldest moment of the last {span} starts from it")),
                );
            }
            if on_line.is_empty() {
                // A base backup may be on its way, and only its WAL is there so far.
                self.demands.push(Demand { line: line.timeline, from: Lsn(0), until: Until::End });
            }
            let recent = on_line.iter().filter(|b| b.stop_time > early).copied();
            if let Some(start) = recent.chain(anchor).map(|b| b.start).min() {
                self.demands.push(Demand { line: line.timeline, from: start, until: Until::End });
            }
        }
        // A base backup beside every line that was looked at keeps its own WAL.
        for base in self.facts.bases.iter().filter(|b| b.stop_time > early) {
            self.demands.push(own_wal(base));
        }
        self.spans.push(Kept {
            from: early,
            to: DateTime::<Utc>::MAX_UTC,
            why: why("recent", format!("belongs to the last {span}")),
        });
    }

    /// The last base backup of each of the newest days, weeks, months and years that have one.
    pub(super) fn periods(&mut self, rules: &Retention) {
        let day = |b: &Base| b.stop_time.with_timezone(&rules.time_zone).date_naive();
        type Period<'a> = &'a dyn Fn(&Base) -> String;
        let kinds: [(&'static str, u32, Period); 4] = [
            ("daily", rules.daily, &|b| day(b).to_string()),
            ("weekly", rules.weekly, &|b| {
                let week = day(b).iso_week();
                format!("{}-W{:02}", week.year(), week.week())
            }),
            ("monthly", rules.monthly, &|b| day(b).format("%Y-%m").to_string()),
            ("yearly", rules.yearly, &|b| day(b).year().to_string()),
        ];
        let mut newest_first: Vec<&Base> = self.usable().collect();
        newest_first.sort_by_key(|b| std::cmp::Reverse((b.stop_time, b.sequence)));
        for (rule, count, period) in kinds {
            let mut last: Option<String> = None;
            let mut left = count;
            for base in &newest_first {
                let this = period(base);
                if left == 0 || last.as_ref() == Some(&this) {
                    continue;
                }
                self.keep(base, why(rule, format!("the last one of {this}")));
                (last, left) = (Some(this), left - 1);
            }
        }
    }

    /// The newest ones, whatever their age.
    pub(super) fn minimum(&mut self, rules: &Retention) {
        let mut newest_first: Vec<&Base> = self.usable().collect();
        newest_first.sort_by_key(|b| std::cmp::Reverse((b.stop_time, b.sequence)));
        let count = rules.minimum_base_backups.max(1);
        for base in newest_first.into_iter().take(count as usize) {
            self.keep(base, why("minimum", format!("one of the {count} newest that can be restored")));
        }
    }

    pub(super) fn hold(&mut self, hold: &Hold) {
        let until = hold.until.map_or_else(|| "until it is released".to_owned(), |t| format!("until {}", text(t)));
        let because = why("hold", format!("held {until} by {} ({})", hold.id, hold.reason));
        match &hold.scope {
            HoldScope::BaseBackup { id } => {
                for base in self.facts.bases.iter().filter(|b| b.id == *id) {
                    self.keep(base, because.clone());
                    self.demands.push(own_wal(base));
                }
            }
            HoldScope::Times { from, to } => {
                let from = from.checked_sub_signed(CLOCKS).unwrap_or(*from);
                let to = to.checked_add_signed(CLOCKS).unwrap_or(*to);
                self.hold_times(from, to, &because);
                self.spans.push(Kept { from, to, why: because });
            }
            HoldScope::Position { timeline, lsn } => {
                let on_line = self.usable().filter(|b| b.lines.contains(timeline) && b.stop <= *lsn);
                if let Some(base) = on_line.max_by_key(|b| (b.stop, b.sequence)) {
                    self.keep(base, because);
                    self.demands.push(Demand { line: *timeline, from: base.start, until: Until::Position(*lsn) });
                }
            }
        }
    }

    /// A span of time, on every line of history that has it.
    fn hold_times(&mut self, from: DateTime<Utc>, to: DateTime<Utc>, because: &Why) {
        for line in &self.facts.lines {
            let on_line: Vec<&Base> = self.usable().filter(|b| b.lines.contains(&line.timeline)).collect();
            let anchor = on_line.iter().filter(|b| b.stop_time <= from).max_by_key(|b| (b.stop, b.sequence));
            let inside = on_line.iter().filter(|b| b.stop_time > from && b.stop_time <= to);
            let held: Vec<&Base> = inside.chain(anchor).copied().collect();
            held.iter().for_each(|base| self.keep(base, because.clone()));
            if let Some(start) = held.iter().map(|b| b.start).min() {
                self.demands.push(Demand { line: line.timeline, from: start, until: Until::Time(to) });
            }
        }
    }

    /// Base backups that are kept as points of their own: with the WAL that makes them consistent.
    pub(super) fn points(&mut self, recent_from: DateTime<Utc>) {
        for base in self.facts.bases.iter().filter(|b| self.why.contains_key(&b.sequence)) {
            self.demands.push(own_wal(base));
            if base.stop_time < recent_from {
                self.spans.push(Kept {
                    from: base.stop_time,
                    to: base.stop_time,
                    why: why("with_base_backup", format!("belongs to base backup {}", base.id)),
                });
            }
        }
        self.demands.sort_by_key(|d| (d.line, d.from));
        self.demands.dedup();
    }

    pub(super) fn oldest(&self) -> Option<DateTime<Utc>> {
        let kept = self.facts.bases.iter().filter(|b| self.why.contains_key(&b.sequence));
        kept.map(|b| b.stop_time).min()
    }

    pub(super) fn bases(&self, rules: &Retention) -> Vec<Verdict> {
        let verdict = |base: &Base| {
            let reasons = self.why.get(&base.sequence).cloned();
            let goes = || match &base.broken {
                Some(broken) => vec![why("not_restorable", format!("older than {}, and {broken}", Span(rules.recent)))],
                None => vec![why("expired", format!("older than {}, and no rule keeps it", Span(rules.recent)))],
            };
            Verdict {
                kind: Kind::BaseBackup,
                sequence: base.sequence,
                id: base.id.clone(),
                time: base.stop_time,
                database: None,
                stays: reasons.is_some(),
                why: reasons.unwrap_or_else(goes),
            }
        };
        self.facts.bases.iter().map(verdict).collect()
    }

    pub(super) fn captures(&self, oldest: Option<DateTime<Utc>>) -> Vec<Verdict> {
        let captures = &self.facts.captures;
        let mut reasons: BTreeMap<u64, Vec<Why>> = BTreeMap::new();
        // A tenant is known by its uuid or by its place; one that was renamed has captures under both names.
        let mut tenants: BTreeMap<String, Vec<&Capture>> = BTreeMap::new();
        for capture in captures {
            tenants.entry(format!("path {} {}", capture.data_dir, capture.database)).or_default().push(capture);
            if let Some(uuid) = &capture.uuid {
                tenants.entry(format!("uuid {uuid}")).or_default().push(capture);
            }
        }
        for mut of_tenant in tenants.into_values() {
            let newest = of_tenant.iter().max_by_key(|c| c.sequence).expect("a tenant has a capture");
            if self.is_dropped(newest, oldest) {
                continue;
            }
            add(&mut reasons, newest.sequence, &why("newest", format!("the newest of {}", newest.database)));
            of_tenant.sort_by_key(|c| (c.time, c.sequence));
            let times: Vec<DateTime<Utc>> = of_tenant.iter().map(|c| c.time).collect();
            for span in &self.spans {
                for at in around(&times, span.from, span.to) {
                    add(&mut reasons, of_tenant[at].sequence, &span.why);
                }
            }
        }
        let verdict = |c: &Capture| {
            let kept = reasons.get(&c.sequence).cloned();
            Verdict {
                kind: Kind::FilestoreCapture,
                sequence: c.sequence,
                id: c.id.clone(),
                time: c.time,
                database: Some(c.database.clone()),
                stays: kept.is_some(),
                why: kept.unwrap_or_else(|| vec![why("expired", "no kept recovery point goes with it")]),
            }
        };
        captures.iter().map(verdict).collect()
    }

    /// Whether the database was gone before the oldest kept moment: no kept base backup has it, and captures went on
    /// without it. Where captures just do not run any more, the newest one is all there is.
    fn is_dropped(&self, newest: &Capture, oldest: Option<DateTime<Utc>>) -> bool {
        let Some(oldest) = oldest else { return false };
        let kept = || self.facts.bases.iter().filter(|b| self.why.contains_key(&b.sequence));
        newest.scanned < oldest
            && kept().count() > 0
            && kept().all(|b| !b.databases.contains(&newest.database))
            && self.facts.captures.iter().any(|c| c.sequence > newest.sequence && c.scanned >= oldest)
    }

    pub(super) fn exports(&self) -> Vec<Verdict> {
        let mut exports: Vec<&Export> = self.facts.exports.iter().collect();
        exports.sort_by_key(|e| (e.time, e.sequence));
        let times: Vec<DateTime<Utc>> = exports.iter().map(|e| e.time).collect();
        let mut reasons: BTreeMap<u64, Vec<Why>> = BTreeMap::new();
        for span in &self.spans {
            for at in around(&times, span.from, span.to) {
                add(&mut reasons, exports[at].sequence, &span.why);
            }
        }
        if let Some(newest) = exports.iter().max_by_key(|e| e.sequence) {
            add(&mut reasons, newest.sequence, &why("newest", "the newest"));
        }
        let verdict = |e: &Export| {
            let kept = reasons.get(&e.sequence).cloned();
            Verdict {
                kind: Kind::ConfigurationExport,
                sequence: e.sequence,
                id: e.id.clone(),
                time: e.time,
                database: None,
                stays: kept.is_some(),
                why: kept.unwrap_or_else(|| vec![why("expired", "no kept recovery point goes with it")]),
            }
        };
        self.facts.exports.iter().map(verdict).collect()
    }
}

/// How far before the border a point still counts as recent.
fn margin(rules: &Retention) -> TimeDelta {
    CLOCKS.min(TimeDelta::from_std(rules.recent / 24).unwrap_or(CLOCKS))
}

fn own_wal(base: &Base) -> Demand {
    Demand { line: base.timeline, from: base.start, until: Until::Position(base.stop) }
}

fn add(reasons: &mut BTreeMap<u64, Vec<Why>>, sequence: u64, because: &Why) {
    let of = reasons.entry(sequence).or_default();
    if !of.contains(because) {
        of.push(because.clone());
    }
}

/// Of ascending times, those that a span needs: all inside it, the last one before it and the first one behind it.
fn around(times: &[DateTime<Utc>], from: DateTime<Utc>, to: DateTime<Utc>) -> std::ops::Range<usize> {
    let first = times.partition_point(|t| *t < from);
    let behind = times.partition_point(|t| *t <= to);
    first.saturating_sub(1)..(behind + 1).min(times.len())
}

fn text(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
