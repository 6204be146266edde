//! `sandbox:gate`: the first container of a sandbox, and PID 1 of all its containers. It makes every address lead
//! to loopback, takes the sinkhole's ports, gives up every privilege, opens the ways in, reports, and ends with the
//! line to Lifeboat. The kernel then ends every process of the sandbox. Nothing of the restored copy runs in it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::sys::prctl::set_dumpable;
use nix::unistd::{Gid, Uid, seteuid, setgroups, setresgid, setresuid};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use super::spec::GateSpec;
use super::wire::{self, Up};
use crate::drill::sandbox::inside::{Refusal, argument, namespaces, network, reap_orphans};
use crate::drill::sinkhole::{Ports, Sinkhole};
use crate::runtime::Runtime;

/// Stands until Lifeboat is gone.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let stood = argument::<GateSpec>(arguments, 0).map_err(|e| internal(e.message())).and_then(|spec| stand(&spec));
    let refusal = match stood {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    };
    // The engine keeps these words until the container is removed.
    eprintln!("{}: {}", refusal.what, refusal.why);
    ExitCode::from(3)
}

fn stand(spec: &GateSpec) -> Result<Infallible, Refusal> {
    network::up().map_err(|e| Refusal::new("the sandbox's loopback interface cannot be set up", e))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Refusal::io("the gate of the sandbox cannot work", &e))?;
    runtime.block_on(serve(spec))
}

async fn serve(spec: &GateSpec) -> Result<Infallible, Refusal> {
    let failed = |e: &std::io::Error| Refusal::io("the gate of the sandbox cannot work", e);
    let mut orphans = signal(SignalKind::child()).map_err(|e| failed(&e))?;
    let log = as_account(spec, || File::options().create(true).append(true).open(&spec.egress))?;
    let log = log.map_err(|e| Refusal::io(format!("{} cannot be opened", spec.egress.display()), &e))?;
    let sinkhole = Sinkhole::bind_into(&Ports::default(), log, Runtime::silent());
    let sinkhole = sinkhole.map_err(|e| internal(e.to_string()))?;
    give_up_privileges(spec)?;
    for door in &spec.doors {
        door.open()?;
    }
    tokio::spawn(async move {
        // A drill that ends is better than attempts that nobody sees.
        let ended = sinkhole.serve().await;
        eprintln!("the sinkhole ended: {}", ended.err().map_or_else(String::new, |e| e.message()));
        std::process::exit(4);
    });
    let mut line = report(&spec.line)?;
    let mut word = [0; 64];
    loop {
        tokio::select! {
            // Nothing is ever said on the line: it tells by its end.
            read = line.read(&mut word) => if !matches!(read, Ok(1..)) { std::process::exit(0) },
            _ = orphans.recv() => reap_orphans(),
        }
    }
}

/// Tells Lifeboat that it stands.
fn report(line: &std::path::Path) -> Result<tokio::net::UnixStream, Refusal> {
    let failed = |e: &std::io::Error| Refusal::io("Lifeboat cannot be reached", e);
    let stream = UnixStream::connect(line).map_err(|e| failed(&e))?;
    wire::say(&stream, &Up { namespaces: namespaces() }).map_err(|e| failed(&e))?;
    stream.set_nonblocking(true).map_err(|e| failed(&e))?;
    tokio::net::UnixStream::from_std(stream).map_err(|e| failed(&e))
}

/// Does something with the files of the account; root in a container has no right to them.
fn as_account<T>(spec: &GateSpec, action: impl FnOnce() -> T) -> Result<T, Refusal> {
    let become_user = |uid: u32| seteuid(Uid::from_raw(uid));
    let failed = |e| Refusal::new("the gate cannot act as the account", e);
    become_user(spec.uid).map_err(failed)?;
    let done = action();
    become_user(0).map_err(failed)?;
    Ok(done)
}

/// Becomes the account, and with that loses every capability. It may not be looked into by programs of the same
/// account either.
fn give_up_privileges(spec: &GateSpec) -> Result<(), Refusal> {
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    let failed = |e| Refusal::new("privileges cannot be given up", e);
    setgroups(&[]).map_err(failed)?;
    setresgid(gid, gid, gid).map_err(failed)?;
    setresuid(uid, uid, uid).map_err(failed)?;
    set_dumpable(false).map_err(failed)
}

fn internal(why: String) -> Refusal {
    Refusal { what: "the gate of the sandbox does not start".into(), why, policy: false }
}
