//! The first phase: what the rules give up is listed and recorded, and waits.

use std::collections::{BTreeSet, HashSet};

use super::super::facts;
use super::super::list::{self, Object, Phase};
use super::super::report::Retired;
use super::super::rules::Kind;
use super::{Look, Run, span};
use crate::error::Result;
use crate::evidence::Body;
use crate::evidence::bodies_retention::Retire;

impl Run<'_> {
    /// Retires what goes; whether the run is done.
    pub(super) async fn retire(&mut self, look: &Look) -> Result<bool> {
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
}
