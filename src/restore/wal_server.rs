//! WAL for a recovering private server: fetched ahead in parallel, handed over locally.
//!
//! The server runs as another account that may read neither the configuration nor the recovery key.
//! So this process opens the archive and lays whole files down ahead of recovery; `restore_command` takes the next one
//! by its name (`mv`: less than `cp` would do). Where it is not there yet, a messenger asks: a copy of this
//! program that speaks over a Unix socket and moves the file into place. The messenger exits 1 only
//! when the answer says that the archive has no such file, and above 125 for everything else.
//!
//! ```text
//! postgres ──restore_command──▶ mv ◀── ready/ ◀── fetched ahead ◀── WalServer ◀── archive
//!    ◀──────────────────────────┘ else                                  │
//!    ◀──────── messenger ──"GET name"──▶ ──"OK path" | "ABSENT" | "FAILED why"
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::messenger::{place_program, restore_command};
use crate::disk::failed;
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::postgres::account::Account;
use crate::repository::Repository;
use crate::repository::catalogue::Catalogue;
use crate::repository::coverage::Leg;
use crate::repository::packs::joined;
use crate::repository::wal_archive::WalArchive;
use crate::units::Lsn;
use crate::wal_name::{SegmentName, WalFileName};

/// Bytes of WAL on disk ahead of what recovery asked for last: enough for a store that answers in a tenth of a second.
pub(crate) const AHEAD: u64 = 256 << 20;

/// Bytes of WAL that are opened at the same time, in memory.
const IN_MEMORY: u64 = 32 << 20;

/// How often it is looked whether recovery took a file. While it takes one, the next ones lie there.
pub(super) const LOOK: Duration = Duration::from_millis(5);

pub(super) const SOCKET: &str = "wal.sock";

/// The archive as one recovery sees it.
#[derive(Debug)]
struct Shelf {
    repository: Arc<Repository>,
    environment: String,
    segment_size: u64,
    line: Vec<Leg>,
    catalogue: Arc<Catalogue>,
    /// Number of the last segment that recovery can want.
    last: u64,
    /// Number of a segment that is treated as lost.
    withheld: Option<u64>,
    /// Segments fetched ahead.
    depth: u64,
    memory: Semaphore,
    spool: PathBuf,
    /// Whole files, to be taken by their names.
    ready: PathBuf,
    account: Option<Account>,
    /// What is being fetched ahead, or lies there and was not taken yet, by number.
    ahead: Mutex<BTreeMap<u64, Ahead>>,
    bytes: AtomicU64,
    failure: Mutex<Option<Error>>,
}

/// A file that may be taken, and its size.
type Placed = (PathBuf, u64);

#[derive(Debug)]
struct Ahead {
    name: SegmentName,
    task: JoinHandle<Result<Option<Placed>>>,
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
    /// Number of a segment that is treated as lost: a self-test wants to see recovery fail.
    pub withheld: Option<u64>,
}

/// Serves WAL until it is dropped.
#[derive(Debug)]
pub struct WalServer {
    task: JoinHandle<()>,
    command: String,
    shelf: Arc<Shelf>,
}

