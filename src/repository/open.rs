//! Making a repository and opening one.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::descriptor::{Descriptor, Enrolment, FORMAT, Signer, SignerRole, trusted_signers};
use super::state_dir::StateDir;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::evidence::{Fence, LedgerCache, Trust, TrustedKey};
use crate::runtime::Runtime;
use crate::storage::{Created, RetryPolicy, Store, layout};
use crate::vault::epoch::parse_recipient;
use crate::vault::{EpochSecrets, IndexKey, OpenKeys, RecoveryIdentity, SealKeys, SigningKey};

/// An open repository: the store, what it says of itself, and the keys this host holds.
#[derive(Debug)]
pub struct Repository {
    /// Where it lives.
    pub store: Store,
    /// What it says of itself.
    pub descriptor: Descriptor,
    /// For writing.
    pub seal: SealKeys,
    /// For reading: metadata always, data where a recovery identity was given.
    pub keys: OpenKeys,
    signer: Option<Arc<SigningKey>>,
    fence: Option<Fence>,
    /// Where this host keeps ledger entries that it has seen; `None` where it keeps nothing.
    pub(super) caches: Option<PathBuf>,
}

/// What [`init`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialised {
    /// The repository was made.
    Made,
    /// It existed, and this host's signing key was added.
    Enrolled,
    /// It existed, and this host already belonged to it.
    Already,
}

/// Makes a repository, or makes this host a member of an existing one. Safe to repeat.
pub async fn init(
    store: &Store,
    state: &StateDir,
    recipients: &[String],
    recovery: Option<&RecoveryIdentity>,
    host: &str,
    runtime: &Runtime,
) -> Result<Initialised> {
    if let Some(descriptor) = Descriptor::find(store).await? {
        return join(store, state, &descriptor, recovery, host, runtime).await;
    }
    if recipients.is_empty() {
        return Err(error::config("`[keys] recipients` is empty: nobody could restore")
            .hint("run `lifeboat keygen -o recovery.key` and list the public key it prints"));
    }
    let recipients = recipients.iter().map(|r| parse_recipient(r)).collect::<Result<Vec<_>>>()?;
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| error::internal("the operating system gives no random numbers"))?;
    let repository = hex::encode(id);
    let (secrets, signing) = (EpochSecrets::generate()?, SigningKey::generate()?);
    // A try that was killed between the key object and the descriptor leaves a number in use.
    let mut epoch = 1;
    while store.info(&layout::epoch_key(epoch)).await?.is_some() {
        epoch += 1;
    }
    let sealed = Bytes::from(secrets.seal(&repository, epoch, &recipients)?);
    let signer = |role, name: &str, key: &SigningKey| Signer { role, name: name.into(), key: key.verifying_key() };
    let descriptor = Descriptor {
        format: FORMAT,
        repository: repository.clone(),
        created_at: runtime.now(),
        epoch,
        epoch_recipient: secrets.recipient().to_string(),
        signers: vec![
            signer(SignerRole::Host, host, &signing),
            signer(SignerRole::Recovery, "recovery", &secrets.recovery_signing),
        ],
    };
    state.store(&repository, &signing, &secrets.index)?;
    store.create(&layout::epoch_key(epoch), sealed).await?;
    let text = serde_json::to_vec_pretty(&descriptor).expect("a descriptor is plain data");
    match store.create_or_get(layout::DESCRIPTOR, Bytes::from(text)).await? {
        None => Ok(Initialised::Made),
        Some(_) => Err(error::repository(format!("another host made the repository in {} just now", store.url()))
            .hint("run `lifeboat init` again to join it, with the recovery identity configured")),
    }
}

