//! The index key: symmetric, held by the host that backs up. It opens manifests, name indexes and
//! summaries, and keys the digests by which "the same bytes again" is recognised without reading
//! them. It opens no data.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::error::{self, Result};

/// A keyed digest of some content: HMAC-SHA-256 under a key derived from the index key.
pub type ContentMac = [u8; 32];

/// The symmetric key of a repository's metadata.
#[derive(Clone)]
pub struct IndexKey(Zeroizing<[u8; 32]>);

impl IndexKey {
    /// A new random key.
    pub fn generate() -> Result<Self> {
        Ok(Self(random_key()?))
    }

    /// Reads what [`IndexKey::to_text`] wrote.
    pub fn from_text(text: &str) -> Result<Self> {
        let bytes = Zeroizing::new(BASE64.decode(text.trim()).unwrap_or_default());
        let key = bytes.as_slice().try_into().map_err(|_| error::config("an index key is 32 bytes in base64"))?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// The key in base64, for the key file.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(*self.0))
    }

    /// HKDF-SHA-256 (RFC 5869) with this key as input, `salt` and `info`.
    pub(super) fn derive(&self, salt: &[u8], info: &str) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        Salt::new(HKDF_SHA256, salt)
            .extract(&*self.0)
            .expand(&[info.as_bytes()], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *key))
            .expect("32 bytes are within HKDF's output limit");
        key
    }

    /// Starts a keyed digest of content; two contents have the same digest only if they are the same.
    pub fn content_mac(&self) -> MacBuilder {
        let key = self.derive(b"", "lifeboat/1/content");
        MacBuilder(hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*key)))
    }
}

impl fmt::Debug for IndexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IndexKey")
    }
}

/// A keyed digest being computed.
#[derive(Clone)]
pub struct MacBuilder(hmac::Context);

impl MacBuilder {
    /// Adds content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    pub fn finish(self) -> ContentMac {
        let mut mac = [0; 32];
        mac.copy_from_slice(self.0.sign().as_ref());
        mac
    }
}

impl fmt::Debug for MacBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacBuilder")
    }
}

/// 32 random bytes from the operating system.
pub(super) fn random_key() -> Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    rand::fill(&mut *key).map_err(|_| error::internal("the operating system gives no random numbers"))?;
    Ok(key)
}
