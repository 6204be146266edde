//! What page and API both answer: ledgers, plans, approvals, jobs asked for. Everything that changes something is in the
//! audit log, and, where it is about an environment, in its signed ledger.

use std::collections::HashMap;
use std::path::PathBuf;

use super::access;
use super::api::model::{LedgerPage, Row, StartJob, Wanted};
use super::http::app::{App, busy};
use super::http::client::Client;
use super::http::problem::Problem;
use super::http::visitor::Visitor;
use crate::config::Environment;
use crate::error::{self, Result};
use crate::evidence::approval::{Approvals, PlannedRestore, approvals};
use crate::evidence::{LedgerEntry, summary};
use crate::repository::catalogue::Catalogue;
use crate::repository::wal_archive::WalArchive;
use crate::repository::{Repository, StateDir};
use crate::restore::approval::{Desk, planned};
use crate::restore::{self, Plan, Target, Wishes};
use crate::storage;
use crate::units::Timeline;

/// Entries of one stretch of a ledger.
pub(crate) const STRETCH: u64 = 50;
/// The longest reason that somebody may give.
const LONGEST: usize = 500;

type Answer<T> = std::result::Result<T, Problem>;

/// A stretch of the ledger, newest first, which ends before entry `before` (or with the newest entry).
pub(crate) async fn ledger_page(app: &App, environment: &str, before: Option<u64>, limit: u64) -> Answer<LedgerPage> {
    let ledger = app.ledger(environment).await?;
    let last = match before {
        Some(before) => before.saturating_sub(1),
        None => {
            let view = app.view();
            let known = view.environment(environment).and_then(|e| Some(e.view.as_ref()?.ledger_entries));
            ledger.last(known.unwrap_or(0)).await?
        }
    };
    let first = last.saturating_sub(limit.clamp(1, STRETCH) - 1).max(1);
    if last == 0 {
        let environment = environment.to_owned();
        return Ok(LedgerPage { environment, entries: Vec::new(), problems: Vec::new(), older: None });
    }
    let reading = ledger.range(first, last).await?;
    let rows = summary::rows(&reading.entries).into_iter().zip(&reading.entries);
    let mut entries: Vec<Row> = rows
        .map(|(row, entry)| Row {
            sequence: row.sequence,
            recorded_at: row.recorded_at,
            kind: row.kind.to_owned(),
            summary: row.summary,
            bad: row.bad,
            sha256: entry.sha256.clone(),
        })
        .collect();
    entries.reverse();
    let problem = |p: &crate::evidence::Problem| match p.sequence {
        Some(n) => format!("entry {n}: {}", p.what),
        None => p.what.clone(),
    };
    Ok(LedgerPage {
        environment: environment.to_owned(),
        entries,
        problems: reading.problems.iter().map(problem).collect(),
        older: (first > 1).then_some(first),
    })
}

/// One entry, verified together with its link to the one before.
pub(crate) async fn entry(app: &App, environment: &str, sequence: u64) -> Answer<LedgerEntry> {
    let absent = || Problem::not_found(format!("there is no entry {sequence} in the ledger of {environment}"));
    if sequence == 0 || sequence > u64::from(u32::MAX) {
        return Err(absent());
    }
    let ledger = app.ledger(environment).await?;
    let reading = ledger.range(sequence, sequence).await?;
    match reading.entries.into_iter().next() {
        Some(entry) => Ok(entry),
        None if reading.found == 0 => Err(absent()),
        None => {
            let what = reading.problems.first().map(|p| p.what.clone()).unwrap_or_default();
            Err(error::integrity(format!("entry {sequence} of the ledger of {environment}: {what}")).into())
        }
    }
}

/// All approvals of an environment, newest first.
pub(crate) async fn all_approvals(app: &App, environment: &str) -> Answer<Vec<Approvals>> {
    let mut all = approvals(&app.approval_entries(environment).await?);
    all.reverse();
    Ok(all)
}

/// The plan for what somebody wants, and what an approval of it is bound to; touches nothing.
pub(crate) async fn plan(app: &App, environment: &Environment, wanted: &Wanted) -> Answer<(Plan, PlannedRestore)> {
    let target: Target = wanted.to.trim().parse()?;
    let wishes = Wishes {
        pgdata: place("pgdata", &wanted.pgdata)?,
        filestore: wanted.filestore.as_ref().map(|path| place("filestore", path)).transpose()?,
        configuration: wanted.configuration.as_ref().map(|path| place("configuration", path)).transpose()?,
        recover: true,
        delta: wanted.delta,
        force: wanted.force && wanted.delta,
    };
    let host = host(app, wanted)?;
    let _place = app.plans.clone().try_acquire_owned().map_err(|_| busy("plans"))?;
    let repository = with_recovery_key(app).await?;
    let catalogue = Catalogue::load(&repository, &environment.name).await?;
    let archive = WalArchive::new(&repository, &environment.name);
    let resolved = restore::resolve(archive, &catalogue, &target, wanted.timeline.map(Timeline)).await?;
    let plan = restore::plan(&catalogue, resolved, &wishes)?;
    let bound = planned(&plan, &repository.descriptor.repository, &host, &HashMap::new());
    Ok((plan, bound))
}

