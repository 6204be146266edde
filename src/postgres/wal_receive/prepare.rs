//! What comes before a stream: is it our cluster, is the slot sound, which timelines are there, where
//! to begin.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};

use super::intake::{Beginning, KnownPiece};
use super::place::{self, Place};
use super::run::Receiver;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::postgres::backup::record_failure;
use crate::postgres::identity::{known_cluster, same_cluster};
use crate::postgres::replication::{ReplicationConnection, SlotCreated, SystemIdentity, WalStream, wal_is_gone};
use crate::postgres::sql::explain;
use crate::postgres::wal::TimelineHistory;
use crate::repository::catalogue::{coverage, ledger};
use crate::repository::wal_archive::{WalArchive, WalSummary, chain};
use crate::units::{Lsn, Span, Timeline};
use crate::vault::Class;
use crate::wal_name::{SegmentName, WalFileName};

/// Status updates are sent at least this often.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Pieces whose summaries are read at the same time.
const PARALLEL: usize = 8;

/// A stream that was begun.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) stream: WalStream,
    pub(super) place: Place,
    pub(super) beginning: Beginning,
    pub(super) status_every: Duration,
}

/// What the server says of the slot.
#[derive(Debug)]
struct SlotState {
    restart: Option<Lsn>,
    lost: bool,
}

