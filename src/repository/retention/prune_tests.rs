//! The two phases on real objects: what goes, what comes back, who may be killed when.

use super::hold::{self, Wish};
use super::rules::Kind;
use super::testing::{E, Estate, Taken, days, rules};
use crate::error::ErrorKind;
use crate::evidence::Body;
use crate::evidence::bodies_retention::HoldScope;
use crate::repository::catalogue::Catalogue;
use crate::repository::verify::verify;
use crate::storage::fault::{Fault, Operation};

/// An estate with a base backup, a capture and an export a day.
async fn of_days(count: u64) -> (Estate, Vec<Taken>) {
    of_days_that(count, true).await
}

/// The same; each base backup builds on the one before, or none does.
async fn of_days_that(count: u64, build_on: bool) -> (Estate, Vec<Taken>) {
    let mut estate = Estate::new().await;
    let (mut bases, mut segments) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let base = estate.base(bases.last().filter(|_| build_on)).await;
        bases.push(base);
        estate.capture("retail", &mut segments).await;
        estate.export().await;
        estate.wal(3).await;
        estate.pass(1.0);
    }
    estate.wal(1).await;
    (estate, bases)
}

async fn sound(estate: &Estate) {
    let report = verify(&estate.repository, E, None, None, &estate.runtime).await.expect("verified");
    assert!(report.ok, "{:?}", report.problems);
}

#[tokio::test]
async fn what_goes_is_retired_first_and_deleted_when_the_delay_has_passed() {
    let (estate, bases) = of_days(10).await;
    let (data, wal) = (estate.objects("data/").await, estate.segments().await);
    let told = estate.dry_run(&rules(3)).await;
    assert_eq!(estate.entries().await.len(), 30, "a dry run writes nothing");
    let report = estate.prune(&rules(3)).await;
    let (would, retired) = (told.retired.expect("some"), report.retired.expect("some"));
    assert_eq!((would.objects, would.bytes, &would.gone), (retired.objects, retired.bytes, &retired.gone));
    assert_eq!(
        (retired.gone.base_backups, report.deleted.len()),
        (6, 0),
        "4 recent ones, the first of them as the start"
    );
    assert_eq!(retired.not_before, days(estate.now(), 7));
    assert_eq!((estate.objects("data/").await, estate.segments().await), (data, wal.clone()), "nothing is gone yet");

    // From now on it counts as gone.
    let catalogue = Catalogue::load(&estate.repository, E).await.expect("loaded");
    let ids: Vec<&str> = catalogue.bases().map(|b| b.id.as_str()).collect();
    assert_eq!(ids, bases[6..].iter().map(|b| b.entry.id.as_str()).collect::<Vec<_>>());
    assert!(catalogue.wal.expect("WAL").gaps().is_empty());
    sound(&estate).await;

    estate.pass(6.9);
    let early = estate.prune(&rules(3)).await;
    assert_eq!(
        (early.deleted.len(), early.waiting.len(), early.retired),
        (0, 1, None),
        "not before its time, and not twice"
    );
    estate.pass(0.2);
    let report = estate.prune(&rules(3)).await;
    assert_eq!(report.deleted.len(), 1);
    assert_eq!((report.deleted[0].objects, report.deleted[0].bytes), (retired.objects, retired.bytes));
    assert_eq!((report.deleted[0].left, report.deleted[0].spared), (0, 0));
    for base in &bases[6..] {
        assert!(estate.is_whole(base).await, "{}", base.entry.id);
    }
    let first = *bases[6].own_wal().start();
    let expected: Vec<u64> = wal.into_iter().filter(|n| *n >= first).collect();
    assert_eq!(estate.segments().await.into_iter().collect::<Vec<_>>(), expected, "WAL without a hole from there on");
    sound(&estate).await;

    let entries = estate.entries().await.len();
    let again = estate.prune(&rules(3)).await;
    assert!(again.deleted.is_empty() && again.retired.is_none() && again.revived.is_none(), "{again:?}");
    assert_eq!(estate.entries().await.len(), entries, "a run that finds nothing writes nothing");
}

