//! The container sandbox: containers of Podman or Docker, asked for over the engine's Unix socket.
//!
//! ```text
//! Lifeboat ──Engine API──▶ gate       network none, the only capabilities: loopback, sinkhole, ways in; PID 1 of all
//!    │                     postgres   the network and processes of the gate; image by digest; no capability
//!    │                     odoo       the same, from Odoo's image
//!    ├─line────────────────▶ gate     ends with this connection, and every process of the sandbox with it
//!    └─sandbox:ask─────────▶ agent    in each image: starts a program on the caller's own standard streams
//! ```
//!
//! No network is made and no port is published: all containers live in the gate's network namespace, which has
//! nothing but loopback. No volume is made: what an image declares as one is an empty directory in memory. What
//! outlives a killed Lifeboat is stopped containers; their names are in the drill's journal, their label is the
//! drill's id, and `gone` removes them by both and looks whether they are gone.

mod agent;
mod ask;
mod assertions;
mod body;
mod engine;
mod gate;
pub(in crate::drill::sandbox) mod gone;
mod handle;
mod image;
mod portable;
mod spec;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

pub use handle::Container;
pub(in crate::drill) use portable::LIBRARIES;
pub use spec::Spec;

/// First words of the command lines of the sandbox's own processes.
const GATE: &str = "sandbox:gate";
const AGENT: &str = "sandbox:agent";
const ASK: &str = "sandbox:ask";

/// Label of everything that is made for a drill; its value is the drill's id.
const LABEL: &str = "lifeboat.drill";

/// Runs this process as a part of a container sandbox if that is its role.
pub(super) fn dispatch(role: &str, arguments: &[OsString]) -> Option<ExitCode> {
    match role {
        GATE => Some(gate::main(arguments)),
        AGENT => Some(agent::main(arguments)),
        ASK => Some(ask::main(arguments)),
        _ => None,
    }
}
