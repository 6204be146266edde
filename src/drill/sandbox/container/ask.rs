//! `sandbox:ask`: stands on this host for a program in a container. Its standard streams are the program's, it
//! hands on SIGINT, SIGQUIT and SIGTERM, and it ends as the program ends.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sys::signal::SigSet;

use super::wire::{self, Answer, Ask, Forwarded, Run};
use crate::drill::sandbox::inside::forwarded;
use crate::postgres::launch::{Launch, bare_environment};

/// Exit code where the sandbox has ended: the program was killed with it.
const KILLED: u8 = 137;
/// Exit code where it cannot be entered.
const NOT_ENTERED: u8 = 125;

/// Starts programs in one container of a sandbox.
#[derive(Debug, Clone)]
pub(super) struct Inside {
    /// Lifeboat's program as this host runs it.
    pub(super) program: PathBuf,
    /// Where the container's agent listens.
    pub(super) agent: PathBuf,
}

impl Launch for Inside {
    fn command(&self, program: &Path) -> Command {
        // It stays the running account, which alone may ask; the program inside has the account of its container.
        let mut command = Command::new(&self.program);
        bare_environment(&mut command);
        command.arg(super::ASK).arg(&self.agent).arg(program);
        command
    }

    fn has(&self, program: &Path) -> bool {
        let asked = UnixStream::connect(&self.agent).and_then(|mut stream| {
            wire::ask(&mut stream, &Ask::Has(program.to_owned()), &[])?;
            wire::heard(&mut BufReader::new(stream))
        });
        // Where nobody answers, nothing can be started either, and that says so.
        matches!(asked, Ok(Some(Answer::Has(true))))
    }
}

/// Runs the program; the exit code is its own.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("lifeboat: the sandbox cannot be entered: {e}");
            ExitCode::from(NOT_ENTERED)
        }
    }
}

fn run(arguments: &[OsString]) -> std::io::Result<u8> {
    let [agent, program, rest @ ..] = arguments else { return Err(std::io::Error::other("no program is named")) };
    // Signals wait until they can be handed on; threads inherit that.
    let awaited = forwarded();
    awaited.thread_block()?;
    let mut stream = UnixStream::connect(agent)?;
    let question = Ask::Run(Run {
        program: program.clone(),
        arguments: rest.to_vec(),
        environment: std::env::vars_os().collect(),
        directory: std::env::current_dir()?,
    });
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    wire::ask(&mut stream, &question, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
    let line = stream.try_clone()?;
    std::thread::spawn(move || hand_on(&awaited, &line));
    Ok(match wire::heard(&mut BufReader::new(stream)) {
        Ok(Some(Answer::Ended(code))) => code,
        _ => KILLED,
    })
}

fn hand_on(awaited: &SigSet, line: &UnixStream) -> std::io::Result<Infallible> {
    loop {
        let signal = awaited.wait()?;
        wire::say(line, &Forwarded { signal: signal as i32 })?;
    }
}
