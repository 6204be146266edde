//! Judges that are not ours: PostgreSQL's own tools, run over the restored cluster. One that is not
//! installed is "not applicable", and says so.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::error::{ErrorKind, Result, ResultExt};
use crate::evidence::drill_record::{Check, CheckResult, Severity};
use crate::postgres::launch::Launch;
use crate::postgres::server::PrivateServer;

/// `pg_verifybackup`: the files, before a server touched them, are those that were read at the source.
pub async fn verify_backup(bin_dir: &Path, launch: &dyn Launch, pgdata: &Path) -> Result<Check> {
    let mut judge = Judge::new(bin_dir, launch, "pg_verifybackup");
    judge.command.args(["--no-parse-wal", "--exit-on-error", "--quiet"]).arg(pgdata);
    judge
        .run(
            "V1",
            "Restored files are exactly those that were backed up",
            "Every file is compared with sums made at the source: by the server where it sent the files, else when each page was read.",
        )
        .await
}

/// `pg_checksums --check`: every page of the cleanly stopped cluster has the checksum that it should.
pub async fn page_checksums(bin_dir: &Path, launch: &dyn Launch, pgdata: &Path, enabled: bool) -> Result<Check> {
    let (id, title) = ("V2", "Every page has the right checksum");
    let why = "A page that changed behind PostgreSQL's back, on disk or in the backup, is found here.";
    if !enabled {
        return Ok(not_applicable(id, title, why, "the cluster has no page checksums (initdb --data-checksums)"));
    }
    let mut judge = Judge::new(bin_dir, launch, "pg_checksums");
    judge.command.arg("--check").arg("-D").arg(pgdata);
    judge.run(id, title, why).await
}

/// `pg_amcheck`: tables and indexes of every database are sound inside and agree with each other.
pub async fn structure(bin_dir: &Path, launch: &dyn Launch, server: &PrivateServer) -> Result<Check> {
    let (id, title) = ("V3", "Tables and indexes are sound and agree with each other");
    let why = "An index that misses a row makes documents disappear from searches although they exist.";
    let dsn = server.dsn("template1");
    let available = server
        .sql("template1")
        .await?
        .query_one("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'amcheck')", &[])
        .await
        .is_ok_and(|row| row.get(0));
    if !available {
        return Ok(not_applicable(id, title, why, "the extension amcheck is not installed on this host"));
    }
    let mut judge = Judge::new(bin_dir, launch, "pg_amcheck");
    let host = dsn.get_hosts().iter().find_map(|h| match h {
        tokio_postgres::config::Host::Unix(path) => Some(path.clone()),
        tokio_postgres::config::Host::Tcp(_) => None,
    });
    judge.command.args(["--all", "--install-missing", "--heapallindexed", "--parent-check", "--jobs", "2"]);
    judge.command.arg("-h").arg(host.unwrap_or_default()).args(["-p", "5432"]);
    judge.command.arg("-U").arg(dsn.get_user().unwrap_or("postgres"));
    judge.run(id, title, why).await
}

struct Judge {
    program: &'static str,
    command: Command,
    there: bool,
}

impl Judge {
    fn new(bin_dir: &Path, launch: &dyn Launch, program: &'static str) -> Self {
        let path = bin_dir.join(program);
        let mut command = launch.command(&path);
        command.current_dir("/").stdin(Stdio::null());
        Self { program, command, there: launch.has(&path) }
    }

    async fn run(mut self, id: &str, title: &str, why: &str) -> Result<Check> {
        if !self.there {
            let missing = format!("{} is not installed with the restored server", self.program);
            return Ok(not_applicable(id, title, why, &missing));
        }
        let began = Instant::now();
        let program = self.program;
        let output = tokio::task::spawn_blocking(move || self.command.output())
            .await
            .or_err(ErrorKind::Internal, || "a worker ended unexpectedly".to_owned())?
            .or_err(ErrorKind::Internal, || format!("cannot run {program}"))?;
        let rows = if output.status.success() { Vec::new() } else { complaints(&output) };
        let (result, detail) = match output.status.success() {
            true => (CheckResult::Passed, format!("{program} accepts it")),
            false => (CheckResult::Failed, format!("{program}: {}", output.status)),
        };
        Ok(judged(id, title, why, result, &detail, rows, began.elapsed().as_secs_f64()))
    }
}

fn complaints(output: &Output) -> Vec<String> {
    let text = [String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout)].concat();
    text.lines().filter(|l| !l.trim().is_empty()).take(5).map(|l| l.chars().take(300).collect()).collect()
}

fn not_applicable(id: &str, title: &str, why: &str, reason: &str) -> Check {
    judged(id, title, why, CheckResult::NotApplicable, reason, Vec::new(), 0.0)
}

fn judged(
    id: &str,
    title: &str,
    why: &str,
    result: CheckResult,
    detail: &str,
    rows: Vec<String>,
    seconds: f64,
) -> Check {
    Check {
        id: id.to_owned(),
        title: title.to_owned(),
        why: why.to_owned(),
        severity: Severity::Hard,
        scope: "cluster".to_owned(),
        result,
        detail: detail.to_owned(),
        rows,
        seconds,
    }
}
