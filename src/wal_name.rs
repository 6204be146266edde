//! Names of the files in `pg_wal` and in an archive (`src/include/access/xlog_internal.h`).
//!
//! A name is accepted exactly when PostgreSQL would have made it: upper-case hexadecimal digits of
//! full width, nothing before or behind. What a segment's position is depends on the segment size,
//! which a name does not say; so parsing keeps the raw parts and [`SegmentName::number`] asks for it.

use std::fmt;
use std::str::FromStr;

use crate::error::{self, Error, Result};
use crate::units::{Lsn, Timeline};

/// Smallest `wal_segment_size` (`WalSegMinSize`).
pub const MIN_SEGMENT_SIZE: u64 = 1 << 20;
/// Largest `wal_segment_size` (`WalSegMaxSize`).
pub const MAX_SEGMENT_SIZE: u64 = 1 << 30;

/// Whether a cluster can have segments of this size (`IsValidWalSegSize`).
pub fn is_segment_size(size: u64) -> bool {
    size.is_power_of_two() && (MIN_SEGMENT_SIZE..=MAX_SEGMENT_SIZE).contains(&size)
}

/// The three numbers in the name of a WAL segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Timeline.
    pub timeline: Timeline,
    /// Upper half of the position: which 4 GiB.
    pub log: u32,
    /// Which segment within those 4 GiB.
    pub segment: u32,
}

impl SegmentName {
    /// Name of segment `number` of a timeline.
    pub fn new(timeline: Timeline, number: u64, segment_size: u64) -> Self {
        let per_log = (1_u64 << 32) / segment_size;
        Self { timeline, log: (number / per_log) as u32, segment: (number % per_log) as u32 }
    }

    /// Name of the segment that holds the byte at `position`.
    pub fn holding(timeline: Timeline, position: Lsn, segment_size: u64) -> Self {
        Self::new(timeline, position.segment(segment_size), segment_size)
    }

    /// Number of the segment, counted from the beginning of WAL; refused where no segment of this
    /// size has such a name.
    pub fn number(&self, segment_size: u64) -> Result<u64> {
        let per_log = (1_u64 << 32) / segment_size;
        if u64::from(self.segment) >= per_log {
            return Err(error::integrity(format!("no WAL segment of {segment_size} bytes is named {self}"))
                .hint("compare wal_segment_size of the cluster with what is configured"));
        }
        Ok(u64::from(self.log) * per_log + u64::from(self.segment))
    }

    /// Position of the segment's first byte.
    pub fn start(&self, segment_size: u64) -> Result<Lsn> {
        Ok(Lsn(self.number(segment_size)? * segment_size))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:08X}{:08X}", self.timeline, self.log, self.segment)
    }
}

/// Name of segment `number` of a timeline (`XLogFileName`).
pub fn segment_name(timeline: Timeline, number: u64, segment_size: u64) -> String {
    SegmentName::new(timeline, number, segment_size).to_string()
}

/// A file that PostgreSQL archives or asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalFileName {
    /// A complete segment.
    Segment(SegmentName),
    /// The last, incomplete segment of a timeline that was left at a promotion.
    Partial(SegmentName),
    /// The ancestors of a timeline.
    History {
        /// The timeline whose ancestors it lists.
        timeline: Timeline,
    },
    /// Start and end of a base backup.
    BackupHistory {
        /// The segment in which the backup started.
        segment: SegmentName,
        /// Offset of the start within it.
        offset: u32,
    },
}

impl WalFileName {
    /// The timeline that the file belongs to.
    pub fn timeline(&self) -> Timeline {
        match self {
            Self::Segment(s) | Self::Partial(s) | Self::BackupHistory { segment: s, .. } => s.timeline,
            Self::History { timeline } => *timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => write!(f, "{segment}"),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::History { timeline } => write!(f, "{timeline}.history"),
            Self::BackupHistory { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
        }
    }
}

impl FromStr for WalFileName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| {
            error::usage(format!("\"{text}\" is not the name of a WAL file"))
                .hint("one looks like 0000000100000016000000B3 or 00000002.history")
        })
    }
}

impl FromStr for SegmentName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse()? {
            WalFileName::Segment(segment) => Ok(segment),
            other => Err(error::usage(format!("\"{other}\" is a WAL file, but not a segment"))),
        }
    }
}

fn parse(text: &str) -> Option<WalFileName> {
    let (digits, suffix) = match text.split_once('.') {
        Some((digits, suffix)) => (digits, Some(suffix)),
        None => (text, None),
    };
    if let (8, Some("history")) = (digits.len(), suffix) {
        return Some(WalFileName::History { timeline: Timeline(hex(digits)?) });
    }
    if digits.len() != 24 || !digits.is_ascii() {
        return None;
    }
    let segment =
        SegmentName { timeline: Timeline(hex(&digits[..8])?), log: hex(&digits[8..16])?, segment: hex(&digits[16..])? };
    Some(match suffix {
        None => WalFileName::Segment(segment),
        Some("partial") => WalFileName::Partial(segment),
        Some(other) => WalFileName::BackupHistory { segment, offset: hex(other.strip_suffix(".backup")?)? },
    })
}

/// Eight upper-case hexadecimal digits.
fn hex(digits: &str) -> Option<u32> {
    let strict = digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    strict.then(|| u32::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_name_is_read_and_written_alike() {
        for name in [
            "000000010000001600000B37",
            "000000010000001600000B37.partial",
            "0000000A.history",
            "000000010000001600000B37.00000028.backup",
        ] {
            assert_eq!(name.parse::<WalFileName>().expect(name).to_string(), name);
        }
    }

    #[test]
    fn what_postgresql_would_not_write_is_refused() {
        for wrong in [
            "",
            "00000001000000160000000",
            "0000000100000016000000B33",
            "00000001000000160000b000",
            "+0000001000000160000000A",
            "000000010000001600000B37.gz",
            "000000010000001600000B37.partial.tmp",
            "000000010000001600000B37.28.backup",
            "000000010000001600000B37.00000028",
            "1.history",
            "0000000a.history",
            "../00000001.history",
            "ä0000001000000160000000",
        ] {
            assert!(wrong.parse::<WalFileName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_depend_on_the_segment_size() {
        let name: SegmentName = "0000000100000002000000FE".parse().expect("valid");
        assert_eq!(name.number(16 << 20).expect("fits"), 2 * 256 + 254);
        assert_eq!(name.number(1 << 20).expect("fits"), 2 * 4096 + 254);
        assert!(name.number(64 << 20).is_err(), "only 64 segments of 64 MiB in 4 GiB");
        for size in [1 << 20, 16 << 20, 1 << 30] {
            let text = segment_name(Timeline(7), 12_345, size);
            assert_eq!(text.parse::<SegmentName>().expect("valid").number(size).expect("fits"), 12_345);
        }
        assert_eq!(
            SegmentName::holding(Timeline(1), Lsn(0x1_0200_0001), 16 << 20).to_string(),
            "000000010000000100000002"
        );
    }
}
