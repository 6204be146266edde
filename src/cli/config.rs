//! `lifeboat config check` and `lifeboat config schema`.

use std::path::Path;

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::output::Outcome;
use crate::config;
use crate::error::Result;
use crate::runtime::Runtime;
use crate::units::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read all configuration files and say what they mean
    Check,
    /// Print the JSON Schema of the configuration files, for editors
    Schema,
}

pub(crate) fn run(command: &Command, file: Option<&Path>, runtime: Runtime) -> Result<Outcome> {
    match command {
        Command::Check => Ok(check(&Context::load(file, runtime)?)),
        Command::Schema => {
            let schema = config::json_schema();
            let text = format!("{schema:#}");
            Ok(Outcome::new(schema, text))
        }
    }
}

fn check(context: &Context) -> Outcome {
    let estate = &context.estate;
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
    text += &format!("checks: {}", estate.checks.len());
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
    });
    Outcome::new(json, text)
}
