//! Odoo's filestore as a source: `data_dir/filestore/<database>/<2 or 3 hex>/<40 hex>`.
//!
//! * `name`: the names of files, which are the SHA-1 of their content;
//! * `scan` (`stamps`): what is on disk;
//! * `read`: reading one file and judging it by its name;
//! * `referenced`: what the database refers to;
//! * `reconcile`: what is missing, what is extra;
//! * `tenants`, `restore_point`: which databases, and the place in the WAL that a capture speaks for;
//! * `index`, `segments`: the names that are stored, in memory and in the repository;
//! * `capture` (`ingest`, `references`, `takeover`, `verdict`): database first, files second;
//! * `uncovered`, `collection`: attachments kept elsewhere, and what Odoo's garbage collection takes;
//! * `survey`: whether databases and filestores fit together;
//! * `watch`, `live`: new files within a second, between captures;
//! * `restore` (`materialise`): exactly the files that a restored database refers to.

pub mod capture;
mod collection;
mod index;
mod ingest;
pub mod live;
mod materialise;
mod name;
mod read;
mod reconcile;
mod referenced;
mod references;
pub mod restore;
mod restore_point;
mod scan;
mod segments;
mod stamps;
mod survey;
mod takeover;
mod tenants;
mod uncovered;
mod verdict;
pub mod watch;

pub use index::{Index, Record};
pub use name::FileName;
pub use read::{ReadOutcome, VerifiedReader};
pub use reconcile::{Match, reconcile};
pub use referenced::{Census, Example, Reference, census, database_uuid, referenced};
pub use scan::{Part, Scan, Summary, scan, scan_each};
pub use segments::{Header, Packs};
pub use stamps::Stamp;
pub use survey::{Survey, Surveyed, survey};
