//! What a delta restore removes: whatever the backup does not have.
//!
//! Nothing outside of the data directory and the version directories of its tablespaces is touched: symbolic links
//! are removed, never followed, but for those of tablespaces. A file with several names (a hard link, as `pg_upgrade
//! --link` and snapshots by `cp -al` make them) is not written to either; it gets a new one in its place.

use std::collections::{HashMap, HashSet};
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::files::{ClusterTarget, written_name};
use super::journal;
use super::slices::is_restored;
use crate::disk::failed;
use crate::error::Result;
use crate::repository::base_manifest::BaseManifest;

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
