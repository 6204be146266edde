//! Load by pgbench, where this machine has it.

use std::fs::File;
use std::process::{Child, Stdio};

use super::cluster::{Cluster, run_tool, tool};
use super::scratch::{Scratch, as_server};

/// Makes pgbench's tables (about 15 MiB for each unit of `scale`); `false` where there is no pgbench.
pub(crate) fn pgbench_init(cluster: &Cluster, database: &str, scale: u32) -> bool {
    let Some(pgbench) = tool(cluster.major(), "pgbench") else { return false };
    run_tool(&pgbench, &["-i", "-q", "-s", &scale.to_string(), &cluster.dsn_for(database, "postgres")]);
    true
}

/// pgbench at work; ends with the value.
#[derive(Debug)]
pub(crate) struct Pgbench(Child);

/// Runs pgbench with `clients` connections for at most `seconds`; `None` where there is no pgbench.
pub(crate) fn pgbench_run(
    scratch: &Scratch,
    cluster: &Cluster,
    database: &str,
    clients: u32,
    seconds: u32,
) -> Option<Pgbench> {
    let pgbench = tool(cluster.major(), "pgbench")?;
    let log = File::options().create(true).append(true).open(scratch.join("pgbench.log")).expect("a log file");
    let mut command = as_server(&pgbench);
    command.args([
        "-n",
        "-c",
        &clients.to_string(),
        "-T",
        &seconds.to_string(),
        &cluster.dsn_for(database, "postgres"),
    ]);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
    Some(Pgbench(command.spawn().expect("pgbench")))
}

impl Pgbench {
    /// Waits for its end; whether it went well (it does not when its server dies).
    pub(crate) fn wait(mut self) -> bool {
        self.0.wait().expect("a child").success()
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
