//! Lines of history: standbys and failovers, timelines and where they part, servers that no longer belong
//! to the history that is archived, commits that wait for the repository, and WAL that is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{Cluster, ClusterBuilder, Estate, Output, Running, Scratch, own, wait_until};

mod failover;
mod foreign;
mod gaps;
mod standby;
mod synchronous;
mod timelines;

const PATIENCE: Duration = Duration::from_secs(60);

/// Small segments and few of them kept, unless a test says otherwise.
fn cluster(scratch: &Scratch) -> ClusterBuilder {
    Cluster::builder(scratch).wal_segment_mib(1).config("min_wal_size = 2MB\nmax_wal_size = 4MB")
}

fn switch(cluster: &Cluster) {
    cluster.psql("postgres", "SELECT pg_logical_emit_message(true, 'test', 'x'), pg_switch_wal()");
}

fn current(cluster: &Cluster) -> String {
    cluster.psql("postgres", "SELECT pg_current_wal_flush_lsn()")
}

/// Now, by the server's clock, as a target; no commit has this time or one close to it.
fn now(cluster: &Cluster) -> String {
    cluster.psql(
        "postgres",
        "SELECT pg_sleep(0.02); SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'); \
         SELECT pg_sleep(0.02)",
    )
    .trim()
    .to_owned()
}

/// Waits until the standby has replayed what the primary has flushed.
fn replicated(primary: &Cluster, standby: &Cluster) {
    let question = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", current(primary));
    wait_until("the standby has all", PATIENCE, || standby.psql("postgres", &question) == "t");
}

/// Receives until everything that the server has flushed is durable; what the command says.
#[track_caller]
fn receive_all(estate: &Estate, cluster: &Cluster) -> serde_json::Value {
    estate.run(&["wal", "receive", "--until-lsn", &current(cluster)]).ok().json()
}

/// The rows of `t` in a restore to `target`.
#[track_caller]
fn restored_rows(estate: &Estate, target: &str, more: &[&str], name: &str, cluster: &Cluster) -> String {
    let place = estate.place(name);
    estate.restore(target, &place, more).ok();
    let copy = Cluster::adopt(&estate.scratch, &place, cluster.major());
    copy.psql("postgres", "SELECT string_agg(i::text, ',' ORDER BY i) FROM t")
}

/// Message, meaning and hints of a failure.
#[track_caller]
fn told(output: Output, code: i32) -> String {
    output.expect_code(code).json()["error"].to_string()
}

/// A copy of a stopped cluster's directory, started beside it: the same system identifier.
fn clone_of(stopped: &Cluster, scratch: &Scratch, name: &str) -> Cluster {
    let copy = scratch.server_dir(name).join("data");
    let copied = Command::new("cp").arg("-a").arg(stopped.data_dir()).arg(&copy).status().expect("cp");
    assert!(copied.success());
    own(&copy);
    let conf = copy.join("postgresql.conf");
    let text = fs::read_to_string(&conf).expect("a configuration");
    let own = format!("{text}\nunix_socket_directories = '{}'\n", scratch.join(name).display());
    fs::write(&conf, own).expect("a file");
    Cluster::adopt(scratch, &copy, stopped.major())
}

/// Names of the stored objects below a folder of the environment.
fn names(estate: &Estate, prefix: &str) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().expect("a file").to_string_lossy().into_owned();
    // What a killed process was writing stands beside as `name#1`; the store does not show it.
    estate.objects(prefix).into_iter().map(name).filter(|name| !name.contains('#')).collect()
}

/// The bytes of everything stored below a folder.
fn content(estate: &Estate, prefix: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("an object"));
    estate.objects(prefix).into_iter().map(read).collect()
}

fn wal_file(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.data_dir().join("pg_wal").join(name)
}

fn push(estate: &Estate, path: &Path) -> Output {
    estate.lifeboat.run(&["--format", "json", "wal", "push", "-e", "production", path.to_str().expect("UTF-8")])
}

/// Starts a base backup by `reader` and waits until files are read; `max_rate` must slow it down.
#[track_caller]
fn backup_under_way(estate: &Estate, server: &Cluster, reader: &str) -> Running {
    let mut running = estate.spawn(&["backup", "base", "--full", "--reader", reader]);
    let question = "SELECT count(*) FROM pg_stat_progress_basebackup WHERE phase = 'streaming database files'";
    // The direct reader notes what it will read when it begins to.
    let notes = estate.scratch.join("state/base/production.progress");
    wait_until("files are read", PATIENCE, || {
        assert!(running.is_running(), "{}", running.said());
        match reader {
            "direct" => notes.metadata().is_ok_and(|m| m.len() > 0),
            _ => server.psql("postgres", question) == "1",
        }
    });
    running
}
