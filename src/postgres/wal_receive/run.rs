//! The receiver from start to stop: connects, finds the place, follows timelines, comes back after
//! outages, names gaps, and writes into the ledger what is complete.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::heal::Healer;
use super::options::{ReceiveOptions, Received, Slot};
use super::place::Place;
use super::session::{End, Session};
use super::storer::Tally;
use crate::config::Environment;
use crate::error::{self, Error, ErrorKind, Result};
use crate::event::Event;
use crate::evidence::{Appended, Ledger};
use crate::postgres::backup::record_failure;
use crate::postgres::block_files::BlockFiles;
use crate::postgres::replication::{ReplicationConnection, sqlstate, wal_is_gone};
use crate::postgres::source::Source;
use crate::postgres::{heartbeat, wal_range};
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::repository::wal_archive::STEP;
use crate::runtime::Runtime;
use crate::storage::RetryPolicy;
use crate::units::{Lsn, Timeline};

/// Complete segments are written into the ledger this often.
const RECORD_EVERY: Duration = Duration::from_secs(3600);

/// A slot in use may be that of a receiver that just died.
const SLOT_PATIENCE: Duration = Duration::from_secs(5);

/// The same when that receiver was this one, before the network broke.
const OWN_SLOT_PATIENCE: Duration = Duration::from_secs(120);

/// The first pause between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Receives WAL of `environment` until `until` is reached or `stop` is cancelled.
pub async fn receive(
    repository: &Repository,
    environment: &Environment,
    options: ReceiveOptions,
    stop: &CancellationToken,
    runtime: &Runtime,
) -> Result<Received> {
    let patience = RetryPolicy {
        give_up_after: options.give_up_after.unwrap_or(Duration::from_secs(u64::from(u32::MAX))),
        ..Default::default()
    };
    let heartbeat = options.heartbeat;
    let (name, temporary) = match options.slot {
        Slot::Configured => (environment.postgres.slot.clone(), None),
        Slot::Temporary { connection, name } => (name, Some(*connection)),
    };
    let (tell_awaited, awaited) = watch::channel(false);
    let mut receiver = Receiver {
        patient: Arc::new(repository.with_retry(patience)),
        source: Source::new(&environment.postgres)?,
        tally: Arc::default(),
        own_slot: temporary.is_none(),
        temporary,
        slot: name,
        until: options.until.position(),
        level: options.level,
        give_up_after: options.give_up_after,
        blocks: options.blocks,
        gone: Vec::new(),
        gaps: Vec::new(),
        invalidated: None,
        proof: None,
        proven: None,
        awaited,
        cluster: None,
        begun: None,
        durable: Lsn(0),
        timeline: Timeline(1),
        repository,
        environment,
        stop,
        runtime,
    };
    let (source, tally, own_slot) = (receiver.source.clone(), Arc::clone(&receiver.tally), receiver.own_slot);
    let healer = receiver.healer(&source);
    let ledger = ledger(repository, &environment.name).await?;
    let (started_at, began) = (runtime.now(), Instant::now());
    let ended = tokio::select! {
        ended = receiver.run() => ended,
        never = heartbeat::run(&source, environment.postgres.heartbeat, &tell_awaited, runtime), if heartbeat => {
            match never {}
        }
        never = healer.run(), if own_slot => match never {},
        never = record_hourly(repository, &environment.name, &ledger, &tally, runtime) => match never {},
    };
    match ended {
        Ok(reached) => {
            let record = record(repository, &environment.name, &ledger, &tally, runtime);
            let recorded = match timeout(STEP, record).await {
                Ok(appended) => appended,
                Err(_) => {
                    let text = "the archived WAL is not recorded in the ledger yet: the store does not answer";
                    runtime.emit(Event::Warning(text.to_owned()));
                    Vec::new()
                }
            };
            Ok(receiver.received(reached, recorded))
        }
        Err(e) => {
            if e.kind() == ErrorKind::Integrity {
                record_failure(&ledger, repository, "wal receive", &e, started_at, began, runtime).await;
            }
            Err(e)
        }
    }
}

