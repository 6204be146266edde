//! A check that is a program of the user's: run on the restored copy, where everything that touches restored data
//! runs, with a time limit, and judged by its exit code and what it prints.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::config::CommandProbe;
use crate::evidence::drill_record::CheckResult;
use crate::postgres::launch::Launch;
use crate::units::Span;

/// Output that is looked at; the rest is read and forgotten.
const OUTPUT_KEPT: u64 = 1 << 20;

/// Time between asking a program to end and ending it.
const GRACE: Duration = Duration::from_secs(5);

/// What the program runs on.
#[derive(Debug)]
pub(super) struct On<'a> {
    pub(super) dsn: Config,
    pub(super) database: &'a str,
    pub(super) filestore: Option<&'a Path>,
    pub(super) launch: &'a dyn Launch,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) result: CheckResult,
    pub(super) detail: String,
    pub(super) rows: Vec<String>,
}

/// Runs the program; its environment tells where the database and the attachments are.
pub(super) async fn run(probe: &CommandProbe, limit: Duration, on: &On<'_>) -> Said {
    let error = |detail: String| Said { result: CheckResult::Error, detail, rows: Vec::new() };
    let name = probe.program.display();
    let mut command = on.launch.command(&probe.program);
    command.args(&probe.arguments).current_dir("/").process_group(0);
    let socket = on.dsn.get_hosts().iter().find_map(|host| match host {
        Host::Unix(path) => Some(path.as_os_str()),
        Host::Tcp(_) => None,
    });
    command.env("PGHOST", socket.unwrap_or_default()).env("PGPORT", "5432").env("PGDATABASE", on.database);
    command.env("PGUSER", on.dsn.get_user().unwrap_or("postgres"));
    command.env("PGOPTIONS", "-c default_transaction_read_only=on");
    if let Some(directory) = on.filestore {
        command.env("LIFEBOAT_FILESTORE", directory);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match tokio::process::Command::from(command).kill_on_drop(true).spawn() {
        Ok(child) => child,
        Err(e) => return error(format!("{name} cannot be started: {e}")),
    };
    let (output, complaints) = (child.stdout.take(), child.stderr.take());
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let work = async { tokio::join!(child.wait(), text(output), text(complaints)) };
    let (status, output, complaints) = match timeout(limit, work).await {
        Ok((Ok(status), output, complaints)) => (status, output, complaints),
        Ok((Err(e), ..)) => return error(format!("{name} cannot be watched: {e}")),
        Err(_) => {
            for signal in [Signal::SIGTERM, Signal::SIGKILL] {
                // It may be gone already.
                let _ = group.map(|group| killpg(group, signal));
                if timeout(GRACE, child.wait()).await.is_ok() {
                    break;
                }
            }
            return error(format!("{name} was ended after {}, the time limit of the check", Span(limit)));
        }
    };
    let rows: Vec<String> = [output.as_str(), complaints.as_str()].iter().flat_map(|t| t.lines()).map(short).collect();
    let failed = |detail: String| Said { result: CheckResult::Failed, detail, rows: first(&rows) };
    if status.code() != Some(probe.exit_code) {
        return failed(format!("{name} ended with {status}, expected exit code {}", probe.exit_code));
    }
    let pattern = probe.output.as_deref().map(|p| regex::RegexBuilder::new(p).multi_line(true).build());
    match pattern {
        Some(Err(e)) => error(format!("not a regular expression: {e}")),
        Some(Ok(pattern)) if !pattern.is_match(&output) => failed(format!("the output does not match {pattern}")),
        _ => Said { result: CheckResult::Passed, detail: format!("{name}: {status}"), rows: Vec::new() },
    }
}

async fn text(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let mut kept = Vec::new();
    // What cannot be read was not said.
    let _ = (&mut from).take(OUTPUT_KEPT).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

fn short(line: &str) -> String {
    line.chars().take(300).collect()
}

fn first(rows: &[String]) -> Vec<String> {
    rows.iter().filter(|row| !row.trim().is_empty()).take(5).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::postgres::launch::OnHost;

    async fn shell(script: &str, exit_code: i32, output: Option<&str>, limit: Duration) -> Said {
        let probe = CommandProbe {
            program: PathBuf::from("/bin/sh"),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            exit_code,
            output: output.map(str::to_owned),
        };
        let mut dsn = Config::new();
        dsn.host_path("/somewhere").user("u");
        let launch = OnHost { account: None };
        run(&probe, limit, &On { dsn, database: "shop", filestore: Some(Path::new("/f/shop")), launch: &launch }).await
    }

    #[tokio::test]
    async fn exit_code_output_and_environment_are_judged() {
        let limit = Duration::from_secs(30);
        let script = "echo $PGHOST $PGDATABASE $PGUSER $LIFEBOAT_FILESTORE; exit 3";
        let said = shell(script, 3, Some("^/somewhere shop u /f/shop$"), limit).await;
        assert_eq!(said.result, CheckResult::Passed, "{said:?}");
        let said = shell("echo why >&2; exit 1", 0, None, limit).await;
        assert_eq!((said.result, said.rows), (CheckResult::Failed, vec!["why".to_owned()]));
        let said = shell("echo no", 0, Some("yes"), limit).await;
        assert_eq!(said.result, CheckResult::Failed, "{said:?}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_with_its_children() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let said = shell(&script, 0, None, Duration::from_millis(500)).await;
        assert_eq!(said.result, CheckResult::Error);
        assert!(said.detail.contains("time limit"), "{said:?}");
        let child = std::fs::read_to_string(&file).expect("it ran");
        let stat = format!("/proc/{}/stat", child.trim());
        let began = std::time::Instant::now();
        // A killed process is there until it was reaped.
        while std::fs::read_to_string(&stat).is_ok_and(|state| !state.contains(") Z ")) {
            assert!(began.elapsed() < Duration::from_secs(60), "it still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
