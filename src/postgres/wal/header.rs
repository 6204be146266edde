//! Page headers of WAL (`XLogPageHeaderData`, `XLogLongPageHeaderData` in
//! `src/include/access/xlog_internal.h`).
//!
//! Every page begins with a short header; the first page of a segment with a long one, which names
//! the cluster. Headers are not covered by a checksum, so everything in them that can be known in
//! advance is compared by the reader.

use crate::error;
use crate::units::{Lsn, Timeline};

use super::bytes::Fields;
use crate::wal_name::is_segment_size;

/// Bytes of a short header, alignment included.
pub(crate) const SHORT: usize = 24;
/// Bytes of a long header.
pub(crate) const LONG: usize = 40;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

/// The major version of PostgreSQL that wrote a page, told by its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalVersion(u16);

impl WalVersion {
    /// `XLOG_PAGE_MAGIC` of the releases REL_13 to REL_18.
    const MAGIC: [(u16, u16); 6] = [(0xD106, 13), (0xD10D, 14), (0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)];

    /// The version whose pages carry this number.
    pub fn from_magic(magic: u16) -> Option<Self> {
        Self::MAGIC.iter().find(|known| known.0 == magic).map(|known| Self(known.1))
    }

    /// Major version, 13 to 18.
    pub fn major(self) -> u16 {
        self.0
    }
}

/// One page header, syntactically right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageHeader {
    pub(crate) version: WalVersion,
    pub(crate) info: u16,
    pub(crate) timeline: Timeline,
    pub(crate) address: Lsn,
    /// Bytes of the record begun on an earlier page that are still to come.
    pub(crate) remaining: u32,
    pub(crate) long: Option<LongPart>,
}

/// What only the header of a segment's first page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LongPart {
    pub(crate) system_identifier: u64,
    pub(crate) segment_size: u64,
    pub(crate) block_size: u64,
}

impl PageHeader {
    /// Size of the header whose first [`SHORT`] bytes these are.
    pub(crate) fn size(short: &[u8; SHORT]) -> usize {
        if Fields(short).u16(2).is_some_and(|info| info & LONG_HEADER != 0) { LONG } else { SHORT }
    }

    /// Reads a header; what is wrong with it comes as text.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let f = Fields(bytes);
        let short = || "the page header is cut off".to_owned();
        let magic = f.u16(0).ok_or_else(short)?;
        let version = WalVersion::from_magic(magic)
            .ok_or_else(|| format!("page magic {magic:04X} is not that of PostgreSQL 13 to 18"))?;
        let info = f.u16(2).ok_or_else(short)?;
        if info & !ALL_FLAGS != 0 {
            return Err(format!("page flags {info:04X} are not defined"));
        }
        let timeline = f.u32(4).ok_or_else(short)?;
        if timeline == 0 {
            return Err("the page names timeline 0".to_owned());
        }
        let long = if info & LONG_HEADER == 0 {
            None
        } else {
            Some(LongPart {
                system_identifier: f.u64(24).ok_or_else(short)?,
                segment_size: f.u32(32).ok_or_else(short)?.into(),
                block_size: f.u32(36).ok_or_else(short)?.into(),
            })
        };
        Ok(Self {
            version,
            info,
            timeline: Timeline(timeline),
            address: Lsn(f.u64(8).ok_or_else(short)?),
            remaining: f.u32(16).ok_or_else(short)?,
            long,
        })
    }

    pub(crate) fn continues_record(&self) -> bool {
        self.info & FIRST_IS_CONTRECORD != 0
    }

    /// The rest of the record that was being written before a crash will never come.
    pub(crate) fn overwrites_record(&self) -> bool {
        self.info & FIRST_IS_OVERWRITE_CONTRECORD != 0
    }
}

/// What the first bytes of a segment file say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Version of PostgreSQL that wrote the segment.
    pub version: WalVersion,
    /// The cluster it belongs to.
    pub system_identifier: u64,
    /// `wal_segment_size` of the cluster.
    pub segment_size: u64,
    /// Page size of its WAL; 8192 unless PostgreSQL was compiled otherwise.
    pub block_size: u64,
    /// Timeline of the first page. Less than that of the file's name when the timeline began within
    /// this segment: its head is then a copy of the ancestor's (`XLogInitNewTimeline`).
    pub timeline: Timeline,
    /// Position of the segment's first byte.
    pub start: Lsn,
}

impl SegmentHeader {
    /// How many bytes [`SegmentHeader::parse`] needs.
    pub const BYTES: usize = LONG;

    /// Reads the long header at the beginning of a segment.
    pub fn parse(bytes: &[u8]) -> error::Result<Self> {
        let wrong = |why: &str| {
            error::integrity(format!("these bytes do not begin a WAL segment: {why}"))
                .meaning("they are damaged, encrypted or no WAL at all, and cannot be used for recovery")
        };
        let header = PageHeader::parse(bytes).map_err(|why| wrong(&why))?;
        let long = header.long.ok_or_else(|| wrong("the first page has no long header"))?;
        if !is_segment_size(long.segment_size) {
            return Err(wrong(&format!("{} is not a segment size", long.segment_size)));
        }
        if !is_block_size(long.block_size) {
            return Err(wrong(&format!("{} is not a WAL page size", long.block_size)));
        }
        if !header.address.0.is_multiple_of(long.segment_size) {
            return Err(wrong(&format!("{} is not the start of a segment", header.address)));
        }
        Ok(Self {
            version: header.version,
            system_identifier: long.system_identifier,
            segment_size: long.segment_size,
            block_size: long.block_size,
            timeline: header.timeline,
            start: header.address,
        })
    }
}

/// Whether PostgreSQL can be compiled with WAL pages of this size (`--with-wal-blocksize`).
pub(crate) fn is_block_size(size: u64) -> bool {
    size.is_power_of_two() && (1 << 10..=64 << 10).contains(&size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::wal::forge::Forge;

    #[test]
    fn a_segment_says_whose_it_is() {
        let bytes = Forge::new(Lsn(3 << 20)).finish();
        let header = SegmentHeader::parse(&bytes).expect("valid");
        assert_eq!(header.version.major(), 15);
        assert_eq!(header.system_identifier, Forge::SYSTEM);
        assert_eq!(header.segment_size, 1 << 20);
        assert_eq!((header.timeline, header.start), (Timeline(1), Lsn(3 << 20)));
    }

    #[test]
    fn damaged_headers_are_named() {
        let good = Forge::new(Lsn(3 << 20)).finish();
        let damaged = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            SegmentHeader::parse(&bytes).expect_err("damaged").message()
        };
        assert!(damaged(0, 0x11).contains("D111"));
        assert!(damaged(2, 0).contains("no long header"));
        assert!(damaged(3, 1).contains("flags"));
        assert!(damaged(4, 0).contains("timeline 0"));
        assert!(damaged(9, 1).contains("start of a segment"));
        assert!(damaged(33, 1).contains("segment size"));
        assert!(damaged(36, 1).contains("page size"));
        for length in 0..LONG {
            assert!(SegmentHeader::parse(&good[..length]).is_err());
        }
    }
}
