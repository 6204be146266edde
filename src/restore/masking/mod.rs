//! Masking: personal data in a copy are replaced while it is still on a private server that nobody else reaches.
//!
//! ```text
//! columns     what columns there are, and which hold personal data (names of columns, Odoo's own description of fields)
//! expression  rule and type of a column ─▶ SQL
//! apply       every sensitive column has a rule? ─▶ one statement for each table ─▶ looked at again
//! ```
//!
//! Promises: a column of a sensitive kind that holds anything and has no rule stops it before anything is changed;
//! equal values stay equal, in all tables of the database and from one copy to the next, so that records still belong
//! together; without the key nobody tells from a masked value what it was. The key is derived from the recovery
//! identity and from `database.uuid`; it reaches the private server as a parameter and is in no file.

mod apply;
mod columns;
mod expression;
#[cfg(test)]
mod tests;

pub use apply::{Masked, MaskedColumn, Masking, apply};
pub use columns::{Column, Kind};
