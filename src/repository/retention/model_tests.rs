//! Random histories against a model that knows nothing of marking: after every run, all that the rules promise can be
//! restored from what is in the store, and after the delays nothing else is left.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use proptest::prelude::*;

use super::hold::{self, Wish};
use super::state::State;
use super::testing::{E, Estate, Taken, Unfinished, rules};
use crate::config::Retention;
use crate::evidence::Body;
use crate::evidence::bodies_retention::HoldScope;

#[derive(Debug, Clone)]
enum Step {
    /// A base backup; on the newest, or of everything.
    Base {
        full: bool,
    },
    /// A base backup that begins now and commits later, or never.
    Begin {
        on: usize,
    },
    Commit,
    Abandon,
    Capture,
    Export,
    Wal(u64),
    Pass(u8),
    Prune,
    HoldBase(usize),
    HoldTimes {
        days_ago: u8,
        for_days: u8,
    },
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|full| Step::Base { full }),
        1 => (0_usize..6).prop_map(|on| Step::Begin { on }),
        1 => Just(Step::Commit),
        1 => Just(Step::Abandon),
        2 => Just(Step::Capture),
        1 => Just(Step::Export),
        2 => (1_u64..4).prop_map(Step::Wal),
        4 => (1_u8..40).prop_map(Step::Pass),
        5 => Just(Step::Prune),
        1 => (0_usize..8).prop_map(Step::HoldBase),
        1 => (0_u8..30, 1_u8..20).prop_map(|(days_ago, for_days)| Step::HoldTimes { days_ago, for_days }),
        1 => Just(Step::Release),
    ]
}

/// What the test knows, beside the program.
#[derive(Default)]
struct Model {
    /// Every base backup ever committed.
    bases: Vec<Taken>,
    /// Commit time of every segment ever archived.
    commits: BTreeMap<u64, DateTime<Utc>>,
    /// Moments that are held, until when, and the id of the hold.
    held: Vec<(DateTime<Utc>, DateTime<Utc>, String)>,
    /// Base backups that are held.
    held_bases: Vec<(u64, DateTime<Utc>, String)>,
}

impl Model {
    /// Whether the state at `time` can be restored from these objects, by a base backup that is not gone.
    fn restores(&self, time: DateTime<Utc>, whole: &BTreeSet<u64>, wal: &BTreeSet<u64>) -> bool {
        self.bases.iter().filter(|b| whole.contains(&b.sequence) && b.entry.stop_time <= time).any(|base| {
            let from = *base.own_wal().start();
            let last = self.commits.iter().filter(|(_, at)| **at <= time).map(|(n, _)| *n).max().unwrap_or(from);
            (from..=last.max(*base.own_wal().end())).all(|n| wal.contains(&n))
        })
    }

