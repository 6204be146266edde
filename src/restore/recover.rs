//! Recovery: a private server replays WAL to the resolved stop point and is promoted there; then the
//! place where it stopped is asserted from what PostgreSQL itself wrote down, the history file of the
//! new timeline, which names the exact end of the last record that was replayed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::resolve::Resolved;
use super::wal_server::{Places, WalServer};
use crate::disk::{Owner, failed};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::postgres::account::{Account, hand_over};
use crate::postgres::control_file::ControlFile;
use crate::postgres::launch::Launch;
use crate::postgres::server::{PrivateServer, ServerSpec};
use crate::postgres::sql::explain;
use crate::postgres::wal::TimelineHistory;
use crate::repository::Repository;
use crate::repository::catalogue::Catalogue;
use crate::units::{Lsn, Timeline};

/// A directory in the data directory for files on their way; gone when the restore is.
pub const SPOOL: &str = "lifeboat-restore";

/// What recovery works with.
#[derive(Debug)]
pub struct Recovery<'a> {
    /// The repository, with keys that open data.
    pub repository: Arc<Repository>,
    /// What it holds.
    pub catalogue: Arc<Catalogue>,
    /// Where to stop.
    pub target: &'a Resolved,
    /// The restored data directory.
    pub pgdata: &'a Path,
    /// A short-lived directory with a short path, for sockets and the server's files.
    pub work_dir: &'a Path,
    /// Directory of PostgreSQL's programs.
    pub bin_dir: &'a Path,
    /// This program.
    pub program: &'a Path,
    /// The account that the server runs as.
    pub account: Option<&'a Account>,
    /// How the server is started.
    pub launch: &'a dyn Launch,
    /// A role of the cluster that may log in.
    pub role: &'a str,
    /// Major version of the cluster.
    pub major: u32,
    /// Number of a WAL segment that is treated as lost: a self-test wants to see recovery fail.
    pub withheld: Option<u64>,
}

/// Where recovery stopped.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// Timeline that was replayed.
    pub timeline: Timeline,
    /// End of the last record replayed.
    pub lsn: Lsn,
    /// Commit time of the last transaction replayed, from the server's log.
    pub time: Option<DateTime<Utc>>,
    /// Timeline that the restored cluster is on now.
    pub new_timeline: Timeline,
    /// Bytes of WAL files that recovery asked for.
    pub wal_bytes: u64,
    /// The server's version, as it names itself.
    pub server_version: String,
    /// Seconds until recovery ended.
    pub seconds: f64,
}

impl Stopped {
    /// Whether recovery stopped exactly behind the record that was resolved.
    pub fn as_intended(&self, target: &Resolved) -> bool {
        self.lsn == target.stop_end
    }
}

/// Starts to serve WAL up to the target.
fn serve(recovery: &Recovery<'_>) -> Result<WalServer> {
    let wal = recovery.catalogue.wal.as_ref().ok_or_else(|| error::not_recoverable("the repository holds no WAL"))?;
    let line = wal.line(recovery.target.timeline);
    let places = Places {
        spool: &recovery.pgdata.join(SPOOL),
        folder: recovery.work_dir,
        program: recovery.program,
        withheld: recovery.withheld,
    };
    hand_over(recovery.work_dir, recovery.account)?;
    let (repository, catalogue) = (recovery.repository.clone(), recovery.catalogue.clone());
    let base = recovery.catalogue.bases().find(|base| base.id == recovery.target.base);
    // Recovery that was paused and stopped goes on from its last restart point; before, the label tells where it begins.
    let fresh = recovery.pgdata.join("backup_label").exists();
    let begun = if fresh { Lsn(0) } else { control_file(recovery.pgdata)?.redo() };
    let from = base.map_or(recovery.target.stop_end, |base| base.start_lsn.max(begun));
    let wanted = from.min(recovery.target.stop_end)..recovery.target.stop_end;
    WalServer::start(repository, catalogue, line, wanted, &places, recovery.account)
}

