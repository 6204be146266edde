//! A made-up history of drills for the tests of the report.

use super::Body;
use super::bodies::BaseBackup;
use super::draw::{DrillDraw, Frame, Interval, METHOD, Revealed, Seed};
use super::drill_record::{DrillRecord, Verdict};
use super::examples::{at, backups, passed};
use super::forecast::{Worst, forecast, measured};
use super::outlook::Outlook;
use super::proven::{Stretch, proven};
use super::sampled::{Sampling, SamplingMethod};
use crate::units::{Lsn, Timeline};

/// Two stretches with a gap between them, seven drills, two of them at random, one of which failed.
pub(crate) fn outlook() -> Outlook {
    const HOUR: f64 = 3600.0;
    let Some(Body::BaseBackup(base)) = backups().into_iter().next() else { unreachable!("a base backup comes first") };
    let base = |id: &str, hour: f64| {
        let (lsn, time) = (Lsn((hour * 4096.0) as u64), at((hour - 72.0) * HOUR));
        Body::BaseBackup(BaseBackup { id: id.into(), start_lsn: lsn, stop_lsn: lsn, stop_time: time, ..base.clone() })
    };
    let stretch = |from: f64, to: f64, bases: &[&str], gap: Option<&str>| Stretch {
        from: (Lsn((from * 4096.0) as u64), at((from - 72.0) * HOUR)),
        to: (Lsn((to * 4096.0) as u64), at((to - 72.0) * HOUR)),
        legs: vec![(Timeline(1), Lsn(0))],
        bases: bases.iter().map(|b| (*b).to_owned()).collect(),
        gap: gap.map(str::to_owned),
    };
    let mut entries = Vec::new();
    let mut push = |body: Body| {
        let sequence = entries.len() as u64 + 1;
        entries.push(super::testing::entry(sequence, at(sequence as f64 * HOUR - 60.0 * HOUR), body));
        entries[entries.len() - 1].clone()
    };
    for (id, hour) in [("20261119T030000Z", 0.0), ("20261120T030000Z", 24.0), ("20261121T090000Z", 54.0)] {
        push(base(id, hour));
    }
    let drills = [
        ("20261119T030000Z", 9.0, Verdict::Passed, true),
        ("20261120T030000Z", 31.0, Verdict::Passed, true),
        ("20261120T030000Z", 36.0, Verdict::Passed, false),
        ("20261121T090000Z", 61.0, Verdict::Failed, false),
    ];
    for (n, (from, hour, verdict, random)) in (1_u32..).zip(drills) {
        let mut record = passed();
        record.id = format!("drill-{n}");
        record.verdict = verdict;
        record.finished_at = at(-f64::from(20 - n) * HOUR);
        record.sources.as_mut().expect("sources").base_backup = from.into();
        let moment = at((hour - 72.0) * HOUR);
        let off = 0.4 * f64::from(n) * if n % 2 == 0 { 1.0 } else { -1.0 };
        record.rto.measured_seconds = record.rto.measured_seconds.map(|seconds| seconds + off);
        for stop in [&mut record.target.actual, &mut record.target.resolved].into_iter().flatten() {
            (stop.lsn, stop.time) = (Lsn((hour * 4096.0) as u64), Some(moment));
        }
        if random {
            let seed = Seed::from_hex(&format!("{n:064x}")).expect("a seed");
            let interval = Interval { from: moment, to: moment, timeline: Timeline(1) };
            let frame = Frame {
                intervals: vec![interval],
                timelines: vec![Timeline(1)],
                databases: vec!["retail".into()],
                ledger_entries: 3,
                wal_end: None,
            };
            let draw = DrillDraw { method: METHOD.into(), seed_sha256: seed.sha256(), frame: frame.clone() };
            let committed = push(Body::DrillDraw(draw));
            record.target.requested = moment.to_rfc3339();
            record.sampling = Some(Sampling {
                method: SamplingMethod::Random,
                why: "drawn at random".into(),
                draw: Revealed::draw(&seed, &frame, committed.sequence, &committed.sha256),
            });
        }
        push(Body::Drill(Box::new(record)));
    }
    let stretches = [
        stretch(0.0, 44.0, &["20261119T030000Z", "20261120T030000Z"], Some("0000000100000000000000B0")),
        stretch(54.0, 72.0, &["20261121T090000Z"], None),
    ];
    let worst = Worst {
        base: "20261120T030000Z".into(),
        base_bytes: 4_509_715_660,
        wal_bytes: 1_932_735_283,
        attachment_bytes: 224_706_560,
        still_growing: false,
    };
    Outlook {
        coverage: proven(&entries, &stretches, at(0.0)),
        forecast: forecast(&measured(&entries), worst, 900.0, 3600.0),
    }
}

/// A sound drill to a second drawn at random.
pub(crate) fn drawn() -> DrillRecord {
    let seed = Seed::from_hex(&"5e".repeat(32)).expect("a seed");
    let interval = Interval { from: at(-172_800.0), to: at(-61.0), timeline: Timeline(1) };
    let frame = Frame {
        intervals: vec![interval],
        timelines: vec![Timeline(1)],
        databases: vec!["retail".into()],
        ledger_entries: 4709,
        wal_end: Some(Lsn(0x3_A500_0000)),
    };
    let draw = Revealed::draw(&seed, &frame, 4710, &"ab".repeat(32)).expect("drawn");
    let mut record = passed();
    record.target.requested = draw.second.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
    for stop in [&mut record.target.actual, &mut record.target.resolved].into_iter().flatten() {
        stop.time = Some(draw.second - chrono::TimeDelta::milliseconds(412));
    }
    let why = format!("second {} of {}, drawn at random", draw.index + 1, draw.seconds);
    record.sampling = Some(Sampling { method: SamplingMethod::Random, why, draw: Some(draw) });
    let rpo = record.rpo.as_mut().expect("an RPO");
    (rpo.left_out_on_purpose, rpo.exposure_seconds) = (true, 90_000.0);
    (rpo.lost_transactions, rpo.lost_bytes, rpo.loss_window_seconds) = (None, None, None);
    record.phases.insert(1, record.phases[0].clone());
    (record.phases[0].name, record.phases[0].seconds) = ("noticing the disaster".into(), 600.0);
    (record.phases[1].name, record.phases[1].seconds) = ("deciding to restore".into(), 300.0);
    record
}
