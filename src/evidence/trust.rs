//! Whose signatures count. The caller decides (from `lifeboat.json` and the enrolled signers, or from
//! a key that an auditor was handed); nothing in the ledger can add to it.

use crate::vault::signing::VerifyingKey;

/// A public key whose signatures count, and what people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// The key.
    pub key: VerifyingKey,
    /// A name for people, such as the host that holds the private half.
    pub name: String,
}

/// The set of keys whose signatures count.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The keys, in no order.
    pub keys: Vec<TrustedKey>,
}

impl Trust {
    /// Trust in these keys.
    pub fn new(keys: Vec<TrustedKey>) -> Self {
        Self { keys }
    }

    /// The trusted key with this id.
    pub fn find(&self, key_id: &str) -> Option<&TrustedKey> {
        self.keys.iter().find(|k| k.key.id() == key_id)
    }
}
