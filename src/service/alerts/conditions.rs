//! What is wrong, read from the model of the service. Pure: the same model at the same moment gives the same alerts.
//!
//! Each says what it means for the data and what to do first. Thresholds are the configuration's ([`AlertsConfig`]).

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::alert::{Alert, Condition};
use super::facts::Facts;
use crate::config::{AlertSeverity, AlertsConfig, JobKind};
use crate::service::state::{EnvironmentView, EstateView, JobOutcome, WorkerState};
use crate::service::view::View;
use crate::units::{ByteSize, Span};

use AlertSeverity::{Critical, Info, Warning};

/// WAL that the repository may be behind, whatever the objective says: a burst.
const WAL_LAG_BYTES: u64 = 1 << 30;

/// What remains of `max_slot_wal_keep_size` when the slot counts as at risk.
const SLOT_MARGIN_BYTES: i64 = 4 << 30;

/// How far clocks may differ.
const CLOCK_OFF: TimeDelta = TimeDelta::seconds(10);

/// How long before its end something is named.
const EXPIRES_SOON: TimeDelta = TimeDelta::days(21);

/// Share of a disk that must be free, in percent.
const ROOM_PERCENT: u64 = 10;

/// How long a worker may fail before somebody is told.
const WORKER_GRACE: TimeDelta = TimeDelta::minutes(2);

/// Backups with which the newest is compared.
const COMPARED: usize = 5;

/// Everything that is wrong at `now`.
pub fn conditions(view: &EstateView, facts: &Facts, config: &AlertsConfig, now: DateTime<Utc>) -> Vec<Alert> {
    let mut alerts = of_service(view, facts, now);
    for environment in &view.environments {
        let mut own = of_environment(environment, view, facts, config, now);
        for alert in &mut own {
            alert.key.environment = Some(environment.name.clone());
            alert.owner = Some(environment.owner.clone());
            alert.purpose = Some(environment.purpose);
        }
        alerts.append(&mut own);
    }
    alerts
}

fn of_service(view: &EstateView, facts: &Facts, now: DateTime<Utc>) -> Vec<Alert> {
    let mut alerts = Vec::new();
    if let Some(problem) = &view.config_problem {
        let alert = Alert::of_service(
            Condition::ConfigurationRefused,
            Warning,
            format!("the configuration was not reloaded: {}", problem.message),
        );
        let alert = alert.meaning("the one before it stays in force; what was changed is not");
        alerts.push(problem.hints.iter().fold(alert, |alert, hint| alert.todo(hint)));
    }
    if view.repository.reachable == Some(false) {
        let why = view.repository.error.as_deref().unwrap_or("it does not answer");
        let long = now - view.repository.since >= TimeDelta::minutes(15);
        alerts.push(
            Alert::of_service(
                Condition::RepositoryUnreachable,
                if long { Critical } else { Warning },
                format!(
                    "the repository {} cannot be reached since {}: {why}",
                    view.repository.url,
                    clock(view.repository.since)
                ),
            )
            .meaning(
                "nothing is backed up meanwhile; PostgreSQL keeps its WAL in the slot, as long as its disk has room",
            )
            .todo("look at the store, the network and the credentials; `lifeboat doctor` tells what is refused"),
        );
    }
    if let Some((free, all)) = facts.room.filter(|(free, all)| free * 100 < all * ROOM_PERCENT) {
        alerts.push(
            Alert::of_service(
                Condition::RepositoryNearlyFull,
                if free * 100 < all * ROOM_PERCENT / 3 { Critical } else { Warning },
                format!("{} of {} are free on the repository's disk", ByteSize(free), ByteSize(all)),
            )
            .meaning("when it is full nothing more is backed up, and PostgreSQL's own disk begins to fill with WAL")
            .todo("enlarge the disk, or let `lifeboat prune --dry-run` tell what may go"),
        );
    }
    alerts.extend(facts.clocks.iter().filter(|c| c.environment.is_none()).filter_map(clock_off));
    alerts.extend(facts.expiring.iter().filter(|e| e.environment.is_none()).filter_map(|e| expiring(e, now)));
    for (file, why) in &facts.unreadable {
        alerts.push(
            Alert::of_service(
                Condition::CertificateExpiring,
                Warning,
                format!("a certificate cannot be judged: {why}"),
            )
            .about(file.display().to_string()),
        );
    }
    alerts
}

