//! A record of which the last byte was not read yet.

use crate::postgres::wal::decode::{HEADER, RecordHeader};

/// The record being read; the buffer is used again and again.
#[derive(Debug, Clone, Default)]
pub(super) struct Partial {
    pub(super) start: u64,
    pub(super) head: [u8; HEADER],
    pub(super) parsed: Option<RecordHeader>,
    /// Bytes read, header included.
    pub(super) have: u32,
    /// Length claimed, known from the fourth byte on.
    pub(super) length: u32,
    pub(super) crc: u32,
    pub(super) keep: usize,
    pub(super) kept: Vec<u8>,
}

impl Partial {
    pub(super) fn begin(&mut self, start: u64) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        *self = Self { start, kept, ..Self::default() };
    }

    pub(super) fn take_head(&mut self, bytes: &[u8]) -> usize {
        let have = self.have as usize;
        let used = bytes.len().min(HEADER - have);
        self.head[have..have + used].copy_from_slice(&bytes[..used]);
        self.have += used as u32;
        used
    }

    pub(super) fn take_body(&mut self, bytes: &[u8]) -> usize {
        let used = bytes.len().min((self.length - self.have) as usize);
        let bytes = &bytes[..used];
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        let keep = used.min(self.keep - self.kept.len());
        self.kept.extend_from_slice(&bytes[..keep]);
        self.have += used as u32;
        used
    }
}
