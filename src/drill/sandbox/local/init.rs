//! `sandbox:init`: PID 1 of the sandbox. It builds the inside, tells Lifeboat that it stands, serves the ways
//! in, reaps who lost his parent, and ends when the pipe from Lifeboat closes. With it every process ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

use super::spec::{Confinement, Door, Ready, Refusal, Spec, Told, argument, close_inherited, tell};
use super::{network, view};

/// Stands until Lifeboat is gone.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    close_inherited();
    match argument::<Spec>(arguments, 0).map_err(|e| internal(e.message())).and_then(|spec| stand(&spec)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            tell(&Told::Refused(refusal));
            ExitCode::from(3)
        }
    }
}

fn stand(spec: &Spec) -> Result<(), Refusal> {
    network::up().map_err(|e| Refusal::new("the sandbox's loopback interface cannot be set up", e))?;
    view::build(spec)?;
    sethostname("drill").map_err(|e| Refusal::new("the sandbox's name cannot be set", e))?;
    let confinement = probe(spec)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Refusal::io("PID 1 of the sandbox cannot work", &e))?;
    runtime.block_on(serve(spec, confinement))
}

/// Starts a first program as all others are started, which tells how it was confined.
fn probe(spec: &Spec) -> Result<Confinement, Refusal> {
    let failed = |e: &std::io::Error| Refusal::io("no program can be started in the sandbox", e);
    let mut command = Command::new("/proc/self/exe");
    command.arg(super::PROBE).arg(spec.to_argument()).stdin(Stdio::null());
    let output = command.output().map_err(|e| failed(&e))?;
    match serde_json::from_slice(&output.stdout) {
        Ok(confinement) if output.status.success() => Ok(confinement),
        _ => {
            let refusal = serde_json::from_slice(&output.stderr);
            Err(refusal.unwrap_or_else(|_| internal(String::from_utf8_lossy(&output.stderr).into_owned())))
        }
    }
}

async fn serve(spec: &Spec, confinement: Confinement) -> Result<(), Refusal> {
    let failed = |e: &std::io::Error| Refusal::io("PID 1 of the sandbox cannot work", e);
    let mut orphans = signal(SignalKind::child()).map_err(|e| failed(&e))?;
    for door in &spec.doors {
        let listener = UnixListener::bind(&door.socket)
            .map_err(|e| Refusal::io(format!("no way in at {}", door.socket.display()), &e))?;
        tokio::spawn(lead_in(listener, door.clone()));
    }
    // The one place where the sinkhole is started: it listens on the loopback interface, to which every address
    // leads, and writes to `spec.egress` before the sandbox is said to stand.
    tell(&Told::Ready(Ready { namespaces: namespaces(), confinement }));
    let mut pipe = tokio::io::stdin();
    let mut word = [0; 64];
    loop {
        tokio::select! {
            // Nothing is ever said on the pipe: it tells by its end.
            read = pipe.read(&mut word) => if !matches!(read, Ok(1..)) { std::process::exit(0) },
            _ = orphans.recv() => reap(),
        }
    }
}

/// Leads every connection to a port of the loopback interface.
async fn lead_in(listener: UnixListener, door: Door) {
    loop {
        // A failing accept has nobody to tell; whoever knocks sees that nobody opens.
        let Ok((mut outside, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            if let Ok(mut inside) = TcpStream::connect(("127.0.0.1", door.port)).await {
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}

fn reap() {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn namespaces() -> BTreeMap<String, String> {
    let kinds = ["user", "net", "mnt", "pid", "ipc", "uts"];
    let named = |kind: &str| Some((kind.to_owned(), std::fs::read_link(format!("/proc/self/ns/{kind}")).ok()?));
    kinds.iter().filter_map(|kind| named(kind)).map(|(kind, name)| (kind, name.display().to_string())).collect()
}

fn internal(why: String) -> Refusal {
    Refusal { what: "the sandbox does not start".into(), why, policy: false }
}
