use super::*;
use crate::evidence::examples::{self, at};
use crate::evidence::testing::entry;

const HOUR: f64 = 3600.0;

/// A base backup that is consistent at an hour; WAL moves on by 0x1000 in an hour.
fn base(id: &str, hour: u64) -> Body {
    let Some(Body::BaseBackup(mut base)) = examples::backups().into_iter().next() else { panic!("a base backup") };
    base.id = id.into();
    (base.start_lsn, base.stop_lsn) = (Lsn(hour * 0x1000 - 0x100), Lsn(hour * 0x1000));
    (base.start_time, base.stop_time) = (at(hour as f64 * HOUR - 60.0), at(hour as f64 * HOUR));
    Body::BaseBackup(base)
}

/// A drill from a base backup to an hour, and how it ended.
fn drill(id: &str, from: &str, hour: f64, verdict: Verdict) -> Body {
    let mut record = examples::passed();
    record.id = id.into();
    record.sources.as_mut().expect("sources").base_backup = from.into();
    let stop = record.target.actual.as_mut().expect("a stop");
    (stop.lsn, stop.time) = (Lsn((hour * 4096.0) as u64), Some(at(hour * HOUR)));
    record.finished_at = at(90.0 * HOUR);
    record.verdict = verdict;
    Body::Drill(Box::new(record))
}

fn stretch(from: u64, to: u64, bases: &[&str], gap: Option<&str>) -> Stretch {
    Stretch {
        from: (Lsn(from * 0x1000), at(from as f64 * HOUR)),
        to: (Lsn(to * 0x1000), at(to as f64 * HOUR)),
        legs: vec![(Timeline(1), Lsn(0))],
        bases: bases.iter().map(|b| (*b).to_owned()).collect(),
        gap: gap.map(str::to_owned),
    }
}

fn derived(bodies: Vec<Body>, stretches: &[Stretch]) -> Proven {
    let entries: Vec<LedgerEntry> = (1_u64..).zip(bodies).map(|(n, body)| entry(n, at(n as f64), body)).collect();
    proven(&entries, stretches, at(100.0 * HOUR))
}

fn hours(parts: &[Part]) -> Vec<(f64, f64)> {
    let hour = |t: DateTime<Utc>| (t - at(0.0)).as_seconds_f64() / HOUR;
    parts.iter().map(|p| (hour(p.from), hour(p.to))).collect()
}

fn bases() -> Vec<Body> {
    vec![base("b1", 10), base("b2", 30), base("b3", 60)]
}

#[test]
fn a_drill_proves_from_its_base_backup_to_where_it_stopped() {
    let mut bodies = bases();
    bodies.push(drill("d1", "b1", 20.0, Verdict::Passed));
    bodies.push(drill("d2", "b2", 35.0, Verdict::ObjectiveMissed));
    bodies.push(drill("d3", "b3", 70.0, Verdict::Failed));
    let all = stretch(10, 80, &["b1", "b2", "b3"], None);
    let told = derived(bodies, &[all]);
    let window = &told.windows[0];
    assert_eq!(hours(&window.unproven), [(20.0, 30.0), (35.0, 80.0)]);
    assert_eq!((window.seconds, window.proven_seconds), (70.0 * HOUR, 15.0 * HOUR));
    let proof = &window.proofs[0];
    assert_eq!((proof.drill.as_str(), proof.from_lsn, proof.to_lsn), ("d1", Lsn(0x9F00), Lsn(0x14000)));
    assert_eq!(proof.age_seconds, 10.0 * HOUR);
    let proven: Vec<_> = told.bases.iter().map(|b| (b.name.as_str(), b.drill.as_deref())).collect();
    assert_eq!(proven, [("b1", Some("d1")), ("b2", Some("d2")), ("b3", None)]);
    let sound: Vec<bool> = told.drills.iter().map(|d| d.sound).collect();
    assert_eq!(sound, [true, true, false]);
}

#[test]
fn a_gap_takes_back_what_was_proven_behind_it_and_nothing_else() {
    let mut bodies = bases();
    bodies.push(drill("d1", "b1", 50.0, Verdict::Passed));
    let whole = derived(bodies.clone(), &[stretch(10, 80, &["b1", "b2", "b3"], None)]);
    assert_eq!(hours(&whole.windows[0].unproven), [(50.0, 80.0)]);
    // A segment at hour 40 is gone: b1 and b2 reach it, b3 begins behind.
    let holed = derived(bodies, &[stretch(10, 40, &["b1", "b2"], Some("00…28")), stretch(60, 80, &["b3"], None)]);
    assert_eq!(hours(&holed.windows[0].unproven), []);
    assert_eq!(holed.windows[0].proofs[0].to_lsn, Lsn(40 * 0x1000), "as far as it can be repeated");
    assert_eq!(hours(&holed.windows[1].unproven), [(60.0, 80.0)]);
    assert_eq!(holed.windows[1].proven_seconds, 0.0);
}

#[test]
fn a_later_failure_from_the_same_base_takes_the_proof_back_until_the_next_success() {
    let mut bodies = bases();
    bodies.push(drill("d1", "b1", 20.0, Verdict::Passed));
    bodies.push(drill("d2", "b2", 40.0, Verdict::Passed));
    bodies.push(drill("d3", "b1", 15.0, Verdict::Failed));
    let all = [stretch(10, 80, &["b1", "b2", "b3"], None)];
    let doubted = derived(bodies.clone(), &all);
    assert_eq!(hours(&doubted.windows[0].unproven), [(10.0, 30.0), (40.0, 80.0)]);
    bodies.push(drill("d4", "b1", 25.0, Verdict::Passed));
    assert_eq!(hours(&derived(bodies, &all).windows[0].unproven), [(25.0, 30.0), (40.0, 80.0)]);
}

#[test]
fn another_branch_of_history_proves_nothing_of_this_one() {
    let mut bodies = bases();
    bodies.push(drill("d1", "b1", 50.0, Verdict::Passed));
    let mut forked = stretch(10, 80, &["b1", "b2", "b3"], None);
    forked.legs.push((Timeline(2), Lsn(45 * 0x1000)));
    let told = derived(bodies, &[forked]);
    assert!(told.windows[0].proofs.is_empty(), "timeline 1 at hour 50 lies beside: {:?}", told.windows[0]);
    let timelines: Vec<_> = told.timelines.iter().map(|t| (t.name.as_str(), t.drill.as_deref())).collect();
    assert_eq!(timelines, [("1", Some("d1")), ("2", None)]);
}

#[test]
fn databases_that_no_drill_restored_are_named() {
    let mut bodies = bases();
    let Body::Drill(mut record) = drill("d1", "b1", 20.0, Verdict::Passed) else { panic!("a drill") };
    record.restored.as_mut().expect("amounts").databases = vec!["retail".into(), "made-since".into()];
    bodies.push(Body::Drill(record));
    let told = derived(bodies, &[]);
    let databases: Vec<_> =
        told.databases.iter().map(|d| (d.name.as_str(), d.proven_at.is_some(), d.checks_passed)).collect();
    assert_eq!(databases, [("made-since", true, Some(0)), ("postgres", false, None), ("retail", true, Some(7))]);
}
