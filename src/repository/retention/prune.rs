//! A run of retention: finish what was begun, bring back what is needed, delete what has waited, retire what goes.
//!
//! Every change is a ledger entry that is written only as the next one after those by which it was decided; where
//! somebody else was faster, everything is looked at anew. So two runs at once do no harm: one of them finds the work done.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};

use super::facts::{self, Found};
use super::list::{self, Object, Phase};
use super::mark::Marks;
use super::report::{Damaged, Deletion, Locks, Point, Report, Retired, Revived, Waiting, WalReport};
use super::rules::{self, Decision, Kind};
use super::state::State;
use crate::config::Retention;
use crate::error::{self, Result};
use crate::event::Event;
use crate::evidence::bodies_retention::{
    Delete, Deleted, Gone, KeepRules, Left, LockExtension, Retire, Revive, WalSegments,
};
use crate::evidence::{Body, Ledger, LedgerEntry, Subject};
use crate::ranges::Ranges;
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::repository::meta::MetaObject;
use crate::runtime::Runtime;
use crate::storage::{ObjectLocks, layout, object_lock};
use crate::units::Timeline;

/// Objects deleted in one request.
const AT_ONCE: usize = 1000;

/// Locks asked for or set at the same time.
const LOCKS_AT_ONCE: usize = 16;

