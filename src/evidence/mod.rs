//! Evidence: what happened to an environment, written so that nobody has to be believed.
//!
//! ```text
//! ledger ── statement ── entry ── bodies, bodies_retention, notices, drill_record (judge, selftest)   what an entry says
//!    │                               ├── odoo_record, egress_record
//!    │                               └── drift_record
//!    │ └─── dsse                                            how it is signed
//!    ├───── read ── trust, cache                            the one reader, which verifies
//!    ├───── checkpoint ── merkle                            the signed head of the log
//!    └───── fence                                           what keeps out who lost a lease
//! job_record    what the service did with a job that was due
//! draw ── sampled ── draw_check    random draws: committed before, revealed after, drawn again
//! proven ── random_drills ── bound     what drills have proven, and what follows for the rest
//! approval                     the second person: what counts, from the entries alone
//! forecast                     how long the next restore will take
//! verify        the auditor's report on a ledger
//! summary       rows for people
//! report_json   a drill for programs
//! periodic      a month, a quarter, a year: for managers and auditors
//! report_html ── report_tables, report_selftest, report_odoo, report_outlook ── charts, ribbon ── wording   a drill for people
//! ```

pub mod approval;
pub mod bodies;
pub mod bodies_retention;
pub mod bound;
mod cache;
pub(crate) mod charts;
pub mod checkpoint;
pub mod draw;
pub mod draw_check;
pub mod drift_record;
pub mod drill_record;
pub mod dsse;
pub mod egress_record;
pub mod entry;
pub mod fence;
pub mod forecast;
pub mod job_record;
mod judge;
pub mod ledger;
pub mod merkle;
pub mod notices;
pub mod odoo_record;
pub mod outlook;
pub mod periodic;
pub mod planned;
pub mod proven;
pub mod random_drills;
mod read;
pub mod report_html;
pub mod report_json;
pub mod report_odoo;
pub(crate) mod report_outlook;
mod report_selftest;
mod report_tables;
mod ribbon;
pub mod sampled;
pub mod selftest;
pub mod statement;
pub mod summary;
pub mod trust;
pub mod verify;
pub(crate) mod wording;

pub use cache::LedgerCache;
pub use entry::{Body, Entry};
pub use fence::Fence;
pub use ledger::{Appended, Ledger};
pub use read::{LedgerEntry, Problem, Reading};
pub use report_json::Place;
pub use statement::{Statement, Subject};
pub use trust::{Trust, TrustedKey};
pub use verify::{VerifyReport, verify_ledger};

#[cfg(test)]
mod cache_tests;
#[cfg(test)]
pub(crate) mod examples;
#[cfg(test)]
mod examples_backups;
#[cfg(test)]
mod examples_outlook;
#[cfg(test)]
mod examples_service;
#[cfg(test)]
pub(crate) mod testing;
