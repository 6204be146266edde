//! WAL for a recovering private server: fetched ahead in parallel, handed over locally.
//!
//! The server runs as another account that may read neither the configuration nor the recovery key.
//! So this process opens the archive, and `restore_command` is only a messenger: a copy of this
//! program that asks over a Unix socket and moves the file into place. The messenger exits 1 only
//! when the answer says that the archive has no such file, and above 125 for everything else.
//!
//! ```text
//! postgres ──restore_command──▶ messenger ──"GET name"──▶ WalServer ──▶ archive
//!    ◀──────── file moved ────────┘ ◀──"OK path" | "ABSENT" | "FAILED why"──┘
//! ```

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::disk::failed;
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::postgres::account::Account;
use crate::repository::Repository;
use crate::repository::catalogue::Catalogue;
use crate::repository::coverage::Leg;
use crate::repository::packs::joined;
use crate::repository::wal_archive::WalArchive;
use crate::wal_name::{SegmentName, WalFileName};

/// Segments fetched ahead of the one that was asked for.
const AHEAD: u64 = 4;

const SOCKET: &str = "wal.sock";

/// The archive as one recovery sees it.
#[derive(Debug)]
struct Shelf {
    repository: Arc<Repository>,
    environment: String,
    segment_size: u64,
    line: Vec<Leg>,
    catalogue: Arc<Catalogue>,
    spool: PathBuf,
    account: Option<Account>,
    bytes: AtomicU64,
    failure: Mutex<Option<Error>>,
}

/// Where a [`WalServer`] works.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Directory for files on their way, on the file system of the data directory.
    pub spool: &'a Path,
    /// Directory for the socket; a short path.
    pub folder: &'a Path,
    /// This program.
    pub program: &'a Path,
}

/// Serves WAL until it is dropped.
#[derive(Debug)]
pub struct WalServer {
    task: JoinHandle<()>,
    command: String,
    shelf: Arc<Shelf>,
}

impl WalServer {
    /// Starts serving the catalogue's WAL along `line`. Files are put down in `spool`, on the file system
    /// of the data directory; the socket is made in `folder`, whose path must be short; `program` is this
    /// program.
    pub fn start(
        repository: Arc<Repository>,
        catalogue: Arc<Catalogue>,
        line: Vec<Leg>,
        places: &Places<'_>,
        account: Option<&Account>,
    ) -> Result<Self> {
        let Places { spool, folder, program } = places;
        std::fs::create_dir_all(spool).map_err(|e| failed("cannot create", spool, e))?;
        let messenger = spool.join("lifeboat");
        place_program(program, &messenger)?;
        let socket = folder.join(SOCKET);
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)
            .or_err(ErrorKind::Internal, || format!("cannot listen on {}", socket.display()))?;
        own(spool, 0o700, account)?;
        own(&socket, 0o600, account)?;
        let segment_size = catalogue.wal.as_ref().map_or(16 << 20, |w| w.segment_size);
        let shelf = Arc::new(Shelf {
            repository,
            environment: catalogue.environment.clone(),
            segment_size,
            line,
            catalogue,
            spool: spool.to_path_buf(),
            account: account.cloned(),
            bytes: AtomicU64::new(0),
            failure: Mutex::new(None),
        });
        let command = format!("{} wal-hand-over {} %f %p", shell_word(&messenger), shell_word(&socket));
        let task = tokio::spawn(serve(listener, shelf.clone()));
        Ok(Self { task, command, shelf })
    }

    /// The `restore_command`.
    pub fn restore_command(&self) -> &str {
        &self.command
    }

    /// Bytes of WAL handed over so far.
    pub fn bytes(&self) -> u64 {
        self.shelf.bytes.load(Ordering::Relaxed)
    }

    /// The last failure to hand a file over: what a server that gave up could not say.
    pub fn take_failure(&self) -> Option<Error> {
        self.shelf.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for WalServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Puts the program where the server's account can run it; a link where possible, else a copy.
fn place_program(program: &Path, to: &Path) -> Result<()> {
    let _ = std::fs::remove_file(to);
    let placed = std::fs::hard_link(program, to).or_else(|_| std::fs::copy(program, to).map(|_| ()));
    placed.map_err(|e| failed("cannot place the program at", to, e))?;
    if std::fs::metadata(to).map_err(|e| failed("cannot look at", to, e))?.permissions().mode() & 0o005 != 0o005 {
        // A link shares its mode with the original, which is not ours to change.
        let _ = std::fs::remove_file(to);
        std::fs::copy(program, to).map_err(|e| failed("cannot place the program at", to, e))?;
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))
            .map_err(|e| failed("cannot open", to, e))?;
    }
    Ok(())
}

