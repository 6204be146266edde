//! A job as a span of OpenTelemetry, and how its process continues the trace.
//!
//! Without anybody who collects spans (`cli/telemetry.rs`) there is no trace, and all of this does nothing.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanBuilder, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::order::Order;
use super::state::{FinishedJob, JobOutcome};

/// Name of the tracer, for readers of traces.
pub const TRACER: &str = "lifeboat";
/// Tell a command which job of the service it is; `cli/trace.rs` reads them.
pub const JOB_VARIABLE: &str = "LIFEBOAT_JOB";
/// See [`JOB_VARIABLE`].
pub const RUN_VARIABLE: &str = "LIFEBOAT_RUN";

/// The span of a job: from the start of its process to its end.
#[derive(Debug)]
pub(super) struct JobSpan(global::BoxedSpan);

impl JobSpan {
    /// Begins the trace of a job.
    pub(super) fn begin(order: &Order) -> Self {
        let mut attributes = vec![
            KeyValue::new("lifeboat.environment", order.environment.clone()),
            KeyValue::new("lifeboat.job", order.job_name().to_owned()),
            KeyValue::new("lifeboat.job_kind", order.kind.word()),
            KeyValue::new("lifeboat.run", order.run.clone()),
            KeyValue::new("lifeboat.attempt", i64::from(order.attempt)),
        ];
        attributes.extend(order.scheduled_for.map(|at| KeyValue::new("lifeboat.scheduled_for", at.to_rfc3339())));
        let builder = SpanBuilder::from_name(format!("job {}", order.kind)).with_attributes(attributes);
        Self(global::tracer(TRACER).build_with_context(builder, &Context::new()))
    }

    /// The id of the trace, where there is one.
    pub(super) fn trace_id(&self) -> Option<String> {
        let context = self.0.span_context();
        context.is_valid().then(|| context.trace_id().to_string())
    }

    /// By these variables of its environment the job's process continues the trace: those of the W3C, and what it says
    /// of itself.
    pub(super) fn variables(&self, order: &Order) -> Vec<(&'static str, String)> {
        let context = self.0.span_context();
        if !context.is_valid() {
            return Vec::new();
        }
        let mut carried = HashMap::new();
        let context = Context::new().with_remote_span_context(context.clone());
        TraceContextPropagator::new().inject_context(&context, &mut carried);
        let carried = [("traceparent", "TRACEPARENT"), ("tracestate", "TRACESTATE")]
            .into_iter()
            .filter_map(|(key, name)| carried.remove(key).filter(|value| !value.is_empty()).map(|value| (name, value)));
        let said = [(JOB_VARIABLE, order.job_name().to_owned()), (RUN_VARIABLE, order.run.clone())];
        carried.chain(said).collect()
    }

    /// Ends it: what became of the job.
    pub(super) fn end(mut self, job: &FinishedJob) {
        self.0.set_attribute(KeyValue::new("lifeboat.outcome", job.outcome.word()));
        if let Some(code) = job.exit_code {
            self.0.set_attribute(KeyValue::new("lifeboat.exit_code", i64::from(code)));
        }
        match job.outcome {
            JobOutcome::Failed | JobOutcome::Interrupted => self.0.set_status(Status::error(job.message.clone())),
            JobOutcome::Partial => self.0.set_attribute(KeyValue::new("lifeboat.message", job.message.clone())),
            JobOutcome::Done => self.0.set_status(Status::Ok),
        }
        self.0.end();
    }
}
