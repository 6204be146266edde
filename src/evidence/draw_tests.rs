use proptest::prelude::*;

use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_000_000 + second, 0).expect("a time")
}

fn frame(intervals: &[(i64, i64, u32)]) -> Frame {
    let interval =
        |&(from, to, timeline): &(i64, i64, u32)| Interval { from: at(from), to: at(to), timeline: Timeline(timeline) };
    Frame {
        intervals: intervals.iter().map(interval).collect(),
        timelines: vec![Timeline(1)],
        databases: vec!["retail".into()],
        ledger_entries: 7,
        wal_end: Some(Lsn(0x300_0060)),
    }
}

fn seed(number: u64) -> Seed {
    Seed(Sha256::digest(number.to_be_bytes()).into())
}

#[test]
fn a_known_draw_comes_out_as_another_program_computes_it() {
    // Python: see docs/format.md, "Draws", with these inputs.
    let frame = frame(&[(0, 9, 1), (100, 189, 2)]);
    let drawn = Revealed::draw(&Seed([7; 32]), &frame, 12, &"ab".repeat(32)).expect("drawn");
    assert_eq!((drawn.seconds, drawn.index), (100, EXPECTED_INDEX));
    assert_eq!((drawn.second, drawn.timeline), (at(90 + EXPECTED_INDEX as i64), Timeline(2)));
    assert_eq!(Seed::from_hex(&drawn.seed).expect("hex").sha256(), Seed([7; 32]).sha256());
}

const EXPECTED_INDEX: u64 = 61;

#[test]
fn seconds_are_counted_through_all_stretches() {
    let frame = frame(&[(0, 2, 1), (10, 10, 2), (5, 6, 3)]);
    let all: Vec<_> = (0..frame.seconds()).filter_map(|n| frame.second(n)).map(|(s, t)| (s, t.0)).collect();
    assert_eq!(all, [(at(0), 1), (at(1), 1), (at(2), 1), (at(10), 2), (at(5), 3), (at(6), 3)]);
    assert_eq!(frame.second(6), None);
    assert_eq!(Revealed::draw(&seed(1), &self::frame(&[]), 1, &"00".repeat(32)), None, "nothing to draw from");
}

#[test]
fn only_whole_seconds_inside_the_stretch_count() {
    let sub = |ms: i64| at(0) + TimeDelta::milliseconds(ms);
    let within = |from, to| Interval::within(sub(from), sub(to), Timeline(1)).map(|i| (i.from, i.to, i.seconds()));
    assert_eq!(within(0, 2000), Some((at(0), at(2), 3)));
    assert_eq!(within(1, 2999), Some((at(1), at(2), 2)));
    assert_eq!(within(1, 999), None);
    assert_eq!(within(1000, 1000), Some((at(1), at(1), 1)));
}

#[test]
fn every_second_is_as_likely_as_any_other() {
    // 50 seconds in three stretches, 20 000 draws with fixed seeds: chi-square with 49 degrees of freedom
    // stays below its 99.9 % point for a fair draw, and far from it for one that favours a stretch.
    let frame = frame(&[(0, 9, 1), (20, 49, 1), (100, 109, 2)]);
    let chi_square = |draw: &dyn Fn(u64) -> u64| {
        let mut counts = [0_f64; 50];
        for n in 0..20_000 {
            counts[usize::try_from(draw(n)).expect("small")] += 1.0;
        }
        counts.iter().map(|c| (c - 400.0).powi(2) / 400.0).sum::<f64>()
    };
    let fair = |n: u64| {
        let entry = hex::encode(Sha256::digest(n.to_le_bytes()));
        Revealed::draw(&seed(n), &frame, 1, &entry).expect("drawn").index
    };
    let fair = chi_square(&fair);
    assert!(fair < 85.35, "{fair}");
    // The classic mistake: a byte modulo 50 makes the first six likelier.
    let biased = |n: u64| u64::from(Sha256::digest(n.to_le_bytes())[0]) % 50;
    assert!(chi_square(&biased) > 85.35);
}

#[test]
fn numbers_above_the_last_whole_multiple_are_left_out() {
    // With a bound of three quarters of all numbers, a quarter of the blocks must be thrown away; a plain
    // remainder would give the smallest third twice as often: 1000 of 2000 instead of 667.
    let bound = 3 << 62;
    let small = (0..2000).filter(|n| seed(*n).number(&[1; 32], bound).expect("drawn") < bound / 3).count();
    assert!((580..750).contains(&small), "{small} of 2000 in the smallest third");
    assert_eq!(seed(1).number(&[1; 32], 1), Some(0));
    assert_eq!(seed(1).number(&[1; 32], 0), None);
    assert!(seed(1).number(&[1; 32], u64::MAX).is_some());
}

proptest! {
    #[test]
    fn what_is_drawn_lies_in_the_frame_and_depends_on_seed_and_entry(
        lengths in prop::collection::vec(1_i64..5000, 1..5), number in any::<u64>(), entry in any::<[u8; 32]>()
    ) {
        let mut from = 0;
        let mut intervals = Vec::new();
        for length in lengths {
            intervals.push((from, from + length - 1, 1));
            from += length + 10;
        }
        let frame = frame(&intervals);
        let drawn = Revealed::draw(&seed(number), &frame, 3, &hex::encode(entry)).expect("drawn");
        prop_assert!(drawn.index < frame.seconds());
        prop_assert!(frame.intervals.iter().any(|i| (i.from..=i.to).contains(&drawn.second)));
        let again = Revealed::draw(&Seed::from_hex(&drawn.seed).expect("hex"), &frame, 3, &hex::encode(entry));
        prop_assert_eq!(again, Some(drawn));
    }
}
