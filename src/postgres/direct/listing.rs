//! Which files of a data directory belong to a base backup: the same that BASE_BACKUP sends.
//!
//! The rules are those of `sendDir` and `sendTablespace` (`src/backend/backup/basebackup.c`, up to 14
//! `src/backend/replication/basebackup.c`), the same from 13 to 18 but for what [`Rules`] asks for. Files
//! and directories that vanish while we look were dropped by transactions that WAL replays; leaving
//! them out is what BASE_BACKUP does, too. `global/pg_control` is in the list, though it must be read last;
//! `backup_label` and `tablespace_map` are not: they come from the end of the backup, never from disk.
//! `standby.signal` and `recovery.signal` are, as in BASE_BACKUP; a restore leaves them out.

use std::collections::HashSet;
use std::fs::{DirEntry, Metadata};
use std::io::ErrorKind as Io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{self, Error, Result};
use crate::postgres::relation_file::{
    DEFAULT_TABLESPACE, FileName, GLOBAL_TABLESPACE, RelationFile, is_temporary, oid,
};
use crate::postgres::wal::Fork;

/// Directories that are kept and whose contents are not (`excludeDirContents`), wherever they are.
const EMPTIED: [&str; 7] =
    ["pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"];

/// Files that are left out (`excludeFiles`), wherever they are.
const LEFT_OUT: [&str; 7] = [
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "postmaster.pid",
    "postmaster.opts",
];

/// Beginnings of names that are left out: copies of the relation cache, temporary files and their directories.
const LEFT_OUT_PREFIXES: [&str; 2] = ["pg_internal.init", "pgsql_tmp"];

/// What a file is, as far as reading it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One file of a relation: pages of 8 KiB, with LSN and perhaps checksum.
    Relation(RelationFile),
    /// `global/pg_control`.
    Control,
    /// Anything else.
    Other,
}

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Below the data directory; `pg_tblspc/<oid>/PG_…/…` in a tablespace.
    pub(crate) path: String,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Bytes, when it was looked at.
    pub(crate) size: u64,
    /// Number of its inode.
    pub(crate) inode: u64,
    /// Time of the last change of its contents, in nanoseconds since 1970.
    pub(crate) mtime_ns: i64,
    /// Time of the last change of its inode, in nanoseconds since 1970.
    pub(crate) ctime_ns: i64,
    /// What it is.
    pub(crate) kind: Kind,
}

/// A directory of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Below the data directory.
    pub(crate) path: String,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// A symbolic link to a tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// `pg_tblspc/<oid>`.
    pub(crate) path: String,
    /// Where it leads.
    pub(crate) target: String,
}

/// What a backup consists of, each list sorted by path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// All directories but the data directory itself.
    pub(crate) directories: Vec<Directory>,
    /// Tablespaces outside of the data directory's tree.
    pub(crate) links: Vec<Link>,
    /// All files.
    pub(crate) files: Vec<Found>,
    /// What is neither file nor directory nor a tablespace's link, and so is not part of any backup.
    pub(crate) skipped: Vec<String>,
}

/// What the walk must know of the cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    /// Major version.
    pub(crate) major: u32,
    /// Catalogue version (`pg_control`): tablespaces may hold files of several clusters.
    pub(crate) catalog: u32,
    /// Setting `stats_temp_directory`, up to 14: its contents are left out.
    pub(crate) stats_temp_directory: Option<&'a str>,
}

/// Lists the files of the cluster in `data`.
pub(crate) fn list(data: &Path, rules: &Rules<'_>) -> Result<Listing> {
    let mut walk = Walk {
        data,
        major: rules.major,
        version_directory: format!("PG_{}_{}", rules.major, rules.catalog),
        stats: rules.stats_temp_directory.and_then(|d| below(data, d)),
        inside: HashSet::new(),
        listing: Listing::default(),
    };
    if !data.join("PG_VERSION").is_file() {
        return Err(error::source(format!("{} is not a data directory of PostgreSQL", data.display()))
            .meaning("no base backup can be read there"));
    }
    let tablespaces = walk.tablespaces()?;
    walk.directory("", Place::Elsewhere)?;
    for tablespace in tablespaces {
        walk.tablespace(tablespace)?;
    }
    let mut listing = walk.listing;
    listing.directories.sort_by(|a, b| a.path.cmp(&b.path));
    listing.links.sort_by(|a, b| a.path.cmp(&b.path));
    listing.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(listing)
}

