//! From bytes to checked records: the state machine behind archiving, validation and recovery targets.
//!
//! Promises: every record handed out lies wholly in the bytes fed, has the right CRC-32C, links back
//! to the record before it, and stands on pages of one version, one cluster and never falling
//! timeline. Any chunking of the same bytes gives the same records. No bytes, however damaged, make
//! it panic, and it holds no more than one transaction record or 8 KiB, whatever a record's size.
//!
//! The rules are those of `src/backend/access/transam/xlogreader.c` (`XLogDecodeNextRecord`,
//! `XLogReaderValidatePageHeader`, `ValidXLogRecordHeader`, `ValidXLogRecord`), turned inside out:
//!
//! ```text
//!   page header ──► Between ──► Record ──► Padding ──► Between …
//!        │             │           │ (switch)
//!        ├──► Skip ────┘           └──► Unused ──► next segment's header
//!        └──► Zeros: nothing was ever written here          any ──► Corrupt
//! ```
//!
//! What reading cannot tell: the end of WAL in a *recycled* segment looks like damage, because old
//! bytes follow the last record. So [`WalEnd::Corrupt`] in the segment that a server was writing when
//! it stopped is the end of WAL; within archived WAL it is damage. The caller knows which it reads.

use crate::error::{self, Error};
use crate::units::{Lsn, Timeline};

use super::blocks::BlockMap;
use super::decode::{HEADER, RM_XLOG, RecordHeader, XLOG_OVERWRITE_CONTRECORD, decode};
use super::header::{LONG, WalVersion};
use super::record::{Record, RecordKind};
use super::references::collect;
use crate::wal_name::is_segment_size;

mod changes;
mod page;
mod partial;

use partial::Partial;
pub use partial::Unfinished;

/// No record is longer (`MaxAllocSize`; 16 and later stop a little earlier, `XLogRecordMaxSize`).
const MAX_RECORD: u32 = 0x3FFF_FFFF;
const DEFAULT_BLOCK_SIZE: u64 = 8192;

/// How the bytes fed so far end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalEnd {
    /// All is well up to [`WalReader::position`]; what follows is not known yet.
    NeedMore,
    /// From here on there are only zeros where a record or page should begin: the end of WAL in a
    /// segment that was not filled. `at` is where WAL would go on; a record cut off by the zeros is
    /// not counted, `at` is then its start.
    ZeroTail {
        /// Where valid WAL ends.
        at: Lsn,
    },
    /// The bytes at `at` are not what must be there.
    Corrupt {
        /// Start of the record or page concerned; everything before it is sound.
        at: Lsn,
        /// What is wrong.
        why: String,
    },
}

/// Reads a contiguous stretch of WAL piece by piece.
#[derive(Debug, Clone)]
pub struct WalReader {
    segment_size: u64,
    block_size: u64,
    system_identifier: Option<u64>,
    newest_timeline: Option<Timeline>,
    version: Option<WalVersion>,
    timeline: Option<Timeline>,
    position: u64,
    previous: Option<Lsn>,
    last_end: Option<Lsn>,
    torn: Option<Lsn>,
    page: PageHead,
    state: State,
    record: Partial,
    /// From here on no record is missed.
    whole_from: Option<Lsn>,
    /// What the records change, where that is wanted.
    blocks: Option<BlockMap>,
}

/// The page header being collected.
#[derive(Debug, Clone)]
struct PageHead {
    bytes: [u8; LONG],
    have: usize,
    done: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing was read yet: the first page may begin within a record.
    Start,
    /// In a record that began before the first byte fed; its `left` bytes cannot be checked.
    Skip {
        left: u32,
    },
    /// Where a record may begin.
    Between,
    /// In the record that `WalReader::record` collects.
    Record,
    /// Between a record and the next multiple of 8.
    Padding {
        left: u64,
    },
    /// Behind a switch: the rest of the segment means nothing.
    Unused,
    Zeros {
        at: Lsn,
    },
    Corrupt {
        at: Lsn,
        why: String,
    },
}

/// What is wrong, and where.
struct Fault {
    at: Lsn,
    why: String,
}

impl WalReader {
    /// A reader of WAL from `start`, which must be the start of a page and is usually that of a
    /// segment. Pages of another cluster than `system_identifier` are refused; without one, the first
    /// segment header read decides. WAL pages of another size than 8 KiB are understood only when
    /// reading begins with a segment, where the size is written.
    pub fn new(segment_size: u64, start: Lsn, system_identifier: Option<u64>) -> error::Result<Self> {
        if !is_segment_size(segment_size) {
            return Err(error::internal(format!("{segment_size} bytes is no size of a WAL segment")));
        }
        let aligned = start.0.is_multiple_of(segment_size) || start.0.is_multiple_of(DEFAULT_BLOCK_SIZE);
        if !aligned || start.0 >= 1 << 63 {
            return Err(error::internal(format!("{start} is not the start of a WAL page")));
        }
        Ok(Self {
            segment_size,
            block_size: DEFAULT_BLOCK_SIZE,
            system_identifier,
            newest_timeline: None,
            version: None,
            timeline: None,
            position: start.0,
            previous: None,
            last_end: None,
            torn: None,
            page: PageHead { bytes: [0; LONG], have: 0, done: false },
            state: State::Start,
            record: Partial::default(),
            whole_from: None,
            blocks: None,
        })
    }

