//! PostgreSQL clusters of any major version, on a Unix socket and, where asked, on loopback.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::process::{alive, children_of, end};
use super::scratch::{Scratch, as_server, free_port, own, run};
use super::wait::{blocking, wait_until};

/// Password of the superuser over TCP.
const PASSWORD: &str = "lifeboat test";
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the server of a major version is, if this machine has it.
pub(crate) fn server_bin(major: u32) -> Option<PathBuf> {
    let told = std::env::var_os(format!("LIFEBOAT_TEST_PG_{major}")).map(PathBuf::from);
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    told.into_iter().chain([debian]).find(|bin| bin.join("initdb").exists())
}

/// The major versions that this machine has.
pub(crate) fn majors() -> Vec<u32> {
    (13..=18).filter(|major| server_bin(*major).is_some()).collect()
}

/// A tool of PostgreSQL (`pg_restore`, `pgbench`, …) that works with a server of `major`: of the same
/// version or of the next newer one.
pub(crate) fn tool(major: u32, name: &str) -> Option<PathBuf> {
    (major..=18).filter_map(server_bin).map(|bin| bin.join(name)).find(|path| path.exists())
}

/// The newest version with all tools: what a test uses that asks for none.
fn default_major() -> u32 {
    let complete = |major: &u32| server_bin(*major).is_some_and(|bin| bin.join("pg_basebackup").exists());
    (13..=18).rev().find(complete).expect("PostgreSQL's server and tools in /usr/lib/postgresql (see deploy/test.sh)")
}

/// What a cluster shall be like; see [`Cluster::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub(crate) struct ClusterBuilder {
    scratch: Scratch,
    name: String,
    major: u32,
    bin: PathBuf,
    wal_segment_mib: u32,
    checksums: bool,
    tcp: bool,
    config: String,
    tablespaces: Vec<String>,
}

impl ClusterBuilder {
    /// Another name of its directory (`pg`): needed for a second cluster in the same scratch directory.
    pub(crate) fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// A certain version; panics when this machine lacks it (ask [`server_bin`] or [`majors`] first).
    pub(crate) fn major(mut self, major: u32) -> Self {
        self.major = major;
        self.bin = server_bin(major).unwrap_or_else(|| panic!("no PostgreSQL {major} on this machine"));
        self
    }

    pub(crate) fn wal_segment_mib(mut self, mib: u32) -> Self {
        self.wal_segment_mib = mib;
        self
    }

    pub(crate) fn no_checksums(mut self) -> Self {
        self.checksums = false;
        self
    }

    /// Listens on loopback too, with a password (SCRAM).
    pub(crate) fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// More lines of `postgresql.conf`.
    pub(crate) fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// Creates a tablespace, in a directory of its own beside the cluster.
    pub(crate) fn tablespace(mut self, name: &str) -> Self {
        self.tablespaces.push(name.to_owned());
        self
    }

