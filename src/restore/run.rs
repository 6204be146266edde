//! Carrying out a plan: named steps, each safe to repeat, each journalled.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::attachments::{self, Attachments};
use super::files::{self, Transfer};
use super::journal::{Journal, Step};
use super::occupied;
use super::phases::Phases;
use super::plan::Plan;
use super::recover::Stopped;
use super::settle;
use super::tools::{Tools, work_dir};
use crate::configuration::store;
use crate::disk::{self, failed};
use crate::error::{self, Error, Result};
use crate::event::Event;
use crate::evidence::drill_record::StopPoint;
use crate::evidence::entry::Restore;
use crate::evidence::{Appended, Body};
use crate::postgres::base_backup::new_id;
use crate::postgres::server::end_orphan;
use crate::repository::base_manifest::BaseManifest;
use crate::repository::catalogue::{Catalogue, ledger};

/// A finished restore.
#[derive(Debug)]
pub struct Done {
    /// What the ledger says of it.
    pub entry: Restore,
    /// Where the ledger says it; `None` where this host may not write to it.
    pub appended: Option<Appended>,
    /// What became of the files' bytes; `None` where an earlier try had written them.
    pub transfer: Option<Transfer>,
    /// Where recovery stopped; `None` where the operator runs it.
    pub stopped: Option<Stopped>,
    /// What became of the attachments.
    pub attachments: Attachments,
}

/// Carries out `plan`.
pub async fn run(tools: &Tools, plan: &Plan) -> Result<Done> {
    let started_at = tools.runtime.now();
    let mut journal = Journal::open(plan, &tools.tablespaces, tools.catalogue.wal.as_ref())?;
    let mut phases = Phases::new(&tools.runtime);
    let manifest = tools.manifest(plan).await?;
    refuse_unknown_tablespaces(tools, &manifest)?;
    if journal.is_fresh() {
        if journal.took_over() {
            end_orphan(&plan.pgdata).await?;
        }
        let directories = tools.target(plan).directories(&manifest);
        if plan.delta {
            occupied::refuse_running(&plan.pgdata, &directories[1..])?;
        }
        refuse_full_tablespaces(tools, plan, &manifest)?;
        require_space(plan, &manifest)?;
    } else {
        tools.runtime.emit(Event::Note(format!("continuing the interrupted restore in {}", plan.pgdata.display())));
        end_orphan(&plan.pgdata).await?;
    }
    journal.begin()?;
    let mut transfer = None;
    if !journal.is_done(Step::Files) {
        let total = manifest.logical_bytes();
        let reuse = plan.delta || !journal.is_fresh();
        let writing = tools.files(plan, manifest.clone(), reuse);
        transfer = Some(phases.time(files::PHASE, Some(total), writing).await?);
        journal.done(Step::Files)?;
    }
    let recovers = plan.steps.iter().any(|s| s.starts_with("replay"));
    let (mut stopped, mut attachments) = (None, Attachments::default());
    if recovers {
        let (at, restored) = recover_and_stop(tools, plan, &mut journal, &mut phases).await?;
        (stopped, attachments) = (Some(at), restored);
    } else {
        settle::to_be_recovered(&plan.pgdata, tools.account.as_ref(), &plan.target, &tools.operator_command)?;
    }
    if plan.configuration.is_some() && !journal.is_done(Step::Configuration) {
        phases.time("writing the configuration", None, configuration(tools, plan)).await?;
        journal.done(Step::Configuration)?;
    }
    let mut entry = entry(plan, &manifest, stopped.as_ref(), started_at, &phases, new_id(started_at)?);
    entry.missing_attachments = attachments.missing();
    entry.kept_bytes = transfer.map_or(0, |t| t.kept_bytes);
    entry.bytes -= entry.kept_bytes.min(entry.bytes);
    let appended = record(tools, plan, &entry).await;
    journal.finish()?;
    Ok(Done { entry, appended, transfer, stopped, attachments })
}

/// Whether an interrupted restore of this very plan lies there, which [`run`] would continue; an error where `run` would
/// not begin for what lies in its directories. Touches nothing.
pub fn continues(plan: &Plan, tablespaces: &HashMap<String, PathBuf>, catalogue: &Catalogue) -> Result<bool> {
    Journal::open(plan, tablespaces, catalogue.wal.as_ref()).map(|journal| !journal.is_fresh())
}

/// Why a delta restore would be refused as things are now; touches nothing.
pub fn delta_refused(plan: &Plan, tablespaces: &HashMap<String, PathBuf>, catalogue: &Catalogue) -> Option<Error> {
    let admitted = Journal::open(plan, tablespaces, catalogue.wal.as_ref());
    let journal = admitted.and_then(|journal| match journal.is_fresh() && !journal.took_over() {
        true => occupied::refuse_running(&plan.pgdata, &[]),
        false => Ok(()),
    });
    journal.err().filter(|_| plan.delta)
}

/// Writes the exported configuration beside. A try that was interrupted is repeated from the start.
async fn configuration(tools: &Tools, plan: &Plan) -> Result<()> {
    let (Some(dir), Some(id)) = (&plan.configuration, &plan.export) else { return Ok(()) };
    if let Err(e) = std::fs::remove_dir_all(dir)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(failed("cannot empty", dir, e));
    }
    let export = tools.catalogue.exports().find(|e| e.id == *id);
    let export =
        export.ok_or_else(|| error::not_recoverable(format!("configuration export {id} is not in the ledger")))?;
    store::restore(&tools.repository, &plan.environment, export, dir).await.map(|_| ())
}

