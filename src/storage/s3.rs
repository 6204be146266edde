//! S3 and what speaks like it: one set of credentials, region and endpoint for both clients, the
//! data plane (`object_store`) and the control plane (`aws-sdk-s3`, used by the probe only).
//!
//! Nothing but credentials and region is ever taken from the environment, and those only where the
//! configuration names none: where a repository is must be readable from the configuration alone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::default_provider;
use aws_config::meta::region::ProvideRegion;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_s3::config::retry::RetryConfig as SdkRetry;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use chrono::{DateTime, TimeDelta, Utc};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential, Checksum, S3ConditionalPut};
use object_store::{CredentialProvider, Error as StoreError, RetryConfig};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use super::open::{Location, client_options};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::runtime::Runtime;

/// Credentials are fetched anew this long before they expire, and at the latest after this long, so
/// that rotated files are noticed.
const REFRESH: TimeDelta = TimeDelta::minutes(5);

/// How to reach one bucket, for either client.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) bucket: String,
    region: Region,
    endpoint: Option<String>,
    credentials: SharedCredentialsProvider,
}

impl Access {
    /// Settles credentials and region: those of `location`, else those of the usual AWS chain.
    pub(super) async fn resolve(location: &Location, bucket: &str) -> Result<Self> {
        let region = match (&location.region, &location.endpoint) {
            (Some(region), _) => Region::new(region.clone()),
            (None, Some(_)) => Region::from_static("us-east-1"),
            (None, None) => default_provider::region::default_provider()
                .region()
                .await
                .ok_or_else(|| error::config("repository.region is missing").hint("write region = \"eu-west-1\""))?,
        };
        let credentials = match (&location.access_key_id, &location.secret_access_key) {
            (Some(id), Some(secret)) => SharedCredentialsProvider::new(Credentials::new(
                id.expose_secret(),
                secret.expose_secret(),
                location.session_token.as_ref().map(|token| token.expose_secret().to_owned()),
                None,
                "configuration",
            )),
            (None, None) => {
                let chain = default_provider::credentials::DefaultCredentialsChain::builder().region(region.clone());
                SharedCredentialsProvider::new(chain.build().await)
            }
            _ => {
                return Err(error::config("only one of repository.access_key_id and secret_access_key is given")
                    .hint("give both, or neither to use the usual AWS chain"));
            }
        };
        if let Some(endpoint) = &location.endpoint {
            let scheme = url::Url::parse(endpoint).ok().map(|url| url.scheme().to_owned());
            if !matches!(scheme.as_deref(), Some("http" | "https")) {
                return Err(error::config(format!("repository.endpoint \"{endpoint}\" is not an http or https URL"))
                    .hint("write for example endpoint = \"https://minio.example.com:9000\""));
            }
        }
        Ok(Self { bucket: bucket.to_owned(), region, endpoint: location.endpoint.clone(), credentials })
    }

    /// Refuses at once, instead of after all retries, where the credentials cannot be had.
    pub(super) async fn check_credentials(&self) -> Result<()> {
        let none = match self.credentials.provide_credentials().await {
            Ok(_) => return Ok(()),
            Err(none) => none,
        };
        let error = match none {
            CredentialsError::CredentialsNotLoaded(_) => error::config("no AWS credentials were found"),
            _ => error::repository("the AWS credentials could not be obtained"),
        };
        Err(error
            .source(none)
            .hint("set repository.access_key_id and secret_access_key in the configuration")
            .hint("or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role of this host"))
    }

    /// The data plane.
    pub(super) fn store(&self, runtime: &Runtime) -> Result<AmazonS3> {
        let plain = self.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(self.region.as_ref())
            .with_credentials(Arc::new(Adapter::new(self.credentials.clone(), runtime.clone())))
            .with_virtual_hosted_style_request(self.endpoint.is_none())
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_checksum_algorithm(Checksum::SHA256)
            .with_client_options(client_options().with_allow_http(plain))
            .with_retry(one_attempt());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        builder.build().or_err(ErrorKind::Config, || format!("cannot use the bucket {}", self.bucket))
    }

    /// The control plane.
    pub(super) fn control(&self) -> aws_sdk_s3::Client {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .operation_timeout(Duration::from_secs(20))
            .build();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(self.region.clone())
            .credentials_provider(self.credentials.clone())
            .force_path_style(self.endpoint.is_some())
            .timeout_config(timeouts)
            .retry_config(SdkRetry::standard().with_max_attempts(2));
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint.trim_end_matches('/'));
        }
        aws_sdk_s3::Client::from_conf(config.build())
    }
}

