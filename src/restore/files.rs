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

use crate::disk::{Owner, failed, flush_file_system, sync_dir};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::repository::Repository;
use crate::repository::base_manifest::{BaseManifest, FileEntry};
use crate::repository::fetch::{FrameSink, fetch};
use crate::runtime::Runtime;

const CONTROL: &str = "global/pg_control";
const CONTROL_UNFINISHED: &str = "global/pg_control.lifeboat";

/// Files of the source that must not come back: they would make the copy follow another server.
const LEFT_OUT: [&str; 4] = ["standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts"];

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
    fn tablespace<'a>(&'a self, source: &'a str) -> &'a Path {
        self.tablespaces.get(source).map_or(Path::new(source), PathBuf::as_path)
    }

    /// Every directory that a restore of `manifest` fills.
    pub fn directories(&self, manifest: &BaseManifest) -> Vec<PathBuf> {
        let spaces = manifest.links.iter().map(|(_, target)| self.tablespace(target).to_owned());
        std::iter::once(self.pgdata.clone()).chain(spaces).collect()
    }
}

/// Writes all files of `manifest`. May be repeated after an interruption: it writes everything again.
pub async fn write(
    repository: &Repository,
    environment: &str,
    manifest: Arc<BaseManifest>,
    target: &ClusterTarget,
    runtime: &Runtime,
) -> Result<()> {
    let (prepared, for_links) = (manifest.clone(), target.clone());
    blocking(move || lay_out(&prepared, &for_links)).await?;
    let sink = Arc::new(Writer {
        slices: slices(&manifest)?,
        manifest: manifest.clone(),
        pgdata: target.pgdata.clone(),
        runtime: runtime.clone(),
    });
    let mut wanted: Vec<u64> = sink.slices.iter().map(|s| s.frame).collect();
    wanted.dedup();
    fetch(repository, environment, &manifest.packs, wanted, sink).await?;
    let target = target.clone();
    blocking(move || make_durable(&manifest, &target)).await
}

/// Creates directories, links and files of their final size.
fn lay_out(manifest: &BaseManifest, target: &ClusterTarget) -> Result<()> {
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
    for file in restored(manifest) {
        let path = target.pgdata.join(written_name(&file.path));
        let create = || -> std::io::Result<()> {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let created = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            created.set_len(file.size)?;
            created.set_permissions(std::fs::Permissions::from_mode(file.mode & 0o777))?;
            if let Some(owner) = target.owner {
                std::os::unix::fs::fchown(&created, Some(owner.uid), Some(owner.gid))?;
            }
            Ok(())
        };
        create().map_err(|e| failed("cannot create", &path, e))?;
    }
    Ok(())
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

fn restored(manifest: &BaseManifest) -> impl Iterator<Item = &FileEntry> {
    manifest.files.iter().filter(|f| !LEFT_OUT.contains(&f.path.as_str()))
}

fn written_name(path: &str) -> &str {
    if path == CONTROL { CONTROL_UNFINISHED } else { path }
}

/// A part of one frame that belongs into one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slice {
    frame: u64,
    offset: u32,
    length: u32,
    file: u32,
    file_offset: u64,
}

/// Cuts the runs of all files at frame borders; sorted by frame.
fn slices(manifest: &BaseManifest) -> Result<Vec<Slice>> {
    let mut slices = Vec::new();
    for (index, file) in manifest.files.iter().enumerate() {
        if LEFT_OUT.contains(&file.path.as_str()) {
            continue;
        }
        for run in &file.runs {
            if run.file_offset + run.length > file.size {
                return Err(error::integrity(format!("the manifest places bytes of {} behind its end", file.path)));
            }
            manifest.packs.cut(run.frame, run.offset, run.length, |frame, offset, length, done| {
                slices.push(Slice { frame, offset, length, file: index as u32, file_offset: run.file_offset + done });
            })?;
        }
    }
    slices.sort_unstable_by_key(|s| (s.frame, s.file, s.file_offset));
    Ok(slices)
}

struct Writer {
    manifest: Arc<BaseManifest>,
    slices: Vec<Slice>,
    pgdata: PathBuf,
    runtime: Runtime,
}

/// Name of the phase that reports progress in restored bytes.
pub const PHASE: &str = "restoring files";

impl FrameSink for Writer {
    fn frame(&self, number: u64, plaintext: &[u8]) -> Result<()> {
        let first = self.slices.partition_point(|s| s.frame < number);
        let mut open: Option<(u32, File)> = None;
        for slice in self.slices[first..].iter().take_while(|s| s.frame == number) {
            let path = || self.pgdata.join(written_name(&self.manifest.files[slice.file as usize].path));
            let file = match open.take() {
                Some((index, file)) if index == slice.file => file,
                _ => OpenOptions::new().write(true).open(path()).map_err(|e| failed("cannot open", &path(), e))?,
            };
            let from = slice.offset as usize;
            let bytes = plaintext
                .get(from..from + slice.length as usize)
                .ok_or_else(|| error::integrity(format!("frame {number} is shorter than its manifest says")))?;
            file.write_all_at(bytes, slice.file_offset).map_err(|e| failed("cannot write", &path(), e))?;
            open = Some((slice.file, file));
        }
        self.runtime.emit(Event::Progress { phase: PHASE, bytes: plaintext.len() as u64 });
        Ok(())
    }
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

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.or_err(ErrorKind::Internal, || "a worker ended unexpectedly".to_owned())?
}
