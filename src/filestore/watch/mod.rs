//! Continuous capture: what Odoo writes into its filestores is stored within a second or so.
//!
//! ```text
//! kernel ─▶ pending names ──every second──▶ mark, then the rest of the events ─▶ read, verify, pack, piece
//!                 ▲ missed something                                              (`filestore-live/`)
//!                 └──────── capture: at the start, hourly, before Odoo collects, whenever something was missed
//! ```
//!
//! Promises: a file is stored under its own digest as soon as it was written, and then survives Odoo's garbage
//! collection, and the watcher's own end: a piece is durable by itself. The capture stays the truth: it runs
//! at every start and after everything that may have been missed (an overflow of the kernel's queue, too many
//! names, a directory that was moved), so a watcher that was killed loses nothing that is still on disk.
//!
//! A *mark* says that everything that the database referred to up to a place in the WAL is stored. Odoo closes
//! a file before it commits the row that names it, and the kernel tells of a file when it is closed. So: ask for
//! the place first, then read all events that are there, then store all files that they name. A mark is written
//! only while a complete capture and all events since it began stand behind it; so it is worth what the restore
//! point of a capture is worth.
//!
//! * `notify`: what the kernel tells;
//! * `tenant`: what is known of one database, and when it is scanned next;
//! * `look`: which databases there are;
//! * `store`: marks and pieces.
//!
//! Memory is bounded: names that do not fit are found by a scan instead.

mod look;
mod notify;
mod options;
mod store;
mod tenant;

use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use self::notify::{Seen, Watches};
pub use self::options::{WatchOptions, Watched};
use self::store::{Job, Stored};
use self::tenant::{Tracked, next_scan};
use super::capture::{self, Captured};
use super::live::Mark;
use crate::config::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::evidence::Ledger;
use crate::postgres::source::Source;
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::runtime::Runtime;

/// A database without new files gets a mark this often.
const MARK_EVERY: TimeDelta = TimeDelta::seconds(60);

/// The pause after something failed that may pass.
const PAUSE: Duration = Duration::from_secs(5);

/// How long the last files may take when it is stopped.
const LAST_FILES: Duration = Duration::from_secs(30);

/// Watches the filestores of `environment` until `stop` is cancelled.
pub async fn watch(
    repository: &Repository,
    environment: &Environment,
    options: WatchOptions,
    stop: &CancellationToken,
    runtime: &Runtime,
) -> Result<Watched> {
    // Before anything is stored: what is not recorded by captures would never be taken over.
    repository.signer()?;
    let source = Source::new(&environment.postgres)?;
    let ledger = ledger(repository, &environment.name).await?;
    let with = With { repository, environment, ledger: &ledger, options, source: &source, runtime };
    let mut watcher = Watcher {
        with: &with,
        watches: Watches::new()?,
        tracked: Vec::new(),
        done: Watched::default(),
        client: None,
        work: None,
        scan: None,
        next_store: Instant::now(),
        next_look: Instant::now(),
        told_trouble: false,
        strays_told: false,
    };
    watcher.run(stop).await?;
    if timeout(LAST_FILES, watcher.last_files()).await.is_err() {
        let text = "the store does not answer; the newest files are stored by the next start, if they are still there";
        runtime.emit(Event::Warning(text.to_owned()));
    }
    watcher.done.databases = watcher.tracked.iter().map(|t| t.tenant.database.clone()).collect();
    Ok(watcher.done)
}

/// What a watcher works with.
struct With<'a> {
    repository: &'a Repository,
    environment: &'a Environment,
    ledger: &'a Ledger,
    options: WatchOptions,
    source: &'a Source,
    runtime: &'a Runtime,
}

/// A step of storing that has ended.
enum Step {
    /// The place in the WAL, where the server told one; and the session.
    Marked(Option<(Client, Mark)>),
    Stored(Vec<(Job, Result<Stored>)>),
}

struct Watcher<'a> {
    with: &'a With<'a>,
    watches: Watches,
    tracked: Vec<Tracked>,
    done: Watched,
    /// An SQL session that waits for its next question.
    client: Option<Client>,
    work: Option<LocalBoxFuture<'a, Step>>,
    scan: Option<LocalBoxFuture<'a, (PathBuf, Result<Captured>)>>,
    next_store: Instant,
    next_look: Instant,
    /// A store that fails is told once until it works again.
    told_trouble: bool,
    strays_told: bool,
}

