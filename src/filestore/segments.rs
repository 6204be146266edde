//! The index of names in the repository: JSON Lines in metadata objects.
//!
//! ```text
//! index object   {"index": header} {"segment": …}… {"damaged": …}…        one for each capture
//! segment        {"segment": …} {"pack": …}… {"add": […]}… {"gone": […]}… {"back": …}…
//! ```
//!
//! A segment holds what one capture added and changed, with its packs; frames are counted from its
//! own first pack. Segments are immutable and shared by the index objects of many captures, so a
//! capture that finds nothing new writes nothing but its small index object. The segments that an
//! index object names, oldest first, are everything that a restore needs besides the packs. When they
//! become many, the newest are folded into one, so that the old and large ones are rarely rewritten.

use std::num::NonZeroU32;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::index::{Index, Record};
use super::name::FileName;
use super::stamps::Stamp;
use crate::error::{self, Result};
use crate::evidence::entry::Suspect;
use crate::repository::meta::{self, MetaObject, MetaWriter};
use crate::repository::{PackInfo, PackTable, Repository};

/// The format that this Lifeboat writes and reads.
const FORMAT: u32 = 1;

/// More segments than this are folded.
const MAX_SEGMENTS: usize = 8;

/// Expired names are looked at closer from so many on, or where they are one of so few of all.
const MANY_NAMES: usize = 10_000;
const FEW: usize = 20;

/// Packs of this size together are worth writing the index anew, or a quarter of all.
const MUCH: u64 = 256 << 20;

/// Folding leaves at most this many untouched.
const MAX_KEPT: usize = 4;

/// Whose index it is and which capture wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Format of index and segments.
    pub format: u32,
    /// Id of the capture.
    pub capture: String,
    /// Odoo's `data_dir`.
    pub data_dir: String,
    /// The database.
    pub database: String,
    /// Odoo's `database.uuid`, where known.
    pub database_uuid: Option<String>,
    /// When the capture's scan began.
    pub scan_started: DateTime<Utc>,
    /// When it ended: what was there is known to have been there at this time.
    pub scan_finished: DateTime<Utc>,
}

impl Header {
    pub(super) fn new(
        capture: &str,
        data_dir: String,
        database: &str,
        database_uuid: Option<String>,
        now: DateTime<Utc>,
    ) -> Self {
        let (capture, database) = (capture.to_owned(), database.to_owned());
        Self { format: FORMAT, capture, data_dir, database, database_uuid, scan_started: now, scan_finished: now }
    }
}

/// A segment, as an index object names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentRef {
    /// Name under `meta/`.
    pub(super) sha256: String,
    /// Names that it adds.
    pub(super) names: u64,
    /// Frames in its packs.
    pub(super) frames: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum IndexLine {
    Index(Header),
    Segment(SegmentRef),
    Damaged(Suspect),
    /// When all directories were listed last.
    Listed(DateTime<Utc>),
    /// A directory as it was when it was listed.
    Directory(Stamp),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SegmentLine {
    Segment {
        format: u32,
        capture: String,
    },
    Pack(PackInfo),
    /// Name, length, frame, offset, first seen, last seen (null: still there).
    Add(FileName, u64, u64, u32, u32, Option<NonZeroU32>),
    /// A name of an older segment, and when it was last seen.
    Gone(FileName, NonZeroU32),
    /// A name of an older segment that is there again.
    Back(FileName),
}

/// Whether the packs are wanted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packs {
    /// Only names: for captures.
    Skip,
    /// For reading content.
    Load,
}

impl Index {
    /// Reads the index object of a capture and its segments.
    pub async fn read(repository: &Repository, environment: &str, sha256: &str, packs: Packs) -> Result<Self> {
        let mut index = Self::read_object(repository, environment, sha256).await?;
        let mut base = 0;
        for segment in index.segments.clone() {
            // The exact size, because growing by doubling would double the peak; bounded, because it was read.
            let expected = segment.names.min(1 << 24) as usize;
            let (mut added, mut changed) = (Vec::with_capacity(expected), Vec::new());
            let mut frames = 0;
            meta::read(repository, environment, &segment.sha256, |line: SegmentLine| {
                match line {
                    SegmentLine::Segment { format, .. } => check_format(format)?,
                    SegmentLine::Pack(pack) => {
                        frames += pack.frames.len() as u64;
                        if packs == Packs::Load {
                            index.packs.push(pack);
                        }
                    }
                    SegmentLine::Add(name, length, frame, offset, first_seen, last_seen) => {
                        added.push(Record::new(name, length, base + frame, offset, first_seen)?.gone(last_seen));
                    }
                    SegmentLine::Gone(name, last_seen) => changed.push((name, Some(last_seen))),
                    SegmentLine::Back(name) => changed.push((name, None)),
                }
                Ok(())
            })
            .await?;
            if (added.len() as u64, frames) != (segment.names, segment.frames) {
                return Err(error::integrity(format!("meta/{} is not the segment that is named", segment.sha256)));
            }
            index.add(added);
            changed.iter().for_each(|(name, last_seen)| index.note(name, *last_seen));
            base += frames;
        }
        Ok(index)
    }

