//! The WAL archive: complete segments and history files under `wal/`, pieces of the segment being
//! written under `wal-live/`.
//!
//! A WAL object commits itself: its name is its position and it is create-only. The archiving host
//! cannot read what it stored, so "the same bytes again" is decided by a keyed digest of the plaintext
//! in the object's tail: equal is success, different is an error, and nothing is ever replaced.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Repository;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::storage::{Created, ObjectInfo, Store, layout};
use crate::units::{Lsn, Timeline};
use crate::vault::frame::FRAME_SIZE;
use crate::vault::index_key::{ContentMac, MacBuilder};
use crate::vault::object::{HEADER_READ, TAIL_LENGTH};
use crate::vault::{Class, Frame, ObjectOpener, ObjectSealer, Tail};
use crate::wal_name::{SegmentName, WalFileName};

/// What the archive knows of a WAL file without opening it; sealed under the index key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalSummary {
    /// Of a segment or a piece of one.
    Segment(SegmentSummary),
    /// The text of a history file: which timelines came before, and where they were left.
    History(String),
}

/// What the archive knows of a segment or piece without opening it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSummary {
    /// The cluster that wrote it.
    pub system_id: u64,
    /// Position of the first byte.
    pub start: Lsn,
    /// Position behind the last byte.
    pub end: Lsn,
    /// Position behind the last record that ends in it, where one does.
    pub last_record_end: Option<Lsn>,
    /// Commits in it.
    pub commits: u64,
    /// Restore points set in it: name and position of the record.
    pub restore_points: Vec<(String, Lsn)>,
    /// Earliest commit time in it.
    pub first_commit_time: Option<DateTime<Utc>>,
    /// Latest commit time in it.
    pub last_commit_time: Option<DateTime<Utc>>,
}

/// A stored WAL object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWal {
    /// Whether this call wrote it.
    pub created: Created,
    /// Stored size in bytes.
    pub size: u64,
    /// SHA-256 of the stored bytes, where this call wrote it.
    pub sha256: Option<String>,
}

/// Seals the plaintext of one WAL file as it comes.
#[derive(Debug)]
pub struct WalSealer {
    sealer: ObjectSealer,
    mac: MacBuilder,
    buffer: Vec<u8>,
    level: i32,
    length: u64,
}

impl WalSealer {
    /// Adds plaintext; compresses whenever a frame is full.
    pub fn write(&mut self, mut bytes: &[u8]) {
        self.mac.update(bytes);
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let take = bytes.len().min(FRAME_SIZE - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.buffer.len() == FRAME_SIZE {
                self.flush();
            }
        }
    }

    /// Plaintext bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn flush(&mut self) {
        self.sealer.push(&Frame::compress(&self.buffer, self.level));
        self.buffer.clear();
    }

    fn finish(mut self, summary: Option<&WalSummary>) -> (Bytes, ContentMac) {
        if !self.buffer.is_empty() {
            self.flush();
        }
        let mac = self.mac.finish();
        let text = summary.map(|s| serde_json::to_vec(s).expect("a summary is plain data"));
        (self.sealer.finish(Some(mac), text.as_deref()).bytes, mac)
    }
}

/// The archive of one environment.
#[derive(Debug, Clone, Copy)]
pub struct WalArchive<'a> {
    repository: &'a Repository,
    environment: &'a str,
}

impl<'a> WalArchive<'a> {
    /// The archive of `environment`.
    pub fn new(repository: &'a Repository, environment: &'a str) -> Self {
        Self { repository, environment }
    }

    /// Starts sealing a complete file (`Class::Wal`) or a piece (`Class::WalPiece`).
    pub fn sealer(&self, class: Class, level: i32) -> Result<WalSealer> {
        Ok(WalSealer {
            sealer: ObjectSealer::new(class, &self.repository.seal)?,
            mac: self.repository.seal.index.content_mac(),
            buffer: Vec::new(),
            level,
            length: 0,
        })
    }

    /// Stores a complete segment, history file or backup history file.
    pub async fn put(&self, name: &WalFileName, sealed: WalSealer, summary: Option<&WalSummary>) -> Result<StoredWal> {
        let key = layout::wal_file(self.environment, name.timeline(), &name.to_string());
        self.put_object(&key, sealed, summary).await
    }

