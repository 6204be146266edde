//! `lifeboat backup base|filestore|configuration|all`.

use clap::Subcommand;
use serde_json::json;

use super::EnvironmentArgument;
use super::context::{Context, Keys};
use super::output::Outcome;
use crate::error::Result;
use crate::postgres::backup;
use crate::units::{ByteSize, Span};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy the whole PostgreSQL cluster, with the WAL that makes the copy consistent
    Base(EnvironmentArgument),
}

pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Base(which) => base(context, &which.environment).await,
    }
}

async fn base(context: &Context, name: &str) -> Result<Outcome> {
    let environment = context.environment(name)?;
    let repository = context.repository(Keys::Write).await?;
    let done = backup::base(&repository, environment, context.level(), &context.runtime).await?;
    let entry = &done.entry;
    let text = format!(
        "base backup {} of {name}: {} in {} files, {} stored, {}\n\
         consistent from {} on; WAL {} to {} is in the repository\n\
         recorded as entry {} of the ledger",
        entry.id,
        ByteSize(entry.logical_bytes),
        entry.files,
        ByteSize(entry.stored_bytes),
        Span(std::time::Duration::from_secs_f64(entry.seconds)),
        entry.stop_lsn,
        entry.wal.first,
        entry.wal.last,
        done.appended.sequence,
    );
    Ok(Outcome::new(json!({ "base_backup": entry, "ledger": done.appended }), text))
}