/// Runs recovery up to the target and pauses there: the server answers questions and is in the state of the
/// target, which is no end. Stopped, it can be recovered to a later target.
///
/// Where this fails the directory may be of no use for that: it must be made equal to the backup again.
pub async fn recover_and_pause(recovery: &Recovery<'_>) -> Result<PrivateServer> {
    let serving = serve(recovery)?;
    signal_recovery(recovery.pgdata, recovery.account)?;
    let mut settings = settings(recovery, serving.restore_command())?;
    settings.retain(|(name, _)| name != "recovery_target_action");
    settings.push(("recovery_target_action".to_owned(), "pause".to_owned()));
    settings.push(("hot_standby".to_owned(), "on".to_owned()));
    let mut server = start_with(recovery, settings)?;
    let paused = server.paused().await.map_err(|e| serving.take_failure().unwrap_or(e))?;
    let target = recovery.target.stop_end;
    if paused != target {
        return Err(error::integrity(format!("recovery paused at {paused} instead of {target}")));
    }
    let client = server.sql("template1").await?;
    let row = client.query_one("SELECT rolname::text FROM pg_roles WHERE oid = 10", &[]).await;
    server.set_role(row.map_err(|e| explain(e, "cannot ask the paused server for its superuser"))?.get(0));
    Ok(server)
}

/// Runs recovery to the end; returns the running, promoted server, logged in as superuser.
pub async fn recover(recovery: &Recovery<'_>) -> Result<(PrivateServer, Stopped)> {
    let began = Instant::now();
    let serving = serve(recovery)?;
    signal_recovery(recovery.pgdata, recovery.account)?;
    let mut server = start(recovery, serving.restore_command())?;
    server.ready(None).await.map_err(|e| {
        // A server that lacks WAL only says that a command failed; why, this process knows.
        let e = serving.take_failure().unwrap_or(e).context("recovery failed");
        match e.kind() {
            ErrorKind::NotRecoverable | ErrorKind::Internal | ErrorKind::Integrity => e.meaning(
                "the restored directory is not usable; the repository is untouched, another target or base backup may work",
            ),
            _ => e,
        }
    })?;
    let stopped = assess(&mut server, recovery, began, serving.bytes()).await?;
    let spool = recovery.pgdata.join(SPOOL);
    std::fs::remove_dir_all(&spool).map_err(|e| failed("cannot remove", &spool, e))?;
    Ok((server, stopped))
}

/// Starts the private server that gets its WAL by `restore_command`.
fn start(recovery: &Recovery<'_>, restore_command: &str) -> Result<PrivateServer> {
    start_with(recovery, settings(recovery, restore_command)?)
}

fn start_with(recovery: &Recovery<'_>, settings: Vec<(String, String)>) -> Result<PrivateServer> {
    let spec = ServerSpec {
        bin_dir: recovery.bin_dir,
        pgdata: recovery.pgdata,
        work_dir: &recovery.work_dir.join("s"),
        account: recovery.account,
        launch: recovery.launch,
        settings,
        major: recovery.major,
    };
    PrivateServer::start(&spec, recovery.role)
}

/// Starts a server on a data directory whose recovery already ended.
pub async fn start_recovered(recovery: &Recovery<'_>) -> Result<(PrivateServer, Stopped)> {
    let began = Instant::now();
    hand_over(recovery.work_dir, recovery.account)?;
    let mut server = start(recovery, "false")?;
    server.ready(None).await?;
    let stopped = assess(&mut server, recovery, began, 0).await?;
    Ok((server, stopped))
}

/// Whether recovery of this data directory has ended, for good: PostgreSQL removes the signal file
/// before its checkpoint on the new timeline. Killed in between, a start without the file would replay
/// whatever WAL lies there, past the target; recovery must run again instead.
pub fn is_recovered(pgdata: &Path, target: &Resolved) -> Result<bool> {
    if pgdata.join("recovery.signal").exists() || pgdata.join("backup_label").exists() {
        return Ok(false);
    }
    Ok(control_file(pgdata)?.timeline() > target.timeline)
}

fn control_file(pgdata: &Path) -> Result<ControlFile> {
    let path = pgdata.join("global/pg_control");
    let bytes = std::fs::read(&path).map_err(|e| failed("cannot read", &path, e))?;
    ControlFile::parse(&bytes)
}

fn signal_recovery(pgdata: &Path, account: Option<&Account>) -> Result<()> {
    let path = pgdata.join("recovery.signal");
    std::fs::write(&path, "").map_err(|e| failed("cannot write", &path, e))?;
    hand_over(&path, account)
}

impl From<&Account> for Owner {
    fn from(account: &Account) -> Self {
        Owner { uid: account.uid, gid: account.gid }
    }
}

