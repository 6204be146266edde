//! `lifeboat config check` and `lifeboat config schema`.

use std::path::Path;

use clap::Subcommand;
use serde_json::json;

use super::context::config_file;
use super::output::Outcome;
use crate::config::{self, Estate};
use crate::error::Result;
use crate::units::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read all configuration files and say what they mean
    Check,
    /// Print the JSON Schema of the configuration files, for editors
    Schema,
}

pub(crate) fn run(command: &Command, file: Option<&Path>) -> Result<Outcome> {
    match command {
        Command::Check => Ok(check(&Estate::load(&config_file(file)?)?)),
        Command::Schema => {
            let schema = config::json_schema();
            let text = format!("{schema:#}");
            Ok(Outcome::new(schema, text))
        }
    }
}

fn check(estate: &Estate) -> Outcome {
    let mut text = format!("{} is sound\n", estate.file.display());
    text += &format!("repository: {}\n", estate.repository.url);
    for environment in &estate.environments {
        let objectives = environment.objectives;
        text += &format!(
            "environment {}: {}, owner {}, RPO {}, RTO {}, {} Odoo instance(s), slot {}\n",
            environment.name,
            serde_json::to_value(environment.purpose)
                .ok()
                .and_then(|v| v.as_str().map(str::to_owned))
                .unwrap_or_default(),
            environment.owner,
            Span(objectives.rpo),
            Span(objectives.rto),
            environment.odoo.len(),
            environment.postgres.slot,
        );
    }
    text += &format!("checks: {}\n", estate.checks.len());
    let built_in = if estate.jobs.iter().all(|job| job.built_in) { " (built in)" } else { "" };
    text += &format!("jobs: {}{built_in}, calendars: {}", estate.jobs.len(), estate.calendars.len());
    let json = json!({
        "file": estate.file,
        "repository": estate.repository.url,
        "environments": estate.environments.iter().map(|e| json!({
            "name": e.name,
            "purpose": e.purpose,
            "owner": e.owner,
            "rpo_seconds": e.objectives.rpo.as_secs(),
            "rto_seconds": e.objectives.rto.as_secs(),
            "odoo_instances": e.odoo.len(),
            "slot": e.postgres.slot,
        })).collect::<Vec<_>>(),
        "checks": estate.checks.iter().map(|c| &c.id).collect::<Vec<_>>(),
        "jobs": estate.jobs.iter().map(|job| &job.name).collect::<Vec<_>>(),
        "calendars": estate.calendars.iter().map(|calendar| &calendar.name).collect::<Vec<_>>(),
    });
    Outcome::new(json, text)
}
