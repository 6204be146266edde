//! Secrets in lines: INI, properties, `postgresql.conf`, `pg_hba.conf`, YAML, TOML, units, Redis, SQL. Nothing is parsed
//! that could fail to parse: a line is looked at for names that stand before a value.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::Masker;
use super::looks::pattern;
use super::words::{is_harmless, is_secret};

/// A whole line `name = value`, `name: value`, also as a comment, an item of a list, or an assignment of a shell.
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"^([\s#;/\-]*(?:export\s+|set\s+)?["']?)([A-Za-z_][\w.\-/]*)(["']?\s*(?::=|=>|[:=])\s*)(.*)$"#)
});

/// A whole line `name value`, as Redis and many others write.
static DIRECTIVE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^([\s#;\-]*)([A-Za-z_][\w.\-]*)(\s+)(\S.*)$"));

/// A name before a value, anywhere in a line.
static NAME: LazyLock<Regex> = LazyLock::new(|| pattern(r#"([A-Za-z_][A-Za-z0-9_.\-]*)\\?["']?\s*(?:=>|[:=])\s*"#));

/// `--name value`.
static OPTION: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(--?)([A-Za-z][\w\-]*)(\s+)('[^']*'|"[^"]*"|[^\s\-]\S*)"#));

/// Headers of HTTP, as proxies set them: `X-Api-Key value`.
static HEADER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?i)\b((?:x-)?[a-z\-]*(?:-key|-token|-secret)\s+)('[^']*'|"[^"]*"|[^\s;"']+)"#));

/// Passwords of Redis' users: `>plain`, `<plain`, `#sha256`, `!sha256`.
static REDIS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\s[><#!])([^\s~&+]\S*)"));

/// `ALTER ROLE … SET name TO 'value'`.
static SQL_SET: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?i)(\bSET\s+"?)([\w.]+)("?\s+(?:TO|=)\s+)('(?:[^']|'')*')"#));

/// Words that are directives with a secret although they are short: others could begin a sentence.
const DIRECTIVES: [&str; 7] = ["requirepass", "masterauth", "password", "passphrase", "secret", "auth_pass", "token"];

impl Masker {
    /// Lines from elsewhere.
    pub(super) fn lines(&self, text: &str) -> String {
        let text = self.keys(text);
        // Values of a Kubernetes Secret are secrets, whatever their names.
        let secrets = text.lines().any(|line| line.trim() == "kind: Secret");
        let mut masked = String::with_capacity(text.len());
        // What stands below a name of a secret, deeper than it, belongs to its value.
        let mut below: Option<(usize, String)> = None;
        let mut data: Option<usize> = None;
        // Of `- name: PASSWORD` the next line `value: …` is the secret.
        let mut announced = false;
        for line in text.split_inclusive('\n') {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            let indent = line.len() - line.trim_start().len();
            if let Some((outer, hidden)) = &mut below {
                if line.trim().is_empty() || indent > *outer {
                    hidden.push_str(line);
                    hidden.push('\n');
                    continue;
                }
                masked.push_str(&self.hidden(*outer, hidden));
                below = None;
            }
            if line.trim() == "---" || data.is_some_and(|outer| !line.trim().is_empty() && indent <= outer) {
                data = None;
            }
            if secrets && matches!(line.trim(), "data:" | "stringData:") {
                data = Some(indent);
            }
            let found = LINE.captures(line);
            let value_of_secret = found.as_ref().is_some_and(|f| announced && &f[2] == "value");
            announced = found
                .as_ref()
                .is_some_and(|f| matches!(&f[2], "name" | "key") && is_secret(f[4].trim().trim_matches(['"', '\''])));
            match found {
                Some(found) if is_secret(&found[2]) || value_of_secret || data.is_some_and(|outer| indent > outer) => {
                    masked.push_str(&format!("{}{}{}{}", &found[1], &found[2], &found[3], self.value(&found[4])));
                    let plain = !found[1].contains(['#', ';']);
                    below = plain.then(|| (indent, String::new()));
                }
                _ => masked.push_str(&self.line(line)),
            }
            masked.push_str(end);
        }
        if let Some((outer, hidden)) = below {
            masked.push_str(&self.hidden(outer, &hidden));
        }
        masked
    }

