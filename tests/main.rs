//! The integration tests, one binary: a module for each capability, helpers in `common`.

mod bases;
mod capture;
mod checks;
mod common;
mod demo;
mod drill;
mod drill_odoo;
mod faults;
mod format;
mod harness_smoke;
mod inspect;
mod lines;
mod odoo;
mod restore;
mod retention;
mod runbook;
mod sampling;
mod sandbox;
mod schedule;
mod serve;
mod soak;
mod versions;
mod wal;
mod web;
