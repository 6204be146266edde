//! A base backup through the replication protocol, straight into packs.
//!
//! What it promises: when [`take`] returns, every file that the server sent is durable in the
//! repository, and so is a manifest that names them. What it does not promise: that the backup can be
//! restored; that takes the WAL from its start to its stop, and a ledger entry that commits it. Both
//! are the caller's part, so an interrupted backup leaves only objects that nothing refers to.

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use super::intake::{Item, take_in};
use super::replication::{BackupMessage, BaseBackupOptions, BaseBackupStream, ReplicationConnection};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::repository::Repository;
use crate::repository::base_manifest::{BaseManifestWriter, Header};
use crate::repository::meta::MetaObject;
use crate::repository::packs::{self, Written};
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};

/// Messages between the protocol reader and the intake; the server's are of 32 to 128 KiB.
const QUEUE: usize = 32;

/// Name of the phase that reports progress.
pub const PHASE: &str = "reading the cluster";

/// A base backup whose files are stored.
#[derive(Debug)]
pub struct Taken {
    /// Id of the backup.
    pub id: String,
    /// System identifier of the cluster.
    pub system_id: u64,
    /// Timeline of the backup.
    pub timeline: Timeline,
    /// Where replay starts.
    pub start_lsn: Lsn,
    /// From where on the copy is consistent.
    pub stop_lsn: Lsn,
    /// When the server was asked.
    pub start_time: DateTime<Utc>,
    /// When the last file had arrived.
    pub stop_time: DateTime<Utc>,
    /// `server_version_num`.
    pub server_version: u32,
    /// Size of a WAL segment in bytes.
    pub wal_segment_size: u64,
    /// Tablespaces besides the two of every cluster.
    pub tablespaces: u32,
    /// Files, links and directories.
    pub files: u64,
    /// Size of all files in bytes.
    pub logical_bytes: u64,
    /// What was stored.
    pub written: Written,
    /// The manifest.
    pub manifest: MetaObject,
    /// What the server warned of.
    pub warnings: Vec<String>,
}

/// A new id, from the time: sorts by age and is easy to say on the phone (`20261122T203505Z-3f9a`).
pub fn new_id(now: DateTime<Utc>) -> Result<String> {
    let mut random = [0; 2];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| error::internal("the operating system gives no random numbers"))?;
    Ok(format!("{}-{}", now.format("%Y%m%dT%H%M%SZ"), hex::encode(random)))
}

/// Takes a base backup over `connection` and stores it.
pub async fn take(
    repository: &Repository,
    environment: &str,
    mut connection: ReplicationConnection,
    options: &BaseBackupOptions,
    id: &str,
    level: i32,
    runtime: &Runtime,
) -> Result<Taken> {
    let start_time = runtime.now();
    let system = connection.identify_system().await?;
    let wal_segment_size = connection.wal_segment_size().await?;
    let server_version = connection.server_version();
    let mut stream = connection.base_backup(options).await?;
    let (start_lsn, timeline) = stream.start();
    let total = stream.tablespaces().iter().map(|t| t.size_kib.map(|k| k * 1024)).sum();
    let began = std::time::Instant::now();
    runtime.emit(Event::PhaseStarted { phase: PHASE, total });

    let header = Header {
        id: id.to_owned(),
        system_id: system.system_id,
        timeline,
        start_lsn,
        server_version,
        wal_segment_size,
    };
    let manifest = BaseManifestWriter::new(repository, header)?;
    let (content, writing) = packs::start(repository, environment, level);
    let (items, received) = mpsc::channel(QUEUE);
    let intake = tokio::task::spawn_blocking(move || take_in(received, content, manifest));
    let pumped = pump(&mut stream, items, runtime).await;
    // The pipeline's own error says more than the pump's, which only finds the channel closed; but a
    // failure of the source says more than an intake that was cut off.
    let taken = intake.await.or_err(ErrorKind::Internal, || "the intake ended unexpectedly".to_owned())?;
    if let Err(Pump::Source(failure)) = pumped {
        writing.abort();
        return Err(failure);
    }
    let written = writing.written().await?;
    let (taken, manifest) = taken?;
    let Ok((stop_lsn, stop_timeline)) = pumped else {
        return Err(error::internal("the intake ended before the server did"));
    };
    if stop_timeline != timeline {
        return Err(error::source(format!(
            "the server moved from timeline {timeline} to {stop_timeline} during the base backup"
        ))
        .meaning("the backup is not usable and was not committed")
        .hint("run it again"));
    }
    let warnings = stream.warnings().iter().map(ToString::to_string).collect();
    let tablespaces = stream.tablespaces().iter().filter(|t| t.oid.is_some()).count() as u32;
    let manifest = manifest.put(repository, environment, &written.packs).await?;
    runtime.emit(Event::PhaseEnded { phase: PHASE, took: began.elapsed() });
    Ok(Taken {
        id: id.to_owned(),
        system_id: system.system_id,
        timeline,
        start_lsn,
        stop_lsn,
        start_time,
        stop_time: runtime.now(),
        server_version,
        wal_segment_size,
        tablespaces,
        files: taken.files,
        logical_bytes: taken.logical_bytes,
        written,
        manifest,
        warnings,
    })
}

/// How pumping ended early.
enum Pump {
    Source(error::Error),
    IntakeGone,
}

/// Hands what the server sends to the intake, until the server says that it is complete.
async fn pump(
    stream: &mut BaseBackupStream,
    items: mpsc::Sender<Item>,
    runtime: &Runtime,
) -> std::result::Result<(Lsn, Timeline), Pump> {
    loop {
        let item = match stream.next().await.map_err(Pump::Source)? {
            BackupMessage::Archive { tablespace } => {
                let prefix = match stream.tablespaces()[tablespace].oid {
                    Some(oid) => format!("pg_tblspc/{oid}/"),
                    None => String::new(),
                };
                Item::Archive(prefix)
            }
            BackupMessage::Manifest => Item::Manifest,
            BackupMessage::Data(bytes) => {
                runtime.emit(Event::Progress { phase: PHASE, bytes: bytes.len() as u64 });
                Item::Data(bytes)
            }
            BackupMessage::Progress(_) => continue,
            BackupMessage::Finished { end, timeline } => {
                items.send(Item::Finished).await.map_err(|_| Pump::IntakeGone)?;
                return Ok((end, timeline));
            }
        };
        items.send(item).await.map_err(|_| Pump::IntakeGone)?;
    }
}
