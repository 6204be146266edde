//! `lifeboat drill run`, `drill selftest`, `drill coverage` and `drill reap`.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::EnvironmentArgument;
use super::context::{Context, Despite};
use super::drill_conduct::{Aim, Wish, conduct};
use super::drill_coverage;
use super::drill_text::{describe, failure};
use super::drills::{merged, reap};
use super::output::Outcome;
use crate::config::{Effect, Environment};
use crate::drill::Sample;
use crate::error::{self, Result};
use crate::restore::Target;

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

    /// Drill although a calendar forbids it now
    #[arg(long)]
    despite_calendar: bool,
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
    let despite = Despite { option: "--despite-calendar", given: arguments.despite_calendar };
    let run = async |environment: &Environment| {
        context.allowed(environment, Effect::ForbidDrills, despite)?;
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

/// A time with its zone, as for `--to`.
fn incident(text: &str) -> Result<DateTime<Utc>> {
    match text.parse()? {
        Target::Time(time) => Ok(time),
        _ => Err(error::usage(format!("\"{text}\" is not a time"))
            .hint("write for example --incident \"2026-11-22 20:35:00+01:00\"")),
    }
}
