//! Repositories in memory, for tests.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::{Repository, StateDir, init};
use crate::runtime::Runtime;
use crate::storage::{Store, store::RetryPolicy};
use crate::vault::RecoveryIdentity;

/// A fresh repository, opened with a recovery identity and as the host that only backs up.
pub(crate) async fn repository_and_writer() -> (Repository, Repository) {
    let runtime = Runtime::silent();
    let store = Store::new(Arc::new(InMemory::new()), "memory:", RetryPolicy::default(), runtime.clone());
    let folder = tempfile::Builder::new().prefix("lifeboat-test-").tempdir().expect("temp dir");
    let state = StateDir::new(folder.path());
    let recovery = RecoveryIdentity::generate();
    init(&store, &state, &recovery.recipients(), None, "test", &runtime).await.expect("init");
    let mut reader = Repository::open(&store, &state, Some(&recovery)).await.expect("open");
    let mut writer = Repository::open(&store, &state, None).await.expect("open");
    // The folder goes now; a copy of the ledger would make it again.
    (reader.caches, writer.caches) = (None, None);
    (reader, writer)
}
