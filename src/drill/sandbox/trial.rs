//! Trying whether this host, or an engine with its images, allows a sandbox, without a drill.

use std::path::Path;

use chrono::{DateTime, Utc};

use super::container::Container;
use super::journal::Begun;
use super::local::Local;
use super::place::{Ground, Sandbox};
use super::seal::{Facts, Seal};
use crate::config::DrillContainer;
use crate::disk::failed;
use crate::error::{self, Result};
use crate::postgres::account::Account;

/// Starts a sandbox below `parent` as a drill would, ends it, and sees that it is gone; what it was like.
///
/// # Errors
/// Those of [`Local::start`] or, with `engine`, of [`Container::start`]: with what to set, where it is not allowed.
/// Internal, where something is left.
pub async fn trial(
    program: &Path,
    parent: &Path,
    account: Option<&Account>,
    engine: Option<&DrillContainer>,
    now: DateTime<Utc>,
) -> Result<Facts> {
    let home = tempfile::Builder::new().prefix("lifeboat-trial-").tempdir_in(parent);
    let home = home.map_err(|e| failed("cannot make a directory in", parent, e))?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(home.path(), open).map_err(|e| failed("cannot open", home.path(), e))?;
    let begun = Begun {
        id: format!("trial-{}", std::process::id()),
        repository: String::new(),
        environment: String::new(),
        requested: String::new(),
        operator: String::new(),
        config_digest: String::new(),
        started_at: now,
        incident_time: now,
        sampling: None,
    };
    let ground = Ground {
        parent: home.path().to_owned(),
        temporary: home.path().to_owned(),
        account: account.cloned(),
        keep: false,
    };
    let mut place = Sandbox::create(&ground, &begun)?;
    let facts = match engine {
        None => tried(Local::start(program, place.spec(Vec::new(), &[], None)).await).await,
        Some(config) => {
            let spec = place.container(config.clone(), Vec::new(), &[], None, None);
            tried(Container::start(program, spec, place.journal()).await).await
        }
    };
    let cleanup = place.destroy(now).await?;
    match cleanup.residue.is_empty() {
        true => place.close(&cleanup).and(facts),
        false => Err(error::internal(format!("the trial left something: {}", cleanup.residue.join(", ")))),
    }
}

async fn tried(started: Result<impl Seal>) -> Result<Facts> {
    let seal = started?;
    seal.end().await?;
    Ok(seal.facts())
}
