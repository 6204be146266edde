//! Printing results and failures, as text for people or as one JSON object.

use std::io::Write;

use serde_json::{Value, json};

use super::Format;
use super::logs::{Line, LogFormat};
use crate::error::Error;
use crate::event::LogLevel;

/// What a command gives back: both forms of its result, and a failure where the work was done but the
/// answer is bad (a red drill, a repository with damage).
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) json: Value,
    pub(crate) text: String,
    pub(crate) failure: Option<Error>,
}

impl Outcome {
    /// A good result.
    pub(crate) fn new(json: Value, text: impl Into<String>) -> Self {
        Self { json, text: text.into(), failure: None }
    }

    /// The same with a bad answer.
    pub(crate) fn with_failure(mut self, failure: Option<Error>) -> Self {
        self.failure = failure;
        self
    }
}

/// How results and failures are printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style<'a> {
    pub(super) format: Format,
    pub(super) log: LogFormat,
    /// The environment that the command is about, where it is one.
    pub(super) environment: Option<&'a str>,
}

/// Prints a result.
pub(super) fn finished(style: Style<'_>, outcome: Outcome, code: u8) {
    match style.format {
        Format::Text => {
            if !outcome.text.is_empty() {
                print(&outcome.text);
            }
            if let Some(failure) = &outcome.failure {
                explain(style, failure, code);
            }
        }
        Format::Json => {
            let mut object = outcome.json;
            if let (Some(failure), Value::Object(fields)) = (&outcome.failure, &mut object) {
                fields.insert("error".into(), describe(failure, code));
            }
            print(&format!("{object:#}"));
        }
    }
}

/// Prints a failure.
pub(super) fn failed(style: Style<'_>, failure: &Error, code: u8) {
    match style.format {
        Format::Text => explain(style, failure, code),
        Format::Json => print(&format!("{:#}", json!({ "error": describe(failure, code) }))),
    }
}

pub(super) fn describe(failure: &Error, code: u8) -> Value {
    json!({
        "kind": format!("{:?}", failure.kind()),
        "message": failure.message(),
        "meaning": failure.what_it_means(),
        "hints": failure.hints(),
        "exit_code": code,
    })
}

fn explain(style: Style<'_>, failure: &Error, code: u8) {
    if style.log == LogFormat::Json {
        let mut said = describe(failure, code);
        let mut fields = said.as_object_mut().map(std::mem::take).unwrap_or_default();
        fields.remove("message");
        fields.extend(style.environment.map(|name| ("environment".to_owned(), name.into())));
        return Line::new(LogLevel::Error, "lifeboat", failure.message(), fields).write();
    }
    let mut text = format!("error: {}\n", failure.message());
    if let Some(meaning) = failure.what_it_means() {
        text += &format!("  this means: {meaning}\n");
    }
    for hint in failure.hints() {
        text += &format!("  what to do: {hint}\n");
    }
    // Standard error may be closed; there is nobody left to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that went away (`| head`) is no failure of the work that was done.
    let _ = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
}