/// Where a directory is, as far as the meaning of its files depends on it.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// `global`.
    Global,
    /// `base` or the version directory of a tablespace: holds databases.
    Databases(u32),
    /// The directory of a database.
    Database(u32, u32),
    Elsewhere,
}

struct Walk<'a> {
    data: &'a Path,
    major: u32,
    version_directory: String,
    /// `stats_temp_directory`, below the data directory.
    stats: Option<String>,
    /// Tablespaces that lie below the data directory: they are read through their links only.
    inside: HashSet<String>,
    listing: Listing,
}

impl Walk<'_> {
    /// Oids in `pg_tblspc`; notes the links.
    fn tablespaces(&mut self) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        let Some(entries) = self.entries("pg_tblspc")? else { return Ok(found) };
        for (name, entry) in entries {
            let path = format!("pg_tblspc/{name}");
            let Some(metadata) = self.look(&path, &entry)? else { continue };
            let Some(oid) = oid(&name) else { continue };
            if metadata.is_symlink() {
                let full = self.data.join(&path);
                let target = match std::fs::read_link(&full) {
                    Ok(target) => utf8(target.into_os_string(), &full)?,
                    Err(e) if e.kind() == Io::NotFound => continue,
                    Err(e) => return Err(unreadable(&full, e)),
                };
                if let Some(inside) = below(self.data, &target) {
                    self.inside.insert(inside);
                }
                self.listing.links.push(Link { path, target });
            } else if metadata.is_dir() {
                // `allow_in_place_tablespaces`, for tests of PostgreSQL: a tablespace without a link.
                self.inside.insert(path);
            } else {
                continue;
            }
            found.push(oid);
        }
        Ok(found)
    }

    /// What this cluster has in a tablespace.
    fn tablespace(&mut self, oid: u32) -> Result<()> {
        let path = format!("pg_tblspc/{oid}/{}", self.version_directory);
        let full = self.data.join(&path);
        match std::fs::symlink_metadata(&full) {
            Ok(metadata) => self.listing.directories.push(Directory { path: path.clone(), mode: mode(&metadata) }),
            // Dropped, or still without files.
            Err(e) if e.kind() == Io::NotFound => return Ok(()),
            Err(e) => return Err(unreadable(&full, e)),
        }
        self.directory(&path, Place::Databases(oid))
    }

    fn directory(&mut self, path: &str, place: Place) -> Result<()> {
        let Some(entries) = self.entries(path)? else { return Ok(()) };
        let unlogged = match place {
            Place::Database(..) => unlogged(entries.iter().map(|(name, _)| name.as_str())),
            _ => HashSet::new(),
        };
        for (name, entry) in entries {
            let prefixed = LEFT_OUT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            if prefixed || LEFT_OUT.contains(&name.as_str()) || name == ".DS_Store" {
                continue;
            }
            let relation = match place {
                Place::Database(..) if is_temporary(&name) => continue,
                Place::Database(..) | Place::Global => FileName::parse(&name),
                _ => None,
            };
            if relation.is_some_and(|r| r.fork != Fork::Init && unlogged.contains(&r.relation)) {
                continue;
            }
            let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let Some(metadata) = self.look(&below, &entry)? else { continue };
            if self.emptied(&below, &name, &metadata) {
                continue;
            }
            if metadata.is_dir() {
                let mode = mode(&metadata);
                self.listing.directories.push(Directory { path: below.clone(), mode });
                if !self.inside.contains(&below) {
                    self.directory(&below, inner(place, &below, &name))?;
                }
            } else if metadata.is_file() {
                let kind = match (place, relation) {
                    (Place::Global, _) if name == "pg_control" => Kind::Control,
                    (Place::Global, Some(r)) => Kind::Relation(r.of(GLOBAL_TABLESPACE, 0)),
                    (Place::Database(tablespace, database), Some(r)) => Kind::Relation(r.of(tablespace, database)),
                    _ => Kind::Other,
                };
                self.listing.files.push(found(below, &metadata, kind));
            } else if path != "pg_tblspc" || !metadata.is_symlink() || oid(&name).is_none() {
                self.listing.skipped.push(below);
            }
        }
        Ok(())
    }

    /// Whether this directory is kept without its contents; notes it then, even where it is a link.
    fn emptied(&mut self, path: &str, name: &str, metadata: &Metadata) -> bool {
        let mode = if metadata.is_symlink() { 0o700 } else { mode(metadata) };
        let mut keep = |path: &str| self.listing.directories.push(Directory { path: path.to_owned(), mode });
        if path == "pg_wal" {
            keep(path);
            keep("pg_wal/archive_status");
            if self.major >= 17 {
                keep("pg_wal/summaries");
            }
            return true;
        }
        let emptied = EMPTIED.contains(&name) || self.stats.as_deref() == Some(path) && metadata.is_dir();
        if emptied {
            keep(path);
        }
        emptied
    }

    /// Names and entries of a directory; `None` where it vanished.
    fn entries(&self, path: &str) -> Result<Option<Vec<(String, DirEntry)>>> {
        let full = self.data.join(path);
        let read = match std::fs::read_dir(&full) {
            Ok(read) => read,
            Err(e) if e.kind() == Io::NotFound && !path.is_empty() => return Ok(None),
            Err(e) => return Err(unreadable(&full, e)),
        };
        let mut entries = Vec::new();
        for entry in read {
            let entry = entry.map_err(|e| unreadable(&full, e))?;
            entries.push((utf8(entry.file_name(), &full)?, entry));
        }
        Ok(Some(entries))
    }

    /// What an entry is; `None` where it vanished.
    fn look(&self, path: &str, entry: &DirEntry) -> Result<Option<Metadata>> {
        match entry.metadata() {
            Ok(metadata) => Ok(Some(metadata)),
            Err(e) if e.kind() == Io::NotFound => Ok(None),
            Err(e) => Err(unreadable(&self.data.join(path), e)),
        }
    }
}

