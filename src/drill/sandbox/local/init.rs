//! `sandbox:init`: PID 1 of the sandbox. It builds the inside, tells Lifeboat that it stands, serves the ways
//! in, reaps who lost his parent, and ends when the pipe from Lifeboat closes. With it every process ends.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

use nix::unistd::sethostname;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use super::spec::{Confinement, Ready, Spec, Told, tell};
use super::view;
use crate::drill::sandbox::inside::{Refusal, argument, close_inherited, namespaces, network, reap_orphans};
use crate::drill::sinkhole::{Ports, Sinkhole};
use crate::runtime::Runtime;

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
        door.open()?;
    }
    // It listens on the loopback interface, to which every address leads, before the sandbox is said to stand.
    let sinkhole = Sinkhole::bind(&Ports::default(), &spec.egress, Runtime::silent());
    let sinkhole = sinkhole.map_err(|e| internal(e.message()))?;
    tokio::spawn(async move {
        // A drill that ends is better than attempts that nobody sees.
        let ended = sinkhole.serve().await;
        eprintln!("lifeboat: the sinkhole ended: {}", ended.err().map_or_else(String::new, |e| e.message()));
        std::process::exit(4);
    });
    tell(&Told::Ready(Ready { namespaces: namespaces(), confinement }));
    let mut pipe = tokio::io::stdin();
    let mut word = [0; 64];
    loop {
        tokio::select! {
            // Nothing is ever said on the pipe: it tells by its end.
            read = pipe.read(&mut word) => if !matches!(read, Ok(1..)) { std::process::exit(0) },
            _ = orphans.recv() => reap_orphans(),
        }
    }
}

fn internal(why: String) -> Refusal {
    Refusal { what: "the sandbox does not start".into(), why, policy: false }
}
