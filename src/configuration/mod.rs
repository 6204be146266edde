//! The configuration of an environment as a source: everything that is needed to rebuild what
//! stands around the data, and how to lay it out again for a responder.
//!
//! * `export`: what an export is, what changed between two;
//! * `collect`: the whole collection, from a [`Request`];
//! * `server_files`, `includes`: PostgreSQL's own files; `cluster`, `globals`: facts and roles by SQL;
//! * `odoo_files`, `process`, `addons`, `odoo_database`: Odoo's files, running processes, code, settings;
//! * `extra`, `disk`: files that the environment lists; reading any file within limits;
//! * `store`, `manifest`: exports in the repository;
//! * `mask`, `settings`, `drift`: files without their secrets, as settings; what changed, and what it means;
//! * `write`: putting an export beside, never over, a live system.

mod addons;
mod cluster;
mod collect;
mod disk;
pub mod drift;
mod export;
mod extra;
mod globals;
mod includes;
mod manifest;
mod mask;
mod odoo_database;
mod odoo_files;
mod process;
mod server_files;
mod settings;
pub mod store;
mod write;

#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;

pub use collect::{Connect, OdooInstance, Request, collect};
pub(crate) use odoo_files::addons_path;

pub use mask::MaskedFile;

pub use export::{Change, ChangeKind, ConfigFile, Export, Unreadable, diff};
pub use write::write_beside;