/// File numbers of unlogged relations: those that have an init fork in the same directory.
fn unlogged<'n>(names: impl Iterator<Item = &'n str>) -> HashSet<u32> {
    names.filter_map(FileName::parse).filter(|r| r.fork == Fork::Init).map(|r| r.relation).collect()
}

fn inner(place: Place, path: &str, name: &str) -> Place {
    match (place, path) {
        (Place::Elsewhere, "global") => Place::Global,
        (Place::Elsewhere, "base") => Place::Databases(DEFAULT_TABLESPACE),
        (Place::Databases(tablespace), _) => oid(name).map_or(Place::Elsewhere, |db| Place::Database(tablespace, db)),
        _ => Place::Elsewhere,
    }
}

fn found(path: String, metadata: &Metadata, kind: Kind) -> Found {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Found {
        path,
        mode: mode(metadata),
        size: metadata.len(),
        inode: metadata.ino(),
        mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        kind,
    }
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

/// `path` relative to the data directory, where it lies inside; relative paths are relative to it anyway.
fn below(data: &Path, path: &str) -> Option<String> {
    let clean: PathBuf = Path::new(path).components().filter(|c| *c != std::path::Component::CurDir).collect();
    let inside = match clean.is_absolute() {
        true => clean.strip_prefix(data).ok()?,
        false => &clean,
    };
    inside.to_str().filter(|inside| !inside.is_empty()).map(str::to_owned)
}

fn utf8(name: std::ffi::OsString, place: &Path) -> Result<String> {
    name.into_string().map_err(|name| {
        error::source(format!("{} holds a name that is not UTF-8: {}", place.display(), name.to_string_lossy()))
            .meaning("the base backup cannot say what it would contain, and was not taken")
            .hint("PostgreSQL makes no such names: move the file out of the data directory")
    })
}

fn unreadable(path: &Path, e: std::io::Error) -> Error {
    error::source(format!("cannot read {}", path.display())).source(e).meaning("the base backup was not taken")
}
