//! A complete base backup: the files, the WAL that makes them consistent, and the ledger entry that
//! commits both. A backup without any of the three does not exist.

use std::time::Instant;

use super::backup_wal::{Needed, WalKeeper};
use super::base_backup::{Taken, new_id};
use super::block_files::BlockFiles;
use super::direct::{self, DataDirectory};
use super::identity::{known_cluster, same_cluster};
use super::order::{Order, Span};
use super::present::Present;
use super::previous::Previous;
use super::progress::{Attempt, Progress, not_noted};
use super::source::{Source, databases};
use super::sql::explain;
use super::{streamed, wal_range};
use crate::checks::baseline;
use crate::config::{Check, CheckpointMode, Environment, ReaderMode};
use crate::error::{self, Error, Result};
use crate::event::Event;
use crate::evidence::entry::{BaseBackup, Failure, WalNeeded};
use crate::evidence::{Appended, Body, Ledger, LedgerEntry, Subject};
use crate::repository::catalogue::ledger;
use crate::repository::retention::guard::{self, Uses};
use crate::repository::{Repository, StateDir};
use crate::runtime::Runtime;
use crate::storage::layout;
use crate::units::Lsn;
use crate::wal_name::segment_name;

/// A committed base backup.
#[derive(Debug)]
pub struct Done {
    /// What the ledger says of it.
    pub entry: BaseBackup,
    /// Where the ledger says it.
    pub appended: Appended,
}

impl Done {
    /// What is to be told although the backup was committed: damage at the source.
    pub fn failure(&self) -> Option<Error> {
        let damaged = &self.entry.damaged;
        let first = damaged.first()?;
        Some(
            error::partial(format!(
                "{} of the cluster {} damaged at the source; the first: {first}",
                if damaged.len() == 1 { "one page".to_owned() } else { format!("{} pages", damaged.len()) },
                if damaged.len() == 1 { "is" } else { "are" }
            ))
            .meaning("everything was stored, these pages as they are; the server will stumble over them, too")
            .hint("SELECT relname FROM pg_class WHERE pg_relation_filepath(oid) = '…' names the relation; REINDEX mends an index")
            .hint("an older base backup may hold the pages undamaged; do not let it expire"),
        )
    }
}

/// How to take a base backup.
#[derive(Debug, Clone)]
pub struct BaseOptions {
    /// How to read the cluster; `None`: as configured.
    pub reader: Option<ReaderMode>,
    /// Read and store everything, instead of building on the previous backup.
    pub full: bool,
    /// zstd level.
    pub level: i32,
    /// Where what was stored is noted, so that an interrupted backup can be gone on with; `None`: nowhere.
    pub state_dir: Option<StateDir>,
    /// Checks whose answers at the source are kept for drills to compare with, where they compare.
    pub checks: Vec<Check>,
}

