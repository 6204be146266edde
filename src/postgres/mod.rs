//! PostgreSQL as a source and as a target: how a cluster is read and how it is put back.
//!
//! `replication` speaks the replication protocol (base backups, WAL); `sql` opens ordinary sessions;
//! `source` opens either for a configured environment; `base_backup` and `intake` take base backups,
//! `backup` commits them; `wal_receive`, `wal_push` and `wal_fetch` move WAL, `wal_range` records it,
//! `heartbeat` keeps it coming; `block_files` keeps which blocks it changes, `changed_blocks` reads that for
//! `relation_file`s; `wal`, `control_file` and `backup_label` read what PostgreSQL writes;
//! `server`, `launch`, `account` and `tools` run private servers on restored directories.

pub mod account;
pub mod backup;
pub mod backup_label;
pub(crate) mod backup_manifest;
mod backup_wal;
pub mod base_backup;
pub mod block_files;
pub mod changed_blocks;
pub mod control_file;
mod direct;
mod harvest;
pub mod heartbeat;
pub mod identity;
mod incremental_file;
mod intake;
mod kept;
pub mod launch;
pub mod libpq;
mod order;
mod present;
mod previous;
mod progress;
pub mod relation_file;
pub mod replication;
pub mod server;
pub mod slot_state;
pub mod source;
pub mod sql;
mod streamed;
pub mod tools;
pub mod wal;
pub mod wal_fetch;
pub mod wal_push;
pub mod wal_range;
pub mod wal_receive;
pub mod wal_verify;

#[cfg(test)]
mod resume_tests;
