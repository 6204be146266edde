//! A complete base backup: the files, the WAL that makes them consistent, and the ledger entry that
//! commits both. A backup without any of the three does not exist.

use std::time::Instant;

use super::backup_wal::{Needed, WalKeeper};
use super::base_backup::{self, Taken, new_id};
use super::identity::{known_cluster, same_cluster};
use super::replication::BaseBackupOptions;
use super::source::{Source, databases};
use super::sql::explain;
use super::wal_range;
use crate::config::{CheckpointMode, Environment};
use crate::error::Result;
use crate::event::Event;
use crate::evidence::entry::{BaseBackup, Failure, WalNeeded};
use crate::evidence::{Appended, Body, Ledger, Subject};
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::runtime::Runtime;
use crate::storage::layout;
use crate::wal_name::segment_name;

/// A committed base backup.
#[derive(Debug)]
pub struct Done {
    /// What the ledger says of it.
    pub entry: BaseBackup,
    /// Where the ledger says it.
    pub appended: Appended,
}

/// Takes a base backup of `environment` and commits it; a failure is recorded in the ledger too.
pub async fn base(repository: &Repository, environment: &Environment, level: i32, runtime: &Runtime) -> Result<Done> {
    let ledger = ledger(repository, &environment.name).await?;
    let (started_at, began) = (runtime.now(), Instant::now());
    let failure = match take(repository, environment, &ledger, level, runtime).await {
        Ok(done) => return Ok(done),
        Err(failure) => failure,
    };
    record_failure(&ledger, repository, "base backup", &failure, started_at, began, runtime).await;
    Err(failure)
}

/// Writes a failed attempt into the ledger. Where that fails too, a warning says so: the first failure
/// is the one that the caller reports.
pub(crate) async fn record_failure(
    ledger: &Ledger,
    repository: &Repository,
    attempted: &str,
    failure: &crate::Error,
    started_at: chrono::DateTime<chrono::Utc>,
    began: Instant,
    runtime: &Runtime,
) {
    let entry = Failure::new(attempted, failure, started_at, began.elapsed().as_secs_f64());
    let recorded = match repository.signer() {
        Ok(signer) => ledger.append(runtime, signer, Vec::new(), Body::Failure(entry)).await.map(|_| ()),
        Err(e) => Err(e),
    };
    if let Err(e) = recorded {
        runtime.emit(Event::Warning(format!("the failure could not be recorded in the ledger: {e}")));
    }
}

async fn take(
    repository: &Repository,
    environment: &Environment,
    ledger: &Ledger,
    level: i32,
    runtime: &Runtime,
) -> Result<Done> {
    let signer = repository.signer()?;
    let source = Source::new(&environment.postgres)?;
    let began = Instant::now();
    let id = new_id(runtime.now())?;
    let sql = source.sql().await?;
    let options = BaseBackupOptions {
        label: format!("lifeboat {id}"),
        fast_checkpoint: environment.postgres.checkpoint == CheckpointMode::Fast,
        max_rate_kib: environment.postgres.max_rate.map(|rate| (rate.0 / 1024) as u32),
        ..Default::default()
    };
    let mut connection = source.replication().await?;
    let known = known_cluster(repository, &environment.name, &ledger.read().await?.entries).await?;
    same_cluster(known, connection.identify_system().await?.system_id, &environment.name)?;
    let keeper = WalKeeper::hold(repository, environment, &source, &id, level, runtime).await?;
    let files = base_backup::take(repository, &environment.name, connection, &options, &id, level, runtime);
    let needed = |taken: &Taken| Needed {
        timeline: taken.timeline,
        start: taken.start_lsn,
        stop: taken.stop_lsn,
        segment_size: taken.wal_segment_size,
    };
    let taken = keeper.during(files, needed).await?;
    for warning in &taken.warnings {
        runtime.emit(Event::Warning(format!("PostgreSQL: {warning}")));
    }
    let row = sql
        .query_one("SELECT current_setting('data_checksums') = 'on', current_setting('server_version')", &[])
        .await
        .map_err(|e| explain(e, "cannot read the server's settings"))?;
    let entry =
        entry(&taken, &options.label, databases(&sql).await?, row.get(0), row.get(1), began.elapsed().as_secs_f64());
    let mut subjects =
        vec![Subject::new(layout::meta(&environment.name, &taken.manifest.sha256), &taken.manifest.sha256)];
    subjects.extend(
        taken.written.packs.iter().map(|p| Subject::new(layout::pack(&environment.name, &p.sha256), &p.sha256)),
    );
    let appended = ledger.append(runtime, signer, subjects, Body::BaseBackup(entry.clone())).await?;
    if let Err(e) = wal_range::record(repository, &environment.name, ledger, runtime).await {
        runtime.emit(Event::Warning(format!("the archived WAL could not be recorded in the ledger: {e}")));
    }
    Ok(Done { entry, appended })
}

fn entry(
    taken: &Taken,
    label: &str,
    databases: Vec<String>,
    data_checksums: bool,
    server_version: String,
    seconds: f64,
) -> BaseBackup {
    let size = taken.wal_segment_size;
    BaseBackup {
        id: taken.id.clone(),
        label: label.to_owned(),
        system_id: taken.system_id.to_string(),
        timeline: taken.timeline,
        start_lsn: taken.start_lsn,
        stop_lsn: taken.stop_lsn,
        start_time: taken.start_time,
        stop_time: taken.stop_time,
        server_version,
        wal_segment_size: size,
        data_checksums,
        tablespaces: taken.tablespaces,
        databases,
        files: taken.files,
        logical_bytes: taken.logical_bytes,
        stored_bytes: taken.written.stored_bytes + taken.manifest.size,
        new_packs: taken.written.packs.len() as u64,
        manifest: taken.manifest.sha256.clone(),
        reader: "streamed".into(),
        wal: WalNeeded {
            first: segment_name(taken.timeline, taken.start_lsn.segment(size), size),
            last: segment_name(taken.timeline, taken.stop_lsn.previous_segment(size), size),
        },
        seconds,
    }
}
