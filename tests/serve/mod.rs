//! `lifeboat serve`: several environments served by one process, whatever happens to any of them.

mod clock;
mod disk;
mod failover;
mod idle;
mod instances;
mod logs;
mod reload;
mod scheduled;
mod stop;
mod supervision;
mod traces;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

pub(crate) use crate::common::*;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A repository that several environments share, and the services on it.
pub(crate) struct Served {
    pub(crate) scratch: Scratch,
    head: String,
    schedule: String,
    environments: Vec<String>,
}

impl Served {
    /// With a folder as its repository.
    pub(crate) fn new(scratch: &Scratch) -> Self {
        Self::on(scratch, &file_url(&scratch.join("repository")))
    }

    /// With other lines of `[repository]`.
    pub(crate) fn on(scratch: &Scratch, repository: &str) -> Self {
        let key_file = scratch.join("recovery.key").display().to_string();
        let key = Lifeboat::new(scratch.write("none.toml", "")).run(&["--format", "json", "keygen", "-o", &key_file]);
        let recipient = key.ok().json()["recipient"].as_str().expect("a recipient").to_owned();
        let head = format!(
            "[repository]\n{repository}\nretry_for = \"5s\"\n[keys]\nrecipients = [\"{recipient}\"]\n\
             identity = {{ file = \"recovery.key\" }}\nstate_dir = \"STATE\"\n\
             [service]\nlease = \"4s\"\nrefresh_every = \"1s\"\nstop_within = \"10s\"\n"
        );
        // Something stands in place of what is built in, so that only what a test asks for is done.
        let schedule = "[[job]]\nname = \"never\"\nkind = \"configuration\"\ncron = \"0 0 29 2 *\"\n".to_owned();
        Self { scratch: scratch.clone(), head, schedule, environments: Vec::new() }
    }

    /// One more environment.
    pub(crate) fn environment(mut self, name: &str, dsn: &str, more: &str) -> Self {
        self.environments.push(format!(
            "[[environment]]\nname = \"{name}\"\npurpose = \"other\"\nowner = \"test\"\n\
             [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n\
             [environment.postgres]\ndsn = \"{dsn}\"\nslot = \"{}\"\n{more}\n",
            name.replace('-', "_")
        ));
        self
    }

    /// Other jobs; with none, those that are built in.
    pub(crate) fn schedule(mut self, lines: &str) -> Self {
        self.schedule = lines.to_owned();
        self
    }

    /// More lines before the environments.
    pub(crate) fn head(mut self, lines: &str) -> Self {
        self.head.push_str(lines);
        self
    }

    fn text(&self, state: &str) -> String {
        self.head.replace("STATE", state) + &self.schedule + &self.environments.concat()
    }

    /// A host of it, a member of the repository.
    pub(crate) fn host(&self, name: &str) -> Host {
        let config = self.scratch.write(&format!("{name}.toml"), self.text(name));
        let temporary = self.scratch.join(format!("tmp-{name}"));
        fs::create_dir_all(&temporary).expect("a directory");
        let lifeboat = Lifeboat::new(&config).env("TMPDIR", temporary.to_str().expect("UTF-8"));
        lifeboat.run(&["init"]).ok();
        Host { lifeboat, config, name: name.to_owned() }
    }
}

/// A host, on which a service may run.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) lifeboat: Lifeboat,
    pub(crate) config: PathBuf,
    pub(crate) name: String,
}

impl Host {
    /// Starts the service and waits until it answers.
    #[track_caller]
    pub(crate) fn serve(&self) -> Running {
        let mut running = self.lifeboat.spawn(&["serve", "--instance", &self.name]);
        wait_until("the service answers", PATIENCE, || {
            assert!(running.is_running(), "it ended: {}", running.said());
            self.lifeboat.run(&["service", "status"]).code() == Some(0)
        });
        running
    }

    /// What the service says of itself.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.lifeboat.run(&["--format", "json", "service", "status"]).ok().json()["service"].take()
    }

    /// Waits until the service says so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, running: &mut Running, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let until = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < until {
            assert!(running.is_running(), "it ended: {}", running.said());
            last = self.status();
            if holds(&last) {
                return last;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{what}: {last:#}\n{}", running.said());
    }

    /// Has a job run; its run.
    #[track_caller]
    pub(crate) fn ask(&self, kind: &str, environment: &str) -> String {
        let asked = self.lifeboat.run(&["--format", "json", "service", "run", kind, "-e", environment]);
        asked.ok().json()["run"].as_str().expect("a run").to_owned()
    }

    /// The same as soon as this service may.
    #[track_caller]
    pub(crate) fn ask_in_time(&self, kind: &str, environment: &str) -> String {
        let mut run = None;
        wait_until("the job is taken", PATIENCE, || {
            let asked = self.lifeboat.run(&["--format", "json", "service", "run", kind, "-e", environment]);
            run = asked.json()["run"].as_str().map(str::to_owned);
            run.is_some()
        });
        run.expect("it was just there")
    }

    /// Waits until a run has ended; how.
    #[track_caller]
    pub(crate) fn ended(&self, run: &str, running: &mut Running) -> Value {
        let status = self.until("the job ends", running, |status| ended(status, run).is_some());
        ended(&status, run).cloned().expect("it was just there")
    }

    /// Entries about jobs of an environment that say so.
    pub(crate) fn jobs(&self, environment: &str, saying: &str) -> Vec<Value> {
        let entries = self.entries(environment, "job").into_iter();
        entries.filter(|entry| entry["summary"].as_str().is_some_and(|said| said.contains(saying))).collect()
    }

    /// Entries of a kind in the ledger of an environment.
    pub(crate) fn entries(&self, environment: &str, kind: &str) -> Vec<Value> {
        let shown = self.lifeboat.run(&["--format", "json", "evidence", "show", "-e", environment]).ok().json();
        let entries = shown["entries"].as_array().cloned().unwrap_or_default();
        entries.into_iter().filter(|entry| entry["kind"] == kind).collect()
    }
}

/// The run among those that ended.
pub(crate) fn ended<'a>(status: &'a Value, run: &str) -> Option<&'a Value> {
    status["recent_jobs"].as_array()?.iter().find(|job| job["run"] == run)
}

/// A worker of an environment.
pub(crate) fn worker<'a>(status: &'a Value, environment: &str, kind: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    let environments = status["environments"].as_array().into_iter().flatten();
    let mut workers =
        environments.filter(|e| e["name"] == environment).flat_map(|e| e["workers"].as_array().into_iter().flatten());
    workers.find(|worker| worker["kind"] == kind).unwrap_or(&NONE)
}

/// Whether everything that PostgreSQL has flushed is durable in the repository.
pub(crate) fn received(cluster: &Cluster, slot: &str) -> bool {
    let question = format!(
        "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid \
         WHERE s.slot_name = '{slot}' AND r.flush_lsn >= pg_current_wal_flush_lsn() - 1024 * 1024"
    );
    cluster.psql("postgres", &question) != "0"
}
