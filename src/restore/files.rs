//! Writing the files of a base backup into a data directory.
//!
//! Order is what makes a crash harmless: every file but `pg_control` is written and flushed to disk
//! first, then `pg_control` gets its name. A directory without `global/pg_control` cannot be started,
//! so a half-restored one is never mistaken for a cluster.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::clear::clear;
use super::delta::{Delta, Lying};
use super::manifest_text::{self, Parts, file_sums};
use super::slices::{Slice, frames, is_restored, of_frame, slices};
use crate::disk::{Owner, failed, flush_file_system, sync_dir};
use crate::error::{self, Result};
use crate::event::Event;
use crate::repository::Repository;
use crate::repository::base_manifest::BaseManifest;
use crate::repository::fetch::{FrameSink, fetch};
use crate::repository::packs::joined;
use crate::repository::page_sums::PAGE;
use crate::runtime::{Runtime, blocking};
use crate::units::Lsn;

const CONTROL: &str = "global/pg_control";
const CONTROL_UNFINISHED: &str = "global/pg_control.lifeboat";

/// So many bytes written are worth flushing: the file system may be shared with a running server, which each flush holds up.
const FLUSHED: u64 = 256 << 20;

/// As [`FLUSHED`], where only what differs is written: pages here and there, at which a disk is slow.
const FLUSHED_OF_PAGES: u64 = 16 << 20;

/// Where the files of a cluster go.
#[derive(Debug, Clone)]
pub struct ClusterTarget {
    /// The data directory.
    pub pgdata: PathBuf,
    /// Where each tablespace goes, by the location it had at the source.
    pub tablespaces: HashMap<String, PathBuf>,
    /// Who owns what is written; `None` leaves it to the running account.
    pub owner: Option<Owner>,
}

impl ClusterTarget {
    pub(super) fn tablespace<'a>(&'a self, source: &'a str) -> &'a Path {
        self.tablespaces.get(source).map_or(Path::new(source), PathBuf::as_path)
    }

    /// Every directory that a restore of `manifest` fills.
    pub fn directories(&self, manifest: &BaseManifest) -> Vec<PathBuf> {
        let spaces = manifest.links.iter().map(|(_, target)| self.tablespace(target).to_owned());
        std::iter::once(self.pgdata.clone()).chain(spaces).collect()
    }
}

/// What became of the bytes of a restore's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Bytes that were right where they lay, and were left alone.
    pub kept_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Stored bytes of the frames that were fetched for that.
    pub fetched_bytes: u64,
    /// Files and directories that the backup does not have, removed.
    pub removed: u64,
}

/// A base backup to be written.
#[derive(Debug)]
pub struct Files<'a> {
    /// Where it is.
    pub repository: &'a Repository,
    /// Whose it is.
    pub environment: &'a str,
    /// What it holds.
    pub manifest: Arc<BaseManifest>,
    /// From here on it is consistent.
    pub stop: Lsn,
    /// Where it goes.
    pub target: &'a ClusterTarget,
    /// Keep what lies in the target and is right; remove what the backup does not have.
    pub reuse: bool,
    /// Clock and events.
    pub runtime: &'a Runtime,
}

/// Writes all files of a base backup. May be repeated after an interruption; without `reuse` it writes everything again.
pub async fn write(files: Files<'_>) -> Result<Transfer> {
    let Files { repository, environment, manifest, stop, target, reuse, runtime } = files;
    let mut transfer = Transfer::default();
    if reuse {
        let (manifest, target) = (manifest.clone(), target.clone());
        transfer.removed =
            blocking(move || forget_control(&target.pgdata).and_then(|()| clear(&manifest, &target))).await?;
    }
    let (prepared, for_links) = (manifest.clone(), target.clone());
    let there = blocking(move || lay_out(&prepared, &for_links, reuse)).await?;
    let all = Arc::new(slices(&manifest)?);
    let ours = manifest_text::is_ours(&manifest);
    let (flushing, grown) = flush_along(target.directories(&manifest));
    let over_something = there.iter().any(|there| *there > 0);
    let writer = Arc::new(Writer {
        manifest: manifest.clone(),
        pgdata: target.pgdata.clone(),
        there,
        kept: AtomicU64::new(0),
        written: AtomicU64::new(0),
        grown: grown.downgrade(),
        flushed: if over_something { FLUSHED_OF_PAGES } else { FLUSHED },
        runtime: runtime.clone(),
    });
    let sums = if over_something {
        let parts = ours.then(|| Arc::new(Parts::default()));
        let delta = Delta { repository, environment, writer: &writer, slices: &all, parts: parts.as_ref() };
        transfer.fetched_bytes = delta.run().await?;
        parts.map_or(Ok(Vec::new()), |parts| parts.of_files(&manifest))?
    } else {
        let frames = frames(&all);
        for frame in &frames {
            transfer.fetched_bytes += manifest.packs.stored_len(*frame)?;
        }
        let sums = async {
            match ours {
                true => file_sums(repository, environment, &manifest, &all).await,
                false => Ok(Vec::new()),
            }
        };
        let fetching = fetch(repository, environment, &manifest.packs, frames, writer.sink(all.clone()));
        futures::try_join!(fetching, sums)?.1
    };
    transfer.kept_bytes = writer.kept.load(Ordering::Relaxed);
    transfer.written_bytes = writer.written.load(Ordering::Relaxed);
    drop(grown);
    joined(flushing.await)?;
    let target = target.clone();
    blocking(move || {
        if ours {
            manifest_text::write(&manifest, &sums, stop, &target)?;
        }
        make_durable(&manifest, &target)
    })
    .await?;
    Ok(transfer)
}

