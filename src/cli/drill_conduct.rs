//! A drill as a command runs it: everything from the environment to the written report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::context::{Context, Keys, host_name};
use super::drills::tell_of_the_dead;
use super::restore::{tools, tools_at};
use crate::config::{Environment, Probe, SandboxKind};
use crate::drill::outlook::outlook;
use crate::drill::sandbox::Begun;
use crate::drill::sandbox::place::Ground;
use crate::drill::{self, Chosen, Sample, Sandbox, loss, selftest};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::evidence::draw::Revealed;
use crate::evidence::drill_record::DrillRecord;
use crate::evidence::entry::Failure;
use crate::evidence::outlook::Outlook;
use crate::evidence::report_json::Place;
use crate::evidence::{Appended, Body};
use crate::evidence::{report_html, report_json};
use crate::postgres::account::{Account, running_as};
use crate::repository::Repository;
use crate::repository::catalogue::{Catalogue, ledger};
use crate::repository::frontier::Recovery;
use crate::repository::wal_archive::WalArchive;
use crate::restore::{self, Resolved, Target, Tools, Wishes};

/// Where drills of an environment restore to.
pub(crate) fn work_dir(environment: &Environment) -> PathBuf {
    environment.drill.work_dir.clone().unwrap_or_else(std::env::temp_dir)
}

/// What a drill restores to.
#[derive(Debug, Clone)]
pub(crate) enum Aim {
    /// What was asked for.
    Target(Target),
    /// What a rule chooses.
    Sample(Sample),
}

/// What a drill is to be like.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// What to restore to.
    pub(crate) aim: Aim,
    /// When the disaster happened, or is supposed to have happened; `None`: now.
    pub(crate) incident_time: Option<DateTime<Utc>>,
    /// Whether the source is asked where its WAL ends.
    pub(crate) ask_source: bool,
    /// Where the report goes.
    pub(crate) report: &'a Path,
    /// Whether the restored copy stays.
    pub(crate) keep: bool,
    /// Whether the checks are tested, too.
    pub(crate) selftest: bool,
}

/// A drill that was run and recorded, and its report.
#[derive(Debug)]
pub(crate) struct Conducted {
    pub(crate) record: DrillRecord,
    pub(crate) appended: Appended,
    pub(crate) html: PathBuf,
    pub(crate) json: PathBuf,
    /// What all drills together say now; `None` where that could not be read.
    pub(crate) outlook: Option<Outlook>,
}

/// Runs a drill of `environment` and writes its report.
pub(crate) async fn conduct(context: &Context, environment: &Environment, wish: &Wish<'_>) -> Result<Conducted> {
    let repository = Arc::new(context.repository(Keys::Read).await?);
    tell_of_the_dead(context, environment, &repository).await;
    let catalogue = Arc::new(Catalogue::load(&repository, &environment.name).await?);
    let (started_at, began) = (context.runtime.now(), std::time::Instant::now());
    let mut draw = None;
    let prepared = prepare(context, environment, wish, &repository, catalogue, started_at, &mut draw).await;
    let (tools, request) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            // That nothing can be restored is a result of the drill, and belongs into the record.
            let mut entry = Failure::new("drill", &failure, started_at, began.elapsed().as_secs_f64());
            entry.draw = draw;
            if let Err(e) = record(&repository, &environment.name, context, entry).await {
                context.runtime.emit(Event::Warning(format!("the failure could not be recorded in the ledger: {e}")));
            }
            return Err(failure);
        }
    };
    let done = drill::run(&tools, request).await?;
    let outlook = match look(context, environment, &repository).await {
        Ok(outlook) => Some(outlook),
        Err(e) => {
            context.runtime.emit(Event::Warning(format!("what drills have proven so far is not in the report: {e}")));
            None
        }
    };
    let signer = repository.signer()?.verifying_key();
    let signer_name = host_name();
    let place = Place {
        repository_url: repository.store.url(),
        appended: &done.appended,
        signer_name: &signer_name,
        signer,
        outlook: outlook.as_ref(),
    };
    let (html, json) = write_reports(wish.report, &done.record, &place)?;
    Ok(Conducted { record: done.record, appended: done.appended, html, json, outlook })
}

