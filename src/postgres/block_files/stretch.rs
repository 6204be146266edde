//! What one file says: the blocks that the records of a segment change.
//!
//! ```text
//! offset size
//!      0    8  "LBBLOCKS"
//!      8    4  version of the format, 1
//!     12    4  timeline
//!     16    8  system identifier
//!     24    8  segment size
//!     32    8  position of the segment
//!     40    8  start: no record that starts from here …
//!     48    8  … up to here (end) is missing
//!     56    8  length of what follows, decompressed
//!     64    …  zstd: length and bytes of the unfinished record, then the map
//!   last    4  CRC-32C of everything before
//! ```
//!
//! Numbers are little-endian. A record counts for the segment in which it ends, so `start` is before
//! the segment where a record crosses the border; `end` is where the record begins that goes on behind
//! the segment. That record's first part is kept (up to a size), so that whoever reads the next
//! segment, in another process and at another time, can finish it.

use crate::postgres::wal::{BlockMap, Fields, SegmentName, Unfinished, WalReader};
use crate::units::{Lsn, Timeline};

const MAGIC: &[u8; 8] = b"LBBLOCKS";
const VERSION: u32 = 1;
const HEADER: usize = 64;
/// A longer beginning of a record is not kept; what it changes is then unknown.
const MOST_UNFINISHED: usize = 1 << 20;
/// No map of a segment is larger, whatever a damaged header says.
const MOST_DECOMPRESSED: u64 = 1 << 28;
/// Speed counts more than size.
const LEVEL: i32 = 1;

/// The blocks that a stretch of WAL, at most a segment, changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::postgres) struct Stretch {
    pub(in crate::postgres) system_id: u64,
    pub(in crate::postgres) timeline: Timeline,
    pub(in crate::postgres) segment_size: u64,
    /// First byte of the segment.
    pub(in crate::postgres) at: Lsn,
    /// Every record that starts at `start` or later and before `end` is in the map.
    pub(in crate::postgres) start: Lsn,
    pub(in crate::postgres) end: Lsn,
    pub(in crate::postgres) map: BlockMap,
    pub(in crate::postgres) unfinished: Option<Unfinished>,
}

impl Stretch {
    /// What `reader` collected of the segment that begins at `at`; its records follow those before
    /// `from`, where that is known. None while not even the beginning is known.
    pub(super) fn of(
        reader: &WalReader,
        timeline: Timeline,
        segment_size: u64,
        at: Lsn,
        from: Option<Lsn>,
    ) -> Option<Self> {
        Some(Self {
            system_id: reader.system_identifier()?,
            timeline,
            segment_size,
            at,
            start: from.or(reader.whole_from())?,
            end: reader.whole_to(),
            map: reader.blocks()?.clone(),
            unfinished: reader.unfinished().filter(|_| reader.position().0 == at.0 + segment_size),
        })
    }

    /// Whether it reaches to the end of the segment.
    pub(in crate::postgres) fn is_complete(&self) -> bool {
        self.unfinished.is_some() || self.end.0 >= self.at.0 + self.segment_size
    }

    pub(in crate::postgres) fn number(&self) -> Option<u64> {
        self.at.0.checked_div(self.segment_size)
    }

    pub(super) fn segment(&self) -> Option<SegmentName> {
        Some(SegmentName::new(self.timeline, self.number()?, self.segment_size))
    }

    /// The record that goes on behind this segment, and the reader that finishes it.
    pub(super) fn finisher(self) -> Option<WalReader> {
        let behind = Lsn(self.at.0 + self.segment_size);
        WalReader::resume(self.segment_size, behind, Some(self.system_id), self.unfinished?).ok()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let unfinished = self.unfinished.as_ref().map(Unfinished::to_bytes).unwrap_or_default();
        let unfinished = if unfinished.len() > MOST_UNFINISHED { Vec::new() } else { unfinished };
        let mut body = u32::try_from(unfinished.len()).expect("at most a mebibyte").to_le_bytes().to_vec();
        body.extend(unfinished);
        self.map.encode(&mut body);
        let compressed = zstd::bulk::compress(&body, LEVEL).expect("memory to memory");
        let mut bytes = Vec::with_capacity(HEADER + compressed.len() + 4);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.timeline.0.to_le_bytes());
        let numbers = [self.system_id, self.segment_size, self.at.0, self.start.0, self.end.0, body.len() as u64];
        bytes.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend(compressed);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// What [`Stretch::encode`] wrote, unless a bit of it changed.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (checked, crc) = bytes.split_last_chunk()?;
        let f = Fields(checked);
        if crc32c::crc32c(checked) != u32::from_le_bytes(*crc)
            || checked.first_chunk()? != MAGIC
            || f.u32(8)? != VERSION
        {
            return None;
        }
        let length = f.u64(56).filter(|length| *length <= MOST_DECOMPRESSED)?;
        let body = zstd::bulk::decompress(checked.get(HEADER..)?, usize::try_from(length).ok()?).ok()?;
        let (unfinished, map) = body.get(4..)?.split_at_checked(Fields(&body).u32(0)? as usize)?;
        Some(Self {
            timeline: Timeline(f.u32(12)?),
            system_id: f.u64(16)?,
            segment_size: f.u64(24)?,
            at: Lsn(f.u64(32)?),
            start: Lsn(f.u64(40)?),
            end: Lsn(f.u64(48)?),
            map: BlockMap::decode(map)?,
            unfinished: if unfinished.is_empty() { None } else { Some(Unfinished::from_bytes(unfinished)?) },
        })
    }
}
