//! The streamed reader of base backups: BASE_BACKUP through the replication protocol, straight into packs.
//! It works with any cluster that can be connected to.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::base_backup::{PHASE, Taken};
use super::intake::{Item, take_in};
use super::order::{Order, Span};
use super::previous::Previous;
use super::progress::{Names, Progress};
use super::replication::{BackupMessage, BaseBackupOptions, BaseBackupStream, ReplicationConnection};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::repository::pack_stream;
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};

/// Messages between the protocol reader and the intake; the server's are of 32 to 128 KiB.
const QUEUE: usize = 32;

/// Takes a base backup over `connection` and stores what `previous` does not have.
pub(super) async fn take(
    order: &Order<'_>,
    mut connection: ReplicationConnection,
    span: Span,
    mut previous: Previous,
    progress: Option<&mut Progress>,
) -> Result<Taken> {
    let incremental = offer_manifest(order, &mut connection, &previous, span.system_id).await?;
    if !incremental {
        previous.read_sums(order.repository, order.environment).await?;
    }
    let previous = Arc::new(previous);
    let options = BaseBackupOptions {
        incremental,
        label: order.label.to_owned(),
        fast_checkpoint: order.fast_checkpoint,
        max_rate_kib: order.max_rate.map(|rate| (rate / 1024) as u32),
        ..Default::default()
    };
    let mut stream = connection.base_backup(&options).await?;
    let (start_lsn, timeline) = stream.start();
    let total = stream.tablespaces().iter().map(|t| t.size_kib.map(|k| k * 1024)).sum();
    let began = Instant::now();
    order.runtime.emit(Event::PhaseStarted { phase: PHASE.into(), total });

    let span = Span { timeline, start_lsn, ..span };
    let names = Names::default();
    let watcher = progress.and_then(|progress| progress.watch(&span, &names, order.runtime));
    let (content, writing) = pack_stream::start_watched(order.repository, order.environment, order.level, watcher);
    let (items, received) = mpsc::channel(QUEUE);
    let known = previous.clone();
    let judge = span.checksums.then_some(start_lsn);
    let intake = tokio::task::spawn_blocking(move || take_in(received, content, known, judge, names));
    let mut bytes_read = 0;
    let pumped = pump(&mut stream, items, &mut bytes_read, order.runtime).await;
    // The pipeline's own error says more than the pump's, which only finds the channel closed; but a
    // failure of the source says more than an intake that was cut off.
    let harvest = intake.await.or_err(ErrorKind::Internal, || "the intake ended unexpectedly".to_owned())?;
    if let Err(Pump::Source(failure)) = pumped {
        writing.abort();
        return Err(failure);
    }
    let written = writing.written().await?;
    let (harvest, damaged) = harvest?;
    if let Some(refusal) = stream.damage().filter(|_| damaged.is_empty()) {
        return Err(refusal);
    }
    let Ok((stop_lsn, stop_timeline)) = pumped else {
        return Err(error::internal("the intake ended before the server did"));
    };
    if stop_timeline != timeline {
        return Err(moved(timeline, stop_timeline));
    }
    let span = Span { stop_lsn, ..span };
    let taken = Taken::commit(order, span, "streamed", &previous, harvest, written).await?;
    order.runtime.emit(Event::PhaseEnded { phase: PHASE.into(), took: began.elapsed() });
    let warnings = stream.warnings().iter().map(ToString::to_string).collect();
    Ok(Taken { warnings, damaged, bytes_read, ..taken })
}

/// Uploads what the previous backup holds, where the server keeps WAL summaries; whether it will send
/// changed blocks only. Where it cannot, pages are compared here.
async fn offer_manifest(
    order: &Order<'_>,
    connection: &mut ReplicationConnection,
    previous: &Previous,
    system_id: u64,
) -> Result<bool> {
    let Some(stop) = previous.stop.filter(|_| connection.server_version() >= 170_000) else { return Ok(false) };
    if connection.show("summarize_wal").await? != "on" {
        return Ok(false);
    }
    let manifest = previous.manifest_text(connection.server_version(), system_id, stop);
    let manifest = manifest.or_err(ErrorKind::Internal, || "cannot write a manifest".to_owned())?;
    match connection.upload_manifest(&manifest).await? {
        Ok(()) => Ok(true),
        Err(report) => {
            order.runtime.emit(Event::Note(format!("the server sends every block: {report}")));
            Ok(false)
        }
    }
}

/// A failover in the middle: what was read belongs to no one history.
pub(super) fn moved(from: Timeline, to: Timeline) -> error::Error {
    error::source(format!("the server moved from timeline {from} to {to} during the base backup"))
        .meaning("the backup is not usable and was not committed")
        .hint("run it again")
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
    bytes_read: &mut u64,
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
                *bytes_read += bytes.len() as u64;
                runtime.emit(Event::Progress { phase: PHASE.into(), bytes: bytes.len() as u64 });
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
