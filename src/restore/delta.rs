//! A delta restore: what lies in the target directories is made equal to the backup, and only what differs is fetched
//! and written.
//!
//! [`clear`] removes what the backup does not have; [`compare`] hashes what is left, page by page, against the
//! sums that the repository keeps, on all cores, and tells which parts must come from the store. Nothing
//! outside of the data directory and the version directories of its tablespaces is touched: symbolic links
//! are removed, never followed, but for those of tablespaces. A file with several names (a hard link, as `pg_upgrade
//! --link` and snapshots by `cp -al` make them) is not written to either; it gets a new one in its place.

use std::collections::{HashMap, HashSet};
use std::fs::{DirEntry, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::files::{ClusterTarget, path_in, written_name};
use super::journal;
use super::slices::{Slice, is_restored};
use crate::disk::failed;
use crate::error::Result;
use crate::repository::base_manifest::BaseManifest;
use crate::repository::page_sums::{PAGE, Sums};

/// Slices that a thread takes at once: at most 64 MiB of one stretch of files.
const BATCH: usize = 64;

/// Bytes looked at between two looks at what is zero.
const STRETCH: u64 = 1 << 20;

/// Removes what the backup does not have from the data directory and from its tablespaces; returns how many files and
/// directories went.
pub(super) fn clear(manifest: &BaseManifest, target: &ClusterTarget) -> Result<u64> {
    let mut expected = Expected::default();
    for (path, _) in &manifest.dirs {
        expected.directory(path);
    }
    for (path, source) in &manifest.links {
        expected.links.insert(path, target.tablespace(source));
        expected.parents(path);
    }
    for file in manifest.files.iter().filter(|f| is_restored(&f.path)) {
        expected.files.insert(written_name(&file.path));
        expected.parents(&file.path);
    }
    let mut removed = expected.clear(&target.pgdata, "")?;
    for (path, _) in &manifest.links {
        // Only the directories of this cluster's own: others may share the place.
        let own = |dir: &&str| dir.strip_prefix(path.as_str()).is_some_and(|rest| rest.matches('/').count() == 1);
        let versions: Vec<&str> = expected.directories.iter().copied().filter(own).collect();
        for version in versions {
            removed += expected.clear(&target.pgdata, version)?;
        }
    }
    Ok(removed)
}

/// What belongs into the data directory.
#[derive(Default)]
struct Expected<'a> {
    directories: HashSet<&'a str>,
    files: HashSet<&'a str>,
    links: HashMap<&'a str, &'a Path>,
}

impl<'a> Expected<'a> {
    fn directory(&mut self, path: &'a str) {
        self.directories.insert(path);
        self.parents(path);
    }

    fn parents(&mut self, path: &'a str) {
        let mut path = path;
        while let Some((parent, _)) = path.rsplit_once('/') {
            path = parent;
            if !self.directories.insert(parent) {
                break;
            }
        }
    }

    /// Empties a directory of what does not belong there.
    fn clear(&self, pgdata: &Path, directory: &str) -> Result<u64> {
        let full = pgdata.join(directory);
        let entries = match std::fs::read_dir(&full) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(failed("cannot look into", &full, e)),
        };
        let mut removed = 0;
        for entry in entries {
            let entry = entry.map_err(|e| failed("cannot look into", &full, e))?;
            let name = entry.file_name();
            let below = name.to_str().map(|name| match directory {
                "" => name.to_owned(),
                directory => format!("{directory}/{name}"),
            });
            match below.map(|below| self.judge(&below, &entry).map(|keep| (below, keep))).transpose() {
                Ok(Some((below, Keep::Directory))) => removed += self.clear(pgdata, &below)?,
                Ok(Some((_, Keep::Yes))) => {}
                Ok(_) => {
                    remove(&entry).map_err(|e| failed("cannot remove", &entry.path(), e))?;
                    removed += 1;
                }
                Err(e) => return Err(failed("cannot look at", &entry.path(), e)),
            }
        }
        Ok(removed)
    }

    fn judge(&self, path: &str, entry: &DirEntry) -> std::io::Result<Keep> {
        let about = entry.metadata()?;
        if path.starts_with(journal::NAME) {
            return Ok(Keep::Yes);
        }
        if about.is_symlink() {
            let place = std::fs::read_link(entry.path())?;
            return Ok(if self.links.get(path) == Some(&place.as_path()) { Keep::Yes } else { Keep::No });
        }
        if about.is_dir() {
            let usable = self.directories.contains(path) && !self.links.contains_key(path);
            return Ok(if usable { Keep::Directory } else { Keep::No });
        }
        // Writing to a file with several names would change it in another directory, too.
        let usable = about.is_file() && about.nlink() == 1;
        Ok(if usable && self.files.contains(path) { Keep::Yes } else { Keep::No })
    }
}

enum Keep {
    Yes,
    Directory,
    No,
}

fn remove(entry: &DirEntry) -> std::io::Result<()> {
    match entry.file_type()?.is_dir() {
        true => std::fs::remove_dir_all(entry.path()),
        false => std::fs::remove_file(entry.path()),
    }
}

/// What [`compare`] found out.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// What must come from the store.
    pub(super) wanted: Vec<Slice>,
    /// Bytes that are right where they are.
    pub(super) kept: u64,
    /// Bytes that are zero in the backup and were not here: written already.
    pub(super) zeroed: u64,
}

