//! `lifeboat approval request|approve|deny|list`, and the gate before `lifeboat restore`: the same entries as by the
//! page of the service, so that both work together, and this without the service.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, Despite, Keys, host_name};
use super::output::Outcome;
use super::person::person;
use super::restore::Wanted;
use super::tenant_make::Bound;
use super::text::{Table, alarm, time_and_age};
use super::{EnvironmentArgument, refresh, tenant};
use crate::config::{Effect, Environment};
use crate::error::{self, Result};
use crate::evidence::approval::{Approvals, PlannedRestore, Status};
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::restore::approval::{Desk, planned, tell_broken_glass};
use crate::runtime::Runtime;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask for approval of a restore; same flags as `lifeboat restore`
    Request(Box<Request>),
    /// Ask for approval of one database into an environment's cluster; same flags as `lifeboat restore tenant`
    RequestTenant(Box<RequestTenant>),
    /// Ask for approval of a refresh; same flags as `lifeboat refresh`
    RequestRefresh(Box<RequestRefresh>),
    /// Agree to what somebody else asked for
    Approve(Decide),
    /// Refuse, or take back an approval that was not used yet
    Deny(Decide),
    /// List requests and approvals
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct Request {
    #[command(flatten)]
    wanted: Wanted,

    /// The host on which the restore will run [default: this one]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    /// Why, for whoever decides
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RequestTenant {
    #[command(flatten)]
    asked: tenant::Asked,

    /// Why, for whoever decides
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RequestRefresh {
    #[command(flatten)]
    asked: refresh::Asked,

    /// Why, for whoever decides
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// How a restore gets past what stands in its way.
#[derive(Debug, Args)]
pub(super) struct Pass {
    /// Carry out what a second person has approved; `lifeboat approval request` asks for it
    #[arg(long, value_name = "ID", conflicts_with = "break_glass")]
    pub(super) approval: Option<String>,

    /// Restore without an approval, in an emergency: recorded with your name and this reason, and told everybody
    #[arg(long, value_name = "REASON")]
    pub(super) break_glass: Option<String>,
}

impl Pass {
    /// Refuses what a calendar forbids now; no approval allows that, a broken glass does.
    pub(super) fn allowed(&self, context: &Context, environment: &Environment) -> Result<()> {
        let despite = Despite { option: "--break-glass REASON", given: self.break_glass.is_some() };
        context.allowed(environment, Effect::ForbidRestores, despite)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Decide {
    #[command(flatten)]
    environment: EnvironmentArgument,

    /// Id of the request
    #[arg(value_name = "ID")]
    id: String,

    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Of this environment only [default: all]
    #[arg(short, long = "environment", value_name = "ENV")]
    environment: Option<String>,

    /// Also those that were used, denied or expired
    #[arg(long)]
    all: bool,
}

/// Runs a subcommand.
pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Request(request) => ask_for_whole(request, context).await,
        Command::RequestTenant(request) => {
            let Bound { repository, environment, plan } = request.asked.planned(context).await?;
            ask(context, &repository, environment, plan, request.reason.clone()).await
        }
        Command::RequestRefresh(request) => {
            let Bound { repository, environment, plan } = request.asked.planned(context).await?;
            ask(context, &repository, environment, plan, request.reason.clone()).await
        }
        Command::Approve(decide) => decided(decide, context, true).await,
        Command::Deny(decide) => decided(decide, context, false).await,
        Command::List(which) => list(which, context).await,
    }
}

async fn ask_for_whole(request: &Request, context: &Context) -> Result<Outcome> {
    let environment = request.wanted.environment(context)?;
    let tablespaces = request.wanted.tablespaces()?;
    let (repository, _, plan) = request.wanted.plan(context).await?;
    let host = request.host.clone().unwrap_or_else(host_name);
    let bound = planned(&plan, &repository.descriptor.repository, &host, &tablespaces);
    ask(context, &repository, environment, bound, request.reason.clone()).await
}

async fn ask(
    context: &Context,
    repository: &Repository,
    environment: &Environment,
    bound: PlannedRestore,
    reason: Option<String>,
) -> Result<Outcome> {
    let ledger = ledger(repository, &environment.name).await?;
    let desk =
        Desk { ledger: &ledger, signer: repository.signer()?, runtime: &context.runtime, rules: &environment.restore };
    let (approval, appended) = desk.request(bound, person()?, reason).await?;
    let now = context.runtime.now();
    let text = format!(
        "asked for approval {} of the restore to {} (plan {})\nit waits until {}; a second person runs\n  lifeboat approval approve -e {} {}\nthen restore with\n  {}",
        approval.id,
        approval.plan.target,
        &approval.plan_sha256[..16],
        time_and_age(now, approval.request_expires_at),
        environment.name,
        approval.id,
        approval.plan.command(&approval.id),
    );
    Ok(Outcome::new(json!({ "approval": shown(&approval, now), "ledger": appended }), text))
}

async fn decided(decide: &Decide, context: &Context, agree: bool) -> Result<Outcome> {
    let environment = context.environment(&decide.environment.environment)?;
    let repository = context.repository(Keys::Write).await?;
    let ledger = ledger(&repository, &environment.name).await?;
    let desk =
        Desk { ledger: &ledger, signer: repository.signer()?, runtime: &context.runtime, rules: &environment.restore };
    let (person, reason) = (person()?, decide.reason.clone());
    let (approval, appended) = match agree {
        true => desk.approve(&decide.id, person, reason).await?,
        false => desk.deny(&decide.id, person, reason).await?,
    };
    let now = context.runtime.now();
    let mut text = describe(&approval, now);
    if let (Status::Approved, Some(until)) = (approval.status(now), approval.approval_expires_at) {
        text += &format!(
            "it can be used once, until {}, by\n  {}\n",
            time_and_age(now, until),
            approval.plan.command(&approval.id)
        );
    }
    Ok(Outcome::new(json!({ "approval": shown(&approval, now), "ledger": appended }), text))
}

async fn list(which: &List, context: &Context) -> Result<Outcome> {
    let environments: Vec<&Environment> = match &which.environment {
        Some(name) => vec![context.environment(name)?],
        None => context.estate.environments.iter().collect(),
    };
    let repository = context.repository(Keys::Write).await?;
    let now = context.runtime.now();
    let (mut all, mut text) = (Vec::new(), String::new());
    for environment in environments {
        let entries = ledger(&repository, &environment.name).await?.entries().await?;
        for approval in crate::evidence::approval::approvals(&entries) {
            let open = matches!(approval.status(now), Status::Waiting | Status::Approved);
            if open || which.all {
                text += &describe(&approval, now);
                if open {
                    text += &format!("  {}\n", approval.plan.command(&approval.id));
                }
                text.push('\n');
                all.push(shown(&approval, now));
            }
        }
    }
    if all.is_empty() {
        text = "no restore waits for approval or is approved".to_owned();
    }
    Ok(Outcome::new(json!({ "approvals": all }), text))
}

/// An approval with its state, for programs.
fn shown(approval: &Approvals, now: DateTime<Utc>) -> serde_json::Value {
    let mut value = serde_json::to_value(approval).expect("plain data");
    value["status"] = json!(approval.status(now));
    value["until"] = json!(approval.until(now));
    value["command"] = json!(approval.plan.command(&approval.id));
    value
}

fn describe(approval: &Approvals, now: DateTime<Utc>) -> String {
    let plan = &approval.plan;
    let status = approval.status(now);
    let words = match status {
        Status::BrokenGlass => alarm("RESTORED WITHOUT APPROVAL"),
        status => status.words().to_owned(),
    };
    let mut text = format!("{} {}: {words}\n", plan.environment, approval.id);
    let mut table = Table::new(&["", ""]);
    table
        .row(vec!["to".into(), format!("{}, position {} on timeline {}", plan.target, plan.stop_lsn, plan.timeline.0)]);
    table.row(vec!["into".into(), plan.place()]);
    let decisions = [
        ("asked by", Some(&approval.requested)),
        ("approved by", approval.approved.as_ref()),
        ("denied by", approval.denied.as_ref()),
        ("used by", approval.used.as_ref()),
    ];
    for (what, decision) in decisions {
        if let Some(decision) = decision {
            let reason = decision.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
            table.row(vec![what.into(), format!("{}, {}{reason}", decision.person, time_and_age(now, decision.at))]);
        }
    }
    if let Some(until) = approval.until(now) {
        table.row(vec!["until".into(), time_and_age(now, until)]);
    }
    text += table.text("  ").split_once('\n').map_or("", |(_, rows)| rows);
    text
}

/// How to ask for what was planned.
pub(super) fn how_to_ask(plan: &PlannedRestore) -> String {
    format!("lifeboat {}", plan.asked_for_by())
}

/// What stands between a command and a restore for good.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    pub(super) environment: &'a Environment,
    pub(super) repository: &'a Repository,
    pub(super) runtime: &'a Runtime,
}

impl Gate<'_> {
    /// Uses the approval, or breaks the glass, or finds that neither is needed.
    ///
    /// # Errors
    /// Denied where the environment wants an approval and there is none that counts.
    pub(super) async fn pass(&self, plan: PlannedRestore, pass: &Pass, continues: bool) -> Result<()> {
        let name = &self.environment.name;
        let what = match plan.tenant.is_some() {
            true => format!("into {name}"),
            false => format!("of {name}"),
        };
        match (pass.approval.as_deref(), pass.break_glass.as_deref()) {
            (None, None) if !self.environment.restore.approval => Ok(()),
            (None, None) => Err(error::denied(format!("a restore {what} needs the approval of a second person"))
                .meaning("nothing was touched")
                .hint(format!("ask: {}", how_to_ask(&plan)))
                .hint("then repeat this command with --approval ID")
                .hint("in an emergency: --break-glass \"REASON\", which is recorded and told everybody")),
            (Some(id), _) => {
                let ledger = ledger(self.repository, name).await?;
                self.desk(&ledger)?.admit(id, &plan, person()?, continues).await
            }
            (None, Some(reason)) if reason.trim().is_empty() => {
                Err(error::usage("--break-glass wants a reason: whoever reads the ledger will ask for it"))
            }
            (None, Some(reason)) => {
                let person = person()?;
                let told = match &plan.tenant {
                    Some(_) => plan.place(),
                    None => name.clone(),
                };
                // An emergency is no time to insist on a ledger that can be written.
                let recording = async {
                    let ledger = ledger(self.repository, name).await?;
                    self.desk(&ledger)?.break_glass(plan, person.clone(), reason).await
                };
                tell_broken_glass(self.runtime, &told, &person, reason, recording.await);
                Ok(())
            }
        }
    }

    /// The same for one database into the environment's cluster, and what calendars say of it.
    pub(super) async fn open(&self, context: &Context, plan: PlannedRestore, pass: &Pass) -> Result<()> {
        pass.allowed(context, self.environment)?;
        self.pass(plan, pass, false).await
    }

    fn desk<'a>(&'a self, ledger: &'a crate::evidence::Ledger) -> Result<Desk<'a>> {
        Ok(Desk { ledger, signer: self.repository.signer()?, runtime: self.runtime, rules: &self.environment.restore })
    }
}
