//! The estate's configuration files, parsed to validated types; errors carry file, line and column.
//!
//! [`Estate::load`] reads `lifeboat.toml` and what it includes. `raw` is the shape of the files,
//! `read` and `check` turn it into the types of `estate`, `source` places errors, `secret` is how a
//! credential is named and fetched, `glob` expands patterns, `schema` is the shape for editors.

mod alerts;
mod calendar;
mod check;
mod cron;
mod drift;
mod drill_container;
mod drill_odoo;
mod estate;
mod glob;
mod http;
mod ical;
mod job;
mod job_kind;
mod load;
mod masking;
mod policy;
mod policy_raw;
mod raw;
mod raw_check;
mod raw_secret;
mod read;
mod repository;
mod restore;
mod retention;
mod runbook;
#[cfg(test)]
mod samples;
mod schema;
mod secret;
mod service;
mod source;
pub(crate) mod suggest;
mod telemetry;
mod text;
mod zone;

pub use alerts::{AlertSeverity, AlertsConfig, DeadMan, Receiver, Route, Smtp, SmtpTls};
pub use calendar::{Calendar, CalendarKind, Effect, Lasts, WindowRule};
pub use check::{Check, CommandProbe, Expectation, HttpProbe, Origin, Probe, Scope, Severity};
pub use cron::CronExpression;
pub use drift::{DriftBetween, DriftRule, DriftSeverity, builtin_drift_rules};
pub use drill_container::{DrillContainer, ImageReference};
pub use drill_odoo::DrillOdoo;
pub use estate::{
    Assumed, CheckpointMode, ConfigurationSources, DrillConfig, Environment, Estate, Objectives, OdooConfig,
    PostgresConfig, Purpose, ReaderMode, SandboxKind,
};
pub use glob::expand_glob;
pub use http::{HttpConfig, Network, OidcConfig, Role, TlsFiles, TokenConfig};
pub use job::{CatchUp, DrillSample, Job, TooLong};
pub use job_kind::JobKind;
pub use load::checks_of;
pub use masking::{MaskingRule, Rule};
pub use policy::{DrillDuty, LockDuty, Policy, PolicyException, PolicyRule, RetentionDuty};
pub use repository::{KeysConfig, LockMode, ObjectLockConfig, RepositoryConfig};
pub use restore::RestoreConfig;
pub use retention::Retention;
pub use runbook::RunbookConfig;
pub use schema::{json_schema, policy_schema};
pub use secret::SecretRef;
pub use service::{EnvironmentService, ServiceConfig};
pub use telemetry::TelemetryConfig;
pub use text::ConfigText;
pub use zone::{Twice, instant};
