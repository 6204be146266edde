use std::collections::BTreeMap;

use chrono::Duration;

use super::*;
use crate::evidence::entry::{RestorePoint, WalNeeded};
use crate::repository::coverage::TimelineWal;

const SIZE: u64 = 16 << 20;

fn at(minute: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::minutes(minute)
}

fn base(id: &str, timeline: u32, start: u64, stop: u64, minute: i64) -> BaseBackup {
    let timeline = Timeline(timeline);
    let name = |lsn: u64| segment_name(timeline, Lsn(lsn).segment(SIZE), SIZE);
    BaseBackup {
        id: id.into(),
        label: String::new(),
        system_id: "1".into(),
        timeline,
        start_lsn: Lsn(start),
        stop_lsn: Lsn(stop),
        start_time: at(minute) - Duration::minutes(1),
        stop_time: at(minute),
        server_version: "15.0".into(),
        wal_segment_size: SIZE,
        data_checksums: true,
        tablespaces: 0,
        databases: vec!["shop".into()],
        files: 1,
        logical_bytes: 1,
        stored_bytes: 1,
        new_packs: 1,
        manifest: String::new(),
        reader: "streamed".into(),
        bytes_read: 0,
        previous: None,
        damaged: Vec::new(),
        wal: WalNeeded { first: name(start), last: name(stop - 1) },
        baseline: None,
        seconds: 1.0,
    }
}

type Files<'a> = (u32, &'a [u64], &'a [(u64, u64)], &'a [(u32, u64)]);