fn clock_off(other: &super::facts::OtherClock) -> Option<Alert> {
    let off = other.ahead.abs();
    (off > CLOCK_OFF).then(|| {
        let way = if other.ahead > TimeDelta::zero() { "ahead of" } else { "behind" };
        Alert::of_service(
            Condition::ClockOff,
            if off > TimeDelta::minutes(5) { Critical } else { Warning },
            format!("the clock of {} is {} {way} this host's", other.whose, span(off)),
        )
        .about(&other.whose)
        .meaning("times of commits, of loss and of schedules are wrong by that much; stores refuse requests beyond 15 minutes")
        .todo("see whether chrony or systemd-timesyncd runs on both hosts")
    })
}

fn expiring(what: &super::facts::Expiring, now: DateTime<Utc>) -> Option<Alert> {
    let left = what.at - now;
    (left < EXPIRES_SOON).then(|| {
        let condition = if what.certificate { Condition::CertificateExpiring } else { Condition::KeyExpiring };
        let said = match left > TimeDelta::zero() {
            true => format!("{} ends in {}, at {}", what.what, span(left), clock(what.at)),
            false => format!("{} has ended at {}", what.what, clock(what.at)),
        };
        Alert::of_service(condition, if left < TimeDelta::days(3) { Critical } else { Warning }, said)
            .about(&what.what)
            .meaning("after that, connections that need it are refused, and backups stop")
            .todo("renew it, then reload the service (SIGHUP)")
    })
}

fn of_environment(
    environment: &EnvironmentView,
    estate: &EstateView,
    facts: &Facts,
    config: &AlertsConfig,
    now: DateTime<Utc>,
) -> Vec<Alert> {
    let mut alerts = Vec::new();
    if let Some(view) = &environment.view {
        recoverability(&mut alerts, environment, view, config, now);
        server(&mut alerts, environment, view);
        proofs(&mut alerts, environment, view, config, now);
        sizes(&mut alerts, view, config);
    }
    for said in &environment.broken_glass {
        alerts.push(
            Alert::of_service(Condition::BreakGlass, Critical, said.clone())
                .about(said.chars().take(80).collect::<String>())
                .meaning("somebody decided alone; the ledger keeps the reason, and a review is due")
                .todo(format!("lifeboat approval list -e {}", environment.name)),
        );
    }
    workers(&mut alerts, environment, now);
    jobs(&mut alerts, environment, estate, now);
    let mine = |owner: &Option<String>| owner.as_deref() == Some(&environment.name);
    alerts.extend(facts.clocks.iter().filter(|c| mine(&c.environment)).filter_map(clock_off));
    alerts.extend(facts.expiring.iter().filter(|e| mine(&e.environment)).filter_map(|e| expiring(e, now)));
    alerts
}