/// From here on the directory cannot be started until it is whole again.
fn forget_control(pgdata: &Path) -> Result<()> {
    let path = pgdata.join(CONTROL);
    match std::fs::remove_file(&path) {
        Ok(()) => sync_dir(&pgdata.join("global")),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(()),
        Err(e) => Err(failed("cannot remove", &path, e)),
    }
}

/// Creates directories, links and files of their final size; tells how much of each file was there before.
fn lay_out(manifest: &BaseManifest, target: &ClusterTarget, reuse: bool) -> Result<Vec<u64>> {
    make_dir(&target.pgdata, 0o700, target.owner)?;
    for (path, source) in &manifest.links {
        let location = target.tablespace(source);
        make_dir(location, 0o700, target.owner)?;
        let link = target.pgdata.join(path);
        if let Some(parent) = link.parent() {
            make_dir(parent, 0o700, target.owner)?;
        }
        match symlink(location, &link) {
            Err(e)
                if e.kind() == std::io::ErrorKind::AlreadyExists
                    && std::fs::read_link(&link).is_ok_and(|l| l == location) => {}
            other => other.map_err(|e| failed("cannot link", &link, e))?,
        }
    }
    for (path, mode) in &manifest.dirs {
        make_dir(&target.pgdata.join(path), *mode, target.owner)?;
    }
    let mut lay = Vec::with_capacity(manifest.files.len());
    for file in &manifest.files {
        if !is_restored(&file.path) {
            lay.push(0);
            continue;
        }
        let path = path_in(&target.pgdata, &file.path);
        let create = || -> std::io::Result<u64> {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let created = OpenOptions::new().write(true).create(true).truncate(!reuse).mode(0o600).open(&path)?;
            let there = created.metadata()?.len().min(file.size);
            created.set_len(file.size)?;
            created.set_permissions(std::fs::Permissions::from_mode(file.mode & 0o777))?;
            if let Some(owner) = target.owner {
                std::os::unix::fs::fchown(&created, Some(owner.uid), Some(owner.gid))?;
            }
            Ok(there)
        };
        lay.push(create().map_err(|e| failed("cannot create", &path, e))?);
    }
    Ok(lay)
}

fn make_dir(path: &Path, mode: u32, owner: Option<Owner>) -> Result<()> {
    let make = || -> std::io::Result<()> {
        std::fs::create_dir_all(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o777))?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(())
    };
    make().map_err(|e| failed("cannot create directory", path, e))
}

/// The name below the data directory under which a file is written.
pub(super) fn written_name(path: &str) -> &str {
    if path == CONTROL { CONTROL_UNFINISHED } else { path }
}

/// Where a file of the manifest is written.
pub(super) fn path_in(pgdata: &Path, path: &str) -> PathBuf {
    pgdata.join(written_name(path))
}

/// Writes parts of frames into the files that they belong to.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) manifest: Arc<BaseManifest>,
    pgdata: PathBuf,
    /// How much of each file was there before.
    there: Vec<u64>,
    kept: AtomicU64,
    written: AtomicU64,
    /// Hears when there is something to flush.
    grown: mpsc::WeakSender<()>,
    /// How much that is.
    flushed: u64,
    pub(super) runtime: Runtime,
}

/// Name of the phase that reports progress in restored bytes.
pub const PHASE: &str = "restoring files";

/// Some slices, sorted by frame, on their way to a [`Writer`].
struct Sink {
    slices: Arc<Vec<Slice>>,
    writer: Arc<Writer>,
}

