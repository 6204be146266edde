//! One stream of WAL from its beginning to its end: reads, hands on, reports what is durable.
//!
//! The server hears from us on time also while the store is away: only the reading of WAL stops then.
//! What it hears is what is durable, for each of the three positions that it asks for: so a commit that waits
//! for Lifeboat waits for the store, with `synchronous_commit = remote_write` too.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::intake::{Beginning, Intake, Item};
use super::storer::{Storer, Tally};
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::postgres::block_files::BlockFiles;
use crate::postgres::replication::{ReplicationConnection, WalMessage, WalStream};
use crate::repository::Repository;
use crate::repository::wal_archive::STEP;
use crate::runtime::Runtime;
use crate::units::{ByteSize, Lsn, Timeline};

/// New bytes wait at most this long before they become a piece.
const CUT_AFTER: Duration = Duration::from_millis(250);

/// How soon a busy intake is asked again to cut what commits wait for.
const AGAIN: Duration = Duration::from_millis(5);

/// Messages between the socket and the intake; the server's are of at most 128 KiB.
const QUEUE: usize = 32;

/// How long the end of a stream may take to be said politely.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a session works with.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) repository: Arc<Repository>,
    pub(super) environment: &'a str,
    pub(super) slot: &'a str,
    pub(super) level: i32,
    pub(super) blocks: Option<BlockFiles>,
    pub(super) status_every: Duration,
    pub(super) tally: Arc<Mutex<Tally>>,
    pub(super) until: watch::Receiver<Option<Lsn>>,
    /// Whether commits wait for what is reported as durable: then nothing is gathered while the store is idle.
    pub(super) awaited: watch::Receiver<bool>,
    pub(super) stop: &'a CancellationToken,
    pub(super) runtime: &'a Runtime,
}

/// Why a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// Everything asked for is durable.
    Reached,
    /// Somebody else stores pieces of the same segment: they must be compared with what the server has.
    Others,
    /// The timeline ended.
    Timeline { next: Timeline, switch: Lsn },
    /// The server or the way to it is gone.
    Lost(Error),
}

/// A session that ended without a failure of ours.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: End,
    /// Everything before is durable.
    pub(super) durable: Lsn,
    /// Whether any WAL came.
    pub(super) received_any: bool,
    /// The session with the server, where it can go on.
    pub(super) connection: Option<ReplicationConnection>,
}

/// The two tasks that work on what is received.
#[derive(Debug)]
struct Pipeline {
    items: mpsc::Sender<Item>,
    intake: JoinHandle<Result<()>>,
    storer: JoinHandle<Result<()>>,
}

/// How far things are.
#[derive(Debug)]
struct Progress {
    segment_size: u64,
    /// End of what was handed to the intake.
    received: Lsn,
    /// End of the server's WAL as last told.
    server_end: Lsn,
    /// What lies before needs no cut: it was cut, or was stored before.
    cut: Lsn,
    /// When what is not cut yet must be.
    cut_by: Option<Instant>,
}

impl Progress {
    fn take(&mut self, bytes: usize, gather: Duration) {
        self.received = Lsn(self.received.0 + bytes as u64);
        self.cut = self.cut.max(self.received.segment_start(self.segment_size));
        if self.received > self.cut {
            self.cut_by.get_or_insert_with(|| Instant::now() + gather);
        } else {
            self.cut_by = None;
        }
    }

    /// When to cut, given that the store has everything up to `durable`: one piece at a time.
    fn cut_at(&self, durable: Lsn) -> Option<Instant> {
        self.cut_by.filter(|_| durable >= self.cut)
    }
}

