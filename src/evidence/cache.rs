//! Entries of a ledger that this host has seen, kept in its state directory, so that a command need not fetch years
//! of them one by one.
//!
//! Nothing is believed because it stands here: whoever takes entries from it verifies signatures and links as if they
//! came from the store, and holds the end against the store (`read.rs`). So a file that was tampered with is of no
//! use, and one that is gone costs requests. What it adds: a store that lost or changed what this host has seen is
//! found out.
//!
//! One file for each environment, appended to only: the length of an entry (4 bytes, little endian), its bytes, and so
//! on from entry 1. Several processes may use it at once; what one of them was killed in the middle of is cut off.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// No entry is larger; a length beyond it is damage.
const LARGEST: u32 = 64 << 20;

/// The entries of one ledger that this host has seen.
#[derive(Debug, Clone)]
pub struct LedgerCache {
    file: PathBuf,
}

impl LedgerCache {
    /// The cache in `folder` for the ledger of `environment` in `repository`; it need not exist.
    pub fn new(folder: &Path, repository: &str, environment: &str) -> Self {
        Self { file: folder.join(repository).join(format!("{environment}.entries")) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The entries, in order from the first. Whatever cannot be read is as if it were not there.
    pub(crate) fn load(&self) -> Vec<Bytes> {
        let Ok(bytes) = fs::read(&self.file) else { return Vec::new() };
        whole(Bytes::from(bytes)).0
    }

    /// Adds entries behind the first `known`, unless another process was faster. A disk that is full costs requests
    /// later, so nothing is an error.
    pub(crate) fn extend(&self, known: u64, entries: &[Bytes]) {
        if !entries.is_empty() {
            let _ = self.try_extend(known, entries);
        }
    }

    fn try_extend(&self, known: u64, entries: &[Bytes]) -> std::io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.file)?;
        file.lock()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (there, end) = whole(Bytes::from(bytes));
        let Some(new) =
            (there.len() as u64).checked_sub(known).and_then(|ahead| entries.get(usize::try_from(ahead).ok()?..))
        else {
            // Shorter than what is known, so it was removed meanwhile; or longer than all that is new.
            return Ok(());
        };
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        let mut added = Vec::new();
        for entry in new {
            let length = u32::try_from(entry.len()).unwrap_or(u32::MAX);
            added.extend_from_slice(&length.to_le_bytes());
            added.extend_from_slice(entry);
        }
        // A disk that is full in the middle of this leaves a part, which the next one cuts off.
        file.write_all(&added)
    }

    /// Forgets everything.
    pub(crate) fn forget(&self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// The whole entries at the beginning of `bytes`, and where they end.
fn whole(bytes: Bytes) -> (Vec<Bytes>, u64) {
    let (mut entries, mut at) = (Vec::new(), 0);
    while let Some(length) = bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes) {
        let end = at + 4 + length as usize;
        if length == 0 || length > LARGEST || end > bytes.len() {
            break;
        }
        entries.push(bytes.slice(at + 4..end));
        at = end;
    }
    (entries, at as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, LedgerCache) {
        let folder = tempfile::tempdir().expect("folder");
        let cache = LedgerCache::new(folder.path(), "0123", "production");
        (folder, cache)
    }

    fn entries(names: &[&str]) -> Vec<Bytes> {
        names.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())).collect()
    }

    #[test]
    fn entries_come_back_and_are_added_once_whoever_is_faster() {
        let (_folder, cache) = cache();
        assert_eq!(cache.load(), entries(&[]));
        cache.extend(0, &entries(&["one", "two"]));
        cache.extend(0, &entries(&["one", "two", "three"]));
        cache.extend(2, &entries(&["three"]));
        assert_eq!(cache.load(), entries(&["one", "two", "three"]));
        cache.extend(5, &entries(&["six"]));
        assert_eq!(cache.load().len(), 3, "no hole");
        cache.forget();
        assert_eq!(cache.load(), entries(&[]));
    }

    #[test]
    fn what_was_cut_off_is_written_again() {
        let (_folder, cache) = cache();
        cache.extend(0, &entries(&["one", "two"]));
        let bytes = fs::read(cache.path()).expect("file");
        fs::write(cache.path(), &bytes[..bytes.len() - 1]).expect("cut");
        assert_eq!(cache.load(), entries(&["one"]));
        cache.extend(1, &entries(&["two"]));
        assert_eq!(fs::read(cache.path()).expect("file"), bytes);
    }
}
