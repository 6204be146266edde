//! `lifeboat drill run`, `drill selftest` and `drill reap`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::EnvironmentArgument;
use super::context::{Context, Keys, host_name};
use super::drills::{merged, reap, tell_of_the_dead};
use super::output::Outcome;
use super::restore::tools;
use crate::config::{Environment, Probe};
use crate::drill::sandbox::Begun;
use crate::drill::sandbox::place::Ground;
use crate::drill::{self, Sandbox, selftest};
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::evidence::Appended;
use crate::evidence::drill_record::{CheckResult, DrillRecord, Verdict};
use crate::evidence::report_json::Place;
use crate::evidence::selftest::{DamageOutcome, SelfTest};
use crate::evidence::{report_html, report_json, report_odoo};
use crate::postgres::account::{Account, running_as};
use crate::postgres::backup::record_failure;
use crate::repository::Repository;
use crate::repository::catalogue::{Catalogue, ledger};
use crate::repository::wal_archive::WalArchive;
use crate::restore::{self, Resolved, Target, Wishes};
use crate::units::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Restore into a disposable place, check what came back, measure RPO and RTO, destroy it, sign the report
    Run(Arguments),
    /// Clean up after drills whose Lifeboat was killed, and record them as not completed; `drill run` does so too
    Reap,
    /// Try a file of checks on a live database: read only, with time limits; exit code 8 when a hard one fails
    Check(super::drill_check::Arguments),
    /// Test the checks: restore, damage copies in a dozen ways, and see whether every damage turns a check red
    Selftest(SelftestArguments),
}

#[derive(Debug, Args)]
pub(crate) struct SelftestArguments {
    #[command(flatten)]
    environment: EnvironmentArgument,

    /// Where the report goes, as HTML and JSON [default: `report_dir` of the environment, else the current directory]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the environment; may be given several times
    #[arg(short, long = "environment", value_name = "ENV", required_unless_present = "all")]
    environments: Vec<String>,

    /// Drill every environment, one after the other
    #[arg(long, conflicts_with = "environments")]
    all: bool,

    /// How many drills run at a time; each takes the disk and memory of a whole restore
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,

    /// What to restore to, as for `restore`
    #[arg(long, value_name = "TARGET", default_value = "latest")]
    to: String,

    /// Where the report goes, as HTML and JSON [default: `report_dir` of the environment, else the current directory]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    /// Keep the restored copy for a look; it must be removed by hand
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Run(arguments) => several(arguments, context).await,
        Command::Reap => reap(context).await,
        Command::Check(_) => Err(error::internal("`drill check` takes no configuration for granted")),
        Command::Selftest(arguments) => {
            let environment = context.environment(&arguments.environment.environment)?;
            let folder = folder(arguments.report.as_ref(), environment);
            let incident_time = context.runtime.now();
            let wish = Wish { target: Target::Latest, incident_time, report: &folder, keep: false, selftest: true };
            one(context, environment, &wish).await
        }
    }
}

async fn several(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let named = arguments.environments.iter().map(|name| context.environment(name));
    let environments: Vec<&Environment> = match arguments.all {
        true => context.estate.environments.iter().collect(),
        false => named.collect::<Result<_>>()?,
    };
    let run = async |environment: &Environment| {
        let folder = folder(arguments.report.as_ref(), environment);
        let wish = Wish {
            target: arguments.to.parse()?,
            incident_time: context.runtime.now(),
            report: &folder,
            keep: arguments.keep,
            selftest: false,
        };
        one(context, environment, &wish).await
    };
    match environments.as_slice() {
        [environment] => run(environment).await,
        several => Ok(merged(several, arguments.jobs.into(), run).await),
    }
}

/// Where the report of a drill goes.
fn folder(asked: Option<&PathBuf>, environment: &Environment) -> PathBuf {
    asked.or(environment.drill.report_dir.as_ref()).cloned().unwrap_or_else(|| ".".into())
}

