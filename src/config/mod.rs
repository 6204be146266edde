//! The estate's configuration files, parsed to validated types; errors carry file, line and column.
//!
//! [`Estate::load`] reads `lifeboat.toml` and what it includes. `raw` is the shape of the files,
//! `read` and `check` turn it into the types of `estate`, `source` places errors, `secret` is how a
//! credential is named and fetched, `glob` expands patterns, `schema` is the shape for editors.

mod check;
mod estate;
mod glob;
mod load;
mod raw;
mod read;
mod repository;
#[cfg(test)]
mod samples;
mod schema;
mod secret;
mod source;
mod suggest;

pub use check::{Check, Expectation, Scope, Severity};
pub use estate::{
    Assumed, CheckpointMode, ConfigurationSources, DrillConfig, Environment, Estate, Objectives, OdooConfig,
    PostgresConfig, Purpose, ReaderMode, SandboxKind,
};
pub use glob::expand_glob;
pub use repository::{KeysConfig, RepositoryConfig};
pub use schema::json_schema;
pub use secret::SecretRef;
