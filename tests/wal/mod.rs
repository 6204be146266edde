//! WAL on its way: received, pushed, fetched, and what happens when something on that way breaks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::{
    Cluster, FlakyProxy, Journal, Lifeboat, Moto, Running, Scratch, own, pgbench_init, pgbench_run, skip, tool,
    wait_until,
};

mod archive;
mod base;
mod blocks;
mod histories;
mod receive;
mod receivewal;

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
        let names = files.filter(|f| f.file_type().is_file()).map(|f| f.file_name().to_string_lossy().into_owned());
        // What a killed process was writing stands beside as `name#1`; the store does not show it.
        names.filter(|name| !name.contains('#')).collect()
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

impl Estate {
    /// Every complete segment from the first archived one on is there, up to `end`, as PostgreSQL wrote it;
    /// so is the part of the segment being written.
    #[track_caller]
    fn assert_holds(&self, cluster: &Cluster, first: &str, end: &str) {
        let size = cluster.psql("postgres", "SELECT pg_size_bytes(current_setting('wal_segment_size'))");
        let (size, end) = (size.parse::<u64>().expect("a number"), lsn(end));
        let (timeline, per_log) = (&first[..8], (1 << 32) / size);
        let number = |name: &str| {
            let part = |range| u64::from_str_radix(&name[range], 16).expect("hex");
            part(8..16) * per_log + part(16..24)
        };
        let last = (end - 1) / size;
        let mut checked = 0;
        for segment in number(first)..=last {
            let name = format!("{timeline}{:08X}{:08X}", segment / per_log, segment % per_log);
            let original = fs::read(cluster.data_dir().join("pg_wal").join(&name)).expect("kept by wal_keep_size");
            let fetched = self.fetched(&name);
            assert_eq!(fetched.len(), original.len(), "{name}");
            let length = if segment == last { (end - 1) % size + 1 } else { size } as usize;
            assert!(fetched[..length] == original[..length], "{name} differs");
            checked += 1;
        }
        assert!(checked > 0, "{first} lies behind");
    }

    fn cluster_with_slot(scratch: &Scratch, segment_mib: u32) -> (Cluster, String) {
        let builder =
            Cluster::builder(scratch).wal_segment_mib(segment_mib).config("max_wal_size = 4GB\nwal_keep_size = 2GB");
        let cluster = builder.start();
        cluster.psql("postgres", "SELECT pg_create_physical_replication_slot('lifeboat', true)");
        let first = cluster.psql("postgres", "SELECT pg_walfile_name(restart_lsn + 1) FROM pg_replication_slots");
        (cluster, first)
    }
}

/// What PostgreSQL was told to be safe.
fn flushed(cluster: &Cluster) -> Option<String> {
    let sql = "SELECT flush_lsn FROM pg_stat_replication WHERE application_name = 'lifeboat' AND flush_lsn IS NOT NULL";
    Some(cluster.psql("postgres", sql)).filter(|text| !text.is_empty())
}

#[track_caller]
fn wait_flushed(cluster: &Cluster, at_least: &str) {
    wait_until(&format!("{at_least} is durable"), PATIENCE, || {
        flushed(cluster).is_some_and(|f| lsn(&f) >= lsn(at_least))
    });
}

fn flushed_by_slot(cluster: &Cluster) -> String {
    cluster.psql("postgres", "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'lifeboat'")
}

/// Restores the latest point into a new cluster.
fn restore(estate: &Estate, cluster: &Cluster, name: &str) -> Cluster {
    let home = estate.scratch.server_dir(name);
    let data = home.join("data");
    let data_text = data.to_str().expect("UTF-8");
    estate.lifeboat.run(&["restore", "-e", "production", "--to", "latest", "--pgdata", data_text]).ok();
    let auto = data.join("postgresql.auto.conf");
    let text = fs::read_to_string(&auto).unwrap_or_default();
    fs::write(&auto, format!("{text}\nunix_socket_directories = '{}'\n", home.display())).expect("own file");
    own(&data);
    Cluster::adopt(&estate.scratch, &data, cluster.major())
}
