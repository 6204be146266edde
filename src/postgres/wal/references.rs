//! What a record changes of relations: the blocks that it refers to, and the kinds of record that
//! change whole relations without naming blocks.
//!
//! Follows `DecodeXLogRecord` (`xlogreader.c`) and `walsummarizer.c` of PostgreSQL 17; the records that
//! the latter looks at are the ones flagged `XLR_SPECIAL_REL_UPDATE`. Not among them, and without
//! meaning here: relation maps (`RM_RELMAP`) and the other files that backups store whole.

use super::blocks::{BlockMap, Fork, RelationFork};
use super::bytes::Fields;
use super::decode::{HEADER, RM_XACT, RM_XLOG, RecordHeader, XLOG_PARAMETER_CHANGE, dropped_relations, main_data};
use super::header::WalVersion;

/// Resource manager of files of relations.
pub(super) const RM_SMGR: u8 = 2;
/// Resource manager of databases.
pub(super) const RM_DBASE: u8 = 4;

/// No record's references reach further: 33 blocks of 27 bytes each, and what stands beside them.
pub(super) const REFERENCES: usize = 1024;

const XLOG_SMGR_CREATE: u8 = 0x10;
const XLOG_SMGR_TRUNCATE: u8 = 0x20;
const SMGR_TRUNCATE_HEAP: i32 = 0x0001;
/// `XLogRecordMaxBlockId`: larger numbers mean other things than blocks.
const MAX_BLOCK_ID: u8 = 32;

/// Adds to `map` what a record changes; what cannot be understood makes the map doubtful.
pub(super) fn collect(version: WalVersion, head: &RecordHeader, body: &[u8], map: &mut BlockMap) {
    let special = match (head.rmgr, head.info & 0xF0) {
        (RM_SMGR, info) => storage(info, body, map),
        (RM_DBASE, info) => databases(version, info, body, map),
        (RM_XACT, info) => transaction(info, head.info, body, map),
        (RM_XLOG, XLOG_PARAMETER_CHANGE) => parameters(body, map),
        _ => Some(()),
    };
    if special.and_then(|()| references(version, head, body, map)).is_none() {
        map.distrust(format!("a record (resource manager {}, info {:02X}) was not understood", head.rmgr, head.info));
    }
}

/// Where the three numbers of a relation stand.
fn relation(f: Fields<'_>, at: usize, fork: Fork) -> Option<RelationFork> {
    Some(RelationFork { tablespace: f.u32(at)?, database: f.u32(at + 4)?, relation: f.u32(at + 8)?, fork })
}

/// The headers of blocks end where what is left of the record is their data and the main data.
fn references(version: WalVersion, head: &RecordHeader, body: &[u8], map: &mut BlockMap) -> Option<()> {
    let f = Fields(body);
    let whole = head.length as usize - HEADER;
    let (mut at, mut data) = (0, 0_usize);
    let mut last: Option<RelationFork> = None;
    while whole.checked_sub(at)? > data {
        match f.u8(at)? {
            255 => {
                data += usize::from(f.u8(at + 1)?);
                at += 2;
            }
            254 => {
                data = data.checked_add(f.u32(at + 1)? as usize)?;
                at += 5;
            }
            253 => at += 3,
            252 => at += 5,
            0..=MAX_BLOCK_ID => {
                let flags = f.u8(at + 1)?;
                data += usize::from(f.u16(at + 2)?);
                at += 4;
                if flags & HAS_IMAGE != 0 {
                    data += usize::from(f.u16(at)?);
                    let image = f.u8(at + 4)?;
                    at += 5;
                    if image & IMAGE_HAS_HOLE != 0 && image & compressed(version) != 0 {
                        at += 2;
                    }
                }
                let fork = Fork::from_number(flags & FORK_MASK)?;
                let block_of = if flags & SAME_RELATION != 0 {
                    RelationFork { fork, ..last? }
                } else {
                    at += 12;
                    relation(f, at - 12, fork)?
                };
                last = Some(block_of);
                map.mark(block_of, f.u32(at)?);
                at += 4;
            }
            _ => return None,
        }
    }
    (whole - at == data).then_some(())
}

const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const SAME_RELATION: u8 = 0x80;
const IMAGE_HAS_HOLE: u8 = 0x01;

/// Which flags of a page image say that it is compressed: since 15 there is one for each method.
fn compressed(version: WalVersion) -> u8 {
    if version.major() >= 15 { 0x04 | 0x08 | 0x10 } else { 0x02 }
}

fn storage(info: u8, body: &[u8], map: &mut BlockMap) -> Option<()> {
    let f = Fields(main_data(body)?);
    match info {
        XLOG_SMGR_CREATE => map.cut(relation(f, 0, Fork::from_number(u8::try_from(f.u32(12)?).ok()?)?)?, 0),
        XLOG_SMGR_TRUNCATE if f.i32(16)? & SMGR_TRUNCATE_HEAP != 0 => map.cut(relation(f, 4, Fork::Main)?, f.u32(0)?),
        _ => {}
    }
    Some(())
}

fn databases(version: WalVersion, info: u8, body: &[u8], map: &mut BlockMap) -> Option<()> {
    let f = Fields(main_data(body)?);
    // Since 15 there are two ways to create a database.
    let drop = if version.major() >= 15 { 0x20 } else { 0x10 };
    if info < drop {
        map.replace_database(f.u32(4)?, f.u32(0)?);
    } else if info == drop {
        for number in 0..f.u32(4)? as usize {
            map.replace_database(f.u32(8 + 4 * number)?, f.u32(0)?);
        }
    }
    Some(())
}

