use super::*;
use crate::evidence::draw::{Frame, Interval};
use crate::evidence::entry::Failure;
use crate::evidence::sampled::Sampling;
use crate::evidence::testing::{self, key, ledger, memory, trust};
use crate::evidence::{examples, verify_ledger};
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};

const NOW: f64 = 400_000.0;

fn commitment(seed: &Seed) -> Body {
    let interval = Interval::within(examples::at(-86_400.0), examples::at(-60.0), Timeline(1)).expect("an interval");
    Body::DrillDraw(DrillDraw {
        method: METHOD.into(),
        seed_sha256: seed.sha256(),
        frame: Frame {
            intervals: vec![interval],
            timelines: vec![Timeline(1)],
            databases: vec!["retail".into()],
            ledger_entries: 0,
            wal_end: Some(Lsn(1)),
        },
    })
}

fn draw_of(committed: &LedgerEntry, seed: &Seed) -> Revealed {
    let Body::DrillDraw(draw) = &committed.statement.predicate.body else { panic!("a commitment") };
    Revealed::draw(seed, &draw.frame, committed.sequence, &committed.sha256).expect("drawn")
}

fn entry(sequence: u64, body: Body) -> LedgerEntry {
    testing::entry(sequence, examples::at(sequence as f64), body)
}

/// The record of a drill that went where the draw says.
fn drill(draw: Revealed) -> DrillRecord {
    let mut record = examples::passed();
    record.target.requested = draw.second.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
    for point in [&mut record.target.resolved, &mut record.target.actual].into_iter().flatten() {
        point.time = Some(draw.second);
    }
    record.sampling = Some(Sampling { method: SamplingMethod::Random, why: "drawn".into(), draw: Some(draw) });
    record
}

fn checked(entries: &[LedgerEntry]) -> Draws {
    Draws::of(entries, examples::at(NOW))
}

fn results(draws: &Draws) -> Vec<DrawResult> {
    draws.outcomes.iter().map(|o| o.result).collect()
}

#[test]
fn a_kept_commitment_counts_by_how_its_drill_ended() {
    let seed = Seed::random().expect("random");
    let committed = entry(1, commitment(&seed));
    let sound = drill(draw_of(&committed, &seed));
    let mut slow = sound.clone();
    slow.verdict = Verdict::ObjectiveMissed;
    let mut bad = sound.clone();
    bad.verdict = Verdict::Failed;
    for (record, expected) in [(sound, DrawResult::Restored), (slow, DrawResult::Restored), (bad, DrawResult::Failed)] {
        let second = record.sampling.as_ref().and_then(|s| s.draw.as_ref()).map(|d| d.second);
        let draws = checked(&[committed.clone(), entry(2, Body::Drill(Box::new(record)))]);
        assert_eq!((draws.problems, draws.findings), (vec![], vec![]));
        assert_eq!(draws.outcomes[0].result, expected);
        assert_eq!((draws.outcomes[0].revealed_by, draws.outcomes[0].second), (Some(2), second));
    }
    // A drill that could not even begin reveals its draw in the record of the failure.
    let mut failure = Failure::new("drill", &crate::error::integrity("a segment is missing"), examples::at(2.0), 1.0);
    failure.draw = Some(draw_of(&committed, &seed));
    let draws = checked(&[committed, entry(2, Body::Failure(failure))]);
    assert_eq!((results(&draws), draws.problems), (vec![DrawResult::Failed], vec![]));
}

#[test]
fn a_commitment_that_nothing_reveals_is_a_finding_and_in_the_end_a_failure() {
    let seed = Seed::random().expect("random");
    let committed = entry(1, commitment(&seed));
    let draws = checked(std::slice::from_ref(&committed));
    assert_eq!(results(&draws), [DrawResult::Abandoned]);
    assert!(draws.problems.is_empty() && draws.findings[0].what.contains("abandoned"), "{:?}", draws.findings);
    let young = Draws::of(&[committed], examples::at(3600.0));
    assert_eq!((results(&young), young.findings.len()), (vec![DrawResult::Open], 1));
}

