//! Marks and pieces: the place in the WAL, and then the files that came before it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::super::index::seconds;
use super::super::ingest::{NewFiles, ingest};
use super::super::live::{self, Mark, PieceHeader};
use super::super::name::FileName;
use super::tenant::Tracked;
use crate::error::{self, Result};
use crate::postgres::source::Source;
use crate::repository::{Repository, pack_stream};
use crate::runtime::{Runtime, blocking};

/// Files are stored without a mark when the server does not tell its position for this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the server is now: everything committed up to here has closed its files. On a standby, where it
/// has replayed to.
const POSITION: &str =
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text,
                        CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() ELSE now() END";

/// Asks for the place in the WAL; `None` where the server does not tell.
pub(super) async fn mark(source: &Source, client: Option<Client>) -> Option<(Client, Mark)> {
    let ask = async {
        let client = match client.filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => source.sql().await.ok()?,
        };
        let row = client.query_one(POSITION, &[]).await.ok()?;
        let lsn = row.try_get::<_, Option<&str>>(0).ok()??.parse().ok()?;
        let time: DateTime<Utc> = row.try_get::<_, Option<_>>(1).ok()??;
        Some((client, Mark { lsn, time }))
    };
    timeout(PATIENCE, ask).await.ok().flatten()
}

/// Files of one database to be stored in one piece.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) directory: Arc<Path>,
    pub(super) key: String,
    pub(super) names: HashMap<FileName, u32>,
    /// Holds when all these names are stored.
    mark: Option<Mark>,
    header: PieceHeader,
    /// Holds no more than a mark, and is of no use when this piece is there.
    replaces: Option<String>,
}

impl Job {
    pub(super) fn new(t: &mut Tracked, names: HashMap<FileName, u32>, mark: Option<Mark>, now: DateTime<Utc>) -> Self {
        let mut header = PieceHeader::new(&t.tenant, t.uuid.as_deref(), now);
        header.complete_to = t.mark;
        let (directory, key) = (t.directory.clone(), t.key.clone());
        Self { directory, key, names, mark, header, replaces: t.idle_piece.clone() }
    }
}

/// What became of them.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) names: Vec<FileName>,
    pub(super) bytes: u64,
    /// Torn or unreadable now.
    pub(super) flawed: Vec<FileName>,
    /// Gone before they could be read.
    pub(super) unseen: u64,
    /// Key of the piece, if one was written.
    pub(super) piece: Option<String>,
    /// The newest mark that holds.
    pub(super) mark: Option<Mark>,
}

/// A piece is put within this time after its packs, or not at all: retention deletes packs that nothing refers to when
/// they are days old, and no ledger entry orders the two.
const PROMPTLY: Duration = Duration::from_secs(3600);

/// Stores the files of a job, packs first, then the piece that commits them.
pub(super) async fn store(
    repository: &Repository,
    environment: &str,
    level: i32,
    job: &Job,
    runtime: &Runtime,
) -> Result<Stored> {
    // By both clocks: one stands still while the machine sleeps, the other may be set.
    let (began, began_at) = (Instant::now(), runtime.now());
    let mut header = job.header.clone();
    let (mut ingested, mut packs) = (Default::default(), Vec::new());
    if !job.names.is_empty() {
        let (writer, task) = pack_stream::start(repository, environment, level);
        let mut names: Vec<FileName> = job.names.keys().copied().collect();
        names.sort_unstable();
        let files = NewFiles {
            directory: job.directory.to_path_buf(),
            names,
            first_frame: 0,
            seen: seconds(header.stored_at).get(),
            patience: &[],
        };
        // Progress of a second's work is no news.
        let read = blocking(move || ingest(files, writer, &Runtime::silent())).await;
        packs = task.written().await?.packs;
        ingested = read?;
    }
    if let Some(mark) = job.mark.filter(|_| ingested.flawed.is_empty()) {
        header.complete_to = Some(mark);
    }
    header.unseen = ingested.vanished;
    let mut stored = Stored {
        names: ingested.stored.iter().map(|r| r.name).collect(),
        bytes: ingested.bytes,
        flawed: ingested.flawed.iter().map(|(name, _)| *name).collect(),
        unseen: ingested.vanished,
        piece: None,
        mark: header.complete_to,
    };
    let says_something =
        !ingested.stored.is_empty() || header.unseen > 0 || header.complete_to != job.header.complete_to;
    if says_something {
        let slept = (runtime.now() - began_at).abs().to_std().unwrap_or(Duration::MAX);
        if !packs.is_empty() && began.elapsed().max(slept) > PROMPTLY {
            return Err(error::repository("storing new attachments took longer than an hour")
                .meaning("what was stored is not relied on; the same files are stored again"));
        }
        let records = &ingested.stored;
        stored.piece = Some(live::put(repository, environment, &job.key, &header, &packs, records).await?);
        if let Some(idle) = &job.replaces {
            repository.store.delete_all(vec![idle.clone()]).await?;
        }
    }
    Ok(stored)
}