async fn record_hourly(
    repository: &Repository,
    environment: &str,
    ledger: &Ledger,
    tally: &Mutex<Tally>,
    runtime: &Runtime,
) -> Infallible {
    loop {
        tokio::time::sleep(RECORD_EVERY).await;
        record(repository, environment, ledger, tally, runtime).await;
    }
}

/// Writes what is complete into the ledger; a failure is a warning, and the next time makes up for it.
async fn record(
    repository: &Repository,
    environment: &str,
    ledger: &Ledger,
    tally: &Mutex<Tally>,
    runtime: &Runtime,
) -> Vec<Appended> {
    let known = tally.lock().expect("no holder panics").stored.clone();
    match wal_range::record_with(repository, environment, ledger, &known, runtime).await {
        Ok(appended) => {
            tally.lock().expect("no holder panics").stored.retain(|name, _| !known.contains_key(name));
            appended
        }
        Err(e) => {
            runtime.emit(Event::Warning(format!("the archived WAL could not be recorded in the ledger: {e}")));
            Vec::new()
        }
    }
}

/// The state of a run.
pub(super) struct Receiver<'a> {
    pub(super) repository: &'a Repository,
    /// The same, waiting out outages of the store.
    pub(super) patient: Arc<Repository>,
    pub(super) environment: &'a Environment,
    pub(super) source: Source,
    pub(super) slot: String,
    pub(super) own_slot: bool,
    pub(super) temporary: Option<ReplicationConnection>,
    until: watch::Receiver<Option<Lsn>>,
    level: i32,
    give_up_after: Option<Duration>,
    pub(super) blocks: Option<BlockFiles>,
    tally: Arc<Mutex<Tally>>,
    /// Places whose WAL the server no longer has.
    pub(super) gone: Vec<Place>,
    /// Gaps that were told.
    pub(super) gaps: Vec<(Lsn, Lsn)>,
    /// Why the server gave the slot up, until that is told.
    pub(super) invalidated: Option<String>,
    /// The segment that the running session compares to prove that the server's history is ours.
    pub(super) proof: Option<Place>,
    /// The last segment that proved it, as long as the server stays the same.
    pub(super) proven: Option<Place>,
    /// Whether commits wait for this receiver.
    awaited: watch::Receiver<bool>,
    /// The cluster, once compared with what the repository knows.
    pub(super) cluster: Option<u64>,
    /// Where receiving began first.
    pub(super) begun: Option<Lsn>,
    durable: Lsn,
    timeline: Timeline,
    stop: &'a CancellationToken,
    pub(super) runtime: &'a Runtime,
}

/// What went wrong since WAL came last.
#[derive(Debug, Default)]
struct Trouble {
    since: Option<Instant>,
    slot_in_use_since: Option<Instant>,
}