async fn join(
    store: &Store,
    state: &StateDir,
    descriptor: &Descriptor,
    recovery: Option<&RecoveryIdentity>,
    host: &str,
    runtime: &Runtime,
) -> Result<Initialised> {
    let trusted = trusted_signers(store, descriptor).await?;
    if let Some((signing, _)) = state.load(&descriptor.repository)?
        && trusted.iter().any(|s| s.key == signing.verifying_key())
    {
        return Ok(Initialised::Already);
    }
    let recovery = recovery.ok_or_else(|| {
        error::denied(format!("{} already holds a repository, and this host is not a member of it", store.url()))
            .meaning("nothing was changed; existing backups are untouched")
            .hint("set `[keys] identity` to the recovery key for this one command: `init` then enrols this host")
            .hint("or restore the old `state_dir` of this host")
    })?;
    let secrets = epoch_secrets(store, descriptor, recovery).await?;
    let signing = SigningKey::generate()?;
    let signer = Signer { role: SignerRole::Host, name: host.into(), key: signing.verifying_key() };
    let enrolment = Enrolment::new(&descriptor.repository, signer, runtime.now(), &secrets.recovery_signing);
    state.store(&descriptor.repository, &signing, &secrets.index)?;
    let text = serde_json::to_vec_pretty(&enrolment).expect("an enrolment is plain data");
    store.create(&layout::signer(&signing.verifying_key().id()), Bytes::from(text)).await?;
    Ok(Initialised::Enrolled)
}

async fn epoch_secrets(store: &Store, descriptor: &Descriptor, recovery: &RecoveryIdentity) -> Result<EpochSecrets> {
    let sealed = store.get(&layout::epoch_key(descriptor.epoch)).await?;
    let secrets = EpochSecrets::open(&sealed, recovery)?;
    if secrets.recipient().to_string() != descriptor.epoch_recipient {
        return Err(error::integrity(format!(
            "{} does not hold the private key of the epoch that {} names",
            layout::epoch_key(descriptor.epoch),
            layout::DESCRIPTOR
        )));
    }
    Ok(secrets)
}

impl Repository {
    /// Opens a repository with the keys in `state`, and with `recovery` also for reading data. A host
    /// with nothing but a recovery identity can read; to write it must run `init` first.
    pub async fn open(store: &Store, state: &StateDir, recovery: Option<&RecoveryIdentity>) -> Result<Self> {
        let descriptor = Descriptor::find(store).await?.ok_or_else(|| {
            error::repository(format!("there is no repository in {}", store.url()))
                .hint("run `lifeboat init` to make one, or correct `[repository] url`")
        })?;
        let held = state.load(&descriptor.repository)?;
        let caches = held.is_some().then(|| state.path().join("ledger"));
        let secrets = match recovery {
            Some(recovery) => Some(epoch_secrets(store, &descriptor, recovery).await?),
            None => None,
        };
        let (signer, index): (Option<Arc<SigningKey>>, IndexKey) = match (held, &secrets) {
            (Some((signing, index)), _) => (Some(Arc::new(signing)), index),
            (None, Some(secrets)) => (None, secrets.index.clone()),
            (None, None) => {
                return Err(error::config(format!("{} holds no keys of this repository", state.path().display()))
                    .meaning("without them manifests cannot be read or written")
                    .hint("run `lifeboat init` on this host, or set `[keys] identity` to a recovery key"));
            }
        };
        let epoch_recipient = parse_recipient(&descriptor.epoch_recipient).or_err(ErrorKind::Integrity, || {
            format!("{} names an epoch key that does not parse", layout::DESCRIPTOR)
        })?;
        let seal = SealKeys { epoch: descriptor.epoch, recipient: epoch_recipient, index: index.clone() };
        let epochs = secrets.map(|s| (descriptor.epoch, s.identity)).into_iter().collect();
        Ok(Self {
            store: store.clone(),
            descriptor,
            seal,
            keys: OpenKeys { index, epochs },
            signer,
            fence: None,
            caches,
        })
    }

    /// The same for a process that acts under a lease: its ledgers refuse to record anything once another instance
    /// has taken over.
    #[must_use]
    pub fn fenced(mut self, fence: Option<Fence>) -> Self {
        self.fence = fence;
        self
    }

    /// The same for work under a lease, beside other work of this process.
    #[must_use]
    pub fn under(&self, fence: Fence) -> Self {
        Self { signer: self.signer.clone(), fence: Some(fence), ..self.with_retry(self.store.retry()) }
    }

    /// What this host has seen of the ledger of `environment`.
    pub(super) fn ledger_cache(&self, environment: &str) -> Option<LedgerCache> {
        let folder = self.caches.as_ref()?;
        Some(LedgerCache::new(folder, &self.descriptor.repository, environment))
    }

