//! Printing results and failures, as text for people or as one JSON object.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::Format;
use crate::error::{Error, ErrorKind};

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

/// Prints a result and tells the exit code.
pub(crate) fn finished(format: Format, outcome: Outcome, code: fn(ErrorKind) -> u8) -> ExitCode {
    let code = outcome.failure.as_ref().map_or(0, |f| code(f.kind()));
    match format {
        Format::Text => {
            if !outcome.text.is_empty() {
                print(&outcome.text);
            }
            if let Some(failure) = &outcome.failure {
                explain(failure);
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
    ExitCode::from(code)
}

/// Prints a failure and tells the exit code.
pub(crate) fn failed(format: Format, failure: &Error, code: u8) -> ExitCode {
    match format {
        Format::Text => explain(failure),
        Format::Json => print(&format!("{:#}", json!({ "error": describe(failure, code) }))),
    }
    ExitCode::from(code)
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

fn explain(failure: &Error) {
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
