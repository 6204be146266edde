//! What can be restored, what would be lost, and how long it would take to be back.

use chrono::TimeDelta;

use super::{Bench, Finding, View, WAL_LAG_BYTES, delta, seconds, span};
use crate::config::AlertSeverity::{Critical, Info, Warning};
use crate::service::alerts::Condition;
use crate::service::view::Base;
use crate::units::ByteSize;

pub(super) fn judge(bench: &Bench<'_>, view: &View, all: &mut Vec<Finding>) {
    readable(bench, view, all);
    exposure(bench, view, all);
    gaps(bench, view, all);
    bases(bench, view, all);
    filestores(bench, view, all);
    for trouble in &view.troubles {
        let verify = format!("lifeboat verify -e {}    # says what that affects", bench.environment.name);
        all.push(Finding::shown(Warning, trouble).todo(verify));
    }
    forecast(bench, all);
}

/// Whether ledger and archive can be used at all.
fn readable(bench: &Bench<'_>, view: &View, all: &mut Vec<Finding>) {
    let name = &bench.environment.name;
    if let Some(why) = &view.unreadable {
        // A repository that is away, or not opened yet, says nothing about its ledger; of that somebody else is told.
        let away = bench.estate.repository.reachable != Some(true);
        let finding = match away {
            true => Finding::shown(Critical, format!("the repository cannot be read: {why}")),
            false => Finding::told(Condition::LedgerDamaged, Critical, format!("the ledger cannot be used: {why}")),
        };
        all.push(
            finding
                .meaning("what can be restored is not known to the service; the data itself may be untouched")
                .todo(if away { "lifeboat doctor".to_owned() } else { format!("lifeboat evidence verify -e {name}") })
                .todo(format!("lifeboat verify -e {name}")),
        );
    } else if view.windows.is_empty() {
        let backup = if view.bases.is_empty() { "all" } else { "base" };
        all.push(
            Finding::told(Condition::NothingRestorable, Critical, "nothing can be restored")
                .meaning("if the database is lost now, it is lost")
                .todo(format!("lifeboat backup {backup} -e {name}"))
                .todo(format!("lifeboat show -e {name}")),
        );
    }
    for problem in &view.ledger_problems {
        all.push(
            Finding::told(Condition::LedgerDamaged, Critical, format!("the ledger is damaged: {problem}"))
                .about(problem.chars().take(60).collect::<String>())
                .meaning("somebody or something changed the record; restores go on with what is sound")
                .todo(format!("lifeboat evidence verify -e {name}    # lists all that is wrong"))
                .todo("bring the named objects back from the bucket's versions or from a copy"),
        );
    }
}

/// What would be lost now, against the objective in force.
fn exposure(bench: &Bench<'_>, view: &View, all: &mut Vec<Finding>) {
    let objective = bench.environment.objectives.rpo_seconds;
    // The look is as old as it is: what nobody has looked at since is not known to be safe.
    let age = (bench.now - view.now).to_std().unwrap_or_default().as_secs_f64();
    let stale = bench.environment.trouble.is_some();
    let Some(lost) = view.exposure.seconds.map(|seconds| if stale { seconds + age } else { seconds }) else { return };
    let said = format!("{} of work would be lost now; the objective is {}", seconds(lost), seconds(objective));
    let finding = match lost {
        l if l > objective => Some(Finding::told(Condition::RpoMissed, Critical, said)),
        l if l > objective * f64::from(bench.config.danger_percent) / 100.0 => {
            Some(Finding::told(Condition::RpoInDanger, Warning, said))
        }
        _ => None,
    };
    all.extend(finding.map(|finding| {
        finding
            .meaning("WAL does not reach the repository; PostgreSQL keeps it, as long as its disk has room")
            .todo(format!("lifeboat show -e {}", bench.environment.name))
            .todo("see the receiver's last failure on the page; look at the network between PostgreSQL, Lifeboat and the store")
    }));
    if let Some(bytes) = view.exposure.bytes.filter(|bytes| *bytes > WAL_LAG_BYTES) {
        let said = format!("the repository is {} of WAL behind the server", ByteSize(bytes));
        all.push(
            Finding::told(Condition::WalLag, Warning, said)
                .meaning("it is on the server's disk, and would be lost with it")
                .todo("see whether the store or the network is slower than the server writes"),
        );
    }
}

