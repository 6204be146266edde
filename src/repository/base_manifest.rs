//! The manifest of a base backup: every directory, link and file of the cluster, and for each file the
//! runs of bytes that are stored. What no run covers is zeros: all-zero pages are not stored.

use serde::{Deserialize, Serialize};

use super::Repository;
use super::meta::{self, MetaObject, MetaWriter};
use super::packs::{PackInfo, PackTable};
use crate::error::{self, Result};
use crate::units::{Lsn, Timeline};

/// A run of stored bytes: `length` bytes of the file from `file_offset` stand in the plaintext stream
/// from (`frame`, `offset`) on, crossing into the following frames where needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64, u32)", into = "(u64, u64, u64, u32)")]
pub struct Run {
    /// Offset in the file, in bytes.
    pub file_offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Frame that holds the first byte, counted through the manifest's packs.
    pub frame: u64,
    /// Offset of the first byte in that frame's plaintext.
    pub offset: u32,
}

impl From<(u64, u64, u64, u32)> for Run {
    fn from((file_offset, length, frame, offset): (u64, u64, u64, u32)) -> Self {
        Self { file_offset, length, frame, offset }
    }
}

impl From<Run> for (u64, u64, u64, u32) {
    fn from(run: Run) -> Self {
        (run.file_offset, run.length, run.frame, run.offset)
    }
}

/// One line of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Base(Header),
    /// A directory.
    Dir {
        /// Path relative to the data directory, `/` between parts.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link (a tablespace).
    Link {
        /// Path relative to the data directory.
        path: String,
        /// Where it pointed at the source.
        target: String,
    },
    /// A file.
    File(FileEntry),
    /// A pack that runs refer to, in the order that numbers frames.
    Pack(PackInfo),
}

/// The first line of a base backup's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Id of the base backup.
    pub id: String,
    /// System identifier of the cluster.
    pub system_id: u64,
    /// Timeline of the backup.
    pub timeline: Timeline,
    /// Where replay starts.
    pub start_lsn: Lsn,
    /// `server_version_num` of the source.
    pub server_version: u32,
    /// Size of a WAL segment in bytes.
    pub wal_segment_size: u64,
    /// Whether every change of a page moved its LSN: data checksums or `wal_log_hints` were on. Without,
    /// a page may have changed although its LSN is old.
    #[serde(default)]
    pub hints_logged: bool,
    /// Id of the base backup whose pages this one took over where they had not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// What the file system said of a file before it was read: by it the next backup knows whether anybody
/// wrote to the file since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, i64, i64, i64)", into = "(u64, i64, i64, i64)")]
pub struct FileStat {
    /// Number of its inode.
    pub inode: u64,
    /// Time of the last write, in nanoseconds since 1970.
    pub mtime: i64,
    /// Time of the last change of the inode, which no program can set, in nanoseconds since 1970.
    pub ctime: i64,
    /// When the file system was asked, by the host's clock, in nanoseconds since 1970.
    pub asked: i64,
}

impl From<(u64, i64, i64, i64)> for FileStat {
    fn from((inode, mtime, ctime, asked): (u64, i64, i64, i64)) -> Self {
        Self { inode, mtime, ctime, asked }
    }
}

impl From<FileStat> for (u64, i64, i64, i64) {
    fn from(stat: FileStat) -> Self {
        (stat.inode, stat.mtime, stat.ctime, stat.asked)
    }
}

/// A file of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path relative to the data directory; tablespaces appear under `pg_tblspc/<oid>/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time at the source, in seconds since 1970.
    pub mtime: u64,
    /// Stored runs, by file offset.
    pub runs: Vec<Run>,
    /// What the file system said of it; absent where it came over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stat: Option<FileStat>,
    /// XXH3-128 of its content in hex, for files that are stored whole or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Pages of the file, from 0, whose checksum was wrong at the source; stored as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<u32>,
}

/// A manifest in memory.
#[derive(Debug)]
pub struct BaseManifest {
    /// The first line.
    pub header: Header,
    /// Directories: path and mode.
    pub dirs: Vec<(String, u32)>,
    /// Links: path and target.
    pub links: Vec<(String, String)>,
    /// Files.
    pub files: Vec<FileEntry>,
    /// The packs.
    pub packs: PackTable,
}

impl BaseManifest {
    /// Reads a manifest.
    pub async fn read(repository: &Repository, environment: &str, sha256: &str) -> Result<Self> {
        let mut header = None;
        let (mut dirs, mut links, mut files) = (Vec::new(), Vec::new(), Vec::new());
        let mut packs = PackTable::default();
        meta::read(repository, environment, sha256, |line: Line| {
            match line {
                Line::Base(first) => header = Some(first),
                Line::Dir { path, mode } => dirs.push((safe(path)?, mode)),
                Line::Link { path, target } => links.push((safe(path)?, target)),
                Line::File(mut file) => {
                    file.path = safe(file.path)?;
                    files.push(file);
                }
                Line::Pack(pack) => {
                    packs.push(pack);
                }
            }
            Ok(())
        })
        .await?;
        let header =
            header.ok_or_else(|| error::integrity(format!("meta/{sha256} is not a base backup's manifest")))?;
        Ok(Self { header, dirs, links, files, packs })
    }

    /// Puts the manifest.
    pub async fn put(&self, repository: &Repository, environment: &str) -> Result<MetaObject> {
        let mut writer = MetaWriter::new(repository)?;
        writer.line(&Line::Base(self.header.clone()))?;
        for (path, mode) in &self.dirs {
            writer.line(&Line::Dir { path: path.clone(), mode: *mode })?;
        }
        for (path, target) in &self.links {
            writer.line(&Line::Link { path: path.clone(), target: target.clone() })?;
        }
        for file in &self.files {
            writer.line(&Line::File(file.clone()))?;
        }
        for pack in self.packs.packs() {
            writer.line(&Line::Pack(pack.clone()))?;
        }
        writer.put(repository, environment).await
    }

    /// Size of all files in bytes.
    pub fn logical_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }
}

/// A path that stays below the directory it is joined to.
fn safe(path: String) -> Result<String> {
    let inside = !path.is_empty() && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    match inside {
        true => Ok(path),
        false => {
            Err(error::integrity(format!("the manifest holds the path \"{path}\", which leaves the data directory")))
        }
    }
}