/// Where the files are that are compared.
#[derive(Clone, Copy)]
pub(super) struct Lying<'a> {
    /// What they should be.
    pub(super) manifest: &'a BaseManifest,
    /// The data directory.
    pub(super) pgdata: &'a Path,
    /// How many bytes of each file were there before this restore.
    pub(super) there: &'a [u64],
}

/// Compares parts of files, in the order of files, with the sums of their pages.
pub(super) fn compare(lying: Lying<'_>, slices: &[Slice], sums: &Sums) -> Result<Compared> {
    let batches: Vec<&[Slice]> = slices.chunks(BATCH).collect();
    in_parallel(batches.len(), |batch, open, found| {
        let mut buffer = Vec::new();
        for slice in batches[batch] {
            let there = lying.there[slice.file as usize].min(slice.end()).saturating_sub(slice.file_offset);
            if there == 0 {
                found.wanted.push(*slice);
                continue;
            }
            let file = open.file(lying, slice.file)?;
            let path = || path_in(lying.pgdata, &lying.manifest.files[slice.file as usize].path);
            // It never shrinks: growing again would clear it each time.
            buffer.resize(buffer.len().max(there as usize), 0);
            let bytes = &mut buffer[..there as usize];
            file.read_exact_at(bytes, slice.file_offset).map_err(|e| failed("cannot read", &path(), e))?;
            differing(lying.manifest, *slice, bytes, sums, found);
        }
        Ok(())
    })
}

/// Notes the pages of a slice that are not what they should be; `buffer` is what lies there, perhaps less than all.
fn differing(manifest: &BaseManifest, slice: Slice, buffer: &[u8], sums: &Sums, found: &mut Compared) {
    let mut from = None;
    for at in (0..slice.length).step_by(PAGE) {
        let end = slice.length.min(at + PAGE as u32);
        let page = buffer.get(at as usize..end as usize);
        let sum = sums.page(&manifest.packs, slice.frame, slice.offset + at);
        if sum.is_some_and(|sum| page.is_some_and(|page| sum.is_of(page))) {
            found.kept += u64::from(end - at);
            if let Some(from) = from.take() {
                found.wanted.push(slice.part(from..at));
            }
        } else {
            from.get_or_insert(at);
        }
    }
    if let Some(from) = from {
        found.wanted.push(slice.part(from..slice.length));
    }
}

/// Makes zeros of what lies where the backup has none of its stored bytes.
pub(super) fn compare_zeros(lying: Lying<'_>) -> Result<Compared> {
    let files = &lying.manifest.files;
    in_parallel(files.len(), |number, open, found| {
        let (entry, there) = (&files[number], lying.there[number]);
        let path = || path_in(lying.pgdata, &entry.path);
        let mut at = 0;
        let runs = entry.runs.iter().map(|run| (run.file_offset, run.file_offset + run.length));
        let mut buffer = Vec::new();
        for (start, end) in runs.chain([(entry.size, entry.size)]) {
            while at < start.min(there) {
                let length = (start.min(there) - at).min(STRETCH);
                buffer.resize(length as usize, 0);
                let file = open.file(lying, number as u32)?;
                file.read_exact_at(&mut buffer, at).map_err(|e| failed("cannot read", &path(), e))?;
                for page in buffer.chunks(PAGE) {
                    if page.iter().any(|byte| *byte != 0) {
                        file.write_all_at(&[0; PAGE][..page.len()], at)
                            .map_err(|e| failed("cannot write", &path(), e))?;
                        found.zeroed += page.len() as u64;
                    } else {
                        found.kept += page.len() as u64;
                    }
                    at += page.len() as u64;
                }
            }
            at = at.max(end);
        }
        Ok(())
    })
}

/// The file that a thread has open.
#[derive(Default)]
struct Open(Option<(u32, File)>);

impl Open {
    fn file(&mut self, lying: Lying<'_>, number: u32) -> Result<&File> {
        if self.0.as_ref().is_none_or(|(open, _)| *open != number) {
            let path = path_in(lying.pgdata, &lying.manifest.files[number as usize].path);
            let file = File::options().read(true).write(true).open(&path);
            self.0 = Some((number, file.map_err(|e| failed("cannot open", &path, e))?));
        }
        Ok(&self.0.as_ref().expect("opened").1)
    }
}

/// Does `jobs` jobs on all cores; each thread holds one file and one buffer.
fn in_parallel(jobs: usize, work: impl Fn(usize, &mut Open, &mut Compared) -> Result<()> + Sync) -> Result<Compared> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs);
    let (next, all, kept, zeroed) =
        (AtomicUsize::new(0), Mutex::new(Ok(Vec::new())), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut open, mut found) = (Open::default(), Compared::default());
                let mut result = Ok(());
                while result.is_ok() {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs {
                        break;
                    }
                    result = work(job, &mut open, &mut found);
                }
                if result.is_err() {
                    // The others need not go on.
                    next.store(jobs, Ordering::Relaxed);
                }
                kept.fetch_add(found.kept, Ordering::Relaxed);
                zeroed.fetch_add(found.zeroed, Ordering::Relaxed);
                let mut all = all.lock().expect("no holder panics");
                match (&mut *all, result) {
                    (Ok(wanted), Ok(())) => wanted.append(&mut found.wanted),
                    (all @ Ok(_), Err(e)) => *all = Err(e),
                    (Err(_), _) => {}
                }
            });
        }
    });
    let wanted = all.into_inner().expect("no holder panics")?;
    Ok(Compared { wanted, kept: kept.into_inner(), zeroed: zeroed.into_inner() })
}
