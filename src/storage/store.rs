//! A [`Store`] is where a repository lives: an object store under a prefix.
//!
//! It promises: what [`Store::create`] returned `Ok` for is durable and is exactly those bytes;
//! nothing that exists is ever replaced by it. After "already exists" or an ambiguous failure the
//! object is read back and compared: same bytes is success, different bytes is a hard error.
//! (`object_store` reports S3's 409 `ConditionalRequestConflict` as "already exists" although then
//! nobody may have won; reading back tells.) Every body is checked against the length announced.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::{self, Error, ErrorKind, Result};
use crate::event::Event;
use crate::runtime::Runtime;

/// Whether a create wrote the object or found the same bytes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// This call wrote it.
    New,
    /// The same bytes were there before.
    Same,
}

/// Name and size of a stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Name relative to the repository.
    pub key: String,
    /// Stored size in bytes.
    pub size: u64,
}

/// How long and how often a failing store is tried again.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Pause after the first failure; doubles up to `longest`.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// After this much time without success the operation fails.
    pub give_up_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(10),
            give_up_after: Duration::from_secs(300),
        }
    }
}

/// An object store that holds one repository; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    url: Arc<str>,
    retry: RetryPolicy,
    runtime: Runtime,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url)
    }
}

impl Store {
    /// Wraps `inner`, whose root is the repository; `url` is for messages.
    pub fn new(inner: Arc<dyn ObjectStore>, url: &str, retry: RetryPolicy, runtime: Runtime) -> Self {
        Self { inner, url: url.into(), retry, runtime }
    }

    /// The same store with another patience, for loops that retry themselves.
    #[must_use]
    pub fn with_retry(&self, retry: RetryPolicy) -> Self {
        Self { retry, ..self.clone() }
    }

    /// Where it is, for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The raw object store, for the probe.
    pub fn raw(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// Writes a new object; never replaces one.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<Created> {
        match self.create_or_get(key, bytes.clone()).await? {
            None => Ok(Created::New),
            Some(there) if there == bytes => Ok(Created::Same),
            Some(there) => Err(error::integrity(format!(
                "{key} already exists in {} with other content ({} bytes there, {} bytes here)",
                self.url,
                there.len(),
                bytes.len()
            ))
            .meaning("nothing was replaced; what is in the repository stays as it was")),
        }
    }

    /// Writes a new object, or returns what already stands under that name.
    pub async fn create_or_get(&self, key: &str, bytes: Bytes) -> Result<Option<Bytes>> {
        let path = Path::from(key);
        let attempt = || async {
            let options = PutOptions { mode: PutMode::Create, ..Default::default() };
            match self.inner.put_opts(&path, PutPayload::from_bytes(bytes.clone()), options).await {
                Ok(_) => Ok(None),
                Err(failure)
                    if is_permanent(&failure) && !matches!(failure, object_store::Error::AlreadyExists { .. }) =>
                {
                    Err(failure)
                }
                Err(failure) => {
                    // Already there, or an ambiguous failure: only reading back tells who won.
                    let exists = matches!(failure, object_store::Error::AlreadyExists { .. });
                    match self.read_whole(&path).await {
                        Ok(there) if there == bytes && !exists => Ok(None),
                        Ok(there) => Ok(Some(there)),
                        // Announced as existing, yet absent: a conflict that nobody won.
                        Err(object_store::Error::NotFound { .. }) if exists => Err(object_store::Error::Generic {
                            store: "conditional create",
                            source: "conflicting writers, none of which won".into(),
                        }),
                        Err(object_store::Error::NotFound { .. }) => Err(failure),
                        Err(other) => Err(other),
                    }
                }
            }
        };
        self.retrying("write", key, attempt).await
    }

    /// Writes or replaces an object that is derivable (the ledger's checkpoint).
    pub async fn replace(&self, key: &str, bytes: Bytes) -> Result<()> {
        let path = Path::from(key);
        self.retrying("write", key, || async {
            self.inner.put(&path, PutPayload::from_bytes(bytes.clone())).await.map(|_| ())
        })
        .await
    }

