//! The direct reader of base backups: the files of a cluster on this host, read between
//! `pg_backup_start` and `pg_backup_stop`.
//!
//! `session` starts and stops the backup, `listing` says which files belong to it, `plan` what is to be
//! read of them, `page` whether a page can be believed; `reader` reads, `throttle` bounds it; `take` is the whole.

pub(super) mod listing;
pub(super) mod page;
mod plan;
mod reader;
pub(super) mod relation;
mod session;
mod take;
mod throttle;

pub(super) use take::{DataDirectory, take};

#[cfg(test)]
mod listing_tests;
