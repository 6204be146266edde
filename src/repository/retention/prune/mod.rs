//! A run of retention: finish what was begun, bring back what is needed, delete what has waited, retire what goes.
//!
//! Every change is a ledger entry that is written only as the next one after those by which it was decided; where
//! somebody else was faster, everything is looked at anew. So two runs at once do no harm: one of them finds the work done.

mod deletion;
mod locking;
mod retiring;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::facts::{self, Found};
use super::mark::Marks;
use super::report::{Damaged, Point, Report, Revived, Waiting, WalReport};
use super::rules::{self, Decision};
use super::state::State;
use crate::config::Retention;
use crate::error::{self, Result};
use crate::evidence::bodies_retention::{Gone, KeepRules, Revive, WalSegments};
use crate::evidence::{Body, Ledger, LedgerEntry, Subject};
use crate::ranges::Ranges;
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::repository::meta::MetaObject;
use crate::runtime::Runtime;
use crate::storage::layout;
use crate::units::Timeline;

/// Locks asked for or set at the same time.
const LOCKS_AT_ONCE: usize = 16;

/// How often a run begins anew because somebody else wrote to the ledger.
const TRIES: u32 = 50;

/// What a run may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Only tell.
    pub dry_run: bool,
}

/// What one look at the environment came to.
struct Look {
    entries: Vec<LedgerEntry>,
    state: State,
    found: Found,
    decision: Decision,
    wanted: Option<BTreeMap<Timeline, Ranges>>,
    marks: Marks,
    /// What is older may go, where nothing refers to it.
    old: DateTime<Utc>,
}

/// Carries out the rules of an environment. `None` for `rules`: nothing is ever deleted.
///
/// # Errors
/// Integrity where the ledger, the WAL archive or a manifest is damaged: nothing is changed then.
pub async fn prune(
    repository: &Repository,
    environment: &str,
    rules: Option<&Retention>,
    options: Options,
    runtime: &Runtime,
) -> Result<Report> {
    let ledger = ledger(repository, environment).await?;
    if !options.dry_run {
        // Before any work: a host that may not record must not delete either.
        repository.signer()?;
    }
    let mut run = Run::new(repository, environment, &ledger, rules, options, runtime);
    for _ in 0..TRIES {
        if run.step().await? {
            return Ok(run.report);
        }
    }
    Err(busy(environment))
}

/// Brings back what was retired and is needed now, and does nothing else.
pub(super) async fn revive(
    repository: &Repository,
    environment: &str,
    rules: Option<&Retention>,
    runtime: &Runtime,
) -> Result<Option<Revived>> {
    let ledger = ledger(repository, environment).await?;
    let mut run = Run::new(repository, environment, &ledger, rules, Options::default(), runtime);
    for _ in 0..TRIES {
        let look = run.look_anew().await?;
        if look.state.retired == Default::default() || !run.revive(&look).await? {
            return Ok(run.report.revived);
        }
    }
    Err(busy(environment))
}

fn busy(environment: &str) -> error::Error {
    error::repository(format!("the ledger of {environment} was written to all the time"))
        .meaning("what this run recorded stands; the rest is done by the next run")
        .hint("run `lifeboat prune` again")
}

struct Run<'a> {
    repository: &'a Repository,
    environment: &'a str,
    ledger: &'a Ledger,
    rules: Option<&'a Retention>,
    dry_run: bool,
    runtime: &'a Runtime,
    report: Report,
    /// The ledger, as far as it was read.
    entries: Vec<LedgerEntry>,
    /// Deletions that this run has carried out, as far as the store allows.
    tried: HashSet<u64>,
}

impl<'a> Run<'a> {
    fn new(
        repository: &'a Repository,
        environment: &'a str,
        ledger: &'a Ledger,
        rules: Option<&'a Retention>,
        options: Options,
        runtime: &'a Runtime,
    ) -> Self {
        let report = Report {
            environment: environment.to_owned(),
            now: runtime.now(),
            dry_run: options.dry_run,
            rules: rules.map(KeepRules::from),
            recent_from: None,
            oldest: None,
            points: Vec::new(),
            wal: WalReport::default(),
            revived: None,
            deleted: Vec::new(),
            retired: None,
            waiting: Vec::new(),
            locks: None,
            damaged: Vec::new(),
            notes: Vec::new(),
        };
        let (entries, tried) = (Vec::new(), HashSet::new());
        Self { repository, environment, ledger, rules, dry_run: options.dry_run, runtime, report, entries, tried }
    }

    /// The ledger as it is now.
    async fn read(&mut self) -> Result<(Vec<LedgerEntry>, State)> {
        let known = self.entries.last().map_or(0, |e| e.sequence);
        self.entries.extend(self.ledger.entries_since(known).await?);
        let state = State::of(&self.entries);
        Ok((self.entries.clone(), state))
    }

    async fn look_anew(&mut self) -> Result<Look> {
        let (entries, state) = self.read().await?;
        self.look(entries, state).await
    }

    /// One step; whether there is nothing left to do.
    async fn step(&mut self) -> Result<bool> {
        let (entries, state) = self.read().await?;
        if !self.dry_run {
            let unfinished = state.unfinished().find(|d| !self.tried.contains(&d.sequence));
            if let Some(deletion) = unfinished {
                self.carry_out(deletion.sequence, &deletion.entry, deletion.last.as_ref()).await?;
                return Ok(false);
            }
        }
        if self.rules.is_none() && self.report.notes.is_empty() {
            self.report.notes.push("no [environment.retention] is configured: nothing is ever deleted".into());
        }
        let look = self.look(entries, state).await?;
        self.tell(&look);
        if self.rules.is_none() {
            // Rules that were removed take back what waits: nothing is deleted without rules.
            return self.revive(&look).await.map(|revived| !revived || self.dry_run);
        }
        if self.revive(&look).await? && !self.dry_run {
            return Ok(false);
        }
        let (look, deleted) = self.delete(look).await?;
        if deleted && !self.dry_run {
            return Ok(false);
        }
        let done = self.retire(&look).await?;
        if done && !self.dry_run {
            self.extend_locks(&look).await?;
        }
        Ok(done)
    }