impl WalServer {
    /// Starts serving the catalogue's WAL along `line`; fetches it ahead at once, `wanted` and nothing behind it. Files are put down in `spool`,
    /// on the file system of the data directory; the socket is made in `folder`, whose path must be short;
    /// `program` is this program.
    pub fn start(
        repository: Arc<Repository>,
        catalogue: Arc<Catalogue>,
        line: Vec<Leg>,
        wanted: Range<Lsn>,
        places: &Places<'_>,
        account: Option<&Account>,
    ) -> Result<Self> {
        let Places { spool, folder, program, withheld } = places;
        let ready = spool.join("ready");
        // What an interrupted recovery left may be half of a file.
        if let Err(e) = std::fs::remove_dir_all(&ready)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(failed("cannot empty", &ready, e));
        }
        std::fs::create_dir_all(&ready).map_err(|e| failed("cannot create", &ready, e))?;
        let messenger = spool.join("lifeboat");
        place_program(program, &messenger)?;
        let socket = folder.join(SOCKET);
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)
            .or_err(ErrorKind::Internal, || format!("cannot listen on {}", socket.display()))?;
        own(spool, 0o700, account)?;
        own(&ready, 0o700, account)?;
        own(&socket, 0o600, account)?;
        let segment_size = catalogue.wal.as_ref().map_or(16 << 20, |w| w.segment_size);
        let shelf = Arc::new(Shelf {
            repository,
            environment: catalogue.environment.clone(),
            segment_size,
            line,
            catalogue,
            last: wanted.end.segment(segment_size),
            withheld: *withheld,
            depth: (AHEAD / segment_size).clamp(4, 64),
            memory: Semaphore::new((IN_MEMORY / segment_size).clamp(1, 8) as usize),
            spool: spool.to_path_buf(),
            ready,
            account: account.cloned(),
            ahead: Mutex::default(),
            bytes: AtomicU64::new(0),
            failure: Mutex::new(None),
        });
        let command = restore_command(&shelf.ready, &messenger, &socket);
        Shelf::fill(&shelf, &mut shelf.ahead(), wanted.start.segment(segment_size));
        let task = tokio::spawn(serve(listener, shelf.clone()));
        Ok(Self { task, command, shelf })
    }

    /// The `restore_command`.
    pub fn restore_command(&self) -> &str {
        &self.command
    }

    /// Whether nothing is fetched ahead any more.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.shelf.ahead().is_empty()
    }

    /// Bytes of WAL handed over so far.
    pub fn bytes(&self) -> u64 {
        Shelf::restock(&self.shelf);
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

fn own(path: &Path, mode: u32, account: Option<&Account>) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|e| failed("cannot open", path, e))?;
    if let Some(account) = account {
        chown(path, Some(account.uid), Some(account.gid)).map_err(|e| failed("cannot hand over", path, e))?;
    }
    Ok(())
}

