//! Object Lock: dates before which nobody, not even the holder of these credentials, deletes an object for good.
//!
//! Promises: with a policy, every object that is committed for long gets a date right after it was put; a date is only ever
//! moved on. What is made to be short-lived (`wal-live/`, `filestore-live/`, `leases/`, the ledger's checkpoint, the probe's
//! objects) gets none, so it stays deletable; that is why the bucket must have no default retention. An object whose date
//! could not be set is durable all the same: that is a warning, and `lifeboat prune` makes up for it. Locks and legal
//! holds that somebody else set are respected: what is locked is not deleted, not even hidden by a delete marker.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::DateTime as SdkTime;
use aws_sdk_s3::types::{ObjectLockEnabled, ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode};
use chrono::{DateTime, TimeDelta, Utc};
use object_store::path::Path;

use super::s3::Access;
use crate::config::{LockMode, ObjectLockConfig};
use crate::error::{self, Result};
use crate::event::Event;
use crate::runtime::Runtime;

/// The locks of one bucket, below a prefix.
pub struct ObjectLocks {
    client: aws_sdk_s3::Client,
    bucket: String,
    prefix: Path,
    policy: Option<ObjectLockConfig>,
    /// The bucket has no Object Lock, or these credentials may not set dates: told once, and not tried again.
    given_up: AtomicBool,
}

impl fmt::Debug for ObjectLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectLocks({}, {:?})", self.bucket, self.policy)
    }
}

impl ObjectLocks {
    pub(super) fn new(access: &Access, prefix: Path, policy: Option<ObjectLockConfig>) -> Self {
        let (client, bucket) = (access.control(), access.bucket.clone());
        Self { client, bucket, prefix, policy, given_up: AtomicBool::new(false) }
    }

    /// How objects are locked; `None`: they are not.
    pub fn policy(&self) -> Option<ObjectLockConfig> {
        self.policy
    }

    fn key(&self, name: &str) -> String {
        match self.prefix.is_root() {
            true => name.to_owned(),
            false => format!("{}/{name}", self.prefix),
        }
    }

    /// Locks an object that was just put, where there is a policy and the object is one for long. Never fails: see above.
    pub(super) async fn after_put(&self, name: &str, runtime: &Runtime) {
        let Some(policy) = self.policy.filter(|_| is_for_long(name)) else { return };
        if self.given_up.load(Ordering::Relaxed) {
            return;
        }
        if let Err(e) = self.lock(name, policy.mode, until(policy, runtime.now())).await
            && !self.given_up.swap(true, Ordering::Relaxed)
        {
            runtime.emit(Event::Warning(format!(
                "{name} is stored, and could not be locked: {e}; no object is locked until the next command, and \
                 `lifeboat prune` makes up for it"
            )));
        }
    }

    /// Sets the date of an object.
    pub async fn lock(&self, name: &str, mode: LockMode, until: DateTime<Utc>) -> Result<()> {
        let mode = match mode {
            LockMode::Governance => ObjectLockRetentionMode::Governance,
            LockMode::Compliance => ObjectLockRetentionMode::Compliance,
        };
        let retention =
            ObjectLockRetention::builder().mode(mode).retain_until_date(SdkTime::from_secs(until.timestamp())).build();
        let put = self.client.put_object_retention().bucket(&self.bucket).key(self.key(name)).retention(retention);
        put.send().await.map(|_| ()).map_err(|failure| refused("lock", name, &failure))
    }

    /// Whether the bucket has Object Lock; `false` also where the store does not know it.
    ///
    /// # Errors
    /// Repository where the store does not tell although it seems to know: then nothing may be deleted.
    pub async fn is_enabled(&self) -> Result<bool> {
        match self.client.get_object_lock_configuration().bucket(&self.bucket).send().await {
            Ok(answer) => {
                let enabled = answer.object_lock_configuration().and_then(|c| c.object_lock_enabled());
                Ok(enabled == Some(&ObjectLockEnabled::Enabled))
            }
            Err(failure) => match failure.code() {
                Some("ObjectLockConfigurationNotFoundError" | "NotImplemented" | "MethodNotAllowed") => Ok(false),
                // Credentials that may not ask: the store refuses what it must when objects are deleted.
                Some("AccessDenied") => Ok(self.policy.is_some()),
                _ => Err(refused("ask for the Object Lock of", &self.bucket, &failure)),
            },
        }
    }

    /// Why an object must not be deleted at `now`; `None`: nothing forbids it, or it is not there.
    pub async fn forbids(&self, name: &str, now: DateTime<Utc>) -> Result<Option<String>> {
        let answer = match self.client.head_object().bucket(&self.bucket).key(self.key(name)).send().await {
            Ok(answer) => answer,
            Err(failure) => {
                let absent = failure.as_service_error().is_some_and(|e| e.is_not_found());
                return if absent { Ok(None) } else { Err(refused("look at", name, &failure)) };
            }
        };
        if answer.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On) {
            return Ok(Some("under a legal hold of the store".to_owned()));
        }
        let until = answer.object_lock_retain_until_date().and_then(|t| DateTime::from_timestamp(t.secs(), 0));
        let mode = answer.object_lock_mode().map_or("unknown", |mode| mode.as_str()).to_lowercase();
        Ok(until
            .filter(|until| *until > now)
            .map(|until| format!("locked ({mode}) until {}", until.format("%Y-%m-%d %H:%M:%S UTC"))))
    }
}

