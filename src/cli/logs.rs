//! What is written to standard error for machines: one JSON object a line, whoever tells it.
//!
//! Three sources come together here: events, which carry whom they concern; lines of libraries (`tracing`, chosen by
//! `LIFEBOAT_LOG`), which carry the fields of the spans that they are written in; and panics. In a process whose events
//! are read by another one, lines of libraries and panics become events, so that the reader adds what it knows.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;

use chrono::{SecondsFormat, Utc};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::error::{self, Result};
use crate::event::{Event, LogLevel, Subject};
use crate::runtime::Runtime;

/// Chooses the format where the command line does not.
const FORMAT: &str = "LIFEBOAT_LOG_FORMAT";
/// Chooses which lines of libraries are written.
const FILTER: &str = "LIFEBOAT_LOG";
/// Under this name panics are logged, whatever is chosen.
const PANIC: &str = "panic";
/// Keys that every line has; fields of the same name get another one.
const RESERVED: [&str; 4] = ["timestamp", "level", "target", "message"];

/// How lines are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

impl LogFormat {
    /// As the command line says, else the environment, else for people.
    pub(super) fn choose(said: Option<Self>) -> Result<Self> {
        match (said, std::env::var(FORMAT)) {
            (Some(format), _) => Ok(format),
            (None, Ok(word)) if !word.is_empty() => Self::from_str(&word, false).map_err(|_| {
                error::usage(format!("{FORMAT} is \"{word}\"; it is text or json")).meaning("nothing was done")
            }),
            (None, _) => Ok(Self::Text),
        }
    }
}

/// Starts logging; `told` where events of this process are read by another one.
pub(super) fn start(format: LogFormat, told: bool) {
    let mut filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| "warn".into());
    if let Ok(always) = format!("{PANIC}=error").parse() {
        filter = filter.add_directive(always);
    }
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    match (told, format) {
        (true, _) => lines.fmt_fields(JsonFields::new()).event_format(AsEvents).init(),
        (false, LogFormat::Json) => lines.fmt_fields(JsonFields::new()).event_format(AsLines).init(),
        (false, LogFormat::Text) => return lines.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    std::panic::set_hook(Box::new(log_panic));
}