/// Objects named that the store did not let go.
const NAMED: usize = 20;

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

    /// Begins the deletion of what has waited long enough; whether there was anything.
    async fn delete(&mut self, mut look: Look) -> Result<(Look, bool)> {
        let now = self.report.now;
        let due: Vec<(u64, Retire)> = look.state.waiting.iter().filter(|w| w.1.not_before <= now).cloned().collect();
        if due.is_empty() {
            return Ok((look, false));
        }
        let expendable_wal: HashSet<String> =
            facts::expendable_wal(&look.found, look.wanted.as_ref()).map(|o| o.name.clone()).collect();
        let wal_there: HashSet<&str> = look.found.wal.iter().map(|o| o.name.as_str()).collect();
        let mut listed = BTreeSet::new();
        for (_, retire) in &due {
            let each = |o| {
                listed.insert(o);
            };
            list::objects_where_sound(self.repository, self.environment, &retire.list, Phase::Retire, each).await?;
        }
        let (mut objects, mut spared) = (Vec::new(), 0);
        for object in listed {
            let needed = match object.name.starts_with("wal") {
                true => wal_there.contains(object.name.as_str()).then(|| !expendable_wal.contains(&object.name)),
                false => look.marks.is_needed(&object.name),
            };
            match needed {
                Some(false) => objects.push(object),
                Some(true) => spared += 1,
                // It is gone already: a piece that was merged, an object that somebody removed.
                None => {}
            }
        }
        // What was revived is no longer retired; what stays is never deleted, whatever was retired.
        let (retired, going) = (&look.state.retired, look.decision.going());
        let mut entries = BTreeSet::new();
        let mut wal: BTreeMap<Timeline, Ranges> = BTreeMap::new();
        for (_, retire) in &due {
            let numbers = retire.gone.entries.iter().flat_map(|(first, last)| first..=last);
            entries.extend(numbers.filter(|n| retired.entries.contains(*n) && going.contains(n)));
            for of in &retire.gone.wal {
                let still = wal.entry(of.timeline).or_default();
                let numbers = of.segments.iter().flat_map(|(first, last)| first..=last);
                // Also what was revived and is given up again: its objects are among those that go.
                let goes = |n: &u64| !facts::is_wanted(look.wanted.as_ref(), of.timeline, *n);
                numbers.filter(goes).for_each(|n| still.insert(n, n));
            }
        }
        let gone = self.gone(&look, &entries, wal);
        let bytes = objects.iter().map(|o| o.size).sum();
        let count = objects.len() as u64;
        if self.dry_run {
            let (left, left_named) = (0, Vec::new());
            self.report.deleted.push(Deletion { entry: None, gone, objects: count, bytes, spared, left, left_named });
            return Ok((look, true));
        }
        let list = list::put(self.repository, self.environment, Phase::Delete, now, &[], &objects).await?;
        let retired_by = due.iter().map(|(number, _)| *number).collect();
        let entry = Delete { retired_by, list: list.sha256.clone(), gone, objects: count, bytes, spared };
        let subjects = self.about(&list);
        if let Some(number) = self.append(&look, subjects, Body::Delete(entry.clone())).await? {
            self.carry_out(number, &entry, None).await?;
        }
        Ok((look, true))
    }

    /// Deletes the objects of a deletion, and records that. May be repeated.
    async fn carry_out(&mut self, number: u64, entry: &Delete, last: Option<&Deleted>) -> Result<()> {
        const PHASE: &str = "deleting what retention gave up";
        let mut objects = Vec::new();
        let each = |o| objects.push(o);
        if !list::objects_where_sound(self.repository, self.environment, &entry.list, Phase::Delete, each).await? {
            self.tried.insert(number);
            let what = format!("the list of ledger entry {number} is damaged: what is left of it is retired anew");
            self.report.notes.push(what);
            return Ok(());
        }
        self.runtime.emit(Event::PhaseStarted { phase: PHASE.into(), total: Some(entry.bytes) });
        let began = std::time::Instant::now();
        let locks = self.locks().await?;
        let mut left = Vec::new();
        for chunk in objects.chunks(AT_ONCE) {
            for (object, refused) in chunk.iter().zip(self.delete_objects(chunk, locks).await?) {
                match refused {
                    Some(reason) => left.push((object, reason)),
                    None => self.runtime.emit(Event::Progress { phase: PHASE.into(), bytes: object.size }),
                }
            }
        }
        self.runtime.emit(Event::PhaseEnded { phase: PHASE.into(), took: began.elapsed() });
        self.tried.insert(number);
        let left_bytes: u64 = left.iter().map(|(o, _)| o.size).sum();
        let done = Deleted {
            delete: number,
            objects: (objects.len() - left.len()) as u64,
            bytes: objects.iter().map(|o| o.size).sum::<u64>() - left_bytes,
            left: left.len() as u64,
            left_named: left
                .iter()
                .take(NAMED)
                .map(|(o, reason)| Left { object: self.key(&o.name), reason: reason.clone() })
                .collect(),
        };
        self.report.deleted.push(Deletion {
            entry: Some(number),
            gone: entry.gone.clone(),
            objects: done.objects,
            bytes: done.bytes,
            spared: entry.spared,
            left: done.left,
            left_named: done.left_named.clone(),
        });
        // What is locked today is locked tomorrow: that is told once, not every day.
        if last.is_some_and(|last| last.left == done.left) {
            return Ok(());
        }
        let signer = self.repository.signer()?;
        self.ledger.append(self.runtime, signer, Vec::new(), Body::Deleted(done)).await.map(|_| ())
    }

    /// Why each object is still there; `None`: it is gone.
    async fn delete_objects(&self, objects: &[Object], locks: Option<&ObjectLocks>) -> Result<Vec<Option<String>>> {
        let store = &self.repository.store;
        let keys: Vec<String> = objects.iter().map(|o| self.key(&o.name)).collect();
        let Some(locks) = locks else { return store.delete_each(&keys).await };
        let now = self.runtime.now();
        let forbidden: Vec<Option<String>> = futures::stream::iter(&keys)
            .map(|key| locks.forbids(key, now))
            .buffered(LOCKS_AT_ONCE)
            .try_collect()
            .await?;
        let free = keys.iter().zip(&forbidden).filter(|(_, why)| why.is_none()).map(|(key, _)| key.clone());
        let mut deleted = store.delete_each(&free.collect::<Vec<_>>()).await?.into_iter();
        let outcome = |why: Option<String>| why.or_else(|| deleted.next().flatten());
        Ok(forbidden.into_iter().map(outcome).collect())
    }

    /// The locks of the store, where it has any that must be asked before a deletion.
    async fn locks(&self) -> Result<Option<&ObjectLocks>> {
        match self.repository.store.locks() {
            Some(locks) if locks.is_enabled().await? => Ok(Some(locks)),
            _ => Ok(None),
        }
    }

    /// Moves the lock dates of everything that is needed on, when half of their time has passed.
    async fn extend_locks(&mut self, look: &Look) -> Result<()> {
        let Some((locks, policy)) = self.repository.store.locks().and_then(|l| Some((l.clone(), l.policy()?))) else {
            return Ok(());
        };
        let now = self.report.now;
        let half = TimeDelta::days(policy.days.into()) / 2;
        if look.state.locked_until.is_some_and(|until| until - now > half) {
            return Ok(());
        }
        if !locks.is_enabled().await? {
            self.report
                .notes
                .push("object_lock is configured, but the bucket has no Object Lock: nothing is locked".into());
            return Ok(());
        }
        let until = object_lock::until(policy, now);
        let expendable: HashSet<&str> =
            facts::expendable_wal(&look.found, look.wanted.as_ref()).map(|o| o.name.as_str()).collect();
        let wal =
            look.found.wal.iter().filter(|o| o.is != facts::WalKind::Piece && !expendable.contains(o.name.as_str()));
        let mut keys: Vec<String> = look.marks.needed().map(|name| self.key(&name)).collect();
        keys.extend(wal.map(|o| self.key(&o.name)));
        let store = &self.repository.store;
        for prefix in [layout::ledger(self.environment), "keys/".to_owned()] {
            keys.extend(store.list(&prefix).await?.into_iter().map(|o| o.key).filter(|k| object_lock::is_for_long(k)));
        }
        keys.push(layout::DESCRIPTOR.to_owned());
        let mut locking =
            futures::stream::iter(&keys).map(|key| locks.lock(key, policy.mode, until)).buffer_unordered(LOCKS_AT_ONCE);
        let (mut objects, mut failed) = (0, 0);
        while let Some(outcome) = locking.next().await {
            match outcome {
                Ok(()) => objects += 1,
                Err(e) => {
                    if failed == 0 {
                        self.runtime.emit(Event::Warning(format!("an object could not be locked: {e}")));
                    }
                    failed += 1;
                }
            }
        }
        drop(locking);
        let entry = LockExtension { mode: policy.mode.to_string(), until, objects, failed };
        let signer = self.repository.signer()?;
        self.ledger.append(self.runtime, signer, Vec::new(), Body::LockExtension(entry)).await?;
        self.report.locks = Some(Locks { until, objects, failed });
        Ok(())
    }

    /// Retires what goes; whether the run is done.
    async fn retire(&mut self, look: &Look) -> Result<bool> {
        let rules = self.rules.expect("nothing is retired without rules");
        let retired = &look.state.retired;
        let going: BTreeSet<u64> =
            look.decision.going().into_iter().filter(|n| !retired.entries.contains(*n)).collect();
        let mut wal = facts::going_wal(&look.found, look.wanted.as_ref(), look.old);
        for (timeline, segments) in &mut wal {
            for known in [&retired.wal, &look.state.deleted.wal] {
                known.get(timeline).into_iter().for_each(|known| segments.subtract(known));
            }
        }
        let listed = self.listed_wal(look).await?;
        let mut objects = look.marks.expendable(look.old);
        let unfinished: Vec<_> = look.state.unfinished().map(|d| d.entry.list.clone()).collect();
        for list in unfinished {
            // What a deletion names and the store keeps locked is tried again as part of that deletion.
            let mut begun = HashSet::new();
            let each = |o: Object| {
                begun.insert(o.name);
            };
            if list::objects_where_sound(self.repository, self.environment, &list, Phase::Delete, each).await? {
                objects.retain(|o| !begun.contains(&o.name));
            }
        }
        let expendable = facts::expendable_wal(&look.found, look.wanted.as_ref());
        objects.extend(
            expendable
                .filter(|o| o.modified < look.old && !listed.contains(&o.name))
                .map(|o| Object { name: o.name.clone(), size: o.size }),
        );
        objects.sort();
        let gone = self.gone(look, &going, wal);
        if gone.is_empty() && objects.is_empty() {
            return Ok(true);
        }
        let now = self.report.now;
        let not_before = now + span(rules.delete_after);
        let mut told = Retired {
            entry: None,
            not_before,
            gone: gone.clone(),
            objects: objects.len() as u64,
            bytes: objects.iter().map(|o| o.size).sum(),
        };
        if !self.dry_run {
            let verdicts = &look.decision.verdicts;
            let list = list::put(self.repository, self.environment, Phase::Retire, now, verdicts, &objects).await?;
            let kept = verdicts.iter().filter(|v| v.stays && v.kind == Kind::BaseBackup).count() as u64;
            let entry = Retire {
                list: list.sha256.clone(),
                rules: rules.into(),
                not_before,
                gone,
                objects: told.objects,
                bytes: told.bytes,
                kept_base_backups: kept,
                oldest: look.decision.oldest,
            };
            match self.append(look, self.about(&list), Body::Retire(entry)).await? {
                Some(number) => told.entry = Some(number),
                None => return Ok(false),
            }
        }
        self.report.retired = Some(told);
        Ok(true)
    }

    /// WAL objects that a list names already.
    async fn listed_wal(&self, look: &Look) -> Result<HashSet<String>> {
        let mut listed = HashSet::new();
        let mut keep = |o: Object| {
            if o.name.starts_with("wal") {
                listed.insert(o.name);
            }
        };
        for (_, retire) in &look.state.waiting {
            list::objects_where_sound(self.repository, self.environment, &retire.list, Phase::Retire, &mut keep)
                .await?;
        }
        for deletion in look.state.unfinished() {
            let list = &deletion.entry.list;
            list::objects_where_sound(self.repository, self.environment, list, Phase::Delete, &mut keep).await?;
        }
        Ok(listed)
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