async fn serve(listener: UnixListener, shelf: Arc<Shelf>) {
    let mut answers = JoinSet::new();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = looks.tick() => {
                Shelf::restock(&shelf);
                continue;
            }
        };
        // Recovery asks for one file at a time; a failing accept has nobody to tell.
        let Ok((stream, _)) = accepted else { continue };
        while answers.try_join_next().is_some() {}
        let Some((name, stream)) = read_request(stream).await else { continue };
        let file = match name.parse::<WalFileName>() {
            Ok(WalFileName::Segment(segment)) => Shelf::segment(&shelf, segment).await,
            Ok(other) => shelf.file(other).await,
            Err(e) => Err(e),
        };
        let text = match &file {
            Ok(Some((path, size))) => {
                shelf.bytes.fetch_add(*size, Ordering::Relaxed);
                format!("OK {}\n", path.display())
            }
            Ok(None) => "ABSENT\n".to_owned(),
            Err(e) => format!("FAILED {}\n", e.message().replace('\n', " ")),
        };
        let failure = match file {
            Ok(Some(_)) => None,
            Ok(None) => shelf.vanished(&name),
            Err(e) => Some(e),
        };
        if failure.is_some() {
            *shelf.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
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
    async fn segment(shelf: &Arc<Shelf>, segment: SegmentName) -> Result<Option<Placed>> {
        let number = segment.number(shelf.segment_size)?;
        if shelf.withheld == Some(number) {
            return Ok(None);
        }
        let task = {
            let mut ahead = shelf.ahead();
            // What was fetched ahead is of the timeline that this line has there; another is fetched now.
            let task = ahead.remove(&number).filter(|a| a.name == segment).map(|a| a.task);
            let task = task.unwrap_or_else(|| tokio::spawn(fetch(shelf.clone(), segment)));
            Self::fill(shelf, &mut ahead, number + 1);
            task
        };
        joined(task.await)
    }

    /// Notes which files recovery took, and fetches as many more.
    fn restock(shelf: &Arc<Shelf>) {
        let mut ahead = shelf.ahead();
        while let Some(mut first) = ahead.first_entry() {
            if !first.get().task.is_finished() {
                return;
            }
            let path = shelf.ready.join(first.get().name.to_string());
            if path.exists() {
                return;
            }
            let (number, result) = (*first.key(), (&mut first.get_mut().task).now_or_never());
            first.remove();
            // Failures and absences are found again by the messenger, who has somebody to tell.
            let Some(Ok(Ok(Some((_, size))))) = result else { return };
            shelf.bytes.fetch_add(size, Ordering::Relaxed);
            Self::fill(shelf, &mut ahead, number + 1);
        }
    }

    /// Fetches the segments from `from` on, as far ahead as is sensible.
    fn fill(shelf: &Arc<Shelf>, ahead: &mut BTreeMap<u64, Ahead>, from: u64) {
        for number in (from..from + shelf.depth).take_while(|number| *number <= shelf.last) {
            let Some(name) = shelf.expected(number) else { break };
            ahead.entry(number).or_insert_with(|| Ahead { name, task: tokio::spawn(fetch_ahead(shelf.clone(), name)) });
        }
    }

    fn ahead(&self) -> MutexGuard<'_, BTreeMap<u64, Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment that recovery will ask for.
    fn expected(&self, number: u64) -> Option<SegmentName> {
        if self.withheld == Some(number) {
            return None;
        }
        let wal = self.catalogue.wal.as_ref()?;
        wal.complete(&self.line, number).or_else(|| wal.live(&self.line, number).map(|l| l.0))
    }

    /// What the absence of a file means that was there when recovery was planned: retention, or somebody else, took it.
    fn vanished(&self, name: &str) -> Option<Error> {
        let Ok(WalFileName::Segment(segment)) = name.parse() else { return None };
        let number = segment.number(self.segment_size).ok()?;
        let was_there = number <= self.last && self.expected(number) == Some(segment);
        was_there.then(|| {
            error::not_recoverable(format!(
                "segment {segment} of WAL was in the archive when recovery was planned, and is not there any more"
            ))
        })
    }

    async fn file(&self, name: WalFileName) -> Result<Option<Placed>> {
        match self.archive().read(&name).await? {
            Some(bytes) => self.put_down(&name.to_string(), &bytes).map(Some),
            None => Ok(None),
        }
    }

    async fn read(&self, segment: &SegmentName) -> Result<Option<Vec<u8>>> {
        if let Some((newer, left)) = self.catalogue.wal.as_ref().and_then(|wal| wal.continued(segment))
            && let Some(mut bytes) = self.archive().read_segment(&newer, self.segment_size).await?
        {
            // What lies behind the switch is the newer timeline's own.
            let shared = (left.0 % self.segment_size) as usize;
            bytes[shared..].fill(0);
            return Ok(Some(bytes));
        }
        self.archive().read_segment(segment, self.segment_size).await
    }

    fn archive(&self) -> WalArchive<'_> {
        WalArchive::new(&self.repository, &self.environment)
    }

    /// Writes a file; it gets its name when it is whole and may be taken.
    fn put_down(&self, name: &str, bytes: &[u8]) -> Result<Placed> {
        let (unfinished, path) = (self.spool.join(name), self.ready.join(name));
        std::fs::write(&unfinished, bytes).map_err(|e| failed("cannot write", &unfinished, e))?;
        own(&unfinished, 0o600, self.account.as_ref())?;
        std::fs::rename(&unfinished, &path).map_err(|e| failed("cannot rename", &unfinished, e))?;
        Ok((path, bytes.len() as u64))
    }
}

/// Fetches a segment that nobody waits for yet, when memory allows.
async fn fetch_ahead(shelf: Arc<Shelf>, segment: SegmentName) -> Result<Option<Placed>> {
    let _permit = shelf.memory.acquire().await.map_err(|_| error::internal("the WAL server ended"))?;
    fetch(shelf.clone(), segment).await
}

/// Fetches a segment, opens it and puts it down, on a thread that may be kept busy.
async fn fetch(shelf: Arc<Shelf>, segment: SegmentName) -> Result<Option<Placed>> {
    let runtime = tokio::runtime::Handle::current();
    let (on_thread, handle) = (shelf.clone(), runtime.clone());
    let work = runtime.spawn_blocking(move || -> Result<Option<Placed>> {
        match handle.block_on(on_thread.read(&segment))? {
            Some(bytes) => on_thread.put_down(&segment.to_string(), &bytes).map(Some),
            None => Ok(None),
        }
    });
    joined(work.await)
}