#[tokio::test]
async fn older_points_keep_exactly_their_own_wal_and_it_is_no_damage() {
    let (estate, bases) = of_days(20).await;
    let rules = crate::config::Retention { weekly: 3, ..rules(2) };
    estate.prune(&rules).await;
    estate.pass(8.0);
    estate.prune(&rules).await;
    let report = estate.prune(&rules).await;
    let kept: Vec<&str> =
        report.points.iter().filter(|p| p.verdict.kind == Kind::BaseBackup).map(|p| p.verdict.id.as_str()).collect();
    let wal = estate.segments().await;
    let mut expected: std::collections::BTreeSet<u64> = std::collections::BTreeSet::new();
    for base in bases.iter().filter(|b| kept.contains(&b.entry.id.as_str())) {
        assert!(estate.is_whole(base).await);
        expected.extend(base.own_wal());
    }
    let recent = *bases[17].own_wal().start();
    expected.extend(recent..estate.next);
    assert_eq!(wal, expected);
    assert!(kept.len() >= 5 && kept.len() < 8, "{kept:?}");
    sound(&estate).await;
    let catalogue = Catalogue::load(&estate.repository, E).await.expect("loaded");
    let windows = crate::repository::frontier::Recovery::load(&estate.repository, &catalogue).await.windows;
    assert!(windows.len() > 1 && windows.iter().rev().skip(1).all(|w| w.ended_by.as_ref().is_some_and(|g| g.retired)));
}

#[tokio::test]
async fn a_hold_brings_back_what_was_retired_and_its_end_lets_it_go() {
    let (estate, bases) = of_days(10).await;
    estate.prune(&rules(3)).await;
    let id = bases[2].entry.id.clone();
    let wish = |until| Wish {
        scope: HoldScope::BaseBackup { id: id.clone() },
        requested: format!("backup:{id}"),
        until,
        reason: "audit".into(),
    };
    let until = days(estate.now(), 30);
    let made =
        hold::add(&estate.repository, E, Some(&rules(3)), wish(Some(until)), &estate.runtime).await.expect("held");
    assert_eq!(made.base_backups, std::slice::from_ref(&id));
    assert!(made.revived.is_some());
    assert!(!estate.state().await.is_gone(bases[2].sequence));
    estate.pass(8.0);
    estate.prune(&rules(3)).await;
    assert!(estate.is_whole(&bases[2]).await && !estate.is_whole(&bases[1]).await);
    sound(&estate).await;

    let other = Wish { scope: HoldScope::BaseBackup { id: bases[1].entry.id.clone() }, ..wish(None) };
    let gone = hold::add(&estate.repository, E, Some(&rules(3)), other, &estate.runtime).await;
    assert_eq!(gone.expect_err("deleted").kind(), ErrorKind::NotRecoverable);

    hold::remove(&estate.repository, E, &made.hold.id, "the audit is over", &estate.runtime).await.expect("released");
    let again = hold::remove(&estate.repository, E, &made.hold.id, "twice", &estate.runtime).await;
    assert_eq!(again.expect_err("released already").kind(), ErrorKind::Usage);
    estate.prune(&rules(3)).await;
    estate.pass(8.0);
    estate.prune(&rules(3)).await;
    assert!(!estate.is_whole(&bases[2]).await);
    sound(&estate).await;
    let holds = hold::list(&estate.repository, E, &estate.runtime).await.expect("listed");
    assert_eq!(holds[0].released.as_ref().map(|r| r.reason.as_str()), Some("the audit is over"));
}

#[tokio::test]
async fn a_backup_that_commits_between_marking_and_deleting_is_seen_or_refused() {
    let (mut estate, bases) = of_days_that(10, false).await;
    // Two backups build on one that goes, and take their time.
    let old = &bases[3];
    let previous = Some((&old.entry, old.sequence, old.packs.as_slice()));
    let in_time = estate.store_base(previous).await;
    let late = estate.store_base(previous).await;
    estate.prune(&rules(1)).await;
    assert!(estate.state().await.is_gone(old.sequence));
    let sequence = estate.commit(&in_time).await.expect("committed while it is only retired");
    estate.pass(8.0);
    let report = estate.prune(&rules(1)).await;
    let deletion = &report.deleted[0];
    assert!(deletion.spared >= 4, "the packs of the old one are needed by the new one: {deletion:?}");
    let data = estate.objects("data/").await;
    assert!(old.packs.iter().all(|p| data.contains(&format!("data/{}", p.sha256))));
    let entry = deletion.entry.expect("written");
    assert!(entry > sequence);

    let refused = estate.commit(&late).await.expect_err("built on what is being deleted");
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert!(refused.message().contains(&format!("ledger entry {entry}")), "{refused}");
    assert_eq!(estate.entries().await.last().map(|e| e.sequence), Some(entry + 1), "nothing was committed");
    sound(&estate).await;
}

