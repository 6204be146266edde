//! The SQL session that puts a cluster into backup mode and takes it out again.
//!
//! [`BackupSession::stop`] gives what a copy of the files needs to be a base backup: `backup_label` and
//! `tablespace_map`, byte for byte, and the position from which on the copy is consistent. Both ends
//! happen in *one* session: PostgreSQL ends a backup whose session ends, and then none of the copied files
//! are worth anything (without forced full page images, torn pages cannot be repaired). So a session
//! that was lost is never opened again; the backup has failed. Dropping the value without [`BackupSession::stop`]
//! gives the backup up, and leaves nothing behind on the server.
//!
//! The functions are non-exclusive ones: `pg_start_backup(…, false)` and `pg_stop_backup(false, …)` up to
//! 14, `pg_backup_start` and `pg_backup_stop` from 15 on. The role needs EXECUTE on them and nothing else (in
//! particular not `pg_read_server_files`: the files are read by this process). The server does not wait for its archiver;
//! whoever takes the backup makes sure of the WAL from start to stop.

use tokio_postgres::{Client, Row};

use crate::error::{self, Error, ErrorKind, Result};
use crate::postgres::backup_label::BackupLabel;
use crate::postgres::replication::sqlstate;
use crate::postgres::sql::explain;
use crate::units::{Lsn, Timeline};

/// A running backup.
pub(crate) struct BackupSession {
    client: Client,
    server_version: u32,
    start: Lsn,
    timeline: Timeline,
    in_recovery: bool,
}

impl std::fmt::Debug for BackupSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackupSession({} on timeline {}, in recovery: {})", self.start, self.timeline, self.in_recovery)
    }
}

/// What the end of a backup brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// From here on the copy is consistent: WAL is needed up to this position.
    pub(crate) stop: Lsn,
    /// The timeline of that position.
    pub(crate) timeline: Timeline,
    /// Contents of `backup_label`.
    pub(crate) backup_label: Vec<u8>,
    /// Contents of `tablespace_map`; empty where the cluster has no tablespaces, and then there is no such file.
    pub(crate) tablespace_map: Vec<u8>,
}

impl BackupSession {
    /// Begins a backup: waits for a checkpoint, at once (`fast`) or spread. `client` is a session of its own.
    pub(crate) async fn start(client: Client, label: &str, fast: bool) -> Result<Self> {
        const DOING: &str = "cannot begin a base backup";
        let row = client
            .query_one("SELECT current_setting('server_version_num')::int4, pg_is_in_recovery()", &[])
            .await
            .map_err(|e| explain(e, DOING))?;
        let (server_version, in_recovery) = (row.get::<_, i32>(0).unsigned_abs(), row.get(1));
        // A spread checkpoint takes minutes, and then the session is idle for as long as the files are read.
        let mut limits = vec!["statement_timeout", "lock_timeout"];
        if server_version >= 140_000 {
            limits.push("idle_session_timeout");
        }
        let limits: Vec<String> = limits.iter().map(|name| format!("SET {name} = 0;")).collect();
        client.batch_execute(&limits.concat()).await.map_err(|e| explain(e, DOING))?;
        let query = match server_version {
            150_000.. => "SELECT pg_backup_start($1, $2)::text",
            _ => "SELECT pg_start_backup($1, $2, false)::text",
        };
        let started = client.query_one(query, &[&label, &fast]).await;
        let row = started.map_err(|e| with_grants(explain(e, DOING), server_version))?;
        let start = position(&row, 0)?;
        // The checkpoint that the backup begins with is the one of pg_control, on a standby, too.
        let row = client
            .query_one("SELECT timeline_id FROM pg_control_checkpoint()", &[])
            .await
            .map_err(|e| explain(e, DOING))?;
        Ok(Self { client, server_version, start, timeline: timeline(&row)?, in_recovery })
    }

    /// Where replay will start.
    pub(crate) fn start_lsn(&self) -> Lsn {
        self.start
    }

    /// The timeline of the start.
    pub(crate) fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// `server_version_num`.
    pub(crate) fn server_version(&self) -> u32 {
        self.server_version
    }

