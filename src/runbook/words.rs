//! How values stand in a runbook: as code in Markdown, as words of a shell, as values of TOML. Names come from the
//! configuration, and nothing in them may end what they stand in.

use std::path::Path;
use std::time::Duration;

/// A value as code within a paragraph of Markdown.
pub(super) fn code(value: &str) -> String {
    let value = value.replace(['\n', '\r'], " ");
    match value.contains('`') {
        true => format!("`` {value} ``"),
        false if value.is_empty() => "–".to_owned(),
        false => format!("`{value}`"),
    }
}

/// A value as plain words within a paragraph or a cell of a table.
pub(super) fn plain(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '~' | '!' => escaped.extend(['\\', c]),
            '\n' | '\r' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A value as one word of a shell.
pub(super) fn quoted(value: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/._-:=@%+,".contains(c);
    match !value.is_empty() && value.chars().all(harmless) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', r"'\''")),
    }
}

/// A path as one word of a shell.
pub(super) fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A value as a string of TOML.
pub(super) fn toml(value: &str) -> String {
    ::toml::Value::String(value.to_owned()).to_string()
}

/// A duration as the configuration writes it.
pub(super) fn span(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}
