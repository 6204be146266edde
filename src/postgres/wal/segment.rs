//! Is this file a whole, sound segment of our cluster's WAL – and what is in it?
//!
//! [`validate`] is what stands between a file and the archive. It promises: the file carries the
//! right cluster, segment size, position and no later timeline than its name; every record that lies
//! wholly inside is sound; and WAL goes on beyond the last byte, or the rest was given up by a switch.
//! The head of a record that began in the segment before can be checked, and the record counted,
//! only with the [`Carry`] of that segment; so within a chain of carries every record is counted
//! once, in the segment where it ends.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{self, Error, Result};
use crate::units::Lsn;

use super::header::SegmentHeader;
use super::reader::{WalEnd, WalReader};
use super::record::{Record, RecordKind};
use crate::wal_name::SegmentName;

/// The state of reading at the end of a segment, for the next one of the same line.
#[derive(Debug, Clone)]
pub struct Carry(WalReader);

impl Carry {
    /// Carries nothing but the wish of `reader`, which has read nothing, to collect blocks.
    pub(in crate::postgres) fn collecting(reader: WalReader) -> Self {
        Self(reader)
    }

    /// The reader at the end of the segment.
    pub(in crate::postgres) fn into_reader(self) -> WalReader {
        self.0
    }
}

/// A commit in WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Start of the commit record: what `recovery_target_lsn` names to keep this transaction.
    pub lsn: Lsn,
    /// The transaction.
    pub xid: u32,
    /// Time of the commit by the server's clock.
    pub time: DateTime<Utc>,
}

/// A named restore point in WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Its name; not necessarily unique.
    pub name: String,
    /// End of its record, as `pg_create_restore_point` returned it.
    pub lsn: Lsn,
    /// When it was made.
    pub time: DateTime<Utc>,
}

/// What a stretch of WAL, usually a segment, contains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSummary {
    /// Major version of PostgreSQL that wrote it.
    pub version: u16,
    /// Records that end in it.
    pub records: u64,
    /// Committed transactions, two-phase ones included.
    pub commits: u64,
    /// Rolled back transactions, two-phase ones included.
    pub aborts: u64,
    /// First commit, by position.
    pub first_commit: Option<Commit>,
    /// Last commit, by position.
    pub last_commit: Option<Commit>,
    /// Earliest time of a commit: commit times do not always rise along WAL.
    pub earliest_commit_time: Option<DateTime<Utc>>,
    /// Latest time of a commit.
    pub latest_commit_time: Option<DateTime<Utc>>,
    /// Named restore points.
    pub restore_points: Vec<RestorePoint>,
    /// End of the last record; none when one record fills everything.
    pub last_record_end: Option<Lsn>,
    /// Whether a switch left the rest unused.
    pub switched: bool,
    /// Bytes up to the switch, or all.
    pub bytes_used: u64,
}

impl SegmentSummary {
    /// Counts one record; the sink for [`WalReader::feed`] where no whole segment is at hand.
    pub fn count(&mut self, record: &Record) {
        self.records += 1;
        self.last_record_end = Some(record.end);
        match &record.kind {
            RecordKind::Commit { xid, time } | RecordKind::CommitPrepared { xid, time } => {
                let commit = Commit { lsn: record.start, xid: *xid, time: *time };
                self.commits += 1;
                self.first_commit.get_or_insert(commit);
                self.last_commit = Some(commit);
                self.earliest_commit_time = Some(self.earliest_commit_time.map_or(*time, |t| t.min(*time)));
                self.latest_commit_time = Some(self.latest_commit_time.map_or(*time, |t| t.max(*time)));
            }
            RecordKind::Abort { .. } | RecordKind::AbortPrepared { .. } => self.aborts += 1,
            RecordKind::RestorePoint { name, time } => {
                self.restore_points.push(RestorePoint { name: name.clone(), lsn: record.end, time: *time });
            }
            _ => {}
        }
    }
}

/// A segment that may be kept, and how to go on with the next.
#[derive(Debug, Clone)]
pub struct Validated {
    /// What is in it.
    pub summary: SegmentSummary,
    /// Hand this to [`validate`] with the next segment.
    pub carry: Carry,
}

