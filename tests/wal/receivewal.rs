//! PostgreSQL's own receiver as a judge: `pg_receivewal` beside `wal receive`, on the same server at the same
//! time, must have the same bytes.

use std::process::{Child, Stdio};

use super::*;
use crate::common::as_server;

/// `pg_receivewal` at work, through a slot of its own; ends with the value.
struct Judge {
    process: Child,
    folder: PathBuf,
}

impl Judge {
    fn start(scratch: &Scratch, cluster: &Cluster, program: &Path) -> Self {
        cluster.psql("postgres", "SELECT pg_create_physical_replication_slot('judge', true)");
        let folder = scratch.server_dir("judge");
        let mut command = as_server(program);
        command.args(["--synchronous", "--slot", "judge", "-d", &cluster.dsn(), "-D"]).arg(&folder);
        let process = command.stdin(Stdio::null()).spawn().expect("pg_receivewal");
        Self { process, folder }
    }

    #[track_caller]
    fn wait_flushed(cluster: &Cluster, at_least: &str) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal' AND flush_lsn >= '{at_least}'"
        );
        wait_until("pg_receivewal has everything", PATIENCE, || cluster.psql("postgres", &sql) != "0");
    }

    /// What it received, by name; the segment being written is `….partial`.
    fn segments(&self) -> Vec<(String, Vec<u8>)> {
        let files = walkdir::WalkDir::new(&self.folder).sort_by_file_name().into_iter().filter_map(Result::ok);
        let files = files.filter(|file| file.file_type().is_file());
        files
            .map(|file| (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).expect("a segment")))
            .collect()
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn compare_with_pg_receivewal(segment_mib: u32, switches: usize) {
    let scratch = Scratch::new();
    let (cluster, first) = Estate::cluster_with_slot(&scratch, segment_mib);
    let Some(program) = tool(cluster.major(), "pg_receivewal") else { skip!("no pg_receivewal") };
    let estate = Estate::in_folder(&scratch, &cluster);
    let judge = Judge::start(&scratch, &cluster, &program);
    let receiver = estate.receive();
    assert!(pgbench_init(&cluster, "postgres", 2), "pgbench");
    let load = pgbench_run(&scratch, &cluster, "postgres", 2, 600);
    for _ in 0..switches {
        let journal = Journal::start(&cluster, "postgres");
        journal.wait_for(20);
        journal.stop();
        // What follows a switch in its segment is zeros, and stored as such.
        switch(&cluster);
    }
    drop(load);
    cluster.psql("postgres", "CHECKPOINT");
    let end = current(&cluster);
    wait_flushed(&cluster, &end);
    Judge::wait_flushed(&cluster, &end);
    receiver.signal(Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();

    let segments = judge.segments();
    let (mut complete, mut begun) = (0, 0);
    for (name, theirs) in &segments {
        let ours = estate.fetched(name.trim_end_matches(".partial"));
        if name.ends_with(".partial") {
            // Only up to where the server said it was: behind that, each pads as it likes.
            let written = (lsn(&end) - 1) % (u64::from(segment_mib) << 20) + 1;
            assert!(ours[..written as usize] == theirs[..written as usize], "{name} differs");
            begun += 1;
        } else {
            assert!(ours == *theirs, "{name} differs");
            complete += 1;
        }
    }
    assert_eq!(begun, 1, "{:?}", segments.iter().map(|s| &s.0).collect::<Vec<_>>());
    assert!(complete >= switches, "{complete} complete segments");
    assert_eq!(segments[0].0, first, "both began at their slots, which are as old");
}

#[test]
fn segments_are_those_that_pg_receivewal_has() {
    compare_with_pg_receivewal(16, 2);
}

#[test]
fn small_segments_are_those_that_pg_receivewal_has() {
    compare_with_pg_receivewal(1, 12);
}
