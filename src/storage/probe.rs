//! Finds out by trying whether a store can hold a repository.
//!
//! It promises: a store that replaces what exists, cuts bodies short, forgets what it listed or keeps
//! what was deleted is refused with an error that says so. What a store merely does not tell (its
//! versioning, its object lock) is "unknown", never an error. Everything written is below `probe/`
//! under a name of its own, and removed again.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockEnabled};
use bytes::Bytes;
use futures::future::join_all;
use serde::Serialize;

use super::open::{Location, Place};
use super::s3::Access;
use super::store::{Created, Store};
use crate::error::{self, Error, Result};
use crate::runtime::Runtime;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// Works, but somebody should look at it.
    Warning,
    /// The store does not tell.
    Unknown,
}

/// One property of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which property: `create-only`, `object-lock`, …
    pub name: &'static str,
    /// How to take it.
    pub state: State,
    /// What was found, in words.
    pub words: String,
}

/// What a probe found; a store that cannot hold a repository is an error instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// The store.
    pub url: String,
    /// All findings.
    pub findings: Vec<Finding>,
}

impl ProbeReport {
    /// The findings that somebody should look at.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.state == State::Warning)
    }
}

/// How many writers compete for one name, and how often.
const RACERS: u8 = 12;
const RACES: u8 = 2;

/// Tries everything that a repository needs of `store`, which was opened from `location`.
pub async fn probe(store: &Store, location: &Location, runtime: &Runtime) -> Result<ProbeReport> {
    let mut random = [0_u8; 8];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| error::internal("the operating system gives no random numbers"))?;
    let folder = format!("probe/{}-{}/", runtime.now().format("%Y%m%dT%H%M%SZ"), hex::encode(random));
    let tried = try_data_plane(store, &folder).await;
    // Clean up whatever happened; the first failure is the one that counts.
    let swept = sweep(store, &folder).await;
    let asked = match location.place()? {
        Place::S3 { bucket, .. } => ask_control_plane(&Access::resolve(location, &bucket).await?).await,
        _ => Vec::new(),
    };
    let mut findings = match tried.and_then(|findings| Ok((findings, swept?))) {
        Ok((mut findings, swept)) => {
            findings.push(swept);
            findings
        }
        // A bucket's own settings are often the reason.
        Err(refusal) => {
            let reasons = asked.into_iter().filter(|finding| finding.state == State::Warning);
            return Err(reasons.fold(refusal, |refusal, reason| refusal.hint(reason.words)));
        }
    };
    let locks = |finding: &Finding| finding.name == "object-lock" && finding.state == State::Good;
    if location.object_lock.is_some() && !asked.iter().any(locks) {
        let words = "[repository.object_lock] is configured, but the bucket has no Object Lock (it is turned on when a bucket \
                     is made): nothing is locked";
        findings.push(warning("object-lock-policy", words));
    }
    findings.extend(asked);
    Ok(ProbeReport { url: store.url().to_owned(), findings })
}

fn good(name: &'static str, words: &str) -> Finding {
    Finding { name, state: State::Good, words: words.to_owned() }
}

fn warning(name: &'static str, words: impl Into<String>) -> Finding {
    Finding { name, state: State::Warning, words: words.into() }
}

fn refuse(store: &Store, what: &str, meaning: &str) -> Error {
    error::repository(format!("{} cannot hold a repository: {what}", store.url()))
        .meaning(meaning)
        .hint("use another store; docs/providers.md says which ones work")
}

async fn try_data_plane(store: &Store, folder: &str) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let key = format!("{folder}object");
    // Not compressible and not periodic, so that a wrong range cannot look right.
    let body: Bytes = (0..65_537_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    if store.create(&key, body.clone()).await? != Created::New {
        return Err(refuse(store, "a new name was already taken", "two probes cannot share a name"));
    }

    let replaced = "an object was replaced although only its creation was asked for";
    let danger = "two writers could overwrite each other's backups and ledger entries; nothing was changed but the \
                  probe's own object";
    match store.create_or_get(&key, Bytes::from_static(b"another")).await? {
        Some(there) if there == body => {}
        _ => return Err(refuse(store, replaced, danger)),
    }
    for race in 0..RACES {
        let name = format!("{folder}race-{race}");
        let racers = (0..RACERS).map(|racer| store.create_or_get(&name, Bytes::from(vec![racer; 64])));
        let mut winners = 0;
        for outcome in join_all(racers).await {
            winners += usize::from(outcome?.is_none());
        }
        if winners != 1 {
            return Err(refuse(
                store,
                &format!("{winners} of {RACERS} writers who created the same name at once were told that they won"),
                danger,
            ));
        }
    }
    findings.push(good("create-only", "an existing object is never replaced, not even by writers racing for its name"));

    let whole = store.get(&key).await?;
    let size = store.info(&key).await?.map(|info| info.size);
    if whole != body || size != Some(body.len() as u64) {
        let what = format!("{} bytes were written and {} other ones came back", body.len(), whole.len());
        return Err(refuse(store, &what, "backups would be damaged"));
    }
    findings.push(good("read-back", "what was written comes back whole, with its length announced"));

    let end = body.len() as u64;
    for range in [0..1, 1000..70_000, end - 5..end] {
        let part = store.get_range(&key, range.clone()).await?;
        if part != body.slice(range.start as usize..range.end as usize) {
            let what = format!("the bytes {} to {} of an object came back wrong", range.start, range.end);
            return Err(refuse(store, &what, "restores read parts of objects and would be damaged"));
        }
    }
    findings.push(good("ranged-read", "parts of an object can be read"));

    let listed: Vec<String> = store.list(folder).await?.into_iter().map(|info| info.key).collect();
    let expected: Vec<String> =
        std::iter::once(key.clone()).chain((0..RACES).map(|race| format!("{folder}race-{race}"))).collect();
    let after: Vec<String> = store.list_after(folder, Some(&key)).await?.into_iter().map(|info| info.key).collect();
    if listed != expected || after != expected[1..] {
        let what = format!("{} objects were written and {} were listed", expected.len(), listed.len());
        return Err(refuse(store, &what, "archived WAL could be overlooked, which shortens a recovery"));
    }
    findings.push(good("list-after-write", "what was written is listed at once, in order"));

    store.delete_all(vec![key.clone()]).await?;
    if store.find(&key).await?.is_some() {
        let meaning = "the pieces of WAL segments being written are short-lived and would fill the store";
        return Err(refuse(store, "an object was still there after it had been deleted", meaning));
    }
    findings.push(good("delete", "short-lived objects can be deleted, and an absent object is reported as absent"));
    Ok(findings)
}

