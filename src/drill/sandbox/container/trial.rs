//! Trying whether engine and images allow a container sandbox, without a drill.

use std::path::Path;

use chrono::{DateTime, Utc};

use super::handle::Container;
use crate::config::DrillContainer;
use crate::drill::sandbox::journal::Begun;
use crate::drill::sandbox::place::{Ground, Sandbox};
use crate::drill::sandbox::seal::{Facts, Seal};
use crate::error::{self, Result};
use crate::postgres::account::Account;

/// Starts a sandbox below `parent` as a drill would, ends it, and sees that it is gone; what it was like.
///
/// # Errors
/// Those of [`Container::start`]; internal, where something is left.
pub async fn trial(
    program: &Path,
    parent: &Path,
    account: Option<&Account>,
    config: &DrillContainer,
    now: DateTime<Utc>,
) -> Result<Facts> {
    let home = tempfile::Builder::new().prefix("lifeboat-trial-").tempdir_in(parent);
    let home = home.map_err(|e| crate::disk::failed("cannot make a directory in", parent, e))?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(home.path(), open).map_err(|e| crate::disk::failed("cannot open", home.path(), e))?;
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
    let spec = place.container(config.clone(), Vec::new(), &[], None, None);
    let started = Container::start(program, spec, place.journal()).await;
    let facts = match started {
        Ok(container) => container.end().await.map(|()| container.facts()),
        Err(e) => Err(e),
    };
    let cleanup = place.destroy(now).await?;
    match cleanup.residue.is_empty() {
        true => place.close(&cleanup).and(facts),
        false => Err(error::internal(format!("the trial left something: {}", cleanup.residue.join(", ")))),
    }
}
