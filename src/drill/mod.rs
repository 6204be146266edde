//! Drills: a restore into a disposable, sealed place, checked, measured, destroyed, recorded.

pub mod checks;
pub mod compare;
pub mod judges;
pub mod measure;
mod provision;
pub mod reap;
pub mod reconcile;
pub mod run;
pub mod sandbox;
pub mod selftest;

pub use reap::{Reaped, reap};
pub use run::{Done, Request, run};
pub use sandbox::Sandbox;
