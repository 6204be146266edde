//! `lifeboat.json`: what a repository says of itself in the clear, and the signing keys it trusts.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{self, Result, ResultExt};
use crate::storage::{Store, layout};
use crate::vault::{SigningKey, VerifyingKey};

/// Version of the repository format that this program reads and writes.
pub const FORMAT: u32 = 1;

/// Who a signing key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignerRole {
    /// A host that backs up, restores or drills.
    Host,
    /// The key inside the epoch's key object: it enrols new hosts after everything else is lost.
    Recovery,
}

/// A public signing key and its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// What it may do.
    pub role: SignerRole,
    /// Host name, for people.
    pub name: String,
    /// The key.
    pub key: VerifyingKey,
}

/// The content of `lifeboat.json`; written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// Version of the repository format.
    pub format: u32,
    /// Random id of the repository, 32 hex digits.
    pub repository: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The epoch that new objects are sealed to.
    pub epoch: u32,
    /// Public key of that epoch (`age1…`).
    pub epoch_recipient: String,
    /// The first signing keys.
    pub signers: Vec<Signer>,
}

impl Descriptor {
    /// Reads the descriptor, or `None` where no repository was made yet.
    pub async fn find(store: &Store) -> Result<Option<Self>> {
        let Some(bytes) = store.find(layout::DESCRIPTOR).await? else { return Ok(None) };
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let damaged = || format!("{} of {} does not parse", layout::DESCRIPTOR, store.url());
        let version: Version = serde_json::from_slice(&bytes).or_err(error::ErrorKind::Integrity, damaged)?;
        if version.format != FORMAT {
            return Err(error::config(format!(
                "{} is a repository of format {}; this program reads format {FORMAT}",
                store.url(),
                version.format
            ))
            .hint("use the Lifeboat version that wrote it, or a newer one"));
        }
        serde_json::from_slice(&bytes).or_err(error::ErrorKind::Integrity, damaged).map(Some)
    }
}

/// A signing key added after `init`, endorsed by one that was trusted before.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The new key.
    pub signer: Signer,
    /// When it was enrolled.
    pub enrolled_at: DateTime<Utc>,
    /// Id of the endorsing key.
    pub endorsed_by: String,
    /// The endorsing key's signature over [`Enrolment::message`], in hex.
    pub signature: String,
}

impl Enrolment {
    /// Endorses `signer` with a trusted key.
    pub fn new(repository: &str, signer: Signer, enrolled_at: DateTime<Utc>, endorser: &SigningKey) -> Self {
        let mut enrolment =
            Self { signer, enrolled_at, endorsed_by: endorser.verifying_key().id(), signature: String::new() };
        enrolment.signature = hex::encode(endorser.sign(enrolment.message(repository).as_bytes()));
        enrolment
    }

    /// The text that is signed.
    pub fn message(&self, repository: &str) -> String {
        format!(
            "lifeboat signer 1\n{repository}\n{}\n{}\n{}\n",
            self.signer.key,
            self.signer.name,
            self.enrolled_at.to_rfc3339()
        )
    }

    /// Whether a recovery key among `trusted` endorsed it: a host may not enrol others.
    pub fn is_endorsed_by(&self, repository: &str, trusted: &[Signer]) -> bool {
        let Ok(signature) = hex::decode(&self.signature) else { return false };
        trusted
            .iter()
            .filter(|s| s.role == SignerRole::Recovery && s.key.id() == self.endorsed_by)
            .any(|s| s.key.verify(self.message(repository).as_bytes(), &signature))
    }
}

/// All signers trusted by a repository: those of the descriptor, and the hosts that its recovery key
/// enrolled. What an enrolment says of its role does not count: it is not part of what is signed.
pub async fn trusted_signers(store: &Store, descriptor: &Descriptor) -> Result<Vec<Signer>> {
    let mut trusted = descriptor.signers.clone();
    for object in store.list(layout::SIGNERS).await? {
        let bytes = store.get(&object.key).await?;
        let enrolment: Enrolment = serde_json::from_slice(&bytes)
            .or_err(error::ErrorKind::Integrity, || format!("{} does not parse", object.key))?;
        if enrolment.is_endorsed_by(&descriptor.repository, &descriptor.signers) {
            trusted.push(Signer { role: SignerRole::Host, ..enrolment.signer });
        }
    }
    Ok(trusted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrolment_counts_only_with_a_trusted_endorsement() {
        let (trusted, stranger, new) = (
            SigningKey::generate().expect("k"),
            SigningKey::generate().expect("k"),
            SigningKey::generate().expect("k"),
        );
        let signer = |key: &SigningKey, role| Signer { role, name: "h".into(), key: key.verifying_key() };
        let known = [signer(&trusted, SignerRole::Recovery)];
        let now = chrono::DateTime::UNIX_EPOCH;
        let good = Enrolment::new("r", signer(&new, SignerRole::Host), now, &trusted);
        assert!(good.is_endorsed_by("r", &known));
        assert!(!good.is_endorsed_by("another repository", &known));
        let bad = Enrolment::new("r", signer(&new, SignerRole::Host), now, &stranger);
        assert!(!bad.is_endorsed_by("r", &known));
        let host = [signer(&trusted, SignerRole::Host)];
        assert!(!good.is_endorsed_by("r", &host), "a host may not enrol others");
    }
}