/// Commits and rollbacks, prepared or not, end the relations that they list.
fn transaction(kind: u8, info: u8, body: &[u8], map: &mut BlockMap) -> Option<()> {
    if !matches!(kind & 0x70, 0x00 | 0x20 | 0x30 | 0x40) {
        return Some(());
    }
    for listed in dropped_relations(info, main_data(body)?)?.chunks_exact(12) {
        for fork in [Fork::Main, Fork::Init] {
            map.cut(relation(Fields(listed), 0, fork)?, 0);
        }
    }
    Some(())
}

/// With `wal_level = minimal` relations change without any WAL.
fn parameters(body: &[u8], map: &mut BlockMap) -> Option<()> {
    if Fields(main_data(body)?).i32(20)? == 0 {
        map.distrust("the server ran with wal_level = minimal");
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Lsn;

    fn version(major: u16) -> WalVersion {
        let magic = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118][usize::from(major) - 13];
        WalVersion::from_magic(magic).expect("known")
    }

    fn collected(major: u16, rmgr: u8, info: u8, body: &[u8]) -> BlockMap {
        let length = u32::try_from(HEADER + body.len()).expect("small");
        let head = RecordHeader { length, xid: 0, previous: Lsn(0), info, rmgr, crc: 0 };
        let mut map = BlockMap::default();
        collect(version(major), &head, body, &mut map);
        map
    }

    fn numbers(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    fn main(data: &[u8]) -> Vec<u8> {
        [&[255, u8::try_from(data.len()).expect("short")], data].concat()
    }

    fn fork(relation: u32) -> RelationFork {
        RelationFork { tablespace: 1663, database: 5, relation, fork: Fork::Main }
    }

    /// Two blocks: one with a compressed image that has a hole, one of the same relation with data.
    fn two_blocks(image: u8, hole: bool) -> Vec<u8> {
        let mut body = vec![0, HAS_IMAGE, 0, 0, 3, 0, 0, 1, image];
        if hole {
            body.extend([9, 9]);
        }
        body.extend(numbers(&[1663, 5, 77, 131_073]));
        body.extend([1, SAME_RELATION | 0x20, 2, 0, 8, 0, 0, 0, 255, 1]);
        body.extend([0xAA; 3 + 2 + 1]);
        body
    }

    #[test]
    fn images_are_laid_out_as_the_version_has_them() {
        for (major, image, hole) in [
            (13, 0x03, true),
            (14, 0x03, true),
            (14, 0x05, false),
            (15, 0x03, false),
            (15, 0x05, true),
            (18, 0x11, true),
            (18, 0x10, false),
        ] {
            let map = collected(major, 10, 0, &two_blocks(image, hole));
            assert_eq!(map.doubt(), None, "{major} {image}");
            let touched = map.fork(&fork(77)).expect("touched");
            assert_eq!(touched.blocks().iter().collect::<Vec<_>>(), [8, 131_073], "{major} {image}");
        }
    }

    #[test]
    fn what_is_not_understood_is_doubted() {
        let whole = two_blocks(0x05, true);
        // 30 and 40 bytes are whole records: one block, two blocks, without main data.
        for length in (1..whole.len()).filter(|length| ![30, 40].contains(length)) {
            assert!(collected(15, 10, 0, &whole[..length]).doubt().is_some(), "{length}");
        }
        assert!(collected(15, 10, 0, &[100, 0, 0, 0]).doubt().is_some());
        assert!(collected(15, RM_SMGR, XLOG_SMGR_TRUNCATE, &main(&[0; 16])).doubt().is_some());
    }

    #[test]
    fn storage_records_cut_relations() {
        let create = numbers(&[1663, 5, 77, 0]);
        assert_eq!(collected(13, RM_SMGR, 0x10, &main(&create)).fork(&fork(77)).and_then(|f| f.limit()), Some(0));
        for (flags, limit) in [(7, Some(12)), (6, None)] {
            let truncate = numbers(&[12, 1663, 5, 77, flags]);
            let map = collected(18, RM_SMGR, 0x20, &main(&truncate));
            assert_eq!(map.fork(&fork(77)).and_then(|f| f.limit()), limit);
        }
    }

    #[test]
    fn databases_come_and_go_whole() {
        let (create, drop) = (numbers(&[5, 1663, 1, 1663]), numbers(&[5, 2, 1663, 1700]));
        for (major, info, body, expected) in [
            (14, 0x00, &create, vec![(1663, 5)]),
            (14, 0x10, &drop, vec![(1663, 5), (1700, 5)]),
            (15, 0x00, &create, vec![(1663, 5)]),
            (15, 0x10, &create, vec![(1663, 5)]),
            (15, 0x20, &drop, vec![(1663, 5), (1700, 5)]),
        ] {
            let map = collected(major, RM_DBASE, info, &main(body));
            assert_eq!((map.databases().collect::<Vec<_>>(), map.doubt()), (expected, None), "{major} {info}");
        }
    }

    #[test]
    fn minimal_wal_is_no_map() {
        let with = |level: u32| collected(15, RM_XLOG, 0x60, &main(&numbers(&[1, 1, 1, 1, 1, level, 0])));
        assert!(with(0).doubt().is_some_and(|why| why.contains("minimal")));
        assert_eq!(with(1).doubt(), None);
    }
}
