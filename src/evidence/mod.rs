//! Evidence: what happened to an environment, written so that nobody has to be believed.
//!
//! ```text
//! ledger ── statement ── entry ── bodies, notices, drill_record (judge, selftest)   what an entry says
//!    │                               └── odoo_record, egress_record
//!    │ └─── dsse                                            how it is signed
//!    ├───── read ── trust                                   the one reader, which verifies
//!    └───── checkpoint ── merkle                            the signed head of the log
//! draw ── sampled ── draw_check    random draws: committed before, revealed after, drawn again
//! proven ── random_drills ── bound     what drills have proven, and what follows for the rest
//! forecast                     how long the next restore will take
//! verify        the auditor's report on a ledger
//! summary       rows for people
//! report_json   a drill for programs
//! report_html ── report_tables, report_selftest, report_odoo, report_outlook ── charts, ribbon ── wording   a drill for people
//! ```

pub mod bodies;
pub mod bound;
mod charts;
pub mod checkpoint;
pub mod draw;
pub mod draw_check;
pub mod drill_record;
pub mod dsse;
pub mod egress_record;
pub mod entry;
pub mod forecast;
mod judge;
pub mod ledger;
pub mod merkle;
pub mod notices;
pub mod odoo_record;
pub mod outlook;
pub mod proven;
pub mod random_drills;
mod read;
pub mod report_html;
pub mod report_json;
pub mod report_odoo;
mod report_outlook;
mod report_selftest;
mod report_tables;
mod ribbon;
pub mod sampled;
pub mod selftest;
pub mod statement;
pub mod summary;
pub mod trust;
pub mod verify;
mod wording;

pub use entry::{Body, Entry};
pub use ledger::{Appended, Ledger};
pub use read::{LedgerEntry, Problem, Reading};
pub use report_json::Place;
pub use statement::{Statement, Subject};
pub use trust::{Trust, TrustedKey};
pub use verify::{VerifyReport, verify_ledger};

#[cfg(test)]
pub(crate) mod examples;
#[cfg(test)]
mod examples_backups;
#[cfg(test)]
mod examples_outlook;
#[cfg(test)]
mod testing;
