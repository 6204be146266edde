//! The service in figures: OpenMetrics text for Prometheus (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! Gauges are read from the model ([`EstateView`]) at each scrape, so they cannot disagree with the page; counters count since
//! the service began. What is not known has no sample: no figure is better than a wrong one. Names and meanings are listed in
//! `docs/metrics.md`, which a test compares with what is served.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

use chrono::{DateTime, Utc};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::alerts::Firing;
use super::state::{EnvironmentView, EstateView, JobOutcome, WorkerKind, WorkerState};
use super::view::View;
use crate::config::JobKind;

/// The media type of what [`Metrics::render`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Figures<L> = Family<L, Gauge<f64, AtomicU64>>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: String,
    instance: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Environment {
    environment: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Worker {
    environment: String,
    worker: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    environment: String,
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    environment: String,
    kind: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlertLabels {
    environment: String,
    condition: String,
    severity: String,
    silenced: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    receiver: String,
    result: String,
}

/// What is counted since the service began; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    jobs: Family<Ended, Counter>,
    notifications: Family<Told, Counter>,
    store_retries: Counter,
}

impl Metrics {
    /// A job ended.
    pub fn job_ended(&self, environment: &str, kind: JobKind, outcome: JobOutcome) {
        let labels = Ended { environment: environment.into(), kind: kind.to_string(), outcome: word(outcome).into() };
        self.jobs.get_or_create(&labels).inc();
    }

    /// A receiver was told, or could not be.
    pub fn told(&self, receiver: &str, delivered: bool) {
        let result = if delivered { "delivered" } else { "failed" };
        self.notifications.get_or_create(&Told { receiver: receiver.into(), result: result.into() }).inc();
    }

    /// The store failed and was asked again.
    pub fn store_retry(&self) {
        self.store_retries.inc();
    }

    /// Everything as OpenMetrics text.
    pub fn render(&self, view: &EstateView, now: DateTime<Utc>) -> String {
        let mut registry = Registry::with_prefix("lifeboat");
        service(&mut registry, view);
        let mut figures = EnvironmentFigures::register(&mut registry);
        for environment in &view.environments {
            figures.fill(environment);
        }
        workers(&mut registry, view);
        jobs(&mut registry, view);
        alerts(&mut registry, &view.alerts);
        single(&mut registry, "scrape", "When these figures were read", timestamp(), seconds(now));
        registry.register("jobs", "Jobs that ended", self.jobs.clone());
        registry.register("notifications", "Notifications", self.notifications.clone());
        registry.register("store_retries", "Requests to the store that were made again", self.store_retries.clone());
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            // Writing to a string does not fail; a scrape without its end is refused by Prometheus, which shows.
            let _ = write!(text, "# encoding failed");
        }
        text
    }
}

fn gauge<L>(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>) -> Figures<L>
where
    L: Clone + std::hash::Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Figures::<L>::default();
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family.clone()),
        None => registry.register(name, help, family.clone()),
    }
    family
}

/// A figure without labels.
fn single(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, value: f64) {
    let figure = Gauge::<f64, AtomicU64>::default();
    figure.set(value);
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, figure),
        None => registry.register(name, help, figure),
    }
}

fn service(registry: &mut Registry, view: &EstateView) {
    let build: Figures<Build> = gauge(registry, "build_info", "Version and instance; always 1", None);
    build.get_or_create(&Build { version: view.version.clone(), instance: view.instance.clone() }).set(1.0);
    single(registry, "start", "When the service began", timestamp(), seconds(view.started_at));
    let refused = "1 while the newest configuration is refused and an older one is in force";
    single(registry, "config_refused", refused, None, flag(view.config_problem.is_some()));
    if let Some(reachable) = view.repository.reachable {
        let help = "1 where the repository answered when it was asked last";
        single(registry, "repository_reachable", help, None, flag(reachable));
    }
}

/// How a figure is read; `None` where it is not known.
type Reading = fn(&EnvironmentView) -> Option<f64>;

