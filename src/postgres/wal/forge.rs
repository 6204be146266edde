//! Makes WAL for tests: records laid out on pages as `XLogInsertRecord` does.

use crate::units::Lsn;

/// A stretch of WAL of PostgreSQL 15 in segments of 1 MiB, being written.
#[derive(Debug, Clone)]
pub(crate) struct Forge {
    start: u64,
    bytes: Vec<u8>,
    previous: u64,
    overwrite_next_page: bool,
}

/// A record to write: resource manager, info, transaction, what follows the header.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) rmgr: u8,
    pub(crate) info: u8,
    pub(crate) xid: u32,
    pub(crate) body: Vec<u8>,
}

impl Forge {
    pub(crate) const SYSTEM: u64 = 7_000_000_000_000_000_001;
    pub(crate) const SEGMENT: u64 = 1 << 20;
    pub(crate) const PAGE: u64 = 8192;

    pub(crate) fn new(start: Lsn) -> Self {
        let mut forge = Self { start: start.0, bytes: Vec::new(), previous: 0, overwrite_next_page: false };
        forge.page(0);
        forge
    }

    /// Position of the next byte.
    pub(crate) fn position(&self) -> Lsn {
        Lsn(self.start + self.bytes.len() as u64)
    }

    fn page(&mut self, remaining: u32) {
        let address = self.position().0;
        let long = address.is_multiple_of(Self::SEGMENT);
        let overwrite = std::mem::take(&mut self.overwrite_next_page);
        let info = u16::from(remaining > 0) | u16::from(long) << 1 | u16::from(overwrite) << 3;
        self.bytes.extend(0xD110_u16.to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(1_u32.to_le_bytes());
        self.bytes.extend(address.to_le_bytes());
        self.bytes.extend(u64::from(remaining).to_le_bytes());
        if long {
            self.bytes.extend(Self::SYSTEM.to_le_bytes());
            self.bytes.extend((Self::SEGMENT as u32).to_le_bytes());
            self.bytes.extend((Self::PAGE as u32).to_le_bytes());
        }
    }

    fn encode(&self, draft: &Draft) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend((24 + draft.body.len() as u32).to_le_bytes());
        record.extend(draft.xid.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([draft.info, draft.rmgr, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&draft.body), &record);
        record.extend(crc.to_le_bytes());
        record.extend(&draft.body);
        record
    }

    /// Writes a record; gives its end.
    pub(crate) fn record(&mut self, draft: &Draft) -> Lsn {
        self.begin_page();
        let record = self.encode(draft);
        self.previous = self.position().0;
        let mut rest = &record[..];
        loop {
            let (now, later) = rest.split_at(rest.len().min(self.room()));
            self.bytes.extend(now);
            rest = later;
            if rest.is_empty() {
                break;
            }
            self.page(rest.len() as u32);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.position()
    }

    /// Writes what a crash leaves of a record that did not reach the next page, and how recovery
    /// gives it up; says where the torn record began.
    pub(crate) fn torn(&mut self, draft: &Draft) -> Lsn {
        self.torn_with(draft, |torn| overwrite_contrecord(torn.0))
    }

    /// The same with any record behind it.
    pub(crate) fn torn_with(&mut self, draft: &Draft, next: impl FnOnce(Lsn) -> Draft) -> Lsn {
        self.begin_page();
        let start = self.position();
        let record = self.encode(draft);
        assert!(record.len() > self.room(), "the record must cross to the next page");
        self.bytes.extend(&record[..self.room()]);
        self.overwrite_next_page = true;
        self.record(&next(start));
        start
    }

    /// Writes records up to exactly `end`.
    pub(crate) fn fill_to(&mut self, end: Lsn) {
        while self.position() < end {
            self.begin_page();
            let room = self.room().min((end.0 - self.position().0) as usize);
            assert!(room >= 24, "no record fits");
            self.record(&Draft { rmgr: 10, info: 0, xid: 3, body: vec![0x5A; room - 24] });
        }
    }

    /// Writes a switch and leaves the rest of the segment unused.
    pub(crate) fn switch(&mut self) {
        self.record(&Draft { rmgr: 0, info: 0x40, xid: 0, body: Vec::new() });
        self.pad();
    }

    /// All bytes, with zeros to the end of the segment.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.pad();
        self.bytes
    }

    /// The bytes written so far.
    pub(crate) fn written(&self) -> &[u8] {
        &self.bytes
    }

    fn pad(&mut self) {
        let end = self.position().0.next_multiple_of(Self::SEGMENT);
        self.bytes.resize((end - self.start) as usize, 0);
    }

    fn begin_page(&mut self) {
        if self.position().0.is_multiple_of(Self::PAGE) {
            self.page(0);
        }
    }

    fn room(&self) -> usize {
        (Self::PAGE - self.position().0 % Self::PAGE) as usize
    }
}

/// A record with nothing but main data.
pub(crate) fn draft_with(rmgr: u8, info: u8, xid: u32, data: &[u8]) -> Draft {
    let mut body = vec![255, data.len() as u8];
    if data.len() > 255 {
        body = vec![254];
        body.extend((data.len() as u32).to_le_bytes());
    }
    body.extend(data);
    Draft { rmgr, info, xid, body }
}

/// Gives up the torn record at `position`.
pub(crate) fn overwrite_contrecord(position: u64) -> Draft {
    let mut data = position.to_le_bytes().to_vec();
    data.extend(0_i64.to_le_bytes());
    draft_with(0, 0xD0, 0, &data)
}

/// A commit `micros` after 2000-01-01.
pub(crate) fn commit(xid: u32, micros: i64) -> Draft {
    draft_with(1, 0, xid, &micros.to_le_bytes())
}

/// A rollback.
pub(crate) fn abort(xid: u32, micros: i64) -> Draft {
    draft_with(1, 0x20, xid, &micros.to_le_bytes())
}

/// A named restore point.
pub(crate) fn restore_point(name: &str, micros: i64) -> Draft {
    let mut data = micros.to_le_bytes().to_vec();
    data.extend(name.as_bytes());
    data.resize(72, 0);
    draft_with(0, 0x70, 0, &data)
}

/// A logical message with a long text.
pub(crate) fn message(xid: u32, prefix: &str, length: usize) -> Draft {
    let mut data = vec![0; 24];
    data[4] = 1;
    data[8..16].copy_from_slice(&(prefix.len() as u64 + 1).to_le_bytes());
    data[16..24].copy_from_slice(&(length as u64).to_le_bytes());
    data.extend(prefix.as_bytes());
    data.push(0);
    data.resize(data.len() + length, b'x');
    draft_with(21, 0, xid, &data)
}
