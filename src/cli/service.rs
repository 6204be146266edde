//! `lifeboat service status|run|stop|reload`: asks the service of this host, through its socket.

use std::path::Path;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::EnvironmentArgument;
use super::context::{Context, config_file};
use super::output::Outcome;
use super::text::{Table, alarm, caution, good, time_and_age};
use crate::config::{Estate, JobKind};
use crate::error::Result;
use crate::repository::StateDir;
use crate::runtime::Runtime;
use crate::service::socket::{self, Question};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell what it does, what runs, and what is wrong
    Status,
    /// Have it run a job as soon as there is a place
    Run(RunArguments),
    /// Have it end a job
    Stop(StopArguments),
    /// Make a token for the page and the API; shown once
    Token(super::service_token::Arguments),
    /// Have it load its configuration again (as SIGHUP does); a configuration that is refused changes nothing
    Reload,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// What to do
    kind: Kind,
    #[command(flatten)]
    which: EnvironmentArgument,
    /// Further arguments of the command, after `--`
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArguments {
    /// The run, as `lifeboat service status` shows it
    run: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Base,
    Filestore,
    Configuration,
    Verify,
    Drill,
    Prune,
    Report,
    Policy,
}

impl From<Kind> for JobKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Base => Self::Base,
            Kind::Filestore => Self::Filestore,
            Kind::Configuration => Self::Configuration,
            Kind::Verify => Self::Verify,
            Kind::Drill => Self::Drill,
            Kind::Prune => Self::Prune,
            Kind::Report => Self::Report,
            Kind::Policy => Self::Policy,
        }
    }
}

/// Where the service's socket lies. A configuration that is refused must not keep anybody from asking the service about
/// that very refusal, so then its `state_dir` alone is looked for.
fn state_dir(file: Option<&Path>, runtime: &Runtime) -> Result<StateDir> {
    let refused = match Context::load(file, runtime.clone()) {
        Ok(context) => return Ok(context.state_dir()),
        Err(refused) => refused,
    };
    config_file(file).ok().and_then(|file| Estate::state_dir_of(&file)).map(|path| StateDir::new(&path)).ok_or(refused)
}

pub(crate) async fn run(command: &Command, file: Option<&Path>, runtime: Runtime) -> Result<Outcome> {
    let who = account();
    let question = match command {
        Command::Status => Question::Status,
        Command::Run(arguments) => Question::Run {
            kind: arguments.kind.into(),
            environment: arguments.which.environment.clone(),
            arguments: arguments.arguments.clone(),
            who,
        },
        Command::Stop(arguments) => Question::Stop { run: arguments.run.clone(), who },
        Command::Reload => Question::Reload,
        // Made without a configuration: it is to be put into one.
        Command::Token(arguments) => return super::service_token::run(arguments),
    };
    let path = socket::path(&state_dir(file, &runtime)?);
    let answer = socket::ask(&path, &question).await?;
    Ok(match question {
        Question::Status => {
            let text = describe(&answer, runtime.now());
            Outcome::new(json!({ "service": answer }), text)
        }
        Question::Run { .. } => {
            let text = format!("run {} begins when there is a place for it", answer["run"].as_str().unwrap_or("?"));
            Outcome::new(answer, text)
        }
        Question::Stop { .. } => Outcome::new(answer, "it is asked to end"),
        Question::Reload => Outcome::new(answer, "the configuration was loaded again"),
    })
}

/// The account that asks, for the record.
fn account() -> String {
    let uid = nix::unistd::getuid();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn describe(state: &Value, now: DateTime<Utc>) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let since = |value: &Value| {
        value.as_str().and_then(|at| at.parse().ok()).map_or_else(String::new, |at| time_and_age(now, at))
    };
    let mut said = format!(
        "{}: serving since {}, configuration {} of {}\n",
        text(&state["instance"]),
        since(&state["started_at"]),
        state["config_generation"],
        since(&state["config_loaded_at"]),
    );
    if let Some(message) = state["config_problem"]["message"].as_str() {
        said += &format!("{}\n", alarm(&format!("the changed configuration is refused: {message}")));
    }
    said += &match state["repository"]["error"].as_str() {
        Some(error) => {
            format!(
                "{}\n",
                alarm(&format!("the repository is away since {}: {error}", since(&state["repository"]["since"])))
            )
        }
        None => String::new(),
    };
    for environment in state["environments"].as_array().into_iter().flatten() {
        let broken: Vec<&str> =
            environment["view"]["broken"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let looked = since(&environment["view"]["now"]);
        let head = match (environment["view"].is_null(), broken.is_empty()) {
            (true, _) => caution("not looked at yet"),
            (false, true) => good(&format!("nothing is known to be broken, looked at {looked}")),
            (false, false) => alarm(&format!("look at this, as of {looked}")),
        };
        said += &format!("\n{}: {head}\n", text(&environment["name"]));
        for sentence in broken {
            said += &format!("  - {}\n", alarm(sentence));
        }
        if let Some(trouble) = environment["trouble"]["message"].as_str() {
            said += &format!("  {}\n", caution(&format!("could not be looked at: {trouble}")));
        }
        for worker in environment["workers"].as_array().into_iter().flatten() {
            let mut line = format!(
                "{}: {} since {}",
                text(&worker["kind"]),
                text(&worker["state"]["is"]),
                since(&worker["since"])
            );
            if let Some(failure) = worker["last_failure"]["message"].as_str() {
                line += &format!("; failed {}: {failure}", since(&worker["last_failure"]["at"]));
            }
            said += &format!("  {line}\n");
        }
    }
    let jobs = |key: &str| state[key].as_array().cloned().unwrap_or_default();
    let running = jobs("jobs_running");
    if !running.is_empty() {
        let mut table = Table::new(&["run", "job", "environment", "began", "phase"]);
        for job in &running {
            let began =
                if job["started_at"].is_null() { "waits for a place".to_owned() } else { since(&job["started_at"]) };
            table.row(vec![
                text(&job["run"]),
                text(&job["kind"]),
                text(&job["environment"]),
                began,
                text(&job["phase"]["name"]),
            ]);
        }
        said += &format!("\njobs\n{}", table.text("  "));
    }
    let recent = jobs("recent_jobs");
    if !recent.is_empty() {
        let mut table = Table::new(&["run", "job", "environment", "ended", "outcome", ""]);
        for job in recent.iter().take(10) {
            table.row(vec![
                text(&job["run"]),
                text(&job["kind"]),
                text(&job["environment"]),
                since(&job["finished_at"]),
                text(&job["outcome"]),
                text(&job["message"]),
            ]);
        }
        said += &format!("\nended\n{}", table.text("  "));
    }
    said
}
