//! `lifeboat alert list|test|silence|unsilence`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::EnvironmentArgument;
use super::context::{Context, Keys, host_name};
use super::output::Outcome;
use crate::config::AlertSeverity;
use crate::error::{self, Result};
use crate::evidence::Body;
use crate::evidence::entry::SilenceChange;
use crate::repository::catalogue::ledger;
use crate::service::alerts::{Alert, Channels, Condition, Firing, Silence, Tell, silences};
use crate::units::Span;

/// Longest silence: somebody must say again that they know.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell which alerts of an environment are silenced, by whom, why and until when
    Silences(EnvironmentArgument),
    /// Send a test to one receiver, or to all: exit code 4 where somebody could not be told
    Test(TestArguments),
    /// Keep alerts of an environment from being told for a while; recorded in its ledger with your name
    Silence(SilenceArguments),
    /// End a silence before its time
    Unsilence(UnsilenceArguments),
}

#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// Name of the receiver [default: all]
    #[arg(long, value_name = "NAME")]
    receiver: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SilenceArguments {
    #[command(flatten)]
    which: EnvironmentArgument,
    /// Only this condition: rpo_missed, wal_gap, … [default: everything about the environment]
    #[arg(long, value_name = "CONDITION")]
    condition: Option<String>,
    /// Only about this: a job, a slot, a receiver
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// For how long: 2h, 1d; 30 days at most
    #[arg(long = "for", value_name = "SPAN")]
    span: Span,
    /// Why; the auditor reads it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who you are [default: your account and this host]
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UnsilenceArguments {
    #[command(flatten)]
    which: EnvironmentArgument,
    /// The id, as `alert silences` tells it
    id: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who you are [default: your account and this host]
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
}

pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Silences(which) => list(context, &which.environment).await,
        Command::Test(arguments) => test(context, arguments).await,
        Command::Silence(arguments) => silence(context, arguments).await,
        Command::Unsilence(arguments) => unsilence(context, arguments).await,
    }
}

async fn in_force(context: &Context, environment: &str) -> Result<Vec<Silence>> {
    let repository = context.repository(Keys::Write).await?;
    let entries = ledger(&repository, environment).await?.entries().await?;
    Ok(silences(&entries, context.runtime.now()))
}

async fn list(context: &Context, environment: &str) -> Result<Outcome> {
    let environment = &context.environment(environment)?.name;
    let silences = in_force(context, environment).await?;
    let line = |s: &Silence| {
        let what = s.condition.map_or_else(|| "everything".to_owned(), |condition| condition.name());
        let about = s.subject.as_ref().map(|subject| format!(" of {subject}")).unwrap_or_default();
        format!("{}  {what}{about} until {}  {}: {}", s.id, s.until.format("%Y-%m-%d %H:%M UTC"), s.author, s.reason)
    };
    let text = match silences.is_empty() {
        true => format!("nothing is silenced in {environment}"),
        false => silences.iter().map(line).collect::<Vec<_>>().join("\n"),
    };
    Ok(Outcome::new(json!({ "silences": silences }), text))
}

