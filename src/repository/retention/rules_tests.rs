use std::time::Duration;

use chrono_tz::Tz;

use super::super::keeping::CLOCKS;
use super::*;
use crate::evidence::bodies_retention::HoldScope;

fn day(day: i64) -> DateTime<Utc> {
    // Thursday 2026-01-01, noon.
    DateTime::from_timestamp(1_767_268_800, 0).expect("valid") + TimeDelta::days(day - 1)
}

fn rules(recent_days: u64, periods: (u32, u32, u32, u32), minimum: u32) -> Retention {
    let (daily, weekly, monthly, yearly) = periods;
    Retention {
        recent: Duration::from_secs(recent_days * 86_400),
        daily,
        weekly,
        monthly,
        yearly,
        minimum_base_backups: minimum,
        delete_after: Duration::from_secs(1),
        unreferenced_after: Duration::from_secs(1),
        time_zone: Tz::UTC,
    }
}

/// A base backup of a day; its place in WAL is a hundred for each day.
fn base(n: i64) -> Base {
    Base {
        sequence: n as u64,
        id: format!("b{n}"),
        timeline: Timeline(1),
        start: Lsn(n as u64 * 100),
        stop: Lsn(n as u64 * 100 + 10),
        stop_time: day(n),
        databases: vec!["retail".into()],
        lines: vec![Timeline(1)],
        broken: None,
    }
}

fn facts(bases: Vec<Base>) -> Facts {
    let newest = bases.iter().filter(|b| b.broken.is_none()).map(|b| b.stop_time).max();
    let lines = vec![Line { timeline: Timeline(1), written: newest.unwrap_or_default() }];
    Facts { newest, bases, lines, ..Facts::default() }
}

fn stays(decision: &Decision) -> Vec<String> {
    decision.verdicts.iter().filter(|v| v.stays).map(|v| v.id.clone()).collect()
}

fn of<'d>(decision: &'d Decision, id: &str) -> Vec<&'d str> {
    let verdict = decision.verdicts.iter().find(|v| v.id == id).expect("judged");
    verdict.why.iter().map(|w| w.rule).collect()
}

#[test]
fn rules_select_base_backups() {
    // (days with a base backup, recent, periods, minimum, what stays)
    type Row<'a> = (&'a [i64], u64, (u32, u32, u32, u32), u32, &'a [i64]);
    let table: &[Row<'_>] = &[
        // Recent needs the one before it, too: recovery to its first moment starts there.
        (&[1, 2, 3, 4, 5, 6], 2, (0, 0, 0, 0), 1, &[3, 4, 5, 6]),
        (&[1, 2, 3], 30, (0, 0, 0, 0), 1, &[1, 2, 3]),
        (&[1, 20], 2, (0, 0, 0, 0), 1, &[1, 20]),
        (&[1, 2, 20], 2, (0, 0, 0, 0), 1, &[2, 20]),
        // The newest whatever their age.
        (&[1, 2, 20], 2, (0, 0, 0, 0), 3, &[1, 2, 20]),
        // Days count only where there is a base backup.
        (&[1, 2, 10, 11, 20, 21], 1, (4, 0, 0, 0), 1, &[10, 11, 20, 21]),
        // Weeks begin on Monday: 4 and 11 January 2026 are Sundays.
        (&[1, 2, 3, 4, 5, 10, 11, 12, 30], 1, (0, 4, 0, 0), 1, &[4, 11, 12, 30]),
        // Months and years.
        (&[1, 31, 32, 59, 60, 100], 1, (0, 0, 3, 0), 1, &[59, 60, 100]),
        (&[1, 200, 365, 366, 400], 1, (0, 0, 0, 2), 1, &[365, 366, 400]),
        // Together.
        (&[1, 29, 30, 31, 32, 33], 1, (2, 2, 2, 1), 1, &[31, 32, 33]),
    ];
    for (taken, recent, periods, minimum, expected) in table {
        let all = facts(taken.iter().map(|n| base(*n)).collect());
        let decision = decide(Some(&rules(*recent, *periods, *minimum)), &all, day(1000));
        let expected: Vec<String> = expected.iter().map(|n| format!("b{n}")).collect();
        assert_eq!(stays(&decision), expected, "of {taken:?} with {recent} {periods:?} {minimum}");
    }
}

#[test]
fn every_verdict_says_why() {
    let decision = decide(Some(&rules(2, (1, 2, 0, 0), 1)), &facts((1..=10).map(base).collect()), day(10));
    assert_eq!(of(&decision, "b10"), ["recent", "daily", "weekly", "minimum"]);
    assert_eq!(of(&decision, "b7"), ["reaches_recent"]);
    assert_eq!(of(&decision, "b4"), ["weekly"]);
    assert_eq!(of(&decision, "b5"), ["expired"]);
    assert_eq!((decision.oldest, decision.recent_from), (Some(day(4)), Some(day(8))));
}

