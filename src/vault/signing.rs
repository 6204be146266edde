//! Ed25519 signatures (RFC 8032): the keys that sign the ledger, and their public halves.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{self, Result};

/// A public signing key; written as base64 of its 32 bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// Identifies the key: the first 16 hex digits of the SHA-256 of its 32 bytes.
    pub fn id(&self) -> String {
        hex::encode(&Sha256::digest(self.0)[..8])
    }

    /// The 32 raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({self})")
    }
}

impl From<VerifyingKey> for String {
    fn from(key: VerifyingKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for VerifyingKey {
    type Error = error::Error;

    fn try_from(text: String) -> Result<Self> {
        let bytes = BASE64.decode(text.trim()).ok().and_then(|b| b.try_into().ok());
        bytes.map(VerifyingKey).ok_or_else(|| error::config("a signing key is 32 bytes in base64"))
    }
}

/// A private signing key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: Zeroizing<[u8; 32]>,
}

impl SigningKey {
    /// A new random key.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::SecureRandom::fill(&SystemRandom::new(), &mut *seed)
            .map_err(|_| error::internal("the operating system gives no random numbers"))?;
        Self::from_seed(seed)
    }

    /// The key with this 32-byte seed (RFC 8032, section 5.1.5).
    pub fn from_seed(seed: Zeroizing<[u8; 32]>) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| error::config("not an Ed25519 seed"))?;
        Ok(Self { pair, seed })
    }

    /// The seed in base64, for the key file.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(*self.seed))
    }

    /// Reads what [`SigningKey::to_text`] wrote.
    pub fn from_text(text: &str) -> Result<Self> {
        let bytes = Zeroizing::new(BASE64.decode(text.trim()).unwrap_or_default());
        let seed: [u8; 32] =
            bytes.as_slice().try_into().map_err(|_| error::config("a signing key file holds 32 bytes in base64"))?;
        Self::from_seed(Zeroizing::new(seed))
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey(bytes)
    }

    /// Signs `message` (64 bytes).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifying_key().id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let key = SigningKey::generate().expect("key");
        let again = SigningKey::from_text(&key.to_text()).expect("text");
        let signature = key.sign(b"message");
        assert!(again.verifying_key().verify(b"message", &signature));
        assert!(!again.verifying_key().verify(b"massage", &signature));
        assert!(!SigningKey::generate().expect("key").verifying_key().verify(b"message", &signature));
    }
}