    /// Stores a piece of `segment` whose first byte is at `offset` within it.
    pub async fn put_piece(
        &self,
        segment: &SegmentName,
        offset: u64,
        sealed: WalSealer,
        summary: SegmentSummary,
    ) -> Result<Piece> {
        let end = offset + sealed.length();
        let key = layout::wal_live_piece(self.environment, segment.timeline, &segment.to_string(), offset, end);
        let stored = self.put_object(&key, sealed, Some(&WalSummary::Segment(summary))).await?;
        Ok(Piece { key, offset, end, size: stored.size })
    }

    async fn put_object(&self, key: &str, sealed: WalSealer, summary: Option<&WalSummary>) -> Result<StoredWal> {
        let length = sealed.length();
        let (bytes, mac) = sealed.finish(summary);
        let size = bytes.len() as u64;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        match self.store().create_or_get(key, bytes).await? {
            None => Ok(StoredWal { created: Created::New, size, sha256: Some(sha256) }),
            Some(there) => {
                if Tail::parse(&there).map_err(|e| e.context(key))?.mac != mac {
                    return Err(diverged(key, length));
                }
                Ok(StoredWal { created: Created::Same, size: there.len() as u64, sha256: None })
            }
        }
    }

    /// Whether the archive holds exactly this content under `name`; `None` where it holds nothing.
    pub async fn holds(&self, name: &WalFileName, mac: &ContentMac) -> Result<Option<bool>> {
        let key = layout::wal_file(self.environment, name.timeline(), &name.to_string());
        Ok(self.tail(&key).await?.map(|t| t.mac == *mac))
    }

    /// Whether the archive holds exactly what was sealed; other content under the same name is an error.
    pub async fn same(&self, name: &WalFileName, sealed: &WalSealer) -> Result<bool> {
        match self.holds(name, &sealed.mac.clone().finish()).await? {
            Some(false) => {
                Err(diverged(&layout::wal_file(self.environment, name.timeline(), &name.to_string()), sealed.length))
            }
            held => Ok(held == Some(true)),
        }
    }

    async fn tail(&self, key: &str) -> Result<Option<Tail>> {
        let Some(info) = self.store().info(key).await? else { return Ok(None) };
        let start = info.size.saturating_sub(TAIL_LENGTH as u64);
        let Some(bytes) = self.store().find_range(key, start..info.size).await? else { return Ok(None) };
        Tail::parse(&bytes).map(Some).map_err(|e| e.context(key))
    }

    /// Reads a complete file, or `None` where the archive proves that it has none.
    pub async fn read(&self, name: &WalFileName) -> Result<Option<Vec<u8>>> {
        let key = layout::wal_file(self.environment, name.timeline(), &name.to_string());
        match self.store().find(&key).await? {
            Some(object) => self.open(Class::Wal, &key, &object).map(Some),
            None => Ok(None),
        }
    }

    /// The plaintext of the pieces of a segment, from its first byte to where they end; empty where
    /// there are none. A hole ends it: what lies behind a hole is not reachable.
    pub async fn read_live(&self, segment: &SegmentName) -> Result<Vec<u8>> {
        let mut plaintext = Vec::new();
        for piece in chain(self.pieces(segment).await?) {
            // A piece that vanished was merged into another or tidied away; the caller looks again.
            let Some(object) = self.store().find(&piece.key).await? else { break };
            let bytes = self.open(Class::WalPiece, &piece.key, &object)?;
            let known = plaintext.len().saturating_sub(piece.offset as usize);
            plaintext.extend_from_slice(bytes.get(known..).unwrap_or_default());
        }
        Ok(plaintext)
    }

    /// Reads a segment: complete where archived, else what pieces give, padded with zeros to
    /// `segment_size`. `None` where there is neither.
    pub async fn read_segment(&self, segment: &SegmentName, segment_size: u64) -> Result<Option<Vec<u8>>> {
        let name = WalFileName::Segment(*segment);
        if let Some(bytes) = self.read(&name).await? {
            return Ok(Some(bytes));
        }
        let mut live = self.read_live(segment).await?;
        // The segment may have been completed, and its pieces tidied away, between the two looks.
        if let Some(bytes) = self.read(&name).await? {
            return Ok(Some(bytes));
        }
        if live.is_empty() {
            return Ok(None);
        }
        live.resize(segment_size as usize, 0);
        Ok(Some(live))
    }

