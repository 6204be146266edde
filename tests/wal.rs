//! WAL on its way: received, pushed, fetched, and what happens when something on that way breaks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::{
    Cluster, FlakyProxy, Journal, Lifeboat, Moto, Running, Scratch, own, pgbench_init, pgbench_run, server_account,
    skip, tool, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// An estate whose repository holds one environment, `production`.
struct Estate {
    scratch: Scratch,
    lifeboat: Lifeboat,
}

impl Estate {
    /// With a repository in a folder.
    fn in_folder(scratch: &Scratch, cluster: &Cluster) -> Self {
        Self::with(scratch, &format!("url = \"file://{}\"", scratch.join("repository").display()), &cluster.dsn())
    }

    fn with(scratch: &Scratch, repository: &str, dsn: &str) -> Self {
        let bare = Lifeboat::new(scratch.write("none.toml", ""));
        let key =
            bare.run(&["--format", "json", "keygen", "-o", &scratch.join("recovery.key").display().to_string()]).ok();
        let recipient = key.json()["recipient"].as_str().expect("a recipient").to_owned();
        let config = format!(
            "[repository]\n{repository}\nretry_for = \"3s\"\n[keys]\nrecipients = [\"{recipient}\"]\n\
             identity = {{ file = \"recovery.key\" }}\nstate_dir = \"state\"\n\
             [[environment]]\nname = \"production\"\npurpose = \"production\"\nowner = \"test\"\n\
             [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n\
             [environment.postgres]\ndsn = \"{dsn}\"\nslot = \"lifeboat\"\nheartbeat = \"1s\"\n",
        );
        let lifeboat = Lifeboat::new(scratch.write("lifeboat.toml", config));
        let estate = Self { scratch: scratch.clone(), lifeboat };
        fs::create_dir_all(scratch.join("repository")).expect("a folder");
        estate.lifeboat.run(&["init"]).ok();
        estate
    }

    fn receive(&self) -> Running {
        self.lifeboat.spawn(&["wal", "receive", "-e", "production"])
    }

    fn receive_until(&self, lsn: &str) -> serde_json::Value {
        let arguments = ["--format", "json", "wal", "receive", "-e", "production", "--until-lsn", lsn];
        self.lifeboat.run(&arguments).ok().json()
    }

    /// Exit code of `wal fetch` and the path that it was to write.
    fn fetch(&self, name: &str) -> (i32, PathBuf) {
        let to = self.scratch.join(format!("fetched-{name}"));
        let code = self.lifeboat.run(&["wal", "fetch", "-e", "production", name, to.to_str().expect("UTF-8")]);
        (code.code().expect("an exit code"), to)
    }

    #[track_caller]
    fn fetched(&self, name: &str) -> Vec<u8> {
        let (code, path) = self.fetch(name);
        assert_eq!(code, 0, "{name}");
        fs::read(path).expect("a file")
    }

    fn push(&self, path: &Path) -> crate::common::Output {
        self.lifeboat.run(&["wal", "push", "-e", "production", path.to_str().expect("UTF-8")])
    }

    /// Files below a folder of the repository, by name.
    fn stored(&self, prefix: &str) -> Vec<String> {
        let folder = self.scratch.join("repository/production").join(prefix);
        let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_map(Result::ok);
        files.filter(|f| f.file_type().is_file()).map(|f| f.file_name().to_string_lossy().into_owned()).collect()
    }
}

fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').expect("an LSN");
    u64::from_str_radix(high, 16).expect("hex") << 32 | u64::from_str_radix(low, 16).expect("hex")
}

fn switch(cluster: &Cluster) {
    cluster.psql("postgres", "SELECT pg_logical_emit_message(true, 'test', 'x'), pg_switch_wal()");
}

fn current(cluster: &Cluster) -> String {
    cluster.psql("postgres", "SELECT pg_current_wal_flush_lsn()")
}

#[test]
fn what_is_received_is_what_postgresql_wrote() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).config("wal_keep_size = 1GB").start();
    let estate = Estate::in_folder(&scratch, &cluster);
    cluster.psql("postgres", "SELECT pg_create_physical_replication_slot('lifeboat', true)");
    let begin = cluster.psql("postgres", "SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots");
    assert!(pgbench_init(&cluster, "postgres", 2), "pgbench");
    switch(&cluster);
    cluster.psql("postgres", "INSERT INTO pgbench_history (tid) VALUES (1)");
    let end = current(&cluster);
    let received = estate.receive_until(&end);
    assert_eq!(received["received"]["reached"], true);
    assert!(received["received"]["segments"].as_u64() > Some(1), "{received}");
    assert!(estate.stored("wal/00000001").contains(&begin));
    for name in estate.stored("wal/00000001") {
        let original = fs::read(cluster.data_dir().join("pg_wal").join(&name)).expect("kept");
        assert!(estate.fetched(&name) == original, "{name} differs");
    }
    // The segment being written: its pieces, padded.
    let live = cluster.psql("postgres", &format!("SELECT pg_walfile_name('{end}')"));
    let piece = estate.fetched(&live);
    let written = (lsn(&end) % (16 << 20)) as usize;
    let original = fs::read(cluster.data_dir().join("pg_wal").join(&live)).expect("there");
    assert_eq!(piece.len(), 16 << 20);
    assert!(piece[..written] == original[..written], "{live} differs");
}
