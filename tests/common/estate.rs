//! An estate under test: a configuration, a repository, one environment `production`, and the commands
//! that most tests run on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster::Cluster;
use super::lifeboat::{Lifeboat, Output, Running};
use super::scratch::Scratch;
use super::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// What an estate shall be like; see [`Estate::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub(crate) struct EstateBuilder {
    scratch: Scratch,
    include: String,
    repository: String,
    retry_for: String,
    dsn: String,
    postgres: String,
    tables: String,
}

impl EstateBuilder {
    /// Includes files that match a pattern.
    pub(crate) fn include(mut self, pattern: &str) -> Self {
        self.include = format!("include = [\"{pattern}\"]\n");
        self
    }

    /// Other lines of `[repository]` than a folder in the scratch directory.
    pub(crate) fn repository(mut self, lines: &str) -> Self {
        self.repository = lines.to_owned();
        self
    }

    pub(crate) fn retry_for(mut self, span: &str) -> Self {
        self.retry_for = span.to_owned();
        self
    }

    pub(crate) fn dsn(mut self, dsn: &str) -> Self {
        self.dsn = dsn.to_owned();
        self
    }

    /// More lines of `[environment.postgres]`.
    pub(crate) fn postgres(mut self, lines: &str) -> Self {
        self.postgres.push_str(lines);
        self.postgres.push('\n');
        self
    }

    /// More tables of the environment (`[[environment.odoo]]`, …), or of the file.
    pub(crate) fn tables(mut self, lines: &str) -> Self {
        self.tables.push_str(lines);
        self.tables.push('\n');
        self
    }

    /// Writes the configuration and a recovery key and makes the repository.
    pub(crate) fn init(self) -> Estate {
        let scratch = self.scratch;
        let key_file = scratch.join("recovery.key").display().to_string();
        let key = Lifeboat::new(scratch.write("none.toml", "")).run(&["--format", "json", "keygen", "-o", &key_file]);
        let recipient = key.ok().json()["recipient"].as_str().expect("a recipient").to_owned();
        let estate = format!(
            "{}[repository]\n{}\nretry_for = \"{}\"\n[keys]\nrecipients = [\"{recipient}\"]\nIDENTITY\nstate_dir = \"state\"\n",
            self.include, self.repository, self.retry_for
        );
        let environment = format!(
            "[[environment]]\nname = \"production\"\npurpose = \"production\"\nowner = \"test\"\n\
             [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n\
             [environment.postgres]\ndsn = \"{}\"\nheartbeat = \"1s\"\n{}{}",
            self.dsn, self.postgres, self.tables
        );
        let config = estate + &environment;
        let with_key = config.replace("IDENTITY", "identity = { file = \"recovery.key\" }");
        // What killed commands leave behind goes with the scratch directory.
        let temporary = scratch.join("tmp");
        fs::create_dir(&temporary).expect("a new directory");
        let program = |path: PathBuf| Lifeboat::new(path).env("TMPDIR", temporary.to_str().expect("UTF-8"));
        let lifeboat = program(scratch.write("lifeboat.toml", with_key));
        let backup_host = program(scratch.write("backup-host.toml", config.replace("IDENTITY", "")));
        lifeboat.run(&["init"]).ok();
        Estate { scratch, lifeboat, backup_host }
    }
}

/// A repository and the program with a configuration for it.
#[derive(Debug, Clone)]
pub(crate) struct Estate {
    pub(crate) scratch: Scratch,
    /// With the recovery key.
    pub(crate) lifeboat: Lifeboat,
    /// With the keys of a host that only backs up.
    pub(crate) backup_host: Lifeboat,
}

impl Estate {
    /// An estate with `cluster` and a repository in a folder of `scratch`.
    pub(crate) fn builder(scratch: &Scratch, cluster: &Cluster) -> EstateBuilder {
        EstateBuilder {
            scratch: scratch.clone(),
            include: String::new(),
            repository: format!("url = \"file://{}\"", scratch.join("repository").display()),
            retry_for: "30s".to_owned(),
            dsn: cluster.dsn(),
            postgres: format!("bin_dir = \"{}\"\n", cluster.bin_dir().display()),
            tables: String::new(),
        }
    }

