//! Judges archived WAL files for a deep verification: headers, every record's checksum, and that each
//! segment goes on where the one before it ended.

use super::wal::header::SegmentHeader;
use super::wal::segment::{Carry, validate};
use super::wal::{SegmentName, TimelineHistory, WalFileName};
use crate::error::{self, Result};
use crate::repository::verify::WalJudge;

/// The judge; files come timeline by timeline, in order.
#[derive(Debug, Default)]
pub struct Judge {
    system_id: Option<u64>,
    segment_size: u64,
    /// The segment judged last and how to go on behind it.
    before: Option<(SegmentName, Carry)>,
}

impl WalJudge for Judge {
    fn expect(&mut self, system_id: Option<u64>, segment_size: u64) {
        (self.system_id, self.segment_size) = (system_id, segment_size);
    }

    fn judge(&mut self, name: &WalFileName, content: &[u8]) -> Result<()> {
        match name {
            WalFileName::Segment(segment) => self.segment(segment, content),
            WalFileName::History { timeline } => {
                let text =
                    std::str::from_utf8(content).map_err(|_| error::integrity("the history file is not text"))?;
                TimelineHistory::parse(*timeline, text).map(drop)
            }
            WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => Ok(()),
        }
    }
}

impl Judge {
    fn segment(&mut self, name: &SegmentName, content: &[u8]) -> Result<()> {
        let before = self.before.take();
        let system_id = match self.system_id {
            Some(id) => id,
            // Nothing says whose WAL it must be; from the first segment on it must be the same.
            None => *self.system_id.insert(SegmentHeader::parse(content)?.system_identifier),
        };
        let number = name.number(self.segment_size)?;
        let follows = |last: &SegmentName| {
            last.timeline == name.timeline && last.number(self.segment_size).is_ok_and(|last| last + 1 == number)
        };
        let carry = before.filter(|(last, _)| follows(last)).map(|(_, carry)| carry);
        let valid = validate(name, content, system_id, self.segment_size, carry)?;
        self.before = Some((*name, valid.carry));
        Ok(())
    }
}
