//! The local sandbox: namespaces of this host, made without privileges.
//!
//! ```text
//! Lifeboat ──pipe──▶ sandbox:start   user, network, mount, PID, IPC and UTS namespace of the servers' account
//!                      └▶ sandbox:init   PID 1: files it may see, loopback, ways in, sinkhole; ends with the pipe
//! Lifeboat ─────────▶ sandbox:enter ──▶ sandbox:program   nested user namespace without capabilities, limits,
//!                      signals, exit code    no_new_privs, Landlock; then the program
//! ```
//!
//! The kernel closes the pipe when Lifeboat ends, however it ends; then PID 1 ends, and with it every process
//! of its namespace. A sandbox leaves nothing to be cleaned up but directories.

mod confine;
mod enter;
mod handle;
mod init;
mod spec;
mod start;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

pub use handle::Local;
pub use spec::Spec;

/// First words of the command lines of the sandbox's own processes.
const START: &str = "sandbox:start";
const INIT: &str = "sandbox:init";
const ENTER: &str = "sandbox:enter";
const PROGRAM: &str = "sandbox:program";
const PROBE: &str = "sandbox:probe";

/// Runs this process as a part of a local sandbox if that is its role.
pub(super) fn dispatch(role: &str, arguments: &[OsString]) -> Option<ExitCode> {
    match role {
        START => Some(start::main(arguments)),
        INIT => Some(init::main(arguments)),
        ENTER => Some(enter::main(arguments)),
        PROGRAM => Some(confine::main(arguments)),
        PROBE => Some(confine::probe(arguments)),
        _ => None,
    }
}