/// Everything up to the sandbox. A random draw is told through `draw` as soon as it is committed.
async fn prepare<'a>(
    context: &'a Context,
    environment: &'a Environment,
    wish: &Wish<'_>,
    repository: &Arc<Repository>,
    catalogue: Arc<Catalogue>,
    started_at: DateTime<Utc>,
    draw: &mut Option<Revealed>,
) -> Result<(Tools, drill::Request<'a>)> {
    let incident_time = wish.incident_time.unwrap_or(started_at);
    let mut findings = Vec::new();
    let mut source = None;
    if wish.ask_source {
        match loss::ask(&environment.postgres).await {
            Ok(state) => source = Some(state),
            Err(e) => findings.push(format!("what would be lost is not known exactly: {e}")),
        }
    }
    let chosen = match &wish.aim {
        Aim::Target(target) => Chosen::given(target.clone()),
        Aim::Sample(sample) => drill::choose(*sample, repository, &catalogue, &context.runtime).await?,
    };
    draw.clone_from(&chosen.sampling.draw);
    let archive = WalArchive::new(repository, &environment.name);
    let resolved = restore::resolve(archive, &catalogue, &chosen.target, chosen.timeline).await?;
    let (resolved, selftest) = match wish.selftest {
        true => at_the_baseline(repository, &catalogue, resolved).await?,
        false => (resolved, None),
    };
    // A self-test goes back to where the source was asked: what came after it is not lost.
    let is_behind = selftest.as_ref().is_some_and(|options| options.beyond.is_some());
    let id = crate::postgres::base_backup::new_id(started_at)?;
    let operator = format!("{}@{}", running_as(), host_name());
    let config_digest = digest_of(&context.estate.file)?;
    let begun = Begun {
        id: id.clone(),
        repository: repository.descriptor.repository.clone(),
        environment: environment.name.clone(),
        requested: resolved.requested.clone(),
        operator: operator.clone(),
        config_digest: config_digest.clone(),
        started_at,
        incident_time,
        sampling: Some(chosen.sampling.clone()),
    };
    let readable = drill::odoo::readable(environment)?;
    let ground = Ground {
        parent: work_dir(environment),
        temporary: std::env::temp_dir(),
        account: Account::for_servers(environment.postgres.run_as.as_deref())?,
        keep: wish.keep,
    };
    let sandbox = Sandbox::create(&ground, &begun)?;
    let wishes = Wishes {
        pgdata: sandbox.pgdata(),
        filestore: Some(sandbox.filestore()),
        configuration: None,
        recover: true,
        delta: false,
        force: false,
    };
    let plan = restore::plan(&catalogue, resolved, &wishes)?;
    let tools = match environment.drill.sandbox {
        // The sandbox finds PostgreSQL in its image; this host need not have any.
        SandboxKind::Container(_) => tools_at(context, environment, repository.clone(), catalogue, PathBuf::new())?,
        SandboxKind::Local | SandboxKind::None => tools(context, environment, repository.clone(), catalogue, &plan)?,
    };
    let request = drill::Request {
        environment,
        checks: context.estate.checks_for(environment).collect(),
        plan,
        sandbox,
        readable: programs(context, environment).into_iter().chain(readable).collect(),
        ports: environment.drill.odoo.iter().map(|_| drill::boot::PORT).collect(),
        id,
        started_at,
        incident_time,
        left_out_on_purpose: (chosen.is_past() || is_behind) && wish.incident_time.is_none(),
        count_lost: matches!(wish.aim, Aim::Target(_) | Aim::Sample(Sample::Latest)),
        sampling: chosen.sampling,
        source,
        findings,
        operator,
        config_digest,
        binary_sha256: digest_of(&tools.program).ok(),
        selftest,
    };
    Ok((tools, request))
}

async fn record(repository: &Repository, environment: &str, context: &Context, entry: Failure) -> Result<Appended> {
    let ledger = ledger(repository, environment).await?;
    ledger.append(&context.runtime, repository.signer()?, Vec::new(), Body::Failure(entry)).await
}

/// What all drills of an environment say now.
pub(crate) async fn look(context: &Context, environment: &Environment, repository: &Repository) -> Result<Outlook> {
    let catalogue = Catalogue::load(repository, &environment.name).await?;
    let recovery = Recovery::load(repository, &catalogue).await;
    Ok(outlook(environment, &catalogue, &recovery, context.runtime.now()))
}

/// A self-test restores to the state that the source was asked in, where there is one: then checks that compare can be
/// tested, too. What is behind that serves to test the stop of recovery.
async fn at_the_baseline(
    repository: &Repository,
    catalogue: &Catalogue,
    latest: Resolved,
) -> Result<(Resolved, Option<selftest::Options>)> {
    let base = catalogue.bases().find(|base| base.id == latest.base);
    let lsn = base.and_then(|base| base.baseline.as_ref()).and_then(|baseline| baseline.lsn);
    let Some(lsn) = lsn.filter(|lsn| *lsn <= latest.stop_end) else {
        return Ok((latest, Some(selftest::Options::default())));
    };
    let archive = WalArchive::new(repository, &catalogue.environment);
    let there = restore::resolve(archive, catalogue, &Target::Lsn(lsn), Some(latest.timeline)).await?;
    let beyond = (there.stop_end < latest.stop_end).then_some(latest);
    Ok((there, Some(selftest::Options { beyond })))
}

/// The programs that checks run on the restored copy: a sandbox sees no others than these and the system's.
fn programs(context: &Context, environment: &Environment) -> Vec<PathBuf> {
    let checks = context.estate.checks_for(environment);
    let programs = checks.filter_map(|check| match &check.probe {
        Probe::Command(command) => Some(command.program.clone()),
        _ => None,
    });
    programs.filter(|program| program.exists()).collect()
}

/// SHA-256 of a file, in hexadecimal.
fn digest_of(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).or_err(ErrorKind::Config, || format!("cannot read {}", file.display()))?;
    Ok(hex::encode(Sha256::digest(&bytes)))
}

fn write_reports(folder: &Path, record: &DrillRecord, place: &Place<'_>) -> Result<(PathBuf, PathBuf)> {
    let failed = |path: &Path| format!("the drill is recorded, but its report cannot be written to {}", path.display());
    std::fs::create_dir_all(folder).or_err(ErrorKind::Internal, || failed(folder))?;
    let base = format!("drill-{}-{}", record.environment, record.id);
    let (html, json) = (folder.join(format!("{base}.html")), folder.join(format!("{base}.json")));
    std::fs::write(&html, report_html::render(record, place)).or_err(ErrorKind::Internal, || failed(&html))?;
    std::fs::write(&json, report_json::render(record, place)).or_err(ErrorKind::Internal, || failed(&json))?;
    Ok((html, json))
}
