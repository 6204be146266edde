//! Looking at one environment: reads the repository, asks PostgreSQL, and judges both.
//!
//! Works with the index key of a host that backs up or with a recovery identity alone, and whether or not
//! PostgreSQL or the repository is there: what is away is told, and of it nothing is claimed.

use std::time::Duration;

use super::alerts::{Silence, silences};
use chrono::{DateTime, TimeDelta, Utc};

use super::view::{Base, Configuration, Drill, Filestore, Live, Server, View, WalRun};
use crate::config::Environment;
use crate::configuration::drift::{CriticalDrift, critical_since};
use crate::drill::outlook::outlook;
use crate::error::{ErrorKind, Result};
use crate::evidence::approval::{Approvals, Status, approvals};
use crate::evidence::entry::BaseBackup;
use crate::evidence::outlook::Outlook;
use crate::evidence::summary;
use crate::filestore;
use crate::postgres::slot_state::wal_state;
use crate::postgres::source::Source;
use crate::repository::Repository;
use crate::repository::catalogue::Catalogue;
use crate::repository::coverage::Coverage;
use crate::repository::frontier::Recovery;
use crate::repository::window::{self, BaseReach};
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};
use crate::wal_name::segment_name;

/// How long PostgreSQL may take to answer: at 3 a.m. it is often what is down.
const PATIENCE: Duration = Duration::from_secs(6);
/// For how long a restore without approval is told.
const GLASS: TimeDelta = TimeDelta::days(1);
/// For how long critical drift is told, whatever later exports find: long enough for somebody to decide about it.
const DRIFT: TimeDelta = TimeDelta::days(7);

/// What one look at an environment found.
#[derive(Debug, Clone)]
pub struct Look {
    /// What can be restored, and what is wrong.
    pub view: View,
    /// What drills have proven and how long the next restore takes; `None` where the ledger could not be read.
    pub outlook: Option<Outlook>,
    /// Silences in force.
    pub silences: Vec<Silence>,
    /// Restores of the last day that went around their approval, a sentence each.
    pub broken_glass: Vec<String>,
    /// Critical drift of the last days.
    pub critical_drift: Vec<CriticalDrift>,
}

/// Looks at one environment; where the repository does not open, for the reason given, at PostgreSQL only.
///
/// # Errors
/// Where the repository opened and cannot be read now. Damage in it is no error: the view tells it.
pub async fn look(
    repository: std::result::Result<&Repository, &str>,
    environment: &Environment,
    runtime: &Runtime,
) -> Result<Look> {
    let load = async {
        match repository {
            Ok(repository) => Some((repository, catalogue(repository, &environment.name).await)),
            Err(_) => None,
        }
    };
    let (loaded, postgres) = tokio::join!(load, server(environment));
    let now = runtime.now();
    let (name, owner) = (&environment.name, &environment.owner);
    let objective = environment.objectives.rpo.as_secs_f64();
    let mut view = View::unseen(name, environment.purpose, owner, objective, postgres, now);
    let (mut proven, mut silenced, mut glass, mut drift) = (None, Vec::new(), Vec::new(), Vec::new());
    match loaded {
        Some((repository, Ok(catalogue))) => {
            let recovery = Recovery::load(repository, &catalogue).await;
            silenced = silences(&catalogue.entries, now);
            glass = broken_glass(&catalogue, now);
            view.broken.clone_from(&glass);
            drift = critical_since(&catalogue.entries, now - DRIFT);
            proven = Some(outlook(environment, &catalogue, &recovery, now));
            fill(&mut view, environment, &catalogue, recovery);
        }
        // Damage in one environment must not hide the others.
        Some((_, Err(damage))) if damage.kind() == ErrorKind::Integrity => view.unreadable = Some(damage.message()),
        Some((_, Err(other))) => return Err(other),
        None => view.unreadable = repository.err().map(str::to_owned),
    }
    view.broken = broken(&view);
    Ok(Look { view, outlook: proven, silences: silenced, broken_glass: glass, critical_drift: drift })
}

