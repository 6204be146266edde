//! Reading packs back: by pack, several at a time, whole where most of a pack is wanted and by
//! coalesced ranges where not. Frames are opened on blocking threads and handed to a sink there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::Repository;
use super::packs::{PackTable, joined};
use crate::error::{self, Result};
use crate::storage::layout;
use crate::vault::object::HEADER_READ;
use crate::vault::{Class, FrameInfo, ObjectOpener};

/// Packs read at the same time; each is held in memory.
const PACKS_IN_FLIGHT: usize = 3;

/// Ranges of one pack read at the same time.
const RANGES_IN_FLIGHT: usize = 4;

/// Ranges closer than this are read as one.
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
    repository.require_data_keys()?;
    let mut by_pack: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for frame in wanted {
        let (pack, number) = table.locate(frame)?;
        by_pack.entry(pack).or_default().push(number);
    }
    futures::stream::iter(by_pack)
        .map(|(pack, numbers)| fetch_pack(repository, environment, table, pack, numbers, sink.clone()))
        .buffer_unordered(PACKS_IN_FLIGHT)
        .try_collect::<()>()
        .await
}

async fn fetch_pack(
    repository: &Repository,
    environment: &str,
    table: &PackTable,
    pack: usize,
    numbers: Vec<u32>,
    sink: Arc<dyn FrameSink>,
) -> Result<()> {
    let info = &table.packs()[pack];
    let key = layout::pack(environment, &info.sha256);
    let frames = table.frames_of(pack)?;
    let first = table.first_frame_of(pack);
    let wanted: u64 = numbers.iter().map(|n| u64::from(frames[*n as usize].stored_len)).sum();
    let parts = match wanted * 2 > info.size {
        true => vec![(0, repository.store.get(&key).await?)],
        false => {
            let ranges = coalesce(numbers.iter().map(|n| &frames[*n as usize]), HEADER_READ.min(info.size));
            let read = async |range: Range<u64>| -> Result<(u64, Bytes)> {
                Ok((range.start, repository.store.get_range(&key, range).await?))
            };
            futures::stream::iter(ranges).map(read).buffered(RANGES_IN_FLIGHT).try_collect().await?
        }
    };
    let keys = repository.keys.clone();
    let open = move || -> Result<()> {
        let opener = ObjectOpener::new(Class::Pack, &parts[0].1, &keys)?;
        for number in numbers {
            let (info, through_all) = (&frames[number as usize], first + u64::from(number));
            let plaintext = opener.frame_start(number, info, slice(&parts, info)?, sink.needed(through_all))?;
            sink.frame(through_all, &plaintext)?;
        }
        Ok(())
    };
    joined(tokio::task::spawn_blocking(open).await).map_err(|e| match e.kind() {
        error::ErrorKind::Integrity => e
            .context(&key)
            .hint("run `lifeboat verify --deep` to see everything that is damaged; an older base backup may be whole"),
        _ => e,
    })
}

/// Byte ranges that cover the header and these frames, joined where they lie close.
fn coalesce<'a>(frames: impl Iterator<Item = &'a FrameInfo>, header: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = std::iter::once(0..header).collect();
    for frame in frames {
        let end = frame.offset + u64::from(frame.stored_len);
        let last = ranges.last_mut().expect("starts with the header's range");
        if frame.offset <= last.end + GAP {
            last.end = last.end.max(end);
        } else {
            ranges.push(frame.offset..end);
        }
    }
    ranges
}

fn slice<'a>(parts: &'a [(u64, Bytes)], info: &FrameInfo) -> Result<&'a [u8]> {
    let at = parts.partition_point(|(start, _)| *start <= info.offset) - 1;
    let (start, bytes) = &parts[at];
    let from = (info.offset - start) as usize;
    bytes
        .get(from..from + info.stored_len as usize)
        .ok_or_else(|| error::integrity("a pack is shorter than its manifest says"))
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
    fn close_ranges_are_joined_and_distant_ones_are_not() {
        let frame = |offset, stored_len| FrameInfo { offset, stored_len, plain_len: 1, coding: Coding::Raw };
        let frames = [frame(300, 1000), frame(2000, 10), frame(9 << 20, 500)];
        assert_eq!(coalesce(frames.iter(), 1024), [0..2010, (9 << 20)..(9 << 20) + 500]);
    }
}
