//! Bytes of WAL in, sealed objects out: checks every record, counts, compresses, cuts pieces.
//!
//! Runs on a blocking thread between two bounded channels, so a slow store stops the reading of WAL
//! instead of filling memory: what is held is the compressed segment, at most [`PENDING_LIMIT`] bytes
//! that no piece holds yet, and [`MERGE_LIMIT`] bytes for merging.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::tiers::{MERGE_LIMIT, Tiers};
use crate::error::{self, Error, Result};
use crate::postgres::block_files::{BlockFiles, Keeper};
use crate::postgres::wal::{self, WalEnd, WalReader};
use crate::repository::Repository;
use crate::repository::wal_archive::{SegmentSummary, WalArchive, WalSealer};
use crate::units::{Lsn, Timeline};
use crate::vault::Class;
use crate::vault::index_key::{ContentMac, MacBuilder};
use crate::wal_name::SegmentName;

/// So many bytes are made a piece whether the store is busy or not.
const PENDING_LIMIT: u64 = 32 << 20;

/// The most that is spent on compressing a piece, which is gone when its segment is complete.
const PIECE_LEVEL: i32 = 1;

/// What comes in; the end of the channel makes a last piece of what is left.
#[derive(Debug)]
pub(super) enum Item {
    /// The next bytes.
    Wal(Bytes),
    /// Make a piece of what no piece holds yet.
    Cut,
}

/// What is to be stored, in this order.
#[derive(Debug)]
pub(super) enum Job {
    /// A piece, which makes others superfluous: first byte and end of each.
    Piece { segment: SegmentName, offset: u64, sealed: WalSealer, summary: SegmentSummary, replaces: Vec<(u64, u64)> },
    /// A complete segment.
    Segment { name: SegmentName, sealed: WalSealer, summary: SegmentSummary, has_pieces: bool },
    /// A piece from before holds the same bytes.
    Verified(Lsn),
}

/// A piece that was in the store before; its bytes are compared as they come again.
#[derive(Debug)]
pub(super) struct KnownPiece {
    pub(super) key: String,
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    pub(super) mac: ContentMac,
}

/// Where receiving begins and whose WAL it is.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) system_id: u64,
    pub(super) segment_size: u64,
    pub(super) timeline: Timeline,
    /// Start of a segment.
    pub(super) at: Lsn,
    /// What the server may be told to be durable before anything comes.
    pub(super) durable: Lsn,
    /// The segments before, from `at` on, are stored complete; their bytes are compared as they end.
    pub(super) complete_to: Lsn,
    /// The pieces of the segment behind them, by their ends; their bytes are compared as well.
    pub(super) pieces: Vec<KnownPiece>,
    /// Everything before is stored already without a hole, from `at` on.
    pub(super) stored: Lsn,
}

#[derive(Debug)]
struct Comparison {
    piece: KnownPiece,
    seen: MacBuilder,
}

#[derive(Debug)]
pub(super) struct Intake {
    repository: Arc<Repository>,
    environment: String,
    level: i32,
    system_id: u64,
    segment_size: u64,
    timeline: Timeline,
    /// Position behind the last byte taken.
    position: u64,
    /// Bytes before this position need no piece any more.
    cut_at: u64,
    reader: WalReader,
    whole: WalSealer,
    in_segment: wal::SegmentSummary,
    since_cut: wal::SegmentSummary,
    /// The last bytes before `position`: what no piece holds yet, and some before for merging.
    window: Vec<u8>,
    tiers: Tiers,
    comparisons: Vec<Comparison>,
    has_pieces: bool,
    blocks: Option<Keeper>,
    jobs: mpsc::Sender<Job>,
}

/// The storer is gone; its own error says why.
#[derive(Debug)]
struct StorerGone;

