//! A client of PostgreSQL's physical replication protocol, 13 to 18.
//!
//! It promises: what it hands out is exactly what the server sent, in order; the end of a base
//! backup is told only after the server called the whole backup good; a dead server or a cut
//! network becomes an error within a known time; nothing is said about durability (the caller says
//! what is flushed, through [`WalStream::send_status`]).
//!
//! ```text
//! connection ── identify, slots, history ──┬── wal_stream    START_REPLICATION PHYSICAL
//!     │                                    └── base_backup   BASE_BACKUP, both grammars
//!  authentication (SCRAM, MD5)   wire (messages, deadlines)   transport (sockets), tls
//!                       server_report: SQLSTATE to an error that helps
//! ```
//!
//! Messages to the server, SCRAM and MD5 come from `postgres-protocol`; messages from the server are
//! framed here, because that crate knows no CopyBothResponse.

mod authentication;
mod base_backup;
mod connection;
mod server_report;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod transport;
mod upload;
mod wal_stream;
mod wire;

pub use base_backup::{BackupMessage, BaseBackupOptions, BaseBackupStream, ManifestChecksums, Tablespace};
pub use connection::{ConnectOptions, ReplicationConnection, SlotCreated, SystemIdentity};
pub use server_report::{ServerReport, server_report, sqlstate, wal_is_gone};
pub(crate) use server_report::{Session, explain};
pub use tls::TlsTrust;
pub(crate) use tls::client_config;
pub(crate) use transport::{connect_timeout, unreachable};
pub use wal_stream::{WalMessage, WalStream};
