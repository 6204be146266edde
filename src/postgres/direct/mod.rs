//! The direct reader of base backups: the files of a cluster on this host, read between
//! `pg_backup_start` and `pg_backup_stop`.
//!
//! `listing` says which files belong to a backup, `page` whether a page can be believed;
//! `session` holds the backup's two ends.

pub(super) mod listing;
pub(super) mod page;
mod relation;
pub(super) mod session;

#[cfg(test)]
mod listing_tests;