fn own(path: &Path, mode: u32, account: Option<&Account>) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|e| failed("cannot open", path, e))?;
    if let Some(account) = account {
        chown(path, Some(account.uid), Some(account.gid)).map_err(|e| failed("cannot hand over", path, e))?;
    }
    Ok(())
}

/// Quotes a path for `/bin/sh`; `%` is special to PostgreSQL.
fn shell_word(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''").replace('%', "%%"))
}

async fn serve(listener: UnixListener, shelf: Arc<Shelf>) {
    let mut ahead: HashMap<u64, JoinHandle<Result<Option<PathBuf>>>> = HashMap::new();
    let mut answers = JoinSet::new();
    loop {
        // Recovery asks for one file at a time; a failing accept has nobody to tell.
        let Ok((stream, _)) = listener.accept().await else { continue };
        while answers.try_join_next().is_some() {}
        let Some((name, stream)) = read_request(stream).await else { continue };
        let file = match name.parse::<WalFileName>() {
            Ok(WalFileName::Segment(segment)) => Shelf::segment(&shelf, segment, &mut ahead).await,
            Ok(other) => shelf.file(other).await,
            Err(e) => Err(e),
        };
        let text = match &file {
            Ok(Some(path)) => {
                let size = std::fs::metadata(path).map_or(0, |m| m.len());
                shelf.bytes.fetch_add(size, Ordering::Relaxed);
                format!("OK {}\n", path.display())
            }
            Ok(None) => "ABSENT\n".to_owned(),
            Err(e) => format!("FAILED {}\n", e.message().replace('\n', " ")),
        };
        if let Err(e) = file {
            *shelf.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
        }
        answers.spawn(answer(stream, text));
    }
}

async fn read_request(stream: UnixStream) -> Option<(String, UnixStream)> {
    let mut reader = tokio::io::BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).await.ok()?;
    Some((line.trim().strip_prefix("GET ")?.to_owned(), reader.into_inner()))
}

async fn answer(mut stream: UnixStream, text: String) {
    // A messenger that went away was killed with its server.
    let _ = stream.write_all(text.as_bytes()).await;
}

impl Shelf {
    /// The file of a segment; fetches the following ones ahead.
    async fn segment(
        shelf: &Arc<Shelf>,
        segment: SegmentName,
        ahead: &mut HashMap<u64, JoinHandle<Result<Option<PathBuf>>>>,
    ) -> Result<Option<PathBuf>> {
        let number = segment.number(shelf.segment_size)?;
        ahead.retain(|n, _| *n >= number);
        for next in number + 1..=number + AHEAD {
            let Some(name) = shelf.expected(next) else { break };
            ahead.entry(next).or_insert_with(|| tokio::spawn(fetch(shelf.clone(), name)));
        }
        // What was fetched ahead is of the timeline that this line has there; another is fetched now.
        match ahead.remove(&number) {
            Some(task) if shelf.expected(number) == Some(segment) => joined(task.await),
            _ => fetch(shelf.clone(), segment).await,
        }
    }