impl Intake {
    pub(super) fn new(
        repository: Arc<Repository>,
        environment: &str,
        level: i32,
        beginning: Beginning,
        jobs: mpsc::Sender<Job>,
    ) -> Result<Self> {
        let Beginning { system_id, segment_size, timeline, at, pieces, complete_to, stored, .. } = beginning;
        let mut reader = WalReader::new(segment_size, at, Some(system_id))?;
        reader.set_newest_timeline(timeline);
        let whole = WalArchive::new(&repository, environment).sealer(Class::Wal, level)?;
        let index = &repository.seal.index;
        let has_pieces = !pieces.is_empty() && complete_to == at;
        let comparisons = pieces.into_iter().map(|piece| Comparison { piece, seen: index.content_mac() }).collect();
        Ok(Self {
            environment: environment.to_owned(),
            level,
            system_id,
            segment_size,
            timeline,
            position: at.0,
            cut_at: stored.0,
            reader,
            whole,
            in_segment: Default::default(),
            since_cut: Default::default(),
            window: Vec::new(),
            tiers: Tiers::default(),
            comparisons,
            has_pieces,
            blocks: None,
            jobs,
            repository,
        })
    }

    /// Keeps which blocks change; to be called before anything is taken in.
    pub(super) fn keep_blocks(&mut self, files: BlockFiles) {
        let keeper = Keeper::begin(files, &mut self.reader, self.system_id, self.timeline, self.segment_size);
        self.blocks = Some(keeper);
    }

