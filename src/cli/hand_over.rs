//! `lifeboat wal-hand-over`, the messenger between a recovering private server and the process that
//! restores. Not for people: `restore_command` calls it.

use std::path::PathBuf;

use clap::Args;

use crate::error::Result;
use crate::restore::messenger::hand_over;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    socket: PathBuf,
    name: String,
    destination: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    hand_over(&arguments.socket, &arguments.name, &arguments.destination)
}