#[tokio::test]
async fn what_an_interrupted_backup_left_goes_when_it_is_old_and_may_be_committed_until_then() {
    let (mut estate, _) = of_days(3).await;
    let slow = estate.store_base(None).await;
    let lost = estate.store_base(None).await;
    let fresh =
        crate::config::Retention { unreferenced_after: std::time::Duration::from_secs(400 * 86_400), ..rules(30) };
    assert_eq!(estate.prune(&fresh).await.retired, None, "somebody may be writing it");
    let retired = estate.prune(&rules(30)).await.retired.expect("leftovers");
    assert_eq!((retired.gone.is_empty(), retired.objects), (true, 6), "a pack, sums and a manifest of each");
    estate.commit(&slow).await.expect("in time");
    estate.pass(8.0);
    let report = estate.prune(&rules(30)).await;
    assert_eq!((report.deleted[0].objects, report.deleted[0].spared), (3, 3));
    assert_eq!(estate.commit(&lost).await.expect_err("gone").kind(), ErrorKind::Denied);
    sound(&estate).await;
}

#[tokio::test]
async fn a_damaged_newer_backup_never_lets_an_older_one_go() {
    let (estate, bases) = of_days(10).await;
    // The pack that the first of the recent ones added is lost: it and all that build on it lack it.
    let lost = bases[6].packs.last().expect("a pack");
    estate.repository.store.delete_all(vec![format!("{E}/data/{}", lost.sha256)]).await.expect("lost");
    let report = estate.prune(&rules(3)).await;
    assert_eq!(report.damaged.len(), 4);
    assert!(!estate.state().await.is_gone(bases[5].sequence), "the newest whole one stays");
    estate.pass(8.0);
    estate.prune(&rules(3)).await;
    assert!(estate.is_whole(&bases[5]).await);
}

#[tokio::test]
async fn damage_that_hides_references_stops_everything() {
    let (estate, bases) = of_days(10).await;
    let manifest = format!("{E}/meta/{}", bases[8].entry.manifest);
    estate.repository.store.replace(&manifest, "damaged".into()).await.expect("replaced");
    let entries = estate.entries().await.len();
    let refused = estate.try_prune(&rules(3)).await.expect_err("what it refers to is not known");
    assert_eq!(refused.kind(), ErrorKind::Integrity);
    assert!(refused.what_it_means().is_some_and(|m| m.contains("nothing is retired or deleted")), "{refused:?}");
    assert_eq!(estate.entries().await.len(), entries);
    estate.repository.store.create(&format!("{E}/wal/00000001/notes.txt"), "x".into()).await.expect("put");
    assert!(estate.try_prune(&rules(3)).await.is_err(), "a stranger in the archive");
}

#[tokio::test]
async fn without_rules_nothing_is_deleted_and_what_waits_comes_back() {
    let (estate, bases) = of_days(10).await;
    estate.prune(&rules(3)).await;
    estate.pass(100.0);
    let report =
        super::prune(&estate.repository, E, None, super::Options::default(), &estate.runtime).await.expect("ran");
    assert_eq!(report.revived.expect("all of it").gone.base_backups, 6);
    for base in &bases {
        assert!(estate.is_whole(base).await);
    }
    assert!(estate.state().await.retired.entries.is_empty());
    sound(&estate).await;
}

