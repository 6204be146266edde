//! Work that never ends: one environment's WAL receiver, or its filestore watcher.
//!
//! Promises: each worker has a thread of its own, so that none starves another; one that fails or panics is started
//! again, after a pause that grows; one that is stopped stores what it has first. Waiting for PostgreSQL or the
//! store is the workers' own business and no failure: they bear outages for ever.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::state::WorkerKind;
use crate::config::Environment;
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::evidence::Fence;
use crate::filestore::watch::{WatchOptions, watch};
use crate::postgres::block_files::BlockFiles;
use crate::postgres::wal_receive::{ReceiveOptions, Slot, Until, receive};
use crate::repository::{Repository, StateDir};
use crate::runtime::Runtime;

/// The pause after a failure that may pass by itself, and after one that somebody must look at. Both double.
const PAUSES: [Pauses; 2] = [
    Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(60) },
    Pauses { first: Duration::from_secs(60), longest: Duration::from_secs(3600) },
];
/// One that ran this long had recovered from what it failed of before.
const RECOVERED: Duration = Duration::from_secs(600);

/// How long a worker may take to store its last work before another one takes its place.
const LAST_WORK: Duration = Duration::from_secs(60);

/// How filestores are watched; what `lifeboat filestore watch` does by default.
const WATCH: (Duration, Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(3600), Duration::from_secs(300));

#[derive(Debug, Clone, Copy)]
struct Pauses {
    first: Duration,
    longest: Duration,
}

/// What a worker needs.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) kind: WorkerKind,
    pub(super) environment: Arc<Environment>,
    /// zstd level.
    pub(super) level: i32,
    pub(super) state_dir: StateDir,
    /// The lease that it works under.
    pub(super) fence: Fence,
    /// The repository, once it is open.
    pub(super) repository: watch::Receiver<Option<Arc<Repository>>>,
    pub(super) runtime: Runtime,
}

/// What a worker says of itself.
#[derive(Debug)]
pub(super) struct Report {
    /// Which worker: a number that is never used again.
    pub(super) worker: u64,
    /// What it says.
    pub(super) said: Said,
}

/// What a worker says.
#[derive(Debug)]
pub(super) enum Said {
    /// It works.
    Running,
    /// Something happened.
    Told(Event),
    /// It failed, and is started again after the pause.
    Failed(Error, Duration),
    /// It was stopped.
    Stopped,
}

/// A worker that was started.
#[derive(Debug)]
pub(super) struct Worker {
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts one on a thread of its own, which begins when the one `before` it has ended; what it says goes to
    /// `reports` under the number `worker`.
    pub(super) fn start(
        work: Work,
        worker: u64,
        before: Option<Worker>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let (tell_end, ended) = oneshot::channel();
        let (token, handle) = (stop.clone(), Handle::current());
        let name = format!("{}-{}", if work.kind == WorkerKind::Wal { "wal" } else { "files" }, work.environment.name);
        // What libraries below log carries it, too.
        let span = tracing::error_span!("worker", environment = work.environment.name, worker = work.kind.word());
        let say = move |said| {
            // An error says that the service is gone.
            let _ = reports.send(Report { worker, said });
        };
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let working = async {
                    if let Some(before) = before {
                        // One that hangs holds its slot, which keeps the next one waiting anyway.
                        let _ = tokio::time::timeout(LAST_WORK, before.ended).await;
                    }
                    work.run(&token, say).await;
                };
                handle.block_on(working.instrument(span));
                let _ = tell_end.send(());
            })
            .or_err(ErrorKind::Internal, || "cannot start a thread for a worker".to_owned())?;
        Ok(Self { stop, ended })
    }

    /// Asks it to stop.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether it was asked to.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether it has.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.ended.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }
}

impl Work {
    async fn run(mut self, stop: &CancellationToken, say: impl Fn(Said) + Clone + Send + Sync + 'static) {
        let tell = say.clone();
        self.runtime = self.runtime.telling(move |event| tell(Said::Told(event)));
        let mut pauses = 0;
        loop {
            let began = Instant::now();
            let failure = match AssertUnwindSafe(self.once(stop, &say)).catch_unwind().await {
                Ok(Ok(())) => break,
                Ok(Err(failure)) => failure,
                Err(_) => error::internal("it ended unexpectedly, which is a bug")
                    .hint("the log of the service has the place; it is started again"),
            };
            if stop.is_cancelled() {
                break;
            }
            pauses = if began.elapsed() > RECOVERED { 0 } else { pauses };
            let pause = pause(failure.kind(), pauses);
            pauses += 1;
            say(Said::Failed(failure, pause));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
        }
        say(Said::Stopped);
    }

    /// Works until it is stopped or fails.
    async fn once(&mut self, stop: &CancellationToken, say: &impl Fn(Said)) -> Result<()> {
        let opened = tokio::select! {
            opened = self.repository.wait_for(Option::is_some) => opened.ok().and_then(|r| r.clone()),
            () = stop.cancelled() => return Ok(()),
        };
        let Some(repository) = opened else { return Ok(()) };
        // What is recorded once another instance has taken over is refused by the ledger.
        let repository = repository.under(self.fence.clone());
        say(Said::Running);
        match self.kind {
            WorkerKind::Wal => {
                let options = ReceiveOptions {
                    slot: Slot::Configured,
                    until: Until::stopped(),
                    heartbeat: true,
                    level: self.level,
                    give_up_after: None,
                    blocks: Some(BlockFiles::new(&self.state_dir, &self.environment.name, &self.runtime)),
                };
                receive(&repository, &self.environment, options, stop, &self.runtime).await.map(drop)
            }
            WorkerKind::Filestore => {
                let (store_every, scan_every, before_collection) = WATCH;
                let options = WatchOptions { store_every, scan_every, before_collection, level: self.level };
                watch(&repository, &self.environment, options, stop, &self.runtime).await.map(drop)
            }
        }
    }
}

/// How long to wait after the failure that follows `before` others.
fn pause(kind: ErrorKind, before: u32) -> Duration {
    // A diverged cluster or a wrong key does not mend itself, and each try may leave a ledger entry.
    let of = match kind {
        ErrorKind::Integrity | ErrorKind::Denied | ErrorKind::Config | ErrorKind::Usage => PAUSES[1],
        _ => PAUSES[0],
    };
    of.first.saturating_mul(2_u32.saturating_pow(before)).min(of.longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_long_where_somebody_must_act() {
        let seconds = |kind, before| pause(kind, before).as_secs();
        assert_eq!([0, 1, 2, 9, 99].map(|n| seconds(ErrorKind::Source, n)), [1, 2, 4, 60, 60]);
        assert_eq!([0, 1, 9].map(|n| seconds(ErrorKind::Integrity, n)), [60, 120, 3600]);
    }
}