    /// Fails as soon as the session is lost: there is no point in reading on.
    pub(crate) fn check(&self) -> Result<()> {
        match self.client.is_closed() {
            true => Err(unusable(error::source("the session of the base backup has ended"))),
            false => Ok(()),
        }
    }

    /// Ends the backup. `pg_control` must have been copied before, all other files too.
    pub(crate) async fn stop(self) -> Result<Stopped> {
        // The files may hold paths in any encoding: no conversion on their way.
        const FILES: &str = "convert_to(labelfile, getdatabaseencoding()), \
                             convert_to(coalesce(spcmapfile, ''), getdatabaseencoding())";
        let call = match self.server_version {
            150_000.. => "pg_backup_stop(false)",
            _ => "pg_stop_backup(false, false)",
        };
        let failed = |e| unusable(with_grants(explain(e, "cannot end the base backup"), self.server_version));
        let row =
            self.client.query_one(&format!("SELECT lsn::text, {FILES} FROM {call}"), &[]).await.map_err(failed)?;
        let stop = position(&row, 0)?;
        let (backup_label, tablespace_map): (Vec<u8>, Vec<u8>) = (row.get(1), row.get(2));
        let timeline = match self.in_recovery {
            // A primary does not change its timeline while it runs.
            false => self.timeline,
            true => {
                let query = "SELECT min_recovery_end_timeline FROM pg_control_recovery()";
                let row = self.client.query_one(query, &[]).await.map_err(failed)?;
                timeline(&row)?
            }
        };
        self.compare(&backup_label)?;
        Ok(Stopped { stop, timeline, backup_label, tablespace_map })
    }

    /// The label must be about the backup that was started.
    fn compare(&self, backup_label: &[u8]) -> Result<()> {
        let label: BackupLabel = String::from_utf8_lossy(backup_label).parse().map_err(unusable)?;
        if (label.start, label.timeline) != (self.start, self.timeline) {
            return Err(unusable(error::source(format!(
                "the server began the backup at {} on timeline {}, but its backup_label says {} on timeline {}",
                self.start, self.timeline, label.start, label.timeline
            ))));
        }
        Ok(())
    }
}

fn position(row: &Row, column: usize) -> Result<Lsn> {
    row.get::<_, String>(column).parse()
}

fn timeline(row: &Row) -> Result<Timeline> {
    let number = row.get::<_, i32>(0).cast_unsigned();
    match number {
        0 => Err(unusable(error::source("the server does not know its timeline"))),
        number => Ok(Timeline(number)),
    }
}

fn unusable(failure: Error) -> Error {
    failure.meaning("the base backup is not usable and was not committed").hint("take it again")
}

