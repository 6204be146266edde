//! Reading packs back: by pack, several at a time, each in pieces that hold wanted frames and little else.
//! Frames are opened on blocking threads and handed to a sink there.
//!
//! A piece is small beside a pack: little is held in memory, and it is memory that was used before. Fresh
//! memory costs a page fault for each 4 KiB, which takes several times longer than reading into it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::Repository;
use super::packs::{PackTable, joined};
use crate::error::{self, Result};
use crate::storage::layout;
use crate::vault::object::HEADER_READ;
use crate::vault::{Class, FrameInfo, ObjectOpener, OpenMemory};

/// Packs read at the same time.
const PACKS_IN_FLIGHT: usize = 3;

/// Pieces of one pack read and opened at the same time; each is held in memory.
const PIECES_IN_FLIGHT: usize = 2;

/// Most bytes in a piece.
const PIECE: u64 = 3 << 20;

/// Frames closer than this are read together.
const GAP: u64 = 1 << 20;

/// Receives plaintext: the frame's number and its content. Called from several threads.
pub trait FrameSink: Send + Sync + 'static {
    /// How many bytes from the frame's beginning will be looked at; more may be given.
    fn needed(&self, _number: u64) -> u32 {
        u32::MAX
    }

    /// Takes one frame, or its beginning.
    fn frame(&self, number: u64, plaintext: &[u8]) -> Result<()>;
}

impl<F: Fn(u64, &[u8]) -> Result<()> + Send + Sync + 'static> FrameSink for F {
    fn frame(&self, number: u64, plaintext: &[u8]) -> Result<()> {
        self(number, plaintext)
    }
}

/// Fetches the frames `wanted` (sorted, no duplicates) and hands each to `sink`.
pub async fn fetch(
    repository: &Repository,
    environment: &str,
    table: &PackTable,
    wanted: impl IntoIterator<Item = u64>,
    sink: Arc<dyn FrameSink>,
) -> Result<()> {
    Fetcher::new(repository, environment, table)?.frames(wanted, sink).await
}

/// Fetches from the packs of one manifest; what runs at the same time shares its bounds.
#[derive(Debug)]
pub(crate) struct Fetcher<'a> {
    repository: &'a Repository,
    environment: &'a str,
    table: &'a PackTable,
    packs: Semaphore,
    spare: Arc<Mutex<Vec<OpenMemory>>>,
}

impl<'a> Fetcher<'a> {
    /// Refuses where the keys that open data are not at hand.
    pub(crate) fn new(repository: &'a Repository, environment: &'a str, table: &'a PackTable) -> Result<Self> {
        repository.require_data_keys()?;
        Ok(Self { repository, environment, table, packs: Semaphore::new(PACKS_IN_FLIGHT), spare: Arc::default() })
    }

    /// As [`fetch`].
    pub(crate) async fn frames(&self, wanted: impl IntoIterator<Item = u64>, sink: Arc<dyn FrameSink>) -> Result<()> {
        let mut by_pack: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for frame in wanted {
            let (pack, number) = self.table.locate(frame)?;
            by_pack.entry(pack).or_default().push(number);
        }
        futures::stream::iter(by_pack)
            .map(|(pack, numbers)| self.pack(pack, numbers, sink.clone()))
            .buffer_unordered(PACKS_IN_FLIGHT)
            .try_collect::<()>()
            .await
    }

    async fn pack(&self, pack: usize, numbers: Vec<u32>, sink: Arc<dyn FrameSink>) -> Result<()> {
        let _turn = self.packs.acquire().await.expect("the semaphore is never closed");
        let info = &self.table.packs()[pack];
        let (store, key) = (&self.repository.store, layout::pack(self.environment, &info.sha256));
        let first = self.table.first_frame_of(pack);
        let pieces = pieces(&self.table.frames_of(pack)?, &numbers, HEADER_READ.min(info.size));
        let explained = |e: error::Error| match e.kind() {
            error::ErrorKind::Integrity => e.context(&key).hint(
                "run `lifeboat verify --deep` to see everything that is damaged; an older base backup may be whole",
            ),
            _ => e,
        };
        let head = store.get_range(&key, pieces[0].range.clone()).await?;
        let opener = Arc::new(ObjectOpener::new(Class::Pack, &head, &self.repository.keys).map_err(explained)?);
        let read = std::iter::once(Some(head)).chain(std::iter::repeat(None));
        futures::stream::iter(pieces.into_iter().zip(read).map(Ok))
            .try_for_each_concurrent(PIECES_IN_FLIGHT, async |(piece, read): (Piece, Option<Bytes>)| {
                let bytes = match read {
                    Some(bytes) => bytes,
                    None => store.get_range(&key, piece.range.clone()).await?,
                };
                let (opener, sink, spare) = (opener.clone(), sink.clone(), self.spare.clone());
                let open = move || {
                    let taken = || spare.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut memory = taken().pop().unwrap_or_default();
                    let opened = piece.open(&bytes, &opener, first, &*sink, &mut memory);
                    taken().push(memory);
                    opened
                };
                joined(tokio::task::spawn_blocking(open).await).map_err(explained)
            })
            .await
    }
}