impl Receiver<'_> {
    pub(super) async fn prepare(&mut self) -> Result<Prepared> {
        let mut connection = match self.temporary.take() {
            Some(connection) => connection,
            None if self.own_slot => self.source.replication().await?,
            None => return Err(error::source("the session that held the temporary slot has ended")),
        };
        let system = connection.identify_system().await?;
        let segment_size = connection.wal_segment_size().await?;
        self.check_cluster(system.system_id).await?;
        let slot = self.slot(&mut connection).await?;
        let status_every = status_every(&connection.show("wal_sender_timeout").await?);

        let history = self.history(&mut connection, system.timeline).await?;
        let coverage = coverage(self.archive(), Some(segment_size)).await?;
        if let Some(refusal) =
            coverage.as_ref().and_then(|c| place::refuse_left_behind(c, system.timeline, system.flush_lsn))
        {
            return Err(refusal);
        }
        let mut places = place::candidates(&history, coverage.as_ref(), slot.restart, system.flush_lsn, segment_size);
        if !self.own_slot {
            // A temporary slot is for what comes from now on, and has one try.
            places.retain(|p| p.at >= slot.restart.unwrap_or(p.at).segment_start(segment_size));
        }
        let wanted = places.first().map(|p| p.at);
        let Some(place) = places.into_iter().find(|p| !self.gone.contains(p)) else {
            return Err(error::source("PostgreSQL has removed the WAL that it says it has")
                .hint("look at pg_replication_slots and at the server's log"));
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted < place.at) {
            self.tell_gap(place.timeline, wanted, place.at).await;
        }
        if place.timeline != system.timeline && place.timeline.0 > 1 {
            self.history(&mut connection, place.timeline).await?;
        }
        let pieces = self.known_pieces(SegmentName::holding(place.timeline, place.at, segment_size)).await?;
        let stream = match connection.start_physical(Some(&self.slot), place.at, place.timeline).await {
            Ok(stream) => stream,
            Err(e) => {
                if wal_is_gone(&e) {
                    self.gone.push(place);
                }
                return Err(e);
            }
        };
        self.begun.get_or_insert(place.at);
        self.tell_begin(&system, place);
        let beginning =
            Beginning { system_id: system.system_id, segment_size, timeline: place.timeline, at: place.at, pieces };
        Ok(Prepared { stream, place, beginning, status_every })
    }

    fn archive(&self) -> WalArchive<'_> {
        WalArchive::new(&self.patient, &self.environment.name)
    }

    /// The first time, the cluster is compared with what the repository knows; then with itself.
    async fn check_cluster(&mut self, found: u64) -> Result<()> {
        let name = &self.environment.name;
        if self.cluster.is_none() {
            let entries = ledger(&self.patient, name).await?.entries().await?;
            self.cluster = known_cluster(&self.patient, name, &entries).await?;
        }
        same_cluster(self.cluster, found, name)?;
        self.cluster = Some(found);
        Ok(())
    }

    /// Makes sure of the slot; one that lost its WAL is useless and is made anew.
    async fn slot(&self, connection: &mut ReplicationConnection) -> Result<SlotState> {
        if self.own_slot && connection.create_physical_slot(&self.slot, false).await? == SlotCreated::Created {
            self.runtime.emit(Event::Note(format!("made the replication slot \"{}\"", self.slot)));
        }
        let mut state = self.slot_state().await?;
        if state.lost && self.own_slot {
            self.runtime.emit(Event::Warning(format!(
                "PostgreSQL gave the replication slot \"{}\" up (max_slot_wal_keep_size, idle_replication_slot_timeout); \
                 it is made anew",
                self.slot
            )));
            connection.drop_slot(&self.slot).await?;
            connection.create_physical_slot(&self.slot, false).await?;
            state = self.slot_state().await?;
        }
        Ok(state)
    }

    async fn slot_state(&self) -> Result<SlotState> {
        let sql = self.source.sql().await?;
        let rows = sql
            .query(
                "SELECT restart_lsn::text, coalesce(wal_status, '') = 'lost', slot_type = 'physical' \
                 FROM pg_replication_slots WHERE slot_name = $1",
                &[&self.slot],
            )
            .await
            .map_err(|e| explain(e, "cannot look at the replication slots"))?;
        let Some(row) = rows.first() else {
            return Err(error::source(format!("the replication slot \"{}\" is gone", self.slot)));
        };
        if !row.get::<_, bool>(2) {
            return Err(error::config(format!("the replication slot \"{}\" is a logical one", self.slot))
                .hint("name another in `postgres.slot`; Lifeboat makes it"));
        }
        let restart = row.get::<_, Option<&str>>(0).map(str::parse).transpose()?;
        Ok(SlotState { restart, lost: row.get(1) })
    }

    /// Fetches and archives the history of a timeline.
    async fn history(&self, connection: &mut ReplicationConnection, timeline: Timeline) -> Result<TimelineHistory> {
        if timeline.0 == 1 {
            return Ok(TimelineHistory::first(timeline));
        }
        let (_, bytes) = connection.timeline_history(timeline).await?;
        let text = String::from_utf8(bytes.to_vec())
            .or_err(ErrorKind::Integrity, || format!("{timeline}.history of the server is not text"))?;
        let history = TimelineHistory::parse(timeline, &text)?;
        let mut sealer = self.archive().sealer(Class::Wal, 3)?;
        sealer.write(text.as_bytes());
        let name = WalFileName::History { timeline };
        let stored = self.archive().put(&name, sealer, Some(&WalSummary::History(text))).await?;
        if stored.sha256.is_some() {
            self.runtime.emit(Event::WalStored { name: name.to_string(), stored: stored.size });
        }
        Ok(history)
    }

    /// The stored pieces of a segment, with the digests by which their bytes will be compared.
    async fn known_pieces(&self, segment: SegmentName) -> Result<Vec<KnownPiece>> {
        let archive = self.archive();
        futures::stream::iter(chain(archive.pieces(&segment).await?))
            .map(|piece| async move {
                let (mac, _) = archive.piece_summary(&piece).await?.ok_or_else(|| {
                    error::repository(format!("{} vanished while it was looked at", piece.key))
                        .hint("another receiver may be at work on this environment; run it again")
                })?;
                Ok(KnownPiece { key: piece.key, offset: piece.offset, end: piece.end, mac })
            })
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    /// A gap is told and recorded once.
    async fn tell_gap(&mut self, timeline: Timeline, from: Lsn, to: Lsn) {
        if !self.own_slot || self.gaps.contains(&(from, to)) {
            return;
        }
        self.gaps.push((from, to));
        let gap = error::source(format!(
            "PostgreSQL removed WAL before it was archived: from {from} to {to} on timeline {}",
            timeline.0
        ))
        .meaning(
            "no second between these two positions can be restored; what lies after needs a base backup from there",
        )
        .hint("take a base backup now: `lifeboat backup base`")
        .hint("let the slot keep more: max_slot_wal_keep_size");
        self.runtime.emit(Event::Warning(format!("{gap}; take a base backup now")));
        let recorded = ledger(self.repository, &self.environment.name).await;
        match recorded {
            Ok(ledger) => {
                let now = self.runtime.now();
                record_failure(&ledger, self.repository, "wal receive", &gap, now, Instant::now(), self.runtime).await;
            }
            Err(e) => self.runtime.emit(Event::Warning(format!("the gap is not recorded in the ledger: {e}"))),
        }
    }

    fn tell_begin(&self, system: &SystemIdentity, place: Place) {
        self.runtime.emit(Event::Note(format!(
            "receiving WAL of \"{}\" from {} on timeline {} through slot \"{}\"; the server is at {}",
            self.environment.name, place.at, place.timeline.0, self.slot, system.flush_lsn
        )));
    }
}

/// A third of the time after which the server gives up on us, and not more than [`STATUS_EVERY`].
fn status_every(wal_sender_timeout: &str) -> Duration {
    match wal_sender_timeout.parse::<Span>() {
        Ok(Span(limit)) if !limit.is_zero() => (limit / 3).min(STATUS_EVERY),
        _ => STATUS_EVERY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_hears_from_us_before_it_gives_up() {
        assert_eq!(status_every("1min"), STATUS_EVERY);
        assert_eq!(status_every("3s"), Duration::from_secs(1));
        assert_eq!(status_every("600ms"), Duration::from_millis(200));
        assert_eq!(status_every("0"), STATUS_EVERY);
    }
}