/// What could be restored, and what would be lost.
fn recoverability(
    alerts: &mut Vec<Alert>,
    environment: &EnvironmentView,
    view: &View,
    config: &AlertsConfig,
    now: DateTime<Utc>,
) {
    let name = &environment.name;
    if let Some(why) = &view.unreadable {
        alerts.push(
            Alert::of_service(Condition::LedgerDamaged, Critical, format!("the ledger cannot be used: {why}"))
                .meaning("what can be restored is not known to the service; the data itself may be untouched")
                .todo(format!("lifeboat evidence verify -e {name}"))
                .todo(format!("lifeboat verify -e {name}")),
        );
    } else if view.windows.is_empty() {
        alerts.push(
            Alert::of_service(Condition::NothingRestorable, Critical, "nothing can be restored".to_owned())
                .meaning("if the database is lost now, it is lost")
                .todo(format!("lifeboat backup all -e {name}"))
                .todo(format!("lifeboat show -e {name}")),
        );
    }
    for problem in &view.ledger_problems {
        alerts.push(
            Alert::of_service(Condition::LedgerDamaged, Critical, problem.clone())
                .about(problem.chars().take(60).collect::<String>())
                .meaning("somebody or something changed the record; restores go on with what is sound")
                .todo(format!("lifeboat evidence verify -e {name}")),
        );
    }
    exposure(alerts, environment, view, config, now);
    for gap in &view.gaps {
        alerts.push(
            Alert::of_service(
                Condition::WalGap,
                Critical,
                format!("WAL is missing: {} to {}, {} segments", gap.first, gap.last, gap.segments),
            )
            .about(&gap.first)
            .meaning("no second within the hole, and none behind it up to the next base backup, can be restored")
            .todo(format!("lifeboat backup base -e {name}    # what comes after it is safe again"))
            .todo("if the segments still exist anywhere: lifeboat wal push"),
        );
    }
    if let Some(base) = view.bases.last() {
        let age = now - base.backup.stop_time;
        if age > delta(config.base_age) {
            alerts.push(
                Alert::of_service(
                    Condition::BackupOverdue,
                    Warning,
                    format!("the newest base backup is {} old", span(age)),
                )
                .meaning("no data is at risk as long as WAL arrives, but a restore replays all WAL since then")
                .todo(format!("lifeboat backup base -e {name}")),
            );
        }
        if !base.restorable {
            let why = base.why_not.as_deref().unwrap_or("something that it needs is missing");
            alerts.push(
                Alert::of_service(
                    Condition::VerificationFailed,
                    Critical,
                    format!("base backup {} cannot be restored: {why}", base.backup.id),
                )
                .about(&base.backup.id)
                .todo(format!("lifeboat backup base -e {name}")),
            );
        }
    }
    if let Some(forecast) = environment.outlook.as_ref().and_then(|outlook| outlook.forecast.as_ref()) {
        let objective = environment.objectives.rto_seconds;
        let predicted = forecast.predicted_seconds;
        let said = format!(
            "a restore at the worst moment takes {}, as far as drills tell; the objective is {}",
            seconds(predicted),
            seconds(objective)
        );
        let alert = match predicted {
            p if p > objective => Some(Alert::of_service(Condition::RtoMissed, Warning, said)),
            p if p > objective * f64::from(config.danger_percent) / 100.0 => {
                Some(Alert::of_service(Condition::RtoInDanger, Info, said))
            }
            _ => None,
        };
        alerts.extend(alert.map(|alert| {
            alert
                .meaning("no data is at risk; the shop would stand still longer than its owner accepts")
                .todo("take base backups more often: less WAL to replay")
                .todo(format!("lifeboat drill coverage -e {name}    # shows what takes the time"))
        }));
    }
}

/// What would be lost now, against the objective.
fn exposure(
    alerts: &mut Vec<Alert>,
    environment: &EnvironmentView,
    view: &View,
    config: &AlertsConfig,
    now: DateTime<Utc>,
) {
    let objective = environment.objectives.rpo_seconds;
    // The look is as old as it is: what nobody has looked at since is not known to be safe.
    let age = (now - view.now).to_std().unwrap_or_default().as_secs_f64();
    let stale = environment.trouble.is_some();
    let Some(lost) = view.exposure.seconds.map(|seconds| if stale { seconds + age } else { seconds }) else { return };
    let said = format!("{} of work would be lost now; the objective is {}", seconds(lost), seconds(objective));
    let alert = match lost {
        l if l > objective => Some(Alert::of_service(Condition::RpoMissed, Critical, said)),
        l if l > objective * f64::from(config.danger_percent) / 100.0 => {
            Some(Alert::of_service(Condition::RpoInDanger, Warning, said))
        }
        _ => None,
    };
    alerts.extend(alert.map(|alert| {
        alert
            .meaning("WAL does not reach the repository; PostgreSQL keeps it, as long as its disk has room")
            .todo(format!("lifeboat show -e {}", environment.name))
            .todo("see the receiver's last failure on the page; look at the network between PostgreSQL, Lifeboat and the store")
    }));
    if let Some(bytes) = view.exposure.bytes.filter(|bytes| *bytes > WAL_LAG_BYTES) {
        alerts.push(
            Alert::of_service(
                Condition::WalLag,
                Warning,
                format!("the repository is {} of WAL behind the server", ByteSize(bytes)),
            )
            .meaning("it is on the server's disk, and would be lost with it")
            .todo("see whether the store or the network is slower than the server writes"),
        );
    }
}