async fn sweep(store: &Store, folder: &str) -> Result<Finding> {
    let left: Vec<String> = store.list(folder).await?.into_iter().map(|info| info.key).collect();
    if !left.is_empty() {
        store.delete_all(left).await?;
    }
    Ok(good("clean-up", "nothing of the probe is left"))
}

/// What the bucket's owner configured. A store that does not know a call or forbids it: unknown.
async fn ask_control_plane(access: &Access) -> Vec<Finding> {
    let client = access.control();
    let bucket = &access.bucket;
    let (versioning, lock, public, encryption) = tokio::join!(
        client.get_bucket_versioning().bucket(bucket).send(),
        client.get_object_lock_configuration().bucket(bucket).send(),
        client.get_public_access_block().bucket(bucket).send(),
        client.get_bucket_encryption().bucket(bucket).send(),
    );
    vec![
        versioning.map_or_else(|failure| unknown("versioning", &failure), |answer| versioned(answer.status())),
        lock.map_or_else(
            |failure| match failure.code() {
                Some("ObjectLockConfigurationNotFoundError") => no_lock(),
                _ => unknown("object-lock", &failure),
            },
            |answer| {
                let configuration = answer.object_lock_configuration();
                let retention = configuration.and_then(|c| c.rule()).and_then(|rule| rule.default_retention());
                let enabled = configuration.and_then(|c| c.object_lock_enabled()) == Some(&ObjectLockEnabled::Enabled);
                match (enabled, retention) {
                    (_, Some(retention)) => {
                        let span = match (retention.days(), retention.years()) {
                            (Some(days), _) => format!("{days} days"),
                            (None, Some(years)) => format!("{years} years"),
                            (None, None) => "an unnamed time".to_owned(),
                        };
                        let mode = retention.mode().map_or("unknown", |mode| mode.as_str());
                        warning(
                            "object-lock",
                            format!(
                                "the bucket's default retention ({mode}, {span}) locks every object, also those that are \
                                 made to be short-lived (wal-live/, leases/, the ledger's checkpoint, probe/): they cannot \
                                 be removed for {span} and take space; remove the default retention from the bucket"
                            ),
                        )
                    }
                    (true, None) => good("object-lock", "object lock is available and the bucket has no default retention"),
                    (false, None) => no_lock(),
                }
            },
        ),
        public.map_or_else(
            |failure| match failure.code() {
                Some("NoSuchPublicAccessBlockConfiguration") => {
                    warning("public-access", "the bucket does not block public access")
                }
                _ => unknown("public-access", &failure),
            },
            |answer| {
                let block = answer.public_access_block_configuration();
                let blocked = block.is_some_and(|b| {
                    [b.block_public_acls(), b.ignore_public_acls(), b.block_public_policy(), b.restrict_public_buckets()]
                        .iter()
                        .all(|on| *on == Some(true))
                });
                match blocked {
                    true => good("public-access", "public access is blocked"),
                    false => warning("public-access", "the bucket does not block all public access"),
                }
            },
        ),
        encryption.map_or_else(
            |failure| match failure.code() {
                Some("ServerSideEncryptionConfigurationNotFoundError") => {
                    good("encryption", "the store does not encrypt by itself; Lifeboat encrypts before it sends")
                }
                _ => unknown("encryption", &failure),
            },
            |_| good("encryption", "the store encrypts by itself, beside Lifeboat's own encryption"),
        ),
    ]
}

fn versioned(status: Option<&BucketVersioningStatus>) -> Finding {
    match status {
        Some(BucketVersioningStatus::Enabled) => good(
            "versioning",
            "versioning is on: deleted objects stay as old versions until a lifecycle rule removes them",
        ),
        _ => warning(
            "versioning",
            "versioning is off: whoever holds these credentials can delete or overwrite backups for good",
        ),
    }
}

fn no_lock() -> Finding {
    warning("object-lock", "object lock is off: backups can be deleted by whoever may delete in the bucket")
}

fn unknown<E, R>(name: &'static str, failure: &SdkError<E, R>) -> Finding
where
    SdkError<E, R>: ProvideErrorMetadata,
{
    let why = match (failure.code(), failure) {
        (Some(code), _) => format!("it said {code}"),
        (None, SdkError::ServiceError(_) | SdkError::ResponseError(_)) => "its answer could not be read".to_owned(),
        (None, _) => "it did not answer".to_owned(),
    };
    Finding { name, state: State::Unknown, words: format!("the store does not tell: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versioning_is_good_only_when_it_is_on() {
        assert_eq!(versioned(Some(&BucketVersioningStatus::Enabled)).state, State::Good);
        assert_eq!(versioned(Some(&BucketVersioningStatus::Suspended)).state, State::Warning);
        assert_eq!(versioned(None).state, State::Warning);
    }
}