/// What the repository holds, with what watchers have added since the last captures.
async fn catalogue(repository: &Repository, environment: &str) -> Result<Catalogue> {
    // First: a capture that takes these over meanwhile is then in the ledger that is read.
    let live = filestore::live::marks(repository, environment).await;
    let mut catalogue = Catalogue::load(repository, environment).await?;
    match live {
        Ok(live) => catalogue.live = live,
        Err(damage) if damage.kind() == ErrorKind::Integrity => catalogue.ledger_problems.push(damage.message()),
        Err(other) => return Err(other),
    }
    Ok(catalogue)
}

fn fill(view: &mut View, environment: &Environment, catalogue: &Catalogue, recovery: Recovery) {
    let newest = recovery.newest().cloned();
    view.watermark = Some(window::watermark(
        &recovery.windows,
        catalogue.captures(),
        &catalogue.live,
        catalogue.bases().next_back(),
        catalogue.exports().next_back(),
        !environment.odoo.is_empty(),
    ));
    view.exposure.last_commit = newest.as_ref().and_then(|w| w.last_commit);
    if let Some(window) = &newest {
        let unsaved = view.postgres.current_lsn.map(|current| current.0.saturating_sub(window.to.lsn.0));
        let age = (view.now - window.to.time).num_milliseconds().max(0) as f64 / 1000.0;
        view.exposure.bytes = unsaved;
        view.exposure.seconds = Some(if unsaved == Some(0) { 0.0 } else { age });
        view.exposure.met = view.exposure.seconds.is_some_and(|s| s <= view.exposure.objective_seconds);
    }
    let base = |(backup, reach): (&BaseBackup, &BaseReach)| Base {
        backup: backup.clone(),
        restorable: reach.broken.is_none(),
        why_not: reach.broken.clone(),
    };
    view.bases = catalogue.bases().zip(&recovery.bases).map(base).collect();
    for capture in catalogue.captures() {
        match view.filestores.iter_mut().find(|f| f.database == capture.database) {
            Some(known) => (known.capture, known.captures) = (capture.clone(), known.captures + 1),
            None => view.filestores.push(Filestore {
                database: capture.database.clone(),
                capture: capture.clone(),
                captures: 1,
            }),
        }
    }
    view.watched.clone_from(&catalogue.live);
    let exports = catalogue.exports().count() as u64;
    view.configuration =
        catalogue.exports().next_back().map(|export| Configuration { export: export.clone(), exports });
    if let Some(wal) = &catalogue.wal {
        view.wal = runs(wal);
        view.live = live(wal);
        view.gaps = wal.gaps();
        for gap in recovery.windows.iter().filter_map(|w| w.ended_by.clone()) {
            if !gap.retired && !view.gaps.contains(&gap) {
                view.gaps.push(gap);
            }
        }
    }
    let rows = summary::rows(&catalogue.entries);
    view.last_drill = rows.iter().rev().find(|r| r.kind == "drill").map(|r| Drill {
        sequence: r.sequence,
        recorded_at: r.recorded_at,
        summary: r.summary.clone(),
        bad: r.bad,
    });
    let since = |r: &&summary::SummaryRow| !matches!(r.kind, "base_backup");
    view.failures = rows.iter().rev().take_while(since).filter(|r| r.kind == "failure").take(3).cloned().collect();
    for approval in approvals(&catalogue.entries) {
        if approval.status(view.now) == Status::Waiting {
            view.approvals_waiting.push(approval.id);
        }
    }
    view.ledger_entries = catalogue.entries.len() as u64;
    view.ledger_problems = catalogue.ledger_problems.clone();
    view.windows = recovery.windows;
    view.broken.extend(recovery.troubles.iter().cloned());
    view.troubles = recovery.troubles;
}

/// Restores that went around their approval a short while ago, a sentence each.
fn broken_glass(catalogue: &Catalogue, now: DateTime<Utc>) -> Vec<String> {
    let recent = |approval: &Approvals| approval.broken_glass && now - approval.requested.at < GLASS;
    let said = |approval: Approvals| {
        let (plan, person) = (&approval.plan, &approval.requested.person);
        let to = if plan.tenant.is_some() { "" } else { "to " };
        format!("the glass was broken: {person} restored {to}{} without an approval", plan.place())
    };
    approvals(&catalogue.entries).into_iter().filter(recent).map(said).collect()
}