async fn test(context: &Context, arguments: &TestArguments) -> Result<Outcome> {
    let receivers = &context.estate.alerts.receivers;
    let chosen: Vec<&String> = match &arguments.receiver {
        None => receivers.keys().collect(),
        Some(name) => match receivers.get_key_value(name) {
            Some((name, _)) => vec![name],
            None => {
                let known: Vec<&str> = receivers.keys().map(String::as_str).collect();
                return Err(error::usage(format!("there is no receiver \"{name}\""))
                    .hint(format!("receivers: {}", known.join(", "))));
            }
        },
    };
    if chosen.is_empty() {
        return Err(error::config("nobody can be told: there is no [[alerts.receiver]]")
            .meaning("what is wrong is seen only by those who look")
            .hint("docs/configuration.md, [alerts]"));
    }
    let channels = Channels::new(&host_name())?;
    let now = context.runtime.now();
    let alert = Alert::of_service(
        Condition::NotificationFailed,
        AlertSeverity::Info,
        "this is a test: somebody ran `lifeboat alert test`",
    )
    .about("test")
    .meaning("nothing is wrong");
    let (mut text, mut told, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for receiver in chosen {
        let tell = Tell {
            receiver: receiver.clone(),
            group: format!("{receiver}/test"),
            firing: vec![Firing { alert: alert.clone(), since: now, seen: now, silenced_by: None }],
            resolved: Vec::new(),
        };
        match channels.tell(receivers, &tell, now).await {
            Ok(()) => {
                text.push(format!("{receiver} ({}): told", receivers[receiver].kind()));
                told.push(json!({ "receiver": receiver, "told": true, "error": null }));
            }
            Err(failure) => {
                text.push(format!("{receiver} ({}): NOT told", receivers[receiver].kind()));
                told.push(json!({ "receiver": receiver, "told": false, "error": failure.message() }));
                failures.push(failure);
            }
        }
    }
    let failure = failures.into_iter().next().map(|first| {
        first.meaning("alerts do not reach this receiver").hint(
            "the receiver's own log tells whether anything arrived; `lifeboat config check` whether the address is one",
        )
    });
    Ok(Outcome::new(json!({ "test": told }), text.join("\n")).with_failure(failure))
}

async fn silence(context: &Context, arguments: &SilenceArguments) -> Result<Outcome> {
    let environment = context.environment(&arguments.which.environment)?;
    if let Some(name) = &arguments.condition
        && !Condition::ALL.iter().any(|condition| condition.name() == *name)
    {
        let all: Vec<String> = Condition::ALL.iter().map(|condition| condition.name()).collect();
        return Err(
            error::usage(format!("there is no condition \"{name}\"")).hint(format!("conditions: {}", all.join(", ")))
        );
    }
    if arguments.span.0.is_zero() || arguments.span.0 > LONGEST {
        return Err(error::usage(format!("a silence lasts up to {}, not {}", Span(LONGEST), arguments.span))
            .meaning("a silence that outlives its reason hides the next disaster"));
    }
    let now = context.runtime.now();
    let until = now + chrono::TimeDelta::from_std(arguments.span.0).expect("checked above");
    let change = SilenceChange {
        id: format!("s-{}", now.format("%Y%m%dT%H%M%S%3f")),
        condition: arguments.condition.clone(),
        subject: arguments.subject.clone(),
        until: Some(until),
        author: author(arguments.author.as_ref()),
        reason: arguments.reason.clone(),
    };
    let appended = record(context, &environment.name, &change).await?;
    let text = format!(
        "silenced until {}: {}\nrecorded as entry {} of the ledger; `lifeboat alert unsilence -e {} {}` ends it",
        until.format("%Y-%m-%d %H:%M:%S UTC"),
        change.id,
        appended.sequence,
        environment.name,
        change.id
    );
    Ok(Outcome::new(json!({ "silence": change, "ledger": appended }), text))
}

async fn unsilence(context: &Context, arguments: &UnsilenceArguments) -> Result<Outcome> {
    let environment = &context.environment(&arguments.which.environment)?.name;
    let silences = in_force(context, environment).await?;
    let silence = silences.iter().find(|silence| silence.id == arguments.id).ok_or_else(|| {
        error::usage(format!("there is no silence \"{}\" in force in {environment}", arguments.id))
            .hint(format!("lifeboat alert silences -e {environment}"))
    })?;
    let change = SilenceChange {
        id: silence.id.clone(),
        condition: silence.condition.map(|condition| condition.name()),
        subject: silence.subject.clone(),
        until: None,
        author: author(arguments.author.as_ref()),
        reason: arguments.reason.clone(),
    };
    let appended = record(context, environment, &change).await?;
    let text = format!("{} has ended; recorded as entry {} of the ledger", change.id, appended.sequence);
    Ok(Outcome::new(json!({ "silence": change, "ledger": appended }), text))
}

async fn record(context: &Context, environment: &str, change: &SilenceChange) -> Result<crate::evidence::Appended> {
    let repository = context.repository(Keys::Write).await?;
    let ledger = ledger(&repository, environment).await?;
    ledger.append(&context.runtime, repository.signer()?, Vec::new(), Body::Silence(change.clone())).await
}

/// Who does it, as far as this host knows.
fn author(named: Option<&String>) -> String {
    named.cloned().unwrap_or_else(|| {
        let uid = nix::unistd::Uid::current();
        let account = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        format!("{account}@{}", host_name())
    })
}
