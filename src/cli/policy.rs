//! `lifeboat policy check`: does every environment have what the organisation has decided that it must have?

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::output::Outcome;
use super::text::{Table, alarm, caution, counted, good};
use crate::config::{self, Environment, Policy};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::filestore;
use crate::policy::{self, Evidence, Judged, State};
use crate::repository::catalogue::Catalogue;
use crate::repository::frontier::Recovery;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hold the estate against its policy; exit code 8 if a requirement is not met
    Check(Arguments),
    /// Print the JSON Schema of policy files, for editors
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only this environment; may be repeated [default: all]
    #[arg(short, long = "environment", value_name = "ENV")]
    environments: Vec<String>,

    /// Judge the configuration alone, without repository and keys: for the pipeline of the estate's own files
    #[arg(long)]
    offline: bool,

    /// The policy [default: `[policy] file`, else policy.toml beside lifeboat.toml]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Write the verdict as JUnit into this file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let estate = &context.estate;
    let file = arguments.policy.as_ref().or(estate.policy.as_ref()).ok_or_else(|| {
        error::config(format!("{} names no policy, and none lies beside it", estate.file.display()))
            .meaning("nothing says what environments must have, so nothing can be checked")
            .hint("copy policy.example.toml to policy.toml beside lifeboat.toml, or name one with --policy")
    })?;
    let policy = Policy::load(file, estate)?;
    let environments = match arguments.environments.as_slice() {
        [] => estate.environments.iter().collect(),
        named => named.iter().map(|name| context.environment(name)).collect::<Result<Vec<_>>>()?,
    };
    let evidence = if arguments.offline { BTreeMap::new() } else { gather(context, &environments).await? };
    let judged = policy::judge(&policy, estate, &environments, &evidence, context.runtime.now());
    let idle = policy::idle_exceptions(&policy, &judged);
    if let Some(path) = &arguments.junit {
        std::fs::write(path, policy::junit(&judged))
            .or_err(ErrorKind::Internal, || format!("cannot write {}", path.display()))?;
    }
    let violated = judged.iter().filter(|j| j.state == State::Violated).count() as u64;
    let failure = (violated > 0).then(|| {
        let what = counted(violated, "requirement of the policy is not met", "requirements of the policy are not met");
        error::check_failed(format!("{what}: {}", policy.file.display()))
            .meaning("the estate is not what the organisation has decided that it must be; each line says what to do")
            .hint(
                "what cannot be put right now may be let pass for a time by an [[exception]], with a reason and an end",
            )
    });
    let count = |state| judged.iter().filter(|j| j.state == state).count();
    let json = json!({
        "policy": policy.file,
        "offline": arguments.offline,
        "requirements": judged,
        "violated": violated,
        "waived": count(State::Waived),
        "unknown": count(State::Unknown),
        "held": count(State::Held),
        "idle_exceptions": idle,
    });
    Ok(Outcome::new(json, describe(&judged, &idle)).with_failure(failure))
}

/// The JSON Schema.
pub(crate) fn schema() -> Outcome {
    let schema = config::policy_schema();
    let text = format!("{schema:#}");
    Outcome::new(schema, text)
}

/// What the repository tells; of other environments their ledgers, for what was loaded from them.
async fn gather(context: &Context, wanted: &[&Environment]) -> Result<BTreeMap<String, Evidence>> {
    let repository = context.readable().await?;
    let mut catalogues = Vec::new();
    for environment in &context.estate.environments {
        let live = filestore::live::marks(&repository, &environment.name).await;
        let mut catalogue = Catalogue::load(&repository, &environment.name).await?;
        match live {
            Ok(live) => catalogue.live = live,
            // What a watcher left damaged counts as not captured.
            Err(damage) if damage.kind() == ErrorKind::Integrity => {}
            Err(other) => return Err(other),
        }
        catalogues.push(catalogue);
    }
    let mut evidence = BTreeMap::new();
    for environment in wanted {
        let own = catalogues.iter().find(|c| c.environment == environment.name).expect("each was loaded");
        let others: Vec<&Catalogue> = catalogues.iter().filter(|c| c.environment != environment.name).collect();
        let recovery = Recovery::load(&repository, own).await;
        evidence.insert(environment.name.clone(), Evidence::of(environment, own, &recovery, &others));
    }
    Ok(evidence)
}

fn describe(judged: &[Judged], idle: &[String]) -> String {
    let mut text = String::new();
    for j in judged.iter().filter(|j| j.state == State::Violated) {
        let rule = if j.rule.is_empty() { String::new() } else { format!(" (rule {})", j.rule) };
        text += &format!("{} {}: {}{rule}\n", alarm("VIOLATED"), j.environment, j.requirement);
        text += &format!("  is: {}\n  should be: {}\n", j.is, j.should);
        for (what, words) in [("to do", &j.to_do), ("why", &j.why)] {
            if let Some(words) = words {
                text += &format!("  {what}: {words}\n");
            }
        }
    }
    for j in judged.iter().filter(|j| j.state == State::Waived) {
        let Some(exception) = &j.exception else { continue };
        text += &format!(
            "{} {}: {}: {}; until {} by {}: {}\n",
            caution("waived"),
            j.environment,
            j.requirement,
            j.is,
            exception.until,
            exception.by,
            exception.why
        );
    }
    for exception in idle {
        text += &format!("{} exception without effect: {exception}\n", caution("note:"));
    }
    let mut environments: Vec<&str> = judged.iter().map(|j| j.environment.as_str()).collect();
    environments.sort_unstable();
    environments.dedup();
    let mut table = Table::new(&["environment", ">violated", ">waived", ">unknown", ">held"]);
    for environment in environments {
        let count =
            |state| judged.iter().filter(|j| j.environment == environment && j.state == state).count().to_string();
        let states = [State::Violated, State::Waived, State::Unknown, State::Held].map(count);
        table.row(std::iter::once(environment.to_owned()).chain(states).collect());
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text += &table.text("");
    if !judged.iter().any(|j| j.state == State::Violated) {
        text += &good("every requirement that was judged is met");
    }
    if judged.iter().any(|j| j.state == State::Unknown) {
        text += "\nunknown: only the repository tells; run it without --offline where the keys are";
    }
    text
}