    /// The segment that recovery will ask for.
    fn expected(&self, number: u64) -> Option<SegmentName> {
        let wal = self.catalogue.wal.as_ref()?;
        wal.complete(&self.line, number).or_else(|| wal.live(&self.line, number).map(|l| l.0))
    }

    async fn file(&self, name: WalFileName) -> Result<Option<PathBuf>> {
        match self.archive().read(&name).await? {
            Some(bytes) => self.put_down(&name.to_string(), &bytes).map(Some),
            None => Ok(None),
        }
    }

    fn archive(&self) -> WalArchive<'_> {
        WalArchive::new(&self.repository, &self.environment)
    }

    fn put_down(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.spool.join(name);
        std::fs::write(&path, bytes).map_err(|e| failed("cannot write", &path, e))?;
        own(&path, 0o600, self.account.as_ref())?;
        Ok(path)
    }
}

async fn fetch(shelf: Arc<Shelf>, segment: SegmentName) -> Result<Option<PathBuf>> {
    if let Some((newer, left)) = shelf.catalogue.wal.as_ref().and_then(|wal| wal.continued(&segment))
        && let Some(mut bytes) = shelf.archive().read_segment(&newer, shelf.segment_size).await?
    {
        // What lies behind the switch is the newer timeline's own.
        let shared = (left.0 % shelf.segment_size) as usize;
        bytes[shared..].fill(0);
        return shelf.put_down(&segment.to_string(), &bytes).map(Some);
    }
    match shelf.archive().read_segment(&segment, shelf.segment_size).await? {
        Some(bytes) => shelf.put_down(&segment.to_string(), &bytes).map(Some),
        None => Ok(None),
    }
}

/// The messenger's part: asks for `name` and moves the file to `destination`.
pub fn hand_over(socket: &Path, name: &str, destination: &Path) -> Result<()> {
    let lost = |e: std::io::Error| -> Error {
        error::repository(format!("the process that restores cannot be asked for {name}")).source(e)
    };
    let mut stream = BlockingStream::connect(socket).map_err(lost)?;
    writeln!(stream, "GET {name}").map_err(lost)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(lost)?;
    match answer.trim_end().split_once(' ').unwrap_or((answer.trim_end(), "")) {
        ("OK", path) => std::fs::rename(path, destination).or_else(|_| copy(Path::new(path), destination)),
        ("ABSENT", _) => return Err(error::absent(format!("{name} is not in the archive"))),
        ("FAILED", why) => return Err(error::repository(why.to_owned())),
        _ => return Err(error::repository("the process that restores went away")),
    }
    .map_err(|e| failed("cannot place", destination, e))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::copy(from, to)?;
    std::fs::remove_file(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_shell_and_postgresql() {
        assert_eq!(shell_word(Path::new("/a b/it's 100%")), r"'/a b/it'\''s 100%%'");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn absence_and_failure_are_told_apart() {
        let folder = tempfile::tempdir().expect("dir");
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).expect("bind");
        let place = folder.path().join("file");
        std::fs::write(&place, "wal").expect("write");
        let answers = [format!("OK {}\n", place.display()), "ABSENT\n".into(), "FAILED store down\n".into()];
        tokio::spawn(async move {
            for text in answers {
                let (stream, _) = listener.accept().await.expect("accept");
                let (_, stream) = read_request(stream).await.expect("request");
                answer(stream, text).await;
            }
        });
        let destination = folder.path().join("dest");
        let asked = destination.clone();
        let kinds = tokio::task::spawn_blocking(move || {
            [0, 1, 2].map(|_| hand_over(&socket, "00000002.history", &asked).map_err(|e| e.kind()))
        });
        let kinds = kinds.await.expect("thread");
        assert_eq!(kinds, [Ok(()), Err(ErrorKind::Absent), Err(ErrorKind::Repository)]);
        assert_eq!(std::fs::read(&destination).expect("moved"), b"wal");
    }
}