    /// The pieces of a segment, by offset.
    pub async fn pieces(&self, segment: &SegmentName) -> Result<Vec<Piece>> {
        let prefix = layout::wal_live_segment(self.environment, segment.timeline, &segment.to_string());
        let objects = self.store().list(&prefix).await?;
        let mut pieces = objects.into_iter().map(Piece::of).collect::<Result<Vec<_>>>()?;
        pieces.sort_by_key(|p| (p.offset, p.end));
        Ok(pieces)
    }

    /// Keyed digest and summary of a piece.
    pub async fn piece_summary(&self, piece: &Piece) -> Result<Option<(ContentMac, SegmentSummary)>> {
        Ok(self
            .summary_of(Class::WalPiece, &piece.key, piece.size)
            .await?
            .and_then(|(mac, s)| Some((mac, s.segment()?))))
    }

    /// Summary of a complete segment, or `None` where it is not there or has none.
    pub async fn segment_summary(&self, segment: &SegmentName) -> Result<Option<SegmentSummary>> {
        Ok(self.file_summary(&WalFileName::Segment(*segment)).await?.and_then(WalSummary::segment))
    }

    /// Text of an archived history file, which needs no key that opens data.
    pub async fn history(&self, timeline: Timeline) -> Result<Option<String>> {
        match self.file_summary(&WalFileName::History { timeline }).await? {
            Some(WalSummary::History(text)) => Ok(Some(text)),
            _ => Ok(None),
        }
    }

    async fn file_summary(&self, name: &WalFileName) -> Result<Option<WalSummary>> {
        let key = layout::wal_file(self.environment, name.timeline(), &name.to_string());
        let Some(info) = self.store().info(&key).await? else { return Ok(None) };
        Ok(self.summary_of(Class::Wal, &key, info.size).await?.map(|(_, summary)| summary))
    }

    async fn summary_of(&self, class: Class, key: &str, size: u64) -> Result<Option<(ContentMac, WalSummary)>> {
        const END_READ: u64 = 4096;
        let store = self.store();
        let Some(end) = store.find_range(key, size.saturating_sub(END_READ)..size).await? else { return Ok(None) };
        // Most pieces are small enough to be read at once.
        let start = match size <= END_READ {
            true => Some(end.clone()),
            false => store.find_range(key, 0..HEADER_READ.min(size)).await?,
        };
        let Some(start) = start else { return Ok(None) };
        let opener = ObjectOpener::new(class, &start, &self.repository.keys).map_err(|e| e.context(key))?;
        let tail = Tail::parse(&end).map_err(|e| e.context(key))?;
        if tail.summary_len == 0 {
            return Ok(None);
        }
        let to = end.len() - TAIL_LENGTH;
        let from = to.checked_sub(tail.summary_len as usize);
        let sealed = from.map(|from| &end[from..to]).ok_or_else(|| error::integrity(format!("{key} is truncated")))?;
        let text = opener.summary(sealed).map_err(|e| e.context(key))?;
        let summary = serde_json::from_slice(&text)
            .or_err(ErrorKind::Integrity, || format!("{key} holds a summary that does not parse"))?;
        Ok(Some((tail.mac, summary)))
    }

    /// Deletes pieces; called when the complete segment is durable.
    pub async fn delete_pieces(&self, pieces: Vec<Piece>) -> Result<()> {
        self.store().delete_all(pieces.into_iter().map(|p| p.key).collect()).await
    }

    /// Timelines that have archived files or pieces, ascending.
    pub async fn timelines(&self) -> Result<Vec<Timeline>> {
        let mut timelines = Vec::new();
        for prefix in [layout::wal(self.environment), layout::wal_live(self.environment)] {
            for folder in self.store().list_folder(&prefix).await?.1 {
                let name = folder.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                if let Ok(number) = u32::from_str_radix(name, 16) {
                    timelines.push(Timeline(number));
                }
            }
        }
        timelines.sort();
        timelines.dedup();
        Ok(timelines)
    }

