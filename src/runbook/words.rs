//! How values stand in a runbook: as code in Markdown, as words of a shell, as values of TOML. Names come from the
//! configuration, and nothing in them may end what they stand in.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

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

/// A value within double quotes of a shell, also within `${…}` there.
pub(super) fn within_quotes(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' | '"' | '$' | '`' | '}' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A connection string as pairs of keyword and value, to which another pair can be added; as it is where it does not parse.
pub(super) fn keywords(dsn: &str) -> String {
    let Ok(config) = dsn.parse::<tokio_postgres::Config>() else { return dsn.to_owned() };
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.to_string_lossy().into_owned(),
    });
    let hosts = hosts.collect::<Vec<_>>().join(",");
    let ports = config.get_ports().iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let pairs = [
        ("host", hosts),
        ("port", ports),
        ("user", config.get_user().unwrap_or_default().to_owned()),
        ("dbname", config.get_dbname().unwrap_or("postgres").to_owned()),
        ("sslmode", if config.get_ssl_mode() == SslMode::Require { "require".to_owned() } else { String::new() }),
    ];
    let harmless = |value: &str| value.chars().all(|c| c.is_ascii_alphanumeric() || "/._-,:".contains(c));
    let pair = |(name, value): (&str, String)| match value.as_str() {
        "" => None,
        plain if harmless(plain) => Some(format!("{name}={plain}")),
        other => Some(format!("{name}='{}'", other.replace('\\', "\\\\").replace('\'', "\\'"))),
    };
    pairs.into_iter().filter_map(pair).collect::<Vec<_>>().join(" ")
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
