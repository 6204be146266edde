//! `[service]` and `[environment.service]`: how `lifeboat serve` runs, and which instance serves what.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::is_name;
use super::http::{HttpConfig, RawHttpService, http};
use super::raw::Located;
use super::repository::positive;
use super::source::Source;
use super::telemetry::{RawTelemetry, TelemetryConfig, telemetry};
use crate::error::Result;
use crate::units::Span;

const DEFAULT_JOBS: usize = 2;
const DEFAULT_DRILLS: usize = 1;
const DEFAULT_STOP: Duration = Duration::from_secs(60);
const DEFAULT_LEASE: Duration = Duration::from_secs(120);
const DEFAULT_REFRESH: Duration = Duration::from_secs(60);
const SHORTEST_LEASE: Duration = Duration::from_secs(2);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
/// More jobs at once than this are no plan, but a mistake.
const MOST: usize = 64;

/// How `lifeboat serve` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Name of this instance; `None`: the host's.
    pub instance: Option<String>,
    /// Jobs that run at once, drills apart.
    pub jobs_at_once: usize,
    /// Drills that run at once.
    pub drills_at_once: usize,
    /// How long running jobs may go on when the service is stopped.
    pub stop_within: Duration,
    /// How often the repository and PostgreSQL are looked at anew.
    pub refresh_every: Duration,
    /// How long a lease of work lasts unless it is renewed.
    pub lease: Duration,
    /// The page and the API; `None`: there is none.
    pub http: Option<HttpConfig>,
    /// Where traces go; `None`: nowhere, unless the environment says so.
    pub telemetry: Option<TelemetryConfig>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            instance: None,
            jobs_at_once: DEFAULT_JOBS,
            drills_at_once: DEFAULT_DRILLS,
            stop_within: DEFAULT_STOP,
            refresh_every: DEFAULT_REFRESH,
            lease: DEFAULT_LEASE,
            http: None,
            telemetry: None,
        }
    }
}

/// What the service does for an environment, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentService {
    /// The instances that receive its WAL, watch its filestores and run its jobs; `None`: any.
    pub hosts: Option<Vec<String>>,
    /// The instances that run its drills; `None`: any.
    pub drill_hosts: Option<Vec<String>>,
    /// Whether the service receives its WAL.
    pub receive_wal: bool,
    /// Whether the service watches its filestores, where it has any.
    pub watch_filestore: bool,
}

impl Default for EnvironmentService {
    fn default() -> Self {
        Self { hosts: None, drill_hosts: None, receive_wal: true, watch_filestore: true }
    }
}

impl EnvironmentService {
    /// Whether `instance` does the environment's work, drills apart.
    pub fn serves(&self, instance: &str) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|h| h == instance))
    }

    /// Whether `instance` runs the environment's drills.
    pub fn drills(&self, instance: &str) -> bool {
        self.drill_hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|h| h == instance))
    }
}

/// How `lifeboat serve` runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Service")]
pub(super) struct RawService {
    /// Name of this instance, unique among those that share the repository; absent: the host's name.
    instance: Option<Located<String>>,
    /// Jobs that run at once, drills apart, 1 to 64; default 2.
    jobs_at_once: Option<Located<usize>>,
    /// Drills that run at once, 1 to 64; default 1.
    drills_at_once: Option<Located<usize>>,
    /// How long running jobs may go on when the service is stopped, before they are ended; default `60s`.
    stop_within: Option<Located<Span>>,
    /// How often the repository and PostgreSQL are looked at anew, for page, API, metrics and alerts; default `30s`.
    refresh_every: Option<Located<Span>>,
    /// How long an instance has its work unless it says that it is alive, 2s to 1h; the same on all instances; default `60s`.
    lease: Option<Located<Span>>,
    /// The page and the API; absent: there is none.
    http: Option<RawHttpService>,
    /// Where traces go; absent: nowhere, unless `OTEL_EXPORTER_OTLP_ENDPOINT` says so.
    telemetry: Option<RawTelemetry>,
}