    /// Looks at everything. Kept base backups that turn out to lack objects count as not restorable, and the rules are
    /// asked again, until what is kept is whole.
    async fn look(&mut self, entries: Vec<LedgerEntry>, state: State) -> Result<Look> {
        let unreferenced_after = self.rules.map_or(TimeDelta::MAX, |r| span(r.unreferenced_after));
        let old = self.report.now.checked_sub_signed(unreferenced_after).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let mut damaged: BTreeMap<u64, String> = BTreeMap::new();
        loop {
            let found = facts::gather(self.repository, self.environment, &entries, &state, &damaged).await?;
            let decision = rules::decide(self.rules, &found.facts, self.report.now);
            let going = decision.going();
            let stays = |sequence| !going.contains(&sequence);
            let marks = Marks::make(self.repository, self.environment, &entries, &state, stays).await?;
            let known = damaged.len();
            damaged.extend(marks.damaged.clone());
            if damaged.len() > known {
                continue;
            }
            let wanted = facts::wanted_wal(self.repository, self.environment, &found, &decision).await?;
            self.report.damaged =
                damaged.iter().map(|(sequence, what)| Damaged { sequence: *sequence, what: what.clone() }).collect();
            return Ok(Look { entries, state, found, decision, wanted, marks, old });
        }
    }

    fn tell(&mut self, look: &Look) {
        let report = &mut self.report;
        report.recent_from = look.decision.recent_from;
        report.oldest = look.decision.oldest;
        let point = |verdict: &rules::Verdict| Point {
            retired: look.state.retired.entries.contains(verdict.sequence),
            verdict: verdict.clone(),
        };
        report.points = look.decision.verdicts.iter().map(point).collect();
        let segments = look.found.wal.iter().filter(|o| o.is == facts::WalKind::Segment).count() as u64;
        let going = facts::going_wal(&look.found, look.wanted.as_ref(), DateTime::<Utc>::MAX_UTC);
        let going: u64 = going.values().map(Ranges::count).sum();
        report.wal = WalReport { segments, wanted: segments - going };
        report.waiting = look
            .state
            .waiting
            .iter()
            .map(|(entry, r)| Waiting { entry: *entry, not_before: r.not_before, objects: r.objects, bytes: r.bytes })
            .collect();
    }

    /// Brings back what was retired and is needed again; whether there was anything.
    async fn revive(&mut self, look: &Look) -> Result<bool> {
        let retired = &look.state.retired;
        let kept = look.decision.verdicts.iter().filter(|v| v.stays && retired.entries.contains(v.sequence));
        let entries: BTreeSet<u64> = kept.map(|v| v.sequence).collect();
        let mut wal = BTreeMap::new();
        for (timeline, segments) in &retired.wal {
            let mut wanted = segments.clone();
            if let Some(all) = &look.wanted {
                let mut unwanted = segments.clone();
                all.get(timeline).into_iter().for_each(|w| unwanted.subtract(w));
                wanted.subtract(&unwanted);
            }
            wal.insert(*timeline, wanted);
        }
        let gone = self.gone(look, &entries, wal);
        if gone.is_empty() {
            return Ok(false);
        }
        let reason = match self.rules {
            Some(_) => "a hold, a rule or a damaged newer backup needs it".to_owned(),
            None => "no [environment.retention] is configured any more".to_owned(),
        };
        let mut revived = Revived { entry: None, gone: gone.clone() };
        if !self.dry_run {
            let Some(entry) = self.append(look, Vec::new(), Body::Revive(Revive { gone, reason })).await? else {
                return Ok(true);
            };
            revived.entry = Some(entry);
        }
        self.report.revived = Some(revived);
        Ok(true)
    }

    /// Appends an entry behind what was looked at; `None` where somebody was faster.
    async fn append(&self, look: &Look, subjects: Vec<Subject>, body: Body) -> Result<Option<u64>> {
        let known = look.entries.last().map_or(0, |e| e.sequence);
        let signer = self.repository.signer()?;
        let appended = self.ledger.append_after(self.runtime, signer, subjects, body, known).await?;
        Ok(appended.map(|a| a.sequence))
    }

    fn about(&self, list: &MetaObject) -> Vec<Subject> {
        vec![Subject::new(layout::meta(self.environment, &list.sha256), &list.sha256)]
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.environment)
    }

    fn gone(&self, look: &Look, entries: &BTreeSet<u64>, wal: BTreeMap<Timeline, Ranges>) -> Gone {
        let count = |kind: fn(&Body) -> bool| {
            let of = look.entries.iter().filter(|e| entries.contains(&e.sequence));
            of.filter(|e| kind(&e.statement.predicate.body)).count() as u64
        };
        Gone {
            base_backups: count(|b| matches!(b, Body::BaseBackup(_))),
            filestore_captures: count(|b| matches!(b, Body::FilestoreCapture(_))),
            configuration_exports: count(|b| matches!(b, Body::ConfigurationExport(_))),
            entries: entries.iter().copied().collect(),
            wal: wal
                .into_iter()
                .filter(|(_, segments)| !segments.is_empty())
                .map(|(timeline, segments)| WalSegments { timeline, segments })
                .collect(),
        }
    }
}

fn span(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
