//! Names of the objects in a repository, format 1 (`docs/format.md`). The only place that spells them.

use crate::units::Timeline;

/// The repository's descriptor.
pub const DESCRIPTOR: &str = "lifeboat.json";

/// Private half of an epoch's key pair and its index key, encrypted to the recovery recipients.
pub fn epoch_key(epoch: u32) -> String {
    format!("keys/{epoch}.age")
}

/// Where enrolled signing keys live.
pub const SIGNERS: &str = "keys/signers/";

/// A signing key enrolled after `init`.
pub fn signer(key_id: &str) -> String {
    format!("{SIGNERS}{key_id}.json")
}

/// Prefix of an environment's ledger entries.
pub fn ledger(environment: &str) -> String {
    format!("{environment}/ledger/")
}

/// One ledger entry.
pub fn ledger_entry(environment: &str, sequence: u64) -> String {
    format!("{environment}/ledger/{sequence:020}.json")
}

/// The signed tree head of an environment's ledger.
pub fn checkpoint(environment: &str) -> String {
    format!("{environment}/ledger/checkpoint")
}

/// Prefix of an environment's packs.
pub fn packs(environment: &str) -> String {
    format!("{environment}/data/")
}

/// A pack.
pub fn pack(environment: &str, sha256: &str) -> String {
    format!("{environment}/data/{sha256}")
}

/// A manifest, map or name index.
pub fn meta(environment: &str, sha256: &str) -> String {
    format!("{environment}/meta/{sha256}")
}

/// Prefix of all archived WAL of an environment.
pub fn wal(environment: &str) -> String {
    format!("{environment}/wal/")
}

/// Prefix of the archived WAL of one timeline.
pub fn wal_timeline(environment: &str, timeline: Timeline) -> String {
    format!("{environment}/wal/{timeline}/")
}

/// An archived WAL segment, history file or backup history file.
pub fn wal_file(environment: &str, timeline: Timeline, name: &str) -> String {
    format!("{environment}/wal/{timeline}/{name}")
}

/// Prefix of the pieces of all segments being written.
pub fn wal_live(environment: &str) -> String {
    format!("{environment}/wal-live/")
}

/// Prefix of the pieces of one segment.
pub fn wal_live_segment(environment: &str, timeline: Timeline, segment: &str) -> String {
    format!("{environment}/wal-live/{timeline}/{segment}/")
}

/// Prefix of what filestore watchers stored since the last captures.
pub fn filestore_live(environment: &str) -> String {
    format!("{environment}/filestore-live/")
}

/// One piece of that: `tenant` tells databases apart, `micros` (microseconds since 1970) sorts.
pub fn filestore_live_piece(environment: &str, tenant: &str, micros: i64, sha256: &str) -> String {
    format!("{environment}/filestore-live/{tenant}/{micros:016}-{sha256}")
}

/// Prefix of the objects of one lease.
pub fn leases(environment: &str, duty: &str) -> String {
    format!("{environment}/leases/{duty}/")
}

/// One object of a lease.
pub fn lease(environment: &str, duty: &str, number: u64) -> String {
    format!("{environment}/leases/{duty}/{number:020}")
}

/// The number in the name of a lease's object.
pub fn lease_number(key: &str) -> Option<u64> {
    key.rsplit_once('/')?.1.parse().ok()
}

/// One piece: bytes `offset..end` of the segment, in decimal, zero padded to sort. Pieces are merged as
/// they become many, so one may cover others; a reader takes the one that reaches farthest.
pub fn wal_live_piece(environment: &str, timeline: Timeline, segment: &str, offset: u64, end: u64) -> String {
    format!("{environment}/wal-live/{timeline}/{segment}/{offset:010}-{end:010}")
}
