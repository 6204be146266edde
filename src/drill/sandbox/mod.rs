//! Where a drill restores to: directories of its own, journalled before they are made and verified to be gone
//! afterwards, and around them a *seal* that lets nothing out.
//!
//! ```text
//! place    directories of one drill      journal   what was made, the stage now; its lock tells who lives
//! seal     what every sandbox must do    local     namespaces of this host        container   of Podman or Docker
//! inside   what sealed ones share        unsealed  none at all
//! limits   disk, memory, time: before and during   processes   what belongs to a sandbox    reap  the dead
//! trial    whether a host or an engine allows one
//! ```

pub mod container;
pub mod inside;
pub mod journal;
pub mod limits;
pub mod local;
pub mod place;
pub mod processes;
pub mod reap;
pub mod seal;
pub mod trial;
pub mod unsealed;

use std::ffi::OsString;
use std::process::ExitCode;

pub use journal::{Begun, Journal};
pub use limits::Limits;
pub use place::Sandbox;
pub use seal::{Facts, Part, Seal};
pub use trial::trial;

/// Runs this process as a part of a sandbox if that is its role.
pub(super) fn dispatch(role: &str, arguments: &[OsString]) -> Option<ExitCode> {
    local::dispatch(role, arguments).or_else(|| container::dispatch(role, arguments))
}
