//! A private PostgreSQL server on a restored data directory.
//!
//! It listens on a Unix socket in a directory of its own and nowhere else, reads no configuration of
//! the source (all settings that could make it archive, connect out or load foreign code are
//! overridden on the command line, which beats every file), and dies with its owner: dropping it
//! kills it. Nothing in the data directory is changed for its sake.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::{Client, Config};

use super::account::Account;
use super::launch::Launch;
use super::sql::connect_sql;
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::units::Lsn;

/// Port number in the name of the socket; there is no TCP.
const PORT: u16 = 5432;

/// How often a starting server is looked at.
const POLL: Duration = Duration::from_millis(50);

/// What a server is started with.
#[derive(Debug)]
pub struct ServerSpec<'a> {
    /// Directory of PostgreSQL's programs.
    pub bin_dir: &'a Path,
    /// The data directory.
    pub pgdata: &'a Path,
    /// A directory for socket, log and configuration, made for this server alone.
    pub work_dir: &'a Path,
    /// The account that it runs as; `None` stays the running one.
    pub account: Option<&'a Account>,
    /// How it is started.
    pub launch: &'a dyn Launch,
    /// Settings beside the fixed ones.
    pub settings: Vec<(String, String)>,
    /// Major version of the cluster.
    pub major: u32,
}

/// A running private server.
#[derive(Debug)]
pub struct PrivateServer {
    child: Child,
    work_dir: PathBuf,
    role: String,
}

impl PrivateServer {
    /// Starts the server; returns at once. `role` is a role of the cluster that may log in.
    pub fn start(spec: &ServerSpec<'_>, role: &str) -> Result<Self> {
        let prepared =
            prepare(spec).or_err(ErrorKind::Internal, || format!("cannot prepare {}", spec.work_dir.display()))?;
        let program = spec.bin_dir.join("postgres");
        let mut command = spec.launch.command(&program);
        command.arg("-D").arg(spec.pgdata).current_dir(spec.work_dir);
        for (name, value) in fixed_settings(spec).into_iter().chain(spec.settings.iter().cloned()) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // A group of its own: a ^C at the terminal is for Lifeboat, which stops the server in order.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(prepared));
        let child = command.spawn().or_err(ErrorKind::Config, || format!("cannot start {}", program.display()))?;
        Ok(Self { child, work_dir: spec.work_dir.to_owned(), role: role.to_owned() })
    }

    /// Connection parameters for a database of this server.
    pub fn dsn(&self, database: &str) -> Config {
        let mut dsn = Config::new();
        dsn.host_path(&self.work_dir).port(PORT).user(&self.role).dbname(database);
        dsn
    }

    /// Logs in from now on as another role.
    pub fn set_role(&mut self, role: &str) {
        role.clone_into(&mut self.role);
    }

    /// An SQL session.
    pub async fn sql(&self, database: &str) -> Result<Client> {
        connect_sql(&self.dsn(database)).await
    }

