//! `lifeboat drill check`: a file of checks, tried on a live database.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::output::Outcome;
use crate::checks::{self, Measure, Within};
use crate::config::{Check, Expectation, Probe, Scope, Severity, checks_of};
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::evidence::drill_record::{self, CheckResult};
use crate::postgres::replication::TlsTrust;
use crate::postgres::source::{Source, databases};
use crate::runtime::Runtime;

/// What is said of comparisons: a live database goes on, so only a drill stands where the source was asked.
const NOT_COMPARED: &str = "a drill compares it with what the source said at the base backup";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The file with [[check]] tables
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Ask the cluster of this environment
    #[arg(short, long = "environment", value_name = "ENV", required_unless_present = "dsn")]
    environment: Option<String>,

    /// Ask this cluster instead, without any configuration; the password may come in PGPASSWORD
    #[arg(long, value_name = "DSN", conflicts_with = "environment")]
    dsn: Option<String>,

    /// Ask only this database [default: every one that a check is about]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

/// Where checks are tried.
struct Place {
    source: Source,
    rpo: Duration,
}

pub(crate) async fn run(arguments: &Arguments, config: Option<&Path>, runtime: Runtime) -> Result<Outcome> {
    let checks = checks_of(&arguments.file)?;
    let place = place(arguments, config, &runtime)?;
    let results = ask(&place, &checks, arguments.database.as_deref(), &runtime).await?;
    let text = describe(&results);
    let failure = failure(&results, &arguments.file);
    Ok(Outcome::new(json!({ "checks": results }), text).with_failure(failure))
}

fn place(arguments: &Arguments, config: Option<&Path>, runtime: &Runtime) -> Result<Place> {
    if let Some(dsn) = &arguments.dsn {
        let mut dsn: tokio_postgres::Config =
            dsn.parse().or_err(ErrorKind::Usage, || "this is not a connection string".to_owned())?;
        if let (None, Some(password)) = (dsn.get_password(), std::env::var_os("PGPASSWORD")) {
            dsn.password(password.to_string_lossy().as_bytes());
        }
        // Nobody set an objective: only `max_age` says what is fresh.
        return Ok(Place { source: Source::of(dsn, TlsTrust::Unverified), rpo: Duration::MAX });
    }
    let context = Context::load(config, runtime.clone())?;
    let environment = context.environment(arguments.environment.as_deref().unwrap_or_default())?;
    Ok(Place { source: Source::new(&environment.postgres)?, rpo: environment.objectives.rpo })
}

async fn ask(
    place: &Place,
    checks: &[Check],
    only: Option<&str>,
    runtime: &Runtime,
) -> Result<Vec<drill_record::Check>> {
    let maintenance = place.source.sql().await?;
    checks::prepare(&maintenance).await?;
    let all = databases(&maintenance).await?;
    let names: Vec<&String> = all.iter().filter(|name| only.is_none_or(|only| *name == only)).collect();
    if let (Some(only), true) = (only, names.is_empty()) {
        return Err(
            error::usage(format!("there is no database \"{only}\"")).hint(format!("databases: {}", all.join(", ")))
        );
    }
    let mut results = Vec::new();
    for check in checks.iter().filter(|c| c.database == Scope::Cluster) {
        results.push(one(&maintenance, check, checks::baseline::CLUSTER, None, place, runtime).await);
    }
    let mut asked = std::collections::HashSet::new();
    for name in names {
        let client = place.source.sql_in(name).await?;
        checks::prepare(&client).await?;
        let version = checks::odoo_version(&client).await?;
        let scopes = if version.is_some() { &[Scope::Odoo, Scope::Every][..] } else { &[Scope::Every] };
        for check in checks.iter().filter(|c| scopes.contains(&c.database)) {
            asked.insert(check.id.as_str());
            results.push(one(&client, check, name, version, place, runtime).await);
        }
    }
    let unasked = checks.iter().filter(|c| c.database != Scope::Cluster && !asked.contains(c.id.as_str()));
    let nobody = "no database that was asked is Odoo's".to_owned();
    results.extend(unasked.map(|c| not_applicable(c, only.unwrap_or(checks::baseline::CLUSTER), nobody.clone())));
    Ok(results)
}

fn not_applicable(check: &Check, scope: &str, why: String) -> drill_record::Check {
    checks::result(check, scope, CheckResult::NotApplicable, check.severity, why, Vec::new(), 0.0)
}

async fn one(
    client: &tokio_postgres::Client,
    check: &Check,
    scope: &str,
    version: Option<u32>,
    place: &Place,
    runtime: &Runtime,
) -> drill_record::Check {
    let in_drills_only = match &check.probe {
        Probe::Sql { .. } => None,
        Probe::Http(_) => Some("it asks the Odoo that a drill starts on a restored copy, and runs in drills only"),
        Probe::Command(_) => Some("it asks a restored copy, and runs in drills only"),
    };
    if let Some(why) = in_drills_only {
        return not_applicable(check, scope, why.to_owned());
    }
    let began = Instant::now();
    let outcome = checks::ask(client, check, version, Within::Own, check.timeout).await;
    let seconds = began.elapsed().as_secs_f64();
    if let (Expectation::SameAsSource, checks::Outcome::Answered(answer)) = (check.expect, &outcome) {
        let detail = format!("{} row(s); {NOT_COMPARED}", answer.count);
        let rows = answer.rows.iter().take(5).cloned().collect();
        return checks::result(check, scope, CheckResult::Info, Severity::Info, detail, rows, seconds);
    }
    let measure = Measure { source: Err(NOT_COMPARED), rpo: place.rpo, now: Some(runtime.now()) };
    checks::judge(check, scope, &outcome, &measure, seconds)
}

fn describe(results: &[drill_record::Check]) -> String {
    let mut text = String::new();
    for check in results {
        let result = match check.result {
            CheckResult::Passed => "passed",
            CheckResult::Failed if check.severity == drill_record::Severity::Hard => "FAILED",
            CheckResult::Failed => "warning",
            CheckResult::Error => "ERROR",
            CheckResult::NotApplicable => "not applicable",
            CheckResult::Info => "info",
        };
        text += &format!("{result:14} {} in {}: {}\n", check.id, check.scope, check.title);
        text += &format!("{:14} {} ({:.2} s)\n", "", check.detail, check.seconds);
        for row in &check.rows {
            text += &format!("{:16} {row}\n", "");
        }
    }
    let count = |result| results.iter().filter(|c| c.result == result).count();
    text + &format!(
        "{} passed, {} failed, {} in error, {} informative, {} not applicable",
        count(CheckResult::Passed),
        count(CheckResult::Failed),
        count(CheckResult::Error),
        count(CheckResult::Info),
        count(CheckResult::NotApplicable),
    )
}

/// A hard check that failed, and any that could not be run: a file with a mistake is not ready for drills.
fn failure(results: &[drill_record::Check], file: &Path) -> Option<Error> {
    let bad: Vec<&drill_record::Check> =
        results.iter().filter(|c| c.fails_the_drill() || c.result == CheckResult::Error).collect();
    let first = bad.first()?;
    Some(
        error::check_failed(format!(
            "{} of {}: {} in {}: {}",
            if bad.len() == 1 { "one check".to_owned() } else { format!("{} checks", bad.len()) },
            file.display(),
            first.id,
            first.scope,
            first.detail
        ))
        .meaning("a drill with these checks would fail as this database is now"),
    )
}
