//! A base backup by reading the files of the cluster: from the start of the backup to its manifest.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio_postgres::Client;
use xxhash_rust::xxh3::xxh3_128;

use super::listing::{Rules, list};
use super::page::is_zero;
use super::plan::plan;
use super::reader::{Outcome, Reading, Share};
use super::session::BackupSession;
use super::throttle::Throttle;
use crate::disk::failed;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::evidence::entry::DamagedBlock;
use crate::postgres::base_backup::{PHASE, Taken};
use crate::postgres::changed_blocks::{ChangedBlocks, WalSpan};
use crate::postgres::control_file::ControlFile;
use crate::postgres::harvest::{Harvest, Seen, note_zero};
use crate::postgres::order::{Order, Span};
use crate::postgres::previous::Previous;
use crate::postgres::progress::{Names, Progress};
use crate::postgres::sql::explain;
use crate::postgres::streamed::moved;
use crate::repository::base_manifest::FileEntry;
use crate::repository::pack_sink::{self, PackSink};
use crate::repository::page_sums::PAGE;
use crate::repository::page_writer::PageWriter;
use crate::runtime::blocking;

const CONTROL: &str = "global/pg_control";

/// How often `pg_control` is read until its checksum is right: it is written at every checkpoint.
const CONTROL_TRIES: u32 = 100;

/// A data directory on this host that belongs to the cluster that `sql` is connected to.
#[derive(Debug)]
pub(in crate::postgres) struct DataDirectory {
    path: PathBuf,
    sql: Client,
    stats: Option<String>,
    threads: usize,
}

impl DataDirectory {
    /// Finds out whether the files of the server that `sql` is connected to can be read on this host;
    /// `Err` inside says why not.
    pub(in crate::postgres) async fn find(
        sql: Client,
        threads: Option<usize>,
    ) -> Result<std::result::Result<Self, String>> {
        let row = sql
            .query_one(
                "SELECT current_setting('data_directory', true), \
                        extract(epoch FROM pg_postmaster_start_time())::int8, \
                        nullif(current_setting('stats_temp_directory', true), ''), \
                        coalesce( \
                          has_function_privilege(to_regprocedure('pg_catalog.pg_backup_start(text, boolean)'), 'EXECUTE'), \
                          has_function_privilege( \
                            to_regprocedure('pg_catalog.pg_start_backup(text, boolean, boolean)'), 'EXECUTE'), \
                          false)",
                &[],
            )
            .await
            .map_err(|e| explain(e, "cannot ask the server where its files are"))?;
        let (directory, started): (Option<String>, i64) = (row.get(0), row.get(1));
        let Some(path) = directory.filter(|d| !d.is_empty()).map(PathBuf::from) else {
            return Ok(Err("the role may not see data_directory; GRANT pg_read_all_settings lets it".into()));
        };
        if !row.get::<_, bool>(3) {
            return Ok(Err("the role may not start a backup by function; README.md has the GRANT".into()));
        }
        if let Err(why) = is_of_server(&path, started) {
            return Ok(Err(why));
        }
        let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, |n| n.get()));
        Ok(Ok(Self { path, stats: row.get(2), sql, threads }))
    }
}

/// Whether the server that was started at `started` runs on this directory: the path may exist on this
/// host and belong to another server, even to a standby of the same cluster.
fn is_of_server(path: &Path, started: i64) -> std::result::Result<(), String> {
    let file = path.join("postmaster.pid");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{} cannot be read here: {e}", file.display()))?;
    // Third line: when the postmaster started, in seconds since 1970 (`miscadmin.h`, LOCK_FILE_LINE_START_TIME).
    let written: Option<i64> = text.lines().nth(2).and_then(|line| line.trim().parse().ok());
    if written.is_none_or(|written| (written - started).abs() > 1) {
        return Err(format!("{} is the data directory of another server", path.display()));
    }
    let control = path.join(CONTROL);
    std::fs::File::open(&control).map(|_| ()).map_err(|e| format!("{} cannot be read here: {e}", control.display()))
}

