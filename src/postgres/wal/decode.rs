//! From the bytes of a record to what it says.
//!
//! The walk through a commit record follows `ParseCommitRecord` in
//! `src/backend/access/rmgrdesc/xactdesc.c`. Where the versions 13 to 18 differ, the text says so. The
//! bytes given have passed their CRC; still nothing in them is believed to be in bounds.

use crate::units::{Lsn, Timeline};

use super::bytes::Fields;
use super::header::WalVersion;
use super::record::{Checkpoint, Parameters, RecordKind, WalLevel};
use super::references::{REFERENCES, RM_DBASE, RM_SMGR};

/// Resource manager of checkpoints, switches, restore points.
pub(crate) const RM_XLOG: u8 = 0;
/// Resource manager of transactions.
pub(crate) const RM_XACT: u8 = 1;
/// Resource manager of `pg_logical_emit_message`.
pub(crate) const RM_LOGICALMSG: u8 = 21;
/// First number that extensions may take (15 and later).
const RM_FIRST_CUSTOM: u8 = 128;

/// Bytes of `XLogRecord`, which every record begins with.
pub(crate) const HEADER: usize = 24;

/// How much of a record is kept to be understood. Transaction records are kept whole, because the
/// transaction that `COMMIT PREPARED` is about stands behind lists of any length; of a logical
/// message longer than this only the prefix matters.
const KEPT: usize = 8192;

/// The fixed head of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordHeader {
    pub(crate) length: u32,
    pub(crate) xid: u32,
    pub(crate) previous: Lsn,
    pub(crate) info: u8,
    pub(crate) rmgr: u8,
    pub(crate) crc: u32,
}

impl RecordHeader {
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Self {
        let f = Fields(bytes);
        let whole = "the header is whole";
        Self {
            length: f.u32(0).expect(whole),
            xid: f.u32(4).expect(whole),
            previous: Lsn(f.u64(8).expect(whole)),
            info: f.u8(16).expect(whole),
            rmgr: f.u8(17).expect(whole),
            crc: f.u32(20).expect(whole),
        }
    }

    /// Whether that version has, or lets extensions have, this resource manager (`RmgrIdIsValid`).
    pub(crate) fn rmgr_exists(&self, version: WalVersion) -> bool {
        self.rmgr <= RM_LOGICALMSG || (self.rmgr >= RM_FIRST_CUSTOM && version.major() >= 15)
    }

    /// How many bytes behind the header must be kept for [`decode`], and, where blocks are collected,
    /// for [`collect`](super::references::collect).
    pub(crate) fn keep(&self, collecting: bool) -> usize {
        let body = self.length as usize - HEADER;
        let decoded = match (self.rmgr, self.info & 0xF0) {
            (RM_XACT, _) => body,
            (RM_XLOG, XLOG_FPI | XLOG_FPI_FOR_HINT) => 0,
            (RM_XLOG | RM_LOGICALMSG, _) => body.min(KEPT),
            _ => 0,
        };
        match self.rmgr {
            _ if !collecting => decoded,
            RM_SMGR | RM_DBASE => body.min(KEPT),
            _ => decoded.max(body.min(REFERENCES)),
        }
    }
}

const XLOG_CHECKPOINT_SHUTDOWN: u8 = 0x00;
const XLOG_CHECKPOINT_ONLINE: u8 = 0x10;
pub(crate) const XLOG_SWITCH: u8 = 0x40;
const XLOG_BACKUP_END: u8 = 0x50;
pub(super) const XLOG_PARAMETER_CHANGE: u8 = 0x60;
const XLOG_RESTORE_POINT: u8 = 0x70;
const XLOG_END_OF_RECOVERY: u8 = 0x90;
const XLOG_FPI_FOR_HINT: u8 = 0xA0;
const XLOG_FPI: u8 = 0xB0;
pub(crate) const XLOG_OVERWRITE_CONTRECORD: u8 = 0xD0;
const XLOG_CHECKPOINT_REDO: u8 = 0xE0;

/// Understands a record from its head and the kept part of what follows; `Err` says what is missing.
pub(crate) fn decode(version: WalVersion, head: &RecordHeader, body: &[u8]) -> Result<RecordKind, String> {
    let kind = match (head.rmgr, head.info & 0xF0) {
        (RM_XLOG, XLOG_SWITCH) => Some(RecordKind::Switch),
        (RM_XLOG, XLOG_CHECKPOINT_REDO) => Some(RecordKind::CheckpointRedo),
        (RM_XLOG, info) => xlog(info, body),
        (RM_XACT, info) => transaction(version, info, head.xid, body),
        (RM_LOGICALMSG, 0) => logical_message(body),
        _ => Some(RecordKind::Other),
    };
    kind.ok_or_else(|| format!("the record (resource manager {}, info {:02X}) is malformed", head.rmgr, head.info))
}

