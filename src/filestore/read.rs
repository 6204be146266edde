//! Reading one file of a filestore and judging it by its name.
//!
//! Odoo writes files in place, without fsync or rename, so a file may be half there: content whose
//! SHA-1 is not the name is torn, whatever the reason, and must not be stored under that name.
//! Memory is one buffer of 1 MiB for any size. A file that fits into it reaches the receiver only
//! when it is good; of a larger one the receiver has seen bytes before the verdict, and must drop
//! them unless the outcome is [`ReadOutcome::Good`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha1::{Digest, Sha1};

use super::name::FileName;
use crate::error::Result;

const BUFFER: usize = 1 << 20;

/// What reading a file came to.
#[derive(Debug)]
pub enum ReadOutcome {
    /// The content is what the name says.
    Good {
        /// Its size in bytes.
        size: u64,
    },
    /// The content is something else: being written at this moment, or damaged at the source. An
    /// empty file is always torn, because Odoo stores no empty files.
    Torn {
        /// The SHA-1 of what was found.
        found_sha1: [u8; 20],
        /// Its size in bytes.
        size: u64,
    },
    /// It is no longer there: Odoo collected it.
    Vanished,
    /// The host cannot read it.
    Unreadable(io::Error),
}

/// Reads files with one buffer.
#[derive(Debug)]
pub struct VerifiedReader {
    buffer: Box<[u8]>,
}

impl Default for VerifiedReader {
    fn default() -> Self {
        Self::new()
    }
}

impl VerifiedReader {
    /// A reader; keep it for many files.
    pub fn new() -> Self {
        Self { buffer: vec![0; BUFFER].into_boxed_slice() }
    }

    /// Reads `name` below `directory` (`data_dir/filestore/<database>`) and hands its content to
    /// `sink` in order, in pieces of at most 1 MiB. Fails only when `sink` does.
    pub fn read(
        &mut self,
        directory: &Path,
        name: &FileName,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<ReadOutcome> {
        let mut file = match open(&directory.join(name.path())) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(ReadOutcome::Vanished),
            Err(e) => return Ok(ReadOutcome::Unreadable(e)),
        };
        let mut hash = Sha1::new();
        let mut size = 0;
        loop {
            let piece = match fill(&mut file, &mut self.buffer) {
                Ok(length) => &self.buffer[..length],
                Err(e) => return Ok(ReadOutcome::Unreadable(e)),
            };
            hash.update(piece);
            size += piece.len() as u64;
            if piece.len() == BUFFER {
                sink(piece)?;
                continue;
            }
            let found_sha1: [u8; 20] = hash.finalize().into();
            if found_sha1 != name.sha1() || size == 0 {
                return Ok(ReadOutcome::Torn { found_sha1, size });
            }
            if !piece.is_empty() {
                sink(piece)?;
            }
            return Ok(ReadOutcome::Good { size });
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Non-blocking: a FIFO under an attachment's name must not hang the capture.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Fills the buffer as far as the file goes.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error;

    fn store(dir: &Path, content: &[u8]) -> FileName {
        let name = FileName::new(Sha1::digest(content).into());
        let path = dir.join(name.path());
        std::fs::create_dir_all(path.parent().expect("parent")).expect("dir");
        std::fs::write(path, content).expect("write");
        name
    }

    fn read(dir: &Path, name: &FileName) -> (ReadOutcome, Vec<u8>) {
        let mut seen = Vec::new();
        let outcome = VerifiedReader::new().read(dir, name, &mut |piece| {
            assert!(!piece.is_empty() && piece.len() <= BUFFER);
            seen.extend_from_slice(piece);
            Ok(())
        });
        (outcome.expect("the receiver never fails"), seen)
    }

    #[test]
    fn good_files_of_every_size_around_the_buffer() {
        let dir = tempfile::tempdir().expect("temp dir");
        for length in [1, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER, 3 * BUFFER + 17] {
            let content: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let name = store(dir.path(), &content);
            let (outcome, seen) = read(dir.path(), &name);
            assert!(matches!(outcome, ReadOutcome::Good { size } if size == length as u64), "{outcome:?}");
            assert_eq!(seen, content);
        }
    }

    #[test]
    fn torn_vanished_and_unreadable_files() {
        let dir = tempfile::tempdir().expect("temp dir");
        let name = store(dir.path(), b"whole content");
        let path = dir.path().join(name.path());
        std::fs::write(&path, b"whole").expect("truncate");
        let (outcome, seen) = read(dir.path(), &name);
        let found: [u8; 20] = Sha1::digest(b"whole").into();
        assert!(matches!(outcome, ReadOutcome::Torn { found_sha1, size: 5 } if found_sha1 == found), "{outcome:?}");
        assert!(seen.is_empty(), "torn bytes of a small file reached the receiver");
        std::fs::write(&path, b"").expect("truncate");
        assert!(matches!(read(dir.path(), &name).0, ReadOutcome::Torn { size: 0, .. }));
        std::fs::remove_file(&path).expect("remove");
        assert!(matches!(read(dir.path(), &name).0, ReadOutcome::Vanished));
        std::fs::create_dir(&path).expect("a directory under its name");
        assert!(matches!(read(dir.path(), &name).0, ReadOutcome::Unreadable(_)));
        std::fs::remove_dir(&path).expect("remove");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).expect("mkfifo");
        assert!(matches!(read(dir.path(), &name).0, ReadOutcome::Unreadable(_)));
    }

    #[test]
    fn an_empty_file_is_torn_even_under_the_digest_of_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let name = store(dir.path(), b"");
        assert_eq!(name.to_string(), "da/da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert!(matches!(read(dir.path(), &name).0, ReadOutcome::Torn { size: 0, .. }));
    }

    #[test]
    fn a_failing_receiver_is_the_only_error() {
        let dir = tempfile::tempdir().expect("temp dir");
        let name = store(dir.path(), b"x");
        let outcome = VerifiedReader::new().read(dir.path(), &name, &mut |_| Err(error::repository("full")));
        assert_eq!(outcome.expect_err("fails").kind(), error::ErrorKind::Repository);
    }
}
