//! Reading new files into packs.
//!
//! Every file is judged by its name while it is read. One that is torn may be in the middle of being
//! written, so it is read again after all others; what stays torn gets no record, and what it left in
//! the stream is bytes that nothing refers to.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::index::Record;
use super::name::FileName;
use super::read::{ReadOutcome, VerifiedReader};
use crate::error::Result;
use crate::event::Event;
use crate::repository::StreamWriter;
use crate::runtime::Runtime;

/// Name of the phase that reports progress.
pub(super) const PHASE: &str = "reading new attachments";

/// Pauses before a torn file is read again: Odoo writes one in far less time.
pub(super) const PATIENCE: &[Duration] =
    &[Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];

/// Why a file was not stored.
#[derive(Debug)]
pub(super) enum Flaw {
    Torn { found_sha1: [u8; 20], size: u64 },
    Unreadable(std::io::Error),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Torn { size: 0, .. } => f.write_str("the file is empty; Odoo stores no empty files"),
            Flaw::Torn { found_sha1, size } => {
                write!(f, "its content ({size} bytes) has the SHA-1 {}, not that of its name", hex::encode(found_sha1))
            }
            Flaw::Unreadable(e) => write!(f, "cannot be read: {e}"),
        }
    }
}

/// What became of the new files.
#[derive(Debug, Default)]
pub(super) struct Ingested {
    pub(super) stored: Vec<Record>,
    pub(super) bytes: u64,
    /// Sorted by name.
    pub(super) flawed: Vec<(FileName, Flaw)>,
    /// Collected by Odoo since the scan.
    pub(super) vanished: u64,
}

/// The new files of one filestore.
#[derive(Debug)]
pub(super) struct NewFiles {
    /// `data_dir/filestore/<database>`.
    pub(super) directory: PathBuf,
    pub(super) names: Vec<FileName>,
    /// Number of the first frame of this capture.
    pub(super) first_frame: u64,
    /// Time of the scan, in seconds since 1970.
    pub(super) seen: u32,
    /// Pauses before torn files are read again.
    pub(super) patience: &'static [Duration],
}

/// Reads them all into `writer`, on the calling (blocking) thread.
pub(super) fn ingest(files: NewFiles, mut writer: StreamWriter, runtime: &Runtime) -> Result<Ingested> {
    let mut result = Ingested { stored: Vec::with_capacity(files.names.len()), ..Ingested::default() };
    let mut reader = VerifiedReader::new();
    let mut again = one_pass(&files, &files.names, &mut reader, &mut writer, &mut result, runtime)?;
    for pause in files.patience {
        if again.is_empty() {
            break;
        }
        std::thread::sleep(*pause);
        let names: Vec<FileName> = again.into_iter().map(|(name, _)| name).collect();
        again = one_pass(&files, &names, &mut reader, &mut writer, &mut result, runtime)?;
    }
    again.sort_unstable_by_key(|(name, _)| *name);
    result.flawed = again;
    writer.finish()?;
    Ok(result)
}

fn one_pass(
    files: &NewFiles,
    names: &[FileName],
    reader: &mut VerifiedReader,
    writer: &mut StreamWriter,
    result: &mut Ingested,
    runtime: &Runtime,
) -> Result<Vec<(FileName, Flaw)>> {
    let mut flawed = Vec::new();
    for name in names {
        let at = writer.position();
        let outcome = reader.read(&files.directory, name, &mut |piece| {
            runtime.emit(Event::Progress { phase: PHASE.into(), bytes: piece.len() as u64 });
            writer.write(piece)
        })?;
        match outcome {
            ReadOutcome::Good { size } => {
                let frame = files.first_frame + at.frame;
                result.stored.push(Record::new(*name, size, frame, at.offset, files.seen)?);
                result.bytes += size;
            }
            ReadOutcome::Torn { found_sha1, size } => flawed.push((*name, Flaw::Torn { found_sha1, size })),
            ReadOutcome::Vanished => result.vanished += 1,
            ReadOutcome::Unreadable(e) => flawed.push((*name, Flaw::Unreadable(e))),
        }
    }
    Ok(flawed)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use sha1::{Digest, Sha1};

    use super::*;
    use crate::repository::{pack_stream, testing::repository_and_writer};

    fn store(dir: &Path, content: &[u8]) -> FileName {
        let name = FileName::new(Sha1::digest(content).into());
        let path = dir.join(name.path());
        std::fs::create_dir_all(path.parent().expect("parent")).expect("dir");
        std::fs::write(path, content).expect("write");
        name
    }

    #[tokio::test]
    async fn a_file_being_written_is_read_again_and_what_stays_torn_has_no_record() {
        let (_, repository) = repository_and_writer().await;
        let dir = tempfile::tempdir().expect("temp dir");
        let whole = store(dir.path(), b"whole");
        let being_written = store(dir.path(), b"first half, second half");
        let torn = store(dir.path(), &vec![7; 3 << 20]);
        let path = dir.path().join(being_written.path());
        std::fs::write(&path, b"first half").expect("truncate");
        let end = std::fs::OpenOptions::new().write(true).open(dir.path().join(torn.path())).expect("open");
        end.set_len((2 << 20) + 1).expect("truncate");
        let names = vec![being_written, whole, torn, FileName::new([9; 20])];

        let (writer, task) = pack_stream::start(&repository, "production", 3);
        let files = NewFiles { directory: dir.path().to_owned(), names, first_frame: 5, seen: 1, patience: PATIENCE };
        // The file's writer goes on after the first pass has met it, with the first piece of the next file.
        let written = Arc::new(AtomicBool::new(false));
        let once = written.clone();
        let runtime = Runtime::new(move |_| {
            if !once.swap(true, Ordering::SeqCst) {
                let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("open");
                file.write_all(b", second half").expect("write");
            }
        });
        let done = tokio::task::spawn_blocking(move || ingest(files, writer, &runtime)).await.expect("no panic");
        let done = done.expect("ingested");
        let mut stored: Vec<_> = done.stored.iter().map(|r| r.name).collect();
        stored.sort_unstable();
        let mut expected = vec![whole, being_written];
        expected.sort_unstable();
        assert_eq!(stored, expected);
        assert!(done.stored.iter().all(|r| r.frame() >= 5));
        assert_eq!((done.bytes, done.vanished), (28, 1));
        assert!(
            matches!(done.flawed[..], [(name, Flaw::Torn { size: 2_097_153, .. })] if name == torn),
            "{:?}",
            done.flawed
        );
        assert!(task.written().await.expect("written").plain_bytes >= 28);
    }
}