/// Takes a base backup of the files in `directory` and stores what `previous` does not have.
pub(in crate::postgres) async fn take(
    order: &Order<'_>,
    directory: DataDirectory,
    span: Span,
    mut previous: Previous,
    progress: Option<&mut Progress>,
) -> Result<Taken> {
    let DataDirectory { path, sql, stats, threads } = directory;
    let session = BackupSession::start(sql, order.label, order.fast_checkpoint).await?;
    let span = Span { timeline: session.timeline(), start_lsn: session.start_lsn(), ..span };
    let began = Instant::now();
    let asked = order.runtime.now().timestamp_nanos_opt().unwrap_or_default();
    let changed = changed(order, &span, &previous, &path).await?;
    if changed.is_none() {
        previous.read_sums(order.repository, order.environment).await?;
    }
    let previous = Arc::new(previous);
    let (data, known, major) = (path.clone(), previous.clone(), session.server_version() / 10_000);
    let (planned, dirs, links) = blocking(move || {
        let catalog = control_file(&data)?.1.catalog_version;
        let listing = list(&data, &Rules { major, catalog, stats_temp_directory: stats.as_deref() })?;
        let dirs = listing.directories.into_iter().map(|d| (d.path, d.mode)).collect();
        let links = listing.links.into_iter().map(|l| (l.path, l.target)).collect();
        Ok((plan(listing.files, &known, changed.as_ref(), asked)?, dirs, links))
    })
    .await?;
    let (tasks, files) = planned;
    let watcher = match progress {
        Some(progress) => {
            let names = Names::default();
            files.iter().for_each(|seen| names.add(&seen.entry.path, seen.entry.stat));
            progress.watch(&span, &names, order.runtime)
        }
        None => None,
    };
    let throttle = Throttle::new(order.max_rate, began);
    let (start, checksums, runtime) = (span.start_lsn, span.checksums, order.runtime.clone());
    let reading = Arc::new(Reading::new(path.clone(), tasks, start, checksums, throttle, runtime));
    order.runtime.emit(Event::PhaseStarted { phase: PHASE.into(), total: Some(reading.bytes()) });
    let _stop = StopOnDrop(reading.clone());

    let (sink, writing) = pack_sink::start(order.repository, order.environment, order.level, watcher);
    let hands: Vec<_> = (0..threads)
        .map(|_| {
            let (reading, sink) = (reading.clone(), sink.clone());
            tokio::task::spawn_blocking(move || reading.work(sink))
        })
        .collect();
    let mut shares = Vec::with_capacity(threads);
    let mut failure = None;
    for hand in hands {
        match hand.await.or_err(ErrorKind::Internal, || "a reading thread ended unexpectedly".to_owned())? {
            Ok(share) => shares.push(share),
            Err(e) if failure.is_none() || e.kind() != ErrorKind::Interrupted => failure = Some(e),
            Err(_) => {}
        }
    }
    if let Some(failure) = failure {
        drop(sink);
        // A pipeline that stopped says why; a source that failed says more than a pipeline without an end.
        return Err(match failure.kind() {
            ErrorKind::Internal => writing.written().await.err().unwrap_or(failure),
            _ => failure,
        });
    }
    session.check()?;
    let mut harvest = Harvest { dirs, links, files, ..Harvest::default() };
    let bytes_read = shares.iter().map(|s| s.bytes_read).sum();
    let damaged = gather(&mut harvest, shares);
    let data = path.clone();
    let control = blocking(move || control_file(&data)).await?.0;
    let stopped = session.stop().await?;
    if stopped.timeline != span.timeline {
        return Err(moved(span.timeline, stopped.timeline));
    }
    let last = [(CONTROL, control), ("backup_label", stopped.backup_label)];
    let (seconds, sealing) = (order.runtime.now().timestamp().max(0) as u64, sink);
    let harvest = blocking(move || {
        let mut harvest = harvest;
        for (path, bytes) in last {
            add(&mut harvest, &sealing, path, &bytes, seconds)?;
        }
        sealing.finish()?;
        Ok(harvest)
    })
    .await;
    let (harvest, written) = match (harvest, writing.written().await) {
        (_, Err(failure)) | (Err(failure), _) => return Err(failure),
        (Ok(harvest), Ok(written)) => (harvest, written),
    };
    let span = Span { stop_lsn: stopped.stop, ..span };
    let taken = Taken::commit(order, span, "direct", &previous, harvest, written).await?;
    order.runtime.emit(Event::PhaseEnded { phase: PHASE.into(), took: began.elapsed() });
    Ok(Taken { damaged, bytes_read, ..taken })
}

