//! The command line: one file per command, the only place that prints or asks.

mod alert;
mod approval;
mod backup;
mod config;
mod context;
mod demo;
mod doctor;
mod drift;
mod drill;
mod drill_check;
mod drill_conduct;
mod drill_coverage;
mod drill_text;
mod drills;
mod event_lines;
mod evidence;
mod exit;
mod filestore;
mod hand_over;
mod hold;
mod init;
mod keygen;
mod logs;
mod output;
mod person;
mod policy;
mod prune;
mod refresh;
mod report;
mod restore;
mod runbook;
mod schedule;
mod serve;
mod service;
mod service_token;
mod show;
mod supervised;
mod systemd;
mod telemetry;
mod tenant;
mod tenant_make;
mod terminal;
mod text;
mod trace;
mod verify;
mod wal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::JobKind;
use crate::error::{self, Error, Result};
use crate::event::Subject;
use crate::runtime::Runtime;
use context::Context;
use logs::LogFormat;
use output::{Outcome, Style};
use telemetry::Observation;

/// Backup, recovery and proof of recovery for Odoo estates.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, about, max_term_width = 100)]
#[command(
    after_help = "At 3 a.m.: `lifeboat show` tells what can be restored, `lifeboat restore … --plan` what a restore \
would do.\nExit codes: 0 done and verified, 2 usage, 3 configuration, 4 source, 5 repository, 6 integrity, \
7 target not recoverable,\n8 drill or check failed, 9 objective missed, 10 denied, 11 partial, 70 internal, 130 interrupted."
)]
pub struct Arguments {
    /// The estate's configuration [default: ./lifeboat.toml, else /etc/lifeboat/lifeboat.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// text is for people; json is one documented object on standard output
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// How lines are written to standard error; json is one object a line [default: LIFEBOAT_LOG_FORMAT, else text]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    #[command(flatten)]
    started_by: supervised::Arguments,

    #[command(subcommand)]
    command: Command,

    #[arg(skip)]
    typed: Typed,
}

/// What was typed, for logs and traces.
#[derive(Debug, Default)]
struct Typed {
    /// The words of the command: `backup base`.
    words: String,
    /// The environment that it is about, where it is one.
    environment: Option<String>,
}

impl Typed {
    fn read(matches: &ArgMatches) -> Self {
        let (mut words, mut environment, mut at) = (Vec::new(), None, matches);
        while let Some((word, below)) = at.subcommand() {
            words.push(word);
            environment = below.try_get_one::<String>("environment").ok().flatten().cloned();
            at = below;
        }
        Self { words: words.join(" "), environment }
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a repository, or make this host a member of an existing one
    Init,
    /// Make a recovery key pair: the private half restores, the public half goes into the configuration
    Keygen(keygen::Arguments),
    /// Check or describe the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Back up a database cluster, its filestores or its configuration
    #[command(subcommand)]
    Backup(backup::Command),
    /// Receive, archive and give back WAL
    #[command(subcommand)]
    Wal(wal::Command),
    /// Store new attachments within a second
    #[command(subcommand)]
    Filestore(filestore::Command),
    /// Find out whether the next backup and the next restore would work from here
    Doctor(doctor::Arguments),
    /// Tell what can be restored, up to when, and whether anything is broken
    Show(show::Arguments),
    /// Tell what changed in the configuration, or differs between two environments
    Drift(drift::Arguments),
    /// Restore an environment to any second, beside whatever is there
    Restore(restore::Command),
    /// Ask a second person to agree to a restore, agree, or refuse
    #[command(subcommand)]
    Approval(approval::Command),
    /// Put a masked, neutralised copy of one database into another environment
    Refresh(refresh::Arguments),
    /// Prove by a restore into a disposable place that backups give back what they should
    #[command(subcommand)]
    Drill(drill::Command),
    /// Tell what the service will do when
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// Verify that everything the ledger promises is in the repository, undamaged
    Verify(verify::Arguments),
    /// Delete what the rules of retention give up, in two phases, and tell for each recovery point why it stays or goes
    Prune(prune::Arguments),
    /// Keep recovery points whatever the rules say
    #[command(subcommand)]
    Hold(hold::Command),
    /// Hold the estate against what the organisation has decided that environments must have
    #[command(subcommand)]
    Policy(policy::Command),
    /// Write what to do in a disaster, with the names and commands of this estate, to be printed
    Runbook(runbook::Arguments),
    /// Report what happened in a month, a quarter or a year: backups, drills, objectives, failures, changes
    Report(report::Arguments),
    /// Verify or show the signed record of what happened, with public keys only
    #[command(subcommand)]
    Evidence(evidence::Command),
    /// Keep the estate safe: receive WAL, watch filestores, run jobs, for all environments; runs until it is stopped
    Serve(serve::Arguments),
    /// Ask the service of this host, through its socket
    #[command(subcommand)]
    Service(service::Command),
    /// Test who is told what is wrong, and silence it for a while
    #[command(subcommand)]
    Alert(alert::Command),
    /// Watch a disaster and a recovery: a shop of its own, backed up, destroyed, restored and proven
    Demo(demo::Arguments),
    #[command(hide = true)]
    WalHandOver(hand_over::Arguments),
}

impl Command {
    /// Whether PostgreSQL runs this command as `restore_command` and reads its exit code.
    fn is_restore_command(&self) -> bool {
        matches!(self, Command::WalHandOver(_) | Command::Wal(wal::Command::Fetch(_)))
    }

