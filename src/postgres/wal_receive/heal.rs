//! Healing: WAL that is missing between what is archived, fetched from the server where it still has it.
//!
//! A segment may be missing because a slot was lost, because there was none after a failover, or because an
//! `archive_command` left some out. PostgreSQL often keeps the file for a while (`wal_keep_size`,
//! `min_wal_size`), and streams it without any slot. That runs beside the receiver, whose commits do not wait
//! for it. Only what a base backup can make use of is fetched.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::intake::Beginning;
use super::place::{self, Place};
use super::prepare::{STATUS_EVERY, known_pieces, oldest_kept};
use super::session::{End, Session};
use super::storer::Tally;
use crate::config::Environment;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::evidence::Body;
use crate::postgres::replication::wal_is_gone;
use crate::postgres::source::Source;
use crate::postgres::wal::TimelineHistory;
use crate::repository::Repository;
use crate::repository::catalogue::{coverage, ledger};
use crate::repository::coverage::{Coverage, Gap};
use crate::repository::retention::State;
use crate::repository::wal_archive::WalArchive;
use crate::runtime::Runtime;
use crate::units::Lsn;
use crate::wal_name::SegmentName;

/// Gaps are looked for this often; between two looks, `wal push` may leave new ones.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// What healing works with.
#[derive(Debug)]
pub(super) struct Healer<'a> {
    pub(super) repository: Arc<Repository>,
    pub(super) environment: &'a Environment,
    pub(super) source: &'a Source,
    pub(super) level: i32,
    pub(super) tally: Arc<Mutex<Tally>>,
    pub(super) stop: &'a CancellationToken,
    pub(super) runtime: &'a Runtime,
}

impl<'a> Healer<'a> {
    /// Heals what can be healed, now and every hour. Never returns; drop it to stop.
    pub(super) async fn run(self) -> Infallible {
        loop {
            if let Err(e) = self.heal().await {
                self.runtime.emit(Event::Warning(format!("a gap in the archived WAL could not be healed: {e}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn heal(&self) -> Result<()> {
        let mut tried = Vec::new();
        while let Some((coverage, gap)) = self.next(&tried).await? {
            tried.push(gap.clone());
            match self.fetch(&coverage, &gap).await {
                Ok(true) => self.runtime.emit(Event::Note(format!(
                    "WAL that was missing from {} on (to {}) was healed from the server's pg_wal",
                    gap.from, gap.to
                ))),
                Ok(false) => {}
                Err(e) if wal_is_gone(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// A gap that a base backup lies before and that was not tried yet.
    async fn next(&self, tried: &[Gap]) -> Result<Option<(Coverage, Gap)>> {
        let name = &self.environment.name;
        let Some(mut coverage) = coverage(WalArchive::new(&self.repository, name), None).await? else {
            return Ok(None);
        };
        if coverage.gaps().is_empty() {
            return Ok(None);
        }
        let entries = ledger(&self.repository, name).await?.entries().await?;
        // What retention gave up is not fetched again.
        let state = State::of(&entries);
        state.hide(&mut coverage);
        let gaps = coverage.gaps();
        let bases = state.living(&entries).filter_map(|e| match &e.statement.predicate.body {
            Body::BaseBackup(base) => Some(base.start_lsn),
            _ => None,
        });
        let oldest = bases.min().unwrap_or(Lsn(u64::MAX));
        let gap = gaps.into_iter().find(|gap| gap.to > oldest && !tried.contains(gap));
        Ok(gap.map(|gap| (coverage, gap)))
    }

    /// Streams the missing segments; whether all of them, or at least those of one timeline, came.
    async fn fetch(&self, coverage: &Coverage, gap: &Gap) -> Result<bool> {
        let size = coverage.segment_size;
        let mut connection = self.source.backup_replication().await?;
        let system = connection.identify_system().await?;
        let history = if system.timeline.0 == 1 {
            TimelineHistory::first(system.timeline)
        } else {
            let (name, bytes) = connection.timeline_history(system.timeline).await?;
            let text = std::str::from_utf8(&bytes).or_err(ErrorKind::Integrity, || format!("{name} is not text"))?;
            TimelineHistory::parse(system.timeline, text)?
        };
        let first = gap.first.parse::<SegmentName>()?;
        let at = first.start(size)?;
        let oldest = oldest_kept(self.source, &history, system.flush_lsn, size).await?;
        if history.of_segment(at.segment(size), size) != first.timeline || oldest.is_some_and(|oldest| oldest > at) {
            return Ok(false);
        }
        let wanted = Place { timeline: first.timeline, at };
        // The segment before is streamed along where it is still there, to see that this is our history.
        let proof = place::proof(&history, Some(coverage), wanted, size)
            .filter(|proof| proof.timeline == wanted.timeline && oldest.is_some_and(|oldest| oldest <= proof.at));
        let place = proof.unwrap_or(wanted);
        let archive = WalArchive::new(&self.repository, &self.environment.name);
        let (pieces, stored) = known_pieces(archive, place.timeline, at, size).await?;
        let beginning = Beginning {
            system_id: system.system_id,
            segment_size: size,
            timeline: place.timeline,
            at: place.at,
            durable: at,
            complete_to: at,
            pieces,
            stored,
        };
        let session = self.beside(gap.to);
        let stream = connection.start_physical(None, place.at, place.timeline).await?;
        match session.run(stream, beginning).await?.end {
            End::Reached | End::Timeline { .. } => Ok(true),
            End::Stopped | End::Others => Ok(false),
            End::Lost(e) => Err(e),
        }
    }

    /// A session that receives up to `end`, through no slot, for nobody who waits.
    pub(super) fn beside(&self, end: Lsn) -> Session<'a> {
        Session {
            repository: Arc::clone(&self.repository),
            environment: &self.environment.name,
            slot: &self.environment.postgres.slot,
            level: self.level,
            blocks: None,
            status_every: STATUS_EVERY,
            tally: Arc::clone(&self.tally),
            until: watch::channel(Some(end)).1,
            awaited: watch::channel(false).1,
            stop: self.stop,
            runtime: self.runtime,
        }
    }
}