/// The date for what is locked at `now`.
pub fn until(policy: ObjectLockConfig, now: DateTime<Utc>) -> DateTime<Utc> {
    now + TimeDelta::days(policy.days.into())
}

/// Whether an object is committed for long; the others must stay deletable.
pub fn is_for_long(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["lifeboat.json"] | ["keys", ..] => true,
        [_, "ledger", entry] => entry.ends_with(".json"),
        [_, "data" | "meta", _] => true,
        [_, "wal", _, _] => true,
        _ => false,
    }
}

fn refused<E, R>(what: &str, name: &str, failure: &SdkError<E, R>) -> error::Error
where
    SdkError<E, R>: ProvideErrorMetadata,
{
    let why = match (failure.code(), failure.message(), failure) {
        (Some(code), Some(message), _) => format!("{code}: {message}"),
        (Some(code), None, _) => code.to_owned(),
        (None, _, SdkError::ServiceError(_) | SdkError::ResponseError(_)) => "its answer could not be read".to_owned(),
        (None, ..) => "it did not answer".to_owned(),
    };
    error::repository(format!("the store does not {what} {name}: {why}"))
        .hint("see docs/operations.md, \"Object Lock\", for what the bucket and the credentials need")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::moto::Moto;
    use crate::storage::open;

    #[test]
    fn what_is_short_lived_is_never_locked() {
        for name in [
            "lifeboat.json",
            "keys/1.age",
            "keys/signers/ab.json",
            "production/ledger/00000000000000000001.json",
            "production/data/ab",
            "production/meta/ab",
            "production/wal/00000001/000000010000000000000002",
        ] {
            assert!(is_for_long(name), "{name}");
        }
        for name in [
            "production/ledger/checkpoint",
            "production/wal-live/00000001/000000010000000000000002/0-1",
            "production/filestore-live/ab/1-ab",
            "production/leases/wal/1",
            "probe/x/object",
        ] {
            assert!(!is_for_long(name), "{name}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn dates_are_set_after_the_put_and_moved_on() {
        let Some(moto) = Moto::start("dates_are_set_after_the_put_and_moved_on").await else { return };
        let control = moto.control("locked").await;
        control
            .create_bucket()
            .bucket("locked")
            .object_lock_enabled_for_bucket(true)
            .send()
            .await
            .expect("bucket created");
        let mut location = moto.location("locked");
        location.object_lock = Some(ObjectLockConfig { mode: LockMode::Governance, days: 30 });
        let runtime = Runtime::silent();
        let store = open(&location, &runtime).await.expect("opens");
        let locks = store.locks().expect("S3").clone();
        assert!(locks.is_enabled().await.expect("told"));
        store.create("e/data/ab", "pack".into()).await.expect("put");
        store.create("e/wal-live/00000001/x/0-1", "piece".into()).await.expect("put");
        let now = runtime.now();
        let days = |n| now + TimeDelta::days(n);
        let why = locks.forbids("e/data/ab", now).await.expect("told").expect("locked");
        assert!(why.contains("governance"), "{why}");
        assert_eq!(locks.forbids("e/data/ab", days(31)).await.expect("told"), None, "its date has passed");
        assert_eq!(locks.forbids("e/wal-live/00000001/x/0-1", now).await.expect("told"), None);
        assert_eq!(locks.forbids("e/data/absent", now).await.expect("told"), None);
        locks.lock("e/data/ab", LockMode::Governance, days(90)).await.expect("moved on");
        assert!(locks.forbids("e/data/ab", days(60)).await.expect("told").is_some());
        store.delete_all(vec!["e/wal-live/00000001/x/0-1".into()]).await.expect("deletable");

        // A bucket without Object Lock: stored all the same, and told once.
        let mut location = moto.bucket("plain").await;
        location.object_lock = Some(ObjectLockConfig { mode: LockMode::Compliance, days: 1 });
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = told.clone();
        let runtime = Runtime::new(move |event| sink.lock().expect("lock").push(format!("{event:?}")));
        let store = open(&location, &runtime).await.expect("opens");
        assert!(!store.locks().expect("S3").is_enabled().await.expect("told"));
        for name in ["e/data/a", "e/data/b"] {
            store.create(name, "pack".into()).await.expect("stored all the same");
        }
        let told = told.lock().expect("lock").clone();
        assert!(told.len() <= 1 && told.iter().all(|t| t.contains("could not be locked")), "{told:?}");
    }
}
