//! The service itself, its repository, clocks, and what expires.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Bench, Finding, clock, span};
use crate::config::AlertSeverity::{Critical, Warning};
use crate::service::alerts::{Condition, Expiring, Facts, OtherClock};
use crate::service::state::EstateView;
use crate::units::ByteSize;

/// How far clocks may differ.
const CLOCK_OFF: TimeDelta = TimeDelta::seconds(10);

/// How long before its end something is named.
const EXPIRES_SOON: TimeDelta = TimeDelta::days(21);

/// Share of a disk that must be free, in percent.
const ROOM_PERCENT: u64 = 10;

/// Everything that is wrong with the service and with what all environments share.
pub fn of_service(view: &EstateView, facts: &Facts, now: DateTime<Utc>) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some(problem) = &view.config_problem {
        let said = format!("the configuration was not reloaded: {}", problem.message);
        all.push(
            Finding::told(Condition::ConfigurationRefused, Warning, said)
                .meaning("the one before it stays in force; what was changed is not")
                .hints(&problem.hints),
        );
    }
    if view.repository.reachable == Some(false) {
        let why = view.repository.error.as_deref().unwrap_or("it does not answer");
        let long = now - view.repository.since >= TimeDelta::minutes(15);
        let since = clock(view.repository.since);
        let said = format!("the repository {} cannot be reached since {since}: {why}", view.repository.url);
        all.push(
            Finding::told(Condition::RepositoryUnreachable, if long { Critical } else { Warning }, said)
                .meaning(
                    "nothing is backed up meanwhile; PostgreSQL keeps its WAL in the slot, as long as its disk has room",
                )
                .todo("look at the store, the network and the credentials; `lifeboat doctor` tells what is refused"),
        );
    }
    if let Some((free, room)) = facts.room.filter(|(free, room)| free * 100 < room * ROOM_PERCENT) {
        let severity = if free * 100 < room * ROOM_PERCENT / 3 { Critical } else { Warning };
        let said = format!("{} of {} are free on the repository's disk", ByteSize(free), ByteSize(room));
        all.push(
            Finding::told(Condition::RepositoryNearlyFull, severity, said)
                .meaning("when it is full nothing more is backed up, and PostgreSQL's own disk begins to fill with WAL")
                .todo("enlarge the disk, or let `lifeboat prune --dry-run` tell what may go"),
        );
    }
    all.extend(facts.clocks.iter().filter(|c| c.environment.is_none()).filter_map(clock_off));
    all.extend(facts.expiring.iter().filter(|e| e.environment.is_none()).filter_map(|e| expiring(e, now)));
    for (file, why) in &facts.unreadable {
        let said = format!("a certificate cannot be judged: {why}");
        all.push(Finding::told(Condition::CertificateExpiring, Warning, said).about(file.display().to_string()));
    }
    all
}

/// The clock of an environment's server, and what of it expires.
pub(super) fn of_its_host(bench: &Bench<'_>, all: &mut Vec<Finding>) {
    let mine = |owner: &Option<String>| owner.as_deref() == Some(&bench.environment.name);
    let facts = bench.facts;
    all.extend(facts.clocks.iter().filter(|c| mine(&c.environment)).filter_map(clock_off));
    all.extend(facts.expiring.iter().filter(|e| mine(&e.environment)).filter_map(|e| expiring(e, bench.now)));
}

fn clock_off(other: &OtherClock) -> Option<Finding> {
    let off = other.ahead.abs();
    (off > CLOCK_OFF).then(|| {
        let way = if other.ahead > TimeDelta::zero() { "ahead of" } else { "behind" };
        let said = format!("the clock of {} is {} {way} this host's", other.whose, span(off));
        Finding::told(Condition::ClockOff, if off > TimeDelta::minutes(5) { Critical } else { Warning }, said)
            .about(&other.whose)
            .meaning("times of commits, of loss and of schedules are wrong by that much; stores refuse requests beyond 15 minutes")
            .todo("see whether chrony or systemd-timesyncd runs on both hosts")
    })
}

fn expiring(what: &Expiring, now: DateTime<Utc>) -> Option<Finding> {
    let left = what.at - now;
    (left < EXPIRES_SOON).then(|| {
        let condition = if what.certificate { Condition::CertificateExpiring } else { Condition::KeyExpiring };
        let said = match left > TimeDelta::zero() {
            true => format!("{} ends in {}, at {}", what.what, span(left), clock(what.at)),
            false => format!("{} has ended at {}", what.what, clock(what.at)),
        };
        Finding::told(condition, if left < TimeDelta::days(3) { Critical } else { Warning }, said)
            .about(&what.what)
            .meaning("after that, connections that need it are refused, and backups stop")
            .todo("renew it, then reload the service (SIGHUP)")
    })
}
