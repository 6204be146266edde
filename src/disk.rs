//! What restoring needs of the file system: ownership, emptiness, durability, and errors that say what
//! a full disk means.

use std::fs::File;
use std::path::Path;

use crate::error::{self, Error, Result};

/// An account that restored files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
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

/// `syncfs(2)`: everything written to the file system that holds `directory` is durable, or an error.
pub fn flush_file_system(directory: &Path) -> Result<()> {
    let opened = File::open(directory).map_err(|e| failed("cannot open", directory, e))?;
    rustix::fs::syncfs(&opened).map_err(|e| failed("cannot flush the file system of", directory, e.into()))
}

/// `fsync(2)` of a directory: its entries are durable, or an error.
pub fn sync_dir(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| failed("cannot flush", directory, e))
}

/// An error of the restoring host's file system.
pub fn failed(what: &str, path: &Path, e: std::io::Error) -> Error {
    let full = matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let error = error::internal(format!("{what} {}", path.display())).source(e);
    match full {
        true => error
            .meaning("the target disk is full; the directory is incomplete and cannot be started; the repository is untouched")
            .hint("`lifeboat restore … --plan` tells how much space is needed; free it and run the same command again to continue"),
        false => error.meaning("the directory is incomplete and cannot be started; the repository is untouched"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn only_empty_or_absent_directories_are_filled() {
        let folder = tempfile::tempdir().expect("dir");
        require_empty(folder.path()).expect("empty");
        require_empty(&folder.path().join("absent")).expect("absent");
        std::fs::write(folder.path().join("x"), "x").expect("write");
        assert_eq!(require_empty(folder.path()).expect_err("holds x").kind(), ErrorKind::Usage);
    }
}
