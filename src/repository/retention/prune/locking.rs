//! Lock dates of what is needed, moved on as time passes.

use std::collections::HashSet;

use chrono::TimeDelta;
use futures::StreamExt;

use super::super::facts;
use super::super::report::Locks;
use super::{LOCKS_AT_ONCE, Look, Run};
use crate::error::Result;
use crate::event::Event;
use crate::evidence::Body;
use crate::evidence::bodies_retention::LockExtension;
use crate::storage::{layout, object_lock};

impl Run<'_> {
    /// Moves the lock dates of everything that is needed on, when half of their time has passed.
    pub(super) async fn extend_locks(&mut self, look: &Look) -> Result<()> {
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
}
