//! `lifeboat serve`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::context::{Context, host_name};
use super::output::Outcome;
use super::systemd::Manager;
use super::telemetry::Observation;
use crate::config::JobKind;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::runtime::Runtime;
use crate::service::http::Http;
use crate::service::socket;
use crate::service::{Claim, Control, Service, Setup};

/// The program that jobs are run with: this very one, also when its file was replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of this instance [default: `instance` in [service], else the host's name]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

/// Serves until SIGTERM or SIGINT; SIGHUP loads the configuration again.
pub(super) async fn run(arguments: &Arguments, context: Context, observation: &Observation) -> Result<Outcome> {
    let stop = CancellationToken::new();
    let instance = arguments.instance.clone().or_else(|| context.estate.service.instance.clone());
    let instance = instance.unwrap_or_else(host_name);
    let runtime = context.runtime.clone();
    let state_dir = context.state_dir();
    let (claim, socket) = (Claim::take(&state_dir)?, socket::path(&state_dir));
    let page = context.estate.service.http.clone();
    let service = Service::new(Setup {
        estate: context.estate,
        instance: instance.clone(),
        claim,
        kinds: JobKind::ALL.into_iter().filter(|kind| super::can(*kind)).collect(),
        program: PathBuf::from(THIS_PROGRAM),
        runtime: runtime.clone(),
    });
    observe(observation, &service, instance, &runtime);
    let _listening = socket::listen(&socket, service.state(), service.control(), &runtime)?;
    listen_for_signals(&stop, service.control())?;
    // Streams of events end with the service; whoever reads one would hold up its end.
    let page = match page {
        Some(config) => {
            let (estates, state, control) = (service.estates(), service.state(), service.control());
            let server = Http::new(estates, config, state, control, runtime.clone(), stop.clone())?.bind().await?;
            runtime.emit(Event::Note(format!("the page is at {}", server.url()?)));
            Some(tokio::spawn(server.run(stop.clone())))
        }
        None => None,
    };
    let state = service.state();
    let manager = Arc::new(Manager::new());
    service.run(&stop, &move |sign| manager.tell(&sign)).await?;
    if let Some(page) = page {
        page.await.or_err(ErrorKind::Internal, || "the page ended unexpectedly".to_owned())?;
    }
    let view = state.view();
    let text = format!("{} has stopped in order", view.instance);
    Ok(Outcome::new(json!({ "served": { "instance": view.instance, "started_at": view.started_at } }), text))
}

/// Has traces of jobs go where the configuration says, whenever it is loaded anew.
fn observe(observation: &Observation, service: &Service, instance: String, runtime: &Runtime) {
    let (observation, mut estates, runtime) = (observation.clone(), service.estates(), runtime.clone());
    let config = estates.borrow_and_update().service.telemetry.clone();
    observation.telemetry().begin(config.as_ref(), Some(&instance), &runtime);
    tokio::spawn(async move {
        while estates.changed().await.is_ok() {
            let config = estates.borrow_and_update().service.telemetry.clone();
            observation.telemetry().follow(config.as_ref(), Some(&instance), &runtime);
        }
    });
}

fn listen_for_signals(stop: &CancellationToken, control: Control) -> Result<()> {
    let listen = |kind| signal(kind).or_err(ErrorKind::Internal, || "cannot listen for signals".to_owned());
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hangup: Signal = listen(SignalKind::hangup())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                // What is wrong with it is told by the service.
                _ = hangup.recv() => drop(control.reload().await),
            }
        }
        stop.cancel();
    });
    Ok(())
}
