//! Drills: a restore into a disposable, sealed place, checked, measured, destroyed, recorded.

pub mod checks;
pub mod judges;
pub mod longest;
pub mod loss;
pub mod measure;
pub mod outlook;
mod provision;
pub mod reap;
pub mod run;
pub mod sampling;
pub mod sandbox;

pub use reap::{Reaped, reap};
pub use run::{Done, Request, run};
pub use sampling::{Chosen, Sample, choose};
pub use sandbox::Sandbox;
