//! Asking a database what a check wants to know: at the source when it is backed up, on a restored copy
//! in a drill, and on a live database when somebody tries a file of checks.
//!
//! * `session`: a session in which the same question gets the same answer, and nothing can be written;
//! * `ask`: whether a check applies, and its answer: count, digest, first rows;
//! * `quiet`: one instant of a running cluster, in several databases, whose place in WAL is exact;
//! * `baseline`: what the source answered at that instant, stored with the base backup;
//! * `judge` (pure): what an answer means, held against the source's.

mod answer;
mod ask;
pub mod baseline;
mod judge;
mod quiet;
mod session;

pub use answer::{Answer, Outcome};
pub(crate) use ask::row_text;
pub use ask::{Within, applies, ask};
pub use baseline::Answers;
pub(crate) use judge::result;
pub use judge::{Measure, judge};
pub use session::{is_odoo, odoo_version, prepare};
