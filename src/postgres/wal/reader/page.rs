//! Where one page ends and the next begins: the reader compares each page header with everything it
//! knows, and decides whether a record goes on, begins, or was given up
//! (`XLogReaderValidatePageHeader` and the reassembling loop of `XLogDecodeNextRecord`).

use super::{Fault, State, WalReader};
use crate::postgres::wal::header::{LONG, LongPart, PageHeader, SHORT, is_block_size};
use crate::units::Lsn;

impl WalReader {
    /// Collects the page header; once it is whole, checks it.
    pub(super) fn page_head(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let page = &mut self.page;
        let mut size = if page.have < SHORT { SHORT } else { LONG };
        let mut used = 0;
        loop {
            let take = (size - page.have).min(bytes.len() - used);
            page.bytes[page.have..page.have + take].copy_from_slice(&bytes[used..used + take]);
            page.have += take;
            used += take;
            if page.have < size {
                return Ok(used);
            }
            let short = page.bytes.first_chunk().expect("at least a short header");
            if size == SHORT {
                size = PageHeader::size(short);
            }
            if page.have == size {
                break;
            }
        }
        page.done = true;
        let start = Lsn(self.position + used as u64 - size as u64);
        let at = match self.state {
            State::Record => self.torn.unwrap_or(Lsn(self.record.start)),
            _ => start,
        };
        if page.bytes[..size].iter().all(|b| *b == 0) {
            self.state = State::Zeros { at };
            return Ok(used);
        }
        self.check_page(start, at).map_err(|why| Fault { at, why: format!("page {start}: {why}") })?;
        Ok(used)
    }

    /// Compares a page header with everything known; decides how the page begins.
    fn check_page(&mut self, start: Lsn, at: Lsn) -> Result<(), String> {
        let header = PageHeader::parse(&self.page.bytes[..self.page.have])?;
        if header.address != start {
            return Err(format!("its header says {}", header.address));
        }
        if let Some(version) = self.version.replace(header.version).filter(|known| *known != header.version) {
            return Err(format!("written by PostgreSQL {} after {}", header.version.major(), version.major()));
        }
        match &header.long {
            Some(long) => self.check_long(start, long)?,
            None if start.0.is_multiple_of(self.segment_size) => {
                return Err("the first page of a segment has no long header".to_owned());
            }
            None => {}
        }
        if let Some(known) = self.timeline.replace(header.timeline).filter(|known| *known > header.timeline) {
            return Err(format!("timeline {} after {known}", header.timeline));
        }
        if let Some(newest) = self.newest_timeline.filter(|newest| header.timeline > *newest) {
            return Err(format!("timeline {} in a segment of timeline {newest}", header.timeline));
        }
        self.enter_page(&header, at)
    }

    fn check_long(&mut self, start: Lsn, long: &LongPart) -> Result<(), String> {
        let known = *self.system_identifier.get_or_insert(long.system_identifier);
        if known != long.system_identifier {
            return Err(format!("it belongs to cluster {}, not {known}", long.system_identifier));
        }
        if long.segment_size != self.segment_size {
            return Err(format!("segment size {} instead of {}", long.segment_size, self.segment_size));
        }
        let first = self.state == State::Start && start.0.is_multiple_of(self.segment_size);
        if first && is_block_size(long.block_size) {
            self.block_size = long.block_size;
        }
        if long.block_size != self.block_size {
            return Err(format!("WAL page size {} instead of {}", long.block_size, self.block_size));
        }
        Ok(())
    }

    /// Is the record that should go on here the one that goes on (`xlp_rem_len`)?
    fn enter_page(&mut self, header: &PageHeader, at: Lsn) -> Result<(), String> {
        let expected = match self.state {
            State::Record => self.record.length - self.record.have,
            State::Skip { left } => left,
            State::Start if header.continues_record() && header.remaining > 0 => {
                self.state = State::Skip { left: header.remaining };
                return Ok(());
            }
            _ if header.continues_record() => return Err("a record goes on here that never began".to_owned()),
            _ => {
                self.begin_at(header.address);
                return Ok(());
            }
        };
        if header.overwrites_record() {
            if self.state == State::Record {
                self.torn = Some(at);
            }
            self.begin_at(header.address);
            return Ok(());
        }
        if !header.continues_record() || header.remaining != expected {
            let found = if header.continues_record() { header.remaining } else { 0 };
            return Err(format!("{found} bytes of the record begun before go on here instead of {expected}"));
        }
        Ok(())
    }

    /// A record may begin on this page: of those that follow, none is missed.
    fn begin_at(&mut self, page: Lsn) {
        self.state = State::Between;
        self.whole_from.get_or_insert(page);
    }
}
