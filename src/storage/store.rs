//! A [`Store`] is where a repository lives: an object store under a prefix.
//!
//! It promises: what [`Store::create`] returned `Ok` for is durable and is exactly those bytes;
//! nothing that exists is ever replaced by it; `None` from the `find` functions is proof of absence.
//! After "already exists" or an ambiguous failure the object is read back and compared: same bytes
//! is success, different bytes is a hard error. (`object_store` reports S3's 409
//! `ConditionalRequestConflict` as "already exists" although then nobody may have won; reading back
//! tells.) Every body is checked against the length announced. A store that stops answering is
//! noticed: an attempt is given `ANSWER_WITHIN`, and longer only in proportion to what it uploads.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use super::failure::{self, Failure, classify};
use super::object_lock::ObjectLocks;
use crate::error::{self, Error, Result};
use crate::event::Event;
use crate::runtime::Runtime;

/// How long a store may be silent before an attempt counts as failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The slowest upload that is still waited for, in bytes per second.
const SLOWEST_UPLOAD: u64 = 128 << 10;

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
    /// When it was written, by the store's clock.
    pub modified: DateTime<Utc>,
}

impl ObjectInfo {
    fn of(meta: ObjectMeta) -> Self {
        Self { key: meta.location.to_string(), size: meta.size, modified: meta.last_modified }
    }
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
    answer_within: Duration,
    locks: Option<Arc<ObjectLocks>>,
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
        Self { inner, url: url.into(), retry, answer_within: ANSWER_WITHIN, locks: None, runtime }
    }

    /// The same store with the locks of its bucket.
    #[must_use]
    pub(super) fn with_locks(self, locks: Option<Arc<ObjectLocks>>) -> Self {
        Self { locks, ..self }
    }

    /// The locks of its bucket, where it is one that may have them.
    pub fn locks(&self) -> Option<&Arc<ObjectLocks>> {
        self.locks.as_ref()
    }

    /// The same store with another patience, for loops that retry themselves.
    #[must_use]
    pub fn with_retry(&self, retry: RetryPolicy) -> Self {
        Self { retry, ..self.clone() }
    }

    /// How patient it is.
    pub fn retry(&self) -> RetryPolicy {
        self.retry
    }

    /// The same store with another limit for silence.
    #[cfg(test)]
    pub(crate) fn with_answer_within(&self, answer_within: Duration) -> Self {
        Self { answer_within, ..self.clone() }
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
    ///
    /// `Some` with the same bytes means that they stood there before this call.
    pub async fn create_or_get(&self, key: &str, bytes: Bytes) -> Result<Option<Bytes>> {
        let path = Path::from(key);
        // Whether one of our own attempts may have succeeded without our knowing.
        let ambiguous = AtomicBool::new(false);
        let attempt = || async {
            let failure = match self.put(&path, &bytes, PutMode::Create).await {
                Ok(()) => return Ok(None),
                Err(failure) => failure,
            };
            let class = classify(&failure);
            if class.is_permanent() && class != Failure::Exists {
                return Err(failure);
            }
            if class != Failure::Exists {
                ambiguous.store(true, Ordering::Relaxed);
            }
            // Already there, or an ambiguous failure: only reading back tells who won.
            match self.read_whole(&path).await {
                Ok(there) if there == bytes && ambiguous.load(Ordering::Relaxed) => Ok(None),
                Ok(there) => Ok(Some(there)),
                Err(other) if classify(&other) != Failure::Absent => Err(other),
                // Announced as existing, yet absent: a conflict that nobody won.
                Err(_) if class == Failure::Exists => {
                    Err(generic("conditional create", "conflicting writers, none of which won"))
                }
                Err(_) => Err(failure),
            }
        };
        let there = self.retrying("write", key, attempt).await?;
        if let (None, Some(locks)) = (&there, &self.locks) {
            locks.after_put(key, &self.runtime).await;
        }
        Ok(there)
    }

    /// Writes or replaces an object that is derivable (the ledger's checkpoint).
    pub async fn replace(&self, key: &str, bytes: Bytes) -> Result<()> {
        let path = Path::from(key);
        self.retrying("write", key, || self.put(&path, &bytes, PutMode::Overwrite)).await
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

    /// Reads `range` of an object; an object that ends before is an integrity error.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.find_range(key, range).await?.ok_or_else(|| self.missing(key))
    }

    /// Reads `range` of an object, or `None` where it does not exist.
    pub async fn find_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        if range.start >= range.end {
            return Ok(self.info(key).await?.map(|_| Bytes::new()));
        }
        match self.find_part(key, range.clone()).await? {
            Some((size, _)) if size < range.end => Err(error::integrity(format!(
                "{key} in {} has {size} bytes, but its bytes {} to {} are needed",
                self.url, range.start, range.end
            ))
            .meaning("the object was cut short or replaced in the store; it was whole when it was written")
            .hint("run `lifeboat verify` to see everything that is missing or damaged")),
            found => Ok(found.map(|(_, bytes)| bytes)),
        }
    }

    /// Reads at most `length` bytes from the start of an object.
    pub async fn find_head(&self, key: &str, length: u64) -> Result<Option<Bytes>> {
        if length == 0 {
            return self.find_range(key, 0..0).await;
        }
        Ok(self.find_part(key, 0..length).await?.map(|(_, bytes)| bytes))
    }

    /// The object's size and those bytes of `range` that it has.
    async fn find_part(&self, key: &str, range: Range<u64>) -> Result<Option<(u64, Bytes)>> {
        let path = Path::from(key);
        self.retrying("read", key, || async {
            let options = GetOptions::new().with_range(Some(range.clone()));
            match self.within(self.answer_within, self.inner.get_opts(&path, options)).await {
                Ok(answer) => {
                    let size = answer.meta.size;
                    let expected = size.min(range.end).saturating_sub(range.start);
                    Ok(Some((size, self.body(answer, expected).await?)))
                }
                Err(failure) if classify(&failure) == Failure::OutOfRange => {
                    Ok(self.head(&path).await?.map(|meta| (meta.size, Bytes::new())))
                }
                Err(failure) => absent_as_none(Err(failure)),
            }
        })
        .await
    }

    /// Size of an object, or `None` where it does not exist.
    pub async fn info(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let path = Path::from(key);
        let meta = self.retrying("look at", key, || self.head(&path)).await?;
        Ok(meta.map(|m| ObjectInfo { key: key.to_owned(), ..ObjectInfo::of(m) }))
    }

    /// All objects below `prefix` (which ends with `/`), sorted by name.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.list_after(prefix, None).await
    }

    /// All objects below `prefix` whose names sort after `after`, sorted by name.
    pub async fn list_after(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ObjectInfo>> {
        let mut found = self.list_as(prefix, after, Some).await?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// What `keep` makes of each object below `prefix`, in any order: for listings that are too long to hold whole.
    pub async fn list_as<T>(
        &self,
        prefix: &str,
        after: Option<&str>,
        keep: impl Fn(ObjectInfo) -> Option<T>,
    ) -> Result<Vec<T>> {
        let path = Path::from(prefix.trim_end_matches('/'));
        self.retrying("list", prefix, || async {
            let mut stream = match after {
                Some(after) => self.inner.list_with_offset(Some(&path), &Path::from(after)),
                None => self.inner.list(Some(&path)),
            };
            let mut found = Vec::new();
            while let Some(meta) = self.within(self.answer_within, stream.try_next()).await? {
                found.extend(keep(ObjectInfo::of(meta)));
            }
            Ok(found)
        })
        .await
    }

    /// Names directly below `prefix`: (objects, folders), sorted.
    pub async fn list_folder(&self, prefix: &str) -> Result<(Vec<ObjectInfo>, Vec<String>)> {
        let path = Path::from(prefix.trim_end_matches('/'));
        self.retrying("list", prefix, || async {
            let listed = self.within(self.answer_within, self.inner.list_with_delimiter(Some(&path))).await?;
            let mut objects: Vec<ObjectInfo> = listed.objects.into_iter().map(ObjectInfo::of).collect();
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
            loop {
                let next = async { Ok(results.next().await) };
                match self.within(self.answer_within, next).await? {
                    Some(result) => absent_as_none(result)?,
                    None => return Ok(()),
                };
            }
        })
        .await
    }

    /// Deletes objects one by one, as far as the store lets it: why it did not, where it refused. An absent object is a
    /// deleted one. A store that cannot be reached is an error; what was deleted by then stays deleted.
    pub async fn delete_each(&self, keys: &[String]) -> Result<Vec<Option<String>>> {
        let paths: Vec<Path> = keys.iter().map(|k| Path::from(k.as_str())).collect();
        self.retrying("delete", "objects that retention gave up", || async {
            let stream = futures::stream::iter(paths.clone().into_iter().map(Ok)).boxed();
            let mut results = self.inner.delete_stream(stream);
            let mut outcomes = Vec::with_capacity(paths.len());
            loop {
                let next = async { Ok(results.next().await) };
                match self.within(self.answer_within, next).await? {
                    Some(Err(failure)) if failure::is_refusal(&failure) => {
                        outcomes.push(Some(failure::refusal(&failure)));
                    }
                    Some(result) => {
                        absent_as_none(result)?;
                        outcomes.push(None);
                    }
                    None => break,
                }
            }
            match outcomes.len() == paths.len() {
                true => Ok(outcomes),
                false => Err(generic("delete", "the store did not tell what became of each object")),
            }
        })
        .await
    }

    async fn put(&self, path: &Path, bytes: &Bytes, mode: PutMode) -> object_store::Result<()> {
        let options = PutOptions { mode, ..Default::default() };
        let patience = self.answer_within + Duration::from_secs(bytes.len() as u64 / SLOWEST_UPLOAD);
        let payload = PutPayload::from_bytes(bytes.clone());
        self.within(patience, self.inner.put_opts(path, payload, options)).await.map(|_| ())
    }

    async fn read_whole(&self, path: &Path) -> object_store::Result<Bytes> {
        let answer = self.within(self.answer_within, self.inner.get(path)).await?;
        let announced = answer.meta.size;
        self.body(answer, announced).await
    }

    /// Size and name of an object. HEAD has no body that could say *what* was not found, so absence
    /// is confirmed by a GET.
    async fn head(&self, path: &Path) -> object_store::Result<Option<ObjectMeta>> {
        match self.within(self.answer_within, self.inner.head(path)).await {
            Err(failure) if classify(&failure) == Failure::AbsenceUnproven => {
                absent_as_none(self.within(self.answer_within, self.inner.get(path)).await.map(|answer| answer.meta))
            }
            other => absent_as_none(other),
        }
    }

    /// The body of an answer, which must have `expected` bytes and must keep coming.
    async fn body(&self, answer: GetResult, expected: u64) -> object_store::Result<Bytes> {
        let bytes = match answer.payload {
            GetResultPayload::File(..) => answer.bytes().await?,
            GetResultPayload::Stream(mut stream) => {
                let first = self.within(self.answer_within, stream.try_next()).await?.unwrap_or_default();
                if first.len() as u64 == expected {
                    first
                } else {
                    // The length was announced by the other side: trusted up to a bound only.
                    let mut whole = Vec::with_capacity(expected.min(64 << 20) as usize);
                    whole.extend_from_slice(&first);
                    while let Some(chunk) = self.within(self.answer_within, stream.try_next()).await? {
                        whole.extend_from_slice(&chunk);
                    }
                    whole.into()
                }
            }
        };
        if bytes.len() as u64 != expected {
            let told = format!("the store announced {expected} bytes and sent {}", bytes.len());
            return Err(generic("body length check", &told));
        }
        Ok(bytes)
    }

    async fn within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
            Err(generic("patience", &format!("the store gave no answer within {} s", patience.as_secs())))
        })
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
            if classify(&failure).is_permanent() || began.elapsed() + pause > self.retry.give_up_after {
                return Err(failure::describe(operation, key, &self.url, failure, began.elapsed()));
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
}

fn absent_as_none<T>(result: object_store::Result<T>) -> object_store::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(failure) if classify(&failure) == Failure::Absent => Ok(None),
        Err(other) => Err(other),
    }
}

fn generic(store: &'static str, what: &str) -> object_store::Error {
    object_store::Error::Generic { store, source: what.into() }
}