impl Session<'_> {
    /// Streams from where `beginning` says until something ends it.
    pub(super) async fn run(&self, mut stream: WalStream, beginning: Beginning) -> Result<Ended> {
        let at = beginning.at;
        let mut progress = Progress {
            segment_size: beginning.segment_size,
            received: at,
            server_end: at,
            cut: beginning.stored,
            cut_by: None,
        };
        let (tell, mut durable) = watch::channel(beginning.durable);
        let (tell_others, others) = watch::channel(false);
        let pipeline = self.pipeline(beginning, tell, tell_others)?;
        let end = self.stream(&mut stream, &pipeline, &mut progress, &mut durable, others).await;
        let finished = self.finish(pipeline, &mut stream, &mut durable, &end).await;
        finished.map_err(|e| self.kept_by_postgresql(e, &progress, *durable.borrow()))?;
        let Some(end) = end else {
            return Err(error::internal("the intake of WAL ended without a reason"));
        };
        let durable = *durable.borrow();
        let mut connection = None;
        if !matches!(end, End::Lost(_)) {
            // The server notices a closed connection as well; this only is the orderly way.
            let _ = stream.send_status(durable, durable, durable, false).await;
            connection = timeout(GOODBYE, stream.stop()).await.ok().and_then(Result::ok);
        }
        Ok(Ended { end, durable, received_any: progress.received > at, connection })
    }

    fn pipeline(
        &self,
        beginning: Beginning,
        durable: watch::Sender<Lsn>,
        others: watch::Sender<bool>,
    ) -> Result<Pipeline> {
        let own = beginning.pieces.iter().map(|piece| piece.key.clone()).collect();
        let (items, taken) = mpsc::channel(QUEUE);
        let (jobs, stored) = mpsc::channel(1);
        let mut intake = Intake::new(Arc::clone(&self.repository), self.environment, self.level, beginning, jobs)?;
        if let Some(files) = &self.blocks {
            intake.keep_blocks(files.clone());
        }
        let storer = Storer {
            repository: Arc::clone(&self.repository),
            environment: self.environment.to_owned(),
            runtime: self.runtime.clone(),
            durable,
            tally: Arc::clone(&self.tally),
            others,
            own,
            looked: None,
            pause: Duration::ZERO,
        };
        Ok(Pipeline {
            items,
            intake: tokio::task::spawn_blocking(move || intake.run(taken)),
            storer: tokio::spawn(storer.run(stored)),
        })
    }

    /// Reads until something ends it; `None` when the pipeline did, whose tasks say why.
    async fn stream(
        &self,
        stream: &mut WalStream,
        pipeline: &Pipeline,
        progress: &mut Progress,
        durable: &mut watch::Receiver<Lsn>,
        mut others: watch::Receiver<bool>,
    ) -> Option<End> {
        let mut until = self.until.clone();
        let mut status_by = Instant::now();
        let mut room = None;
        loop {
            let safe = *durable.borrow_and_update();
            if until.borrow_and_update().is_some_and(|until| safe >= until) {
                return Some(End::Reached);
            }
            let cut_at = progress.cut_at(safe);
            let report = tokio::select! {
                () = self.stop.cancelled() => return Some(End::Stopped),
                () = pipeline.items.closed() => return None,
                Ok(()) = others.changed() => return Some(End::Others),
                changed = durable.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    true
                }
                Ok(()) = until.changed() => false,
                () = sleep_until(status_by) => true,
                () = sleep_until(cut_at.unwrap_or(status_by)), if cut_at.is_some() => {
                    if pipeline.items.try_send(Item::Cut).is_ok() {
                        progress.cut = progress.received;
                        progress.cut_by = None;
                    } else {
                        // The intake is busy with what came before; look again soon.
                        progress.cut_by = Some(Instant::now() + self.gather().max(AGAIN));
                    }
                    false
                }
                permit = pipeline.items.reserve(), if room.is_none() => {
                    room = Some(permit.ok()?);
                    false
                }
                message = stream.next(), if room.is_some() => match message {
                    Ok(WalMessage::Data { start, server_end, bytes }) => {
                        if start != progress.received {
                            return Some(End::Lost(error::source(format!(
                                "the server sent WAL from {start} on instead of {}", progress.received
                            ))));
                        }
                        progress.server_end = server_end;
                        progress.take(bytes.len(), self.gather());
                        room.take().expect("checked above").send(Item::Wal(bytes));
                        false
                    }
                    Ok(WalMessage::Keepalive { server_end, reply_requested }) => {
                        progress.server_end = server_end;
                        reply_requested
                    }
                    Ok(WalMessage::TimelineEnded { next, switch }) => return Some(End::Timeline { next, switch }),
                    Err(e) => return Some(End::Lost(e)),
                },
            };
            if report {
                status_by = Instant::now() + self.status_every;
                let safe = *durable.borrow();
                if let Err(e) = stream.send_status(safe, safe, safe, false).await {
                    return Some(End::Lost(e));
                }
            }
        }
    }

    /// Stores what was received to the end. A stop does not wait for a store that is away for longer
    /// than [`STEP`]: PostgreSQL keeps what is not reported.
    async fn finish(
        &self,
        pipeline: Pipeline,
        stream: &mut WalStream,
        durable: &mut watch::Receiver<Lsn>,
        end: &Option<End>,
    ) -> Result<()> {
        let Pipeline { items, intake, mut storer } = pipeline;
        drop(items);
        let connected = !matches!(end, Some(End::Lost(_)) | None);
        let mut given_up = false;
        let stored = loop {
            let patience = async {
                self.stop.cancelled().await;
                tokio::time::sleep(STEP).await;
            };
            tokio::select! {
                stored = &mut storer => break stored,
                () = patience, if !given_up => {
                    given_up = true;
                    storer.abort();
                }
                () = tokio::time::sleep(self.status_every), if connected => {
                    let safe = *durable.borrow();
                    // Told by the stream itself, if anybody reads on.
                    let _ = stream.send_status(safe, safe, safe, false).await;
                }
            }
        };
        let taken = intake.await.or_err(ErrorKind::Internal, || "the intake of WAL ended unexpectedly".to_owned())?;
        match stored {
            Ok(stored) => stored?,
            Err(_) if given_up => {}
            Err(e) => return Err(error::internal("the storing of WAL ended unexpectedly").source(e)),
        }
        taken
    }

    /// How long new bytes are gathered before they become a piece.
    fn gather(&self) -> Duration {
        if *self.awaited.borrow() { Duration::ZERO } else { CUT_AFTER }
    }

    fn kept_by_postgresql(&self, failure: Error, progress: &Progress, durable: Lsn) -> Error {
        if failure.kind() != ErrorKind::Repository {
            return failure;
        }
        let waiting = ByteSize(progress.server_end.max(progress.received).0.saturating_sub(durable.0));
        let kept = format!(
            "nothing is lost as long as PostgreSQL's disk has room: it keeps its WAL in slot \"{}\" from {durable} on \
             ({waiting} so far)",
            self.slot
        );
        let before = failure.what_it_means().map(|m| format!("{m}; ")).unwrap_or_default();
        failure.meaning(format!("{before}{kept}"))
    }
}