async fn one(context: &Context, environment: &Environment, wish: &Wish<'_>) -> Result<Outcome> {
    let done = conduct(context, environment, wish).await?;
    let text = describe(&done.record, done.appended.sequence, &done.html);
    let json = json!({
        "drill": done.record,
        "ledger": done.appended,
        "report": { "html": done.html, "json": done.json },
    });
    Ok(Outcome::new(json, text).with_failure(failure(&done.record)))
}

/// Where drills of an environment restore to.
pub(crate) fn work_dir(environment: &Environment) -> PathBuf {
    environment.drill.work_dir.clone().unwrap_or_else(std::env::temp_dir)
}

/// What a drill is to be like.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// What to restore to.
    pub(crate) target: Target,
    /// When the disaster happened, or is supposed to have happened.
    pub(crate) incident_time: DateTime<Utc>,
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
}

/// Runs a drill of `environment` and writes its report.
pub(crate) async fn conduct(context: &Context, environment: &Environment, wish: &Wish<'_>) -> Result<Conducted> {
    let repository = Arc::new(context.repository(Keys::Read).await?);
    tell_of_the_dead(context, environment, &repository).await;
    let catalogue = Arc::new(Catalogue::load(&repository, &environment.name).await?);
    let started_at = context.runtime.now();
    let began = std::time::Instant::now();
    let archive = WalArchive::new(&repository, &environment.name);
    let resolved = match restore::resolve(archive, &catalogue, &wish.target, None).await {
        Ok(resolved) => resolved,
        Err(failure) => {
            // That nothing can be restored is a result of the drill, and belongs into the record.
            let ledger = ledger(&repository, &environment.name).await?;
            record_failure(&ledger, &repository, "drill", &failure, started_at, began, &context.runtime).await;
            return Err(failure);
        }
    };
    let (resolved, selftest) = match wish.selftest {
        true => at_the_baseline(&repository, &catalogue, resolved).await?,
        false => (resolved, None),
    };
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
        incident_time: wish.incident_time,
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
    let tools = tools(context, environment, repository.clone(), catalogue, &plan)?;
    let request = drill::Request {
        environment,
        checks: context.estate.checks_for(environment).collect(),
        plan,
        sandbox,
        readable: programs(context, environment).into_iter().chain(readable).collect(),
        ports: environment.drill.odoo.iter().map(|_| drill::boot::PORT).collect(),
        id,
        started_at,
        incident_time: wish.incident_time,
        operator,
        config_digest,
        binary_sha256: digest_of(&tools.program).ok(),
        selftest,
    };
    let done = drill::run(&tools, request).await?;
    let signer = repository.signer()?.verifying_key();
    let signer_name = host_name();
    let place =
        Place { repository_url: repository.store.url(), appended: &done.appended, signer_name: &signer_name, signer };
    let (html, json) = write_reports(wish.report, &done.record, &place)?;
    Ok(Conducted { record: done.record, appended: done.appended, html, json })
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
    Ok((there, Some(selftest::Options { beyond, neutralised: None })))
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

fn describe(record: &DrillRecord, sequence: u64, html: &Path) -> String {
    let seconds = |s: f64| match std::time::Duration::try_from_secs_f64(s) {
        Ok(d) => Span(d).to_string(),
        Err(_) => "unknown".to_owned(),
    };
    let verdict = match record.verdict {
        Verdict::Passed => "PASSED",
        Verdict::Failed => "FAILED",
        Verdict::ObjectiveMissed => "OBJECTIVE MISSED",
        Verdict::NotCompleted => "NOT COMPLETED",
    };
    let count = |result| record.checks.iter().filter(|c| c.result == result).count();
    let mut text = format!("drill {} of {}: {verdict}\n", record.id, record.environment);
    if let Some(kept) = record.target.actual.as_ref().and_then(|a| a.time) {
        text += &format!("restored to the transaction of {}\n", kept.format("%Y-%m-%d %H:%M:%S%.3f UTC"));
    }
    if let Some(rpo) = &record.rpo {
        text += &format!("RPO: {} (objective {})\n", seconds(rpo.measured_seconds()), seconds(rpo.objective_seconds));
    }
    if let Some(rto) = record.rto.measured_seconds {
        text += &format!("RTO: {} (objective {})\n", seconds(rto), seconds(record.rto.objective_seconds));
    }
    text += &format!(
        "checks: {} passed, {} failed, {} in error, {} informative, {} not applicable\n",
        count(CheckResult::Passed),
        count(CheckResult::Failed),
        count(CheckResult::Error),
        count(CheckResult::Info),
        count(CheckResult::NotApplicable),
    );
    for check in record.checks.iter().filter(|c| matches!(c.result, CheckResult::Failed | CheckResult::Error)) {
        text += &format!("  {} in {}: {}: {}\n", check.id, check.scope, check.title, check.detail);
    }
    if let Some(test) = &record.selftest {
        text += &selftest_text(test, record);
    }
    for a in &record.attachments {
        text += &format!(
            "attachments of {}: {} referenced, {} verified, {} missing\n",
            a.database,
            a.referenced,
            a.verified,
            a.missing.len()
        );
    }
    for boot in &record.boots {
        let up = boot.seconds.map_or_else(|| "did not come up".to_owned(), |s| format!("up after {}", seconds(s)));
        text += &format!("Odoo {} on {}: {up}\n", boot.odoo.as_deref().unwrap_or("?"), boot.database);
    }
    if let Some(egress) = &record.egress {
        text += &format!("tried to reach the outside: {}\n", report_odoo::in_words(egress));
    }
    for phase in &record.phases {
        text += &format!("  {:44} {}\n", phase.name, seconds(phase.seconds));
    }
    text += &format!("recorded as entry {sequence} of the ledger; report: {}", html.display());
    text
}

fn selftest_text(test: &SelfTest, record: &DrillRecord) -> String {
    if test.drill != record.id {
        return format!("checks were last tested in drill {}: {}\n", test.drill, test.score());
    }
    let mut text = format!("self-test: {}\n", test.score());
    for case in &test.cases {
        let came = match case.outcome {
            DamageOutcome::Found => format!("found by {}", case.caught_by.join(", ")),
            DamageOutcome::Missed => format!("MISSED ({})", case.detail),
            DamageOutcome::Skipped => format!("skipped: {}", case.detail),
        };
        text += &format!("  {:22} {}: {came}\n", case.id, case.title);
    }
    text
}

/// The failure that a record amounts to.
pub(crate) fn failure(record: &DrillRecord) -> Option<Error> {
    match record.verdict {
        Verdict::Passed => None,
        Verdict::NotCompleted => Some(
            error::check_failed(format!("the drill of {} was not completed", record.environment))
                .hint("run it again: it says nothing about the backup"),
        ),
        Verdict::Failed => {
            let blind = record.selftest.as_ref().filter(|test| test.drill == record.id && !test.is_complete());
            let why = match (&record.error, blind) {
                (Some(error), _) => error.clone(),
                (None, Some(test)) => format!("the checks did not notice all damage: {}", test.score()),
                (None, None) => "a check failed, see the report".to_owned(),
            };
            Some(
                error::check_failed(format!("the drill of {} failed: {why}", record.environment))
                    .meaning("a restore now would not give back what it should")
                    .hint(format!(
                        "`lifeboat verify -e {} --deep` tells whether the repository is whole",
                        record.environment
                    )),
            )
        }
        Verdict::ObjectiveMissed => Some(
            error::objective_missed(format!(
                "the drill of {} restored sound data, but missed an objective",
                record.environment
            ))
            .hint("the report shows which, and by how much"),
        ),
    }
}
