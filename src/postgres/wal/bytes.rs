//! Fields of C structs, read by offset from little-endian bytes; nothing is ever out of bounds.
//!
//! PostgreSQL writes its structs in the machine's own byte order. Only little-endian clusters are
//! read (x86-64, ARM64, RISC-V, POWER LE); on others the page magic looks wrong, and that is what
//! the reader then says.

use chrono::{DateTime, Utc};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Reads fixed-width fields at offsets; `None` beyond the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    pub(crate) fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub(crate) fn bool(&self, at: usize) -> Option<bool> {
        self.u8(at).map(|b| b != 0)
    }

    pub(crate) fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&self, at: usize) -> Option<i32> {
        self.array(at).map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&self, at: usize) -> Option<i64> {
        self.array(at).map(i64::from_le_bytes)
    }

    /// A `TimestampTz`.
    pub(crate) fn timestamp(&self, at: usize) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.i64(at)?.checked_add(POSTGRES_EPOCH_MICROS)?)
    }

    /// A `pg_time_t`.
    pub(crate) fn unix_time(&self, at: usize) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.i64(at)?, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_count_microseconds_from_2000() {
        let bytes = 1_500_000_i64.to_le_bytes();
        assert_eq!(Fields(&bytes).timestamp(0).expect("in range").to_rfc3339(), "2000-01-01T00:00:01.500+00:00");
        assert_eq!(Fields(&i64::MAX.to_le_bytes()).timestamp(0), None);
        assert_eq!(Fields(&bytes).u64(1), None);
    }
}
