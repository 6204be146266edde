//! `lifeboat drill run`, `drill selftest`, `drill coverage` and `drill reap`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::EnvironmentArgument;
use super::context::{Context, Keys, host_name};
use super::drill_coverage;
use super::drills::{merged, reap, tell_of_the_dead};
use super::output::Outcome;
use super::restore::{tools, tools_at};
use super::text::counted;
use crate::config::{Environment, Probe, SandboxKind};
use crate::drill::outlook::outlook;
use crate::drill::sandbox::Begun;
use crate::drill::sandbox::place::Ground;
use crate::drill::{self, Chosen, Sample, Sandbox, loss, selftest};
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::evidence::draw::Revealed;
use crate::evidence::drill_record::{CheckResult, DrillRecord, Rpo, Verdict};
use crate::evidence::entry::Failure;
use crate::evidence::outlook::Outlook;
use crate::evidence::report_json::Place;
use crate::evidence::selftest::{DamageOutcome, SelfTest};
use crate::evidence::{Appended, Body};
use crate::evidence::{report_html, report_json, report_odoo};
use crate::postgres::account::{Account, running_as};
use crate::repository::Repository;
use crate::repository::catalogue::{Catalogue, ledger};
use crate::repository::frontier::Recovery;
use crate::repository::wal_archive::WalArchive;
use crate::restore::{self, Resolved, Target, Tools, Wishes};
use crate::units::{ByteSize, Span};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Restore into a disposable place, check what came back, measure RPO and RTO, destroy it, sign the report
    Run(Arguments),
    /// Tell what drills have proven: which times, timelines and databases, when, how sure, and how long a restore would take
    Coverage(drill_coverage::Arguments),
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

    /// What to restore to, as for `restore` [default: latest]
    #[arg(long, value_name = "TARGET", conflicts_with = "sample")]
    to: Option<String>,

    /// Choose what to restore to by a rule instead
    #[arg(long, value_enum, value_name = "RULE")]
    sample: Option<Rule>,

    /// When the disaster is supposed to have happened; the RPO is measured against it [default: now]
    #[arg(long, value_name = "TIME", conflicts_with = "sample")]
    incident: Option<String>,

    /// Ask the running source where its WAL ends, to tell exactly what would be lost if it were gone now
    #[arg(long)]
    ask_source: bool,

    /// Where the report goes, as HTML and JSON [default: `report_dir` of the environment, else the current directory]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    /// Keep the restored copy for a look; it must be removed by hand
    #[arg(long)]
    keep: bool,
}

/// Rules by which a drill chooses its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rule {
    /// The last transaction in the repository
    Latest,
    /// The oldest moment that can be restored
    Oldest,
    /// A random second of all that can be restored; the ledger commits to the seed before it is drawn
    Random,
    /// Just before the next base backup: the most WAL to replay
    Longest,
}

impl From<Rule> for Sample {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::Latest => Self::Latest,
            Rule::Oldest => Self::Oldest,
            Rule::Random => Self::Random,
            Rule::Longest => Self::Longest,
        }
    }
}

pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Run(arguments) => several(arguments, context).await,
        Command::Coverage(arguments) => drill_coverage::run(arguments, context).await,
        Command::Reap => reap(context).await,
        Command::Check(_) => Err(error::internal("`drill check` takes no configuration for granted")),
        Command::Selftest(arguments) => {
            let environment = context.environment(&arguments.environment.environment)?;
            let folder = folder(arguments.report.as_ref(), environment);
            let aim = Aim::Target(Target::Latest);
            let wish =
                Wish { aim, incident_time: None, ask_source: false, report: &folder, keep: false, selftest: true };
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
            aim: match arguments.sample {
                Some(rule) => Aim::Sample(rule.into()),
                None => Aim::Target(arguments.to.as_deref().unwrap_or("latest").parse()?),
            },
            incident_time: arguments.incident.as_deref().map(incident).transpose()?,
            ask_source: arguments.ask_source,
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
        "coverage": done.outlook.as_ref().map(|o| &o.coverage),
        "forecast": done.outlook.as_ref().and_then(|o| o.forecast.as_ref()),
    });
    Ok(Outcome::new(json, text).with_failure(failure(&done.record)))
}

/// Where drills of an environment restore to.
pub(crate) fn work_dir(environment: &Environment) -> PathBuf {
    environment.drill.work_dir.clone().unwrap_or_else(std::env::temp_dir)
}

/// A time with its zone, as for `--to`.
fn incident(text: &str) -> Result<DateTime<Utc>> {
    match text.parse()? {
        Target::Time(time) => Ok(time),
        _ => Err(error::usage(format!("\"{text}\" is not a time"))
            .hint("write for example --incident \"2026-11-22 20:35:00+01:00\"")),
    }
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
        left_out_on_purpose: chosen.is_past() && wish.incident_time.is_none(),
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
    if let Some(sampling) = &record.sampling {
        text += &format!("target: {}\n", sampling.why);
    }
    if record.rpo.as_ref().is_some_and(|rpo| rpo.left_out_on_purpose) {
        text += "RPO: not judged, a moment of the past was chosen\n";
    } else if let Some(rpo) = &record.rpo {
        text += &format!("RPO: {} (objective {})\n", seconds(rpo.measured_seconds()), seconds(rpo.objective_seconds));
    }
    if let Some(rto) = record.rto.measured_seconds {
        text += &format!("RTO: {} (objective {})\n", seconds(rto), seconds(record.rto.objective_seconds));
    }
    if let Some(lost) = record.rpo.as_ref().and_then(lost) {
        text += &lost;
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

/// What the disaster took, as far as that can be seen.
fn lost(rpo: &Rpo) -> Option<String> {
    let bytes = rpo.lost_bytes.map(|bytes| format!("{} of WAL", ByteSize(bytes)));
    let transactions = rpo.lost_transactions.map(|n| counted(n, "transaction", "transactions"));
    let parts: Vec<String> = [transactions, bytes].into_iter().flatten().collect();
    let what = if rpo.left_out_on_purpose { "left out" } else { "lost" };
    (!parts.is_empty()).then(|| format!("{what}: {}\n", parts.join(", ")))
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
