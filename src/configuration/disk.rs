//! Reading a small file from disk, within limits: never a FIFO or a device (which would block or
//! never end), never more than the limit. Failures come back as a reason for people, because one
//! unreadable file is a gap in an export, not the end of it.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::units::ByteSize;

/// Above this a file is no configuration file.
pub(crate) const MAX_FILE: u64 = 10 << 20;

/// Content and permission bits of a regular file of at most [`MAX_FILE`] bytes.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, u32), String> {
    // Non-blocking: opening a FIFO would otherwise wait for a writer.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| e.to_string())?;
    let meta = file.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("not a regular file".into());
    }
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(|e| e.to_string())?;
    if content.len() as u64 > MAX_FILE {
        return Err(too_large());
    }
    Ok((content, meta.mode() & 0o7777))
}

/// Why a large file is left out.
pub(crate) fn too_large() -> String {
    format!("larger than {}, the limit for one file", ByteSize(MAX_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_files_and_refuses_the_rest_without_blocking() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        std::fs::write(&path, "x").expect("write");
        assert_eq!(read(&path).expect("readable").0, b"x");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("mkfifo");
        assert_eq!(read(&fifo).expect_err("a FIFO"), "not a regular file");
        assert_eq!(read(dir.path()).expect_err("a directory"), "not a regular file");
        std::fs::File::create(&path).and_then(|f| f.set_len(MAX_FILE + 1)).expect("grow");
        assert!(read(&path).expect_err("too large").contains("10.0 MiB"));
    }
}