    /// Complete files of a timeline, by name, with their stored sizes.
    pub async fn list(&self, timeline: Timeline) -> Result<Vec<(WalFileName, u64)>> {
        let (files, strange) = self.list_all(timeline).await?;
        match strange.first() {
            None => Ok(files),
            Some(key) => Err(error::integrity(format!("{key} is not named as a WAL file"))),
        }
    }

    /// The same, with the names of objects that do not belong there.
    pub async fn list_all(&self, timeline: Timeline) -> Result<(Vec<(WalFileName, u64)>, Vec<String>)> {
        let (mut files, mut strange) = (Vec::new(), Vec::new());
        for object in self.store().list(&layout::wal_timeline(self.environment, timeline)).await? {
            match object.key.rsplit('/').next().unwrap_or_default().parse() {
                Ok(name) => files.push((name, object.size)),
                Err(_) => strange.push(object.key),
            }
        }
        Ok((files, strange))
    }

    /// Segments of a timeline that have pieces, ascending.
    pub async fn live_segments(&self, timeline: Timeline) -> Result<Vec<SegmentName>> {
        let prefix = format!("{}{timeline}/", layout::wal_live(self.environment));
        let mut segments = Vec::new();
        for folder in self.store().list_folder(&prefix).await?.1 {
            if let Some(Ok(name)) = folder.trim_end_matches('/').rsplit('/').next().map(str::parse) {
                segments.push(name);
            }
        }
        segments.sort();
        Ok(segments)
    }

    /// The stored bytes of a complete file.
    pub async fn stored_bytes(&self, name: &WalFileName) -> Result<Option<Bytes>> {
        self.store().find(&layout::wal_file(self.environment, name.timeline(), &name.to_string())).await
    }

    fn open(&self, class: Class, key: &str, object: &[u8]) -> Result<Vec<u8>> {
        let opened = ObjectOpener::new(class, object, &self.repository.keys).and_then(|o| o.whole(object));
        opened.map_err(|e| e.context(key))
    }

    pub(super) fn environment(&self) -> &str {
        self.environment
    }

    pub(super) fn store(&self) -> &Store {
        &self.repository.store
    }
}

impl WalSummary {
    fn segment(self) -> Option<SegmentSummary> {
        match self {
            WalSummary::Segment(summary) => Some(summary),
            WalSummary::History(_) => None,
        }
    }
}

/// A stored piece of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Name of the object.
    pub key: String,
    /// Offset of its first byte within the segment.
    pub offset: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// Stored size in bytes.
    pub size: u64,
}

impl Piece {
    pub(super) fn of(object: ObjectInfo) -> Result<Self> {
        let name = object.key.rsplit('/').next().unwrap_or_default();
        let range = name.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
        match range {
            Some((offset, end)) if offset < end => Ok(Self { offset, end, size: object.size, key: object.key }),
            _ => Err(error::integrity(format!("{} is not named as a piece of WAL", object.key))),
        }
    }
}

/// Of pieces sorted by offset, those that cover the segment from its first byte on without a hole,
/// each time the one that reaches farthest. Two receivers at once cut at different places, so pieces
/// may overlap: a reader skips what it has.
pub fn chain(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut chained: Vec<Piece> = Vec::new();
    let mut best: Option<Piece> = None;
    let mut covered = 0;
    for piece in pieces {
        if piece.offset > covered
            && let Some(best) = best.take()
        {
            covered = best.end;
            chained.push(best);
        }
        if piece.offset > covered {
            break;
        }
        if piece.end > best.as_ref().map_or(covered, |b| b.end) {
            best = Some(piece);
        }
    }
    chained.extend(best);
    chained
}

/// Patience of loops that hold WAL back in PostgreSQL while the store is away: they retry for ever
/// themselves, in steps that let them notice a signal.
pub const STEP: Duration = Duration::from_secs(20);

fn diverged(key: &str, length: u64) -> error::Error {
    error::integrity(format!("{key} is already archived with other content than these {length} bytes"))
        .meaning(
            "two servers write the same timeline: an old primary that came back, a clone, or a restored copy; \
             what was archived first is kept, and this WAL is NOT in the repository",
        )
        .hint("find the server that should not archive here, and stop its archiving")
        .hint("a restored copy that is to live on beside the original needs an environment of its own")
}

#[cfg(test)]
#[path = "wal_archive_tests.rs"]
mod tests;