fn runs(wal: &Coverage) -> Vec<WalRun> {
    let of = |timeline: Timeline| {
        wal.runs(timeline).into_iter().map(move |(first, last)| WalRun {
            timeline,
            first: segment_name(timeline, first, wal.segment_size),
            last: segment_name(timeline, last, wal.segment_size),
            segments: last - first + 1,
        })
    };
    wal.timelines.keys().flat_map(|timeline| of(*timeline)).collect()
}

fn live(wal: &Coverage) -> Option<Live> {
    let timeline = wal.newest()?;
    let (number, covered) = wal.timelines.get(&timeline)?.live.iter().next_back()?;
    Some(Live {
        segment: segment_name(timeline, *number, wal.segment_size),
        end_lsn: Lsn(number * wal.segment_size + covered),
    })
}

/// Asks PostgreSQL, and takes no for an answer.
async fn server(environment: &Environment) -> Server {
    let slot_name = environment.postgres.slot.clone();
    let ask = async {
        let client = Source::new(&environment.postgres)?.sql().await?;
        wal_state(&client, &slot_name).await
    };
    let (state, error) = match tokio::time::timeout(PATIENCE, ask).await {
        Ok(Ok(state)) => (Some(state), None),
        Ok(Err(refused)) => (None, Some(refused.message())),
        Err(_) => (None, Some(format!("no answer within {} s", PATIENCE.as_secs()))),
    };
    Server {
        reachable: state.is_some(),
        error,
        current_lsn: state.as_ref().map(|s| s.current_lsn),
        standby: state.as_ref().is_some_and(|s| s.standby),
        slot: state.and_then(|s| s.slot),
        slot_name,
    }
}

/// What somebody must look at, worst first.
fn broken(view: &View) -> Vec<String> {
    let mut broken = Vec::new();
    if let Some(why) = &view.unreadable {
        broken.push(format!("the repository cannot be read: {why}"));
        return broken;
    }
    for problem in &view.ledger_problems {
        broken.push(format!("the ledger is damaged: {problem}"));
    }
    let oldest = view.bases.iter().map(|b| b.backup.start_lsn).min();
    for gap in view.gaps.iter().filter(|g| oldest.is_some_and(|start| g.to > start)) {
        let which = match gap.segments {
            1 => format!("segment {} is missing", gap.first),
            n => format!("{n} segments are missing, {} to {}", gap.first, gap.last),
        };
        broken.push(format!("WAL has a hole: {which}; {} to {} cannot be reached", gap.from, gap.to));
    }
    for base in view.bases.iter().filter(|b| !b.restorable) {
        let why = base.why_not.as_deref().unwrap_or_default();
        broken.push(format!("base backup {} cannot be restored: {why}", base.backup.id));
    }
    for filestore in &view.filestores {
        let capture = &filestore.capture;
        let named = capture.suspects.len() + capture.missing_at_source.len();
        if named > 0 || !capture.complete {
            broken.push(format!(
                "the filestore of {} has {} unsound and {} missing files at its source{}",
                filestore.database,
                capture.suspects.len(),
                capture.missing_at_source.len(),
                if capture.complete { "" } else { ", and its capture is incomplete" }
            ));
        }
    }
    if view.last_drill.as_ref().is_some_and(|d| d.bad) {
        broken.push("the last drill did not pass".to_owned());
    }
    match &view.postgres.slot {
        Some(slot) if slot.wal_status.as_deref() == Some("lost") => broken.push(format!(
            "PostgreSQL has removed WAL that the slot {} still needed: take a base backup now",
            view.postgres.slot_name
        )),
        Some(slot) if !slot.active => {
            broken.push("nobody receives WAL: `lifeboat wal receive` is not running".to_owned());
        }
        _ => {}
    }
    // While the server is down, the age of its last commit says nothing about the receiver.
    if view.postgres.reachable && view.exposure.seconds.is_some() && !view.exposure.met {
        broken.push("more would be lost now than the objective allows".to_owned());
    }
    broken.extend(view.broken.iter().cloned());
    broken
}
