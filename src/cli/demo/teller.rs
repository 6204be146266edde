//! The demo's voice: one line for each act, with a clock, as it happens.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::Format;
use crate::error::Result;
use crate::event::Event;
use crate::runtime::Runtime;

/// One act and how long it took.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Act {
    /// What was done.
    pub(super) name: &'static str,
    /// How long it took.
    pub(super) seconds: f64,
}

/// Tells what happens, and keeps how long it took.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    began: Instant,
    format: Format,
    acts: Arc<Mutex<Vec<Act>>>,
}

impl Teller {
    pub(super) fn new(format: Format) -> Self {
        Self { began: Instant::now(), format, acts: Arc::default() }
    }

    /// A sentence about what happens now.
    pub(super) fn say(&self, text: &str) {
        self.line(&format!("[{:5.1} s] {text}", self.elapsed().as_secs_f64()));
    }

    /// What came of it.
    pub(super) fn result(&self, text: &str) {
        self.line(&format!("          {text}"));
    }

    fn line(&self, text: &str) {
        // A reader that went away is no reason to stop halfway.
        let _ = match self.format {
            Format::Text => writeln!(std::io::stdout().lock(), "{text}"),
            Format::Json => writeln!(std::io::stderr().lock(), "{text}"),
        };
    }

    /// Does `work` as the act `name`, announced by `sentence`.
    pub(super) async fn act<T>(
        &self,
        name: &'static str,
        sentence: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.say(sentence);
        let began = Instant::now();
        let result = work.await;
        let act = Act { name, seconds: began.elapsed().as_secs_f64() };
        self.acts.lock().expect("no holder panics").push(act);
        result
    }

    pub(super) fn acts(&self) -> Vec<Act> {
        self.acts.lock().expect("no holder panics").clone()
    }

    /// Since the demo began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A runtime whose warnings are told among the acts.
    pub(super) fn runtime(&self) -> Runtime {
        let teller = self.clone();
        Runtime::new(move |event| match event {
            Event::Warning(text) => teller.result(&format!("warning: {text}")),
            Event::StoreRetry { operation, reason, .. } => {
                teller.result(&format!("warning: the store failed to {operation}: {reason}; trying again"));
            }
            // The acts tell the rest in fewer words.
            _ => {}
        })
    }
}
