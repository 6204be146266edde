//! A database of the private server as `pg_dump`'s archive in a directory: read and compressed by several workers.
//! Nobody else writes to that server, so that it is one state with or without a common snapshot.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::programs::{Programs, finish, jobs};
use crate::disk::failed;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::postgres::account::{Account, hand_over};
use crate::postgres::launch::Launch;
use crate::postgres::libpq;
use crate::postgres::server::PrivateServer;

/// A command for one of the programs on a database of the private server.
pub(super) fn command(
    programs: &Programs,
    program: &str,
    launch: &dyn Launch,
    server: &PrivateServer,
    database: &str,
) -> Command {
    let mut command = launch.command(&programs.dir.join(program));
    command.current_dir("/").envs(libpq::environment(&server.dsn(database)));
    Command::from(command)
}

/// Dumps `database` into a new directory below `aside`.
pub(super) async fn archive(
    programs: &Programs,
    launch: &dyn Launch,
    account: Option<&Account>,
    server: &PrivateServer,
    database: &str,
    aside: &Path,
) -> Result<PathBuf> {
    let own = aside.join("dump");
    std::fs::create_dir(&own).map_err(|e| failed("cannot create", &own, e))?;
    hand_over(&own, account)?;
    let archive = own.join("archive");
    let mut command = command(programs, "pg_dump", launch, server, database);
    command.args(["--format=directory", "--compress=1", "--no-password", "--no-sync"]);
    // A subscription or publication of a copy would be one connection too many.
    command.args(["--no-publications", "--no-subscriptions"]);
    command.arg(format!("--jobs={}", jobs())).arg("--file").arg(&archive);
    finish(command, &format!("dumping {database}")).await?;
    // Lifeboat's own account reads it; where that is root, it may anyway.
    std::fs::metadata(archive.join("toc.dat"))
        .or_err(ErrorKind::Internal, || format!("pg_dump left no archive of {database}"))?;
    Ok(archive)
}