/// Says which rights are missing, if that is what failed.
fn with_grants(failure: Error, server_version: u32) -> Error {
    let (start, stop) = match server_version {
        150_000.. => ("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"),
        _ => ("pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"),
    };
    if sqlstate(&failure) != Some("42501") {
        return failure;
    }
    let what = failure.message();
    Error::new(ErrorKind::Source, what)
        .hint(format!("as superuser: GRANT EXECUTE ON FUNCTION pg_catalog.{start}, pg_catalog.{stop} TO … (the role), in the database of `dsn`"))
        .source(failure)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::postgres::backup_label::BackupFrom;
    use crate::postgres::replication::BaseBackupOptions;
    use crate::postgres::replication::testing::{TestServer, give_to_server, unpack};
    use crate::postgres::replication::tests::{backup, replication};

    async fn one(client: &Client, query: &str) -> String {
        client.query_one(query, &[]).await.expect("a row").get(0)
    }

    #[tokio::test]
    async fn both_ends_of_a_backup_in_every_version() {
        for major in 13..=18 {
            let Some(server) = TestServer::of_version(major, &[], &[]).await else { continue };
            let sql = server.sql().await;
            let space = server.path().join("spacé\\x");
            fs::create_dir(&space).expect("created");
            give_to_server(&space);
            sql.batch_execute(&format!("CREATE TABLESPACE far LOCATION '{}'", space.display())).await.expect("made");
            let oid = one(&sql, "SELECT oid::text FROM pg_tablespace WHERE spcname = 'far'").await;
            // A database with another encoding than its paths are in: no byte may change on the way.
            sql.batch_execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0").await.expect("made");
            let dsn = server.dsn("user=postgres dbname=latin");
            let session = crate::postgres::sql::connect_sql(&dsn).await.expect("connected");
            let session = BackupSession::start(session, "it's a test", true).await.expect("started");
            assert_eq!((session.timeline(), session.in_recovery), (Timeline(1), false), "{major}");
            assert_eq!(session.server_version() / 10000, major);
            session.check().expect("alive");
            sql.batch_execute("CREATE TABLE t AS SELECT 1 AS n").await.expect("some WAL");
            let start = session.start_lsn();
            let stopped = session.stop().await.expect("stopped");
            assert!(start < stopped.stop && stopped.timeline == Timeline(1), "{stopped:?}");
            let text = String::from_utf8(stopped.backup_label).expect("text");
            let label: BackupLabel = text.parse().expect("a label");
            assert_eq!((label.start, label.label.as_str(), label.from), (start, "it's a test", BackupFrom::Primary));
            assert_eq!(label.method, "streamed");
            let map = String::from_utf8(stopped.tablespace_map).expect("UTF-8, as the path is");
            let mut path = space.display().to_string();
            if major >= 14 {
                path = path.replace('\\', "\\\\");
            }
            assert_eq!(map, format!("{oid} {path}\n"), "{major}");
        }
    }

    #[tokio::test]
    async fn a_lost_session_is_a_lost_backup() {
        let Some(server) = TestServer::start(&[], &[]).await else { return };
        let sql = server.sql().await;
        let client = server.sql().await;
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a row").get(0);
        let session = BackupSession::start(client, "lost", true).await.expect("started");
        sql.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.expect("ended");
        while session.check().is_ok() {
            tokio::task::yield_now().await;
        }
        let failure = session.stop().await.expect_err("lost");
        assert_eq!(failure.kind(), ErrorKind::Source);
        assert!(failure.what_it_means().is_some_and(|m| m.contains("not usable")), "{failure}");
    }

    #[tokio::test]
    async fn an_account_without_rights_is_told_which() {
        let Some(server) = TestServer::start(&[], &[]).await else { return };
        let sql = server.sql().await;
        sql.batch_execute("CREATE ROLE small LOGIN").await.expect("a role");
        let small = async || {
            let dsn = server.dsn("user=small dbname=postgres");
            BackupSession::start(crate::postgres::sql::connect_sql(&dsn).await.expect("connected"), "x", true).await
        };
        let refused = small().await.expect_err("no rights");
        let hint = refused.hints().first().expect("a hint").clone();
        let grant = hint.split_once("GRANT").and_then(|(_, rest)| rest.split_once(" TO ")).expect("a statement").0;
        sql.batch_execute(&format!("GRANT {grant} TO small")).await.expect("the hint is right");
        small().await.expect("started").stop().await.expect("stopped");
    }

    #[tokio::test]
    async fn a_standby_is_backed_up_and_its_promotion_spoils_the_backup() {
        let Some(server) = TestServer::start(&["wal_keep_size = '1GB'"], &[]).await else { return };
        let copy = backup(replication(&server).await, &BaseBackupOptions::default()).await;
        server.sql().await.batch_execute("CREATE TABLE t AS SELECT 1 AS n; CHECKPOINT").await.expect("some WAL");
        let standby = server.standby_of(|data| unpack(&copy.archives[0], data), &[]).await;
        let start = async || BackupSession::start(standby.sql().await, "standby", true).await.expect("started");
        let session = start().await;
        assert_eq!((session.in_recovery, session.timeline()), (true, Timeline(1)));
        let stopped = session.stop().await.expect("stopped");
        assert_eq!(stopped.timeline, Timeline(1));
        assert!(String::from_utf8_lossy(&stopped.backup_label).contains("BACKUP FROM: standby"));
        assert!(stopped.tablespace_map.is_empty());
        let session = start().await;
        standby.sql().await.batch_execute("SELECT pg_promote()").await.expect("promoted");
        let spoilt = session.stop().await.expect_err("promoted during the backup");
        assert!(spoilt.message().contains("promoted") && spoilt.what_it_means().is_some(), "{spoilt}");
    }
}
