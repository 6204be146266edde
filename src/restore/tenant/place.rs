//! Giving what is finished its final name, never over anything that exists.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Uid;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::disk::{Owner, failed, sync_dir};
use crate::error::{self, Result};

/// Refuses a name that is taken; an empty directory is not.
pub fn require_free(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(error::usage(format!("cannot look at {}", path.display())).source(e)),
        Ok(about) if about.is_dir() && std::fs::read_dir(path).is_ok_and(|mut d| d.next().is_none()) => {}
        Ok(_) => {
            return Err(error::usage(format!("{} exists", path.display()))
                .meaning("nothing was restored, and nothing is ever overwritten")
                .hint("name another one, or move it away first"));
        }
    }
    match path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        None => Ok(()),
        Some(parent) => Err(error::usage(format!("the directory {} does not exist", parent.display()))
            .meaning("nothing was restored")
            .hint("make it, on the disk that you mean")),
    }
}

/// Renames what is finished; a name that was taken meanwhile is an error.
pub(super) fn give_name(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        match std::fs::remove_dir(to) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("cannot take the place of", to, e));
            }
            _ => {}
        }
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot promise it: the gap between the look and the rename is ours to take.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            require_free(to)?;
            std::fs::rename(from, to).map_err(|e| failed("cannot rename to", to, e))?;
        }
        other => other.map_err(|e| failed("cannot rename to", to, e.into()))?,
    }
    sync_dir(to.parent().unwrap_or(Path::new(".")))
}

/// Who owns the directory that something is put into; `None` where only root could hand it over.
pub(super) fn owner_beside(path: &Path) -> Option<Owner> {
    let about = std::fs::metadata(path.parent()?).ok()?;
    Uid::effective().is_root().then(|| Owner { uid: about.uid(), gid: about.gid() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_never_given_away() {
        let dir = tempfile::tempdir().expect("dir");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("old"), "old").expect("write");
        std::fs::write(at("new"), "new").expect("write");
        require_free(&at("old")).expect_err("taken");
        give_name(&at("new"), &at("old")).expect_err("taken");
        assert_eq!(std::fs::read_to_string(at("old")).expect("there"), "old");
        std::fs::create_dir_all(at("full/x")).expect("dir");
        std::fs::create_dir(at("empty")).expect("dir");
        std::fs::create_dir_all(at("staged/y")).expect("dir");
        require_free(&at("full")).expect_err("taken");
        require_free(&at("empty")).expect("free");
        require_free(&at("nowhere/x")).expect_err("no parent");
        give_name(&at("staged"), &at("full")).expect_err("taken");
        give_name(&at("staged"), &at("empty")).expect("free");
        assert!(at("empty/y").is_dir() && at("full/x").is_dir());
    }
}
