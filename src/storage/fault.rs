//! Fault injection: an object store that goes wrong as told and records every call.
//!
//! For tests only: nothing in the program uses it, it exists so that tests of every floor can ask "what
//! if the store fails here?" and "which I/O happened?". Faults are scripted in advance ("the third put
//! loses its answer"), so a failing test fails the same way each time.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What is done to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Writing an object.
    Put,
    /// Reading an object or a part of it.
    Get,
    /// Asking for an object's size.
    Head,
    /// Listing.
    List,
    /// Deleting one object.
    Delete,
    /// Copying an object.
    Copy,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation does not happen; a failure that may pass is reported.
    Fails,
    /// The operation happens; a failure is reported nevertheless, as by a time-out.
    LosesAnswer,
    /// A put does not happen and "already exists" is reported: S3's 409, where nobody wins.
    ConflictNobodyWon,
    /// A get's body ends before its last byte.
    TruncatesBody,
    /// The operation does not happen because the disk is full.
    DiskFull,
    /// The operation is forbidden.
    Denied,
    /// There is never an answer.
    Hangs,
}

/// One call that reached the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub operation: Operation,
    /// The object, or the prefix listed.
    pub key: String,
    /// Bytes sent, of puts.
    pub bytes: u64,
    /// Part asked for, of ranged gets.
    pub range: Option<Range<u64>>,
    /// What was made to go wrong.
    pub fault: Option<Fault>,
}

#[derive(Debug, Default)]
struct Script {
    calls: Vec<Call>,
    counts: HashMap<Operation, u64>,
    planned: HashMap<(Operation, u64), Fault>,
    always: HashMap<Operation, Fault>,
    outage: bool,
}

/// A store with scripted faults; clones share script and record.
#[derive(Debug)]
pub struct FaultStore<T> {
    inner: Arc<T>,
    script: Arc<Mutex<Script>>,
}

impl<T> Clone for FaultStore<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), script: Arc::clone(&self.script) }
    }
}

impl<T: ObjectStore> fmt::Display for FaultStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

impl<T: ObjectStore> FaultStore<T> {
    /// A store that works until told otherwise.
    pub fn new(inner: T) -> Self {
        Self { inner: Arc::new(inner), script: Arc::default() }
    }

    /// The store behind, which never goes wrong.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// Makes the `nth` call of `operation` from now on (the next one is 1) go wrong.
    pub fn nth(&self, operation: Operation, nth: u64, fault: Fault) {
        let mut script = self.script();
        let at = script.counts.get(&operation).copied().unwrap_or_default() + nth;
        script.planned.insert((operation, at), fault);
    }

    /// Makes every call of `operation` go wrong from now on.
    pub fn always(&self, operation: Operation, fault: Fault) {
        self.script().always.insert(operation, fault);
    }

    /// From now on everything fails, as when the network is gone.
    pub fn begin_outage(&self) {
        self.script().outage = true;
    }

    /// Ends the outage, and every fault set by [`FaultStore::always`].
    pub fn heal(&self) {
        let mut script = self.script();
        script.outage = false;
        script.always.clear();
    }

    /// Forgets faults of [`FaultStore::nth`] that nothing has met yet.
    pub fn disarm(&self) {
        self.script().planned.clear();
    }

    /// All calls so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.script().calls.clone()
    }

    /// How many calls of `operation` there were.
    pub fn count(&self, operation: Operation) -> usize {
        self.script().calls.iter().filter(|call| call.operation == operation).count()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.script().calls.clear();
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call and says what shall go wrong with it.
    fn call(&self, operation: Operation, key: &str, bytes: u64, range: Option<Range<u64>>) -> Option<Fault> {
        let mut script = self.script();
        let count = script.counts.entry(operation).or_default();
        *count += 1;
        let at = (operation, *count);
        let planned = script.planned.remove(&at);
        let fault = match script.outage {
            true => Some(Fault::Fails),
            false => planned.or_else(|| script.always.get(&operation).copied()),
        };
        script.calls.push(Call { operation, key: key.to_owned(), bytes, range, fault });
        fault
    }

    fn listing(
        &self,
        prefix: Option<&Path>,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.call(Operation::List, prefix.map_or("", |p| p.as_ref()), 0, None) {
            None => listing,
            // The first page arrives, the next one does not.
            Some(Fault::LosesAnswer) => listing.take(1).chain(stream::once(injected(Fault::Fails, ""))).boxed(),
            Some(fault) => stream::once(injected(fault, "")).boxed(),
        }
    }
}

