//! `lifeboat show`: what can be restored, up to when, and is anything broken. Made for the responder at
//! 3 a.m.: the first lines answer, then comes a command that can be copied.
//!
//! Works with the index key of a host that backs up or with a recovery identity alone, and whether or
//! not PostgreSQL is there.

mod text;

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::output::Outcome;
use crate::error::{self, Result};
use crate::service::{access, look};

/// How long a store that is away is tried: somebody is waiting.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Show this environment only [default: all]
    #[arg(short, long = "environment", value_name = "ENV")]
    environment: Option<String>,
}

/// Shows one or all environments. What is broken is told; exit code 6 means that the repository cannot
/// be understood, and 5 that it is away: then at least what PostgreSQL holds back is told.
pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let environments = match &arguments.environment {
        Some(name) => vec![context.environment(name)?],
        None => context.estate.environments.iter().collect(),
    };
    let opened = access::open(&context.estate, PATIENCE, &context.runtime).await;
    let unreachable = match &opened {
        Ok(_) => None,
        Err(failure) => Some(failure.message()),
    };
    let mut views = Vec::with_capacity(environments.len());
    for environment in environments {
        let repository = opened.as_ref().map_err(|_| unreachable.as_deref().unwrap_or_default());
        views.push(look::look(repository, environment, &context.runtime).await?.view);
    }
    let texts: Vec<String> = views.iter().map(|v| text::describe(v, context)).collect();
    let unreadable: Vec<&str> =
        views.iter().filter(|v| v.unreadable.is_some()).map(|v| v.environment.as_str()).collect();
    let failure = match opened {
        Err(failure) => Some(failure),
        Ok(_) if unreadable.is_empty() => None,
        Ok(_) => Some(
            error::integrity(format!("the repository's data of {} cannot be read", unreadable.join(", ")))
                .hint(format!("run `lifeboat verify -e {}` to see everything that is damaged", unreadable[0])),
        ),
    };
    let json = json!({ "repository": context.estate.repository.url, "environments": views });
    Ok(Outcome::new(json, texts.join("\n")).with_failure(failure))
}
