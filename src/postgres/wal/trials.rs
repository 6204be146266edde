//! Trials of the reader: any chunking, any damage, any bytes.

use chrono::DateTime;
use proptest::prelude::*;

use super::forge::{Draft, Forge, abort, commit, draft_with, message, overwrite_contrecord, restore_point};
use super::reader::{WalEnd, WalReader};
use super::record::{Record, RecordKind};
use crate::units::{Lsn, Timeline};

const SIZE: u64 = Forge::SEGMENT;
const PAGE: u64 = Forge::PAGE;

fn reader(start: Lsn) -> WalReader {
    WalReader::new(SIZE, start, Some(Forge::SYSTEM)).expect("page start")
}

/// Reads `bytes` in pieces of the lengths given, over and over.
fn read(start: Lsn, bytes: &[u8], chunks: &[usize]) -> (Vec<Record>, WalEnd) {
    let mut reader = reader(start);
    let mut records = Vec::new();
    let mut rest = bytes;
    for length in chunks.iter().cycle() {
        let (now, later) = rest.split_at((*length).min(rest.len()));
        if reader.feed(now, |record| records.push(record)).is_err() {
            break;
        }
        assert_eq!(reader.position().0, start.0 + (bytes.len() - later.len()) as u64);
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    (records, reader.end())
}

fn read_all(start: Lsn, bytes: &[u8]) -> (Vec<Record>, WalEnd) {
    read(start, bytes, &[usize::MAX])
}

fn filler(length: usize) -> Draft {
    Draft { rmgr: 10, info: 0, xid: 5, body: vec![0xC3; length] }
}

#[test]
fn records_say_what_they_are() {
    let start = Lsn(5 * SIZE);
    let mut forge = Forge::new(start);
    let ends = [
        forge.record(&commit(7, 1_500_000)),
        forge.record(&filler(20_000)),
        forge.record(&message(8, "lifeboat", 3)),
        forge.record(&restore_point("here", 0)),
        forge.record(&Draft { rmgr: 200, ..filler(8) }),
        forge.record(&draft_with(0, 0x50, 0, &77_u64.to_le_bytes())),
    ];
    let (records, end) = read_all(start, forge.written());
    assert_eq!(end, WalEnd::NeedMore);
    assert_eq!(records.iter().map(|r| r.end).collect::<Vec<_>>(), ends);
    assert_eq!(records[0].start, Lsn(start.0 + 40));
    assert_eq!(records[1].start, ends[0]);
    let time = DateTime::from_timestamp(946_684_801, 500_000_000).expect("valid");
    assert_eq!(records[0].kind, RecordKind::Commit { xid: 7, time });
    assert_eq!((records[1].kind.clone(), records[1].rmgr, records[1].length), (RecordKind::Other, 10, 20_024));
    assert_eq!(records[2].kind, RecordKind::LogicalMessage { prefix: "lifeboat".into(), transactional: true });
    assert!(matches!(&records[3].kind, RecordKind::RestorePoint { name, .. } if name == "here"));
    assert_eq!((records[4].rmgr, records[4].kind.clone()), (200, RecordKind::Other));
    assert_eq!(records[5].kind, RecordKind::BackupEnd { start: Lsn(77) });
}

#[test]
fn a_record_that_ends_with_the_page_ends_before_the_next_header() {
    let mut forge = Forge::new(Lsn(SIZE));
    forge.fill_to(Lsn(SIZE + PAGE));
    forge.record(&commit(7, 0));
    let (records, _) = read_all(Lsn(SIZE), forge.written());
    assert_eq!(records[0].end, Lsn(SIZE + PAGE));
    assert_eq!(records[1].start, Lsn(SIZE + PAGE + 24));
}

#[test]
fn a_switch_ends_with_the_segment_and_what_lies_behind_it_means_nothing() {
    let mut forge = Forge::new(Lsn(SIZE));
    forge.record(&commit(7, 0));
    forge.switch();
    forge.record(&commit(8, 0));
    let mut bytes = forge.written().to_vec();
    bytes[30_000] = 1;
    let (records, end) = read_all(Lsn(SIZE), &bytes);
    assert_eq!(end, WalEnd::NeedMore);
    assert_eq!(records.iter().map(|r| r.end.0 / SIZE).collect::<Vec<_>>(), [1, 2, 2]);
    assert_eq!((records[1].kind.clone(), records[1].end), (RecordKind::Switch, Lsn(2 * SIZE)));
    assert_eq!(records[2].xid, 8);
}

#[test]
fn a_stream_may_begin_within_a_record() {
    let mut forge = Forge::new(Lsn(SIZE));
    forge.record(&filler(3 * PAGE as usize));
    let end = forge.position();
    forge.record(&commit(7, 0));
    for page in 1..=3 {
        let start = Lsn(SIZE + page * PAGE);
        let (records, _) = read_all(start, &forge.written()[(page * PAGE) as usize..]);
        assert_eq!(records.len(), 1, "page {page}");
        assert_eq!(records[0].start, end);
    }
}

#[test]
fn a_torn_record_is_given_up() {
    let mut forge = Forge::new(Lsn(SIZE));
    forge.record(&commit(7, 0));
    let torn = forge.torn(&filler(20_000));
    forge.record(&commit(8, 0));
    let (records, end) = read_all(Lsn(SIZE), forge.written());
    assert_eq!(end, WalEnd::NeedMore);
    assert_eq!(records.len(), 3);
    assert!(matches!(records[1].kind, RecordKind::OverwriteContrecord { overwritten, .. } if overwritten == torn));
    assert_eq!(records[1].start, Lsn(SIZE + PAGE + 24));

    // The same page without the record that gives the torn one up.
    let mut bytes = forge.written().to_vec();
    bytes[PAGE as usize + 2] &= !8;
    let WalEnd::Corrupt { at, why } = read_all(Lsn(SIZE), &bytes).1 else { panic!("accepted") };
    assert_eq!(at, torn);
    assert!(why.contains("begun before"), "{why}");

    let (records, end) = read_all(Lsn(SIZE + PAGE), &forge.written()[PAGE as usize..]);
    assert_eq!((records.len(), end), (2, WalEnd::NeedMore));
}

#[test]
fn zeros_where_wal_should_go_on_are_its_end() {
    let mut forge = Forge::new(Lsn(SIZE));
    let end = forge.record(&commit(7, 0));
    let mut bytes = forge.clone().finish();
    let (records, found) = read_all(Lsn(SIZE), &bytes);
    assert_eq!((records.len(), found), (1, WalEnd::ZeroTail { at: end }));
    for at in [end.0 - SIZE + 4, end.0 - SIZE + 20, 500_000] {
        bytes[at as usize] = 1;
        let (_, found) = read_all(Lsn(SIZE), &bytes);
        assert!(matches!(found, WalEnd::Corrupt { at, .. } if at == end), "{at}");
        bytes[at as usize] = 0;
    }

    // Zeros from a page on which a record should go on: the record is not there, WAL ends before it.
    forge.record(&filler(20_000));
    let mut bytes = forge.finish();
    bytes[PAGE as usize..].fill(0);
    assert_eq!(read_all(Lsn(SIZE), &bytes).1, WalEnd::ZeroTail { at: end });
}

#[test]
fn pages_of_elsewhere_are_refused() {
    let mut forge = Forge::new(Lsn(SIZE));
    forge.fill_to(Lsn(SIZE + 4 * PAGE));
    let good = forge.written().to_vec();
    let why = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        match read_all(Lsn(SIZE), &bytes).1 {
            WalEnd::Corrupt { why, .. } => why,
            other => panic!("{at}: {other:?}"),
        }
    };
    let page = PAGE as usize;
    assert!(why(page, 0x13).contains("PostgreSQL 16 after 15"));
    assert!(why(page, 0x14).contains("D114"));
    assert!(why(page + 2, 1).contains("never began"));
    assert!(why(page + 9, 9).contains("header says"));
    assert!(why(24, 9).contains("cluster"));
    assert!(why(34, 9).contains("segment size"));
    assert!(why(4, 2).contains("timeline 00000001 after 00000002"));
    assert!(why(2, 0).contains("long header"));

    let mut limited = reader(Lsn(SIZE));
    limited.set_newest_timeline(Timeline(1));
    assert!(limited.feed(&good, |_| {}).is_ok());
}