impl FrameSink for Sink {
    /// Up to the last byte that belongs into a file: over what lies there, that may be one page of many.
    fn needed(&self, number: u64) -> u32 {
        of_frame(&self.slices, number).iter().map(|s| s.offset + s.length).max().unwrap_or(0)
    }

    fn frame(&self, number: u64, plaintext: &[u8]) -> Result<()> {
        self.writer.frame(number, of_frame(&self.slices, number), plaintext)
    }
}

impl Writer {
    /// What takes the frames that hold these slices, which are sorted by frame.
    pub(super) fn sink(self: &Arc<Self>, slices: Arc<Vec<Slice>>) -> Arc<dyn FrameSink> {
        Arc::new(Sink { slices, writer: self.clone() })
    }

    /// Where the files lie.
    pub(super) fn lying(&self) -> Lying<'_> {
        Lying { manifest: &self.manifest, pgdata: &self.pgdata, there: &self.there }
    }

    /// Counts bytes that were right and bytes that were written.
    pub(super) fn count(&self, kept: u64, written: u64) {
        self.kept.fetch_add(kept, Ordering::Relaxed);
        let before = self.written.fetch_add(written, Ordering::Relaxed);
        if before / self.flushed != (before + written) / self.flushed {
            // Where one flush is running, another will follow; more need not be remembered.
            let _ = self.grown.upgrade().map(|grown| grown.try_send(()));
        }
    }

    fn frame(&self, number: u64, slices: &[Slice], plaintext: &[u8]) -> Result<()> {
        let mut open: Option<(u32, File)> = None;
        for slice in slices {
            let path = || path_in(&self.pgdata, &self.manifest.files[slice.file as usize].path);
            let file = match open.take() {
                Some((index, file)) if index == slice.file => file,
                _ => OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(path())
                    .map_err(|e| failed("cannot open", &path(), e))?,
            };
            let from = slice.offset as usize;
            let bytes = plaintext
                .get(from..from + slice.length as usize)
                .ok_or_else(|| error::integrity(format!("frame {number} is shorter than its manifest says")))?;
            self.place(&file, slice, bytes).map_err(|e| failed("cannot write", &path(), e))?;
            open = Some((slice.file, file));
        }
        self.runtime.emit(Event::Progress { phase: PHASE.into(), bytes: plaintext.len() as u64 });
        Ok(())
    }

    /// Writes a part of a file; where something lay there before, only the pages that differ.
    fn place(&self, file: &File, slice: &Slice, bytes: &[u8]) -> std::io::Result<()> {
        let there = self.there[slice.file as usize].min(slice.end()).saturating_sub(slice.file_offset) as usize;
        let mut lying = vec![0; there];
        file.read_exact_at(&mut lying, slice.file_offset)?;
        let (mut from, mut kept) = (None, 0);
        for (at, page) in (0..).step_by(PAGE).zip(bytes.chunks(PAGE)) {
            if lying.get(at..at + page.len()) == Some(page) {
                kept += page.len();
                if let Some(from) = from.take() {
                    file.write_all_at(&bytes[from..at], slice.file_offset + from as u64)?;
                }
            } else {
                from.get_or_insert(at);
            }
        }
        if let Some(from) = from {
            file.write_all_at(&bytes[from..], slice.file_offset + from as u64)?;
        }
        self.count(kept as u64, (bytes.len() - kept) as u64);
        Ok(())
    }
}

/// Flushes in the background whenever something was written, so that the disk works from the beginning and little is left
/// to be flushed at the end. Ends when the sender is dropped; a failure means that what was written may be lost.
fn flush_along(directories: Vec<PathBuf>) -> (JoinHandle<Result<()>>, mpsc::Sender<()>) {
    let (grown, mut heard) = mpsc::channel(1);
    let flushing = tokio::task::spawn_blocking(move || {
        while heard.blocking_recv().is_some() {
            directories.iter().try_for_each(|directory| flush_file_system(directory))?;
        }
        Ok(())
    });
    (flushing, grown)
}

/// Flushes every file system that was written to, then gives `pg_control` its name.
fn make_durable(manifest: &BaseManifest, target: &ClusterTarget) -> Result<()> {
    for directory in target.directories(manifest) {
        flush_file_system(&directory)?;
    }
    let (from, to) = (target.pgdata.join(CONTROL_UNFINISHED), target.pgdata.join(CONTROL));
    std::fs::rename(&from, &to).map_err(|e| failed("cannot rename", &from, e))?;
    sync_dir(&target.pgdata.join("global"))?;
    sync_dir(&target.pgdata)
}
