//! Where a drill restores to: directories of its own, journalled before they are made and verified to be gone
//! afterwards, and around them a *seal* that lets nothing out.
//!
//! ```text
//! place    directories of one drill      journal   what was made, the stage now; its lock tells who lives
//! seal     what every sandbox must do    local     namespaces of this host        unsealed  none at all
//! limits   disk, memory, time: before and during   processes   what belongs to a sandbox    reap  the dead
//! ```

pub mod journal;
pub mod limits;
pub mod local;
pub mod place;
pub mod processes;
pub mod reap;
pub mod seal;
pub mod unsealed;

pub use journal::{Begun, Journal};
pub use limits::Limits;
pub use place::Sandbox;
pub use seal::{Facts, Seal};