    /// Reads the index object alone: no records.
    pub(super) async fn read_object(repository: &Repository, environment: &str, sha256: &str) -> Result<Self> {
        let (mut header, mut segments, mut damaged) = (None, Vec::new(), Vec::new());
        let (mut listed_at, mut stamps) = (None, Vec::new());
        meta::read(repository, environment, sha256, |line: IndexLine| {
            match line {
                IndexLine::Index(first) => {
                    check_format(first.format)?;
                    header = Some(first);
                }
                IndexLine::Segment(segment) => segments.push(segment),
                IndexLine::Damaged(suspect) => damaged.push(suspect),
                IndexLine::Listed(time) => listed_at = Some(time),
                IndexLine::Directory(stamp) => stamps.push(stamp),
            }
            Ok(())
        })
        .await?;
        let header =
            header.ok_or_else(|| error::integrity(format!("meta/{sha256} is not the index of a filestore capture")))?;
        Ok(Self { segments, damaged, listed_at, stamps, ..Self::empty(header) })
    }

    /// Puts the index object.
    pub(super) async fn put_object(&self, repository: &Repository, environment: &str) -> Result<MetaObject> {
        let mut writer = MetaWriter::new(repository)?;
        writer.line(&IndexLine::Index(self.header.clone()))?;
        for segment in &self.segments {
            writer.line(&IndexLine::Segment(segment.clone()))?;
        }
        for suspect in &self.damaged {
            writer.line(&IndexLine::Damaged(suspect.clone()))?;
        }
        if let Some(time) = self.listed_at {
            writer.line(&IndexLine::Listed(time))?;
        }
        for stamp in &self.stamps {
            writer.line(&IndexLine::Directory(stamp.clone()))?;
        }
        writer.put(repository, environment).await
    }

    /// Puts a segment with the records behind the frames of the present segments, the pending packs, and
    /// the state of the names in `touched`; folds what should be folded. Returns the new segment.
    pub(super) async fn put_segment(
        &mut self,
        repository: &Repository,
        environment: &str,
        touched: Vec<FileName>,
    ) -> Result<SegmentRef> {
        let mut touched = touched;
        let added = self.records.iter().filter(|r| r.frame() >= self.frames()).count() as u64;
        let keep = kept(&self.segments, added);
        let folded = self.segments.split_off(keep);
        let base = self.frames();
        let mut writer = MetaWriter::new(repository)?;
        writer.line(&SegmentLine::Segment { format: FORMAT, capture: self.header.capture.clone() })?;
        let mut frames = 0;
        for segment in &folded {
            meta::read(repository, environment, &segment.sha256, |line: SegmentLine| {
                match line {
                    SegmentLine::Pack(pack) => {
                        frames += pack.frames.len() as u64;
                        writer.line(&SegmentLine::Pack(pack))?;
                    }
                    SegmentLine::Gone(name, _) | SegmentLine::Back(name) => touched.push(name),
                    SegmentLine::Segment { .. } | SegmentLine::Add(..) => {}
                }
                Ok(())
            })
            .await?;
        }
        for pack in std::mem::take(&mut self.pending) {
            frames += pack.frames.len() as u64;
            writer.line(&SegmentLine::Pack(pack))?;
        }
        let mut names = 0;
        for r in self.records.iter().filter(|r| r.frame() >= base) {
            let last_seen = r.last_seen().and_then(NonZeroU32::new);
            writer.line(&SegmentLine::Add(r.name, r.length, r.frame() - base, r.offset, r.first_seen(), last_seen))?;
            names += 1;
        }
        touched.sort_unstable();
        touched.dedup();
        for record in touched.iter().filter_map(|name| self.find(name)).filter(|r| r.frame() < base) {
            writer.line(&match record.last_seen().and_then(NonZeroU32::new) {
                Some(last_seen) => SegmentLine::Gone(record.name, last_seen),
                None => SegmentLine::Back(record.name),
            })?;
        }
        let object = writer.put(repository, environment).await?;
        let segment = SegmentRef { sha256: object.sha256, names, frames };
        self.segments.push(segment.clone());
        Ok(segment)
    }