/// Recovery with a private server, and what needs the recovered database; the server is stopped then.
async fn recover_and_stop(
    tools: &Tools,
    plan: &Plan,
    journal: &mut Journal,
    phases: &mut Phases,
) -> Result<(Stopped, Attachments)> {
    let work = work_dir(&tools.temporary)?;
    let (server, stopped) = phases.time("replaying WAL", None, tools.recover(plan, work.path())).await?;
    journal.done(Step::Recovery)?;
    let mut restored = Attachments::default();
    if plan.filestore.is_some() {
        let restoring = attachments::restore(tools, plan, &server);
        restored = phases.time(crate::filestore::restore::PHASE, None, restoring).await?;
        journal.done(Step::Filestore)?;
    }
    phases.time("stopping the server", None, server.stop()).await?;
    settle::recovered(&plan.pgdata, tools.account.as_ref())?;
    Ok((stopped, restored))
}

/// A mistyped old place would send its tablespace back to where it was.
fn refuse_unknown_tablespaces(tools: &Tools, manifest: &BaseManifest) -> Result<()> {
    let places: Vec<&str> = manifest.links.iter().map(|(_, place)| place.as_str()).collect();
    match tools.tablespaces.keys().find(|old| !places.contains(&old.as_str())) {
        None => Ok(()),
        Some(old) => Err(error::usage(format!("the backup has no tablespace in {old}"))
            .meaning("nothing was written")
            .hint(format!(
                "its tablespaces are in: {}",
                if places.is_empty() { "none".into() } else { places.join(", ") }
            ))),
    }
}

/// A tablespace goes into an empty directory; a delta restore may also use the one that the data directory links to.
fn refuse_full_tablespaces(tools: &Tools, plan: &Plan, manifest: &BaseManifest) -> Result<()> {
    let target = tools.target(plan);
    for (path, source) in &manifest.links {
        let place = target.tablespace(source);
        let linked = std::fs::read_link(plan.pgdata.join(path)).ok().filter(|_| plan.delta);
        if linked.as_deref() == Some(place) {
            continue;
        }
        disk::require_empty(place).map_err(|e| {
            let e = e
                .context("tablespace")
                .hint("send it elsewhere with `--tablespace-mapping OLD=NEW`; a live cluster may still use this one");
            match linked {
                Some(linked) => e.hint(format!(
                    "{} has it in {}: `--tablespace-mapping {source}={}`",
                    plan.pgdata.display(),
                    linked.display(),
                    linked.display()
                )),
                None => e,
            }
        })?;
    }
    Ok(())
}

/// Refuses to begin where the files cannot fit.
pub(super) fn require_space(plan: &Plan, manifest: &BaseManifest) -> Result<()> {
    let existing = plan.pgdata.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let free = rustix::fs::statvfs(existing).map(|s| s.f_bavail * s.f_frsize);
    let there = |path: &str| std::fs::metadata(plan.pgdata.join(path)).map_or(0, |about| about.len());
    let reused: u64 = match plan.delta {
        true => manifest.files.iter().map(|file| there(&file.path).min(file.size)).sum(),
        false => 0,
    };
    let needed = plan.bytes.saturating_sub(reused);
    match free {
        Ok(free) if free < needed => Err(error::usage(format!(
            "{} has {} free, the base backup alone takes {}",
            existing.display(),
            crate::units::ByteSize(free),
            crate::units::ByteSize(needed)
        ))
        .meaning("nothing was written")
        .hint("free space or name a directory on another disk")),
        // A file system that does not tell is tried.
        _ => Ok(()),
    }
}

pub(super) fn entry(
    plan: &Plan,
    manifest: &BaseManifest,
    stopped: Option<&Stopped>,
    started_at: DateTime<Utc>,
    phases: &Phases,
    id: String,
) -> Restore {
    let text = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
    let target = &plan.target;
    Restore {
        id,
        requested: target.requested.clone(),
        resolved: StopPoint { timeline: target.timeline, lsn: target.stop_end, time: target.last_kept.map(|t| t.time) },
        base_backup: plan.base.id.clone(),
        reached_lsn: stopped.map(|s| s.lsn),
        pgdata: plan.pgdata.display().to_string(),
        filestore: text(&plan.filestore),
        configuration: text(&plan.configuration),
        bytes: manifest.logical_bytes() + stopped.map_or(0, |s| s.wal_bytes),
        kept_bytes: 0,
        missing_attachments: Vec::new(),
        started_at,
        seconds: phases.seconds(),
        phases: phases.measured().to_vec(),
        tenant: None,
    }
}

/// Records the restore. A host that may not write to the ledger restores all the same, and says so.
pub(super) async fn record(tools: &Tools, plan: &Plan, entry: &Restore) -> Option<Appended> {
    let append = async {
        let signer = tools.repository.signer()?;
        let ledger = ledger(&tools.repository, &plan.environment).await?;
        ledger.append(&tools.runtime, signer, Vec::new(), Body::Restore(entry.clone())).await
    };
    match append.await {
        Ok(appended) => Some(appended),
        Err(e) => {
            tools.runtime.emit(Event::Warning(format!("the restore could not be recorded in the ledger: {e}")));
            None
        }
    }
}
