//! A record of which the last byte was not read yet.

use super::{State, WalReader};
use crate::error;
use crate::postgres::wal::bytes::Fields;
use crate::postgres::wal::decode::{HEADER, RecordHeader};
use crate::units::Lsn;

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

/// What is known of a record that began before a border, so that another reader can finish it behind
/// the border.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    start: u64,
    have: u32,
    length: u32,
    crc: u32,
    head: [u8; HEADER],
    kept: Vec<u8>,
}

impl Unfinished {
    /// Bytes before `kept`.
    const FIXED: usize = 8 + 4 + 4 + 4 + HEADER;

    /// Where the record begins.
    pub fn start(&self) -> Lsn {
        Lsn(self.start)
    }

    /// All of it in bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::FIXED + self.kept.len());
        bytes.extend(self.start.to_le_bytes());
        bytes.extend([self.have, self.length, self.crc].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend(self.head);
        bytes.extend(&self.kept);
        bytes
    }

    /// What [`Unfinished::to_bytes`] wrote.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let f = Fields(bytes);
        let unfinished = Self {
            start: f.u64(0)?,
            have: f.u32(8)?,
            length: f.u32(12)?,
            crc: f.u32(16)?,
            head: *bytes.get(20..)?.first_chunk()?,
            kept: bytes.get(Self::FIXED..)?.to_vec(),
        };
        let Self { have, length, ref kept, .. } = unfinished;
        let body = (have as usize).saturating_sub(HEADER);
        let possible = if have < 4 { length == 0 } else { length as usize >= HEADER && have < length };
        (possible && kept.len() <= body).then_some(unfinished)
    }
}

impl WalReader {
    /// The record of which only a part was fed so far.
    pub fn unfinished(&self) -> Option<Unfinished> {
        let Partial { start, head, have, length, crc, ref kept, .. } = self.record;
        (self.state == State::Record).then(|| Unfinished { start, have, length, crc, head, kept: kept.clone() })
    }

    /// A reader from the border `at` on that finishes a record which another reader, collecting blocks,
    /// began; it collects blocks too.
    pub fn resume(
        segment_size: u64,
        at: Lsn,
        system_identifier: Option<u64>,
        unfinished: Unfinished,
    ) -> error::Result<Self> {
        let mut reader = Self::new(segment_size, at, system_identifier)?;
        reader.collect_blocks();
        reader.whole_from = Some(unfinished.start());
        reader.state = State::Record;
        let Unfinished { start, have, length, crc, head, kept } = unfinished;
        let parsed = (have as usize >= HEADER).then(|| RecordHeader::parse(&head));
        let keep = parsed.map_or(0, |head| head.keep(true)).max(kept.len());
        reader.record = Partial { start, head, parsed, have, length, crc, keep, kept };
        Ok(reader)
    }
}