    async fn check(&self, estate: &Estate, rules: &Retention, state: &State) {
        let wal = estate.segments().await;
        let mut whole = BTreeSet::new();
        for base in &self.bases {
            if estate.is_whole(base).await && !state.is_gone(base.sequence) {
                whole.insert(base.sequence);
            } else {
                assert!(state.is_gone(base.sequence), "{} lacks objects and is not gone", base.entry.id);
            }
        }
        let Some(newest) = self.commits.values().max() else { return };
        let recent = newest.min(&estate.now()).to_owned() - TimeDelta::from_std(rules.recent).expect("days");
        let first = self.bases.iter().map(|b| b.entry.stop_time).min();
        // Every moment of the last days, as far as there was a base backup before.
        let ends = self.commits.values().chain(self.bases.iter().map(|b| &b.entry.stop_time));
        for time in ends.filter(|t| **t >= recent && first.is_some_and(|first| **t >= first)) {
            assert!(self.restores(*time, &whole, &wal), "{time} is recent and cannot be restored");
        }
        let now = estate.now();
        for (time, _, id) in self.held.iter().filter(|(_, until, _)| *until > now) {
            assert!(self.restores(*time, &whole, &wal), "{time} is held by {id} and cannot be restored");
        }
        for (sequence, _, id) in self.held_bases.iter().filter(|(_, until, _)| *until > now) {
            assert!(whole.contains(sequence), "entry {sequence} is held by {id} and gone");
        }
        // The last base backup of each of the newest periods ever.
        let day = |b: &Taken| b.entry.stop_time.date_naive();
        type Period<'a> = &'a dyn Fn(&Taken) -> (i32, u32);
        let periods: [(u32, Period); 3] = [
            (rules.daily, &|b| (0, day(b).num_days_from_ce().unsigned_abs())),
            (rules.weekly, &|b| (day(b).iso_week().year(), day(b).iso_week().week())),
            (rules.monthly, &|b| (day(b).year(), day(b).month())),
        ];
        for (count, period) in periods {
            let mut last: BTreeMap<(i32, u32), &Taken> = BTreeMap::new();
            let mut ordered: Vec<&Taken> = self.bases.iter().collect();
            ordered.sort_by_key(|b| (b.entry.stop_time, b.sequence));
            ordered.into_iter().for_each(|b| {
                last.insert(period(b), b);
            });
            for base in last.values().rev().take(count as usize) {
                assert!(whole.contains(&base.sequence), "{} is the last of its period and gone", base.entry.id);
            }
        }
    }

    /// Nothing is in the store but what something needs.
    async fn nothing_else_is_left(&self, estate: &Estate) {
        let entries = estate.entries().await;
        let state = State::of(&entries);
        let mut needed: BTreeSet<String> = BTreeSet::new();
        for base in self.bases.iter().filter(|b| !state.is_gone(b.sequence)) {
            needed.extend(base.packs.iter().map(|p| format!("data/{}", p.sha256)));
        }
        for entry in &entries {
            let backup = matches!(
                entry.statement.predicate.body,
                Body::BaseBackup(_) | Body::FilestoreCapture(_) | Body::ConfigurationExport(_)
            );
            if !backup || !state.is_gone(entry.sequence) {
                let named = entry.statement.subject.iter().map(|s| s.name.replacen(&format!("{E}/"), "", 1));
                needed.extend(named.filter(|n| n.starts_with("data/")));
            }
        }
        // Segments of a capture lead to packs of earlier ones.
        let captures = entries.iter().filter(|e| matches!(e.statement.predicate.body, Body::FilestoreCapture(_)));
        let last_gone = captures.clone().filter(|e| !state.is_gone(e.sequence)).count() == 0;
        if !last_gone {
            for capture in captures {
                needed.extend(capture.statement.subject.iter().map(|s| s.name.replacen(&format!("{E}/"), "", 1)));
            }
        }
        let left: BTreeSet<String> = estate.objects("data/").await.difference(&needed).cloned().collect();
        assert!(left.is_empty(), "nothing needs {left:?}");
        let living: Vec<&Taken> = self.bases.iter().filter(|b| !state.is_gone(b.sequence)).collect();
        if let Some(oldest) = living.iter().map(|b| *b.own_wal().start()).min() {
            let stale: Vec<u64> = estate.segments().await.into_iter().filter(|n| *n < oldest).collect();
            assert!(stale.is_empty(), "WAL older than every base backup: {stale:?}");
        }
    }
}