    /// The same on `s3://` at an endpoint; the bucket must exist.
    pub(crate) fn s3(bucket: &str, endpoint: &str) -> String {
        format!("url = \"s3://{bucket}/estate\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"")
    }

    /// Changes the configuration (both files).
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        for name in ["lifeboat.toml", "backup-host.toml"] {
            let path = self.scratch.join(name);
            let text = fs::read_to_string(&path).expect("a configuration");
            assert!(text.contains(from), "{from} is not in {text}");
            fs::write(&path, text.replace(from, to)).expect("a file");
        }
    }

    /// Starts `wal receive` and waits until PostgreSQL streams to it.
    pub(crate) fn receive(&self, cluster: &Cluster) -> Running {
        let mut running = self.lifeboat.spawn(&["wal", "receive", "-e", "production"]);
        wait_until("the receiver streams", PATIENCE, || {
            assert!(running.is_running(), "the receiver ended: {}", running.said());
            cluster.psql(
                "postgres",
                "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = 'lifeboat'",
            ) != "0"
        });
        running
    }

    /// Waits until everything that PostgreSQL has flushed is durable in the repository.
    pub(crate) fn caught_up(&self, cluster: &Cluster) {
        let now = cluster.psql("postgres", "SELECT pg_current_wal_insert_lsn()");
        let question = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'lifeboat' AND flush_lsn >= '{now}'"
        );
        wait_until("the receiver has caught up", PATIENCE, || cluster.psql("postgres", &question) != "0");
    }

    /// Runs a command on the environment; `--format json`.
    pub(crate) fn run(&self, command: &[&str]) -> Output {
        self.lifeboat.run(&Self::arguments(command))
    }

    /// Starts a command on the environment.
    pub(crate) fn spawn(&self, command: &[&str]) -> Running {
        self.lifeboat.spawn(&Self::arguments(command))
    }

    fn arguments<'a>(command: &[&'a str]) -> Vec<&'a str> {
        [&["--format", "json"], command, &["-e", "production"]].concat()
    }

    /// Takes a base backup; its id.
    pub(crate) fn backup(&self) -> String {
        let json = self.run(&["backup", "base"]).ok().json();
        json["base_backup"]["id"].as_str().expect("an id").to_owned()
    }

    /// Where a restore called `name` goes: a data directory in a directory of the servers' account.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        let home = self.scratch.join(name);
        if !home.exists() {
            self.scratch.server_dir(name);
        }
        home.join("data")
    }

    /// Runs a restore to `target`.
    pub(crate) fn restore(&self, target: &str, place: &Path, more: &[&str]) -> Output {
        let place = place.to_str().expect("UTF-8");
        self.run(&[&["restore", "--to", target, "--pgdata", place], more].concat())
    }

    /// The plan for `target`, or the refusal.
    pub(crate) fn plan(&self, target: &str) -> Output {
        self.restore(target, &self.scratch.join("planned"), &["--plan"])
    }

    /// Restores and starts the copy.
    #[track_caller]
    pub(crate) fn restored(&self, target: &str, name: &str, cluster: &Cluster) -> Cluster {
        let place = self.place(name);
        self.restore(target, &place, &[]).ok();
        Cluster::adopt(&self.scratch, &place, cluster.major())
    }

    /// A folder of the environment in a `file://` repository.
    pub(crate) fn stored(&self, prefix: &str) -> PathBuf {
        self.scratch.join("repository/production").join(prefix)
    }

    /// The files below such a folder, sorted.
    pub(crate) fn objects(&self, prefix: &str) -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(self.stored(prefix)).sort_by_file_name().into_iter().filter_map(Result::ok);
        files.filter(|f| f.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
    }
}

/// A `file://` URL of a path.
pub(crate) fn file_url(path: &Path) -> String {
    format!("url = \"file://{}\"", path.display())
}
