//! Archived WAL, record by record: decides nothing, and tells damage from the end of what there is.

use std::ops::ControlFlow;

use crate::error::{self, Result};
use crate::postgres::wal::{Record, WalEnd, WalReader};
use crate::repository::coverage::{Coverage, Leg};
use crate::repository::wal_archive::WalArchive;
use crate::units::Lsn;

/// Reads WAL along `line` from the start of segment `from` up to `end`, until `visit` has had enough. Ends early
/// where WAL ends; damage in a complete segment is an error.
pub(crate) async fn walk(
    archive: WalArchive<'_>,
    wal: &Coverage,
    line: &[Leg],
    from: u64,
    end: Lsn,
    mut visit: impl FnMut(&Record) -> ControlFlow<()>,
) -> Result<()> {
    let size = wal.segment_size;
    let mut reader = WalReader::new(size, Lsn(from * size), None)?;
    for number in from..=end.previous_segment(size) {
        let complete = wal.complete(line, number);
        let Some(name) = complete.or_else(|| wal.live(line, number).map(|l| l.0)) else { break };
        let bytes = archive.read_segment(&name, size).await?.ok_or_else(|| {
            error::integrity(format!("WAL segment {name} vanished from the repository while it was read"))
        })?;
        let mut stopped = false;
        reader.feed(&bytes, |record| {
            if !stopped && record.start < end {
                stopped = visit(&record).is_break();
            }
        })?;
        match reader.end() {
            _ if stopped => return Ok(()),
            WalEnd::Corrupt { at, why } if complete.is_some() => {
                return Err(error::integrity(format!("WAL segment {name} is damaged at {at}: {why}"))
                    .meaning("WAL can be replayed up to there; what follows needs a later base backup")
                    .hint(format!("restore to `lsn:{at}` or earlier")));
            }
            WalEnd::NeedMore => {}
            WalEnd::Corrupt { .. } | WalEnd::ZeroTail { .. } => return Ok(()),
        }
    }
    Ok(())
}
