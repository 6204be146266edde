//! Holds: people say that recovery points stay, whatever the rules. Entries in the ledger, like all that decides.

use chrono::{DateTime, Utc};

use super::facts;
use super::prune;
use super::rules;
use super::state::State;
use crate::config::Retention;
use crate::error::{self, Result};
use crate::evidence::Body;
use crate::evidence::bodies_retention::{Hold, HoldScope, Release};
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::runtime::Runtime;
use crate::units::Span;

/// A hold that was made.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Made {
    /// What the ledger says.
    pub hold: Hold,
    /// Number of its entry.
    pub entry: u64,
    /// Ids of the base backups that it holds now.
    pub base_backups: Vec<String>,
    /// Number of the entry by which what had been retired came back; null where nothing had to.
    pub revived: Option<u64>,
}

/// What somebody wants held.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What.
    pub scope: HoldScope,
    /// As it was asked for.
    pub requested: String,
    /// Until when; `None`: until it is released.
    pub until: Option<DateTime<Utc>>,
    /// Why.
    pub reason: String,
}

/// Makes a hold. What was retired and is not deleted yet comes back.
///
/// # Errors
/// Not recoverable where nothing that can be restored is there to be held.
pub async fn add(
    repository: &Repository,
    environment: &str,
    rules: Option<&Retention>,
    wish: Wish,
    runtime: &Runtime,
) -> Result<Made> {
    let now = runtime.now();
    if let Some(until) = wish.until.filter(|until| *until <= now) {
        let ago = Span((now - until).to_std().unwrap_or_default());
        return Err(error::usage(format!("the hold would have ended {ago} ago")));
    }
    let signer = repository.signer()?;
    let ledger = ledger(repository, environment).await?;
    let mut id = [0; 4];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| error::internal("the operating system gives no random numbers"))?;
    let hold = Hold {
        id: format!("hold-{}-{}", now.format("%Y%m%d"), hex::encode(id)),
        scope: wish.scope,
        requested: wish.requested,
        until: wish.until,
        reason: wish.reason,
    };
    let (entry, base_backups) = loop {
        let entries = ledger.entries().await?;
        let known = entries.last().map_or(0, |e| e.sequence);
        let state = State::of(&entries);
        let found = facts::gather(repository, environment, &entries, &state, &Default::default()).await?;
        let held = rules::held(&found.facts, &hold);
        if held.is_empty() {
            return Err(error::not_recoverable(format!("there is nothing to hold for {}", hold.requested))
                .meaning("no base backup that was not deleted serves it; nothing was recorded")
                .hint(format!("`lifeboat show -e {environment}` tells what can be restored")));
        }
        let body = Body::Hold(hold.clone());
        if let Some(appended) = ledger.append_after(runtime, signer, Vec::new(), body, known).await? {
            let named = found.facts.bases.iter().filter(|b| held.contains(&b.sequence)).map(|b| b.id.clone());
            break (appended.sequence, named.collect());
        }
    };
    let revived = prune::revive(repository, environment, rules, runtime).await?.and_then(|r| r.entry);
    Ok(Made { hold, entry, base_backups, revived })
}

/// Releases a hold before its time; the number of the entry.
///
/// # Errors
/// Usage where there is no such hold in force.
pub async fn remove(
    repository: &Repository,
    environment: &str,
    id: &str,
    reason: &str,
    runtime: &Runtime,
) -> Result<u64> {
    let ledger = ledger(repository, environment).await?;
    let signer = repository.signer()?;
    loop {
        let entries = ledger.entries().await?;
        let known = entries.last().map_or(0, |e| e.sequence);
        let in_force = State::of(&entries).holds_in_force(runtime.now());
        if !in_force.iter().any(|h| h.id == id) {
            let error = error::usage(format!("{environment} has no hold {id} in force"));
            return Err(match in_force.is_empty() {
                true => error.hint("there is none at all"),
                false => {
                    let ids: Vec<&str> = in_force.iter().map(|h| h.id.as_str()).collect();
                    error.hint(format!("in force: {}", ids.join(", ")))
                }
            });
        }
        let body = Body::Release(Release { hold: id.to_owned(), reason: reason.to_owned() });
        if let Some(appended) = ledger.append_after(runtime, signer, Vec::new(), body, known).await? {
            return Ok(appended.sequence);
        }
    }
}

/// A hold as `hold list` tells it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Listed {
    /// What the ledger says.
    #[serde(flatten)]
    pub hold: Hold,
    /// Number of its entry.
    pub entry: u64,
    /// When it was made.
    pub since: DateTime<Utc>,
    /// Whether it holds now.
    pub in_force: bool,
    /// When it was released, and why.
    pub released: Option<Released>,
}

/// How a hold ended.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Released {
    /// When.
    pub at: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

/// All holds of an environment, oldest first.
pub async fn list(repository: &Repository, environment: &str, runtime: &Runtime) -> Result<Vec<Listed>> {
    let entries = ledger(repository, environment).await?.entries().await?;
    let now = runtime.now();
    let listed = |state: super::state::HoldState| Listed {
        in_force: state.is_in_force(now),
        entry: state.sequence,
        since: state.since,
        released: state.released.clone().map(|(at, reason)| Released { at, reason }),
        hold: state.hold,
    };
    Ok(State::of(&entries).holds.into_iter().map(listed).collect())
}
