//! A real PostgreSQL for tests: its own cluster in a temporary directory, ended and removed with the value.
//!
//! `LIFEBOAT_TEST_PG_BIN` names another `bin` directory, to run the same tests against another version.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tokio_postgres::{Client, Config};

use crate::postgres::sql::connect_sql;

/// Where the server programs are, or `None` after a word about it.
pub(crate) fn bin_dir() -> Option<PathBuf> {
    let dir =
        std::env::var_os("LIFEBOAT_TEST_PG_BIN").map_or_else(|| "/usr/lib/postgresql/15/bin".into(), PathBuf::from);
    if dir.join("postgres").exists() {
        return Some(dir);
    }
    println!("skipped: no PostgreSQL server in {}", dir.display());
    None
}

/// The same for a certain major version, as `deploy/test.sh` tells it.
fn bin_dir_of(major: u32) -> Option<PathBuf> {
    let told = std::env::var_os(format!("LIFEBOAT_TEST_PG_{major}")).map(PathBuf::from);
    let packaged = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let found = told.into_iter().chain([packaged]).find(|dir| dir.join("postgres").exists());
    if found.is_none() {
        println!("skipped: no PostgreSQL {major} server (LIFEBOAT_TEST_PG_{major})");
    }
    found
}

/// The account that servers run as: PostgreSQL refuses root.
fn account() -> Option<User> {
    geteuid().is_root().then(|| User::from_name("postgres").expect("readable accounts").expect("an account postgres"))
}

fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
    if let Some(user) = account() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// Makes a file or directory the server's own.
pub(crate) fn give_to_server(path: &Path) {
    if let Some(user) = account() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("chown");
    }
}

/// One running server.
pub(crate) struct TestServer {
    /// Ended first, removed last.
    process: Child,
    dir: tempfile::TempDir,
    bin: PathBuf,
    pub(crate) port: u16,
}

impl TestServer {
    /// A fresh cluster with a superuser `postgres`, these lines of configuration and of pg_hba.conf
    /// (in front of "trust everything on the socket").
    pub(crate) async fn start(settings: &[&str], hba: &[&str]) -> Option<Self> {
        Some(Self::create(bin_dir()?, settings, hba).await)
    }

    /// The same with a certain major version.
    pub(crate) async fn of_version(major: u32, settings: &[&str], hba: &[&str]) -> Option<Self> {
        Some(Self::create(bin_dir_of(major)?, settings, hba).await)
    }

    async fn create(bin: PathBuf, settings: &[&str], hba: &[&str]) -> Self {
        let dir = directory();
        let made = command(&bin.join("initdb"), dir.path())
            .args(["-D", "data", "-U", "postgres", "-A", "trust", "-N", "-k", "-E", "UTF8", "--locale=C"])
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let rules = format!("{}\nlocal all all trust\nlocal replication all trust\n", hba.join("\n"));
        fs::write(dir.path().join("data/pg_hba.conf"), rules).expect("written");
        Self::run(bin, dir, settings).await
    }

    /// A standby of this server; `fill` puts a base backup into its data directory.
    pub(crate) async fn standby_of(&self, fill: impl FnOnce(&Path), settings: &[&str]) -> Self {
        let dir = directory();
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("created");
        fill(&data);
        fs::write(data.join("standby.signal"), "").expect("written");
        give_all(&data);
        fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
        let upstream = format!("primary_conninfo = 'host={} port={} user=postgres'", self.path().display(), self.port);
        let mut all = settings.to_vec();
        all.push(&upstream);
        Self::run(self.bin.clone(), dir, &all).await
    }

    async fn run(bin: PathBuf, dir: tempfile::TempDir, settings: &[&str]) -> Self {
        let port = free_port();
        let mut text = format!(
            "port = {port}\nunix_socket_directories = '{}'\nlisten_addresses = ''\nfsync = off\nmax_wal_senders = 5\n\
             max_replication_slots = 3\nshared_buffers = '16MB'\nlogging_collector = off\n",
            dir.path().display()
        );
        for line in settings {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(dir.path().join("data/postgresql.conf"), text).expect("written");
        let log = fs::File::create(dir.path().join("log")).expect("log");
        let process = command(&bin.join("postgres"), dir.path())
            .args(["-D", "data"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("postgres runs");
        let mut server = Self { process, dir, bin, port };
        let begun = Instant::now();
        while let Err(error) = connect_sql(&server.dsn("user=postgres dbname=postgres")).await {
            let ended = server.process.try_wait().expect("waitable").is_some();
            assert!(!ended && begun.elapsed() < Duration::from_secs(60), "{error}\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A DSN for the socket.
    pub(crate) fn dsn(&self, more: &str) -> Config {
        format!("host={} port={} {more}", self.path().display(), self.port).parse().expect("a valid DSN")
    }

    /// A DSN for loopback TCP; the server must listen there.
    pub(crate) fn tcp(&self, more: &str) -> Config {
        format!("host=localhost hostaddr=127.0.0.1 port={} {more}", self.port).parse().expect("a valid DSN")
    }

    /// A superuser's session.
    pub(crate) async fn sql(&self) -> Client {
        connect_sql(&self.dsn("user=postgres dbname=postgres")).await.expect("connected")
    }

    /// Sends a signal to the postmaster.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).expect("running");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGQUIT);
        let _ = self.process.wait();
    }
}

/// Unpacks the archive of the data directory.
pub(crate) fn unpack(archive: &[u8], into: &Path) {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.unpack(into).expect("a tar archive");
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    give_to_server(dir.path());
    dir
}

fn give_all(path: &Path) {
    for entry in walkdir::WalkDir::new(path) {
        give_to_server(entry.expect("readable").path());
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("bound").port()
}
