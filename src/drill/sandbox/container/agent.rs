//! `sandbox:agent`: the process of a container that has an image. It starts programs for whoever asks from outside
//! the sandbox ([`super::ask`]), on their own standard streams, hands them signals, and tells how they ended.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::spec::AgentSpec;
use super::wire::{self, Answer, Ask, Forwarded, Run, Up};
use crate::drill::sandbox::inside::{Refusal, argument, namespaces};

/// Exit code of a program that is not there.
const NOT_THERE: u8 = 127;
/// Exit code of one that could not be started.
const NOT_STARTED: u8 = 125;

/// Stands until Lifeboat is gone.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let spec = argument::<AgentSpec>(arguments, 0);
    let refusal = match spec.map_err(|e| internal(e.message())).and_then(|spec| stand(&spec)) {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    };
    eprintln!("{}: {}", refusal.what, refusal.why);
    ExitCode::from(3)
}

fn stand(spec: &AgentSpec) -> Result<Infallible, Refusal> {
    let failed = |what: &str, e: &std::io::Error| Refusal::io(what, e);
    // Programs of the same account may not look into it, nor tell lies in its name.
    set_dumpable(false).map_err(|e| Refusal::new("the agent cannot be protected", e))?;
    let listener = UnixListener::bind(&spec.socket).map_err(|e| failed("the agent cannot listen", &e))?;
    let line = UnixStream::connect(&spec.line).map_err(|e| failed("Lifeboat cannot be reached", &e))?;
    wire::say(&line, &Up { namespaces: namespaces() }).map_err(|e| failed("Lifeboat cannot be reached", &e))?;
    std::thread::spawn(move || {
        // Nothing is ever said on the line: it tells by its end.
        let _ = BufReader::new(line).read_line(&mut String::new());
        std::process::exit(0);
    });
    loop {
        // A failing accept has nobody to tell; whoever asks sees that nobody answers.
        let Ok((stream, _)) = listener.accept() else { continue };
        std::thread::spawn(move || {
            // Somebody who went away gets no answer.
            let _ = answer(stream);
        });
    }
}

fn answer(mut stream: UnixStream) -> std::io::Result<()> {
    // Whoever is outside of the sandbox's processes has no number in it. The copy itself starts nothing here.
    if getsockopt(&stream, PeerCredentials)?.pid() != 0 {
        return Ok(());
    }
    match wire::asked(&mut stream)? {
        (Ask::Has(path), _) => wire::say(&stream, &Answer::Has(path.exists())),
        (Ask::Run(run), streams) => {
            let code = match start(&run, streams) {
                Ok(child) => attend(&stream, child)?,
                Err(code) => code,
            };
            wire::say(&stream, &Answer::Ended(code))
        }
    }
}

/// Starts a program; says on its standard error why it cannot be started.
fn start(run: &Run, streams: Vec<OwnedFd>) -> Result<Child, u8> {
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(streams) else { return Err(NOT_STARTED) };
    let words = stderr.try_clone();
    let mut command = Command::new(&run.program);
    command.args(&run.arguments).env_clear().envs(run.environment.iter().cloned()).current_dir(&run.directory);
    // A group of its own: when whoever asked is gone, everybody in it goes.
    command.process_group(0).stdin(stdin).stdout(stdout).stderr(Stdio::from(stderr));
    command.spawn().map_err(|e| {
        if let Ok(words) = words {
            // Who does not listen learns it from the exit code.
            let _ = writeln!(File::from(words), "lifeboat: cannot run {}: {e}", run.program.display());
        }
        if run.directory.exists() { NOT_THERE } else { NOT_STARTED }
    })
}

/// Waits for a program's end, and hands it signals meanwhile; its exit code, 128 + n where signal n ended it.
fn attend(stream: &UnixStream, mut child: Child) -> std::io::Result<u8> {
    let pid = Pid::from_raw(child.id().cast_signed());
    // Held while it is signalled, and while it is reaped: its number may be another's afterwards.
    let alive = Arc::new(Mutex::new(true));
    let (watched, mut reader) = (alive.clone(), BufReader::new(stream.try_clone()?));
    std::thread::spawn(move || {
        loop {
            let heard = wire::heard::<Forwarded>(&mut reader);
            let alive = watched.lock().unwrap_or_else(PoisonError::into_inner);
            if !*alive {
                return;
            }
            // It may have ended by now; then there is nobody to signal.
            match heard {
                Ok(Some(Forwarded { signal })) => {
                    let _ = Signal::try_from(signal).map(|signal| kill(pid, signal));
                }
                _ => {
                    let _ = killpg(pid, Signal::SIGKILL);
                    return;
                }
            }
        }
    });
    while let Err(nix::errno::Errno::EINTR) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {}
    let mut alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
    *alive = false;
    let status = child.wait()?;
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(number.and_then(|number| u8::try_from(number).ok()).unwrap_or(NOT_STARTED))
}

fn internal(why: String) -> Refusal {
    Refusal { what: "the agent of the sandbox does not start".into(), why, policy: false }
}