async fn live(steps: Vec<Step>, rules: Retention) {
    let mut estate = Estate::new().await;
    let mut model = Model::default();
    let mut segments = Vec::new();
    let mut begun: Option<Unfinished> = None;
    for step in steps {
        let before = estate.next;
        match step {
            Step::Base { full } => {
                let state = estate.state().await;
                let previous = model.bases.iter().rev().find(|b| !full && !state.is_gone(b.sequence)).cloned();
                let base = estate.base(previous.as_ref()).await;
                model.bases.push(base);
            }
            Step::Begin { on } => {
                let state = estate.state().await;
                let previous = model.bases.iter().rev().filter(|b| !state.is_gone(b.sequence)).nth(on).cloned();
                let of = previous.as_ref().map(|p| (&p.entry, p.sequence, p.packs.as_slice()));
                begun = Some(estate.store_base(of).await);
            }
            Step::Commit => {
                if let Some(done) = begun.take()
                    && let Ok(sequence) = estate.commit(&done).await
                {
                    model.bases.push(done.taken(sequence));
                }
            }
            Step::Abandon => begun = None,
            Step::Capture => {
                estate.capture("retail", &mut segments).await;
            }
            Step::Export => {
                estate.export().await;
            }
            Step::Wal(count) => estate.wal(count).await,
            Step::Pass(hours) => estate.pass(f64::from(hours) / 8.0),
            Step::Prune => {
                estate.prune(&rules).await;
                model.check(&estate, &rules, &estate.state().await).await;
            }
            Step::HoldBase(nth) => {
                let Some(base) = model.bases.get(nth) else { continue };
                let scope = HoldScope::BaseBackup { id: base.entry.id.clone() };
                let until = estate.now() + TimeDelta::days(20);
                if let Some(id) = hold(&estate, &rules, scope, until).await {
                    model.held_bases.push((base.sequence, until, id));
                }
            }
            Step::HoldTimes { days_ago, for_days } => {
                let time = estate.now() - TimeDelta::days(days_ago.into());
                let until = estate.now() + TimeDelta::days(for_days.into());
                let state = estate.state().await;
                let (wal, mut whole) = (estate.segments().await, BTreeSet::new());
                for base in model.bases.iter().filter(|b| !state.is_gone(b.sequence)) {
                    if estate.is_whole(base).await {
                        whole.insert(base.sequence);
                    }
                }
                let could = model.restores(time, &whole, &visible(&wal, &state));
                let held = hold(&estate, &rules, HoldScope::Times { from: time, to: time }, until).await;
                if let (true, Some(id)) = (could, &held) {
                    model.held.push((time, until, id.clone()));
                }
                assert!(!could || held.is_some(), "{time} can be restored, and not held");
            }
            Step::Release => {
                if let Some((_, _, id)) = model.held.pop() {
                    // It may have ended by itself.
                    let _ = hold::remove(&estate.repository, E, &id, "over", &estate.runtime).await;
                }
            }
        }
        for number in before..estate.next {
            model.commits.insert(number, estate.now());
        }
    }
    estate.pass(400.0);
    for _ in 0..3 {
        estate.prune(&rules).await;
        estate.pass(8.0);
    }
    let state = estate.state().await;
    model.check(&estate, &rules, &state).await;
    model.nothing_else_is_left(&estate).await;
    let report = crate::repository::verify::verify(&estate.repository, E, None, None, &estate.runtime).await;
    let report = report.expect("verified");
    assert!(report.ok, "{:?}", report.problems);
}

fn visible(wal: &BTreeSet<u64>, state: &State) -> BTreeSet<u64> {
    wal.iter().copied().filter(|n| !state.gave_up(crate::units::Timeline(1), *n)).collect()
}

async fn hold(estate: &Estate, rules: &Retention, scope: HoldScope, until: DateTime<Utc>) -> Option<String> {
    let wish = Wish { scope, requested: "a wish".into(), until: Some(until), reason: "a test".into() };
    hold::add(&estate.repository, E, Some(rules), wish, &estate.runtime).await.ok().map(|made| made.hold.id)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn what_is_promised_stays_and_nothing_else(
        steps in prop::collection::vec(step(), 10..40),
        recent in 1_u64..6,
        daily in 0_u32..3,
        weekly in 0_u32..3,
        monthly in 0_u32..2,
    ) {
        let rules = Retention { daily, weekly, monthly, ..rules(recent) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(live(steps, rules));
    }
}