/// No retries inside `object_store`: [`super::Store`] holds the one retry policy, and a create that was
/// repeated behind its back would find its own object and call it somebody else's.
pub(super) fn one_attempt() -> RetryConfig {
    RetryConfig { max_retries: 0, ..Default::default() }
}

/// The AWS chain as `object_store` wants it, cached, because the chain itself asks anew each time.
struct Adapter {
    provider: SharedCredentialsProvider,
    runtime: Runtime,
    cached: Mutex<Option<(Arc<AwsCredential>, DateTime<Utc>)>>,
}

impl Adapter {
    fn new(provider: SharedCredentialsProvider, runtime: Runtime) -> Self {
        Self { provider, runtime, cached: Mutex::new(None) }
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsCredentialAdapter")
    }
}

#[async_trait]
impl CredentialProvider for Adapter {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let now = self.runtime.now();
        let mut cached = self.cached.lock().await;
        if let Some((credential, until)) = &*cached
            && now < *until
        {
            return Ok(Arc::clone(credential));
        }
        let fresh = self.provider.provide_credentials().await.map_err(|failure| match failure {
            none @ CredentialsError::CredentialsNotLoaded(_) => {
                StoreError::Unauthenticated { path: String::new(), source: none.into() }
            }
            other => StoreError::Generic { store: "AWS credentials", source: other.into() },
        })?;
        let expiry = fresh.expiry().map_or(DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::from);
        let credential = Arc::new(AwsCredential {
            key_id: fresh.access_key_id().to_owned(),
            secret_key: fresh.secret_access_key().to_owned(),
            token: fresh.session_token().map(str::to_owned),
        });
        *cached = Some((Arc::clone(&credential), (now + REFRESH).min(expiry - REFRESH)));
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use aws_credential_types::provider::future::ProvideCredentials as Answer;

    use super::*;
    use crate::runtime::Clock;

    #[derive(Debug, Clone, Default)]
    struct Minutes(Arc<AtomicI64>);

    impl Clock for Minutes {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH + TimeDelta::minutes(self.0.load(Ordering::Relaxed))
        }
    }

    /// Gives a new key each time, which expires eight minutes after `now`; or none.
    #[derive(Debug)]
    struct Chain {
        now: Minutes,
        asked: AtomicI64,
        answers: bool,
    }

    impl ProvideCredentials for Chain {
        fn provide_credentials<'a>(&'a self) -> Answer<'a>
        where
            Self: 'a,
        {
            if !self.answers {
                return Answer::ready(Err(CredentialsError::not_loaded("nothing configured")));
            }
            let key = format!("key-{}", self.asked.fetch_add(1, Ordering::Relaxed));
            let expiry = self.now.now() + TimeDelta::minutes(8);
            Answer::ready(Ok(Credentials::new(key, "secret", None, Some(expiry.into()), "test")))
        }
    }

    fn chain(now: &Minutes, answers: bool) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(Chain { now: now.clone(), asked: AtomicI64::new(0), answers })
    }

    #[tokio::test]
    async fn credentials_are_kept_and_fetched_anew_before_they_expire() {
        let now = Minutes::default();
        let adapter = Adapter::new(chain(&now, true), Runtime::silent().with_clock(now.clone()));
        for (minute, key) in [(0, "key-0"), (2, "key-0"), (3, "key-1"), (5, "key-1"), (6, "key-2")] {
            now.0.store(minute, Ordering::Relaxed);
            assert_eq!(adapter.get_credential().await.expect("given").key_id, key, "minute {minute}");
        }
    }

    #[tokio::test]
    async fn missing_credentials_are_told_at_once() {
        let now = Minutes::default();
        let access = Access {
            bucket: "b".into(),
            region: Region::from_static("eu-west-1"),
            endpoint: None,
            credentials: chain(&now, false),
        };
        let error = access.check_credentials().await.expect_err("none");
        assert_eq!(error.kind(), ErrorKind::Config);
        let adapter = Adapter::new(chain(&now, false), Runtime::silent());
        let failure = adapter.get_credential().await.expect_err("none");
        assert!(matches!(failure, StoreError::Unauthenticated { .. }), "not tried again: {failure}");
    }
}
