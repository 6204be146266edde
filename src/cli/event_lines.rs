//! Events for the program that started this one: one JSON object a line on standard error.
//!
//! Progress comes in small steps, thousands a second; it is gathered, so that telling costs nothing.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::runtime::Runtime;

/// Progress is told at most this often.
const EVERY: Duration = Duration::from_millis(250);

/// The runtime of a command whose events are read by a program.
pub(super) fn runtime() -> Runtime {
    let lines = Lines::default();
    Runtime::new(move |event| {
        for event in lines.take(event) {
            let mut line = serde_json::to_vec(&event).expect("an event is plain data");
            line.push(b'\n');
            // Nobody may be left to read it; the work goes on.
            let _ = std::io::stderr().write_all(&line);
        }
    })
}

/// What is held back.
#[derive(Default)]
struct Lines(Mutex<Option<Gathered>>);

struct Gathered {
    phase: Cow<'static, str>,
    bytes: u64,
    since: Instant,
}

impl Gathered {
    fn event(self) -> Event {
        Event::Progress { phase: self.phase, bytes: self.bytes }
    }
}

impl Lines {
    /// What is to be told now that `event` came.
    fn take(&self, event: Event) -> Vec<Event> {
        let mut held = self.0.lock().expect("no holder panics");
        let Event::Progress { phase, bytes } = event else {
            return held.take().map(Gathered::event).into_iter().chain([event]).collect();
        };
        let mut told = Vec::new();
        match &mut *held {
            Some(gathered) if gathered.phase == phase => gathered.bytes += bytes,
            other => {
                told.extend(other.replace(Gathered { phase, bytes, since: Instant::now() }).map(Gathered::event));
            }
        }
        if held.as_ref().is_some_and(|gathered| gathered.since.elapsed() >= EVERY) {
            told.extend(held.take().map(Gathered::event));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_gathered_and_none_is_lost_or_late() {
        let lines = Lines::default();
        let progress = |phase: &'static str, bytes| Event::Progress { phase: phase.into(), bytes };
        assert_eq!(lines.take(progress("a", 1)), []);
        assert_eq!(lines.take(progress("a", 2)), []);
        assert_eq!(lines.take(progress("b", 5)), [progress("a", 3)], "phases at once do not mix");
        let ended = Event::PhaseEnded { phase: "b".into(), took: Duration::ZERO };
        assert_eq!(lines.take(ended.clone()), [progress("b", 5), ended], "before what follows it");
    }
}
