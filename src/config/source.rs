//! One configuration file as text: parses it and places errors in it (`file:line:column: …`).
//!
//! Messages never repeat a value that could be a secret: the parser's own messages quote what they
//! found, so quoted text is cut out, and its rendering of the line is not kept as a cause.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::raw::RawFile;
use super::raw_secret::SECRET_IN_FILE;
use super::suggest::nearest;
use crate::error::{self, Error, ErrorKind, Result, ResultExt as _};

/// Sections that stand below an `[[environment]]`.
const SECTIONS: [&str; 7] = ["objectives", "postgres", "odoo", "configuration", "drill", "restore", "retention"];

/// A configuration file that was read.
#[derive(Debug)]
pub(super) struct Source {
    /// The path as messages show it.
    pub(super) shown: PathBuf,
    /// The absolute directory that relative paths in the file count from.
    pub(super) directory: PathBuf,
    pub(super) text: String,
}

impl Source {
    /// Reads `path`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .or_err(ErrorKind::Config, || format!("cannot read the configuration file {}", path.display()))?;
        Self::of(path, text)
    }

    /// A file that was read before.
    pub(super) fn of(path: &Path, text: String) -> Result<Self> {
        let absolute = std::path::absolute(path)
            .or_err(ErrorKind::Config, || format!("cannot tell where {} lies", path.display()))?;
        let directory = absolute.parent().expect("a file that was read has a directory").to_owned();
        Ok(Self { shown: path.to_owned(), directory, text })
    }

    /// The absolute path of the file.
    pub(super) fn absolute(&self) -> PathBuf {
        self.shown.file_name().map_or_else(|| self.directory.clone(), |name| self.directory.join(name))
    }

    /// A file that comes with the program.
    pub(super) fn builtin(name: &str, text: &str) -> Self {
        Self { shown: PathBuf::from(name), directory: PathBuf::from("/"), text: text.to_owned() }
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Parses the text to its raw shape.
    pub(super) fn parse(&self) -> Result<RawFile> {
        self.parse_as()
    }

    /// Parses the text to another raw shape.
    pub(super) fn parse_as<T: DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(&self.text).map_err(|e| self.translate(e.message(), e.span()))
    }

    /// Where a byte range begins, as `file:line:column`.
    pub(super) fn place(&self, span: &Range<usize>) -> String {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        format!("{}:{line}:{column}", self.shown.display())
    }

    /// The number of the line on which `text`, a value that was read from `span`, begins; the line of `span`
    /// where the value does not stand there word for word.
    pub(super) fn line_of(&self, text: &str, span: &Range<usize>) -> usize {
        let written = self.text.get(span.clone()).unwrap_or_default();
        let start = span.start + written.find(text).unwrap_or(0);
        self.text.as_bytes()[..start.min(self.text.len())].iter().filter(|b| **b == b'\n').count() + 1
    }

    /// An error about the text at `span`.
    pub(super) fn error(&self, span: &Range<usize>, what: impl std::fmt::Display) -> Error {
        error::config(format!("{}: {what}", self.place(span)))
    }

    /// A path written in this file, made absolute.
    pub(super) fn resolve(&self, written: &str) -> PathBuf {
        // `components` drops "." so that "./x" and "x" are the same path.
        self.directory.join(written).components().collect()
    }

    /// Turns the parser's message into ours.
    fn translate(&self, message: &str, span: Option<Range<usize>>) -> Error {
        let error = |what: String| match &span {
            Some(span) => self.error(span, what),
            None => error::config(format!("{}: {what}", self.shown.display())),
        };
        if message == SECRET_IN_FILE {
            return error(SECRET_IN_FILE.to_owned())
                .hint("write { env = \"VARIABLE\" }, { file = \"path\" } or { command = [\"program\", \"argument\"] }")
                .hint("if this file was ever shared or committed, replace the secret");
        }
        if let Some((written, known)) = unknown(message, "unknown field ") {
            let error = error(format!("unknown key `{written}`"));
            return match (nearest(&written, known.iter().map(String::as_str)), known.iter().any(|k| k == "include")) {
                (_, true) if SECTIONS.contains(&written.as_str()) => {
                    let name =
                        if written == "odoo" { "[[environment.odoo]]" } else { &format!("[environment.{written}]") };
                    error.hint(format!("write {name}, below the [[environment]] that it belongs to"))
                }
                (Some(name), _) => error.hint(format!("did you mean `{name}`?")),
                (None, _) => error.hint(format!("known here: {}", known.join(", "))),
            };
        }
        if let Some((written, known)) = unknown(message, "unknown variant ") {
            let error = error(format!("\"{written}\" is not one of the values known here"));
            return match nearest(&written, known.iter().map(String::as_str)) {
                Some(name) => error.hint(format!("did you mean \"{name}\"?")),
                None => error.hint(format!("known here: {}", known.join(", "))),
            };
        }
        if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            return match SECTIONS.contains(&key) {
                true => error(format!("the section [environment.{key}] is missing from this [[environment]]"))
                    .hint(format!("a section [{key}] belongs to no environment; only [environment.{key}] does")),
                false => error(format!("the key `{key}` is missing"))
                    .hint("docs/configuration.md lists every key with its meaning and default"),
            };
        }
        if let ("duplicate key", Some(key)) = (message, span.clone().and_then(|s| self.text.get(s))) {
            return error(format!("`{key}` stands here for the second time")).hint("keep one of the two");
        }
        if let Some((found, expected)) =
            message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "))
        {
            let kind = found.split(|c: char| " `\"".contains(c)).next().unwrap_or(found);
            let error = error(format!("{} stands here, expected {}", plain(kind), plain(expected)));
            return match (kind, expected) {
                ("map", "a sequence") => error.hint("write the name in double brackets, [[…]]: there may be several"),
                ("integer" | "floating", "a string") => {
                    error.hint("write it in quotation marks; durations and sizes need their unit: \"60s\", \"64MiB\"")
                }
                ("string", "a sequence") => error.hint("write a list: [\"…\"]"),
                _ => error,
            };
        }
        let error = error(message.to_owned());
        match message.starts_with("invalid ") {
            true => error.hint("in TOML texts stand in quotation marks: key = \"text\""),
            false => error,
        }
    }
}

/// Splits serde's "unknown … `x`, expected one of `a`, `b`" into `x` and the known names.
fn unknown(message: &str, prefix: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix(prefix)?.strip_prefix('`')?;
    let (written, expected) = rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are no"))?;
    Some((written.to_owned(), expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()))
}

/// Names of serde's data model in words of TOML.
fn plain(kind: &str) -> &str {
    match kind {
        "map" => "a table",
        "sequence" | "a sequence" => "a list",
        "string" => "a string",
        "integer" => "a number",
        "floating" => "a number with a fraction",
        "boolean" => "true or false",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}