/// What WAL says of the blocks that changed since the previous backup; `None` where it does not say all.
async fn changed(order: &Order<'_>, span: &Span, previous: &Previous, data: &Path) -> Result<Option<ChangedBlocks>> {
    let (Some(files), Some(_)) = (&order.blocks, &previous.id) else { return Ok(None) };
    let (files, history, pg_wal) = (files.clone(), order.history.clone(), data.join("pg_wal"));
    let (system_id, segment_size, from, to) = (span.system_id, span.wal_segment_size, previous.since, span.start_lsn);
    blocking(move || {
        let span = WalSpan { system_id, segment_size, history: &history, from, to };
        match ChangedBlocks::load(&files, &span, Some(&pg_wal)) {
            Ok(changed) => Ok(Some(changed)),
            Err(why) => {
                tracing::info!("every page is looked at: {why}");
                Ok(None)
            }
        }
    })
    .await
}

/// Brings together what the threads did.
fn gather(harvest: &mut Harvest, shares: Vec<Share>) -> Vec<DamagedBlock> {
    let mut damaged = Vec::new();
    for share in shares {
        harvest.stored.extend(share.stored);
        harvest.zeroed.extend(share.zeroed);
        for (file, outcome) in share.outcomes {
            let seen = &mut harvest.files[file as usize];
            match outcome {
                Outcome::Gone => seen.gone = true,
                Outcome::Kept { digest } => seen.entry.digest = Some(digest),
                Outcome::Stored { digest } => (seen.over, seen.entry.digest) = (false, Some(digest)),
            }
        }
        for (file, page, block) in share.damaged {
            harvest.files[file as usize].entry.damaged.push(page);
            damaged.push(block);
        }
    }
    for seen in &mut harvest.files {
        seen.entry.damaged.sort_unstable();
    }
    damaged.sort_by(|a, b| (&a.path, a.block).cmp(&(&b.path, b.block)));
    damaged
}

/// Stores a small file that was read or made at the end.
fn add(harvest: &mut Harvest, sink: &PackSink, path: &str, bytes: &[u8], mtime: u64) -> Result<()> {
    let file = harvest.files.len() as u32;
    let mut writer = PageWriter::new(sink.clone());
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        let at = (number * PAGE) as u64;
        match is_zero(page) {
            true => note_zero(&mut harvest.zeroed, file, at, page.len() as u64),
            false => writer.page(file, at, page)?,
        }
    }
    harvest.stored.extend(writer.finish()?.1);
    let digest = Some(format!("{:032x}", xxh3_128(bytes)));
    let size = bytes.len() as u64;
    let entry = FileEntry { path: path.to_owned(), size, mode: 0o600, mtime, digest, ..FileEntry::default() };
    harvest.files.push(Seen { entry, over: false, gone: false });
    Ok(())
}

/// `pg_control`, read until it is whole: the server may be writing it.
fn control_file(data: &Path) -> Result<(Vec<u8>, ControlFile)> {
    let path = data.join(CONTROL);
    let mut tries = 0;
    loop {
        let bytes = std::fs::read(&path).map_err(|e| failed("cannot read", &path, e))?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((bytes, control)),
            Err(e) if tries == CONTROL_TRIES => return Err(e.context(path.display())),
            Err(_) => tries += 1,
        }
        std::thread::yield_now();
    }
}

/// Stops the threads when the backup is given up.
struct StopOnDrop(Arc<Reading>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_another_server_is_not_read() {
        let folder = tempfile::tempdir().expect("dir");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("write");
        assert!(is_of_server(folder.path(), 1000).expect_err("no server").contains("postmaster.pid"));
        write("postmaster.pid", "4711\n/data\n1000\n5432\n");
        std::fs::create_dir(folder.path().join("global")).expect("dir");
        assert!(is_of_server(folder.path(), 1000).expect_err("no control file").contains("pg_control"));
        write("global/pg_control", "");
        assert_eq!(is_of_server(folder.path(), 1000), Ok(()));
        assert!(is_of_server(folder.path(), 1005).expect_err("restarted, or another").contains("another server"));
    }
}