    /// Makes the cluster and starts it.
    pub(crate) fn start(self) -> Cluster {
        let home = self.scratch.server_dir(&self.name);
        let data = home.join("data");
        let mut initdb = as_server(&self.bin.join("initdb"));
        initdb.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        initdb.arg(format!("--wal-segsize={}", self.wal_segment_mib));
        match (self.checksums, self.major) {
            (true, _) => initdb.arg("--data-checksums"),
            (false, 18..) => initdb.arg("--no-data-checksums"),
            (false, _) => &mut initdb,
        };
        run(&mut initdb);
        let conf = format!(
            "unix_socket_directories = '{}'\nfsync = off\nshared_buffers = 32MB\nmax_connections = 50\n\
             wal_level = replica\nmax_wal_senders = 10\nmax_replication_slots = 10\nlog_line_prefix = '%m [%p] '\n\
             timezone = 'UTC'\n{}",
            home.display(),
            self.config
        );
        append(&data.join("postgresql.conf"), &conf);
        if self.tcp {
            let rules = "local all all trust\nlocal replication all trust\n\
                         host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n";
            fs::write(data.join("pg_hba.conf"), rules).expect("a file in the data directory");
            append(&data.join("postgresql.conf"), "password_encryption = 'scram-sha-256'\n");
        }
        let mut cluster = Cluster {
            scratch: self.scratch,
            home,
            data,
            bin: self.bin,
            major: self.major,
            tcp: self.tcp,
            port: if self.tcp { free_port() } else { 5432 },
            server: None,
        };
        cluster.start();
        if cluster.tcp {
            cluster.psql("postgres", &format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"));
        }
        for name in &self.tablespaces {
            let path = cluster.home.join(format!("tablespace-{name}"));
            fs::create_dir(&path).expect("a new directory");
            own(&path);
            cluster.psql("postgres", &format!("CREATE TABLESPACE {name} LOCATION '{}'", path.display()));
        }
        cluster
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).expect("a file of the data directory");
    file.write_all(text.as_bytes()).expect("room on the disk");
}

/// A running (or stopped) cluster; its server ends with the value.
#[derive(Debug)]
pub(crate) struct Cluster {
    scratch: Scratch,
    home: PathBuf,
    data: PathBuf,
    bin: PathBuf,
    major: u32,
    tcp: bool,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// A cluster in `scratch`: this machine's own PostgreSQL, with data checksums, on a Unix socket only.
    pub(crate) fn builder(scratch: &Scratch) -> ClusterBuilder {
        let major = default_major();
        ClusterBuilder {
            scratch: scratch.clone(),
            name: "pg".to_owned(),
            major,
            bin: server_bin(major).expect("the default version is there"),
            wal_segment_mib: 16,
            checksums: true,
            tcp: false,
            config: String::new(),
            tablespaces: Vec::new(),
        }
    }

    /// Takes charge of a data directory that something else made (a restore) and starts it.
    pub(crate) fn adopt(scratch: &Scratch, data: &Path, major: u32) -> Self {
        let home = data.parent().expect("a data directory has a parent").to_owned();
        let bin = server_bin(major).unwrap_or_else(|| panic!("no PostgreSQL {major} on this machine"));
        let mut cluster = Self {
            scratch: scratch.clone(),
            home,
            data: data.to_owned(),
            bin,
            major,
            tcp: false,
            port: 5432,
            server: None,
        };
        cluster.start();
        cluster
    }

    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data
    }

