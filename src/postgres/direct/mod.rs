//! The direct reader of base backups: the files of a cluster on this host, read between
//! `pg_backup_start` and `pg_backup_stop`.
//!
//! `listing` says which files belong to a backup.

pub(super) mod listing;
mod relation;

#[cfg(test)]
mod listing_tests;