/// Checks the complete segment `name` of a cluster. A `carry` that does not end where this segment
/// starts is an error of the caller's.
pub fn validate(
    name: &SegmentName,
    bytes: &[u8],
    system_identifier: u64,
    segment_size: u64,
    carry: Option<Carry>,
) -> Result<Validated> {
    validate_inner(name, bytes, system_identifier, segment_size, carry)
        .map_err(|e| e.context(format_args!("WAL segment {name}")))
}

fn validate_inner(
    name: &SegmentName,
    bytes: &[u8],
    system_identifier: u64,
    segment_size: u64,
    carry: Option<Carry>,
) -> Result<Validated> {
    let start = name.start(segment_size)?;
    if bytes.len() as u64 != segment_size {
        return Err(unfit(format!("{} bytes long instead of {segment_size}", bytes.len())));
    }
    let header = SegmentHeader::parse(bytes)?;
    check_header(&header, name, start, system_identifier, segment_size)?;
    let mut reader = match carry {
        Some(Carry(reader)) if reader.position() == start => reader,
        Some(Carry(reader)) => {
            return Err(error::internal(format!("starts at {start}, but reading had come to {}", reader.position())));
        }
        None => WalReader::new(segment_size, start, Some(system_identifier))?,
    };
    reader.set_newest_timeline(name.timeline);

    let mut summary =
        SegmentSummary { version: header.version.major(), bytes_used: segment_size, ..Default::default() };
    let mut switch_end = None;
    reader.feed(bytes, |record| {
        if record.kind == RecordKind::Switch {
            switch_end = Some(record.start.0 + u64::from(record.length));
        }
        summary.count(&record);
    })?;
    if let WalEnd::ZeroTail { at } = reader.end() {
        return Err(unfit(format!("its WAL ends at {at}, the rest is zeros")).hint(
            "a segment that is still being written is not complete; a .partial file is archived under that name",
        ));
    }
    if let Some(end) = switch_end {
        summary.switched = true;
        summary.bytes_used = end - start.0;
    }
    Ok(Validated { summary, carry: Carry(reader) })
}

fn check_header(
    header: &SegmentHeader,
    name: &SegmentName,
    start: Lsn,
    system_identifier: u64,
    segment_size: u64,
) -> Result<()> {
    if header.system_identifier != system_identifier {
        return Err(error::integrity(format!(
            "belongs to cluster {}, not to {system_identifier}",
            header.system_identifier
        ))
        .meaning("it was not kept: mixed with this cluster's WAL it could destroy a recovery")
        .hint("check which server's archive_command or dsn points here"));
    }
    if header.segment_size != segment_size {
        return Err(unfit(format!("written with segments of {} bytes, not {segment_size}", header.segment_size)));
    }
    if header.start != start {
        return Err(unfit(format!("holds the WAL of {}, not of {start}", header.start)));
    }
    if header.timeline > name.timeline {
        return Err(unfit(format!("begins on timeline {}", header.timeline)));
    }
    Ok(())
}