    /// The lease under which this process acts, where it does under one.
    pub fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }

    /// The same with another patience towards the store, for loops that outlive outages. It signs nothing.
    #[must_use]
    pub fn with_retry(&self, retry: RetryPolicy) -> Self {
        Self {
            store: self.store.with_retry(retry),
            descriptor: self.descriptor.clone(),
            seal: self.seal.clone(),
            keys: self.keys.clone(),
            signer: None,
            fence: self.fence.clone(),
            caches: self.caches.clone(),
        }
    }

    /// The same for a task of its own; it signs nothing.
    #[must_use]
    pub(super) fn unsigned(&self) -> Self {
        self.with_retry(self.store.retry())
    }

    /// Whether data can be read with the keys at hand.
    pub fn can_read_data(&self) -> bool {
        !self.keys.epochs.is_empty()
    }

    /// Fails, with what to do, where data cannot be read.
    pub fn require_data_keys(&self) -> Result<()> {
        if self.can_read_data() {
            return Ok(());
        }
        Err(error::denied("no recovery identity is configured, so data in the repository cannot be read")
            .meaning("a host that only backs up holds no key that opens backups; that is by design")
            .hint("set `[keys] identity = { file = \"recovery.key\" }` on the host that restores"))
    }

    /// The key that signs this host's ledger entries.
    pub fn signer(&self) -> Result<&SigningKey> {
        self.signer.as_deref().ok_or_else(|| {
            error::config("this host has no signing key for this repository, so it may not record anything")
                .hint("run `lifeboat init` with the recovery identity configured; it enrols this host")
        })
    }

    /// The keys whose signatures count.
    pub async fn trust(&self) -> Result<Trust> {
        let signers = trusted_signers(&self.store, &self.descriptor).await?;
        Ok(Trust { keys: signers.into_iter().map(|s| TrustedKey { key: s.key, name: s.name }).collect() })
    }

    /// Writes a metadata object and returns its name (the SHA-256 of its bytes).
    pub async fn put_named(&self, key_of: impl FnOnce(&str) -> String, bytes: Bytes) -> Result<(String, Created)> {
        let sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes));
        let created = self.store.create(&key_of(&sha256), bytes).await?;
        Ok((sha256, created))
    }

    /// Reads an object whose name is its SHA-256, and checks that it is.
    pub async fn get_named(&self, key: &str, sha256: &str) -> Result<Bytes> {
        let bytes = self.store.get(key).await?;
        if hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)) != sha256 {
            return Err(error::integrity(format!("{key} is damaged: its bytes do not match its name"))
                .hint("run `lifeboat verify` to see everything that is damaged"));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_new_host_joins_with_the_recovery_identity_only() {
        let runtime = Runtime::silent();
        let store = Store::new(Arc::new(InMemory::new()), "memory:", RetryPolicy::default(), runtime.clone());
        let folders = [tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir")];
        let [first, second] = [0, 1].map(|i: usize| StateDir::new(folders[i].path()));
        let recovery = RecoveryIdentity::generate();
        let recipients = recovery.recipients();
        let made = init(&store, &first, &recipients, None, "a", &runtime).await.expect("made");
        assert_eq!(made, Initialised::Made);
        let again = init(&store, &first, &recipients, None, "a", &runtime).await.expect("again");
        assert_eq!(again, Initialised::Already);

        let refused = init(&store, &second, &recipients, None, "b", &runtime).await.expect_err("stranger");
        assert_eq!(refused.kind(), ErrorKind::Denied);
        let wrong = RecoveryIdentity::generate();
        let refused = init(&store, &second, &recipients, Some(&wrong), "b", &runtime).await.expect_err("wrong key");
        assert_eq!(refused.kind(), ErrorKind::Denied);
        let joined = init(&store, &second, &recipients, Some(&recovery), "b", &runtime).await.expect("joins");
        assert_eq!(joined, Initialised::Enrolled);
        let repository = Repository::open(&store, &second, None).await.expect("opens");
        let key = repository.signer().expect("signer").verifying_key();
        assert!(repository.trust().await.expect("trust").keys.iter().any(|k| k.key == key));
    }
}