/// Where and why the bytes written are refused.
fn refused(bytes: &[u8]) -> (Lsn, String) {
    match read_all(Lsn(SIZE), bytes).1 {
        WalEnd::Corrupt { at, why } => (at, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_torn_record_is_given_up_only_by_the_record_that_names_it() {
    let mut forge = Forge::new(Lsn(SIZE));
    forge.record(&commit(7, 0));
    let mut other = forge.clone();
    let torn = forge.torn_with(&filler(20_000), |torn| overwrite_contrecord(torn.0 + 8));
    let (at, why) = refused(forge.written());
    assert_eq!(at, torn);
    assert!(why.contains("gives up a record"), "{why}");
    other.torn_with(&filler(20_000), |_| commit(8, 0));
    let (at, why) = refused(other.written());
    assert_eq!(at, torn);
    assert!(why.contains("no record says so"), "{why}");
}

#[test]
fn a_record_goes_on_with_as_many_bytes_as_it_lacks() {
    let mut forge = Forge::new(Lsn(SIZE));
    forge.record(&filler(20_000));
    let mut bytes = forge.written().to_vec();
    bytes[PAGE as usize + 16] ^= 8;
    let (at, why) = refused(&bytes);
    assert_eq!(at, Lsn(SIZE + 40));
    assert!(why.contains("bytes of the record begun before"), "{why}");
}

#[test]
fn unknown_resource_managers_and_later_timelines_are_refused() {
    let mut forge = Forge::new(Lsn(SIZE));
    forge.record(&Draft { rmgr: 50, ..filler(8) });
    assert!(refused(forge.written()).1.contains("no resource manager 50"));

    let mut forge = Forge::new(Lsn(SIZE));
    let mut end_of_recovery = 0_i64.to_le_bytes().to_vec();
    end_of_recovery.extend([2, 0, 0, 0, 1, 0, 0, 0]);
    forge.record(&draft_with(0, 0x90, 0, &end_of_recovery));
    assert_eq!(read_all(Lsn(SIZE), forge.written()).0[0].kind.timeline(), Some(Timeline(2)));
    let mut limited = reader(Lsn(SIZE));
    limited.set_newest_timeline(Timeline(1));
    let error = limited.feed(forge.written(), |_| {}).expect_err("later");
    assert!(error.message().contains("record of timeline 00000002"), "{error}");
}

#[test]
fn the_same_bytes_twice_do_not_link() {
    let mut forge = Forge::new(Lsn(SIZE));
    let first = forge.record(&commit(7, 0));
    let second = forge.record(&commit(8, 0));
    let mut bytes = forge.written().to_vec();
    let (from, to) = ((first.0 - SIZE) as usize, (second.0 - SIZE) as usize);
    let copy = bytes[from - (to - from)..from].to_vec();
    bytes[from..to].copy_from_slice(&copy);
    let WalEnd::Corrupt { at, why } = read_all(Lsn(SIZE), &bytes).1 else { panic!("accepted") };
    assert_eq!(at, first);
    assert!(why.contains("links back"), "{why}");
}

#[test]
fn after_damage_the_reader_says_so_for_ever() {
    let mut reader = reader(Lsn(SIZE));
    let mut forge = Forge::new(Lsn(SIZE));
    forge.record(&commit(7, 0));
    let mut bytes = forge.finish();
    bytes[60] ^= 1;
    assert!(reader.feed(&bytes[..100], |_| {}).is_err());
    let end = reader.end();
    assert!(matches!(end, WalEnd::Corrupt { at, .. } if at == Lsn(SIZE + 40)));
    for length in [0, 1, 8192, 30_000] {
        assert!(reader.feed(&bytes[..length], |_| {}).is_err());
        assert_eq!(reader.end(), end);
    }
    assert!(WalReader::new(SIZE, Lsn(SIZE + 8), None).is_err());
    assert!(WalReader::new(SIZE + 1, Lsn(0), None).is_err());
}

#[test]
fn a_huge_transaction_record_is_understood_and_a_huge_other_one_not_kept() {
    let mut data = 0_i64.to_le_bytes().to_vec();
    data.extend((1_u32 << 1 | 1 << 4).to_le_bytes());
    data.extend(500_000_u32.to_le_bytes());
    data.resize(data.len() + 2_000_000, 1);
    data.extend(4711_u32.to_le_bytes());
    let mut forge = Forge::new(Lsn(SIZE));
    forge.record(&draft_with(1, 0xB0, 0, &data));
    forge.record(&message(9, "p", 3_000_000));
    let (records, _) = read(Lsn(SIZE), forge.written(), &[100_000]);
    assert!(matches!(records[0].kind, RecordKind::CommitPrepared { xid: 4711, .. }));
    assert!(matches!(&records[1].kind, RecordKind::LogicalMessage { prefix, .. } if prefix == "p"));
    assert_eq!(records[1].length, 3_000_000 + 24 + 5 + 26);
}

/// Bytes that a failing trial does not print.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A stretch of WAL with records of all sizes over a segment border, and its start.
fn stretch() -> impl Strategy<Value = (Lsn, Bytes)> {
    let draft = prop_oneof![
        3 => (0_usize..200).prop_map(filler),
        1 => (0_usize..30_000).prop_map(filler),
        2 => (1_u32..100, 0_i64..1 << 50).prop_map(|(xid, at)| commit(xid, at)),
        1 => (1_u32..100, 0_i64..1 << 50).prop_map(|(xid, at)| abort(xid, at)),
        1 => (0_usize..20_000).prop_map(|length| message(3, "prefix", length)),
    ];
    (1_u64..4, prop::collection::vec((draft, prop::bool::weighted(0.1)), 1..40)).prop_map(|(pages, drafts)| {
        let start = Lsn(2 * SIZE - pages * PAGE);
        let mut forge = Forge::new(start);
        for (draft, torn) in drafts {
            if torn && draft.body.len() > PAGE as usize {
                forge.torn(&draft);
            } else {
                forge.record(&draft);
            }
        }
        (start, Bytes(forge.written().to_vec()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunking_gives_the_same_records(
        (start, Bytes(bytes)) in stretch(),
        chunks in prop::collection::vec(1_usize..9000, 1..20),
    ) {
        let whole = read_all(start, &bytes);
        prop_assert_eq!(&whole.1, &WalEnd::NeedMore);
        prop_assert_eq!(&read(start, &bytes, &chunks), &whole);
        prop_assert_eq!(&read(start, &bytes, &[1]), &whole);
    }

    #[test]
    fn a_flipped_bit_in_a_record_is_found(
        (start, Bytes(bytes)) in stretch(),
        place in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        chunks in prop::collection::vec(1_usize..9000, 1..5),
    ) {
        let (records, _) = read_all(start, &bytes);
        let record = &records[place.index(records.len())];
        let inside = place.index(record.length as usize);
        // Step over the page headers within the record.
        let mut at = record.start.0;
        for _ in 0..inside {
            at += 1;
            if at.is_multiple_of(PAGE) {
                at += if at.is_multiple_of(SIZE) { 40 } else { 24 };
            }
        }
        let mut damaged = bytes.clone();
        damaged[(at - start.0) as usize] ^= 1 << bit;
        // One more record, for a length that now reaches beyond the end.
        damaged.resize(damaged.len() + 8, 0);
        let (found, end) = read(start, &damaged, &chunks);
        let before = records.iter().take_while(|r| r.start < record.start).count();
        prop_assert_eq!(&found[..], &records[..before], "{:?}", end);
        if let WalEnd::Corrupt { at, .. } = end {
            // A torn record just before is given up by this one, and not without it.
            let sound = found.last().map_or(start, |r| r.end);
            prop_assert!(sound <= at && at <= record.start, "{at}");
        }
    }

    #[test]
    fn cut_off_input_only_needs_more((start, Bytes(bytes)) in stretch(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(bytes.len());
        let (whole, _) = read_all(start, &bytes);
        let (records, end) = read_all(start, &bytes[..cut]);
        prop_assert_eq!(end, WalEnd::NeedMore);
        prop_assert_eq!(&records[..], &whole[..records.len()]);
        let cut_off = |r: &Record| r.end.0 > start.0 + cut as u64;
        prop_assert!(whole[records.len()..].iter().all(cut_off));
    }

    #[test]
    fn no_bytes_make_it_panic(
        (start, Bytes(mut bytes)) in stretch(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        noise in prop::collection::vec(any::<u8>(), 0..20_000),
        chunk in 1_usize..9000,
    ) {
        for (place, value) in damage {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        read(start, &bytes, &[chunk]);
        read(start, &noise, &[chunk]);
        // Noise behind a header that is believed.
        let mut forge = Forge::new(start).written().to_vec();
        forge.extend(noise);
        read(start, &forge, &[chunk]);
    }
}
