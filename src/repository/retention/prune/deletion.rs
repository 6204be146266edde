//! The second phase: what has waited long enough is deleted, and that is recorded.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures::{StreamExt, TryStreamExt};

use super::super::facts;
use super::super::list::{self, Object, Phase};
use super::super::report::Deletion;
use super::{LOCKS_AT_ONCE, Look, Run};
use crate::error::Result;
use crate::event::Event;
use crate::evidence::Body;
use crate::evidence::bodies_retention::{Delete, Deleted, Left, Retire};
use crate::ranges::Ranges;
use crate::storage::ObjectLocks;
use crate::units::Timeline;

/// Objects deleted in one request.
const AT_ONCE: usize = 1000;

/// Objects named that the store did not let go.
const NAMED: usize = 20;

impl Run<'_> {
    /// Begins the deletion of what has waited long enough; whether there was anything.
    pub(super) async fn delete(&mut self, mut look: Look) -> Result<(Look, bool)> {
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
    pub(super) async fn carry_out(&mut self, number: u64, entry: &Delete, last: Option<&Deleted>) -> Result<()> {
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
}
