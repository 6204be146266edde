//! Keys, recipients, sealing and opening.
//!
//! What the vault promises: the host that writes backups cannot read one page that it wrote. Object
//! keys are random, used once, and wrapped to the epoch's *public* key; the private half is in the
//! repository, encrypted to the recovery recipients. The index key, which the host does hold, opens
//! manifests, name indexes and summaries, never data.

pub mod epoch;
pub mod frame;
pub mod index_key;
pub mod object;
pub mod signing;

pub use epoch::{EpochSecrets, RecoveryIdentity};
pub use frame::Frame;
pub use index_key::IndexKey;
pub use object::{Class, FrameInfo, ObjectOpener, ObjectSealer, OpenKeys, OpenMemory, SealKeys, Sealed, Tail};
pub use signing::{SigningKey, VerifyingKey};
