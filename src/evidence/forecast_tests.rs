use super::*;
use crate::evidence::examples;

const MIB: u64 = 1 << 20;

/// A drill on a machine that needs 2 s for a start, 10 ms for each MiB of base backup, 3 s and 25 ms for each
/// MiB of WAL, 5 ms for each MiB of attachments and 4 s for the rest; `noise` is a share, up and down in turn.
fn drill(number: u64, noise: f64) -> Measured {
    let mib = [1000 + 350 * (number % 4), 20 + 130 * (number % 7), 200 + 90 * (number % 3)];
    let off = 1.0 + noise * [1.0, -1.0, 0.6, -0.4, -0.8, 0.7][number as usize % 6];
    let seconds = [
        (2.0 + mib[0] as f64 * 0.01) * off,
        (3.0 + mib[1] as f64 * 0.025) * off,
        mib[2] as f64 * 0.005 * off,
        4.0 * off,
    ];
    Measured { bytes: mib.map(|m| m * MIB), seconds }
}

fn drills(count: u64, noise: f64) -> Vec<Measured> {
    (0..count).map(|n| drill(n, noise)).collect()
}

fn worst(wal_mib: u64) -> Worst {
    Worst {
        base: "20261122T010000Z".into(),
        base_bytes: 2000 * MIB,
        wal_bytes: wal_mib * MIB,
        attachment_bytes: 400 * MIB,
        still_growing: false,
    }
}

fn predicted(drills: &[Measured]) -> Forecast {
    forecast(drills, worst(4000), 1200.0, 3600.0).expect("a forecast")
}

#[test]
fn known_coefficients_come_back_from_exact_drills() {
    let f = predicted(&drills(12, 0.0));
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.max(1.0);
    let per_mib = |rate: Rate| rate.seconds_per_byte * MIB as f64;
    assert!(close(f.base.fixed_seconds, 2.0) && close(per_mib(f.base), 0.01), "{f:?}");
    assert!(close(f.replay.fixed_seconds, 3.0) && close(per_mib(f.replay), 0.025), "{f:?}");
    assert!(f.attachments.fixed_seconds < 1e-6 && close(per_mib(f.attachments), 0.005), "{f:?}");
    assert!(close(f.rest_seconds, 4.0));
    assert!(close(f.predicted_seconds, 2.0 + 20.0 + 3.0 + 100.0 + 2.0 + 4.0), "{f:?}");
    assert!(f.error.is_some_and(|e| e.largest_seconds < 1e-6));
    assert!(f.met && f.assumed_seconds > 0.0);
}

#[test]
fn the_error_grows_with_noise() {
    let error = |noise| predicted(&drills(18, noise)).error.expect("enough drills").mean_seconds;
    let (quiet, loud, louder) = (error(0.02), error(0.1), error(0.3));
    assert!(quiet > 0.0 && loud > 2.0 * quiet && louder > 2.0 * loud, "{quiet} {loud} {louder}");
}

#[test]
fn the_error_is_that_of_drills_that_the_fit_did_not_see() {
    let drill = |seconds| Measured { bytes: [1000 * MIB, 0, 0], seconds: [seconds, 0.0, 0.0, 0.0] };
    // The slow one is predicted from the others alone: it pulls no fit towards itself.
    let error = predicted(&[10.0, 10.0, 10.0, 50.0].map(drill)).error.expect("enough drills");
    assert!((error.largest_seconds - 40.0).abs() < 1e-9, "{error:?}");
    assert!((error.mean_seconds - (40.0 + 3.0 * 40.0 / 3.0) / 4.0).abs() < 1e-9, "{error:?}");
}

#[test]
fn no_figure_is_below_zero_whatever_was_measured() {
    // The larger, the faster: no machine is like that, and the fit must not promise negative times.
    let odd: Vec<Measured> = (1..=5)
        .map(|n| Measured {
            bytes: [n * 1000 * MIB, n * 100 * MIB, 0],
            seconds: [60.0 - 10.0 * n as f64, 1.0, 0.0, 0.0],
        })
        .collect();
    let f = predicted(&odd);
    assert_eq!(f.base.seconds_per_byte, 0.0);
    assert_eq!(f.base.fixed_seconds, 30.0);
    // Through the origin where the fixed part would be negative.
    let steep: Vec<Measured> = (1..=4)
        .map(|n| Measured { bytes: [n * n * MIB, 0, 0], seconds: [(n * n * n) as f64, 0.0, 0.0, 0.0] })
        .collect();
    let f = predicted(&steep);
    assert!(f.base.fixed_seconds == 0.0 && f.base.seconds_per_byte > 0.0, "{:?}", f.base);
}

#[test]
fn few_drills_give_a_plain_rate_and_no_error() {
    let f = predicted(&drills(2, 0.0));
    assert_eq!((f.drills, f.error), (2, None));
    assert_eq!(f.base.fixed_seconds, 0.0);
    assert!(f.sentence.contains("too few to say how far to trust it"), "{}", f.sentence);
    assert_eq!(forecast(&[], worst(1), 0.0, 60.0), None);
    // Three of the same size tell no fixed part either; twice the base is then twice the time.
    let same = [drill(0, 0.0); 3];
    assert_eq!(predicted(&same).replay.fixed_seconds, 0.0);
}

#[test]
fn the_sentence_says_how_much_it_rests_on() {
    let f = predicted(&drills(7, 0.05));
    for said in [
        "just before the next base backup: 3.9 GiB of WAL",
        "with 20 min assumed for people on top, within the objective of 1 h",
        "fitted from 7 drills, each of which it misses by",
        "no drill replayed more than 800.0 MiB of WAL",
        "29 are needed before that bounds 9 of 10 restores",
    ] {
        assert!(f.sentence.contains(said), "{said} in {}", f.sentence);
    }
    let f = forecast(&drills(30, 0.05), worst(700), 0.0, 10.0).expect("a forecast");
    assert!(!f.met && f.sentence.contains("beyond the objective of 10 s"), "{}", f.sentence);
    assert!(f.sentence.contains("with 95 % confidence 9 of 10 restores"), "{}", f.sentence);
}

#[test]
fn a_record_is_taken_apart_and_assumed_phases_do_not_count() {
    let record = examples::passed();
    let measured = Measured::of(&record).expect("measured");
    let rounded = measured.seconds.map(|s| (s * 10.0).round() / 10.0);
    assert_eq!(rounded, [27.6, 9.1, 6.8, 3.8]);
    assert!((measured.total() - 47.3).abs() < 1e-9, "what is not named is in the rest");
    assert_eq!(Measured::of(&examples::crashed()), None);
}
