//! `lifeboat wal receive|push|fetch`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::EnvironmentArgument;
use super::context::{Context, Keys};
use super::output::Outcome;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::postgres::wal_fetch;
use crate::postgres::wal_push;
use crate::postgres::wal_receive::{ReceiveOptions, Slot, Until, receive};
use crate::storage::Created;
use crate::units::{ByteSize, Lsn};
use crate::wal_name::WalFileName;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Stream WAL into the repository as PostgreSQL writes it; runs until it is stopped
    ///
    /// Run it as a service, one for each environment. Commits are durable in the repository within a
    /// second. It waits out restarts of PostgreSQL and outages of the store: PostgreSQL keeps what is not
    /// archived in the replication slot, so nothing is lost as long as its disk has room. SIGTERM and
    /// SIGINT end it in order (exit code 0; 130 when --until-lsn was not reached).
    Receive(ReceiveArguments),
    /// Archive one WAL file: archive_command = 'lifeboat -c FILE wal push -e ENV %p'
    ///
    /// Exit code 0 means that the file is durable in the repository, just written or there before with
    /// the same content. Other content under the same name is an error, and nothing is replaced.
    Push(PushArguments),
    /// Give one WAL file back: restore_command = 'lifeboat -c FILE wal fetch -e ENV %f %p'
    ///
    /// Exit code 0: DEST is complete. 1: the repository proves that it has no such file, so PostgreSQL
    /// ends recovery there. Above 125: anything else (store unreachable, wrong key, damage), and PostgreSQL
    /// stops instead of coming up with data missing. Subtract 128 for the usual exit code.
    Fetch(FetchArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ReceiveArguments {
    #[command(flatten)]
    which: EnvironmentArgument,
    /// Stop when everything before this position is durable
    #[arg(long, value_name = "LSN")]
    until_lsn: Option<Lsn>,
}

#[derive(Debug, Args)]
pub(crate) struct PushArguments {
    #[command(flatten)]
    which: EnvironmentArgument,
    /// The file, %p of archive_command
    path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArguments {
    #[command(flatten)]
    which: EnvironmentArgument,
    /// Name of the WAL file, %f of restore_command
    name: String,
    /// Where to write it, %p of restore_command
    dest: PathBuf,
}

pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Receive(arguments) => run_receive(arguments, context).await,
        Command::Push(arguments) => push(arguments, context).await,
        Command::Fetch(arguments) => fetch(arguments, context).await,
    }
}

async fn run_receive(arguments: &ReceiveArguments, context: &Context) -> Result<Outcome> {
    let environment = context.environment(&arguments.which.environment)?;
    let stop = stop_on_signals(context)?;
    let repository = context.repository(Keys::Write).await?;
    let options = ReceiveOptions {
        slot: Slot::Configured,
        until: arguments.until_lsn.map_or_else(Until::stopped, Until::durable),
        heartbeat: true,
        level: context.level(),
        give_up_after: arguments.until_lsn.map(|_| context.estate.repository.retry_for),
        blocks: Some(context.block_files(environment)),
    };
    let received = receive(&repository, environment, options, &stop, &context.runtime).await?;
    let text = format!(
        "WAL up to {} on timeline {} is durable in the repository\n\
         received from {} on: {} complete segments and {} pieces, {} stored, {} ledger entries",
        received.durable,
        received.timeline.0,
        received.from,
        received.segments,
        received.pieces,
        ByteSize(received.stored_bytes),
        received.recorded.len(),
    );
    let missed = arguments.until_lsn.filter(|_| !received.reached).map(|until| {
        error::interrupted(format!("stopped before {until} was durable"))
            .meaning("what was received is safe; PostgreSQL keeps the rest in the slot")
            .hint("run the same command again")
    });
    Ok(Outcome::new(json!({ "received": received }), text).with_failure(missed))
}

/// A token that SIGTERM and SIGINT cancel.
pub(super) fn stop_on_signals(context: &Context) -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let listen = |kind| signal(kind).or_err(ErrorKind::Internal, || "cannot listen for signals".to_owned());
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (token, runtime) = (stop.clone(), context.runtime.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        runtime.emit(Event::Note("stopping: storing what was received".into()));
        token.cancel();
    });
    Ok(stop)
}

async fn push(arguments: &PushArguments, context: &Context) -> Result<Outcome> {
    let environment = context.environment(&arguments.which.environment)?;
    let repository = context.repository(Keys::Write).await?;
    let pushed = wal_push::push(
        &repository,
        &environment.name,
        &arguments.path,
        context.level(),
        Some(&context.block_files(environment)),
    )
    .await?;
    let text = match pushed.created {
        Created::New => format!("{} archived, {} stored", pushed.name, ByteSize(pushed.stored.unwrap_or_default())),
        Created::Same => format!("{} was archived before, with the same content", pushed.name),
    };
    let json = json!({
        "name": pushed.name.to_string(),
        "new": pushed.created == Created::New,
        "stored_bytes": pushed.stored,
    });
    Ok(Outcome::new(json!({ "pushed": json }), text))
}

async fn fetch(arguments: &FetchArguments, context: &Context) -> Result<Outcome> {
    let environment = context.environment(&arguments.which.environment)?;
    let name: WalFileName = arguments.name.parse()?;
    let repository = context.repository(Keys::Read).await?;
    let fetched = wal_fetch::fetch(&repository, &environment.name, name, &arguments.dest).await?;
    let text = match fetched.live {
        None => format!("{name} written to {}", arguments.dest.display()),
        Some(live) => format!(
            "{name} written to {}: not complete, {} of WAL padded with zeros",
            arguments.dest.display(),
            ByteSize(live)
        ),
    };
    let json = json!({ "name": name.to_string(), "bytes": fetched.bytes, "live_bytes": fetched.live });
    Ok(Outcome::new(json!({ "fetched": json }), text))
}
