//! What every sealed sandbox has inside, whatever it is made of.
//!
//! ```text
//! network    loopback alone, to which every address leads     doors      ways in from outside
//! settings   files of /etc                                    programs   limits of each program
//! told       what its processes are told, and how they refuse  forwarded  signals that reach programs
//! ```

mod doors;
mod forwarded;
pub(in crate::drill::sandbox) mod network;
mod programs;
pub(in crate::drill::sandbox) mod settings;
mod told;

pub use doors::Door;
pub(in crate::drill::sandbox) use forwarded::forwarded;
pub use programs::Programs;
pub(in crate::drill::sandbox) use told::{Refusal, argument, close_inherited, namespaces, reap_orphans};