/// A part of a pack that is read at once, and the frames in it that are wanted.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    range: Range<u64>,
    /// Number in the pack, and where it lies.
    frames: Vec<(u32, FrameInfo)>,
}

impl Piece {
    fn open(
        &self,
        bytes: &[u8],
        opener: &ObjectOpener,
        first: u64,
        sink: &dyn FrameSink,
        memory: &mut OpenMemory,
    ) -> Result<()> {
        for (number, info) in &self.frames {
            let from = (info.offset - self.range.start) as usize;
            let stored = bytes
                .get(from..from + info.stored_len as usize)
                .ok_or_else(|| error::integrity("a pack is shorter than its manifest says"))?;
            let through_all = first + u64::from(*number);
            let plaintext = opener.frame_start(*number, info, stored, sink.needed(through_all), memory)?;
            sink.frame(through_all, plaintext)?;
        }
        Ok(())
    }
}

/// What must be read to have the header and these frames: joined where they lie close, up to a bound.
fn pieces(frames: &[FrameInfo], wanted: &[u32], header: u64) -> Vec<Piece> {
    let mut pieces = vec![Piece { range: 0..header, frames: Vec::new() }];
    for &number in wanted {
        let frame = frames[number as usize];
        let end = frame.offset + u64::from(frame.stored_len);
        let last = pieces.last_mut().expect("starts with the header's");
        if frame.offset <= last.range.end + GAP && end - last.range.start <= PIECE {
            last.range.end = last.range.end.max(end);
            last.frames.push((number, frame));
        } else {
            pieces.push(Piece { range: frame.offset..end, frames: vec![(number, frame)] });
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{pack_stream, testing};
    use crate::vault::frame::{Coding, FRAME_SIZE};

    #[tokio::test]
    async fn what_the_pipeline_stored_comes_back_frame_by_frame() {
        let (repository, _) = testing::repository_and_writer().await;
        // 70 MiB of noise, so that it takes three packs.
        let mut content = vec![0; 70 << 20];
        aws_lc_rs::rand::fill(&mut content).expect("random");
        let content = Arc::new(content);
        let (mut writer, task) = pack_stream::start(&repository, "production", 3);
        let source = content.clone();
        tokio::task::spawn_blocking(move || {
            for chunk in source.chunks(100_000) {
                writer.write(chunk).expect("write");
            }
            assert_eq!(writer.position(), pack_stream::Position { frame: 70, offset: 0 });
            writer.finish().expect("finish");
        });
        let written = task.written().await.expect("written");
        assert_eq!(written.plain_bytes, content.len() as u64);
        assert!(written.packs.len() >= 3);
        let table = PackTable::new(written.packs);
        assert_eq!(table.frames(), 70);
        for wanted in [(0..70).collect::<Vec<u64>>(), vec![0, 1, 33, 69]] {
            let expected = content.clone();
            let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
            let noted = seen.clone();
            let sink = move |number: u64, plaintext: &[u8]| {
                assert!(plaintext == &expected[number as usize * FRAME_SIZE..][..FRAME_SIZE], "frame {number}");
                noted.lock().expect("lock").push(number);
                Ok(())
            };
            fetch(&repository, "production", &table, wanted.clone(), Arc::new(sink)).await.expect("fetch");
            let mut seen = seen.lock().expect("lock").clone();
            seen.sort_unstable();
            assert_eq!(seen, wanted);
        }
    }

    #[test]
    fn close_frames_are_read_together_up_to_a_bound_and_distant_ones_are_not() {
        let frame = |offset, stored_len| FrameInfo { offset, stored_len, plain_len: 1, coding: Coding::Raw };
        let frames = [frame(300, 1000), frame(2000, 10), frame(9 << 20, 500)];
        let ranges = |frames: &[FrameInfo], wanted: &[u32]| -> Vec<(Range<u64>, usize)> {
            pieces(frames, wanted, 1024).into_iter().map(|piece| (piece.range, piece.frames.len())).collect()
        };
        assert_eq!(ranges(&frames, &[0, 1, 2]), [(0..2010, 2), ((9 << 20)..(9 << 20) + 500, 1)]);
        assert_eq!(ranges(&frames, &[2]), [(0..1024, 0), ((9 << 20)..(9 << 20) + 500, 1)]);
        let many: Vec<FrameInfo> = (0..9).map(|n| frame(300 + n * (1 << 20), 1 << 20)).collect();
        let all = ranges(&many, &(0..9).collect::<Vec<u32>>());
        assert_eq!(all.iter().map(|(_, frames)| *frames).collect::<Vec<_>>(), [2, 3, 3, 1]);
        assert!(all.iter().all(|(range, _)| range.end - range.start <= PIECE));
    }
}