/// One family for each figure of an environment.
struct EnvironmentFigures {
    families: Vec<(Figures<Environment>, Reading)>,
}

impl EnvironmentFigures {
    fn register(registry: &mut Registry) -> Self {
        fn of(environment: &EnvironmentView) -> Option<&View> {
            environment.view.as_deref()
        }
        let mut families: Vec<(Figures<Environment>, Reading)> = Vec::new();
        let mut add = |name, help, unit, read: Reading| {
            families.push((gauge(registry, name, help, unit), read));
        };
        let time = timestamp;
        let some_seconds = || Some(Unit::Seconds);
        let bytes = || Some(Unit::Bytes);
        add("rpo", "Work that would be lost now, an upper bound", some_seconds(), |e| of(e)?.exposure.seconds);
        add("rpo_objective", "The objective in force", some_seconds(), |e| Some(e.objectives.rpo_seconds));
        add(
            "rto_predicted",
            "How long a restore takes at the worst moment, as far as drills tell",
            some_seconds(),
            |e| Some(e.outlook.as_ref()?.forecast.as_ref()?.predicted_seconds),
        );
        add("rto_objective", "The objective in force", some_seconds(), |e| Some(e.objectives.rto_seconds));
        add("watermark", "To when database, filestore and configuration can all be restored", time(), |e| {
            Some(seconds(of(e)?.watermark.as_ref()?.time?))
        });
        add("last_commit", "The newest commit in the repository", time(), |e| {
            Some(seconds(of(e)?.exposure.last_commit?))
        });
        add("window_start", "The oldest moment that can be restored", time(), |e| {
            Some(seconds(of(e)?.windows.first()?.from.time))
        });
        add("wal_lag", "WAL that the server has and the repository has not", bytes(), |e| {
            Some(of(e)?.exposure.bytes? as f64)
        });
        add("wal_gaps", "Holes in the WAL of the repository", None, |e| Some(of(e)?.gaps.len() as f64));
        add("postgres_reachable", "1 where PostgreSQL answered when it was asked last", None, |e| {
            Some(flag(of(e)?.postgres.reachable))
        });
        add("slot_active", "1 while somebody receives from the replication slot", None, |e| {
            Some(flag(of(e)?.postgres.slot.as_ref()?.active))
        });
        add("slot_held", "WAL that the server keeps for the slot", bytes(), |e| {
            Some(of(e)?.postgres.slot.as_ref()?.held_bytes as f64)
        });
        add("base_backups", "Base backups in the repository", None, |e| Some(of(e)?.bases.len() as f64));
        add("base_backup", "When the newest base backup ended", time(), |e| {
            Some(seconds(of(e)?.bases.last()?.backup.stop_time))
        });
        add("base_backup_size", "Size of the cluster in the newest base backup", bytes(), |e| {
            Some(of(e)?.bases.last()?.backup.logical_bytes as f64)
        });
        add("base_backup_stored", "What the newest base backup added to the repository", bytes(), |e| {
            Some(of(e)?.bases.last()?.backup.stored_bytes as f64)
        });
        add("base_backup_duration", "How long the newest base backup took", some_seconds(), |e| {
            Some(of(e)?.bases.last()?.backup.seconds)
        });
        add("drill", "When the newest drill was recorded", time(), |e| {
            Some(seconds(of(e)?.last_drill.as_ref()?.recorded_at))
        });
        add("drill_passed", "1 where the newest drill passed", None, |e| Some(flag(!of(e)?.last_drill.as_ref()?.bad)));
        add("ledger_entries", "Sound entries of the ledger", None, |e| Some(of(e)?.ledger_entries as f64));
        add("ledger_problems", "What is wrong with the ledger", None, |e| Some(of(e)?.ledger_problems.len() as f64));
        add("look", "When these figures of the environment were found out", time(), |e| Some(seconds(of(e)?.now)));
        Self { families }
    }

