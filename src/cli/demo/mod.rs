//! `lifeboat demo`: a disaster and a recovery to watch, with nothing but PostgreSQL's programs.
//!
//! ```text
//! run ─▶ place                       a directory, and the promise that it goes
//!  └──▶ story ─▶ cluster, seed, till    the shop
//!  │      └────▶ estate                 its configuration, as anybody would write it
//!  └──▶ summary ◀── teller              what is said, and what took how long
//! ```

mod cluster;
mod estate;
mod place;
mod seed;
mod story;
mod summary;
mod teller;
mod till;

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::place::Place;
use self::teller::Teller;
use super::Format;
use super::output::Outcome;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::postgres::account::Account;
use crate::postgres::tools::newest;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Empty or absent directory for everything, with the report in DIR/report [default: a temporary
    /// directory, and ./lifeboat-demo-report for the report]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Leave everything where it is, to look around with the other commands
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(arguments: &Arguments, format: Format) -> Result<Outcome> {
    let (major, bin_dir) = newest().ok_or_else(|| {
        error::config("PostgreSQL is not installed on this host, and the demo needs its programs")
            .hint("on Debian or Ubuntu: apt-get install postgresql")
            .hint("or run ./deploy/demo.sh, which installs what is missing")
    })?;
    // Before anything is made, so that no signal finds it without an owner.
    let interrupted = interruption()?;
    let place = Place::create(arguments.dir.as_deref(), &std::env::temp_dir(), Account::for_servers(None)?)?;
    let teller = Teller::new(format);
    // When the story is dropped halfway, its servers end with it; only then the directory may go.
    let ended = tokio::select! {
        ended = story::play(&place, major, &bin_dir, &teller) => ended,
        () = interrupted => Err(error::interrupted("the demo was stopped").meaning("its servers are ended and its files removed")),
    };
    let keep = arguments.keep && ended.as_ref().err().is_none_or(|e| e.kind() != ErrorKind::Interrupted);
    let outcome = ended.map(|ended| {
        let took = teller.elapsed();
        Outcome::new(summary::object(&ended, &place, keep, took), summary::text(&ended, &place, keep, took))
            .with_failure(summary::failure(&ended))
    });
    let outcome = outcome.map_err(|e| match keep {
        true => e.hint(format!("everything stays in {}; remove it when you have looked", place.root().display())),
        false => e,
    });
    if keep {
        place.keep();
        return outcome;
    }
    match place.remove() {
        Some(left) => outcome.and(Err(left)),
        None => outcome,
    }
}

/// Ends when the demo is told to stop.
fn interruption() -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).or_err(ErrorKind::Internal, || "cannot listen for signals".to_owned());
    let (mut interrupt, mut terminate, mut hangup) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}