/// The runtime of a command whose events are lines of JSON.
pub(super) fn runtime() -> Runtime {
    Runtime::with_subjects(|subject, event| {
        if let Some(line) = line_of(subject, event) {
            line.write();
        }
    })
}

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    timestamp: String,
    level: &'static str,
    target: String,
    message: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl Line {
    /// A line that is written now.
    pub(super) fn new(
        level: LogLevel,
        target: &str,
        message: impl Into<String>,
        mut fields: Map<String, Value>,
    ) -> Self {
        for key in RESERVED {
            if let Some(value) = fields.remove(key) {
                fields.insert(format!("{key}_"), value);
            }
        }
        let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        Self { timestamp, level: level.word(), target: target.to_owned(), message: message.into(), fields }
    }

    /// Writes it to standard error, whole.
    pub(super) fn write(&self) {
        let mut line = self.to_string();
        line.push('\n');
        // Nobody may be left to read it; the work goes on.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// An event as a line; `None` for what only moves a bar.
fn line_of(subject: &Subject, event: Event) -> Option<Line> {
    let mut fields: Map<String, Value> = subject.parts().map(|(key, part)| (key.to_owned(), part.into())).collect();
    let mut with = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    let mut target = "lifeboat".to_owned();
    let (level, message) = match event {
        Event::Note(text) => (LogLevel::Info, text),
        Event::Warning(text) => (LogLevel::Warn, text),
        Event::PhaseEnded { phase, took } => {
            with("phase", phase.as_ref().into());
            with("seconds", took.as_secs_f64().into());
            (LogLevel::Info, format!("{phase}: done"))
        }
        Event::StoreRetry { operation, reason, after } => {
            with("retry_after_seconds", after.as_secs_f64().into());
            (LogLevel::Warn, format!("the store failed to {operation}: {reason}"))
        }
        Event::Logged { level, target: from, message } => {
            target = from;
            (level, message)
        }
        Event::PhaseStarted { .. } | Event::Progress { .. } | Event::WalDurable { .. } | Event::WalStored { .. } => {
            return None;
        }
    };
    Some(Line::new(level, &target, message, fields))
}

/// Lines of libraries as lines.
struct AsLines;

/// Lines of libraries as events, for the process that reads them.
struct AsEvents;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for AsLines {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let (message, fields) = said(context, event);
        let metadata = event.metadata();
        writeln!(writer, "{}", Line::new(level(*metadata.level()), metadata.target(), message, fields))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for AsEvents {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let (mut message, fields) = said(context, event);
        for (key, value) in fields {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            message = format!("{message} {key}={value}");
        }
        let metadata = event.metadata();
        let logged = Event::Logged { level: level(*metadata.level()), target: metadata.target().to_owned(), message };
        writeln!(writer, "{}", serde_json::to_string(&logged).map_err(|_| fmt::Error)?)
    }
}

/// The message of a line, and its fields with those of the spans around it.
fn said<S>(context: &FmtContext<'_, S, JsonFields>, event: &tracing::Event<'_>) -> (String, Map<String, Value>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut fields = Fields::default();
    for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
        let extensions = span.extensions();
        let written = extensions.get::<FormattedFields<JsonFields>>().map_or("", |written| written.fields.as_str());
        if let Ok(Value::Object(of_span)) = serde_json::from_str(written) {
            fields.0.extend(of_span);
        }
    }
    event.record(&mut fields);
    let message = match fields.0.remove("message") {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    (message, fields.0)
}

/// Fields as values of JSON.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().trim_start_matches("r#").to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

fn level(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

/// A panic as one line, in the spans in which it happened.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    tracing::error!(target: PANIC, place, thread, "{}", panic.payload_as_str().unwrap_or("no message"));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn value(line: &impl ToString) -> Value {
        serde_json::from_str(&line.to_string()).expect("JSON")
    }

    #[test]
    fn an_event_carries_whom_it_concerns() {
        let subject = Subject {
            job: Some("base-daily".into()),
            run: Some("3f0c".into()),
            trace_id: Some("ab".into()),
            ..Subject::environment("shop")
        };
        let ended = Event::PhaseEnded { phase: "reading".into(), took: Duration::from_millis(1500) };
        let mut line = value(&line_of(&subject, ended).expect("a line"));
        let timestamp = line["timestamp"].take();
        assert!(chrono::DateTime::parse_from_rfc3339(timestamp.as_str().expect("text")).is_ok(), "{timestamp}");
        assert_eq!(
            line,
            json!({ "timestamp": null, "level": "INFO", "target": "lifeboat", "message": "reading: done", "phase": "reading",
                "seconds": 1.5, "environment": "shop", "job": "base-daily", "run": "3f0c", "trace_id": "ab" })
        );
        let logged =
            Event::Logged { level: LogLevel::Debug, target: "lifeboat::x".into(), message: "two\nlines".into() };
        let line = line_of(&subject, logged).expect("a line").to_string();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!((&value(&line)["level"], &value(&line)["target"]), (&json!("DEBUG"), &json!("lifeboat::x")));
        assert!(line_of(&subject, Event::Progress { phase: "reading".into(), bytes: 1 }).is_none());
    }

    #[test]
    fn no_field_takes_the_place_of_what_every_line_has() {
        let fields = Map::from_iter([("level".to_owned(), json!(3)), ("size".to_owned(), json!(7))]);
        let line = value(&Line::new(LogLevel::Warn, "x", "y", fields));
        assert_eq!((&line["level"], &line["level_"], &line["size"]), (&json!("WARN"), &json!(3), &json!(7)));
    }
}
