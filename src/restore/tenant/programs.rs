//! PostgreSQL's own programs for dumping and loading, of a version that both sides understand.
//!
//! `pg_dump` must not be older than the server that it reads. `pg_restore` of 17 and later says `SET
//! transaction_timeout`, which servers before 17 reject. Neither writes SQL for `psql` here, so that the `\restrict` of
//! newer minor versions, which an older `psql` does not know, cannot get in the way.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::config::PostgresConfig;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::postgres::tools::{asked, program_dir};

/// Where the programs are, and of which major version.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Their directory.
    pub dir: PathBuf,
    /// Their major version.
    pub major: u32,
}

/// How much of what a program complains about is kept: its last words.
const LAST_WORDS: usize = 4096;

impl Programs {
    /// Finds `pg_dump` and `pg_restore` for a cluster of `restored`, to load into one of `target`.
    pub fn find(config: &PostgresConfig, restored: u32, target: Option<u32>, path: Option<&OsStr>) -> Result<Self> {
        let dir = program_dir(config, restored, "pg_dump", path)?;
        let major = asked(&dir, "pg_dump")
            .ok_or_else(|| error::config(format!("{} does not run", dir.join("pg_dump").display())))?;
        if asked(&dir, "pg_restore").is_none_or(|restore| restore < major) {
            return Err(error::config(format!("there is no pg_restore beside {}", dir.join("pg_dump").display()))
                .hint(format!("install the whole package: `apt install postgresql-client-{major}`")));
        }
        match target.filter(|target| *target < 17 && major >= 17) {
            None => Ok(Self { dir, major }),
            Some(target) => Err(error::config(format!(
                "the only pg_restore for this cluster is of PostgreSQL {major}, and it says `SET transaction_timeout`, \
                 which the server of PostgreSQL {target} rejects"
            ))
            .meaning("nothing was restored")
            .hint(format!("install the older programs beside: `apt install postgresql-client-{restored}`"))),
        }
    }
}

/// Runs a program to its end; what it complains about becomes the error.
pub(super) async fn finish(mut command: Command, doing: &str) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().or_err(ErrorKind::Config, || format!("{doing}: cannot start the program"))?;
    let complaints = child.stderr.take().expect("stderr is piped");
    let said = last_words(complaints).await;
    let status = child.wait().await.or_err(ErrorKind::Internal, || format!("{doing}: cannot wait for the program"))?;
    match status.success() {
        true => Ok(()),
        false => Err(complaint(doing, status, &said)),
    }
}

/// The error of a program that failed.
pub(super) fn complaint(doing: &str, status: std::process::ExitStatus, said: &str) -> error::Error {
    let lines: Vec<&str> = said.lines().filter(|l| !l.trim().is_empty()).collect();
    let first = lines.iter().find(|l| l.contains("error:") || l.contains("ERROR:")).or(lines.last());
    let error = error::source(format!("{doing}: {}", first.map_or_else(|| status.to_string(), |l| (*l).to_owned())));
    match said.contains("No space left on device") || said.contains("could not extend file") {
        true => error.hint("free space where the message points to, and run the same command again"),
        false => lines.iter().rev().take(3).rev().fold(error, |e, line| e.hint(format!("its last words: {line}"))),
    }
}

/// The end of what a program writes.
pub(super) async fn last_words(mut from: impl tokio::io::AsyncRead + Unpin) -> String {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..n]);
        let over = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// How many of its workers a program may use.
pub(super) fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get()).clamp(1, 8)
}