/// What the service does for an environment, and where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EnvironmentService")]
pub(super) struct RawEnvironmentService {
    /// Names of the instances that receive its WAL, watch its filestores and run its jobs; absent: any.
    hosts: Option<Located<Vec<Located<String>>>>,
    /// Names of the instances that run its drills; absent: any.
    drill_hosts: Option<Located<Vec<Located<String>>>>,
    /// Whether the service receives its WAL; default true. False where `wal receive` or `wal push` does.
    receive_wal: Option<bool>,
    /// Whether the service watches its filestores; default true.
    watch_filestore: Option<bool>,
}

/// Judges `[service]`.
pub(super) fn service(source: &Source, raw: RawService) -> Result<ServiceConfig> {
    let default = ServiceConfig::default();
    let instance = raw.instance.map(|name| instance(source, name)).transpose()?;
    Ok(ServiceConfig {
        instance,
        jobs_at_once: at_once(source, "jobs_at_once", raw.jobs_at_once, default.jobs_at_once)?,
        drills_at_once: at_once(source, "drills_at_once", raw.drills_at_once, default.drills_at_once)?,
        stop_within: raw.stop_within.map_or(default.stop_within, |span| span.value.0),
        refresh_every: raw
            .refresh_every
            .map(|span| positive(source, "refresh_every", &span))
            .transpose()?
            .unwrap_or(default.refresh_every),
        lease: lease(source, raw.lease, default.lease)?,
        http: raw.http.map(|raw| http(source, raw)).transpose()?,
        telemetry: raw.telemetry.map(|raw| telemetry(source, raw)).transpose()?,
    })
}

/// Judges `[environment.service]`.
pub(super) fn environment_service(source: &Source, raw: RawEnvironmentService) -> Result<EnvironmentService> {
    Ok(EnvironmentService {
        hosts: raw.hosts.map(|hosts| instances(source, hosts)).transpose()?,
        drill_hosts: raw.drill_hosts.map(|hosts| instances(source, hosts)).transpose()?,
        receive_wal: raw.receive_wal.unwrap_or(true),
        watch_filestore: raw.watch_filestore.unwrap_or(true),
    })
}

fn lease(source: &Source, raw: Option<Located<Span>>, default: Duration) -> Result<Duration> {
    match raw {
        Some(raw) if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&raw.value.0) => {
            let (shortest, longest) = (Span(SHORTEST_LEASE), Span(LONGEST_LEASE));
            Err(source
                .error(&raw.span, format!("`lease` is {}; it goes from {shortest} to {longest}", raw.value))
                .hint("shorter ones let another instance take over sooner, and write to the store more often"))
        }
        raw => Ok(raw.map_or(default, |raw| raw.value.0)),
    }
}

fn at_once(source: &Source, key: &str, raw: Option<Located<usize>>, default: usize) -> Result<usize> {
    match raw {
        Some(raw) if !(1..=MOST).contains(&raw.value) => Err(source
            .error(&raw.span, format!("`{key}` is {}; it goes from 1 to {MOST}", raw.value))
            .hint("what an instance must not do at all is said in [environment.service]")),
        raw => Ok(raw.map_or(default, |raw| raw.value)),
    }
}

fn instance(source: &Source, raw: Located<String>) -> Result<String> {
    match is_name(&raw.value) {
        true => Ok(raw.value),
        false => Err(source
            .error(&raw.span, "this is not the name of an instance")
            .hint("use up to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or digit")),
    }
}

fn instances(source: &Source, raw: Located<Vec<Located<String>>>) -> Result<Vec<String>> {
    if raw.value.is_empty() {
        return Err(source
            .error(&raw.span, "no instance is listed")
            .meaning("nobody would do this work")
            .hint("remove the key, and any instance does it"));
    }
    let mut names: Vec<String> = Vec::new();
    for name in raw.value {
        if names.contains(&name.value) {
            return Err(source.error(&name.span, format!("the instance \"{}\" is listed twice", name.value)));
        }
        names.push(instance(source, name)?);
    }
    Ok(names)
}
