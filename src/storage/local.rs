//! A folder as an object store: `object_store`'s [`LocalFileSystem`] with fsync, plus what it lacks.
//!
//! It promises that a lost mount is never taken for an empty repository: the folder must stay the
//! same directory (device and inode) as when it was opened; otherwise nothing is created, and
//! "not found" and "nothing listed" become errors. And it promises that "already exists" and a failed
//! write whose object is nevertheless visible are not taken for durable unless the disk confirms it.
//! It relies on the file system's hard links being atomic and on fsync meaning it.

use std::fmt;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};

use super::failure::NotDurable;
use crate::error::{ErrorKind, Result, ResultExt, repository};
use crate::runtime::Runtime;

/// A folder that holds a repository.
#[derive(Debug, Clone)]
pub(super) struct LocalStore {
    inner: LocalFileSystem,
    folder: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.folder.path.display())
    }
}

impl LocalStore {
    /// Opens a folder that must exist.
    pub(super) fn open(folder: &FsPath) -> Result<Self> {
        let what = || format!("cannot use the repository folder {}", folder.display());
        let meta = match std::fs::metadata(folder) {
            Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => {
                return Err(repository(format!("the repository folder {} does not exist", folder.display()))
                    .meaning("it was not created, because a missing disk must not look like an empty repository")
                    .hint("is the disk mounted?")
                    .hint("for a new repository run `lifeboat init`, which creates the folder"));
            }
            other => other.or_err(ErrorKind::Repository, what)?,
        };
        if !meta.is_dir() {
            return Err(repository(format!("{} is not a folder", folder.display())).hint("check repository.url"));
        }
        let inner = LocalFileSystem::new_with_prefix(folder)
            .or_err(ErrorKind::Repository, what)?
            .with_fsync(true)
            // The pieces of every WAL segment have a folder of their own, which goes with the last piece.
            .with_automatic_cleanup(true);
        let folder = Folder { path: folder.to_owned(), device_and_inode: (meta.dev(), meta.ino()) };
        Ok(Self { inner, folder: Arc::new(folder) })
    }

    /// Creates the folder (durably) where it is absent, then opens it.
    pub(super) fn create(folder: &FsPath) -> Result<Self> {
        let mut absent = Vec::new();
        let mut parent = Some(folder);
        while let Some(path) = parent.filter(|path| !path.exists()) {
            absent.push(path);
            parent = path.parent();
        }
        let what = || format!("cannot create the repository folder {}", folder.display());
        std::fs::create_dir_all(folder).or_err(ErrorKind::Repository, what)?;
        for path in absent.iter().filter_map(|path| path.parent()) {
            sync(path).or_err(ErrorKind::Repository, what)?;
        }
        Self::open(folder)
    }

    /// After a write that did not plainly succeed: whether what is visible may count as durable.
    async fn settle(&self, location: &Path, failure: StoreError) -> StoreError {
        let Ok(path) = self.inner.path_to_filesystem(location) else { return failure };
        let exists = matches!(failure, StoreError::AlreadyExists { .. });
        let checked = tokio::task::spawn_blocking(move || {
            let doubt = match (exists, path.try_exists()) {
                (_, Ok(false)) => return None,
                // Another writer's: it may have linked the object and not yet synced it.
                (true, Ok(true)) => {
                    let folder = path.parent().map_or(Ok(()), sync);
                    sync(&path).and(folder).err()?.to_string()
                }
                (true, Err(unreadable)) => unreadable.to_string(),
                // Linked, then the sync failed; a second sync would succeed without meaning it.
                (false, _) => "the write failed after the object became visible".to_owned(),
            };
            Some(NotDurable { path: path.display().to_string(), cause: doubt })
        })
        .await;
        match checked {
            Ok(None) => failure,
            Ok(Some(NotDurable { path, cause })) if exists => generic(NotDurable { path, cause }),
            Ok(Some(NotDurable { path, cause })) => generic(NotDurable { path, cause: format!("{cause}: {failure}") }),
            Err(join) => join.into(),
        }
    }
}

impl Folder {
    async fn still_there(&self) -> StoreResult<()> {
        let found = tokio::fs::metadata(&self.path).await.map(|meta| (meta.dev(), meta.ino()));
        if found.is_ok_and(|found| found == self.device_and_inode) {
            return Ok(());
        }
        Err(StoreError::Generic {
            store: "file",
            source: format!(
                "the folder {} is gone or is another one than before; is the disk still mounted?",
                self.path.display()
            )
            .into(),
        })
    }

