//! What was proven, and what the record says that somebody must know: drills, odd backups, drift, broken glass.

use chrono::TimeDelta;

use super::{Bench, Finding, View, delta, span};
use crate::config::AlertSeverity::{Critical, Warning};
use crate::service::alerts::Condition;
use crate::units::ByteSize;

/// Backups with which the newest is compared.
const COMPARED: usize = 5;

/// A backup that is this much unlike the others is of a cluster where that says something.
const SIZE_MARGIN_BYTES: u64 = 64 << 20;

pub(super) fn judge(bench: &Bench<'_>, view: &View, all: &mut Vec<Finding>) {
    drills(bench, view, all);
    sizes(bench, view, all);
}

fn drills(bench: &Bench<'_>, view: &View, all: &mut Vec<Finding>) {
    let name = &bench.environment.name;
    let run = format!("lifeboat drill run -e {name}");
    match &view.last_drill {
        Some(drill) if drill.bad => all.push(
            Finding::told(
                Condition::DrillFailed,
                Critical,
                format!("the newest drill did not pass: {}", drill.summary),
            )
            .meaning("it is not proven that a restore gives back what it should")
            .todo(format!("lifeboat evidence show -e {name}    # entry {}", drill.sequence))
            .todo(format!("when it is mended: {run}")),
        ),
        Some(drill) => {
            let age: TimeDelta = bench.now - drill.recorded_at;
            if age > delta(bench.config.drill_age) {
                all.push(
                    Finding::told(Condition::DrillOverdue, Warning, format!("the newest drill is {} old", span(age)))
                        .meaning("what was proven then says less every day")
                        .todo(run),
                );
            }
        }
        None if !view.bases.is_empty() => all.push(
            Finding::told(Condition::DrillOverdue, Warning, "no drill was ever run")
                .meaning("nothing is proven: a backup that was never restored is a hope")
                .todo(run),
        ),
        None => {}
    }
}

/// A backup that is quite unlike those before it: a table emptied by mistake, or rubbish that pours in.
fn sizes(bench: &Bench<'_>, view: &View, all: &mut Vec<Finding>) {
    let [before @ .., newest] = view.bases.as_slice() else { return };
    let mut sizes: Vec<u64> = before.iter().rev().take(COMPARED).map(|base| base.backup.logical_bytes).collect();
    if sizes.is_empty() {
        return;
    }
    sizes.sort_unstable();
    let usual = sizes[sizes.len() / 2];
    let size = newest.backup.logical_bytes;
    let change = size.abs_diff(usual) as f64 / usual.max(1) as f64 * 100.0;
    if change > f64::from(bench.config.size_change_percent) && size.abs_diff(usual) > SIZE_MARGIN_BYTES {
        let way = if size > usual { "larger" } else { "smaller" };
        let (size, usual) = (ByteSize(size), ByteSize(usual));
        let said = format!("the cluster is {change:.0} % {way} than usual: {size}, before {usual}");
        all.push(
            Finding::told(Condition::SizeChange, Warning, said)
                .about(&newest.backup.id)
                .meaning("the backup is sound; what changed in the database may not be meant")
                .todo("ask who emptied or filled a table; every moment before it can still be restored"),
        );
    }
}

/// What the ledger says that somebody must know, a few days long.
pub(super) fn records(bench: &Bench<'_>, all: &mut Vec<Finding>) {
    let name = &bench.environment.name;
    for said in &bench.environment.broken_glass {
        all.push(
            Finding::told(Condition::BreakGlass, Critical, said.clone())
                .about(said.chars().take(80).collect::<String>())
                .meaning("somebody decided alone; the ledger keeps the reason, and a review is due")
                .todo(format!("lifeboat approval list --all -e {name}")),
        );
    }
    for drift in &bench.environment.critical_drift {
        all.push(
            Finding::told(Condition::ConfigurationDrift, Critical, drift.said.clone())
                .about(&drift.export)
                .meaning("backups are sound; what was changed may lose or open data, or keep a restored system from running")
                .todo(format!("lifeboat drift -e {name}    # shows what changed"))
                .todo(format!(
                    "put it right; if it was meant: lifeboat alert silence -e {name} --condition configuration_drift --for 7d --reason \"…\""
                )),
        );
    }
}
