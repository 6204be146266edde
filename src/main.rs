//! The program: parses, dispatches, turns errors into exit codes.

use std::process::ExitCode;

use lifeboat::cli::{self, Arguments};

fn main() -> ExitCode {
    // Before anything that might start a thread: the processes of a sandbox are this program too.
    if let Some(code) = lifeboat::drill::dispatch(std::env::args_os()) {
        return code;
    }
    // Both providers may be compiled in one day; rustls then refuses to choose.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Arguments::from_command_line() {
        Ok(arguments) => cli::main(arguments),
        Err(code) => code,
    }
}