    /// Forgets names that no scan has seen since `floor` (seconds since 1970), and packs in which nothing else is: only what
    /// nothing that can be restored refers to. Everything is written anew then, so it happens when it frees enough; whether
    /// it did. Packs of which anything is still needed stay as they are.
    pub(super) async fn expire(&mut self, repository: &Repository, environment: &str, floor: u32) -> Result<bool> {
        let expired = |r: &Record| r.last_seen().is_some_and(|seen| seen < floor);
        let count = self.records.iter().filter(|r| expired(r)).count();
        if count == 0 || count < MANY_NAMES && count * FEW < self.records.len() {
            return Ok(false);
        }
        let mut packs = PackTable::default();
        for segment in &self.segments {
            meta::read(repository, environment, &segment.sha256, |line: SegmentLine| {
                if let SegmentLine::Pack(pack) = line {
                    packs.push(pack);
                }
                Ok(())
            })
            .await?;
        }
        for pack in &self.pending {
            packs.push(pack.clone());
        }
        let mut used = vec![false; packs.packs().len()];
        for record in self.records.iter().filter(|r| !expired(r)) {
            let mut last = record.frame();
            packs.cut(record.frame(), record.offset, record.length, |frame, _, _, _| last = frame)?;
            let (first, last) = (packs.locate(record.frame())?.0, packs.locate(last)?.0);
            used[first..=last].fill(true);
        }
        let sizes = || packs.packs().iter().map(|p| p.size).zip(&used);
        let dead: u64 = sizes().filter(|(_, used)| !**used).map(|(size, _)| size).sum();
        let all: u64 = sizes().map(|(size, _)| size).sum();
        if dead == 0 || dead < MUCH && dead * 4 < all {
            return Ok(false);
        }
        self.records.retain(|r| !expired(r));
        let mut kept = PackTable::default();
        let moved: Vec<u64> = packs
            .packs()
            .iter()
            .zip(&used)
            .map(|(pack, used)| if *used { kept.push(pack.clone()) } else { 0 })
            .collect();
        for record in &mut self.records {
            let (pack, number) = packs.locate(record.frame())?;
            record.move_to(moved[pack] + u64::from(number))?;
        }
        self.segments.clear();
        self.pending = kept.packs().to_vec();
        Ok(true)
    }

    /// Another capture was committed meanwhile: what stands in `segment`, this capture's own, comes
    /// behind everything that the other one has.
    pub(super) fn follow(&mut self, other: Index, segment: Option<SegmentRef>) {
        self.segments = other.segments;
        self.segments.extend(segment);
        // What the directories held is not what this index holds: the next scan lists them.
        self.stamps.clear();
    }
}

/// How many of the oldest segments stay as they are when a segment with `added` names comes.
fn kept(segments: &[SegmentRef], added: u64) -> usize {
    if segments.len() < MAX_SEGMENTS {
        return segments.len();
    }
    let mut keep = segments.len();
    let mut folded = added;
    while keep > 0 && (keep > MAX_KEPT || segments[keep - 1].names < 2 * folded) {
        keep -= 1;
        folded += segments[keep].names;
    }
    keep
}