/// Holes in the WAL behind the oldest base backup; WAL before it is of no use to anybody.
fn gaps(bench: &Bench<'_>, view: &View, all: &mut Vec<Finding>) {
    let oldest = view.bases.iter().map(|b| b.backup.start_lsn).min();
    for gap in view.gaps.iter().filter(|gap| oldest.is_some_and(|start| gap.to > start)) {
        let which = match gap.segments {
            1 => format!("segment {}", gap.first),
            n => format!("{} to {}, {n} segments", gap.first, gap.last),
        };
        all.push(
            Finding::told(Condition::WalGap, Critical, format!("WAL is missing: {which}"))
                .about(&gap.first)
                .meaning("no second within the hole, and none behind it up to the next base backup, can be restored")
                .todo(format!(
                    "lifeboat backup base -e {}    # what comes after it is safe again",
                    bench.environment.name
                ))
                .todo("if the segments still exist anywhere: lifeboat wal push"),
        );
    }
}

fn bases(bench: &Bench<'_>, view: &View, all: &mut Vec<Finding>) {
    let name = &bench.environment.name;
    let [before @ .., newest] = view.bases.as_slice() else { return };
    let age: TimeDelta = bench.now - newest.backup.stop_time;
    if age > delta(bench.config.base_age) {
        all.push(
            Finding::told(Condition::BackupOverdue, Warning, format!("the newest base backup is {} old", span(age)))
                .meaning("no data is at risk as long as WAL arrives, but a restore replays all WAL since then")
                .todo(format!("lifeboat backup base -e {name}")),
        );
    }
    let broken = |base: &Base| {
        let why = base.why_not.as_deref().unwrap_or("something that it needs is missing");
        format!("base backup {} cannot be restored: {why}", base.backup.id)
    };
    if !newest.restorable {
        all.push(
            Finding::told(Condition::VerificationFailed, Critical, broken(newest))
                .about(&newest.backup.id)
                .todo(format!("lifeboat backup base -e {name}")),
        );
    }
    // A newer one can be restored: nobody need get up, and nobody can mend it.
    for base in before.iter().filter(|base| !base.restorable) {
        let verify = format!("lifeboat verify -e {name}    # says what is missing");
        all.push(Finding::shown(Warning, broken(base)).about(&base.backup.id).todo(verify));
    }
}

fn filestores(bench: &Bench<'_>, view: &View, all: &mut Vec<Finding>) {
    for filestore in &view.filestores {
        let capture = &filestore.capture;
        let (unsound, missing) = (capture.suspects.len(), capture.missing_at_source.len());
        if unsound + missing == 0 && capture.complete {
            continue;
        }
        let incomplete = if capture.complete { "" } else { ", and its capture is incomplete" };
        let database = &filestore.database;
        let said = format!(
            "the filestore of {database} has {unsound} unsound and {missing} missing files at its source{incomplete}"
        );
        all.push(
            Finding::shown(Warning, said)
                .about(database)
                .todo(format!("lifeboat --format json show -e {}    # names the files", bench.environment.name))
                .todo("find them in older backups of the source; Lifeboat keeps what it has"),
        );
    }
}

/// How long the next restore takes, with what people need, against the objective in force.
fn forecast(bench: &Bench<'_>, all: &mut Vec<Finding>) {
    let Some(forecast) = bench.environment.outlook.as_ref().and_then(|outlook| outlook.forecast.as_ref()) else {
        return;
    };
    let objective = bench.environment.objectives.rto_seconds;
    let takes = forecast.predicted_seconds + forecast.assumed_seconds;
    let said = format!(
        "a restore at the worst moment would take {}, as far as drills tell; the objective is {}",
        seconds(takes),
        seconds(objective)
    );
    let finding = match takes {
        takes if takes > objective => Some(Finding::told(Condition::RtoMissed, Warning, said)),
        takes if takes > objective * f64::from(bench.config.danger_percent) / 100.0 => {
            Some(Finding::told(Condition::RtoInDanger, Info, said))
        }
        _ => None,
    };
    all.extend(finding.map(|finding| {
        finding
            .meaning("no data is at risk; the shop would stand still longer than its owner accepts")
            .todo("take base backups more often: less WAL to replay")
            .todo(format!("lifeboat drill coverage -e {}    # shows what takes the time", bench.environment.name))
    }));
}