    /// Takes everything in, to the end of the channel.
    pub(super) fn run(mut self, mut items: mpsc::Receiver<Item>) -> Result<()> {
        while let Some(item) = items.blocking_recv() {
            let taken = match item {
                Item::Wal(bytes) => self.take(&bytes)?,
                Item::Cut => self.cut()?,
            };
            if taken.is_err() {
                return Ok(());
            }
        }
        self.cut().map(|_| ())
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<std::result::Result<(), StorerGone>> {
        while !bytes.is_empty() {
            let mut border = (self.position / self.segment_size + 1) * self.segment_size;
            if self.position < self.cut_at {
                border = border.min(self.cut_at);
            }
            let (part, rest) = bytes.split_at(bytes.len().min((border - self.position) as usize));
            bytes = rest;
            if self.part(part)?.is_err() {
                return Ok(Err(StorerGone));
            }
        }
        Ok(Ok(()))
    }

    /// Takes bytes that end at most where the segment or what was stored before ends.
    fn part(&mut self, bytes: &[u8]) -> Result<std::result::Result<(), StorerGone>> {
        let stored_before = self.position < self.cut_at;
        let (segment, piece) = (&mut self.in_segment, &mut self.since_cut);
        let read = self.reader.feed(bytes, |record| {
            segment.count(&record);
            if !stored_before {
                piece.count(&record);
            }
        });
        read.map_err(|e| self.unsound(e))?;
        if let Some(blocks) = &mut self.blocks {
            blocks.fed(bytes, &mut self.reader);
        }
        self.whole.write(bytes);
        let from = self.position;
        self.position += bytes.len() as u64;
        if self.compare(from, bytes)?.is_err() {
            return Ok(Err(StorerGone));
        }
        if !stored_before {
            self.window.extend_from_slice(bytes);
        }
        if self.position.is_multiple_of(self.segment_size) {
            self.complete()
        } else if self.position >= self.cut_at + PENDING_LIMIT {
            self.cut()
        } else {
            Ok(Ok(()))
        }
    }

    /// Compares bytes with the pieces that hold them already.
    fn compare(&mut self, from: u64, bytes: &[u8]) -> Result<std::result::Result<(), StorerGone>> {
        let to = self.position;
        for comparison in &mut self.comparisons {
            let (first, last) = (comparison.piece.start.0.max(from), comparison.piece.end.0.min(to));
            if first < last {
                comparison.seen.update(&bytes[(first - from) as usize..(last - from) as usize]);
            }
        }
        while self.comparisons.first().is_some_and(|c| c.piece.end.0 <= to) {
            let Comparison { piece, seen } = self.comparisons.remove(0);
            if seen.finish() != piece.mac {
                return Err(diverged(&piece.key));
            }
            // A piece behind a hole proves nothing about what lies before it.
            if piece.end.0 <= self.cut_at && self.send(Job::Verified(piece.end)).is_err() {
                return Ok(Err(StorerGone));
            }
        }
        Ok(Ok(()))
    }

    fn cut(&mut self) -> Result<std::result::Result<(), StorerGone>> {
        if self.position <= self.cut_at {
            return Ok(Ok(()));
        }
        let segment = self.segment(Lsn(self.cut_at));
        let start = Lsn(self.cut_at).segment_start(self.segment_size).0;
        let counted = std::mem::take(&mut self.since_cut);
        let summary = self.summary(&counted, self.cut_at);
        let cut = self.tiers.cut(self.cut_at - start, self.position - start, summary);
        let length = (self.position - start - cut.offset) as usize;
        let level = self.level.min(PIECE_LEVEL);
        let mut sealed = WalArchive::new(&self.repository, &self.environment).sealer(Class::WalPiece, level)?;
        sealed.write(&self.window[self.window.len() - length..]);
        self.cut_at = self.position;
        self.window.drain(..self.window.len().saturating_sub(MERGE_LIMIT as usize));
        self.give_back();
        self.has_pieces = true;
        if let Some(blocks) = &self.blocks {
            blocks.keep(&self.reader);
        }
        Ok(self.send(Job::Piece { segment, offset: cut.offset, sealed, summary: cut.summary, replaces: cut.replaces }))
    }

    /// Gives memory back that was needed while much came at once; an idle receiver has none to spare for another hundred.
    fn give_back(&mut self) {
        if self.window.capacity() > 2 * self.window.len().max(MERGE_LIMIT as usize) {
            self.window.shrink_to(MERGE_LIMIT as usize);
        }
    }

    fn complete(&mut self) -> Result<std::result::Result<(), StorerGone>> {
        let start = self.position - self.segment_size;
        if let WalEnd::ZeroTail { at } = self.reader.end() {
            let why = error::integrity(format!("its WAL ends at {at}, the rest is zeros"));
            self.position = start;
            return Err(self.unsound(why));
        }
        if let Some(blocks) = &mut self.blocks {
            blocks.complete(&mut self.reader);
        }
        let archive = WalArchive::new(&self.repository, &self.environment);
        let sealed = std::mem::replace(&mut self.whole, archive.sealer(Class::Wal, self.level)?);
        let counted = std::mem::take(&mut self.in_segment);
        let summary = self.summary(&counted, start);
        self.since_cut = Default::default();
        self.tiers.clear();
        self.window.clear();
        self.give_back();
        self.cut_at = self.cut_at.max(self.position);
        let has_pieces = std::mem::replace(&mut self.has_pieces, !self.comparisons.is_empty());
        Ok(self.send(Job::Segment { name: self.segment(Lsn(start)), sealed, summary, has_pieces }))
    }

    fn segment(&self, position: Lsn) -> SegmentName {
        SegmentName::holding(self.timeline, position, self.segment_size)
    }

    fn summary(&self, counted: &wal::SegmentSummary, start: u64) -> SegmentSummary {
        summary(counted, self.system_id, Lsn(start), Lsn(self.position))
    }

    fn send(&self, job: Job) -> std::result::Result<(), StorerGone> {
        self.jobs.blocking_send(job).map_err(|_| StorerGone)
    }

    fn unsound(&self, error: Error) -> Error {
        error
            .context(format_args!("WAL segment {}", self.segment(Lsn(self.position))))
            .meaning("the server sent WAL that recovery could not read; it was not kept, nor reported as safe")
            .hint("check the server's disks and memory; take a base backup of a server that is sound")
    }
}

/// What the archive notes of a stretch of WAL.
pub(in crate::postgres) fn summary(
    counted: &wal::SegmentSummary,
    system_id: u64,
    start: Lsn,
    end: Lsn,
) -> SegmentSummary {
    SegmentSummary {
        system_id,
        start,
        end,
        last_record_end: counted.last_record_end,
        commits: counted.commits,
        restore_points: counted.restore_points.iter().map(|p| (p.name.clone(), p.lsn)).collect(),
        first_commit_time: counted.earliest_commit_time,
        last_commit_time: counted.latest_commit_time,
    }
}

/// The error for a piece that holds other bytes than the server has at its place.
pub(in crate::postgres) fn diverged(key: &str) -> Error {
    error::integrity(format!("{key} was archived with other content than the server has at that place now"))
        .meaning(
            "two servers write the same timeline: an old primary that came back, a clone, or a copy restored to an \
             earlier state; what was archived first is kept, and this server's WAL is NOT in the repository",
        )
        .hint("find the server that should not archive here, and stop its archiving")
        .hint("a restored copy that is to live on beside the original needs an environment of its own")
        .hint(
            "only if this server is the right one: save and remove the other one's pieces of that segment below \
             wal-live/, then start again",
        )
}