    pub(crate) fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// The directory of the Unix socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        &self.home
    }

    /// How to connect as superuser, over the Unix socket.
    pub(crate) fn dsn(&self) -> String {
        self.dsn_for("postgres", "postgres")
    }

    /// How to connect to `database` as `user`, over the Unix socket.
    pub(crate) fn dsn_for(&self, database: &str, user: &str) -> String {
        format!("host={} port={} user={user} dbname={database}", self.home.display(), self.port)
    }

    /// How to connect as superuser over loopback; the password is [`Cluster::password`].
    pub(crate) fn tcp_dsn(&self) -> String {
        assert!(self.tcp, "this cluster was built without tcp()");
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }

    pub(crate) fn password(&self) -> &'static str {
        PASSWORD
    }

    /// What the server logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// A connection for asynchronous tests.
    pub(crate) async fn connect(&self, database: &str) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.dsn_for(database, "postgres"), NoTls).await.expect("a connection");
        tokio::spawn(connection);
        client
    }

    /// Runs SQL and gives the rows as `psql -At` prints them; an error of the server is the error.
    pub(crate) fn try_psql(&self, database: &str, sql: &str) -> Result<String, tokio_postgres::Error> {
        let dsn = self.dsn_for(database, "postgres");
        blocking(async {
            let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await?;
            let connection = tokio::spawn(connection);
            let messages = client.simple_query(sql).await;
            drop(client);
            let _ = connection.await;
            let rows = messages?.into_iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|i| row.get(i).unwrap_or_default()).collect::<Vec<_>>().join("|"))
                }
                _ => None,
            });
            Ok(rows.collect::<Vec<_>>().join("\n"))
        })
    }

    /// [`Cluster::try_psql`], which must succeed.
    #[track_caller]
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|error| {
            let told = error.as_db_error().map_or_else(|| error.to_string(), |e| e.to_string());
            panic!("{told}\nin {database}: {sql}")
        })
    }

    /// Starts the stopped server and waits until it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.server.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.home.join("log")).expect("a log file");
        let mut command = as_server(&self.bin.join("postgres"));
        command.arg("-D").arg(&self.data).arg("-p").arg(self.port.to_string());
        command
            .arg("-k")
            .arg(&self.home)
            .arg("-c")
            .arg(format!("listen_addresses={}", if self.tcp { "127.0.0.1" } else { "" }));
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let mut server = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let started = std::cell::RefCell::new(None);
        wait_until("PostgreSQL answers", PATIENCE, || {
            if self.try_psql("postgres", "SELECT 1").is_ok() {
                return true;
            }
            *started.borrow_mut() = server.try_wait().expect("a child");
            started.borrow().is_some()
        });
        if let Some(status) = started.into_inner() {
            panic!("PostgreSQL stopped with {status}:\n{}", self.log());
        }
        self.server = Some(server);
    }

    /// Stops the server as its service manager would (fast shutdown); nothing happens when it is stopped.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            let status = end(server, Signal::SIGINT);
            assert!(status.success(), "PostgreSQL stopped with {status}:\n{}", self.log());
        }
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// The machine dies: SIGKILL to the postmaster; returns when none of its processes is left.
    pub(crate) fn kill9(&mut self) {
        let Some(server) = self.server.take() else { return };
        let children = children_of(server.id());
        end(server, Signal::SIGKILL);
        wait_until("the server's processes end after their postmaster", PATIENCE, || {
            !children.iter().any(|pid| alive(*pid))
        });
    }

    /// Process id of the postmaster.
    pub(crate) fn pid(&self) -> u32 {
        self.server.as_ref().expect("a running server").id()
    }

    /// A running standby made by `pg_basebackup`; `None` where this machine has no `pg_basebackup` for it.
    pub(crate) fn standby(&self, name: &str) -> Option<Self> {
        let pg_basebackup = tool(self.major, "pg_basebackup")?;
        let home = self.scratch.server_dir(name);
        let data = home.join("data");
        let mut command = as_server(&pg_basebackup);
        command.arg("-D").arg(&data).args(["-X", "stream", "-c", "fast", "-R", "--no-sync", "-d", &self.dsn()]);
        for location in self
            .psql("postgres", "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname !~ '^pg_'")
            .lines()
        {
            let base = Path::new(location).file_name().expect("a directory has a name");
            command.arg("-T").arg(format!("{location}={}", home.join(base).display()));
        }
        run(&mut command);
        append(&data.join("postgresql.conf"), &format!("unix_socket_directories = '{}'\n", home.display()));
        let mut standby = Self {
            scratch: self.scratch.clone(),
            home,
            data,
            bin: self.bin.clone(),
            major: self.major,
            tcp: false,
            port: 5432,
            server: None,
        };
        standby.start();
        Some(standby)
    }

    /// Makes the standby a primary on a new timeline.
    pub(crate) fn promote(&self) {
        assert_eq!(self.psql("postgres", "SELECT pg_promote(true, 60)"), "t");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            if std::thread::panicking() {
                let log = self.log();
                let from = log.len().saturating_sub(2000);
                eprintln!("the server's log ends with:\n{}", String::from_utf8_lossy(&log.as_bytes()[from..]));
            }
            let children = children_of(server.id());
            end(server, Signal::SIGQUIT);
            wait_until("the server's processes end", PATIENCE, || !children.iter().any(|pid| alive(*pid)));
        }
    }
}

/// A finished command of PostgreSQL's tools as the servers' account.
#[track_caller]
pub(super) fn run_tool(program: &Path, args: &[&str]) -> String {
    let mut command: Command = as_server(program);
    run(command.args(args))
}
