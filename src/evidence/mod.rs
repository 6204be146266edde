//! Evidence: what happened to an environment, written so that nobody has to be believed.
//!
//! ```text
//! ledger ── statement ── entry ── bodies, drill_record (judge, selftest)   what an entry says
//!    │                               └── odoo_record, egress_record
//!    │ └─── dsse                                            how it is signed
//!    ├───── read ── trust                                   the one reader, which verifies
//!    └───── checkpoint ── merkle                            the signed head of the log
//! verify        the auditor's report on a ledger
//! summary       rows for people
//! report_json   a drill for programs
//! report_html ── report_tables, report_selftest, report_odoo ── charts ── wording   a drill for people
//! ```

pub mod bodies;
mod charts;
pub mod checkpoint;
pub mod drill_record;
pub mod dsse;
pub mod egress_record;
pub mod entry;
mod judge;
pub mod ledger;
pub mod merkle;
pub mod odoo_record;
mod read;
pub mod report_html;
pub mod report_json;
pub mod report_odoo;
mod report_selftest;
mod report_tables;
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
mod examples;
#[cfg(test)]
mod testing;