    /// Whether it is work of a length that somebody may want to see as a trace. What PostgreSQL waits for is not, nor what
    /// runs for ever.
    fn is_traced(&self) -> bool {
        matches!(
            self,
            Command::Backup(_)
                | Command::Restore(_)
                | Command::Refresh(_)
                | Command::Drill(_)
                | Command::Verify(_)
                | Command::Prune(_)
                | Command::Policy(_)
                | Command::Report(_)
        )
    }
}

/// Which environment a command is about.
#[derive(Debug, Args)]
pub(crate) struct EnvironmentArgument {
    /// Name of the environment
    #[arg(short, long = "environment", value_name = "ENV")]
    environment: String,
}

impl Arguments {
    /// Parses the command line; on anything but a command, prints and tells the exit code.
    pub fn from_command_line() -> std::result::Result<Self, ExitCode> {
        let parsed = Self::command().try_get_matches().and_then(|matches| {
            let typed = Typed::read(&matches);
            Self::from_arg_matches(&matches).map(|arguments| Self { typed, ..arguments })
        });
        parsed.map_err(|refusal| {
            // Nobody is left to tell when the terminal is closed.
            let _ = refusal.print();
            let code = exit::refused_arguments(refusal.exit_code() as u8, std::env::args_os());
            ExitCode::from(code)
        })
    }
}

/// Whether this program has the command of a kind of job.
fn can(kind: JobKind) -> bool {
    let words = kind.words();
    let mut program = Arguments::command();
    words.iter().try_fold(&mut program, |command, word| command.find_subcommand_mut(word)).is_some()
}

/// Runs the program and tells the exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    let is_restore_command = arguments.command.is_restore_command();
    let code = if is_restore_command { exit::fetch_code } else { exit::code };
    let (format, environment) = (arguments.format, arguments.typed.environment.clone());
    let style = |log: LogFormat| Style { format, log, environment: environment.as_deref() };
    let refuse = |log: LogFormat, failure: &Error| {
        let code = code(failure.kind());
        output::failed(style(log), failure, code);
        ExitCode::from(code)
    };
    let log = match LogFormat::choose(arguments.log_format) {
        Ok(log) => log,
        Err(failure) => return refuse(LogFormat::Text, &failure),
    };
    logs::start(log, arguments.started_by.is_read());
    if is_restore_command {
        exit::guard_restore_command();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return refuse(log, &error::internal("cannot start the runtime").source(e)),
    };
    if let Err(failure) = arguments.started_by.bind() {
        return refuse(log, &failure);
    }
    let observation = Observation::default();
    let result = runtime.block_on(dispatch(arguments, log, &observation));
    let failure = result.as_ref().map_or_else(Some, |outcome| outcome.failure.as_ref());
    let code = failure.map_or(0, |failure| code(failure.kind()));
    observation.trace.end(failure, code);
    match result {
        Ok(outcome) => output::finished(style(log), outcome, code),
        Err(failure) => output::failed(style(log), &failure, code),
    }
    // Nobody waits for a collector to learn the result.
    observation.telemetry().end();
    // A blocking thread may hang on a dead mount; the result is known, so do not wait for it.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn dispatch(arguments: Arguments, log: LogFormat, observation: &Observation) -> Result<Outcome> {
    let file = arguments.config.as_deref();
    let format = arguments.format;
    let (started_by, typed) = (&arguments.started_by, &arguments.typed);
    let is_traced = arguments.command.is_traced();
    let mut runtime = started_by.runtime(format, log);
    if log == LogFormat::Json {
        runtime = runtime.concerning(Subject { environment: typed.environment.clone(), ..Subject::default() });
    }
    let told = if started_by.is_read() { Runtime::silent() } else { runtime.clone() };
    if is_traced {
        let trace = observation.trace.clone();
        runtime = runtime.heard_by(move |event| trace.hear(event));
    }
    let context = || {
        let context = match started_by.config_from_stdin() {
            true => Context::from_stdin(runtime.clone()),
            false => Context::load(file, runtime.clone()),
        }?;
        if is_traced {
            observation.telemetry().begin(context.estate.service.telemetry.as_ref(), None, &told);
            observation.trace.begin(&typed.words, typed.environment.as_deref());
        }
        Ok::<_, Error>(context)
    };
    match arguments.command {
        Command::Init => init::run(&context()?).await,
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Config(command) => config::run(&command, file),
        Command::Backup(command) => backup::run(&command, &context()?).await,
        Command::Wal(command) => wal::run(&command, &context()?).await,
        Command::Filestore(command) => filestore::run(&command, &context()?).await,
        Command::Doctor(arguments) => doctor::run(&arguments, file, runtime.clone()).await,
        Command::Show(arguments) => show::run(&arguments, &context()?).await,
        Command::Drift(arguments) => drift::run(&arguments, &context()?).await,
        Command::Restore(arguments) => restore::run(&arguments, &context()?).await,
        Command::Approval(command) => approval::run(&command, &context()?).await,
        Command::Refresh(arguments) => refresh::run(&arguments, &context()?).await,
        Command::WalHandOver(arguments) => {
            hand_over::run(&arguments).map(|()| Outcome::new(serde_json::Value::Null, ""))
        }
        Command::Drill(drill::Command::Check(arguments)) => drill_check::run(&arguments, file, runtime.clone()).await,
        Command::Drill(command) => drill::run(&command, &context()?).await,
        Command::Alert(command) => alert::run(&command, &context()?).await,
        Command::Schedule(command) => schedule::run(&command, &context()?).await,
        Command::Verify(arguments) => verify::run(&arguments, &context()?).await,
        Command::Prune(arguments) => prune::run(&arguments, &context()?).await,
        Command::Hold(command) => hold::run(&command, &context()?).await,
        Command::Report(arguments) => report::run(&arguments, &context()?).await,
        Command::Policy(policy::Command::Check(arguments)) => policy::run(&arguments, &context()?).await,
        Command::Policy(policy::Command::Schema) => Ok(policy::schema()),
        Command::Runbook(arguments) => runbook::run(&arguments, &context()?).await,
        Command::Evidence(command) => evidence::run(&command, file, runtime.clone()).await,
        Command::Serve(arguments) => {
            serve::run(&arguments, Context::as_written(file, runtime.clone())?, observation).await
        }
        Command::Service(command) => service::run(&command, file, runtime.clone()).await,
        Command::Demo(arguments) => demo::run(&arguments, format).await,
    }
}
