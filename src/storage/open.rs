//! Opens a repository's store from its URL.
//!
//! `file://` is a folder that must exist (a lost mount is never silently re-created), `s3://` any
//! S3-compatible store; `az://` and `gs://` come with `object_store` and are untested. All HTTP is
//! rustls with aws-lc-rs. A client waits 5 s for a connection; how long it waits for an answer is
//! [`Store`]'s business, because only it knows how much is being uploaded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::local::{self, Leftovers, LocalStore};
use super::object_lock::ObjectLocks;
use super::s3::{self, Access};
use super::store::{RetryPolicy, Store};
use crate::config::ObjectLockConfig;
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::runtime::Runtime;

/// Where a repository is and how to get in.
#[derive(Debug, Clone)]
pub struct Location {
    /// `file:///srv/backups`, `s3://bucket/prefix`, `az://container/prefix` or `gs://bucket/prefix`.
    pub url: String,
    /// Base URL of an S3-compatible store; absent for AWS. Plain HTTP follows from its scheme.
    pub endpoint: Option<String>,
    /// Region; with an endpoint it defaults to `us-east-1`.
    pub region: Option<String>,
    /// Access key; absent together with the secret: the usual AWS chain. For Azure the account's name.
    pub access_key_id: Option<SecretString>,
    /// Secret key. For Azure the account's key.
    pub secret_access_key: Option<SecretString>,
    /// Token of temporary credentials.
    pub session_token: Option<SecretString>,
    /// Patience with a failing store.
    pub retry: RetryPolicy,
    /// How objects are locked; `None`: they are not. S3 only.
    pub object_lock: Option<ObjectLockConfig>,
}

impl Location {
    /// A place without credentials of its own: a folder, or a bucket reached through the usual AWS chain.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            retry: RetryPolicy::default(),
            object_lock: None,
        }
    }

    pub(super) fn place(&self) -> Result<Place> {
        let url = Url::parse(&self.url).map_err(|cause| self.wrong().source(cause))?;
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(self.wrong().hint("leave out user, password, `?` and `#`"));
        }
        if url.scheme() == "file" {
            let folder = url.to_file_path().map_err(|()| self.wrong().hint("write file:///absolute/path"))?;
            return Ok(Place::Folder(folder));
        }
        let bucket = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| self.wrong())?.to_owned();
        if url.port().is_some() {
            return Err(self.wrong().hint("host and port of the store belong into repository.endpoint"));
        }
        let prefix = Path::from_url_path(url.path()).map_err(|cause| self.wrong().source(cause))?;
        match url.scheme() {
            "s3" => Ok(Place::S3 { bucket, prefix }),
            "az" => Ok(Place::Azure { container: bucket, prefix }),
            "gs" => Ok(Place::Google { bucket, prefix }),
            _ => Err(self.wrong()),
        }
    }

    fn wrong(&self) -> Error {
        error::config(format!("repository.url \"{}\" is not the URL of a repository", self.url))
            .hint("one looks like file:///srv/backups, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix")
    }
}

/// A parsed URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Folder(PathBuf),
    S3 { bucket: String, prefix: Path },
    Azure { container: String, prefix: Path },
    Google { bucket: String, prefix: Path },
}

/// Opens the store of an existing repository. Creates nothing: an absent folder is an error.
pub async fn open(location: &Location, runtime: &Runtime) -> Result<Store> {
    open_place(location, runtime, LocalStore::open).await
}

/// The same for `init`: creates the folder of a `file://` repository where it is absent.
pub async fn open_for_init(location: &Location, runtime: &Runtime) -> Result<Store> {
    open_place(location, runtime, LocalStore::create).await
}

/// Removes what killed writers left in a `file://` repository: staged files older than `older_than`.
/// Other stores keep no such files.
pub async fn remove_leftovers(location: &Location, older_than: Duration, runtime: &Runtime) -> Result<Leftovers> {
    let Place::Folder(folder) = location.place()? else { return Ok(Leftovers::default()) };
    let runtime = runtime.clone();
    tokio::task::spawn_blocking(move || local::remove_leftovers(&folder, older_than, &runtime))
        .await
        .or_err(ErrorKind::Internal, || "removing unfinished files was cut short".to_owned())?
}

