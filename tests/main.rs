//! The integration tests, one binary: a module for each capability, helpers in `common`.

mod capture;
mod common;
mod drill;
mod harness_smoke;
mod inspect;
mod odoo;
mod restore;
mod versions;
mod wal;