#[tokio::test]
async fn objects_that_the_store_keeps_locked_are_named_once_and_tried_again() {
    let (estate, _) = of_days(6).await;
    estate.prune(&rules(2)).await;
    estate.pass(8.0);
    estate.faults.always(Operation::Delete, Fault::Denied);
    let report = estate.prune(&rules(2)).await;
    assert!(report.deleted[0].left > 0 && report.deleted[0].objects == 0, "{:?}", report.deleted);
    assert!(!report.deleted[0].left_named.is_empty());
    let entries = estate.entries().await.len();
    estate.pass(1.0);
    estate.prune(&rules(2)).await;
    assert_eq!(estate.entries().await.len(), entries, "the same news is told once");
    sound(&estate).await;
    estate.faults.heal();
    let report = estate.prune(&rules(2)).await;
    assert_eq!(report.deleted[0].left, 0);
    assert!(estate.state().await.unfinished().next().is_none());
}

#[tokio::test]
async fn a_damaged_list_deletes_nothing_blocks_nobody_and_is_made_anew() {
    let (mut estate, bases) = of_days(6).await;
    estate.prune(&rules(2)).await;
    let list = estate.state().await.waiting[0].1.list.clone();
    estate.repository.store.replace(&format!("{E}/meta/{list}"), "damaged".into()).await.expect("replaced");
    estate.pass(8.0);
    estate.base(bases.last()).await;
    for _ in 0..3 {
        estate.prune(&rules(2)).await;
        estate.pass(8.0);
    }
    assert!(!estate.is_whole(&bases[0]).await && estate.is_whole(bases.last().expect("some")).await);
    assert!(estate.state().await.waiting.is_empty());
}

/// A failure, or a kill, at every call to the store that a run makes, in both phases; then the run once more.
#[tokio::test]
async fn a_run_may_fail_at_every_step_and_the_next_one_goes_on() {
    let (origin, bases) = of_days(5).await;
    let mut steps = 0;
    for operation in [Operation::Put, Operation::Delete, Operation::Get, Operation::List] {
        for fault in [Fault::Fails, Fault::LosesAnswer] {
            if fault == Fault::LosesAnswer && operation != Operation::Put && operation != Operation::Delete {
                continue;
            }
            for nth in [1, 2, 3, 5, 8, 13, 21, 34] {
                let estate = origin.fork().await;
                for phase in 0..2 {
                    estate.faults.nth(operation, nth, fault);
                    let tried = estate.try_prune(&rules(1)).await;
                    steps += u32::from(tried.is_err());
                    // Two at once; the planned fault may lie further on than one run went.
                    let rules = rules(1);
                    let (_, _) = tokio::join!(estate.try_prune(&rules), estate.try_prune(&rules));
                    estate.faults.disarm();
                    estate.prune(&rules).await;
                    estate.pass(if phase == 0 { 8.0 } else { 0.0 });
                }
                // A list that lost the race between two runs is referred to by nothing, and goes with the next cycle.
                estate.prune(&rules(1)).await;
                estate.pass(8.0);
                estate.prune(&rules(1)).await;
                for (n, base) in bases.iter().enumerate() {
                    assert_eq!(estate.is_whole(base).await, n >= 3, "{operation:?} {nth} {fault:?}: base {n}");
                }
                let state = estate.state().await;
                assert!(
                    state.unfinished().next().is_none() && state.waiting.is_empty(),
                    "{operation:?} {nth} {fault:?}"
                );
                sound(&estate).await;
            }
        }
    }
    assert!(steps > 10, "hardly anything failed: {steps}");
}

#[tokio::test]
async fn entries_say_what_happened() {
    let (estate, _) = of_days(6).await;
    estate.prune(&rules(2)).await;
    estate.pass(8.0);
    estate.prune(&rules(2)).await;
    let kinds: Vec<&str> = estate.entries().await[18..].iter().map(|e| e.statement.predicate.body.kind()).collect();
    assert_eq!(kinds, ["retire", "delete", "deleted"]);
    let entries = estate.entries().await;
    let Body::Retire(retire) = &entries[18].statement.predicate.body else { panic!("a retire entry") };
    assert_eq!((retire.rules.recent_seconds, retire.kept_base_backups), (2 * 86_400, 3));
    let rows = crate::evidence::summary::rows(&entries[18..]);
    assert!(rows[0].summary.contains("3 base backups") && rows[0].summary.contains("not deleted before"), "{rows:?}");
    let (store, id) = (&estate.repository.store, &estate.repository.descriptor.repository);
    let trust = estate.repository.trust().await.expect("trust");
    assert!(crate::evidence::verify_ledger(store, E, id, &trust).await.expect("verified").ok);
}