/// Takes a base backup of `environment` and commits it; a failure is recorded in the ledger too.
pub async fn base(
    repository: &Repository,
    environment: &Environment,
    options: BaseOptions,
    runtime: &Runtime,
) -> Result<Done> {
    let ledger = ledger(repository, &environment.name).await?;
    let (started_at, began) = (runtime.now(), Instant::now());
    let failure = match take(repository, environment, &ledger, options, runtime).await {
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
    failure: &Error,
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
    options: BaseOptions,
    runtime: &Runtime,
) -> Result<Done> {
    // Before any work: a host that may not record must not read for hours first.
    repository.signer()?;
    let source = Source::new(&environment.postgres)?;
    let began = Instant::now();
    let id = new_id(runtime.now())?;
    let sql = source.sql().await?;
    let label = format!("lifeboat {id}");
    let mut connection = source.replication().await?;
    let entries = ledger.read().await?.entries;
    let seen = entries.last().map_or(0, |e| e.sequence);
    let known = known_cluster(repository, &environment.name, &entries).await?;
    let present = Present::of(&mut connection).await?;
    same_cluster(known, present.system_id, &environment.name)?;
    let directory = data_directory(environment, &source, &options, runtime).await?;
    let previous = match options.full {
        true => Previous::default(),
        false => Previous::find(repository, &environment.name, &entries, &present, runtime).await?,
    };
    let (previous, mut progress) =
        resumed(repository, environment, &options, &present, (previous, &entries), runtime).await?;
    let span = Span {
        system_id: present.system_id,
        timeline: present.history.timeline(),
        start_lsn: Lsn(0),
        stop_lsn: Lsn(0),
        start_time: runtime.now(),
        server_version: present.server_version,
        wal_segment_size: connection.wal_segment_size().await?,
        checksums: present.checksums,
        hints_logged: present.hints_logged(),
    };
    let order = Order {
        repository,
        environment: &environment.name,
        id: &id,
        label: &label,
        fast_checkpoint: environment.postgres.checkpoint == CheckpointMode::Fast,
        max_rate: environment.postgres.max_rate.map(|rate| rate.0),
        level: options.level,
        blocks: options.state_dir.as_ref().map(|state| BlockFiles::new(state, &environment.name, runtime)),
        history: present.history.clone(),
        runtime,
    };
    let keeper = WalKeeper::hold(repository, environment, &source, &id, options.level, runtime).await?;
    let files = async {
        match directory {
            Some(directory) => {
                drop(connection);
                direct::take(&order, directory, span, previous, progress.as_mut()).await
            }
            None => streamed::take(&order, connection, span, previous, progress.as_mut()).await,
        }
    };
    let needed = |taken: &Taken| Needed {
        timeline: taken.span.timeline,
        start: taken.span.start_lsn,
        stop: taken.span.stop_lsn,
        segment_size: taken.span.wal_segment_size,
    };
    let taken = keeper.during(files, needed).await?;
    for warning in &taken.warnings {
        runtime.emit(Event::Warning(format!("PostgreSQL: {warning}")));
    }
    let version = sql.query_one("SELECT current_setting('server_version')", &[]).await;
    let version = version.map_err(|e| explain(e, "cannot read the server's version"))?.get(0);
    let server = Server { databases: databases(&sql).await?, version };
    let meta = std::iter::once(&taken.manifest).chain(&taken.sums).map(|m| &m.sha256);
    let mut subjects: Vec<Subject> =
        meta.map(|sha256| Subject::new(layout::meta(&environment.name, sha256), sha256)).collect();
    subjects
        .extend(taken.new_packs.iter().map(|p| Subject::new(layout::pack(&environment.name, &p.sha256), &p.sha256)));
    let timeline = taken.span.timeline;
    let mut entry = entry(taken, id.clone(), label.clone(), server, began.elapsed().as_secs_f64());
    // The files are there; only now is the source asked: its answers lie behind the backup's end.
    let baseline = baseline::take(repository, environment, &options.checks, timeline, runtime).await;
    entry.baseline = baseline.map(Box::new);
    let answers = entry.baseline.iter().filter_map(|b| b.answers.as_ref());
    subjects.extend(answers.map(|sha256| Subject::new(layout::meta(&environment.name, sha256), sha256)));
    let uses = uses(&entries, &entry, seen);
    let body = Body::BaseBackup(entry.clone());
    let appended = guard::commit(ledger, repository, &environment.name, subjects, body, &uses, runtime).await?;
    if let Some(progress) = progress {
        progress.finish();
    }
    if let Some(blocks) = &order.blocks {
        blocks.prune(entry.start_lsn, entry.wal_segment_size);
    }
    if let Err(e) = wal_range::record(repository, &environment.name, ledger, runtime).await {
        runtime.emit(Event::Warning(format!("the archived WAL could not be recorded in the ledger: {e}")));
    }
    Ok(Done { entry, appended })
}

/// What a base backup relies on that retention must not have deleted meanwhile.
fn uses(entries: &[LedgerEntry], entry: &BaseBackup, since: u64) -> Uses {
    let built_on = entries.iter().filter(|e| match &e.statement.predicate.body {
        Body::BaseBackup(base) => Some(&base.id) == entry.previous.as_ref(),
        _ => false,
    });
    let size = entry.wal_segment_size;
    let wal = (entry.timeline, entry.start_lsn.segment(size), entry.stop_lsn.previous_segment(size));
    Uses { since, entries: built_on.map(|e| e.sequence).collect(), wal: Some(wal) }
}

/// The data directory, where the files are to be read directly and can be.
async fn data_directory(
    environment: &Environment,
    source: &Source,
    options: &BaseOptions,
    runtime: &Runtime,
) -> Result<Option<DataDirectory>> {
    let mode = options.reader.unwrap_or(environment.postgres.reader);
    if mode == ReaderMode::Streamed {
        return Ok(None);
    }
    match DataDirectory::find(source.sql().await?, environment.postgres.reader_threads).await? {
        Ok(directory) => Ok(Some(directory)),
        Err(why) if mode == ReaderMode::Direct => {
            Err(error::source(format!("the cluster cannot be read directly: {why}"))
                .meaning("no backup was taken")
                .hint("run Lifeboat on the database host, as the account that owns the cluster (or root)")
                .hint("`reader = \"streamed\"` reads through the server instead"))
        }
        Err(why) => {
            runtime.emit(Event::Note(format!("reading through the server: {why}")));
            Ok(None)
        }
    }
}

/// What is taken over, an interrupted attempt included, and where this one notes what it stores.
async fn resumed(
    repository: &Repository,
    environment: &Environment,
    options: &BaseOptions,
    present: &Present,
    (previous, entries): (Previous, &[LedgerEntry]),
    runtime: &Runtime,
) -> Result<(Previous, Option<Progress>)> {
    let Some(state_dir) = &options.state_dir else { return Ok((previous, None)) };
    let attempt = Attempt {
        repository: repository.descriptor.repository.clone(),
        system_id: present.system_id,
        timeline: present.history.timeline(),
        start_lsn: present.lsn,
        previous: previous.id.clone(),
        checksums: present.checksums,
        hints_logged: present.hints_logged(),
    };
    let opened = Progress::open(state_dir.path(), &environment.name, attempt, present);
    match opened.inspect_err(|failure| not_noted(failure, runtime)).unwrap_or_default() {
        None => Ok((previous, None)),
        Some((progress, None)) => Ok((previous, Some(progress))),
        Some((progress, Some(unfinished))) => {
            runtime.emit(Event::Note(format!(
                "going on with a backup that was interrupted: {} packs of it are stored",
                unfinished.packs.len()
            )));
            Ok((previous.resume(repository, &environment.name, entries, unfinished).await?, Some(progress)))
        }
    }
}

/// What the server says of itself.
struct Server {
    databases: Vec<String>,
    version: String,
}

fn entry(taken: Taken, id: String, label: String, server: Server, seconds: f64) -> BaseBackup {
    let Span { timeline, start_lsn, stop_lsn, wal_segment_size: size, .. } = taken.span;
    let sums: u64 = taken.sums.iter().map(|s| s.size).sum();
    let packs: u64 = taken.new_packs.iter().map(|p| p.size).sum();
    BaseBackup {
        id,
        label,
        system_id: taken.span.system_id.to_string(),
        timeline,
        start_lsn,
        stop_lsn,
        start_time: taken.span.start_time,
        stop_time: taken.stop_time,
        server_version: server.version,
        wal_segment_size: size,
        data_checksums: taken.span.checksums,
        tablespaces: taken.tablespaces,
        databases: server.databases,
        files: taken.files,
        logical_bytes: taken.logical_bytes,
        stored_bytes: packs + sums + taken.manifest.size,
        new_packs: taken.new_packs.len() as u64,
        manifest: taken.manifest.sha256,
        reader: taken.reader.into(),
        bytes_read: taken.bytes_read,
        previous: taken.previous,
        damaged: taken.damaged,
        wal: WalNeeded {
            first: segment_name(timeline, start_lsn.segment(size), size),
            last: segment_name(timeline, stop_lsn.previous_segment(size), size),
        },
        baseline: None,
        seconds,
    }
}
