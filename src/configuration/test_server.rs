//! A real PostgreSQL for tests, in a temporary directory, on a Unix socket only; ended by its own
//! process id when dropped.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::{Client, Config, NoTls};

use crate::error::{self, Result};

/// A running server. `etc()` holds its configuration, outside PGDATA as on Debian.
#[derive(Debug)]
pub(crate) struct TestServer {
    dir: tempfile::TempDir,
    bin: PathBuf,
}

impl TestServer {
    /// Starts the server of the PostgreSQL that is installed; `None`, with a word, where there is none.
    pub(crate) fn start() -> Option<Self> {
        let majors = (13..=18).rev().map(|m| PathBuf::from(format!("/usr/lib/postgresql/{m}/bin")));
        let Some(bin) = majors.into_iter().find(|b| b.join("initdb").exists()) else {
            eprintln!("skipped: no PostgreSQL server below /usr/lib/postgresql");
            return None;
        };
        Some(Self::start_with(&bin))
    }

    /// Starts the server of one installation.
    pub(crate) fn start_with(bin: &Path) -> Self {
        let server = Self { dir: tempfile::tempdir().expect("temp dir"), bin: bin.to_owned() };
        if let Some((uid, gid)) = account() {
            std::os::unix::fs::chown(server.dir.path(), Some(uid), Some(gid)).expect("chown");
        }
        server.run("initdb", &["-D", &server.text("data"), "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8"]);
        std::fs::create_dir_all(server.etc().join("conf.d")).expect("etc");
        for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
            let from = server.dir.path().join("data").join(file);
            std::fs::copy(&from, server.etc().join(file)).expect("copy");
            std::fs::remove_file(from).expect("remove");
        }
        let mut conf = std::fs::read_to_string(server.etc().join("postgresql.conf")).expect("read");
        for (key, path) in
            [("data_directory", "data"), ("hba_file", "etc/pg_hba.conf"), ("ident_file", "etc/pg_ident.conf")]
        {
            conf.push_str(&format!("{key} = '{}'\n", server.text(path)));
        }
        conf.push_str(&format!(
            "listen_addresses = ''\nfsync = off\nunix_socket_directories = '{}'\n",
            server.text("")
        ));
        conf.push_str("include_dir = 'conf.d'\ninclude_if_exists 'absent.conf'\n");
        std::fs::write(server.etc().join("postgresql.conf"), conf).expect("write");
        std::fs::write(server.etc().join("conf.d/10-odoo.conf"), "work_mem = 8MB\n").expect("write");
        std::fs::write(server.etc().join("conf.d/20-empty.conf"), "# nothing is set here\n").expect("write");
        let hba = "local all +by_password scram-sha-256\nlocal all all trust\n";
        std::fs::write(server.etc().join("pg_hba.conf"), hba).expect("write");
        server.own("etc");
        let options = format!("-c config_file={}", server.text("etc/postgresql.conf"));
        server.run("pg_ctl", &["-D", &server.text("data"), "-o", &options, "-l", &server.text("log"), "-w", "start"]);
        server
    }

    /// The directory of its configuration files.
    pub(crate) fn etc(&self) -> PathBuf {
        self.dir.path().join("etc")
    }

    pub(crate) fn bin(&self) -> &Path {
        &self.bin
    }

    /// How to connect as `user`.
    pub(crate) fn dsn(&self, user: &str, database: &str) -> Config {
        let mut dsn = Config::new();
        dsn.host_path(self.dir.path()).user(user).dbname(database);
        dsn
    }

    pub(crate) async fn client(&self, database: &str) -> Client {
        connect(self.dsn("postgres", database)).await.expect("connects")
    }

    /// Runs one of PostgreSQL's programs as the server's account.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(self.bin.join(program));
        command.args(arguments).current_dir("/").stdin(std::process::Stdio::null());
        // `pg_ctl start` leaves the server behind with its output: a pipe would never end.
        let output = std::fs::File::create(self.dir.path().join("output")).expect("output");
        command.stdout(output.try_clone().expect("clone")).stderr(output);
        command.env("PGHOST", self.dir.path()).env("PGUSER", "postgres");
        if let Some((uid, gid)) = account() {
            command.uid(uid).gid(gid);
        }
        let status = command.status().expect("program runs");
        let said = || std::fs::read_to_string(self.dir.path().join("output")).unwrap_or_default();
        assert!(status.success(), "{program}: {status}: {}", said());
    }

    /// Loads the fixture into database `retail`; `false`, with a word, where it is absent.
    pub(crate) fn load_fixture(&self) -> bool {
        let Some(dump) = fixture("db.dump") else { return false };
        self.run("createdb", &["retail"]);
        self.run("pg_restore", &["--no-owner", "-d", "retail", &dump.to_string_lossy()]);
        true
    }

    fn text(&self, below: &str) -> String {
        self.dir.path().join(below).to_string_lossy().trim_end_matches('/').to_owned()
    }

    fn own(&self, below: &str) {
        let Some((uid, gid)) = account() else { return };
        for entry in walkdir::WalkDir::new(self.text(below)) {
            std::os::unix::fs::chown(entry.expect("entry").path(), Some(uid), Some(gid)).expect("chown");
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.dir.path().join("data/postmaster.pid").exists() {
            self.run("pg_ctl", &["-D", &self.text("data"), "-m", "immediate", "-w", "stop"]);
        }
    }
}

/// A file of the fixture beside the project, or `None` with a word.
pub(crate) fn fixture(file: &str) -> Option<PathBuf> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = above.map(|a| a.join("shared/fixtures/odoo19-retail").join(file)).find(|p| p.exists());
    if found.is_none() {
        eprintln!("skipped: the fixture {file} is not there");
    }
    found
}

/// The unprivileged account for servers when the tests run as root.
fn account() -> Option<(u32, u32)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let user = nix::unistd::User::from_name("postgres").expect("readable").expect("account postgres");
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// Connects and drives the connection.
pub(crate) fn connect(dsn: Config) -> BoxFuture<'static, Result<Client>> {
    async move {
        let (client, connection) = dsn.connect(NoTls).await.map_err(|e| error::source("cannot connect").source(e))?;
        tokio::spawn(connection);
        Ok(client)
    }
    .boxed()
}