    /// Refuses pages and records of a later timeline than this one. Where a timeline begins, its first
    /// page is a copy of the ancestor's and still says so; only its first record tells.
    pub fn set_newest_timeline(&mut self, timeline: Timeline) {
        self.newest_timeline = Some(timeline);
    }

    /// The position behind the last byte fed.
    pub fn position(&self) -> Lsn {
        Lsn(self.position)
    }

    /// End of the last record handed out ([`Record::end`]).
    pub fn last_record_end(&self) -> Option<Lsn> {
        self.last_end
    }

    /// Start of the last record handed out, to which the next one must link back.
    pub fn last_record_start(&self) -> Option<Lsn> {
        self.previous
    }

    /// Start of the record of which only a part was fed so far.
    pub fn unfinished_record(&self) -> Option<Lsn> {
        (self.state == State::Record).then_some(Lsn(self.record.start))
    }

    /// Version of PostgreSQL that wrote the pages.
    pub fn version(&self) -> Option<WalVersion> {
        self.version
    }

    /// Timeline of the last page.
    pub fn timeline(&self) -> Option<Timeline> {
        self.timeline
    }

    /// The cluster, once known.
    pub fn system_identifier(&self) -> Option<u64> {
        self.system_identifier
    }

    /// Whether the bytes so far are sound, and how they end.
    pub fn end(&self) -> WalEnd {
        match &self.state {
            State::Zeros { at } => WalEnd::ZeroTail { at: *at },
            State::Corrupt { at, why } => WalEnd::Corrupt { at: *at, why: why.clone() },
            _ => WalEnd::NeedMore,
        }
    }

    /// Takes the next bytes and hands each record completed by them to `sink`. After an error the
    /// reader stays where it is: [`WalReader::end`] says [`WalEnd::Corrupt`], and so does every
    /// further call.
    pub fn feed(&mut self, mut bytes: &[u8], mut sink: impl FnMut(Record)) -> error::Result<()> {
        loop {
            if let State::Corrupt { at, why } = &self.state {
                return Err(corrupt(*at, why));
            }
            if bytes.is_empty() {
                return Ok(());
            }
            match self.step(bytes, &mut sink) {
                Ok(used) => {
                    bytes = &bytes[used..];
                    self.position += used as u64;
                    if self.position.is_multiple_of(self.block_size) {
                        self.page.done = false;
                        self.page.have = 0;
                    }
                }
                Err(Fault { at, why }) => self.state = State::Corrupt { at, why },
            }
        }
    }

    /// Consumes some of `bytes`, at least one, at most to the end of the page.
    fn step(&mut self, bytes: &[u8], sink: &mut impl FnMut(Record)) -> Result<usize, Fault> {
        match self.state {
            State::Zeros { at } => return self.zeros(at, bytes),
            State::Unused => return Ok(self.unused(bytes)),
            _ if !self.page.done => return self.page_head(bytes),
            _ => {}
        }
        let left = self.block_size - self.position % self.block_size;
        let bytes = &bytes[..bytes.len().min(usize::try_from(left).expect("a page is small"))];
        match &mut self.state {
            State::Skip { left } => {
                let used = bytes.len().min(*left as usize);
                *left -= used as u32;
                if *left == 0 {
                    let end = self.position + used as u64;
                    self.state = padding(end);
                    self.whole_from = Some(Lsn(end.next_multiple_of(8)));
                }
                Ok(used)
            }
            State::Padding { left } => {
                let used = bytes.len().min(*left as usize);
                *left -= used as u64;
                if *left == 0 {
                    self.state = State::Between;
                }
                Ok(used)
            }
            State::Between => {
                self.record.begin(self.position);
                self.state = State::Record;
                self.record_bytes(bytes, sink)
            }
            _ => self.record_bytes(bytes, sink),
        }
    }

    fn zeros(&self, at: Lsn, bytes: &[u8]) -> Result<usize, Fault> {
        match bytes.iter().position(|b| *b != 0) {
            None => Ok(bytes.len()),
            Some(offset) => {
                let found = Lsn(self.position + offset as u64);
                Err(Fault { at, why: format!("zeros, and then other bytes at {found}") })
            }
        }
    }

