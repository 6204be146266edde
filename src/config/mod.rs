//! The estate's configuration files, parsed to validated types; errors carry file, line and column.
//!
//! [`Estate::load`] reads `lifeboat.toml` and what it includes. `raw` is the shape of the files,
//! `read` and `check` turn it into the types of `estate`, `source` places errors, `secret` is how a
//! credential is named and fetched, `glob` expands patterns, `schema` is the shape for editors.

mod alerts;
mod check;
mod drill_odoo;
mod estate;
mod glob;
mod job_kind;
mod load;
mod masking;
mod raw;
mod read;
mod repository;
#[cfg(test)]
mod samples;
mod schema;
mod secret;
mod service;
mod source;
pub(crate) mod suggest;
mod text;

pub use alerts::{AlertSeverity, AlertsConfig, DeadMan, Receiver, Route, Smtp, SmtpTls};
pub use check::{Check, CommandProbe, Expectation, HttpProbe, Origin, Probe, Scope, Severity};
pub use drill_odoo::DrillOdoo;
pub use estate::{
    Assumed, CheckpointMode, ConfigurationSources, DrillConfig, Environment, Estate, Objectives, OdooConfig,
    PostgresConfig, Purpose, ReaderMode, SandboxKind,
};
pub use glob::expand_glob;
pub use job_kind::JobKind;
pub use load::checks_of;
pub use masking::{MaskingRule, Rule};
pub use repository::{KeysConfig, RepositoryConfig};
pub use schema::json_schema;
pub use secret::SecretRef;
pub use service::{EnvironmentService, ServiceConfig};
pub use text::ConfigText;
