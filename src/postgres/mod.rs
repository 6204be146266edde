//! PostgreSQL as a source and as a target: how a cluster is read and how it is put back.
//!
//! `replication` speaks the replication protocol (base backups, WAL); `sql` opens ordinary sessions;
//! `source` opens either for a configured environment; `base_backup` and `intake` take base backups;
//! `wal` reads what is inside WAL.

pub mod base_backup;
mod intake;
pub mod replication;
pub mod source;
pub mod sql;
