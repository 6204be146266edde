//! The writers' half of safe deletion: a backup is committed only if nothing that it refers to was deleted meanwhile.
//!
//! The entry is written only as the one that follows those which were looked at, so no `delete` can slip in between.

use std::collections::BTreeSet;

use super::list::{self, Phase};
use super::state::State;
use crate::error::{self, Error, ErrorKind, Result};
use crate::evidence::{Appended, Body, Ledger, Subject};
use crate::repository::Repository;
use crate::runtime::Runtime;
use crate::units::Timeline;

/// What a backup relies on, besides the objects that its entry names.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    /// Number of the last ledger entry that the writer had seen when it began to rely on anything.
    pub since: u64,
    /// Numbers of the entries whose backups it builds on.
    pub entries: Vec<u64>,
    /// WAL that makes it consistent: timeline, first and last segment.
    pub wal: Option<(Timeline, u64, u64)>,
}

/// Commits a backup, unless something that it refers to was deleted since `uses.since`.
///
/// # Errors
/// Denied where it was: nothing is committed then.
pub async fn commit(
    ledger: &Ledger,
    repository: &Repository,
    environment: &str,
    subjects: Vec<Subject>,
    body: Body,
    uses: &Uses,
    runtime: &Runtime,
) -> Result<Appended> {
    let below = format!("{environment}/");
    let objects: BTreeSet<&str> = subjects.iter().filter_map(|s| s.name.strip_prefix(&below)).collect();
    let mut looked_at: BTreeSet<u64> = BTreeSet::new();
    loop {
        let entries = ledger.entries().await?;
        let known = entries.last().map_or(0, |e| e.sequence);
        let state = State::of(&entries);
        // A deletion that was complete before the writer began had removed what the writer then found to be there.
        for deletion in state.deletions.iter().filter(|d| d.complete_at.is_none_or(|at| at > uses.since)) {
            if !looked_at.insert(deletion.sequence) {
                continue;
            }
            let mut lost = uses.entries.iter().any(|n| deletion.entry.gone.entries.contains(*n));
            if let Some((timeline, first, last)) = uses.wal {
                let of = deletion.entry.gone.wal.iter().filter(|w| w.timeline == timeline);
                lost |= of.into_iter().any(|w| w.segments.meets(first, last));
            }
            let list = &deletion.entry.list;
            let sound = list::objects_where_sound(repository, environment, list, Phase::Delete, |object| {
                lost |= objects.contains(object.name.as_str());
            });
            if !sound.await? {
                // Nobody can go on deleting by it: what is there now stays.
                for name in &objects {
                    lost |= repository.store.info(&format!("{below}{name}")).await?.is_none();
                }
            }
            if lost {
                return Err(error::denied(format!(
                    "retention deleted what this backup builds on while it ran (ledger entry {})",
                    deletion.sequence
                ))
                .meaning("nothing was committed; earlier backups are as they were")
                .hint("run the same command again: it builds on what is there now"));
            }
        }
        let appended =
            ledger.append_after(runtime, repository.signer()?, subjects.clone(), body.clone(), known).await?;
        if let Some(appended) = appended {
            return Ok(appended);
        }
    }
}

/// Objects, by their names below the environment, that deletions name which may still be under way, and that lists name
/// which wait: nobody should begin to rely on them.
pub async fn doomed(repository: &Repository, environment: &str, state: &State) -> Result<BTreeSet<String>> {
    let mut doomed = BTreeSet::new();
    for deletion in state.unfinished() {
        list::objects_where_sound(repository, environment, &deletion.entry.list, Phase::Delete, |object| {
            doomed.insert(object.name);
        })
        .await?;
    }
    for (_, retire) in &state.waiting {
        list::objects_where_sound(repository, environment, &retire.list, Phase::Retire, |object| {
            doomed.insert(object.name);
        })
        .await?;
    }
    Ok(doomed)
}

/// Keys of the objects that deletions name which were begun after ledger entry `since`.
pub async fn deleted_since(repository: &Repository, environment: &str, since: u64) -> Result<BTreeSet<String>> {
    let ledger = crate::repository::catalogue::ledger(repository, environment).await?;
    let mut deleted = BTreeSet::new();
    for entry in ledger.entries_since(since).await? {
        if let Body::Delete(delete) = &entry.statement.predicate.body {
            list::objects(repository, environment, &delete.list, Phase::Delete, |object| {
                deleted.insert(format!("{environment}/{}", object.name));
            })
            .await?;
        }
    }
    Ok(deleted)
}

/// The failure of a reader that began at ledger entry `since`: where it found damage because retention deleted what it was
/// reading, that is what it says.
pub async fn explain(repository: &Repository, environment: &str, since: u64, failure: Error) -> Error {
    if failure.kind() != ErrorKind::Integrity {
        return failure;
    }
    match deleted_since(repository, environment, since).await {
        Ok(deleted) if deleted.iter().any(|key| failure.message().contains(key.as_str())) => {
            error::not_recoverable("retention deleted this recovery point while it was being read")
                .meaning("it had been given up days ago; nothing is damaged")
                .hint(format!("`lifeboat show -e {environment}` tells what can be restored"))
                .source(failure)
        }
        _ => failure,
    }
}
