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

use std::ffi::OsString;
use std::process::ExitCode;

pub use reap::{Reaped, reap};
pub use run::{Done, Request, run};
pub use sampling::{Chosen, Sample, choose};
pub use sandbox::Sandbox;

/// Begins the first words of the command lines of a sandbox's own processes.
const ROLES: &str = "sandbox:";

/// Runs this process as a part of a sandbox if its command line says so. To be called before anything starts a
/// thread: a process with threads cannot change its user namespace.
pub fn dispatch(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.skip(1);
    let role = arguments.next()?.into_string().ok().filter(|role| role.starts_with(ROLES))?;
    let arguments: Vec<OsString> = arguments.collect();
    sandbox::dispatch(&role, &arguments).or_else(|| neutralise::dispatch(&role, &arguments))
}