/// The part of the record that belongs to its kind, behind the headers of variable number. None of
/// the kinds understood here refers to pages of relations.
pub(super) fn main_data(body: &[u8]) -> Option<&[u8]> {
    let f = Fields(body);
    let mut at = 0;
    loop {
        match f.u8(at)? {
            255 => return body.get(at + 2..), // XLR_BLOCK_ID_DATA_SHORT
            254 => return body.get(at + 5..), // XLR_BLOCK_ID_DATA_LONG
            253 => at += 3,                   // XLR_BLOCK_ID_ORIGIN
            252 => at += 5,                   // XLR_BLOCK_ID_TOPLEVEL_XID, 14 and later
            _ => return None,
        }
    }
}

fn xlog(info: u8, body: &[u8]) -> Option<RecordKind> {
    let data = || main_data(body);
    Some(match info {
        XLOG_CHECKPOINT_SHUTDOWN => RecordKind::CheckpointShutdown(Checkpoint::parse(data()?)?),
        XLOG_CHECKPOINT_ONLINE => RecordKind::CheckpointOnline(Checkpoint::parse(data()?)?),
        XLOG_BACKUP_END => RecordKind::BackupEnd { start: Lsn(Fields(data()?).u64(0)?) },
        XLOG_PARAMETER_CHANGE => {
            let f = Fields(data()?);
            RecordKind::ParameterChange(Parameters {
                max_connections: f.i32(0)?,
                max_worker_processes: f.i32(4)?,
                max_wal_senders: f.i32(8)?,
                max_prepared_transactions: f.i32(12)?,
                max_locks_per_transaction: f.i32(16)?,
                wal_level: WalLevel::from_number(f.i32(20)?)?,
                wal_log_hints: f.bool(24)?,
                track_commit_timestamp: f.bool(25)?,
            })
        }
        XLOG_RESTORE_POINT => {
            let data = data()?;
            RecordKind::RestorePoint { time: Fields(data).timestamp(0)?, name: c_string(data.get(8..72)?) }
        }
        XLOG_END_OF_RECOVERY => {
            let f = Fields(data()?);
            RecordKind::EndOfRecovery {
                time: f.timestamp(0)?,
                this_timeline: Timeline(f.u32(8)?),
                previous_timeline: Timeline(f.u32(12)?),
            }
        }
        XLOG_OVERWRITE_CONTRECORD => {
            let f = Fields(data()?);
            RecordKind::OverwriteContrecord { overwritten: Lsn(f.u64(0)?), time: f.timestamp(8)? }
        }
        _ => RecordKind::Other,
    })
}

const HAS_INFO: u8 = 0x80;
const HAS_DBINFO: u32 = 1 << 0;
const HAS_SUBXACTS: u32 = 1 << 1;
const HAS_RELFILELOCATORS: u32 = 1 << 2;
const HAS_INVALS: u32 = 1 << 3;
const HAS_TWOPHASE: u32 = 1 << 4;
const HAS_DROPPED_STATS: u32 = 1 << 8;

fn transaction(version: WalVersion, info: u8, xid: u32, body: &[u8]) -> Option<RecordKind> {
    let data = || main_data(body);
    let time = |data| Fields(data).timestamp(0);
    Some(match info & 0x70 {
        0x00 => RecordKind::Commit { xid, time: time(data()?)? },
        0x20 => RecordKind::Abort { xid, time: time(data()?)? },
        0x10 => {
            let f = Fields(data()?);
            RecordKind::Prepare { xid: f.u32(8)?, time: f.timestamp(16)? }
        }
        0x30 => {
            let data = data()?;
            RecordKind::CommitPrepared { xid: twophase_xid(version, info, data)?, time: time(data)? }
        }
        0x40 => {
            let data = data()?;
            RecordKind::AbortPrepared { xid: twophase_xid(version, info, data)?, time: time(data)? }
        }
        _ => RecordKind::Other,
    })
}

/// The relations that a commit or rollback drops, 12 bytes each: tablespace, database, number.
pub(super) fn dropped_relations(info: u8, data: &[u8]) -> Option<&[u8]> {
    let f = Fields(data);
    let flags = if info & HAS_INFO == 0 { 0 } else { f.u32(8)? };
    if flags & HAS_RELFILELOCATORS == 0 {
        return Some(&[]);
    }
    let mut at = if flags & HAS_DBINFO != 0 { 20 } else { 12 };
    if flags & HAS_SUBXACTS != 0 {
        at = (f.u32(at)? as usize).checked_mul(4)?.checked_add(at + 4)?;
    }
    let count = f.u32(at)? as usize;
    data.get(at + 4..)?.get(..count.checked_mul(12)?)
}