async fn open_place(
    location: &Location,
    runtime: &Runtime,
    open_folder: impl FnOnce(&std::path::Path) -> Result<LocalStore>,
) -> Result<Store> {
    let mut locks = None;
    let inner: Arc<dyn ObjectStore> = match location.place()? {
        Place::Folder(folder) => Arc::new(open_folder(&folder)?),
        Place::S3 { bucket, prefix } => {
            let access = Access::resolve(location, &bucket).await?;
            access.check_credentials().await?;
            locks = Some(Arc::new(ObjectLocks::new(&access, prefix.clone(), location.object_lock)));
            below(prefix, access.store(runtime)?)
        }
        Place::Azure { container, prefix } => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(&container)
                .with_client_options(client_options())
                .with_retry(s3::one_attempt());
            if let Some(account) = &location.access_key_id {
                builder = builder.with_account(account.expose_secret());
            }
            if let Some(key) = &location.secret_access_key {
                builder = builder.with_access_key(key.expose_secret());
            }
            if let Some(endpoint) = &location.endpoint {
                builder = builder.with_endpoint(endpoint.clone()).with_allow_http(endpoint.starts_with("http://"));
            }
            below(prefix, builder.build().or_err(ErrorKind::Config, || format!("cannot use {}", location.url))?)
        }
        Place::Google { bucket, prefix } => {
            let builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(&bucket)
                .with_client_options(client_options())
                .with_retry(s3::one_attempt());
            below(prefix, builder.build().or_err(ErrorKind::Config, || format!("cannot use {}", location.url))?)
        }
    };
    Ok(Store::new(inner, &location.url, location.retry, runtime.clone()).with_locks(locks))
}

fn below(prefix: Path, store: impl ObjectStore) -> Arc<dyn ObjectStore> {
    if prefix.is_root() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) }
}

/// Connections for every HTTP store.
pub(super) fn client_options() -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        // A fixed limit would make large uploads over slow lines fail for ever; `Store` has its own.
        .with_timeout_disabled()
        // Below the keep-alive time of the usual servers, so that a request rarely meets a closed connection.
        .with_pool_idle_timeout(Duration::from_secs(15))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<Place> {
        Location::new(url).place()
    }

    #[test]
    fn urls_are_read() {
        assert_eq!(place("file:///srv/b%20c").expect("valid"), Place::Folder("/srv/b c".into()));
        let s3 = place("s3://odoo-backups/estate/eu/").expect("valid");
        assert_eq!(s3, Place::S3 { bucket: "odoo-backups".into(), prefix: Path::from("estate/eu") });
        let root = place("s3://odoo-backups").expect("valid");
        assert_eq!(root, Place::S3 { bucket: "odoo-backups".into(), prefix: Path::ROOT });
        assert!(matches!(place("az://c/p").expect("valid"), Place::Azure { .. }));
        assert!(matches!(place("gs://b/p").expect("valid"), Place::Google { .. }));
        for wrong in ["", "/srv/x", "ftp://x/y", "s3:///x", "s3://h:9000/b", "s3://u:p@b/x", "s3://b/x?y", "file://h/x"]
        {
            let error = place(wrong).expect_err(wrong);
            assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_absent_folder_is_an_error_and_only_init_creates_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let folder = dir.path().join("mnt/backups");
        let location = Location::new(Url::from_file_path(&folder).expect("absolute"));
        let runtime = Runtime::silent();
        let error = open(&location, &runtime).await.expect_err("absent");
        assert_eq!(error.kind(), ErrorKind::Repository);
        assert!(error.hints().iter().any(|hint| hint.contains("mounted")), "{error:?}");
        assert!(!folder.exists());
        open_for_init(&location, &runtime).await.expect("init creates");
        open(&location, &runtime).await.expect("now there");
    }

    #[tokio::test]
    async fn half_a_pair_of_credentials_is_refused() {
        let mut location = Location::new("s3://bucket/x");
        location.region = Some("eu-west-1".into());
        location.access_key_id = Some("id".into());
        let error = open(&location, &Runtime::silent()).await.expect_err("half");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
