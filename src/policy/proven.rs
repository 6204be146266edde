//! What ledger and archive tell: not what is configured, what is.

use super::{Bench, Evidence};
use crate::config::PolicyRule;
use crate::units::Span;

/// Judges what a rule asks of the repository.
pub(super) fn judge(rule: &PolicyRule, bench: &mut Bench<'_>) {
    let name = bench.environment.name.clone();
    let now = bench.now;
    if let Some(limit) = rule.rpo {
        let should = format!("at most {} of work would be lost now", Span(limit));
        let to_do = format!("`lifeboat show -e {name}` says what is behind: receiver, slot, gap");
        let answer = |evidence: &Evidence| match evidence.newest {
            None => (false, "nothing can be restored".to_owned()),
            Some(at) => {
                let lost = (now - at).to_std().unwrap_or_default();
                (lost <= limit, format!("up to {} would be lost", Span(lost)))
            }
        };
        bench.ask(rule, "rpo.actual", should, to_do, answer);
    }
    if let Some(limit) = rule.rto {
        let should = format!("drills bring the data back within {}", Span(limit));
        let answer =
            |evidence: &Evidence| match evidence.passed().find_map(|drill| drill.rto_seconds.map(|s| (s, &drill.id))) {
                None => (false, "no drill has measured it".to_owned()),
                Some((seconds, id)) => {
                    let took = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
                    (took <= limit, format!("{} in drill {id}", Span(took)))
                }
            };
        bench.ask(rule, "rto.actual", should, "a faster machine for restores, or a longer objective", answer);
    }
    for (requirement, limit, what, at) in [
        ("base_backup_every", rule.base_backup_every, "base backup", bench.evidence.and_then(|e| e.base_at)),
        (
            "configuration_every",
            rule.configuration_every,
            "configuration export",
            bench.evidence.and_then(|e| e.export_at),
        ),
    ] {
        let Some(limit) = limit else { continue };
        let answer = bench.age(at, limit);
        let to_do = format!("`lifeboat show -e {name}` lists failures; take one: `lifeboat backup all -e {name}`");
        bench.ask(rule, requirement, format!("a {what} every {}", Span(limit)), to_do, |_| answer);
    }
    if let Some(limit) = rule.filestore_every.filter(|_| !bench.environment.odoo.is_empty()) {
        let oldest = bench.evidence.map(|e| e.filestores.clone()).unwrap_or_default();
        let behind: Vec<String> = oldest
            .iter()
            .map(|(database, at)| (database, bench.age(*at, limit)))
            .filter(|(_, (young, _))| !young)
            .map(|(database, (_, age))| format!("{database}: {age}"))
            .collect();
        let answer = match (oldest.is_empty(), behind.is_empty()) {
            (true, _) => (false, "no filestore was ever captured".to_owned()),
            (false, true) => (true, format!("{} captured", oldest.len())),
            (false, false) => (false, behind.join("; ")),
        };
        let to_do = "start `lifeboat filestore watch`, or capture by schedule".to_owned();
        bench.ask(rule, "filestore_every", format!("every filestore captured within {}", Span(limit)), to_do, |_| {
            answer
        });
    }
    drills(rule, bench);
    if rule.masked_refresh_only {
        let answer = |evidence: &Evidence| {
            let bare: Vec<String> = evidence.refreshes.iter().filter(|r| !r.masked).map(|r| r.what.clone()).collect();
            match bare.is_empty() {
                true => (true, format!("{} copies of other environments, all masked", evidence.refreshes.len())),
                false => (false, bare.join("; ")),
            }
        };
        let to_do = "remove that copy, and make it with `lifeboat refresh`";
        bench.ask(
            rule,
            "masked_refresh_only",
            "copies of other environments are masked and neutralised",
            to_do,
            answer,
        );
    }
    if let Some(limit) = rule.critical_drift_within {
        let since = bench.evidence.and_then(|e| e.critical_drift.clone());
        let answer = match &since {
            None => (true, "none".to_owned()),
            Some((at, what)) => {
                let (young, age) = bench.age(Some(*at), limit);
                (young, format!("{what}, {age}"))
            }
        };
        let to_do = format!(
            "`lifeboat drift -e {name}`: put it right; once it is decided: `lifeboat alert silence -e {name} --condition configuration_drift --for 1d --reason …`"
        );
        bench.ask(rule, "critical_drift", format!("critical drift is looked at within {}", Span(limit)), to_do, |_| {
            answer
        });
    }
}

fn drills(rule: &PolicyRule, bench: &mut Bench<'_>) {
    let Some(duty) = &rule.drill else { return };
    let name = bench.environment.name.clone();
    let run = format!("`lifeboat drill run -e {name}`");
    if duty.every.is_some() {
        bench.ask(
            rule,
            "drill.last",
            "the newest drill did not fail",
            format!("read its report, then {run}"),
            |evidence| match evidence.drills.first() {
                None => (false, "no drill was ever run".to_owned()),
                Some(drill) => (drill.sound, format!("{} {}", drill.id, drill.verdict)),
            },
        );
    }
    let sound = |evidence: &Evidence, random: bool| evidence.passed().find(|d| !random || d.random).map(|d| d.at);
    for (requirement, limit, what, at) in [
        (
            "drill.every",
            duty.every,
            "a drill that brings back sound data",
            bench.evidence.and_then(|e| sound(e, false)),
        ),
        (
            "drill.random_every",
            duty.random_every,
            "a drill to a random moment",
            bench.evidence.and_then(|e| sound(e, true)),
        ),
        (
            "drill.selftest_every",
            duty.selftest_every,
            "a self-test of the checks",
            bench.evidence.and_then(|e| e.selftest_at),
        ),
    ] {
        let Some(limit) = limit else { continue };
        let answer = bench.age(at, limit);
        let to_do = match requirement {
            "drill.random_every" => format!("`lifeboat drill run -e {name} --sample random`"),
            "drill.selftest_every" => format!("`lifeboat drill selftest -e {name}`"),
            _ => run.clone(),
        };
        bench.ask(rule, requirement, format!("{what} every {}", Span(limit)), to_do, |_| answer);
    }
    if duty.sealed {
        bench.ask(rule, "drill.sealed.actual", "the newest drill was sealed", run.clone(), |evidence| {
            match evidence.drills.first() {
                None => (false, "no drill was ever run".to_owned()),
                Some(drill) => {
                    (drill.sealed, if drill.sealed { "sealed".to_owned() } else { format!("{} was not", drill.id) })
                }
            }
        });
    }
    if duty.odoo {
        bench.ask(rule, "drill.odoo.actual", "the newest sound drill started Odoo", run, |evidence| {
            match evidence.passed().next() {
                None => (false, "no drill brought back sound data".to_owned()),
                Some(drill) => (
                    drill.odoo,
                    if drill.odoo { "it started".to_owned() } else { format!("{} started none", drill.id) },
                ),
            }
        });
    }
}
