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

use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::repository::base_manifest::{BaseManifest, FileEntry};
use crate::repository::fetch::{FrameSink, fetch};
use crate::repository::{PackTable, Repository};
use crate::runtime::Runtime;

const CONTROL: &str = "global/pg_control";
const CONTROL_UNFINISHED: &str = "global/pg_control.lifeboat";

/// Files of the source that must not come back: they would make the copy follow another server.
const LEFT_OUT: [&str; 4] = ["standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts"];

/// An account that restored files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

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

/// Refuses a directory that holds anything.
pub fn require_empty(directory: &Path) -> Result<()> {
    match std::fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(error::usage(format!("{} is not empty", directory.display()))
                .meaning("nothing was written: Lifeboat restores beside what exists, never over it")
                .hint("name an empty or absent directory, or move the old one away first")),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(error::usage(format!("cannot look into {}", directory.display())).source(e)),
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
            cut(&manifest.packs, run.frame, run.offset, run.length, |frame, offset, length, done| {
                slices.push(Slice { frame, offset, length, file: index as u32, file_offset: run.file_offset + done });
            })?;
        }
    }
    slices.sort_unstable_by_key(|s| (s.frame, s.file, s.file_offset));
    Ok(slices)
}

/// Cuts `length` bytes of the plaintext stream from (`frame`, `offset`) on at frame borders; tells for
/// each part: frame, offset in it, length, and how many bytes came before.
pub(crate) fn cut(
    packs: &PackTable,
    mut frame: u64,
    mut offset: u32,
    length: u64,
    mut part: impl FnMut(u64, u32, u32, u64),
) -> Result<()> {
    let mut done = 0;
    while done < length {
        let room = packs.plain_len(frame)?.saturating_sub(offset);
        let take = u64::from(room).min(length - done) as u32;
        if take > 0 {
            part(frame, offset, take, done);
        }
        done += u64::from(take);
        frame += 1;
        offset = 0;
    }
    Ok(())
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

/// `syncfs(2)`: everything written to the file system that holds `directory` is durable, or an error.
pub(crate) fn flush_file_system(directory: &Path) -> Result<()> {
    let opened = File::open(directory).map_err(|e| failed("cannot open", directory, e))?;
    rustix::fs::syncfs(&opened).map_err(|e| failed("cannot flush the file system of", directory, e.into()))
}

pub(crate) fn sync_dir(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| failed("cannot flush", directory, e))
}

/// An error of the restoring host's file system.
pub(crate) fn failed(what: &str, path: &Path, e: std::io::Error) -> Error {
    let full = matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let error = error::internal(format!("{what} {}", path.display())).source(e);
    match full {
        true => error
            .meaning("the target disk is full; the directory is incomplete and cannot be started; the repository is untouched")
            .hint("`lifeboat restore … --plan` tells how much space is needed; free it and run the same command again to continue"),
        false => error.meaning("the directory is incomplete and cannot be started; the repository is untouched"),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.or_err(ErrorKind::Internal, || "a worker ended unexpectedly".to_owned())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::PackInfo;

    #[test]
    fn a_run_is_cut_where_frames_end() {
        let pack = |frames: &[u32]| PackInfo {
            sha256: String::new(),
            size: 0,
            first: 0,
            frames: frames.iter().map(|len| (0, *len, 0)).collect(),
        };
        let table = PackTable::new(vec![pack(&[100, 100]), pack(&[50])]);
        let mut parts = Vec::new();
        cut(&table, 0, 90, 130, |frame, offset, length, done| parts.push((frame, offset, length, done))).expect("cut");
        assert_eq!(parts, [(0, 90, 10, 0), (1, 0, 100, 10), (2, 0, 20, 110)]);
        assert!(cut(&table, 2, 0, 51, |_, _, _, _| {}).is_err());
    }

    #[test]
    fn only_empty_or_absent_directories_are_filled() {
        let folder = tempfile::tempdir().expect("dir");
        require_empty(folder.path()).expect("empty");
        require_empty(&folder.path().join("absent")).expect("absent");
        std::fs::write(folder.path().join("x"), "x").expect("write");
        assert_eq!(require_empty(folder.path()).expect_err("holds x").kind(), ErrorKind::Usage);
    }
}
