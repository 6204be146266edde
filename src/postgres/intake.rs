//! From the tar streams of a base backup to the repository: every directory, link and file becomes a
//! line of the manifest, every non-zero page goes into the writing pipeline.
//!
//! Runs on a blocking thread, fed through a bounded channel, so a slow store slows the server down
//! instead of filling memory.

use std::io::Read;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::repository::StreamWriter;
use crate::repository::base_manifest::{BaseManifestWriter, FileEntry, Line, Run};

/// Pages of this size are left out where they are all zeros.
const PAGE: usize = 8192;

/// How much of a file is looked at at once; a multiple of [`PAGE`].
const CHUNK: usize = 32 * PAGE;

/// What the protocol reader hands over.
#[derive(Debug)]
pub(super) enum Item {
    /// A tar stream begins; its paths lie below this prefix ("" or "pg_tblspc/<oid>/").
    Archive(String),
    /// PostgreSQL's own manifest begins.
    Manifest,
    /// Bytes of what began last.
    Data(Bytes),
    /// The server finished; without this the backup is incomplete.
    Finished,
}

/// What came in.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Files, links and directories counted together.
    pub(super) files: u64,
    /// Size of all files.
    pub(super) logical_bytes: u64,
}

/// Reads all items, writes content to `content` and lines to `manifest`.
pub(super) fn take_in(
    items: mpsc::Receiver<Item>,
    mut content: StreamWriter,
    mut manifest: BaseManifestWriter,
) -> Result<(Taken, BaseManifestWriter)> {
    let mut source = Source { items, current: Bytes::new(), next: None };
    let mut taken = Taken::default();
    loop {
        match source.next_item()? {
            Item::Archive(prefix) => take_archive(&mut source, &prefix, &mut content, &mut manifest, &mut taken)?,
            Item::Manifest => {
                let file =
                    FileEntry { path: "backup_manifest".into(), size: 0, mode: 0o600, mtime: 0, runs: Vec::new() };
                take_file(&mut source, file, &mut content, &mut manifest, &mut taken)?;
            }
            Item::Data(_) => return Err(error::internal("base backup data came before an archive")),
            Item::Finished => {
                content.finish()?;
                return Ok((taken, manifest));
            }
        }
    }
}

fn take_archive(
    source: &mut Source,
    prefix: &str,
    content: &mut StreamWriter,
    manifest: &mut BaseManifestWriter,
    taken: &mut Taken,
) -> Result<()> {
    let broken = || "the tar stream of the base backup does not parse".to_owned();
    let mut archive = tar::Archive::new(&mut *source);
    for entry in archive.entries().or_err(ErrorKind::Source, broken)? {
        let mut entry = entry.or_err(ErrorKind::Source, broken)?;
        let header = entry.header();
        let mode = header.mode().or_err(ErrorKind::Source, broken)? & 0o7777;
        let mtime = header.mtime().or_err(ErrorKind::Source, broken)?;
        let kind = header.entry_type();
        let name = String::from_utf8(entry.path_bytes().into_owned())
            .or_err(ErrorKind::Source, || "the cluster holds a file whose name is not UTF-8".to_owned())?;
        let name = name.trim_start_matches("./").trim_end_matches('/');
        let path = format!("{prefix}{name}");
        if kind.is_dir() {
            if !name.is_empty() {
                manifest.line(&Line::Dir { path, mode })?;
                taken.files += 1;
            }
        } else if kind.is_symlink() {
            let target = entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
            manifest.line(&Line::Link { path, target })?;
            taken.files += 1;
        } else if kind.is_file() {
            let file = FileEntry { path, size: 0, mode, mtime, runs: Vec::new() };
            take_file(&mut entry, file, content, manifest, taken)?;
        } else {
            return Err(error::source(format!("the base backup holds {path}, of a kind that is not known ({kind:?})")));
        }
    }
    // What pads the archive behind its end mark.
    std::io::copy(source, &mut std::io::sink()).or_err(ErrorKind::Source, broken)?;
    Ok(())
}

fn take_file(
    reader: &mut impl Read,
    mut file: FileEntry,
    content: &mut StreamWriter,
    manifest: &mut BaseManifestWriter,
    taken: &mut Taken,
) -> Result<()> {
    let mut chunk = [0; CHUNK];
    loop {
        let filled = read_full(reader, &mut chunk)
            .or_err(ErrorKind::Source, || format!("the base backup ended in the middle of {}", file.path))?;
        for page in chunk[..filled].chunks(PAGE) {
            if !is_zero(page) {
                add_run(&mut file, content, page.len() as u64);
                content.write(page)?;
            }
            file.size += page.len() as u64;
        }
        if filled < CHUNK {
            break;
        }
    }
    taken.files += 1;
    taken.logical_bytes += file.size;
    manifest.line(&Line::File(file))
}

