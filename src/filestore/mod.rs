//! Odoo's filestore as a source: `data_dir/filestore/<database>/<2 or 3 hex>/<40 hex>`.
//!
//! * `name`: the names of files, which are the SHA-1 of their content;
//! * `scan`: what is on disk;
//! * `read`: reading one file and judging it by its name;
//! * `referenced`: what the database refers to;
//! * `reconcile`: what is missing, what is extra.

mod name;
mod read;
mod reconcile;
mod referenced;
mod scan;

pub use name::FileName;
pub use read::{ReadOutcome, VerifiedReader};
pub use reconcile::{Match, reconcile};
pub use referenced::{Census, Example, Reference, census, database_uuid, referenced};
pub use scan::{Scan, Summary, scan, scan_each};
