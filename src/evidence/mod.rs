//! Evidence: what happened to an environment, written so that nobody has to be believed.
//!
//! ```text
//! ledger ── statement ── entry ── bodies, drill_record      what an entry says
//!    │ └─── dsse                                            how it is signed
//!    ├───── read ── trust                                   the one reader, which verifies
//!    └───── checkpoint ── merkle                            the signed head of the log
//! verify        the auditor's report on a ledger
//! summary       rows for people
//! report_json, report_html (style, charts)    views of one drill
//! ```

pub mod bodies;
pub mod checkpoint;
pub mod drill_record;
pub mod dsse;
pub mod entry;
pub mod ledger;
pub mod merkle;
mod read;
pub mod statement;
pub mod trust;
pub mod verify;

pub use entry::{Body, Entry};
pub use ledger::{Appended, Ledger};
pub use read::{LedgerEntry, Problem, Reading};
pub use statement::{Statement, Subject};
pub use trust::{Trust, TrustedKey};
pub use verify::{VerifyReport, verify_ledger};

#[cfg(test)]
mod testing;
