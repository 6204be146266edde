//! The way into an estate's repository: where it is, with which credentials, with which keys.

use std::time::Duration;

use secrecy::ExposeSecret;

use crate::config::{Estate, RepositoryConfig, SecretRef};
use crate::error::{ErrorKind, Result};
use crate::repository::{Repository, StateDir};
use crate::runtime::Runtime;
use crate::storage::{self, Location, RetryPolicy};
use crate::vault::RecoveryIdentity;

/// Where the repository is, credentials fetched.
pub fn location(config: &RepositoryConfig) -> Result<Location> {
    let resolve = |secret: &Option<SecretRef>| secret.as_ref().map(SecretRef::resolve).transpose();
    Ok(Location {
        endpoint: config.endpoint.clone(),
        region: config.region.clone(),
        access_key_id: resolve(&config.access_key_id)?,
        secret_access_key: resolve(&config.secret_access_key)?,
        session_token: resolve(&config.session_token)?,
        retry: RetryPolicy { give_up_after: config.retry_for, ..Default::default() },
        object_lock: config.object_lock,
        ..Location::new(config.url.clone())
    })
}

/// The recovery identity, where one is configured.
pub fn recovery(estate: &Estate) -> Result<Option<RecoveryIdentity>> {
    match &estate.keys.identity {
        Some(reference) => RecoveryIdentity::from_text(reference.resolve()?.expose_secret()).map(Some),
        None => Ok(None),
    }
}

/// Opens the repository to look at it: with the keys of this host where it has them, so that an unmounted
/// recovery key is no obstacle; else with the recovery identity. A store that is away is tried for `patience`.
pub async fn open(estate: &Estate, patience: Duration, runtime: &Runtime) -> Result<Repository> {
    let mut location = location(&estate.repository)?;
    location.retry.give_up_after = location.retry.give_up_after.min(patience);
    let store = storage::open(&location, runtime).await?;
    let state = StateDir::new(&estate.keys.state_dir);
    match Repository::open(&store, &state, None).await {
        Err(without) if without.kind() == ErrorKind::Config => match recovery(estate)? {
            Some(recovery) => Repository::open(&store, &state, Some(&recovery)).await,
            None => Err(without),
        },
        other => other,
    }
}
