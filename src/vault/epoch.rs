//! Epochs and recovery identities.
//!
//! An epoch is a key pair (age X25519, <https://age-encryption.org/v1>). Packs and WAL are sealed to
//! its public key. Its private key, with the index key and the recovery signing key, lies in the
//! repository as `keys/<epoch>.age`, encrypted to the recovery recipients: an ordinary age file, so
//! that the stock `age` program opens it in a disaster, and ordinary age identity text inside.

use std::fmt;
use std::str::FromStr;

use age::secrecy::ExposeSecret;
use age::x25519::{Identity, Recipient};
use zeroize::Zeroizing;

use super::index_key::IndexKey;
use super::signing::SigningKey;
use crate::error::{self, Result};

/// Everything that one epoch's key object holds.
pub struct EpochSecrets {
    /// Private key of the epoch.
    pub identity: Identity,
    /// Key of manifests and indexes.
    pub index: IndexKey,
    /// Key with which whoever holds a recovery identity enrols a new host's signing key.
    pub recovery_signing: SigningKey,
}

impl fmt::Debug for EpochSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochSecrets")
    }
}

impl EpochSecrets {
    /// New random secrets.
    pub fn generate() -> Result<Self> {
        Ok(Self {
            identity: Identity::generate(),
            index: IndexKey::generate()?,
            recovery_signing: SigningKey::generate()?,
        })
    }

    /// The epoch's public key.
    pub fn recipient(&self) -> Recipient {
        self.identity.to_public()
    }

    /// Encrypts the secrets to the recovery recipients.
    pub fn seal(&self, repository: &str, epoch: u32, recipients: &[Recipient]) -> Result<Vec<u8>> {
        let text = Zeroizing::new(format!(
            "# Lifeboat repository {repository}, epoch {epoch}. Keep offline: this opens every backup of the epoch.\n\
             # index-key {}\n# recovery-signing-key {}\n{}\n",
            *self.index.to_text(),
            *self.recovery_signing.to_text(),
            self.identity.to_string().expose_secret(),
        ));
        encrypt_to(recipients, text.as_bytes())
    }

    /// Opens a key object with a recovery identity.
    pub fn open(sealed: &[u8], recovery: &RecoveryIdentity) -> Result<Self> {
        let text = recovery.decrypt(sealed)?;
        let text = std::str::from_utf8(&text).map_err(|_| error::integrity("the epoch's key object is not text"))?;
        let field = |name: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(' '))
                .ok_or_else(|| error::integrity(format!("the epoch's key object has no {name}")))
        };
        let identity = text.lines().find(|l| l.starts_with("AGE-SECRET-KEY-")).unwrap_or_default();
        Ok(Self {
            identity: Identity::from_str(identity)
                .map_err(|e| error::integrity(format!("the epoch's private key does not parse: {e}")))?,
            index: IndexKey::from_text(field("index-key")?)?,
            recovery_signing: SigningKey::from_text(field("recovery-signing-key")?)?,
        })
    }
}

/// The private keys of a recovery recipient: what opens a repository after everything else is lost.
pub struct RecoveryIdentity(Vec<Identity>);

impl fmt::Debug for RecoveryIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryIdentity")
    }
}

impl RecoveryIdentity {
    /// A new one.
    pub fn generate() -> Self {
        Self(vec![Identity::generate()])
    }

    /// Reads an age identity file: lines of `AGE-SECRET-KEY-1…`, `#` starts a comment.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut identities = Vec::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            identities.push(Identity::from_str(line).map_err(|e| {
                error::config(format!("the recovery identity does not parse: {e}"))
                    .hint("it must be an age X25519 identity, a line that begins with AGE-SECRET-KEY-1")
            })?);
        }
        if identities.is_empty() {
            return Err(error::config("the recovery identity is empty"));
        }
        Ok(Self(identities))
    }

    /// The text of an age identity file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|i| format!("# public key: {}\n{}\n", i.to_public(), i.to_string().expose_secret()))
            .collect();
        Zeroizing::new(lines.concat())
    }

    /// Public halves, as they stand in `[keys] recipients`.
    pub fn recipients(&self) -> Vec<String> {
        self.0.iter().map(|i| i.to_public().to_string()).collect()
    }

    fn decrypt(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        decrypt_with(self.0.iter(), sealed).ok_or_else(|| {
            error::denied("this recovery identity does not open the repository's keys")
                .meaning("the backups are unharmed; another key is needed to read them")
                .hint(format!(
                    "this identity is {}; compare with `recipients` in the configuration",
                    self.recipients().join(", ")
                ))
        })
    }
}

/// Parses a recovery recipient (`age1…`).
pub fn parse_recipient(text: &str) -> Result<Recipient> {
    Recipient::from_str(text.trim()).map_err(|e| {
        error::config(format!("\"{text}\" is not an age recipient: {e}"))
            .hint("run `lifeboat keygen` to make a key pair")
    })
}

/// Encrypts a short secret in the age format.
pub(super) fn encrypt_to(recipients: &[Recipient], secret: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let failed = |e: String| error::internal(format!("cannot encrypt a key: {e}"));
    let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|r| r as &dyn age::Recipient))
        .map_err(|e| failed(e.to_string()))?;
    let mut sealed = Vec::with_capacity(secret.len() + 256);
    let mut writer = encryptor.wrap_output(&mut sealed).map_err(|e| failed(e.to_string()))?;
    writer.write_all(secret).and_then(|()| writer.finish().map(|_| ())).map_err(|e| failed(e.to_string()))?;
    Ok(sealed)
}

/// Decrypts a short secret in the age format, or `None` where no identity fits or bytes are damaged.
pub(super) fn decrypt_with<'a>(
    identities: impl Iterator<Item = &'a Identity>,
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let decryptor = age::Decryptor::new(sealed).ok()?;
    let mut secret = Zeroizing::new(Vec::new());
    decryptor.decrypt(identities.map(|i| i as &dyn age::Identity)).ok()?.read_to_end(&mut secret).ok()?;
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_object_opens_with_any_recovery_recipient_and_with_no_other_key() {
        let (ours, second, stranger) =
            (RecoveryIdentity::generate(), RecoveryIdentity::generate(), RecoveryIdentity::generate());
        let recipients: Vec<Recipient> = [&ours, &second]
            .iter()
            .flat_map(|i| i.recipients())
            .map(|r| parse_recipient(&r).expect("recipient"))
            .collect();
        let secrets = EpochSecrets::generate().expect("secrets");
        let sealed = secrets.seal("r", 1, &recipients).expect("sealed");
        for identity in [&ours, &second] {
            let again = RecoveryIdentity::from_text(&identity.to_text()).expect("text");
            let opened = EpochSecrets::open(&sealed, &again).expect("opens");
            assert_eq!(opened.recipient().to_string(), secrets.recipient().to_string());
            assert_eq!(*opened.index.to_text(), *secrets.index.to_text());
        }
        let refused = EpochSecrets::open(&sealed, &stranger).expect_err("stranger");
        assert_eq!(refused.kind(), crate::ErrorKind::Denied);
    }
}