/// The failure that `fault` shows to the caller.
async fn injected<R>(fault: Fault, key: &str) -> Result<R> {
    let path = key.to_owned();
    let generic =
        |source: Box<dyn std::error::Error + Send + Sync>| Error::Generic { store: "fault injection", source };
    Err(match fault {
        Fault::Fails | Fault::LosesAnswer | Fault::TruncatesBody => generic("the connection broke (injected)".into()),
        Fault::ConflictNobodyWon => Error::AlreadyExists { path, source: "409 Conflict (injected)".into() },
        Fault::DiskFull => generic(io::Error::from(io::ErrorKind::StorageFull).into()),
        Fault::Denied => Error::PermissionDenied { path, source: "403 Forbidden (injected)".into() },
        Fault::Hangs => std::future::pending().await,
    })
}

#[async_trait]
impl<T: ObjectStore> ObjectStore for FaultStore<T> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.call(Operation::Put, location.as_ref(), payload.content_length() as u64, None);
        if matches!(fault, None | Some(Fault::LosesAnswer | Fault::TruncatesBody)) {
            let result = self.inner.put_opts(location, payload, options).await?;
            if fault.is_none() {
                return Ok(result);
            }
        }
        injected(fault.unwrap_or(Fault::Fails), location.as_ref()).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        match self.call(Operation::Put, location.as_ref(), 0, None) {
            None => self.inner.put_multipart_opts(location, options).await,
            Some(fault) => injected(fault, location.as_ref()).await,
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let range = options.range.as_ref().and_then(|range| range.as_range(u64::MAX).ok());
        match self.call(operation, location.as_ref(), 0, range) {
            None => self.inner.get_opts(location, options).await,
            Some(Fault::TruncatesBody) => {
                let mut answer = self.inner.get_opts(location, options).await?;
                let rest = GetResult {
                    payload: std::mem::replace(&mut answer.payload, GetResultPayload::Stream(stream::empty().boxed())),
                    meta: answer.meta.clone(),
                    range: answer.range.clone(),
                    attributes: answer.attributes.clone(),
                    extensions: answer.extensions.clone(),
                };
                let whole: Bytes = rest.bytes().await?;
                let cut = whole.slice(..whole.len().saturating_sub(1));
                answer.payload = GetResultPayload::Stream(stream::once(async move { Ok(cut) }).boxed());
                Ok(answer)
            }
            Some(fault) => injected(fault, location.as_ref()).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    let fault = this.call(Operation::Delete, location.as_ref(), 0, None);
                    if matches!(fault, None | Some(Fault::LosesAnswer)) {
                        let one = stream::once({
                            let location = location.clone();
                            async move { Ok(location) }
                        });
                        let mut results = this.inner.delete_stream(one.boxed());
                        while let Some(result) = results.next().await {
                            result?;
                        }
                    }
                    match fault {
                        None => Ok(location),
                        Some(fault) => injected(fault, location.as_ref()).await,
                    }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.call(Operation::List, prefix.map_or("", |p| p.as_ref()), 0, None) {
            None => self.inner.list_with_delimiter(prefix).await,
            Some(fault) => injected(fault, "").await,
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        match self.call(Operation::Copy, from.as_ref(), 0, None) {
            None => self.inner.copy_opts(from, to, options).await,
            Some(fault) => injected(fault, from.as_ref()).await,
        }
    }
}