/// Resolving a target reads WAL, which only the recovery key opens. It is fetched for this, and not kept.
async fn with_recovery_key(app: &App) -> Result<Repository> {
    let estate = app.estate();
    let recovery = access::recovery(&estate)?.ok_or_else(|| {
        error::denied("this service holds no recovery key, so it cannot read WAL and cannot make a plan")
            .meaning("that is as it should be on a host that only backs up; nothing is wrong")
            .hint("run the command with --plan on the host that restores, where the key is")
    })?;
    let store = storage::open(&access::location(&estate.repository)?, &app.runtime).await?;
    Repository::open(&store, &StateDir::new(&estate.keys.state_dir), Some(&recovery)).await
}

fn place(key: &str, path: &str) -> Answer<PathBuf> {
    let path = path.trim();
    let plain = path.starts_with('/') && path.len() < 4096 && !path.contains(char::is_control) && path != "/";
    if !plain {
        return Err(Problem::bad_request(format!("`{key}` is not the absolute path of a directory")));
    }
    let path = PathBuf::from(path);
    let walks = path.components().any(|part| matches!(part, std::path::Component::ParentDir));
    if walks { Err(Problem::bad_request(format!("`{key}` goes up with `..`"))) } else { Ok(path) }
}

fn host(app: &App, wanted: &Wanted) -> Answer<String> {
    let name = wanted.host.as_deref().map(str::trim).filter(|name| !name.is_empty());
    let plain = |name: &&str| {
        name.len() <= 253 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
    };
    match name {
        None => Ok(app.host.clone()),
        Some(name) if plain(&name) => Ok(name.to_owned()),
        Some(_) => Err(Problem::bad_request("`host` is not the name of a host")),
    }
}

/// A reason as it goes into a ledger: one line, not endless, not empty.
pub(crate) fn reason(text: Option<&str>) -> Option<String> {
    let clean: String = text.unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let short: String = clean.trim().chars().take(LONGEST).collect();
    (!short.is_empty()).then_some(short)
}

/// Asks for approval of a restore.
pub(crate) async fn request_approval(
    app: &App,
    client: &Client,
    visitor: &Visitor,
    environment: &Environment,
    wanted: &Wanted,
) -> Answer<Approvals> {
    let (_, bound) = plan(app, environment, wanted).await?;
    let detail = format!("{} to {} at {}", bound.target, bound.pgdata, bound.host);
    let asking = async {
        let (repository, ledger) = (app.repository().await?, app.ledger(&environment.name).await?);
        let desk =
            Desk { ledger: &ledger, signer: repository.signer()?, runtime: &app.runtime, rules: &environment.restore };
        desk.request(bound, visitor.person(&app.host), reason(wanted.reason.as_deref())).await
    };
    let done = asking.await;
    noted(app, client, visitor, "request approval", &detail, done.as_ref().map(|(a, _)| a.id.as_str()));
    Ok(done?.0)
}

/// Agrees, or refuses.
pub(crate) async fn decide(
    app: &App,
    client: &Client,
    visitor: &Visitor,
    environment: &Environment,
    id: &str,
    agree: bool,
    why: Option<&str>,
) -> Answer<Approvals> {
    let deciding = async {
        let (repository, ledger) = (app.repository().await?, app.ledger(&environment.name).await?);
        let desk =
            Desk { ledger: &ledger, signer: repository.signer()?, runtime: &app.runtime, rules: &environment.restore };
        let (person, why) = (visitor.person(&app.host), reason(why));
        match agree {
            true => desk.approve(id, person, why).await,
            false => desk.deny(id, person, why).await,
        }
    };
    let done = deciding.await;
    let action = if agree { "approve" } else { "deny" };
    let detail = format!("{} {id}", environment.name);
    noted(app, client, visitor, action, &detail, done.as_ref().map(|(a, _)| a.plan_sha256.as_str()));
    Ok(done?.0)
}

/// Starts a job.
pub(crate) async fn start(
    app: &App,
    client: &Client,
    visitor: &Visitor,
    environment: &str,
    job: &StartJob,
) -> Answer<String> {
    let options = job.options();
    let detail = [job.kind().word().to_owned(), format!("-e {environment}"), options.join(" ")].join(" ");
    let started = app.control.start_job(job.kind(), environment, options.clone(), &visitor.name).await;
    noted(app, client, visitor, "start job", &detail, started.as_ref().map(String::as_str));
    let run = started?;
    recorded(app, environment, visitor, "start job", &format!("{} as {run}", detail.trim_end())).await;
    Ok(run)
}

/// Ends a run.
pub(crate) async fn cancel(app: &App, client: &Client, visitor: &Visitor, run: &str) -> Answer<()> {
    let environment = app.run_of(run, visitor)?;
    let done = app.control.stop_job(run, &visitor.name).await;
    noted(app, client, visitor, "cancel job", &format!("{run} -e {environment}"), done.as_ref().map(|()| "done"));
    done?;
    recorded(app, &environment, visitor, "cancel job", run).await;
    Ok(())
}

/// What a ledger that is away cannot be told stays in the audit log, and somebody is told.
async fn recorded(app: &App, environment: &str, visitor: &Visitor, action: &str, detail: &str) {
    if let Err(e) = app.record(environment, visitor, action, detail).await {
        let told = format!("\"{action}\" by {} is not in the ledger of {environment}: {e}", visitor.name);
        app.runtime.emit(crate::event::Event::Warning(told));
    }
}

fn noted(
    app: &App,
    client: &Client,
    visitor: &Visitor,
    action: &str,
    detail: &str,
    outcome: std::result::Result<&str, &error::Error>,
) {
    match outcome {
        Ok(said) => app.audit.note(client, Some(visitor), action, detail, said),
        Err(e) => app.audit.note(client, Some(visitor), action, detail, &format!("refused: {e}")),
    }
}