#[test]
fn without_rules_or_anything_restorable_all_stays() {
    let some = facts((1..=10).map(base).collect());
    let decision = decide(None, &some, day(500));
    assert_eq!(
        (stays(&decision).len(), decision.wal, of(&decide(None, &some, day(1)), "b1")),
        (10, None, vec!["no_rules"])
    );
    let broken = |n| Base { broken: Some("no WAL".into()), ..base(n) };
    let decision = decide(Some(&rules(1, (0, 0, 0, 0), 1)), &facts((1..=10).map(broken).collect()), day(500));
    assert_eq!((stays(&decision).len(), &decision.wal), (10, &None));
    assert_eq!(of(&decision, "b1"), ["nothing_restorable"]);
}

#[test]
fn neither_a_broken_clock_nor_weeks_without_backups_let_anything_expire() {
    let all = facts((1..=10).map(base).collect());
    let today = decide(Some(&rules(3, (0, 0, 0, 0), 1)), &all, day(10));
    for now in [day(11), day(40), day(100_000)] {
        assert_eq!(decide(Some(&rules(3, (0, 0, 0, 0), 1)), &all, now), today);
    }
    // A clock that went back keeps more.
    assert_eq!(stays(&decide(Some(&rules(3, (0, 0, 0, 0), 1)), &all, day(5))).len(), 10);
}

#[test]
fn a_broken_base_backup_counts_for_nothing_and_goes_when_it_is_old() {
    let mut bases: Vec<Base> = (1..=6).map(base).collect();
    for broken in [2, 3, 5] {
        bases[broken].broken = Some("WAL is missing".into());
    }
    // 3, 4 and 6 cannot be restored: 2 is what recovery to the last two days starts from.
    let decision = decide(Some(&rules(2, (0, 0, 0, 0), 1)), &facts(bases), day(6));
    assert_eq!(decision.recent_from, Some(day(3)), "the newest moment is that of b5");
    assert_eq!(stays(&decision), ["b2", "b3", "b4", "b5", "b6"]);
    assert_eq!(of(&decision, "b2"), ["reaches_recent"]);
    let mut bases: Vec<Base> = (1..=9).map(base).collect();
    bases[0].broken = Some("WAL is missing".into());
    let decision = decide(Some(&rules(2, (9, 0, 0, 0), 9)), &facts(bases), day(9));
    assert_eq!(of(&decision, "b1"), ["not_restorable"]);
}

#[test]
fn wal_is_kept_without_holes_for_what_is_recent_and_exactly_for_points() {
    let decision = decide(Some(&rules(2, (0, 0, 1, 1), 1)), &facts([1, 5, 40, 41, 42, 43].map(base).into()), day(43));
    let demands = decision.wal.expect("some");
    let position = |n: u64| Demand { line: Timeline(1), from: Lsn(n * 100), until: Until::Position(Lsn(n * 100 + 10)) };
    let end = Demand { line: Timeline(1), from: Lsn(4000), until: Until::End };
    assert!(demands.contains(&end), "{demands:?}");
    assert!(!demands.contains(&position(1)) && !demands.contains(&position(5)));
    let decision = decide(Some(&rules(2, (0, 0, 2, 0), 1)), &facts([1, 5, 40, 41, 42, 43].map(base).into()), day(43));
    let demands = decision.wal.expect("some");
    assert!(demands.contains(&end) && demands.contains(&position(5)) && !demands.contains(&position(1)), "{demands:?}");
}

fn hold(scope: HoldScope, until: Option<DateTime<Utc>>) -> Hold {
    Hold { id: "h".into(), scope, requested: String::new(), until, reason: "audit".into() }
}

