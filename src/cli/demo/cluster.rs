//! A PostgreSQL cluster like any other, on a Unix socket only; started, stopped and killed by process id.
//!
//! Promises that its processes are gone when the value is.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::{Client, Config};

use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::postgres::account::Account;
use crate::postgres::sql::connect_sql;

/// Superuser of the demo's cluster.
pub(super) const ROLE: &str = "postgres";

/// Port number in the name of the socket; there is no TCP.
const PORT: u16 = 5432;

const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// PostgreSQL's programs, and the account that they run as.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) bin_dir: PathBuf,
    pub(super) account: Option<Account>,
}

impl Programs {
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(name));
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").env("TZ", "UTC");
        // A group of its own: a ^C at the terminal is for Lifeboat, which then ends its servers.
        command.current_dir("/").stdin(Stdio::null()).process_group(0);
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Makes a cluster with page checksums in the empty directory `data`.
    pub(super) async fn initdb(&self, data: &Path, sockets: &Path) -> Result<()> {
        let mut command = self.command("initdb");
        command.arg("-D").arg(data).args(["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C"]);
        command.args(["--data-checksums", "--no-sync", "--no-instructions"]);
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await;
        let output = output.or_err(ErrorKind::Config, || format!("cannot run {}/initdb", self.bin_dir.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(error::source(format!("initdb: {}: {}", output.status, last_lines(&said, 3))));
        }
        let conf = data.join("postgresql.conf");
        let settings = format!(
            "\n# Lifeboat's demo\nlisten_addresses = ''\nport = {PORT}\nunix_socket_directories = '{}'\n\
             shared_buffers = 64MB\nwal_level = replica\ntimezone = 'UTC'\nlog_timezone = 'UTC'\n",
            sockets.display()
        );
        let mut text = fs::read_to_string(&conf).or_err(ErrorKind::Internal, || unreadable(&conf))?;
        text += &settings;
        fs::write(&conf, text).or_err(ErrorKind::Internal, || format!("cannot write {}", conf.display()))
    }
}

fn unreadable(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// A running cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    postmaster: Child,
    sockets: PathBuf,
    log: PathBuf,
}

impl Cluster {
    /// Starts the server of `data` and waits until it takes sessions; its log is the new file `log`.
    pub(super) async fn start(programs: &Programs, data: &Path, sockets: &Path, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).or_err(ErrorKind::Internal, || format!("cannot create {}", log.display()))?;
        let mut command = programs.command("postgres");
        command.arg("-D").arg(data).arg("-k").arg(sockets).stdout(Stdio::null()).stderr(file);
        let postmaster = command
            .spawn()
            .or_err(ErrorKind::Config, || format!("cannot start {}/postgres", programs.bin_dir.display()))?;
        let mut cluster = Self { postmaster, sockets: sockets.to_owned(), log };
        let began = Instant::now();
        while let Err(e) = cluster.sql("template1").await {
            if let Ok(Some(status)) = cluster.postmaster.try_wait() {
                return Err(cluster.ended(status));
            }
            if began.elapsed() > PATIENCE {
                return Err(e.context("the demo's server does not answer"));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(cluster)
    }

    /// Connection parameters, as a string for a configuration.
    pub(super) fn dsn(sockets: &Path) -> String {
        format!("host='{}' port={PORT} user={ROLE} dbname=postgres", sockets.display())
    }

    /// An SQL session as superuser.
    pub(super) async fn sql(&self, database: &str) -> Result<Client> {
        let mut dsn = Config::new();
        dsn.host_path(&self.sockets).port(PORT).user(ROLE).dbname(database);
        connect_sql(&dsn).await
    }

    /// Stops the server in order.
    pub(super) async fn stop(mut self) -> Result<()> {
        signal(self.postmaster.id(), Signal::SIGINT);
        let began = Instant::now();
        loop {
            match self.postmaster.try_wait().or_err(ErrorKind::Internal, || "cannot watch the server".to_owned())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.ended(status)),
                None if began.elapsed() > PATIENCE => return Err(error::internal("the demo's server does not stop")),
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Ends the server and all its processes at once and without a word (SIGKILL), as a machine that
    /// loses power would; tells how many there were.
    pub(super) async fn pull_the_plug(mut self) -> Result<usize> {
        let postmaster = self.postmaster.id();
        // Held, so that it starts no process between the counting and the end.
        signal(postmaster, Signal::SIGSTOP);
        let children = children_of(postmaster);
        children.iter().chain([&postmaster]).for_each(|pid| signal(*pid, Signal::SIGKILL));
        self.postmaster.wait().or_err(ErrorKind::Internal, || "cannot watch the server".to_owned())?;
        let began = Instant::now();
        while children.iter().any(|pid| is_alive(*pid)) {
            if began.elapsed() > PATIENCE {
                return Err(error::internal("a process of the demo's server survives SIGKILL"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(children.len() + 1)
    }

    fn ended(&self, status: std::process::ExitStatus) -> Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        error::source(format!("the demo's server ended ({status}): {}", last_lines(&log, 3)))
    }
}

impl Drop for Cluster {
    /// Immediate shutdown, so that the postmaster takes its children along.
    fn drop(&mut self) {
        if !matches!(self.postmaster.try_wait(), Ok(None)) {
            return;
        }
        signal(self.postmaster.id(), Signal::SIGQUIT);
        let began = Instant::now();
        while matches!(self.postmaster.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(10) {
                let _ = self.postmaster.kill();
                let _ = self.postmaster.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    // It may have ended by itself; then there is nothing to signal.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// The processes whose parent is `parent`.
pub(super) fn children_of(parent: u32) -> BTreeSet<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeSet::new() };
    let processes = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|pid| status_field(*pid, "PPid:").is_some_and(|value| value == parent.to_string())).collect()
}

/// Whether a process is there and not merely waiting for its parent to notice its end.
pub(super) fn is_alive(pid: u32) -> bool {
    status_field(pid, "State:").is_some_and(|state| !state.starts_with('Z'))
}

fn status_field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}