/// Settings of the recovering server: what the source had where recovery depends on it, and the target.
fn settings(recovery: &Recovery<'_>, restore_command: &str) -> Result<Vec<(String, String)>> {
    let control = control_file(recovery.pgdata)?;
    let segment_size = control.wal_segment_size;
    let control = control.parameters;
    let mut settings = vec![
        ("max_connections", control.max_connections.to_string()),
        ("max_worker_processes", control.max_worker_processes.to_string()),
        ("max_wal_senders", control.max_wal_senders.to_string()),
        ("max_prepared_transactions", control.max_prepared_transactions.to_string()),
        ("max_locks_per_transaction", control.max_locks_per_transaction.to_string()),
        ("track_commit_timestamp", if control.track_commit_timestamp { "on" } else { "off" }.to_owned()),
        ("wal_level", control.wal_level.setting().to_owned()),
        // The default is too small for segments of more than 40 MB, and the server would not start.
        ("min_wal_size", format!("{}MB", ((2 * segment_size) >> 20).max(80))),
    ];
    settings.extend(target_settings(recovery.target, restore_command));
    Ok(settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The settings that make PostgreSQL stop at the resolved target and nowhere else.
pub fn target_settings(target: &Resolved, restore_command: &str) -> Vec<(&'static str, String)> {
    vec![
        ("restore_command", restore_command.to_owned()),
        ("archive_cleanup_command", String::new()),
        ("recovery_end_command", String::new()),
        ("recovery_target", String::new()),
        ("recovery_target_name", String::new()),
        ("recovery_target_time", String::new()),
        ("recovery_target_xid", String::new()),
        ("recovery_target_lsn", target.stop_record.to_string()),
        ("recovery_target_inclusive", "on".into()),
        ("recovery_target_timeline", target.timeline.0.to_string()),
        ("recovery_target_action", "promote".into()),
    ]
}

/// Reads from the promoted server where it stopped.
async fn assess(
    server: &mut PrivateServer,
    recovery: &Recovery<'_>,
    began: Instant,
    wal_bytes: u64,
) -> Result<Stopped> {
    let seconds = began.elapsed().as_secs_f64();
    let client = server.sql("template1").await?;
    let row = client
        .query_one(
            "SELECT rolname::text, pg_walfile_name(pg_current_wal_lsn()), current_setting('server_version') \
             FROM pg_roles WHERE oid = 10",
            &[],
        )
        .await
        .map_err(|e| explain(e, "cannot ask the restored server where it is"))?;
    server.set_role(row.get(0));
    let file: &str = row.get(1);
    let new_timeline = u32::from_str_radix(&file[..8], 16)
        .map(Timeline)
        .or_err(ErrorKind::Internal, || format!("the server names its WAL file {file}"))?;
    let path = recovery.pgdata.join("pg_wal").join(format!("{new_timeline}.history"));
    let text = std::fs::read_to_string(&path).map_err(|e| failed("cannot read", &path, e))?;
    let history = TimelineHistory::parse(new_timeline, &text)?;
    let parent =
        history.ancestors().last().ok_or_else(|| error::internal(format!("{} names no ancestor", path.display())))?;
    Ok(Stopped {
        timeline: parent.timeline,
        lsn: parent.switch,
        time: last_transaction_time(&server.log()),
        new_timeline,
        wal_bytes,
        server_version: row.get(2),
        seconds,
    })
}

/// "last completed transaction was at log time 2026-11-22 20:35:05.123+00"; the log is in UTC.
fn last_transaction_time(log: &str) -> Option<DateTime<Utc>> {
    const WORDS: &str = "last completed transaction was at log time ";
    let line = log.lines().rev().find_map(|l| l.split_once(WORDS).map(|(_, time)| time.trim()))?;
    let text = format!("{}00", line.trim_end_matches(" UTC"));
    DateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f%z").ok().map(|t| t.with_timezone(&Utc))
}

/// Fails where recovery stopped anywhere but behind the resolved record.
pub fn assert_stop(target: &Resolved, stopped: &Stopped) -> Result<()> {
    if stopped.as_intended(target) {
        return Ok(());
    }
    Err(error::integrity(format!("recovery stopped at {} instead of {}", stopped.lsn, target.stop_end))
        .meaning("the restored data is not the state that was asked for; do not use it")
        .hint("run `lifeboat verify --deep`, and report this: it must not happen"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_last_transaction_is_read_from_the_log() {
        let log = "2026-11-22 20:40:00.1 UTC [5] LOG:  redo done at 0/3000\n\
                   2026-11-22 20:40:00.1 UTC [5] LOG:  last completed transaction was at log time 2026-11-22 20:35:05.123456+00\n";
        let time = last_transaction_time(log).expect("time");
        assert_eq!(time.to_rfc3339(), "2026-11-22T20:35:05.123456+00:00");
        assert_eq!(last_transaction_time("nothing"), None);
    }
}