#[test]
fn holds_keep_what_they_need_until_they_end() {
    let held = |scope: HoldScope, now: i64| {
        let mut all = facts((1..=30).map(base).collect());
        all.holds = vec![hold(scope, Some(day(100)))];
        decide(Some(&rules(1, (0, 0, 0, 0), 1)), &all, day(now))
    };
    let ids = |decision: &Decision| stays(decision).into_iter().filter(|id| id.len() == 2).collect::<Vec<_>>();
    let by_id = HoldScope::BaseBackup { id: "b7".into() };
    assert_eq!(ids(&held(by_id.clone(), 99)), ["b7"]);
    assert!(ids(&held(by_id, 100)).is_empty(), "it has ended");

    let noon = |n| day(n) + TimeDelta::hours(6);
    let span = held(HoldScope::Times { from: noon(4), to: noon(6) }, 50);
    assert_eq!(ids(&span), ["b4", "b5", "b6"]);
    let wal = span.wal.expect("some");
    let until = Until::Time(noon(6) + CLOCKS);
    assert!(wal.contains(&Demand { line: Timeline(1), from: Lsn(400), until }), "{wal:?}");
    let moment = held(HoldScope::Times { from: noon(4), to: noon(4) }, 50);
    assert_eq!((ids(&moment), of(&moment, "b4")), (vec!["b4".into()], vec!["hold"]));

    let place = held(HoldScope::Position { timeline: Timeline(1), lsn: Lsn(555) }, 50);
    assert_eq!(ids(&place), ["b5"]);
    let wal = place.wal.expect("some");
    let demand = Demand { line: Timeline(1), from: Lsn(500), until: Until::Position(Lsn(555)) };
    assert!(wal.contains(&demand), "{wal:?}");
    assert_eq!(super::held(&facts(vec![base(5)]), &hold(HoldScope::BaseBackup { id: "b9".into() }, None)).len(), 0);
}

#[test]
fn every_line_of_history_that_was_written_to_lately_is_kept() {
    let mut all = facts((1..=10).map(base).collect());
    // Timeline 2 left timeline 1 on day 6 and has bases of its own since; timeline 1 went on, and was abandoned.
    for old in &mut all.bases[..6] {
        old.lines = vec![Timeline(1), Timeline(2)];
    }
    for new in &mut all.bases[6..] {
        (new.timeline, new.lines) = (Timeline(2), vec![Timeline(2)]);
    }
    let line = |t, written| Line { timeline: Timeline(t), written };
    all.lines = vec![line(1, day(10)), line(2, day(10))];
    let decision = decide(Some(&rules(2, (0, 0, 0, 0), 1)), &all, day(10));
    assert_eq!(stays(&decision), ["b6", "b7", "b8", "b9", "b10"], "b6 is the way into the branch");
    all.lines = vec![line(1, day(6)), line(2, day(10))];
    let decision = decide(Some(&rules(2, (0, 0, 0, 0), 1)), &all, day(10));
    assert_eq!(stays(&decision), ["b7", "b8", "b9", "b10"]);
    // WAL of a line without a base backup: one may be on its way.
    all.lines.push(line(3, day(10)));
    let decision = decide(Some(&rules(2, (0, 0, 0, 0), 1)), &all, day(10));
    let whole = Demand { line: Timeline(3), from: Lsn(0), until: Until::End };
    assert!(decision.wal.expect("some").contains(&whole));
}

#[test]
fn filestores_and_configuration_go_with_the_points() {
    let mut all = facts((1..=40).map(base).collect());
    let capture = |n: i64, database: &str, uuid: Option<&str>| Capture {
        sequence: 1000 + n as u64 * 10 + u64::from(database != "retail"),
        id: format!("{database}{n}"),
        time: day(n) + TimeDelta::hours(1),
        scanned: day(n) + TimeDelta::hours(2),
        database: database.into(),
        data_dir: "/odoo".into(),
        uuid: uuid.map(str::to_owned),
    };
    all.captures = (1..=40).map(|n| capture(n, "retail", Some("u"))).collect();
    // Dropped on day 3, another one on day 38, a third was renamed to retail.
    all.captures.extend([capture(2, "dropped", None), capture(38, "late", None), capture(3, "old", Some("u"))]);
    all.exports = (1..=40)
        .map(|n| Export { sequence: 2000 + n as u64, id: format!("e{n}"), time: day(n) + TimeDelta::hours(1) })
        .collect();
    let decision = decide(Some(&rules(2, (0, 0, 2, 0), 1)), &all, day(40));
    let kept = stays(&decision);
    for id in ["b31", "retail30", "retail31", "e30", "e31", "retail37", "retail40", "late38", "e37", "e40"] {
        assert!(kept.contains(&id.to_owned()), "{id} of {kept:?}");
    }
    for id in ["b30", "retail29", "retail32", "retail35", "e29", "e35", "dropped2", "old3"] {
        assert!(!kept.contains(&id.to_owned()), "{id} of {kept:?}");
    }
    // Where captures do not run any more, the newest one is all there is.
    let mut stopped = all.clone();
    stopped.captures.retain(|c| c.id == "dropped2");
    assert!(stays(&decide(Some(&rules(2, (0, 0, 2, 0), 1)), &stopped, day(40))).contains(&"dropped2".to_owned()));
    // As long as a kept base backup has the database, its newest capture stays.
    all.bases[30].databases.push("dropped".into());
    assert!(stays(&decide(Some(&rules(2, (0, 0, 2, 0), 1)), &all, day(40))).contains(&"dropped2".to_owned()));
}