    /// The lines that belong to the value of a secret; empty lines alone stay.
    fn hidden(&self, outer: usize, text: &str) -> String {
        match text.trim() {
            "" => text.to_owned(),
            value => format!("{}{}\n", " ".repeat(outer + 2), self.secret(value)),
        }
    }

    /// What follows a name on its line, masked whole; quotes and a comma behind it stay.
    fn value(&self, written: &str) -> String {
        let (value, comma) = written.trim_end().strip_suffix(',').map_or((written.trim_end(), ""), |v| (v, ","));
        // Of YAML: the value stands below.
        if is_harmless(value) || matches!(value, "|" | "|-" | ">" | ">-" | "{" | "[" | "(") {
            return written.to_owned();
        }
        for quote in ["\"", "'"] {
            if let Some(inner) = value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote)) {
                return format!("{quote}{}{quote}{comma}", self.secret(inner));
            }
        }
        self.secret(value) + comma
    }

    /// A line whose own name says nothing of a secret.
    pub(super) fn line(&self, line: &str) -> String {
        if let Some(found) = DIRECTIVE.captures(line) {
            let name = &found[2];
            if name == "user" && found[4].contains(['>', '#', '<', '!']) {
                let masked =
                    REDIS.replace_all(line, |part: &Captures<'_>| format!("{}{}", &part[1], self.secret(&part[2])));
                return masked.into_owned();
            }
            let spoken = DIRECTIVES.contains(&name.to_ascii_lowercase().as_str())
                || name.contains(['_', '-']) && is_secret(name);
            // A comment is prose, unless it is a directive that was put out of use.
            let prose = found[1].contains('#') && found[4].contains(' ');
            if spoken && !prose && !found[4].starts_with(['=', ':']) {
                return format!("{}{}{}{}", &found[1], name, &found[3], self.value(&found[4]));
            }
        }
        let line = OPTION.replace_all(line, |found: &Captures<'_>| match is_secret(&found[2]) {
            true => format!("{}{}{}{}", &found[1], &found[2], &found[3], self.value(&found[4])),
            false => found[0].to_owned(),
        });
        let line = HEADER.replace_all(&line, |found: &Captures<'_>| format!("{}{}", &found[1], self.value(&found[2])));
        self.foreign(&self.named(&line))
    }

    /// Values of names within a text: connection strings, query strings, lists of variables.
    pub(super) fn named(&self, text: &str) -> String {
        let mut masked = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(found) = NAME.captures_at(text, at) {
            let (whole, name) = (found.get(0).expect("the match"), found.get(1).expect("the name"));
            masked.push_str(&text[at..whole.end()]);
            at = whole.end();
            if is_secret(name.as_str()) {
                let length = extent(&text[at..], text[..name.start()].chars().next_back());
                let value = &text[at..at + length];
                masked.push_str(&self.value(value));
                at += length;
            }
        }
        masked + &text[at..]
    }

    /// Roles and their settings, as `pg_dumpall` writes them.
    pub(super) fn sql(&self, text: &str) -> String {
        let text: String = text
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "))
            .collect();
        let text = SQL_SET.replace_all(&text, |found: &Captures<'_>| match is_secret(&found[2]) {
            true => format!("{}{}{}{}", &found[1], &found[2], &found[3], self.value(&found[4])),
            false => format!("{}{}{}{}", &found[1], &found[2], &found[3], self.named(&found[4])),
        });
        self.plain(&text)
    }
}

/// How long the value at the beginning of `text` is; `before` stands before its name.
fn extent(text: &str, before: Option<char>) -> usize {
    // Quotes around name and value together: `Environment="PASSWORD=a b"`.
    if let Some(quote @ ('"' | '\'')) = before.filter(|_| !text.starts_with(['"', '\''])) {
        return text.find(quote).unwrap_or(text.len());
    }
    for quote in ["''", "\\\"", "\"", "'"] {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.find(quote).map_or(text.len(), |end| end + 2 * quote.len());
        }
    }
    text.find(|c: char| c.is_whitespace() || [';', '&', ',', '}', ']', ')', '"', '\''].contains(&c))
        .unwrap_or(text.len())
}