/// Walks over the lists of a commit or abort record to the transaction that was prepared.
fn twophase_xid(version: WalVersion, info: u8, data: &[u8]) -> Option<u32> {
    let f = Fields(data);
    if info & HAS_INFO == 0 {
        return None;
    }
    let flags = f.u32(8)?;
    let mut at = 12_usize;
    if flags & HAS_DBINFO != 0 {
        at += 8;
    }
    // Objects whose statistics are dropped exist since 15; since 18 their numbers have 64 bits.
    let dropped = if version.major() >= 18 { 16 } else { 12 };
    let lists = [(HAS_SUBXACTS, 4), (HAS_RELFILELOCATORS, 12), (HAS_DROPPED_STATS, dropped), (HAS_INVALS, 16)];
    for (flag, size) in lists {
        if flags & flag != 0 {
            let count = usize::try_from(f.u32(at)?).ok()?;
            at = at.checked_add(4)?.checked_add(count.checked_mul(size)?)?;
        }
    }
    if flags & HAS_TWOPHASE == 0 { None } else { f.u32(at) }
}

fn logical_message(body: &[u8]) -> Option<RecordKind> {
    let data = main_data(body)?;
    let f = Fields(data);
    let length = usize::try_from(f.u64(8)?).ok()?;
    let text = data.get(24..)?;
    Some(RecordKind::LogicalMessage { prefix: c_string(&text[..length.min(text.len())]), transactional: f.bool(4)? })
}

/// Text up to its terminating zero; what is no UTF-8 (names are in the server's encoding) is replaced.
fn c_string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn version(major: u16) -> WalVersion {
        let magic = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118][usize::from(major) - 13];
        WalVersion::from_magic(magic).expect("known")
    }

    /// A `COMMIT PREPARED` with every list in it, each two long.
    fn commit_prepared(stats_item: usize) -> Vec<u8> {
        let mut body = vec![253, 1, 0, 252, 9, 0, 0, 0, 254, 0, 0, 0, 0];
        body.extend(86_400_000_000_i64.to_le_bytes());
        body.extend(
            (HAS_DBINFO | HAS_SUBXACTS | HAS_RELFILELOCATORS | HAS_INVALS | HAS_TWOPHASE | HAS_DROPPED_STATS)
                .to_le_bytes(),
        );
        body.extend([1; 8]);
        for size in [4, 12, stats_item, 16] {
            body.extend(2_u32.to_le_bytes());
            body.extend(vec![0xAA; 2 * size]);
        }
        body.extend(4711_u32.to_le_bytes());
        body.extend(b"gid\0");
        body
    }

    #[test]
    fn the_prepared_transaction_is_found_behind_all_lists() {
        for (major, stats_item) in [(15, 12), (17, 12), (18, 16)] {
            let kind = transaction(version(major), 0x30 | HAS_INFO, 0, &commit_prepared(stats_item)).expect("whole");
            let time = DateTime::from_timestamp(946_684_800 + 86_400, 0).expect("valid");
            assert_eq!(kind, RecordKind::CommitPrepared { xid: 4711, time });
        }
        assert_ne!(twophase_xid(version(18), HAS_INFO, &commit_prepared(12)[13..]), Some(4711));
    }

    #[test]
    fn dropped_relations_stand_behind_the_subtransactions() {
        let whole = commit_prepared(12);
        let listed = dropped_relations(HAS_INFO, &whole[13..]).expect("whole");
        assert_eq!(listed, [0xAA; 24]);
        assert_eq!(dropped_relations(0, &whole[13..]), Some(&[][..]));
        assert_eq!(dropped_relations(HAS_INFO, &whole[13..13 + 20 + 4 + 8 + 4 + 23]), None);
    }

    #[test]
    fn cut_off_bodies_are_malformed_not_fatal() {
        let whole = commit_prepared(12);
        for length in 0..whole.len() - 4 {
            assert_eq!(transaction(version(15), 0x30 | HAS_INFO, 0, &whole[..length]), None, "{length}");
        }
        let mut endless = whole.clone();
        endless[33..37].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(transaction(version(15), 0x30 | HAS_INFO, 0, &endless), None);
    }

    #[test]
    fn which_resource_managers_exist_depends_on_the_version() {
        let head = |rmgr| RecordHeader { length: 24, xid: 0, previous: Lsn(0), info: 0, rmgr, crc: 0 };
        assert!(head(21).rmgr_exists(version(13)));
        assert!(!head(22).rmgr_exists(version(18)));
        assert!(head(128).rmgr_exists(version(15)));
        assert!(!head(128).rmgr_exists(version(14)));
    }
}