/// Notes that `length` bytes at the end of `file` are about to be written to `content`.
fn add_run(file: &mut FileEntry, content: &StreamWriter, length: u64) {
    if let Some(last) = file.runs.last_mut()
        && last.file_offset + last.length == file.size
    {
        last.length += length;
        return;
    }
    let position = content.position();
    file.runs.push(Run { file_offset: file.size, length, frame: position.frame, offset: position.offset });
}

fn is_zero(page: &[u8]) -> bool {
    const ZEROS: [u8; PAGE] = [0; PAGE];
    page == &ZEROS[..page.len()]
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The channel as a reader: it ends where the next archive or the manifest begins.
struct Source {
    items: mpsc::Receiver<Item>,
    current: Bytes,
    next: Option<Item>,
}

impl Source {
    fn next_item(&mut self) -> Result<Item> {
        match self.next.take() {
            Some(item) => Ok(item),
            None => self.items.blocking_recv().ok_or_else(cut_off),
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            if self.next.is_some() {
                return Ok(0);
            }
            match self.items.blocking_recv() {
                Some(Item::Data(bytes)) => self.current = bytes,
                Some(other) => self.next = Some(other),
                None => return Err(std::io::Error::other(cut_off())),
            }
        }
        let take = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..take]);
        Ok(take)
    }
}

fn cut_off() -> error::Error {
    error::source("the connection ended before the base backup was complete")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::base_manifest::{BaseManifest, Header};
    use crate::repository::{packs, testing};
    use crate::units::{Lsn, Timeline};

    fn tar_of(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, content.as_slice()).expect("append");
        }
        builder.into_inner().expect("tar")
    }

    #[tokio::test]
    async fn zero_pages_are_left_out_and_small_files_share_a_frame() {
        let (repository, _) = testing::repository_and_writer().await;
        let holey = [vec![1; PAGE], vec![0; 3 * PAGE], vec![2; PAGE + 100]].concat();
        let tar = tar_of(&[("PG_VERSION", b"15\n".to_vec()), ("base/1/1", holey), ("base/1/2", vec![0; 2 * PAGE])]);
        let (send, items) = mpsc::channel(100);
        let header = Header {
            id: "b".into(),
            system_id: 1,
            timeline: Timeline(1),
            start_lsn: Lsn(1),
            server_version: 150_000,
            wal_segment_size: 16 << 20,
        };
        let (content, task) = packs::start(&repository, "production", 3);
        let manifest = BaseManifestWriter::new(&repository, header).expect("manifest");
        let intake = tokio::task::spawn_blocking(move || take_in(items, content, manifest));
        send.send(Item::Archive(String::new())).await.expect("send");
        for chunk in tar.chunks(1000) {
            send.send(Item::Data(Bytes::copy_from_slice(chunk))).await.expect("send");
        }
        send.send(Item::Finished).await.expect("send");
        let (taken, manifest) = intake.await.expect("thread").expect("taken");
        let written = task.written().await.expect("written");
        assert_eq!((taken.files, taken.logical_bytes), (3, 3 + 5 * PAGE as u64 + 100 + 2 * PAGE as u64));
        assert_eq!(written.plain_bytes, 3 + 2 * PAGE as u64 + 100);
        let object = manifest.put(&repository, "production", &written.packs).await.expect("put");
        let read = BaseManifest::read(&repository, "production", &object.sha256).await.expect("read");
        let page = PAGE as u64;
        assert_eq!(
            read.files[1].runs,
            [
                Run { file_offset: 0, length: page, frame: 0, offset: 3 },
                Run { file_offset: 4 * page, length: page + 100, frame: 0, offset: 3 + PAGE as u32 },
            ]
        );
        assert!(read.files[2].runs.is_empty());
        assert_eq!(read.files[2].size, 2 * page);
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_an_error() {
        let (repository, _) = testing::repository_and_writer().await;
        let tar = tar_of(&[("base/1/1", vec![1; 5 * PAGE])]);
        let (send, items) = mpsc::channel(100);
        let header = Header {
            id: "b".into(),
            system_id: 1,
            timeline: Timeline(1),
            start_lsn: Lsn(1),
            server_version: 150_000,
            wal_segment_size: 16 << 20,
        };
        let (content, task) = packs::start(&repository, "production", 3);
        let manifest = BaseManifestWriter::new(&repository, header).expect("manifest");
        let intake = tokio::task::spawn_blocking(move || take_in(items, content, manifest));
        send.send(Item::Archive(String::new())).await.expect("send");
        send.send(Item::Data(Bytes::copy_from_slice(&tar[..2 * PAGE]))).await.expect("send");
        drop(send);
        let failure = intake.await.expect("thread").expect_err("cut off");
        assert_eq!(failure.kind(), ErrorKind::Source);
        task.abort();
    }
}
