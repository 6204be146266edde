//! Keys and stores for the tests of this floor.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::memory::InMemory;
use zeroize::Zeroizing;

use super::entry::{Entry, FORMAT, Recorder, Skipped};
use super::{Body, Ledger, LedgerEntry, Statement, Trust, TrustedKey};
use crate::runtime::Runtime;
use crate::storage::Store;
use crate::storage::store::RetryPolicy;
use crate::vault::signing::SigningKey;

/// The same key for the same number, every time.
pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(Zeroizing::new([number; 32])).expect("any 32 bytes are a seed")
}

/// Trust in these numbers' keys.
pub(crate) fn trust(numbers: &[u8]) -> Trust {
    Trust::new(numbers.iter().map(|n| TrustedKey { key: key(*n).verifying_key(), name: format!("host-{n}") }).collect())
}

/// An empty store in memory.
pub(crate) fn memory() -> Store {
    Store::new(Arc::new(InMemory::new()), "memory:", RetryPolicy::default(), Runtime::silent())
}

/// The ledger that all tests use, as one more process would see it.
pub(crate) fn ledger(store: &Store, trusted: &[u8]) -> Ledger {
    Ledger::new(store.clone(), "production", "0123abcd", trust(trusted))
}

/// A sound entry, as the reader hands it out.
pub(crate) fn entry(sequence: u64, recorded_at: DateTime<Utc>, body: Body) -> LedgerEntry {
    let predicate = Entry {
        format: FORMAT,
        id: format!("{sequence:032x}"),
        repository: "0123abcd".into(),
        environment: "production".into(),
        sequence,
        previous: None,
        recorded_at,
        recorded_by: Recorder { version: "0.1.0".into(), host: "db-1".into() },
        body,
    };
    let sha256 = hex::encode([u8::try_from(sequence).expect("few"); 32]);
    LedgerEntry { sequence, sha256, signers: Vec::new(), statement: Statement::new(Vec::new(), predicate) }
}

/// A small entry that can be told from others by `what`.
pub(crate) fn body(what: &str) -> Body {
    Body::Skipped(Skipped { what: what.to_owned(), reason: "a test".to_owned(), due_at: DateTime::UNIX_EPOCH })
}
