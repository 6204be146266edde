//! A command as a span of OpenTelemetry, and its phases as spans below it.
//!
//! It takes part in the trace that `TRACEPARENT` names, such as that of the job of the service that it is. What it hears
//! are the events that everybody else hears; nothing is measured for it alone. As long as nobody collects spans
//! (`cli/telemetry.rs`), it does nothing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanBuilder, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use crate::error::Error;
use crate::event::Event;
use crate::service::{JOB_VARIABLE, RUN_VARIABLE, TRACER};

/// The trace of a command; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Option<Spans>>>);

struct Spans {
    /// Holds the span of the command.
    command: Context,
    phases: Vec<Phase>,
}

struct Phase {
    name: Cow<'static, str>,
    span: global::BoxedSpan,
    bytes: u64,
}

impl Trace {
    /// Begins the span of the command `words`, where spans are collected.
    pub(super) fn begin(&self, words: &str, environment: Option<&str>) {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let carried: HashMap<String, String> = ["TRACEPARENT", "TRACESTATE"]
            .into_iter()
            .filter_map(|name| Some((name.to_lowercase(), variable(name)?)))
            .collect();
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carried);
        let said = [
            ("lifeboat.environment", environment.map(str::to_owned)),
            ("lifeboat.job", variable(JOB_VARIABLE)),
            ("lifeboat.run", variable(RUN_VARIABLE)),
        ];
        let said = said.into_iter().filter_map(|(key, value)| value.map(|value| KeyValue::new(key, value)));
        let builder = SpanBuilder::from_name(format!("lifeboat {words}")).with_attributes(said.collect::<Vec<_>>());
        let span = global::tracer(TRACER).build_with_context(builder, &parent);
        if span.is_recording() {
            *self.lock() = Some(Spans { command: parent.with_span(span), phases: Vec::new() });
        }
    }

    /// Hears what the command tells.
    pub(super) fn hear(&self, event: &Event) {
        let mut spans = self.lock();
        let Some(spans) = spans.as_mut() else { return };
        match event {
            Event::PhaseStarted { phase, .. } => {
                let span = global::tracer(TRACER).start_with_context(phase.clone(), &spans.command);
                spans.phases.push(Phase { name: phase.clone(), span, bytes: 0 });
            }
            Event::Progress { phase, bytes } => {
                if let Some(running) = spans.phases.iter_mut().rfind(|running| running.name == *phase) {
                    running.bytes += bytes;
                }
            }
            Event::PhaseEnded { phase, .. } => {
                if let Some(at) = spans.phases.iter().rposition(|running| running.name == *phase) {
                    spans.phases.remove(at).end();
                }
            }
            Event::Warning(text) => {
                spans.command.span().add_event("warning", vec![KeyValue::new("message", text.clone())]);
            }
            Event::StoreRetry { operation, reason, .. } => {
                let said = [("operation", operation), ("reason", reason)];
                let said = said.map(|(key, value)| KeyValue::new(key, value.clone()));
                spans.command.span().add_event("store retry", said.into());
            }
            Event::Note(_) | Event::Logged { .. } | Event::WalDurable { .. } | Event::WalStored { .. } => {}
        }
    }

    /// Ends the span of the command: how it ended, and its exit code.
    pub(super) fn end(&self, failure: Option<&Error>, code: u8) {
        let Some(mut spans) = self.lock().take() else { return };
        // What still runs was cut short by the end.
        for mut phase in spans.phases.drain(..).rev() {
            phase.span.set_status(Status::error("it did not end"));
            phase.end();
        }
        let span = spans.command.span();
        span.set_attribute(KeyValue::new("lifeboat.exit_code", i64::from(code)));
        span.set_status(failure.map_or(Status::Ok, |failure| Status::error(failure.message())));
        span.end();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Spans>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Phase {
    fn end(mut self) {
        if self.bytes > 0 {
            self.span.set_attribute(KeyValue::new("lifeboat.bytes", i64::try_from(self.bytes).unwrap_or(i64::MAX)));
        }
        self.span.end();
    }
}
