//! Events for people: progress bars where standard error is a terminal, plain lines elsewhere.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Format;
use crate::event::{Event, Subject};
use crate::runtime::Runtime;
use crate::units::{ByteSize, Span};

/// Repeated news about one failing store are told at most this often.
const RETRY_NEWS: Duration = Duration::from_secs(10);

/// The runtime of a command: its events go to standard error.
pub(crate) fn runtime(format: Format) -> Runtime {
    let view = View::new(format == Format::Text && std::io::stderr().is_terminal());
    Runtime::with_subjects(move |subject, event| view.show(subject, event))
}

struct View {
    bars: MultiProgress,
    interactive: bool,
    running: Mutex<HashMap<Cow<'static, str>, ProgressBar>>,
    last_retry: Mutex<Option<Instant>>,
}

impl View {
    fn new(interactive: bool) -> Self {
        let target = if interactive { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            bars: MultiProgress::with_draw_target(target),
            interactive,
            running: Mutex::default(),
            last_retry: Mutex::default(),
        }
    }

    fn show(&self, subject: &Subject, event: Event) {
        match event {
            Event::PhaseStarted { phase, total } => self.start(phase, total),
            Event::Progress { phase, bytes } => {
                if let Some(bar) = self.running.lock().expect("no holder panics").get(&phase) {
                    bar.inc(bytes);
                }
            }
            Event::PhaseEnded { phase, took } => {
                let bar = self.running.lock().expect("no holder panics").remove(&phase);
                let bytes = bar.map_or(0, |bar| {
                    bar.finish_and_clear();
                    bar.position()
                });
                let size = if bytes > 0 { format!(", {}", ByteSize(bytes)) } else { String::new() };
                self.line(&format!("{subject}{phase}: {}{size}", Span(took)));
            }
            Event::Note(text) => self.line(&format!("{subject}{text}")),
            Event::Warning(text) => self.line(&format!("warning: {subject}{text}")),
            Event::Logged { level, target, message } => {
                self.line(&format!("{subject}{} {target}: {message}", level.word()));
            }
            Event::StoreRetry { operation, reason, after } => {
                let mut last = self.last_retry.lock().expect("no holder panics");
                if last.is_none_or(|at| at.elapsed() >= RETRY_NEWS) {
                    *last = Some(Instant::now());
                    self.line(&format!(
                        "{subject}the store failed to {operation}: {reason}; trying again after {}",
                        Span(after)
                    ));
                }
            }
            Event::WalStored { .. } | Event::WalDurable { .. } => {}
        }
    }

    fn start(&self, phase: Cow<'static, str>, total: Option<u64>) {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(
                "{msg:28} {bar:30} {binary_bytes:>11} of {binary_total_bytes} {binary_bytes_per_sec:>13} {eta:>4}",
            )),
            None => ProgressBar::new_spinner().with_style(style("{msg:28} {spinner} {binary_bytes:>11} {elapsed:>4}")),
        };
        let bar = self.bars.add(bar.with_message(phase.clone()));
        if self.interactive {
            bar.enable_steady_tick(Duration::from_millis(150));
        }
        self.running.lock().expect("no holder panics").insert(phase, bar);
    }

    fn line(&self, text: &str) {
        if self.interactive {
            // Written above the bars; a closed terminal is no failure.
            let _ = self.bars.println(text);
        } else {
            eprintln!("{text}");
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is fixed and valid")
}