/// PostgreSQL and its slot.
fn server(alerts: &mut Vec<Alert>, environment: &EnvironmentView, view: &View) {
    let server = &view.postgres;
    if !server.reachable {
        let why = server.error.as_deref().unwrap_or("it does not answer");
        alerts.push(
            Alert::of_service(Condition::PostgresUnreachable, Warning, format!("PostgreSQL cannot be reached: {why}"))
                .meaning("what was received is safe; nothing new is, until it is back")
                .todo("if the database is lost: runbooks/restore.md, or `lifeboat runbook`"),
        );
        return;
    }
    let Some(slot) = &server.slot else { return };
    let name = &server.slot_name;
    let status = slot.wal_status.as_deref();
    let alert = match status {
        Some("lost") => Some((Critical, format!("PostgreSQL has given up the slot \"{name}\""))),
        Some("unreserved") => Some((Critical, format!("PostgreSQL is about to give up the slot \"{name}\""))),
        _ if !slot.active => Some((
            if slot.held_bytes > WAL_LAG_BYTES { Critical } else { Warning },
            format!("nobody receives from the slot \"{name}\", which holds {} of WAL", ByteSize(slot.held_bytes)),
        )),
        _ if slot.safe_bytes.is_some_and(|safe| safe < SLOT_MARGIN_BYTES && slot.held_bytes > WAL_LAG_BYTES) => Some((
            Warning,
            format!("the slot \"{name}\" holds {}, near max_slot_wal_keep_size", ByteSize(slot.held_bytes)),
        )),
        _ => None,
    };
    alerts.extend(alert.map(|(severity, said)| {
        Alert::of_service(Condition::SlotAtRisk, severity, said)
            .about(name)
            .meaning(
                "WAL that was not received yet may be removed by the server: a hole that only a base backup closes",
            )
            .todo(format!("let the receiver run: `lifeboat serve`, or lifeboat wal receive -e {}", environment.name))
            .todo("watch the free space of pg_wal's disk: what the slot holds back fills it")
    }));
}

/// Drills and verifications.
fn proofs(
    alerts: &mut Vec<Alert>,
    environment: &EnvironmentView,
    view: &View,
    config: &AlertsConfig,
    now: DateTime<Utc>,
) {
    let name = &environment.name;
    match &view.last_drill {
        Some(drill) if drill.bad => alerts.push(
            Alert::of_service(
                Condition::DrillFailed,
                Critical,
                format!("the newest drill did not pass: {}", drill.summary),
            )
            .meaning("it is not proven that a restore gives back what it should")
            .todo(format!("lifeboat evidence show -e {name}    # entry {}", drill.sequence))
            .todo(format!("when it is mended: lifeboat drill run -e {name}")),
        ),
        Some(drill) if now - drill.recorded_at > delta(config.drill_age) => alerts.push(
            Alert::of_service(
                Condition::DrillOverdue,
                Warning,
                format!("the newest drill is {} old", span(now - drill.recorded_at)),
            )
            .meaning("what was proven then says less every day")
            .todo(format!("lifeboat drill run -e {name}")),
        ),
        None if !view.bases.is_empty() => alerts.push(
            Alert::of_service(Condition::DrillOverdue, Warning, "no drill was ever run".to_owned())
                .meaning("nothing is proven: a backup that was never restored is a hope")
                .todo(format!("lifeboat drill run -e {name}")),
        ),
        _ => {}
    }
}

