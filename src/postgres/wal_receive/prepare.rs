//! What comes before a stream: is it our cluster, is the slot sound, which timelines are there, where
//! to begin.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};

use super::intake::{Beginning, KnownPiece};
use super::place::{self, Kept, Place};
use super::run::Receiver;
use super::session::End;
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::postgres::backup::record_failure;
use crate::postgres::identity::{known_cluster, same_cluster};
use crate::postgres::replication::{ReplicationConnection, SlotCreated, SystemIdentity, WalStream, wal_is_gone};
use crate::postgres::source::Source;
use crate::postgres::sql::explain;
use crate::postgres::wal::TimelineHistory;
use crate::repository::catalogue::{coverage, ledger};
use crate::repository::wal_archive::{Piece, WalArchive, WalSummary, chain};
use crate::units::{Lsn, Span, Timeline};
use crate::vault::Class;
use crate::vault::index_key::ContentMac;
use crate::wal_name::{SegmentName, WalFileName};

/// Status updates are sent at least this often.
pub(super) const STATUS_EVERY: Duration = Duration::from_secs(10);

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
    /// Why the server gave it up, if it did.
    lost: Option<String>,
    /// Whether the server is a standby.
    standby: bool,
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
        let coverage = coverage.as_ref();
        // Asked again: another receiver may have stored more of this server's WAL before the archive was listed.
        let now = connection.identify_system().await?.flush_lsn;
        // A standby may be behind what its primary sent.
        let behind = coverage.filter(|_| !slot.standby);
        let refusal = coverage
            .and_then(|c| place::refuse_left_behind(c, system.timeline, now))
            .or_else(|| behind.and_then(|c| place::refuse_behind(c, system.timeline, now)));
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let oldest = oldest_kept(&self.source, &history, system.flush_lsn, segment_size).await?;
        let mut places = if self.own_slot {
            let server = Kept { restart: slot.restart, oldest, flush: system.flush_lsn };
            place::candidates(&history, coverage, server, segment_size)
        } else {
            // A temporary slot is for what comes from now on; what is archived of that is compared.
            let at = slot.restart.unwrap_or(system.flush_lsn).segment_start(segment_size);
            let timeline = history.of_segment(at.segment(segment_size), segment_size);
            vec![Place { timeline, at }]
        };
        let wanted = places.first().copied();
        places.retain(|place| oldest.is_none_or(|oldest| oldest <= place.at));
        let proof = wanted.and_then(|first| place::proof(&history, coverage, first, segment_size));
        let there = |proof: &Place| oldest.map_or(self.own_slot, |oldest| oldest <= proof.at);
        if let Some(proof) = proof.filter(there).filter(|proof| self.proven != Some(*proof)) {
            match self.own_slot {
                true => places.insert(0, proof),
                // A temporary slot has one try, and the checkpoint of the base backup that it is for may remove
                // the segment at any moment: it is compared beside.
                false => {
                    self.prove_beside(proof, system.system_id, segment_size).await?;
                    self.proven = Some(proof);
                }
            }
        }
        let Some(place) = places.into_iter().find(|p| !self.gone.contains(p)) else {
            return Err(error::source("PostgreSQL has removed the WAL that it says it has")
                .hint("look at pg_replication_slots and at the server's log"));
        };
        let gap = wanted.filter(|wanted| wanted.at < place.at);
        let there = oldest.map(|_| gap.is_none());
        self.tell_invalidation(there).await;
        if let Some(wanted) = gap {
            let wal = coverage.and_then(|c| c.timelines.get(&wanted.timeline));
            let covered = wal.and_then(|wal| wal.live.get(&wanted.at.segment(segment_size))).copied();
            self.tell_gap(place.timeline, Lsn(wanted.at.0 + covered.unwrap_or_default()), place.at).await;
        }
        if place.timeline != system.timeline && place.timeline.0 > 1 {
            self.history(&mut connection, place.timeline).await?;
        }
        let complete_to = place::complete_to(coverage, place, segment_size);
        let (pieces, stored) = known_pieces(self.archive(), place.timeline, complete_to, segment_size).await?;
        // What is only compared was reported as durable before, and the slot must not be moved back for it.
        let durable = if Some(place) == proof { Lsn(place.at.0 + segment_size) } else { place.at };
        self.proof = proof.filter(|proof| *proof == place);
        let stream = match connection.start_physical(Some(&self.slot), place.at, place.timeline).await {
            Ok(stream) => stream,
            Err(e) => {
                if wal_is_gone(&e) {
                    self.gone.push(place);
                }
                return Err(e);
            }
        };
        self.begun.get_or_insert(durable);
        self.tell_begin(&system, place.timeline, durable);
        let beginning = Beginning {
            system_id: system.system_id,
            segment_size,
            timeline: place.timeline,
            at: place.at,
            durable,
            complete_to,
            pieces,
            stored,
        };
        Ok(Prepared { stream, place, beginning, status_every })
    }

    /// Streams an archived segment again through no slot, to see that the server's history is ours; one that
    /// the server no longer has proves nothing.
    async fn prove_beside(&self, proof: Place, system_id: u64, segment_size: u64) -> Result<()> {
        let end = Lsn(proof.at.0 + segment_size);
        let connection = self.source.backup_replication().await?;
        let (pieces, stored) = known_pieces(self.archive(), proof.timeline, end, segment_size).await?;
        let (timeline, at) = (proof.timeline, proof.at);
        let beginning =
            Beginning { system_id, segment_size, timeline, at, durable: at, complete_to: end, pieces, stored };
        let compared = async {
            let stream = connection.start_physical(None, at, timeline).await?;
            match self.healer(&self.source).beside(end).run(stream, beginning).await?.end {
                End::Lost(e) => Err(e),
                End::Reached | End::Timeline { .. } | End::Stopped | End::Others => Ok(()),
            }
        };
        match compared.await {
            Err(e) if wal_is_gone(&e) => Ok(()),
            compared => compared,
        }
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
    async fn slot(&mut self, connection: &mut ReplicationConnection) -> Result<SlotState> {
        if self.own_slot && connection.create_physical_slot(&self.slot, false).await? == SlotCreated::Created {
            self.runtime.emit(Event::Note(format!("made the replication slot \"{}\"", self.slot)));
        }
        let mut state = self.slot_state().await?;
        if let Some(reason) = state.lost.take().filter(|_| self.own_slot) {
            self.invalidated = Some(reason);
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
                "SELECT restart_lsn::text, slot_type = 'physical', pg_is_in_recovery(), \
                        CASE wal_status WHEN 'lost' THEN coalesce(to_jsonb(s)->>'invalidation_reason', 'wal_removed') END \
                 FROM pg_replication_slots s WHERE slot_name = $1",
                &[&self.slot],
            )
            .await
            .map_err(|e| explain(e, "cannot look at the replication slots"))?;
        let Some(row) = rows.first() else {
            return Err(error::source(format!("the replication slot \"{}\" is gone", self.slot)));
        };
        if !row.get::<_, bool>(1) {
            return Err(error::config(format!("the replication slot \"{}\" is a logical one", self.slot))
                .hint("name another in `postgres.slot`; Lifeboat makes it"));
        }
        let restart = row.get::<_, Option<&str>>(0).map(str::parse).transpose()?;
        Ok(SlotState { restart, lost: row.get(3), standby: row.get(2) })
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

    /// A slot that the server gave up is told and recorded, whether WAL is missing for it or not.
    async fn tell_invalidation(&mut self, there: Option<bool>) {
        let Some(reason) = self.invalidated.take() else { return };
        let told = error::source(format!(
            "PostgreSQL gave up the replication slot \"{}\" ({reason}); it was made anew",
            self.slot
        ));
        let told = told.meaning(match there {
            Some(true) => "the WAL that it should have kept is still there, and is being received",
            Some(false) => "WAL that the repository needs was removed: see the gap",
            None => "if WAL that the repository needs was removed, that is told as a gap",
        });
        let told = told
            .hint("keep `lifeboat wal receive` running, and see that it reaches the store")
            .hint("let slots keep more: max_slot_wal_keep_size, and idle_replication_slot_timeout since PostgreSQL 18");
        self.runtime.emit(Event::Warning(told.message()));
        self.record(&told).await;
    }

    async fn record(&self, told: &Error) {
        match ledger(self.repository, &self.environment.name).await {
            Ok(ledger) => {
                let now = self.runtime.now();
                record_failure(&ledger, self.repository, "wal receive", told, now, Instant::now(), self.runtime).await;
            }
            Err(e) => self.runtime.emit(Event::Warning(format!("this is not recorded in the ledger: {e}"))),
        }
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
        self.record(&gap).await;
    }

    fn tell_begin(&self, system: &SystemIdentity, timeline: Timeline, from: Lsn) {
        self.runtime.emit(Event::Note(format!(
            "receiving WAL of \"{}\" from {from} on timeline {} through slot \"{}\"; the server is at {}",
            self.environment.name, timeline.0, self.slot, system.flush_lsn
        )));
    }
}

/// The start of the oldest segment in the server's `pg_wal` from which on none is missing; `None` where the
/// role may not look.
pub(super) async fn oldest_kept(
    source: &Source,
    history: &TimelineHistory,
    flush: Lsn,
    segment_size: u64,
) -> Result<Option<Lsn>> {
    let sql = source.sql().await?;
    let Ok(rows) = sql.query("SELECT name FROM pg_ls_waldir()", &[]).await else { return Ok(None) };
    let files: HashSet<SegmentName> = rows.iter().filter_map(|row| row.get::<_, &str>(0).parse().ok()).collect();
    let mut number = flush.segment(segment_size);
    let there =
        |number: u64| files.contains(&SegmentName::new(history.of_segment(number, segment_size), number, segment_size));
    while number > 0 && there(number - 1) {
        number -= 1;
    }
    Ok(Some(Lsn(number * segment_size)))
}

/// The stored pieces of the segment that begins at `at`, with the digests by which their bytes will be compared, by
/// their ends; and how far they reach without a hole.
pub(super) async fn known_pieces(
    archive: WalArchive<'_>,
    timeline: Timeline,
    at: Lsn,
    segment_size: u64,
) -> Result<(Vec<KnownPiece>, Lsn)> {
    let segment = SegmentName::holding(timeline, at, segment_size);
    let mut macs = piece_macs(archive, archive.pieces(&segment).await?).await?;
    let chained = chain(macs.iter().map(|(piece, _)| piece.clone()).collect());
    let stored = Lsn(at.0 + chained.last().map_or(0, |piece| piece.end));
    macs.sort_by_key(|(piece, _)| piece.end);
    let known = |(piece, mac): (Piece, ContentMac)| KnownPiece {
        key: piece.key,
        start: Lsn(at.0 + piece.offset),
        end: Lsn(at.0 + piece.end),
        mac,
    };
    Ok((macs.into_iter().map(known).collect(), stored))
}

/// The digests of stored pieces; one that vanished meanwhile was merged into another or into its segment.
pub(in crate::postgres) async fn piece_macs(
    archive: WalArchive<'_>,
    pieces: Vec<Piece>,
) -> Result<Vec<(Piece, ContentMac)>> {
    futures::stream::iter(pieces)
        .map(|piece| async move {
            let digest = archive.piece_summary(&piece).await?;
            Ok(digest.map(|(mac, _)| (piece, mac)))
        })
        .buffered(PARALLEL)
        .try_filter_map(|known| std::future::ready(Ok(known)))
        .try_collect()
        .await
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
