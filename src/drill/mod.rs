//! Drills: a restore into a disposable, sealed place, checked, measured, destroyed, recorded.

mod asserted;
pub mod boot;
pub mod checks;
pub mod compare;
pub mod judges;
pub mod longest;
pub mod loss;
pub mod measure;
pub mod neutralise;
pub mod odoo;
pub mod outlook;
mod provision;
pub mod reap;
pub mod reconcile;
mod record;
pub mod run;
pub mod sampling;
pub mod sandbox;
pub mod selftest;
pub mod sinkhole;
mod stages;

#[cfg(test)]
mod testing;

pub use reap::{Reaped, reap};
pub use run::{Done, Request, run};
pub use sampling::{Chosen, Sample, choose};
pub use sandbox::Sandbox;
