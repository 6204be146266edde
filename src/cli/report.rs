//! `lifeboat report`: what happened in a month, a quarter or a year, for those who answer for an environment and those who
//! audit them. Needs public keys only.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::output::Outcome;
use super::text::{alarm, good};
use crate::config::Environment;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::evidence::periodic::{self, Period, PeriodReport};
use crate::evidence::{Ledger, Trust, TrustedKey};
use crate::repository::descriptor::{Descriptor, trusted_signers};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the environment; may be repeated
    #[arg(short, long = "environment", value_name = "ENV", required_unless_present = "all")]
    environments: Vec<String>,

    /// All environments, on one page
    #[arg(long, conflicts_with = "environments")]
    all: bool,

    /// A month, a quarter or a year: 2026-11, 2026-Q4, 2026 [default: the last month that is over]
    #[arg(long, value_name = "PERIOD")]
    period: Option<String>,

    /// Write report-….html, .json and .xml (JUnit) into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let now = context.runtime.now();
    let period = arguments.period.as_deref().map_or_else(|| Ok(Period::last_month(now)), str::parse)?;
    let environments: Vec<&Environment> = match arguments.all {
        true => context.estate.environments.iter().collect(),
        false => arguments.environments.iter().map(|name| context.environment(name)).collect::<Result<_>>()?,
    };
    let store = context.store().await?;
    let descriptor = Descriptor::find(&store).await?.ok_or_else(|| {
        error::repository(format!("there is no lifeboat.json in {}", store.url()))
            .meaning("without it nobody knows whose signatures count")
    })?;
    let signers = trusted_signers(&store, &descriptor).await?;
    let keys: Vec<TrustedKey> = signers.into_iter().map(|s| TrustedKey { key: s.key, name: s.name }).collect();
    let mut reports = Vec::with_capacity(environments.len());
    for environment in environments {
        let ledger = Ledger::new(store.clone(), &environment.name, &descriptor.repository, Trust::new(keys.clone()));
        reports.push(periodic::report(environment, &ledger.read().await?, &period, now));
    }
    let name = match (arguments.all, reports.as_slice()) {
        (false, [one]) => one.environment.clone(),
        (true, _) => "all".to_owned(),
        (false, many) => many.iter().map(|r| r.environment.as_str()).collect::<Vec<_>>().join("-"),
    };
    let files = arguments.out.as_ref().map(|dir| write(dir, &name, &period, &reports)).transpose()?;
    let damaged: Vec<&str> =
        reports.iter().filter(|r| !r.ledger_problems.is_empty()).map(|r| r.environment.as_str()).collect();
    let failure = (!damaged.is_empty()).then(|| {
        error::integrity(format!("the ledger of {} is damaged", damaged.join(", ")))
            .meaning("the report holds what is sound of it")
            .hint(format!("`lifeboat evidence verify -e {}` names every problem", damaged[0]))
    });
    let text = describe(&reports, files.as_deref());
    Ok(Outcome::new(json!({ "period": period, "reports": reports, "files": files }), text).with_failure(failure))
}

fn write(directory: &Path, name: &str, period: &Period, reports: &[PeriodReport]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)
        .or_err(ErrorKind::Usage, || format!("cannot make the directory {}", directory.display()))?;
    let forms = [
        ("html", periodic::page(reports)),
        ("json", format!("{:#}\n", json!({ "period": period, "reports": reports }))),
        ("xml", periodic::junit(reports)),
    ];
    let one = |(extension, content): (&str, String)| {
        let path = directory.join(format!("report-{name}-{}.{extension}", period.name));
        std::fs::write(&path, content).or_err(ErrorKind::Internal, || format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    forms.into_iter().map(one).collect()
}

fn describe(reports: &[PeriodReport], files: Option<&[PathBuf]>) -> String {
    let mut text = String::new();
    for report in reports {
        let period = &report.period.name;
        text += &format!("{} in {period}: {}\n", report.environment, periodic::sentence(report));
        match report.attention.as_slice() {
            [] => text += &format!("  {}\n", good("nothing to look at")),
            lines => lines.iter().for_each(|line| text += &format!("  - {}\n", alarm(line))),
        }
    }
    for file in files.unwrap_or_default() {
        text += &format!("{}\n", file.display());
    }
    text
}