#[test]
fn whatever_is_changed_about_a_draw_is_found() {
    type Change = fn(&mut DrillRecord, &mut Revealed);
    let changes: [(&str, Change); 9] = [
        ("index", |_, d| d.index += 1),
        ("second", |_, d| d.second += TimeDelta::seconds(1)),
        ("size", |_, d| d.seconds += 1),
        ("timeline", |_, d| d.timeline = Timeline(2)),
        ("seed", |_, d| d.seed = "00".repeat(32)),
        ("no seed", |_, d| d.seed.truncate(10)),
        ("hash", |_, d| d.entry_sha256 = "00".repeat(32)),
        ("entry", |_, d| d.entry = 7),
        ("another target", |r, _| r.target.requested = "latest".into()),
    ];
    let seed = Seed::random().expect("random");
    let committed = entry(1, commitment(&seed));
    for (what, change) in changes {
        let mut draw = draw_of(&committed, &seed);
        let mut record = drill(draw.clone());
        change(&mut record, &mut draw);
        if let Some(sampling) = &mut record.sampling {
            sampling.draw = Some(draw);
        }
        let draws = checked(&[committed.clone(), entry(2, Body::Drill(Box::new(record)))]);
        assert_eq!(draws.problems.iter().filter_map(|p| p.sequence).collect::<Vec<_>>(), [2], "{what}");
        assert_eq!(results(&draws), [DrawResult::Abandoned], "{what}: does not count");
    }
    // The drill says that it went there, but restored a later transaction.
    let mut record = drill(draw_of(&committed, &seed));
    let second = record.target.actual.as_ref().and_then(|p| p.time);
    record.target.actual.as_mut().expect("a stop").time = second.map(|t| t + TimeDelta::seconds(5));
    let draws = checked(&[committed.clone(), entry(2, Body::Drill(Box::new(record)))]);
    assert!(draws.problems[0].what.contains("restored a transaction of"), "{:?}", draws.problems);
    // Claimed without a commitment; and one commitment used twice, for the better of two.
    let mut record = drill(draw_of(&committed, &seed));
    let twice = [
        committed.clone(),
        entry(2, Body::Drill(Box::new(record.clone()))),
        entry(3, Body::Drill(Box::new(record.clone()))),
    ];
    let draws = checked(&twice);
    assert_eq!((draws.problems[0].sequence, results(&draws)), (Some(3), vec![DrawResult::Restored]));
    record.sampling.as_mut().expect("sampling").draw = None;
    assert!(checked(&[entry(2, Body::Drill(Box::new(record)))]).problems[0].what.contains("names no commitment"));
    // Revealed before it was committed.
    let reversed = [entry(1, Body::Drill(Box::new(drill(draw_of(&committed, &seed))))), committed];
    assert_eq!(checked(&reversed).problems.len(), 1);
}

#[tokio::test]
async fn verifying_a_ledger_draws_again() {
    let store = memory();
    let ledger = ledger(&store, &[1]);
    let append = async |body| ledger.append(&Runtime::silent(), &key(1), Vec::new(), body).await.expect("appended");
    let verify = async || verify_ledger(&store, "production", "0123abcd", &trust(&[1])).await.expect("readable");
    let seed = Seed::random().expect("random");
    let committed = append(commitment(&seed)).await;
    let told = verify().await;
    assert!(told.ok && told.findings[0].what.contains("no entry reveals"), "{told:?}");

    let Body::DrillDraw(draw) = commitment(&seed) else { panic!("a commitment") };
    let drawn = Revealed::draw(&seed, &draw.frame, committed.sequence, &committed.sha256).expect("drawn");
    append(Body::Drill(Box::new(drill(drawn)))).await;
    let told = verify().await;
    assert!(told.ok && told.findings.is_empty(), "{told:?}");

    // Correctly signed, and untrue: a nicer second than the seed gives.
    let (seed, nicer) = (Seed::random().expect("random"), examples::at(-60.0));
    let committed = append(commitment(&seed)).await;
    let mut drawn = Revealed::draw(&seed, &draw.frame, committed.sequence, &committed.sha256).expect("drawn");
    (drawn.index, drawn.second) = (draw.frame.seconds() - 1, nicer);
    append(Body::Drill(Box::new(drill(drawn)))).await;
    let told = verify().await;
    assert!(!told.ok && told.problems[0].sequence == Some(4), "{told:?}");
    assert!(told.problems[0].what.contains("not what is claimed"), "{told:?}");
}