    /// What the server wrote to its log so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.work_dir.join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the server takes ordinary sessions, that is until recovery has ended. Fails with the
    /// server's own words when it exits instead.
    pub async fn ready(&mut self, limit: Option<Duration>) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Some(status) =
                self.child.try_wait().or_err(ErrorKind::Internal, || "cannot watch the server".to_owned())?
            {
                return Err(self.died(status));
            }
            match self.sql("template1").await {
                Ok(client) => {
                    let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await;
                    if row.is_ok_and(|row| !row.get::<_, bool>(0)) {
                        return Ok(());
                    }
                }
                // No login for this role is no reason to wait for ever.
                Err(e) if super::replication::sqlstate(&e).is_some_and(|code| code.starts_with("28")) => return Err(e),
                Err(_) => {}
            }
            if limit.is_some_and(|limit| began.elapsed() > limit) {
                return Err(error::internal(format!(
                    "the private server was not ready after {} s",
                    began.elapsed().as_secs()
                ))
                .hint(format!("its log ends with: {}", last_lines(&self.log(), 3))));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until recovery is paused at its target, in hot standby; tells where.
    ///
    /// # Errors
    /// When the server exits, or goes on instead: a server that lets nobody in yet does not pause.
    pub async fn paused(&mut self) -> Result<Lsn> {
        const QUESTION: &str = "SELECT pg_is_in_recovery(), \
             CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END, \
             pg_last_wal_replay_lsn()::text";
        loop {
            if let Some(status) =
                self.child.try_wait().or_err(ErrorKind::Internal, || "cannot watch the server".to_owned())?
            {
                return Err(self.died(status));
            }
            let session = match self.sql("template1").await {
                // No login for this role is no reason to wait for ever.
                Err(e) if super::replication::sqlstate(&e).is_some_and(|code| code.starts_with("28")) => return Err(e),
                session => session.ok(),
            };
            if let Some(client) = session
                && let Ok(row) = client.query_one(QUESTION, &[]).await
            {
                match (row.get(0), row.get(1), row.get::<_, Option<&str>>(2)) {
                    (true, true, Some(lsn)) => return lsn.parse(),
                    (false, _, _) => return Err(error::internal("the server ended recovery instead of pausing")),
                    _ => {}
                }
            }
            if self.log().contains("hot standby is not possible because of insufficient parameter settings") {
                return Err(error::internal("settings of the source were raised since the base backup"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops the server with a shutdown checkpoint and waits for it.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGINT);
        let began = Instant::now();
        loop {
            match self.child.try_wait().or_err(ErrorKind::Internal, || "cannot watch the server".to_owned())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.died(status)),
                None if began.elapsed() > Duration::from_secs(600) => {
                    return Err(error::internal("the private server did not stop within 10 minutes"));
                }
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn signal(&self, signal: Signal) {
        // It may have exited already; then there is nothing to signal.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    fn died(&self, status: std::process::ExitStatus) -> Error {
        let log = self.log();
        let fatal = log.lines().rev().find(|l| is_last_word(l)).map(str::to_owned);
        let reason = fatal.unwrap_or_else(|| last_lines(&log, 3));
        let kind = match () {
            () if reason.contains("configured recovery target was reached") => ErrorKind::NotRecoverable,
            () if reason.contains("before consistent recovery point") => ErrorKind::NotRecoverable,
            () if reason.contains("WAL ends before") => ErrorKind::NotRecoverable,
            () => ErrorKind::Internal,
        };
        Error::new(kind, format!("the private PostgreSQL server stopped ({status}): {}", reason.trim()))
            .hint(format!("its last words: {}", last_lines(&log, 5)))
    }
}

impl Drop for PrivateServer {
    /// Kills a server that was not stopped: immediate shutdown first, so that its children go too.
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        self.signal(Signal::SIGQUIT);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(10) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Ends the server that a killed process of Lifeboat left behind in a data directory of its own making;
/// a new one could not start beside it. Does nothing where none runs.
pub async fn end_orphan(pgdata: &Path) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(pgdata.join("postmaster.pid")) else { return Ok(()) };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()) else { return Ok(()) };
    let pgdata = std::fs::canonicalize(pgdata).or_err(ErrorKind::Internal, || format!("no {}", pgdata.display()))?;
    // The number may belong to another process by now; a postmaster works in its data directory.
    let runs = || std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == pgdata);
    let began = Instant::now();
    while runs() {
        // It may end by itself between the look and the signal.
        let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        if began.elapsed() > Duration::from_secs(60) {
            return Err(error::internal(format!("the server {pid} of an interrupted restore does not stop"))
                .hint(format!("end process {pid} and run the same command again")));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Writes the files that the server reads instead of the source's, and opens its log.
fn prepare(spec: &ServerSpec<'_>) -> std::io::Result<File> {
    std::fs::create_dir_all(spec.work_dir)?;
    std::fs::set_permissions(spec.work_dir, std::fs::Permissions::from_mode(0o700))?;
    for (name, text) in [
        ("server.conf", "# settings come from the command line\n"),
        ("hba.conf", "local all all trust\n"),
        ("ident.conf", "# none\n"),
    ] {
        std::fs::write(spec.work_dir.join(name), text)?;
    }
    let log = File::options().create(true).append(true).open(spec.work_dir.join("server.log"))?;
    if let Some(account) = spec.account {
        for path in ["", "server.conf", "hba.conf", "ident.conf", "server.log"] {
            chown(spec.work_dir.join(path), Some(account.uid), Some(account.gid))?;
        }
    }
    Ok(log)
}

/// Settings that make a restored copy harmless, whatever its files say.
fn fixed_settings(spec: &ServerSpec<'_>) -> Vec<(String, String)> {
    let file = |name: &str| spec.work_dir.join(name).display().to_string();
    let fixed = [
        ("config_file", file("server.conf")),
        ("hba_file", file("hba.conf")),
        ("ident_file", file("ident.conf")),
        ("external_pid_file", String::new()),
        ("unix_socket_directories", spec.work_dir.display().to_string()),
        ("unix_socket_permissions", "0700".into()),
        ("listen_addresses", String::new()),
        ("port", PORT.to_string()),
        ("ssl", "off".into()),
        ("archive_mode", "off".into()),
        ("primary_conninfo", String::new()),
        ("primary_slot_name", String::new()),
        ("synchronous_standby_names", String::new()),
        ("shared_preload_libraries", String::new()),
        ("session_preload_libraries", String::new()),
        ("local_preload_libraries", String::new()),
        ("max_logical_replication_workers", "0".into()),
        ("autovacuum", "off".into()),
        ("jit", "off".into()),
        ("hot_standby", "off".into()),
        ("recovery_min_apply_delay", "0".into()),
        ("logging_collector", "off".into()),
        ("log_destination", "stderr".into()),
        ("log_line_prefix", "%m [%p] ".into()),
        ("log_timezone", "UTC".into()),
        ("log_checkpoints", "on".into()),
        ("log_min_messages", "warning".into()),
        ("log_statement", "none".into()),
        ("lc_messages", "C".into()),
        ("huge_pages", "off".into()),
        ("fsync", "on".into()),
        // Recovery writes restart points by these; fewer of them make replay faster.
        ("checkpoint_timeout", "30min".into()),
        ("max_wal_size", "8GB".into()),
        ("shared_buffers", "256MB".into()),
    ];
    let mut settings: Vec<(String, String)> = fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if spec.major >= 14 {
        // Everything was flushed before: one `syncfs` instead of opening and flushing every file again.
        settings.push(("recovery_init_sync_method".into(), "syncfs".into()));
    }
    settings
}

/// Whether a line of the log says why the server ended; that it refused a session meanwhile does not.
fn is_last_word(line: &str) -> bool {
    (line.contains("FATAL:") || line.contains("PANIC:")) && !line.contains("FATAL:  the database system is ")
}

fn last_lines(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}