    fn fill(&mut self, environment: &EnvironmentView) {
        for (family, read) in &self.families {
            if let Some(value) = read(environment) {
                family.get_or_create(&Environment { environment: environment.name.clone() }).set(value);
            }
        }
    }
}

fn workers(registry: &mut Registry, view: &EstateView) {
    let running: Figures<Worker> = gauge(
        registry,
        "worker_running",
        "1 while the worker runs in this instance; no sample where another does it",
        None,
    );
    let restarts: Figures<Worker> =
        gauge(registry, "worker_restarts", "How often the worker failed and was started again", None);
    for environment in &view.environments {
        for worker in &environment.workers {
            if matches!(worker.state, WorkerState::Elsewhere { .. }) {
                continue;
            }
            let kind = match worker.kind {
                WorkerKind::Wal => "wal",
                WorkerKind::Filestore => "filestore",
            };
            let labels = Worker { environment: environment.name.clone(), worker: kind.into() };
            running.get_or_create(&labels).set(flag(worker.state == WorkerState::Running));
            restarts.get_or_create(&labels).set(worker.restarts as f64);
        }
    }
}

fn jobs(registry: &mut Registry, view: &EstateView) {
    let running: Figures<Kind> = gauge(registry, "jobs_running", "Jobs that run now", None);
    for job in view.jobs_running.iter().filter(|job| job.started_at.is_some()) {
        let labels = Kind { environment: job.environment.clone(), kind: job.kind.to_string() };
        running.get_or_create(&labels).inc();
    }
}

fn alerts(registry: &mut Registry, firing: &[Firing]) {
    let family: Figures<AlertLabels> = gauge(registry, "alerts", "Alerts that fire", None);
    for firing in firing {
        let key = &firing.alert.key;
        let labels = AlertLabels {
            environment: key.environment.clone().unwrap_or_default(),
            condition: key.condition.name(),
            severity: firing.alert.severity.word().into(),
            silenced: firing.silenced_by.is_some().to_string(),
        };
        family.get_or_create(&labels).inc();
    }
}

fn timestamp() -> Option<Unit> {
    Some(Unit::Other("timestamp_seconds".into()))
}

fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_micros() as f64 / 1e6
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

fn word(outcome: JobOutcome) -> &'static str {
    match outcome {
        JobOutcome::Done => "done",
        JobOutcome::Partial => "partial",
        JobOutcome::Failed => "failed",
        JobOutcome::Interrupted => "interrupted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::alerts::{Alert, Condition};
    use crate::service::state::tests::empty;
    use crate::service::testing::environment;

    fn scrape() -> String {
        let metrics = Metrics::default();
        metrics.job_ended("production", JobKind::Base, JobOutcome::Done);
        metrics.told("oncall", true);
        metrics.store_retry();
        let mut view = empty();
        view.environments.push(environment("production"));
        view.repository.reachable = Some(true);
        let alert = Alert::of_service(Condition::ClockOff, crate::config::AlertSeverity::Warning, "off");
        let at = DateTime::UNIX_EPOCH;
        view.alerts.push(Firing { alert, since: at, seen: at, silenced_by: None });
        metrics.render(&view, at)
    }

    #[test]
    fn figures_are_told_and_what_is_not_known_is_not() {
        let text = scrape();
        for line in [
            "lifeboat_build_info{version=\"0\",instance=\"here\"} 1.0",
            "lifeboat_rpo_objective_seconds{environment=\"production\"} 60.0",
            "lifeboat_jobs_total{environment=\"production\",kind=\"base\",outcome=\"done\"} 1",
            "lifeboat_alerts{environment=\"\",condition=\"clock_off\",severity=\"warning\",silenced=\"false\"} 1.0",
            "lifeboat_repository_reachable 1.0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("lifeboat_rpo_seconds{"), "nothing is known of the loss yet:\n{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn every_metric_is_documented() {
        let page = include_str!("../../docs/metrics.md");
        let text = scrape();
        let named = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let missing: Vec<&str> = named.filter(|name| !page.contains(&format!("`{name}"))).collect();
        assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    }
}