impl<'a> Receiver<'a> {
    /// Receives until it is stopped (`false`) or everything asked for is durable (`true`).
    async fn run(&mut self) -> Result<bool> {
        let mut trouble = Trouble::default();
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.session().await {
                Ok((End::Reached, _)) => return Ok(true),
                Ok((End::Stopped, _)) => return Ok(false),
                Ok((End::Others, _)) => {
                    tokio::time::sleep(FIRST_PAUSE).await;
                    continue;
                }
                Ok((End::Timeline { next, switch }, _)) => {
                    self.runtime.emit(Event::Note(format!(
                        "timeline {} ended at {switch}; timeline {} follows",
                        self.timeline.0, next.0
                    )));
                    (trouble, pause) = (Trouble::default(), FIRST_PAUSE);
                    tokio::time::sleep(FIRST_PAUSE).await;
                    continue;
                }
                Ok((End::Lost(e), sound)) => {
                    if sound {
                        (trouble, pause) = (Trouble::default(), FIRST_PAUSE);
                    }
                    e
                }
                Err(e) => e,
            };
            if !self.own_slot {
                return Err(failure);
            }
            if wal_is_gone(&failure) {
                continue; // the place was noted; the next candidate is tried
            }
            self.bear(failure, &mut trouble)?;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return Ok(false),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One session with the server: why it ended, and whether it was a sound one until then.
    async fn session(&mut self) -> Result<(End, bool)> {
        let stop = self.stop;
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared?,
            () = stop.cancelled() => return Ok((End::Stopped, false)),
        };
        let (place, slot) = (prepared.place, self.slot.clone());
        let session = Session {
            repository: Arc::clone(&self.patient),
            environment: &self.environment.name,
            slot: &slot,
            level: self.level,
            blocks: self.blocks.clone(),
            status_every: prepared.status_every,
            tally: Arc::clone(&self.tally),
            until: self.until.clone(),
            awaited: self.awaited.clone(),
            stop,
            runtime: self.runtime,
        };
        self.timeline = place.timeline;
        self.durable = prepared.beginning.durable;
        let began = Instant::now();
        let ended = session.run(prepared.stream, prepared.beginning).await?;
        self.durable = ended.durable;
        // A timeline that was received to its end went through the segment that was to be compared.
        self.proven = match ended.end {
            End::Timeline { .. } => self.proof.take().or(self.proven),
            _ => None,
        };
        if !self.own_slot {
            // The temporary slot lives in this session; the next timeline is received through it, too.
            self.temporary = ended.connection;
        }
        if matches!(&ended.end, End::Lost(e) if wal_is_gone(e)) {
            self.gone.push(place);
        }
        Ok((ended.end, ended.received_any || began.elapsed() > LONGEST_PAUSE))
    }

    /// What looks for WAL beside this receiver.
    pub(super) fn healer<'s>(&self, source: &'s Source) -> Healer<'s>
    where
        'a: 's,
    {
        Healer {
            repository: Arc::clone(&self.patient),
            environment: self.environment,
            source,
            level: self.level,
            tally: Arc::clone(&self.tally),
            stop: self.stop,
            runtime: self.runtime,
        }
    }

    /// Decides whether to go on after a failure; a trouble is told once.
    fn bear(&self, failure: Error, trouble: &mut Trouble) -> Result<()> {
        if sqlstate(&failure) == Some(IN_USE) {
            let since = *trouble.slot_in_use_since.get_or_insert_with(Instant::now);
            let patience = if self.begun.is_some() { OWN_SLOT_PATIENCE } else { SLOT_PATIENCE };
            if since.elapsed() >= patience {
                return Err(error::denied(format!("another receiver uses the replication slot \"{}\"", self.slot))
                    .meaning("it goes on; this one received nothing, and two are not needed")
                    .hint("pg_replication_slots.active_pid and pg_stat_replication say which one it is")
                    .hint("a second environment on the same cluster needs a slot name of its own")
                    .source(failure));
            }
        } else if !may_pass(&failure) {
            return Err(failure);
        }
        if trouble.since.is_none() {
            self.runtime.emit(Event::Warning(format!("no WAL comes from PostgreSQL, trying again: {failure}")));
        }
        let since = *trouble.since.get_or_insert_with(Instant::now);
        match self.give_up_after {
            Some(limit) if since.elapsed() >= limit => Err(failure),
            _ => Ok(()),
        }
    }

    fn received(&self, reached: bool, recorded: Vec<Appended>) -> Received {
        let tally = self.tally.lock().expect("no holder panics");
        Received {
            from: self.begun.unwrap_or(self.durable),
            durable: self.durable,
            timeline: self.timeline,
            segments: tally.segments,
            pieces: tally.pieces,
            stored_bytes: tally.stored_bytes,
            reached,
            recorded,
        }
    }
}

/// SQLSTATE of a slot that another receiver uses.
const IN_USE: &str = "55006";

/// Whether waiting may help: the server restarts, the network is gone, all its sessions are taken.
fn may_pass(failure: &Error) -> bool {
    failure.kind() == ErrorKind::Source
        && sqlstate(failure)
            .is_none_or(|code| ["57P", "08", "53"].iter().any(|class| code.starts_with(class)) || code == "42704")
}