fn unfit(why: String) -> Error {
    error::integrity(why).meaning("it was not kept; recovery would stop at its beginning")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::postgres::wal::forge::{Forge, abort, commit, restore_point};
    use crate::units::Timeline;

    const SIZE: u64 = Forge::SEGMENT;

    fn name(number: u64) -> SegmentName {
        SegmentName::new(Timeline(1), number, SIZE)
    }

    /// Two segments: a commit in the first, one across the border, a restore point, then a switch.
    fn two_segments() -> Vec<u8> {
        let mut forge = Forge::new(Lsn(3 * SIZE));
        forge.record(&commit(7, 1_000_000));
        forge.record(&abort(8, 3_000_000));
        forge.fill_to(Lsn(4 * SIZE - 16));
        forge.record(&commit(9, 2_000_000));
        forge.record(&restore_point("before", 4_000_000));
        forge.record(&commit(10, 500_000));
        forge.switch();
        forge.finish()
    }

    #[test]
    fn a_chain_of_segments_counts_every_transaction_once() {
        let bytes = two_segments();
        let first = validate(&name(3), &bytes[..SIZE as usize], Forge::SYSTEM, SIZE, None).expect("sound");
        assert_eq!((first.summary.commits, first.summary.aborts, first.summary.version), (1, 1, 15));
        assert_eq!(first.summary.first_commit, first.summary.last_commit);
        assert_eq!(first.summary.bytes_used, SIZE);
        assert!(!first.summary.switched);

        let second = &bytes[SIZE as usize..];
        let alone = validate(&name(4), second, Forge::SYSTEM, SIZE, None).expect("sound").summary;
        assert_eq!(alone.commits, 1);
        let chained = validate(&name(4), second, Forge::SYSTEM, SIZE, Some(first.carry)).expect("sound").summary;
        assert_eq!(chained.commits, 2);
        assert_eq!(chained.first_commit.map(|c| (c.xid, c.lsn)), Some((9, Lsn(4 * SIZE - 16))));
        assert_eq!(chained.last_commit.map(|c| c.xid), Some(10));
        assert!(chained.earliest_commit_time < chained.latest_commit_time);
        assert_eq!(chained.latest_commit_time, chained.first_commit.map(|c| c.time));
        assert_eq!(chained.restore_points[0].name, "before");
        assert!(chained.switched);
        assert_eq!(chained.last_record_end, Some(Lsn(5 * SIZE)));
        assert!(chained.bytes_used < 1024);
        let json = serde_json::to_string(&chained).expect("serialises");
        assert_eq!(serde_json::from_str::<SegmentSummary>(&json).expect("deserialises"), chained);
    }

    #[test]
    fn what_does_not_belong_here_is_refused() {
        let bytes = two_segments();
        let first = &bytes[..SIZE as usize];
        let refused = |name: SegmentName, bytes: &[u8], system, size| {
            let error = validate(&name, bytes, system, size, None).expect_err("unfit");
            assert_eq!(error.kind(), ErrorKind::Integrity);
            error.message()
        };
        assert!(refused(name(3), first, 1, SIZE).ends_with("belongs to cluster 7000000000000000001, not to 1"));
        assert!(refused(name(2), first, Forge::SYSTEM, SIZE).contains("holds the WAL of"));
        assert!(refused(name(3), &first[8192..], Forge::SYSTEM, SIZE).contains("bytes long"));
        assert!(refused(name(3), &bytes, Forge::SYSTEM, 2 * SIZE).contains("segments of 1048576 bytes"));
        let mut later = first.to_vec();
        later[4] = 2;
        assert!(refused(name(3), &later, Forge::SYSTEM, SIZE).contains("begins on timeline"));
        later[4] = 1;
        later[8192 + 4] = 2;
        assert!(refused(name(3), &later, Forge::SYSTEM, SIZE).contains("in a segment of timeline"));
    }

    #[test]
    fn a_segment_that_is_not_filled_is_not_complete() {
        let mut forge = Forge::new(Lsn(3 * SIZE));
        let end = forge.record(&commit(7, 1));
        let error = validate(&name(3), &forge.finish(), Forge::SYSTEM, SIZE, None).expect_err("incomplete");
        assert!(error.message().contains(&format!("ends at {end}")), "{error}");
    }

    #[test]
    fn a_carry_fits_only_the_next_segment() {
        let bytes = two_segments();
        let first = &bytes[..SIZE as usize];
        let carry = validate(&name(3), first, Forge::SYSTEM, SIZE, None).expect("sound").carry;
        let error = validate(&name(3), first, Forge::SYSTEM, SIZE, Some(carry)).expect_err("wrong carry");
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_record_changed_at_the_border_is_found_with_the_carry() {
        let mut bytes = two_segments();
        let carry = validate(&name(3), &bytes[..SIZE as usize], Forge::SYSTEM, SIZE, None).expect("sound").carry;
        bytes[SIZE as usize + 41] ^= 1;
        let second = &bytes[SIZE as usize..];
        assert!(validate(&name(4), second, Forge::SYSTEM, SIZE, None).is_ok(), "its head is unknown");
        let error = validate(&name(4), second, Forge::SYSTEM, SIZE, Some(carry)).expect_err("damaged");
        assert!(error.message().contains("checksum"), "{error}");
    }
}
