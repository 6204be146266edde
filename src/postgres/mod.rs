//! PostgreSQL as a source and as a target: how a cluster is read and how it is put back.
//!
//! `replication` speaks the replication protocol (base backups, WAL); `sql` opens ordinary sessions.

pub mod replication;
pub mod sql;