fn check_format(format: u32) -> Result<()> {
    match format {
        FORMAT => Ok(()),
        other => Err(error::integrity(format!("a filestore index of format {other}; this program reads {FORMAT}"))
            .hint("a newer Lifeboat wrote it: use that one")),
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(crate) fn header(capture: &str, time: i64) -> Header {
        let time = DateTime::from_timestamp(time, 0).expect("valid");
        Header::new(capture, "/odoo".into(), "retail", None, time)
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::seconds;
    use super::*;
    use crate::repository::testing::repository_and_writer;

    fn pack(frames: usize) -> PackInfo {
        PackInfo { sha256: format!("{frames}"), size: 9, first: 1, frames: vec![(8, 1 << 20, 0); frames], sums: None }
    }

    fn name(n: u32) -> FileName {
        let mut sha1 = [0; 20];
        sha1[..4].copy_from_slice(&n.to_le_bytes());
        FileName::new(sha1)
    }

    /// Captures that add, lose and find again: after each, what is read equals what was in memory.
    #[tokio::test]
    async fn layers_and_folds_say_what_the_memory_says() {
        let (_, writer) = repository_and_writer().await;
        let mut index = Index::empty(testing::header("0", 10));
        let mut most = 0;
        for round in 0..40_u32 {
            let base = index.frames();
            let new: Vec<u32> = (0..if round == 0 { 500 } else { 3 }).map(|n| round * 1000 + n).collect();
            let add = |(i, n): (usize, &u32)| Record::new(name(*n), 5, base + i as u64, 7, round).expect("small");
            index.add(new.iter().enumerate().map(add).collect());
            let mut touched = vec![name(round), name(round + 200)];
            index.note(&name(round), Some(seconds(index.header.scan_finished)));
            index.note(&name(round + 200), Some(NonZeroU32::MIN));
            if round > 20 {
                touched.push(name(round - 10));
                index.note(&name(round - 10), None);
            }
            index.header = testing::header(&round.to_string(), 10 + i64::from(round));
            let old = index.segments.clone();
            index.pending.push(pack(new.len()));
            index.put_segment(&writer, "production", touched).await.expect("put");
            most = most.max(index.segments.len());
            let object = index.put_object(&writer, "production").await.expect("put");
            let read = Index::read(&writer, "production", &object.sha256, Packs::Load).await.expect("read");
            assert_eq!(read.records, index.records, "round {round}");
            assert_eq!((read.packs.frames(), &read.header), (index.frames(), &index.header));
            assert!(old.is_empty() || index.segments[0] == old[0], "the large segment was rewritten");
        }
        assert_eq!(most, MAX_SEGMENTS);
    }

    #[tokio::test]
    async fn names_that_nothing_can_refer_to_any_more_are_forgotten_with_their_packs() {
        let (_, writer) = repository_and_writer().await;
        let mut index = Index::empty(testing::header("0", 10));
        // Three captures of ten names each, a pack for each; frames of 1 MiB.
        for round in 0..3_u32 {
            let base = index.frames();
            let add = |n: u32| Record::new(name(round * 100 + n), 5, base + u64::from(n), 7, round).expect("small");
            index.add((0..10).map(add).collect());
            index.pending.push(PackInfo { sha256: format!("p{round}"), size: 100, ..pack(10) });
            index.put_segment(&writer, "e", vec![]).await.expect("put");
        }
        // Of the first pack all is gone, of the second half of it.
        for n in (0..10).chain(100..105) {
            index.note(&name(n), NonZeroU32::new(50));
        }
        let before = index.segments.clone();
        assert!(!index.expire(&writer, "e", 50).await.expect("looked"), "seen at the floor itself");
        assert_eq!(index.segments, before);
        assert!(index.expire(&writer, "e", 51).await.expect("expired"));
        index.put_segment(&writer, "e", vec![]).await.expect("put");
        let object = index.put_object(&writer, "e").await.expect("put");
        let read = Index::read(&writer, "e", &object.sha256, Packs::Load).await.expect("read");
        assert_eq!(read.records, index.records);
        assert_eq!(read.records.len(), 15);
        let packs: Vec<&str> = read.packs.packs().iter().map(|p| p.sha256.as_str()).collect();
        assert_eq!(packs, ["p1", "p2"], "a pack of which anything is needed stays whole");
        for (n, pack, frame) in [(105, 0, 5), (109, 0, 9), (200, 1, 0), (209, 1, 9)] {
            let record = read.find(&name(n)).expect("kept");
            assert_eq!(read.packs.locate(record.frame()).expect("inside"), (pack, frame), "{n}");
        }
        assert!(read.find(&name(3)).is_none() && read.find(&name(101)).is_none(), "read again where they come back");
    }

    #[tokio::test]
    async fn an_index_that_follows_another_has_both() {
        let (_, writer) = repository_and_writer().await;
        let mut base = Index::empty(testing::header("base", 10));
        base.add(vec![Record::new(name(1), 5, 0, 0, 1).expect("small")]);
        base.pending.push(pack(1));
        base.put_segment(&writer, "e", Vec::new()).await.expect("put");
        let base = base.put_object(&writer, "e").await.expect("put").sha256;
        let mut both = Vec::new();
        for n in [2, 3] {
            let mut index = Index::read(&writer, "e", &base, Packs::Skip).await.expect("read");
            index.add(vec![
                Record::new(name(n), 5, 1, n, 1).expect("small"),
                Record::new(name(9), 5, 1, n, 1).expect("small"),
            ]);
            index.pending.push(pack(1));
            let segment = index.put_segment(&writer, "e", vec![]).await.expect("put");
            both.push((index, segment));
        }
        let (mut second, segment) = both.pop().expect("two");
        second.follow(both.pop().expect("two").0, Some(segment));
        let object = second.put_object(&writer, "e").await.expect("put");
        let read = Index::read(&writer, "e", &object.sha256, Packs::Load).await.expect("read");
        let found: Vec<_> = read.records.iter().map(|r| (r.name, r.frame(), r.offset)).collect();
        let mut expected = vec![(name(1), 0, 0), (name(2), 1, 2), (name(3), 2, 3), (name(9), 1, 2)];
        expected.sort_unstable();
        assert_eq!((found, read.packs.frames()), (expected, 3));
    }

    #[tokio::test]
    async fn another_object_is_no_index() {
        let (_, writer) = repository_and_writer().await;
        let mut object = MetaWriter::new(&writer).expect("writer");
        object.line(&IndexLine::Index(Header { format: 2, ..testing::header("x", 1) })).expect("line");
        let object = object.put(&writer, "e").await.expect("put");
        let newer = Index::read(&writer, "e", &object.sha256, Packs::Skip).await.expect_err("format 2");
        assert!(newer.message().contains("format 2"), "{newer}");
    }
}