impl<'a> Watcher<'a> {
    async fn run(&mut self, stop: &CancellationToken) -> Result<()> {
        loop {
            if self.next_look <= Instant::now() {
                tokio::select! {
                    () = self.look() => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
            self.begin_storing();
            self.begin_scan();
            let wake = self.next_wake();
            let Self { watches, work, scan, .. } = &mut *self;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ready = watches.ready() => {
                    ready?;
                    self.take_events()?;
                }
                step = ended(work) => self.step(step)?,
                (directory, result) = ended(scan) => self.scanned(&directory, result)?,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Stores what was written until now.
    async fn last_files(&mut self) {
        self.scan = None;
        // What is under way, and then everything once more, with a last mark.
        for _ in 0..2 {
            if let Err(failure) = self.take_events() {
                self.with.runtime.emit(Event::Warning(failure.to_string()));
            }
            if self.work.is_none() {
                self.next_store = Instant::now();
                self.begin_storing();
            }
            while self.work.is_some() {
                let step = ended(&mut self.work).await;
                if let Err(failure) = self.step(step) {
                    self.with.runtime.emit(Event::Warning(format!("the newest files are not stored: {failure}")));
                    return;
                }
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let now = self.with.runtime.now();
        let until = |at: chrono::DateTime<chrono::Utc>| Instant::now() + (at - now).to_std().unwrap_or_default();
        let mut wake = self.next_look;
        if self.scan.is_none() {
            wake = self.tracked.iter().map(|t| until(t.next_scan)).fold(wake, Instant::min);
        }
        if self.work.is_none() {
            let idle = self.tracked.iter().filter(|t| t.is_proven()).filter_map(|t| t.mark);
            let idle = idle.map(|mark| until(mark.time + MARK_EVERY)).min();
            let store = if self.is_due() { Some(self.next_store) } else { idle.map(|at| at.max(self.next_store)) };
            wake = store.map_or(wake, |at| at.min(wake));
        }
        wake
    }

    fn take_events(&mut self) -> Result<()> {
        let (mut seen, now) = (Seen::default(), self.with.runtime.now());
        self.watches.drain(&mut seen)?;
        for (directory, name) in seen.files {
            if let Some(tracked) = self.tracked.iter_mut().find(|t| t.directory == directory) {
                tracked.written(name, now);
            }
        }
        for (directory, why) in seen.missed {
            if let Some(tracked) = self.tracked.iter_mut().find(|t| t.directory == directory) {
                tracked.watched = false;
                tracked.missed(now);
                let database = &tracked.tenant.database;
                self.with.runtime.emit(Event::Note(format!("{database}: {why}; it is looked for again")));
            }
            self.next_look = Instant::now();
        }
        if seen.overflow {
            self.done.overflows += 1;
            self.tracked.iter_mut().for_each(|t| t.missed(now));
            let text = "more files came than the kernel's queue holds; a scan makes up for it";
            self.with.runtime.emit(Event::Note(text.to_owned()));
        }
        if seen.databases_moved {
            self.next_look = Instant::now();
        }
        Ok(())
    }

    /// Whether something waits to be stored.
    fn is_due(&self) -> bool {
        let now = self.with.runtime.now();
        let idle = |t: &&Tracked| t.is_proven() && t.mark.is_none_or(|mark| (now - mark.time).abs() >= MARK_EVERY);
        self.tracked.iter().any(|t| t.has_pending()) || self.tracked.iter().find(idle).is_some()
    }

    fn begin_storing(&mut self) {
        if self.work.is_none() && self.next_store <= Instant::now() && self.is_due() {
            self.next_store = Instant::now() + self.with.options.store_every;
            let (source, client) = (self.with.source, self.client.take());
            self.work = Some(async move { Step::Marked(store::mark(source, client).await) }.boxed_local());
        }
    }

    fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Marked(answer) => {
                let (client, mark) = answer.map_or((None, None), |(client, mark)| (Some(client), Some(mark)));
                self.client = client;
                // The mark came first: what belongs to it has been told by now.
                self.take_events()?;
                self.store_pending(mark);
                Ok(())
            }
            Step::Stored(results) => results.into_iter().try_for_each(|(job, result)| self.was_stored(job, result)),
        }
    }

    fn store_pending(&mut self, mark: Option<Mark>) {
        let now = self.with.runtime.now();
        let mut jobs = Vec::new();
        for tracked in &mut self.tracked {
            let (names, all) = tracked.batch();
            let mark = mark.filter(|_| all && tracked.is_proven());
            let idle = names.is_empty();
            if !idle || mark.is_some_and(|new| tracked.mark.is_none_or(|old| (new.time - old.time).abs() >= MARK_EVERY))
            {
                jobs.push(Job::new(tracked, names, mark, now));
            }
        }
        if jobs.is_empty() {
            return;
        }
        let with = self.with;
        let work = async move {
            let mut results = Vec::new();
            for job in jobs {
                let (name, level) = (&with.environment.name, with.options.level);
                let result = store::store(with.repository, name, level, &job, with.runtime).await;
                results.push((job, result));
            }
            Step::Stored(results)
        };
        self.work = Some(work.boxed_local());
    }

    fn was_stored(&mut self, job: Job, result: Result<Stored>) -> Result<()> {
        let now = self.with.runtime.now();
        let found = self.tracked.iter_mut().find(|t| t.directory == job.directory && t.key == job.key);
        match result {
            Ok(stored) => {
                self.told_trouble = false;
                self.done.files += stored.names.len() as u64;
                self.done.bytes += stored.bytes;
                self.done.pieces += u64::from(stored.piece.is_some());
                self.done.unseen += stored.unseen;
                let Some(tracked) = found else { return Ok(()) };
                let torn = stored.flawed.iter().map(|name| (*name, job.names.get(name).copied().unwrap_or_default()));
                tracked.again(torn, true, now);
                tracked.stored(stored.names.into_iter());
                if let Some(piece) = stored.piece {
                    tracked.idle_piece = job.names.is_empty().then_some(piece);
                    tracked.mark = stored.mark;
                }
                Ok(())
            }
            Err(failure) if may_pass(&failure) => {
                self.next_store = Instant::now() + PAUSE;
                if let Some(tracked) = found {
                    tracked.again(job.names.into_iter(), false, now);
                }
                if !std::mem::replace(&mut self.told_trouble, true) {
                    let text = format!("new files cannot be stored, trying again: {failure}");
                    self.with.runtime.emit(Event::Warning(text));
                }
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn begin_scan(&mut self) {
        let now = self.with.runtime.now();
        if self.scan.is_some() {
            return;
        }
        let every = self.with.options.scan_every;
        let due = self.tracked.iter_mut().filter(|t| t.scan_is_due(now, every)).min_by_key(|t| t.next_scan);
        let Some(tracked) = due else { return };
        tracked.scan_begins();
        let (with, tenant, directory) = (self.with, tracked.tenant.clone(), tracked.directory.to_path_buf());
        let scan = async move {
            let level = with.options.level;
            let result =
                capture::one(with.repository, with.environment, with.ledger, level, &tenant, with.runtime).await;
            (directory, result)
        };
        self.scan = Some(scan.boxed_local());
    }

    fn scanned(&mut self, directory: &std::path::Path, result: Result<Captured>) -> Result<()> {
        let (with, now) = (self.with, self.with.runtime.now());
        let Some(tracked) = self.tracked.iter_mut().find(|t| *t.directory == *directory) else { return Ok(()) };
        let database = tracked.tenant.database.clone();
        let (every, before) = (with.options.scan_every, with.options.before_collection);
        match result {
            Ok(done) => {
                let due = done.entry.collection.as_ref().and_then(|c| c.due);
                tracked.scan_ended(Some(done.entry.complete), next_scan(now, every, due, before), now);
                self.done.captures += 1;
                let entry = &done.entry;
                with.runtime.emit(Event::Note(format!(
                    "filestore of {database}: captured, {} files, {} new, {}",
                    entry.files_present,
                    entry.files_new,
                    if entry.complete { "complete" } else { "not complete: `lifeboat show` says why" }
                )));
                Ok(())
            }
            Err(failure) if may_pass(&failure) => {
                tracked.scan_ended(None, next_scan(now, every, None, before), now);
                let at = tracked.next_scan.format("%H:%M:%S UTC");
                let text = format!("filestore of {database}: not captured, trying again at {at}: {failure}");
                with.runtime.emit(Event::Warning(text));
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }
}

/// The result of a piece of work; waits for ever where there is none.
async fn ended<T>(work: &mut Option<LocalBoxFuture<'_, T>>) -> T {
    let Some(running) = work else { return std::future::pending().await };
    let result = running.await;
    *work = None;
    result
}

/// Whether waiting may help.
fn may_pass(failure: &Error) -> bool {
    matches!(failure.kind(), ErrorKind::Source | ErrorKind::Repository)
}