/// A backup that is quite unlike those before it: a table emptied by mistake, or rubbish that pours in.
fn sizes(alerts: &mut Vec<Alert>, view: &View, config: &AlertsConfig) {
    let [before @ .., newest] = view.bases.as_slice() else { return };
    let mut sizes: Vec<u64> = before.iter().rev().take(COMPARED).map(|base| base.backup.logical_bytes).collect();
    if sizes.is_empty() {
        return;
    }
    sizes.sort_unstable();
    let usual = sizes[sizes.len() / 2];
    let size = newest.backup.logical_bytes;
    let change = size.abs_diff(usual) as f64 / usual.max(1) as f64 * 100.0;
    if change > f64::from(config.size_change_percent) && size.abs_diff(usual) > 64 << 20 {
        let way = if size > usual { "larger" } else { "smaller" };
        alerts.push(
            Alert::of_service(
                Condition::SizeChange,
                Warning,
                format!(
                    "the cluster is {change:.0} % {way} than usual: {}, before {}",
                    ByteSize(size),
                    ByteSize(usual)
                ),
            )
            .about(&newest.backup.id)
            .meaning("the backup is sound; what changed in the database may not be meant")
            .todo("ask who emptied or filled a table; every moment before it can still be restored"),
        );
    }
}

fn workers(alerts: &mut Vec<Alert>, environment: &EnvironmentView, now: DateTime<Utc>) {
    for worker in &environment.workers {
        let WorkerState::Waiting { .. } = worker.state else { continue };
        let Some(failure) = &worker.last_failure else { continue };
        if now - worker.since < WORKER_GRACE && worker.restarts < 3 {
            continue;
        }
        let what = match worker.kind {
            crate::service::state::WorkerKind::Wal => "receiver of WAL",
            crate::service::state::WorkerKind::Filestore => "watcher of filestores",
        };
        let alert =
            Alert::of_service(Condition::WorkerFailing, Critical, format!("the {what} fails: {}", failure.message))
                .about(what)
                .meaning("it is started again and again; until it works, what is new is not safe");
        alerts.push(failure.hints.iter().fold(alert, |alert, hint| alert.todo(hint)));
    }
}

/// Scheduled work: the newest run of each job, and what did not run.
fn jobs(alerts: &mut Vec<Alert>, environment: &EnvironmentView, estate: &EstateView, now: DateTime<Utc>) {
    let mut seen: Vec<(Option<&str>, JobKind)> = Vec::new();
    for job in estate.recent_jobs.iter().filter(|job| job.environment == environment.name) {
        let what = (job.job.as_deref(), job.kind);
        if seen.contains(&what) {
            continue;
        }
        seen.push(what);
        let (severity, said) = match job.outcome {
            JobOutcome::Done => continue,
            JobOutcome::Partial => (Warning, "was done in part"),
            JobOutcome::Failed => (if job.kind == JobKind::Verify { Critical } else { Warning }, "failed"),
            // By a stop of the service: it is run again.
            JobOutcome::Interrupted => continue,
        };
        let condition = match job.kind {
            JobKind::Verify => Condition::VerificationFailed,
            _ => Condition::JobFailed,
        };
        let name = job.job.clone().unwrap_or_else(|| job.kind.to_string());
        let alert = Alert::of_service(condition, severity, format!("{name} {said}: {}", job.message))
            .about(name)
            .meaning(match job.kind {
                JobKind::Verify => "the repository holds less than it promised; the message says what it costs",
                _ => "what it should have done was not done; what was done before stays as it is",
            });
        let alert = job.hints.iter().fold(alert, |alert, hint| alert.todo(hint));
        alerts.push(alert.todo(format!("again: lifeboat {}", job.command.join(" "))));
    }
    for due in estate.next.iter().filter(|due| due.environment == environment.name) {
        let late = now - due.scheduled_for;
        let excused = due.because.is_some() && due.expected_at.is_some();
        if late > TimeDelta::hours(1) && !excused {
            let why = due.because.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            alerts.push(
                Alert::of_service(
                    Condition::JobOverdue,
                    Warning,
                    format!("{} was due at {} and has not begun{why}", due.job, clock(due.scheduled_for)),
                )
                .about(&due.job)
                .todo(format!("lifeboat schedule preview -e {}", environment.name)),
            );
        }
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

fn span(delta: TimeDelta) -> Span {
    Span(delta.abs().to_std().unwrap_or_default())
}

fn seconds(seconds: f64) -> Span {
    Span(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn clock(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