    /// Lets "not found" stand only where the folder is still there.
    async fn confirm<T>(&self, result: StoreResult<T>) -> StoreResult<T> {
        if matches!(result, Err(StoreError::NotFound { .. })) {
            self.still_there().await?;
        }
        result
    }

    /// Ends a listing with an error where the folder is no longer there.
    fn confirm_listing(
        self: &Arc<Self>,
        listing: BoxStream<'static, StoreResult<ObjectMeta>>,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let folder = Arc::clone(self);
        let end = stream::once(async move { folder.still_there().await.err() });
        listing.chain(end.filter_map(|lost| async move { lost.map(Err) })).boxed()
    }
}

fn generic(failure: NotDurable) -> StoreError {
    StoreError::Generic { store: "file", source: failure.into() }
}

fn sync(path: &FsPath) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.folder.still_there().await?;
        let create = options.mode == PutMode::Create;
        match self.inner.put_opts(location, payload, options).await {
            Err(failure) if create => Err(self.settle(location, failure).await),
            other => other,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.folder.still_there().await?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.folder.confirm(self.inner.get_opts(location, options).await).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.folder.confirm(self.inner.get_ranges(location, ranges).await).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let folder = Arc::clone(&self.folder);
        let confirm = move |result| {
            let folder = Arc::clone(&folder);
            async move { folder.confirm(result).await }
        };
        self.inner.delete_stream(locations).then(confirm).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.folder.confirm_listing(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.folder.confirm_listing(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        let listed = self.inner.list_with_delimiter(prefix).await?;
        self.folder.still_there().await?;
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.folder.still_there().await?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// What writers that were killed left behind in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// Files removed.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// Removes the staged files (`<name>#<number>`) of writers that were killed, where they are older than
/// `older_than`, so that no living writer loses one. They are never listed or read as objects; they
/// only take space.
pub(super) fn remove_leftovers(folder: &FsPath, older_than: Duration, runtime: &Runtime) -> Result<Leftovers> {
    let before = std::time::SystemTime::from(runtime.now()) - older_than;
    let mut removed = Leftovers::default();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.or_err(ErrorKind::Repository, || format!("cannot read the folder {}", folder.display()))?;
        let staged = entry.file_name().to_str().and_then(|name| name.rsplit_once('#'));
        let is_staged =
            staged.is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        if !is_staged || !entry.file_type().is_file() {
            continue;
        }
        let what = || format!("cannot remove the unfinished file {}", entry.path().display());
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            Err(gone) if gone.io_error().is_some_and(|io| io.kind() == std::io::ErrorKind::NotFound) => continue,
            Err(other) => return Err(other).or_err(ErrorKind::Repository, what),
        };
        if meta.modified().or_err(ErrorKind::Repository, what)? > before {
            continue;
        }
        match std::fs::remove_file(entry.path()) {
            Ok(()) => {
                removed.files += 1;
                removed.bytes += meta.len();
            }
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {}
            Err(other) => return Err(other).or_err(ErrorKind::Repository, what),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::super::failure::{Failure, classify};
    use super::*;

    #[tokio::test]
    async fn what_is_visible_but_unconfirmed_does_not_count_as_durable() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = LocalStore::open(dir.path()).expect("opens");
        let (there, absent) = (Path::from("there"), Path::from("absent"));
        store.put_opts(&there, "x".into(), PutMode::Create.into()).await.expect("written");
        let broke = || StoreError::Generic { store: "test", source: std::io::Error::other("sync failed").into() };
        let exists = || StoreError::AlreadyExists { path: String::new(), source: "exists".into() };

        let settled = store.settle(&there, broke()).await;
        assert_eq!(classify(&settled), Failure::NotDurable, "linked, then the sync failed");
        assert!(settled.to_string().contains("sync failed"), "{settled}");
        assert_eq!(classify(&store.settle(&absent, broke()).await), Failure::Transient, "nothing is visible");
        assert_eq!(classify(&store.settle(&there, exists()).await), Failure::Exists, "synced for the other writer");
        assert!(Failure::NotDurable.is_permanent(), "reading back would take it for success");
    }
}