    /// PostgreSQL leaves zeros behind a switch, but after a crash whatever was there before.
    fn unused(&mut self, bytes: &[u8]) -> usize {
        let left = self.segment_size - self.position % self.segment_size;
        let used = bytes.len().min(usize::try_from(left).expect("a segment is at most 1 GiB"));
        if used as u64 == left {
            self.state = State::Between;
        }
        used
    }

    fn record_bytes(&mut self, bytes: &[u8], sink: &mut impl FnMut(Record)) -> Result<usize, Fault> {
        let start = Lsn(self.record.start);
        // What follows a torn record vouches for it: if that is unsound, so is the giving up.
        let at = self.torn.unwrap_or(start);
        let fault = |why| Fault { at, why };
        let mut used = 0;
        if self.record.parsed.is_none() {
            used = self.record.take_head(bytes);
            if self.record.have >= 4 && self.record.length == 0 {
                self.record.length = u32::from_le_bytes(*self.record.head.first_chunk().expect("24 bytes"));
                match self.record.length {
                    0 => {
                        // Nothing was written here; what was read beyond the length is looked at again.
                        self.state = State::Zeros { at };
                        return Ok(used - (self.record.have as usize - 4));
                    }
                    length if length < HEADER as u32 || length > MAX_RECORD => {
                        return Err(fault(format!("a record cannot be {length} bytes long")));
                    }
                    _ => {}
                }
            }
            if (self.record.have as usize) < HEADER {
                return Ok(used);
            }
            self.check_head().map_err(fault)?;
        }
        used += self.record.take_body(&bytes[used..]);
        if self.record.have == self.record.length {
            let end = self.position + used as u64;
            let record = self.complete(end).map_err(fault)?;
            sink(record);
        }
        Ok(used)
    }

    fn check_head(&mut self) -> Result<(), String> {
        let head = RecordHeader::parse(&self.record.head);
        let start = Lsn(self.record.start);
        let links = self.previous.map_or(head.previous < start, |previous| head.previous == previous);
        if !links {
            let expected = self.previous.map_or_else(|| "an earlier record".to_owned(), |p| p.to_string());
            return Err(format!("the record links back to {} instead of {expected}", head.previous));
        }
        let version = self.version.expect("a page header was read before");
        if !head.rmgr_exists(version) {
            return Err(format!("PostgreSQL {} has no resource manager {}", version.major(), head.rmgr));
        }
        let overwrite = head.rmgr == RM_XLOG && head.info & 0xF0 == XLOG_OVERWRITE_CONTRECORD;
        if let Some(torn) = self.torn.filter(|_| !overwrite) {
            return Err(format!("the record torn at {torn} is given up, but no record says so"));
        }
        self.record.keep = head.keep(self.blocks.is_some());
        self.record.parsed = Some(head);
        Ok(())
    }

    /// The last byte of the record is here: checks and understands it.
    fn complete(&mut self, end: u64) -> Result<Record, String> {
        let head = self.record.parsed.take().expect("the head precedes the body");
        let crc = crc32c::crc32c_append(self.record.crc, &self.record.head[..HEADER - 4]);
        if crc != head.crc {
            return Err(format!("the record's checksum is {:08X}, its bytes give {crc:08X}", head.crc));
        }
        let version = self.version.expect("a page header was read before");
        let kind = decode(version, &head, &self.record.kept)?;
        if let RecordKind::OverwriteContrecord { overwritten, .. } = &kind
            && let Some(torn) = self.torn.take()
            && torn != *overwritten
        {
            return Err(format!("it gives up a record at {overwritten}, but the torn one is at {torn}"));
        }
        if let (Some(timeline), Some(newest)) = (kind.timeline(), self.newest_timeline)
            && timeline > newest
        {
            return Err(format!("it is a record of timeline {timeline} in a segment of timeline {newest}"));
        }
        if let Some(blocks) = &mut self.blocks {
            collect(version, &head, &self.record.kept, blocks);
        }
        let start = Lsn(self.record.start);
        self.state = padding(end);
        let mut end = Lsn(end.next_multiple_of(8));
        if kind == RecordKind::Switch && !end.0.is_multiple_of(self.segment_size) {
            end = Lsn(end.0.next_multiple_of(self.segment_size));
            self.state = State::Unused;
        }
        self.previous = Some(start);
        self.last_end = Some(end);
        // A huge transaction record must not occupy memory for ever.
        self.record.kept.shrink_to(64 << 10);
        Ok(Record { start, end, xid: head.xid, rmgr: head.rmgr, info: head.info, length: head.length, kind })
    }
}

/// What follows something that ends at `end`.
fn padding(end: u64) -> State {
    match end.next_multiple_of(8) - end {
        0 => State::Between,
        left => State::Padding { left },
    }
}

fn corrupt(at: Lsn, why: &str) -> Error {
    error::integrity(format!("WAL is not sound at {at}: {why}"))
        .meaning("recovery would stop there; nothing that was committed later could be recovered through these bytes")
}