    /// Reads an object; an absent one is an integrity error, because callers ask for what must be there.
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        self.find(key).await?.ok_or_else(|| self.missing(key))
    }

    /// Reads an object, or `None` where the store proves that it does not exist.
    pub async fn find(&self, key: &str) -> Result<Option<Bytes>> {
        let path = Path::from(key);
        self.retrying("read", key, || async { absent_as_none(self.read_whole(&path).await) }).await
    }

    /// Reads `range` of an object; a shorter answer is an error.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.find_range(key, range).await?.ok_or_else(|| self.missing(key))
    }

    /// Reads `range` of an object, or `None` where it does not exist.
    pub async fn find_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let path = Path::from(key);
        let wanted = range.end - range.start;
        self.retrying("read", key, || async {
            let bytes = absent_as_none(self.inner.get_range(&path, range.clone()).await)?;
            match bytes {
                Some(bytes) if bytes.len() as u64 != wanted => Err(short_body(wanted, bytes.len() as u64)),
                other => Ok(other),
            }
        })
        .await
    }

    /// Reads at most `length` bytes from the start of an object.
    pub async fn find_head(&self, key: &str, length: u64) -> Result<Option<Bytes>> {
        match self.info(key).await? {
            Some(info) => self.find_range(key, 0..length.min(info.size)).await,
            None => Ok(None),
        }
    }

    /// Size of an object, or `None` where it does not exist.
    pub async fn info(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let path = Path::from(key);
        self.retrying("look at", key, || async {
            let meta = absent_as_none(self.inner.head(&path).await)?;
            Ok(meta.map(|m| ObjectInfo { key: key.to_owned(), size: m.size }))
        })
        .await
    }

    /// All objects below `prefix` (which ends with `/`), sorted by name.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.list_after(prefix, None).await
    }

    /// All objects below `prefix` whose names sort after `after`, sorted by name.
    pub async fn list_after(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ObjectInfo>> {
        let path = Path::from(prefix.trim_end_matches('/'));
        self.retrying("list", prefix, || async {
            let stream = match after {
                Some(after) => self.inner.list_with_offset(Some(&path), &Path::from(after)),
                None => self.inner.list(Some(&path)),
            };
            let mut found: Vec<ObjectInfo> =
                stream.map_ok(|m| ObjectInfo { key: m.location.to_string(), size: m.size }).try_collect().await?;
            found.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        })
        .await
    }

    /// Names directly below `prefix`: (objects, folders), sorted.
    pub async fn list_folder(&self, prefix: &str) -> Result<(Vec<ObjectInfo>, Vec<String>)> {
        let path = Path::from(prefix.trim_end_matches('/'));
        self.retrying("list", prefix, || async {
            let listed = self.inner.list_with_delimiter(Some(&path)).await?;
            let mut objects: Vec<ObjectInfo> =
                listed.objects.into_iter().map(|m| ObjectInfo { key: m.location.to_string(), size: m.size }).collect();
            objects.sort_by(|a, b| a.key.cmp(&b.key));
            let mut folders: Vec<String> = listed.common_prefixes.into_iter().map(|p| p.to_string()).collect();
            folders.sort();
            Ok((objects, folders))
        })
        .await
    }

    /// Deletes objects that are made to be short-lived (`wal-live/`, leases); absent ones are fine.
    pub async fn delete_all(&self, keys: Vec<String>) -> Result<()> {
        let paths: Vec<Path> = keys.iter().map(|k| Path::from(k.as_str())).collect();
        self.retrying("delete", "short-lived objects", || async {
            let stream = futures::stream::iter(paths.clone().into_iter().map(Ok)).boxed();
            let mut results = self.inner.delete_stream(stream);
            while let Some(result) = results.next().await {
                absent_as_none(result)?;
            }
            Ok(())
        })
        .await
    }

    async fn read_whole(&self, path: &Path) -> object_store::Result<Bytes> {
        let answer = self.inner.get(path).await?;
        let announced = answer.meta.size;
        let bytes = answer.bytes().await?;
        if bytes.len() as u64 != announced {
            return Err(short_body(announced, bytes.len() as u64));
        }
        Ok(bytes)
    }

    fn missing(&self, key: &str) -> Error {
        error::integrity(format!("{key} is missing in {}", self.url))
            .meaning("it was committed once, so it was deleted or lost in the store")
            .hint("run `lifeboat verify` to see everything that is missing or damaged")
    }

    /// The one retry policy of the program.
    async fn retrying<T, F, Fut>(&self, operation: &str, key: &str, attempt: F) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = object_store::Result<T>>,
    {
        let began = Instant::now();
        let mut pause = self.retry.first;
        loop {
            let failure = match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if is_permanent(&failure) || began.elapsed() + pause > self.retry.give_up_after {
                return Err(self.describe(operation, key, failure, began.elapsed()));
            }
            self.runtime.emit(Event::StoreRetry {
                operation: format!("{operation} {key}"),
                reason: failure.to_string(),
                after: pause,
            });
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.retry.longest);
        }
    }

    fn describe(&self, operation: &str, key: &str, failure: object_store::Error, tried: Duration) -> Error {
        use object_store::Error as E;
        let what = format!("cannot {operation} {key} in {}", self.url);
        match &failure {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Error::new(ErrorKind::Repository, what)
                .source(failure)
                .meaning("the store refuses these credentials; nothing was changed")
                .hint("check access_key_id, secret_access_key and the bucket's policy, then run `lifeboat doctor`"),
            _ if storage_full(&failure) => Error::new(ErrorKind::Repository, what)
                .source(failure)
                .meaning("the repository's disk is full; nothing half-written is visible")
                .hint("free or add space, then run the same command again"),
            _ => Error::new(ErrorKind::Repository, format!("{what} (tried for {} s)", tried.as_secs()))
                .source(failure)
                .meaning("nothing that is not in the repository was reported as safe")
                .hint("check that the store is reachable, then run `lifeboat doctor`"),
        }
    }
}

fn absent_as_none<T>(result: object_store::Result<T>) -> object_store::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

fn short_body(expected: u64, got: u64) -> object_store::Error {
    object_store::Error::Generic {
        store: "body length check",
        source: format!("the store announced {expected} bytes and sent {got}").into(),
    }
}

/// Failures that trying again cannot cure.
fn is_permanent(failure: &object_store::Error) -> bool {
    use object_store::Error as E;
    match failure {
        E::Generic { .. } | E::JoinError { .. } => storage_full(failure),
        _ => true,
    }
}

fn storage_full(failure: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(failure);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
