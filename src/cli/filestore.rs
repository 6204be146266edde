//! `lifeboat filestore watch`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::EnvironmentArgument;
use super::context::{Context, Keys};
use super::output::Outcome;
use super::wal::stop_on_signals;
use crate::error::{self, Result};
use crate::filestore::watch::{WatchOptions, watch};
use crate::units::{ByteSize, Span};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store new attachments as Odoo writes them; runs until it is stopped
    ///
    /// Run it as a service, one for each environment, on a host that sees the filestores. A new file is
    /// durable in the repository within a second or two, so it survives even when Odoo deletes and
    /// collects it again before the next capture. It takes captures itself: at its start, every
    /// --scan-every, shortly before Odoo collects files, and whenever something may have been missed; so
    /// a schedule of `lifeboat backup filestore` is not needed beside it. It waits out restarts of
    /// PostgreSQL and outages of the store. SIGTERM and SIGINT end it in order (exit code 0).
    Watch(WatchArguments),
}

#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    #[command(flatten)]
    which: EnvironmentArgument,
    /// New files are stored this often; there is one small object each time that something came
    #[arg(long, value_name = "TIME", default_value = "1s")]
    store_every: Span,
    /// The filestores are scanned this often, which finds what was missed
    #[arg(long, value_name = "TIME", default_value = "1h")]
    scan_every: Span,
    /// A capture is taken this long before Odoo's daily garbage collection
    #[arg(long, value_name = "TIME", default_value = "5m")]
    before_collection: Span,
}

pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    let Command::Watch(arguments) = command;
    let environment = context.environment(&arguments.which.environment)?;
    if environment.odoo.is_empty() {
        return Err(error::config(format!("environment {} lists no Odoo", environment.name))
            .meaning("there is no filestore to watch")
            .hint("add `[[environment.odoo]]` with its `data_dir`"));
    }
    let stop = stop_on_signals(context)?;
    let repository = context.repository(Keys::Write).await?;
    let options = WatchOptions {
        store_every: arguments.store_every.0,
        scan_every: arguments.scan_every.0,
        before_collection: arguments.before_collection.0,
        level: context.level(),
    };
    let watched = watch(&repository, environment, options, &stop, &context.runtime).await?;
    let text = format!(
        "watched the filestores of {}: {} files ({}) stored as they came, in {} pieces; {} captures",
        if watched.databases.is_empty() { "no database".to_owned() } else { watched.databases.join(", ") },
        watched.files,
        ByteSize(watched.bytes),
        watched.pieces,
        watched.captures,
    );
    Ok(Outcome::new(json!({ "watched": watched }), text))
}