fn wal(timelines: &[Files<'_>]) -> Coverage {
    let timelines: BTreeMap<_, _> = timelines
        .iter()
        .map(|(timeline, segments, live, ancestors)| {
            let wal = TimelineWal {
                segments: segments.iter().copied().collect(),
                live: live.iter().copied().collect(),
                ancestors: ancestors.iter().map(|(t, l)| (Timeline(*t), Lsn(*l))).collect(),
                ..TimelineWal::default()
            };
            (Timeline(*timeline), wal)
        })
        .collect();
    Coverage { segment_size: SIZE, timelines }
}

fn capture(database: &str, minute: i64, complete: bool) -> FilestoreCapture {
    FilestoreCapture {
        id: String::new(),
        data_dir: "/var/lib/odoo".into(),
        database: database.into(),
        database_uuid: None,
        restore_point: RestorePoint { name: "x".into(), lsn: Lsn(1), time: at(minute) },
        scan_started: at(minute),
        scan_finished: at(minute),
        files_present: 0,
        files_new: 0,
        bytes_new: 0,
        files_disappeared: 0,
        suspects: Vec::new(),
        referenced: 0,
        missing_at_source: Vec::new(),
        index: String::new(),
        complete,
        not_covered: Vec::new(),
        collection: None,
    }
}

fn export(minute: i64) -> ConfigurationExport {
    ConfigurationExport {
        id: String::new(),
        taken_at: at(minute),
        files: 0,
        bytes: 0,
        manifest: String::new(),
        digest: String::new(),
        masked: None,
        changed: Vec::new(),
        unreadable: Vec::new(),
    }
}

#[test]
fn bases_before_and_behind_a_gap_have_windows_of_their_own() {
    let bases = [
        base("a", 1, 2 * SIZE, 2 * SIZE + 100, 0),
        base("b", 1, 3 * SIZE, 3 * SIZE + 100, 10),
        base("c", 1, 7 * SIZE, 7 * SIZE + 100, 30),
    ];
    let wal = wal(&[(1, &[2, 3, 4, 7], &[(8, 500)], &[])]);
    let reaches = reaches(&bases, Some(&wal));
    assert!(reaches.iter().all(|r| r.broken.is_none()), "{reaches:?}");
    let commits = |base: &BaseReach| Some(if base.id == "c" { at(40) } else { at(19) });
    let windows = windows(&reaches, commits);
    assert_eq!(windows.len(), 2);
    let (old, new) = (&windows[0], &windows[1]);
    assert_eq!((old.from.time, old.to.time, old.to.lsn), (at(0), at(19), Lsn(5 * SIZE)));
    assert_eq!(old.bases, ["a", "b"]);
    let gap = old.ended_by.as_ref().expect("a gap ends it");
    assert_eq!((gap.first.as_str(), gap.segments), ("000000010000000000000005", 2));
    assert_eq!((new.from.time, new.to.time, new.to.lsn), (at(30), at(40), Lsn(8 * SIZE + 500)));
    assert_eq!(new.ended_by, None);

    for (minute, inside) in [(-1, false), (0, true), (19, true), (20, false), (29, false), (40, true), (41, false)] {
        assert_eq!(holding(&windows, at(minute)).is_some(), inside, "minute {minute}");
    }
    let around = |minute| {
        let n = nearest(&windows, at(minute));
        (n.before.map(|p| p.time), n.after.map(|p| p.time))
    };
    assert_eq!(around(-5), (None, Some(at(0))));
    assert_eq!(around(25), (Some(at(19)), Some(at(30))));
    assert_eq!(around(99), (Some(at(40)), None));
    let n = nearest_lsn(&windows, Lsn(6 * SIZE));
    assert_eq!((n.before.map(|p| p.lsn), n.after.map(|p| p.lsn)), (Some(Lsn(5 * SIZE)), Some(Lsn(7 * SIZE + 100))));
    assert!(holding_lsn(&windows, Lsn(6 * SIZE)).is_none() && holding_lsn(&windows, Lsn(5 * SIZE)).is_some());
}

#[test]
fn a_base_without_its_own_wal_cannot_be_restored_and_says_what_is_missing() {
    let wal = wal(&[(1, &[2, 3, 6], &[(7, 50)], &[])]);
    for (start, stop, words) in [
        (SIZE, 2 * SIZE, "000000010000000000000001 is missing"),
        (3 * SIZE, 6 * SIZE + 8, "000000010000000000000004 is missing"),
        (6 * SIZE, 7 * SIZE + 51, "ends at 0/7000032"),
    ] {
        let reach = &reaches(&[base("x", 1, start, stop, 0)], Some(&wal))[0];
        let why = reach.broken.as_deref().expect("broken");
        assert!(why.contains(words), "{why}");
        assert!(windows(std::slice::from_ref(reach), |_| Some(at(9))).is_empty());
    }
    let enough = &reaches(&[base("x", 1, 6 * SIZE, 7 * SIZE + 50, 0)], Some(&wal))[0];
    assert_eq!(enough.broken, None, "a live piece that ends at its stop is enough");
    assert!(reaches(&[base("x", 1, SIZE, SIZE + 9, 0)], None)[0].broken.is_some());
}

#[test]
fn a_base_is_followed_to_the_newest_timeline_that_it_lies_on() {
    let switch = 4 * SIZE + 1000;
    // The old primary wrote on after the switch: that is not part of the new line.
    let wal = wal(&[(1, &[2, 3, 4, 5], &[], &[]), (2, &[4], &[(5, 700)], &[(1, switch)])]);
    let before = base("before", 1, 2 * SIZE, 2 * SIZE + 9, 0);
    let aside = base("aside", 1, 4 * SIZE, 5 * SIZE - 9, 5);
    let after = base("after", 2, 4 * SIZE + 2000, 4 * SIZE + 3000, 9);
    let reaches = reaches([&before, &aside, &after], Some(&wal));
    let lines: Vec<u32> = reaches.iter().map(|r| r.line.0).collect();
    assert_eq!(lines, [2, 1, 2]);
    let windows = windows(&reaches, |_| None);
    assert_eq!(windows.len(), 2);
    assert_eq!(
        (windows[0].bases.as_slice(), windows[0].to.lsn),
        (["before", "after"].map(String::from).as_slice(), Lsn(5 * SIZE + 700))
    );
    assert_eq!((windows[1].bases.as_slice(), windows[1].to.lsn), (["aside".to_owned()].as_slice(), Lsn(6 * SIZE)));
    assert_eq!(holding(&windows, at(7)).expect("inside").line, Timeline(2));
}

#[test]
fn a_line_ends_where_it_left_the_old_timeline_when_the_new_one_has_no_wal() {
    let switch = 4 * SIZE + 1000;
    let wal = wal(&[(1, &[2, 3, 4, 5], &[], &[]), (2, &[], &[], &[(1, switch)])]);
    let reach = &reaches(&[base("a", 1, 2 * SIZE, 2 * SIZE + 9, 0)], Some(&wal))[0];
    assert_eq!(reach.end, Some((Lsn(switch), Timeline(1))));
}

#[test]
fn the_end_of_a_window_is_its_newest_commit_or_the_stop_of_its_newest_base() {
    let bases = [base("a", 1, 2 * SIZE, 2 * SIZE + 9, 0), base("b", 1, 3 * SIZE, 3 * SIZE + 9, 10)];
    let wal = wal(&[(1, &[2, 3], &[], &[])]);
    let reaches = reaches(&bases, Some(&wal));
    assert_eq!(windows(&reaches, |_| None)[0].to.time, at(10));
    assert_eq!(windows(&reaches, |_| Some(at(3)))[0].to.time, at(10));
    let later = &windows(&reaches, |_| Some(at(12)))[0];
    assert_eq!((later.to.time, later.last_commit), (at(12), Some(at(12))));
}

#[test]
fn the_watermark_is_the_oldest_of_its_parts_and_names_it() {
    let bases = [base("a", 1, 2 * SIZE, 2 * SIZE + 9, 0)];
    let wal = wal(&[(1, &[2], &[], &[])]);
    let windows = windows(&reaches(&bases, Some(&wal)), |_| Some(at(60)));
    let limits = |w: &Watermark| -> Vec<Part> { w.components.iter().filter(|c| c.limits).map(|c| c.part).collect() };

    let captures = [capture("shop", 30, true), capture("shop", 50, true), capture("shop", 55, false)];
    let mark = watermark(&windows, &captures, &[], bases.last(), Some(&export(58)), true);
    assert_eq!((mark.time, limits(&mark)), (Some(at(50)), vec![Part::Filestore]));
    let mark = watermark(&windows, &captures[..2], &[], bases.last(), Some(&export(40)), true);
    assert_eq!((mark.time, limits(&mark)), (Some(at(40)), vec![Part::Configuration]));
    let mark = watermark(&windows, [&capture("shop", 90, true)], &[], bases.last(), Some(&export(80)), true);
    assert_eq!((mark.time, limits(&mark)), (Some(at(60)), vec![Part::Database]));
    let mark = watermark(&windows, &[], &[], bases.last(), Some(&export(80)), true);
    assert_eq!((mark.time, limits(&mark)), (None, vec![Part::Filestore]));
    let mark = watermark(&windows, &[], &[], bases.last(), Some(&export(80)), false);
    assert_eq!(mark.time, Some(at(60)), "a cluster without Odoo has no filestore to wait for");
    let dropped = capture("old", -30, true);
    let mark = watermark(&windows, [&dropped, &captures[1]], &[], bases.last(), Some(&export(80)), true);
    assert_eq!(mark.time, Some(at(50)), "a database that was dropped holds nothing back");
    let only = capture("other", -30, false);
    let none = watermark(&windows, [&only], &[], None, None, true);
    assert_eq!((none.time, limits(&none)), (None, vec![Part::Filestore, Part::Configuration]));
}
