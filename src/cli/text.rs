//! How commands say times and ages, draw tables and raise an alarm: one way for all of them.

use std::fmt::Write as _;
use std::io::IsTerminal;

use chrono::{DateTime, Utc};

use crate::units::Span;

/// A time to the second, in UTC.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// How long ago something was: `2 min ago`.
pub(crate) fn age(now: DateTime<Utc>, at: DateTime<Utc>) -> String {
    let seconds = (now - at).num_seconds();
    let span = Span(std::time::Duration::from_secs(seconds.unsigned_abs()));
    match seconds {
        0 => "just now".to_owned(),
        1.. => format!("{span} ago"),
        _ => format!("{span} ahead"),
    }
}

/// A time with its age: `2026-11-22 20:35:05 UTC (2 min ago)`.
pub(crate) fn time_and_age(now: DateTime<Utc>, at: DateTime<Utc>) -> String {
    format!("{} ({})", time(at), age(now, at))
}

/// `1 file`, `2 files`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Marks words that nobody may overlook: red on a terminal.
pub(crate) fn alarm(words: &str) -> String {
    paint(words, "1;31")
}

/// Marks words that somebody should look at.
pub(crate) fn caution(words: &str) -> String {
    paint(words, "33")
}

/// Marks good news.
pub(crate) fn good(words: &str) -> String {
    paint(words, "32")
}

fn paint(words: &str, colour: &str) -> String {
    // https://no-color.org
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) || !std::io::stdout().is_terminal();
    if plain { words.to_owned() } else { format!("\x1b[{colour}m{words}\x1b[0m") }
}

/// A table with aligned columns. The last column may hold anything; columns whose header begins with
/// `>` are aligned to the right.
#[derive(Debug)]
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(headers: &[&'static str]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headers.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// The table, each line behind `indent` and ended.
    pub(crate) fn text(&self, indent: &str) -> String {
        let names: Vec<&str> = self.headers.iter().map(|h| h.trim_start_matches('>')).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| visible(&row[column]));
            cells.chain([visible(names[column])]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..names.len()).map(width).collect();
        let mut text = String::new();
        let mut line = |cells: &[&str]| {
            let mut line = indent.to_owned();
            for (column, cell) in cells.iter().enumerate() {
                let padding = " ".repeat(widths[column] - visible(cell));
                let gap = if column == 0 { "" } else { "  " };
                match self.headers[column].starts_with('>') {
                    true => write!(line, "{gap}{padding}{cell}"),
                    false => write!(line, "{gap}{cell}{padding}"),
                }
                .expect("writing to a string");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        };
        line(&names);
        for row in &self.rows {
            line(&row.iter().map(String::as_str).collect::<Vec<_>>());
        }
        text
    }
}

/// Characters that take space: those of colours do not.
fn visible(text: &str) -> usize {
    let mut count = 0;
    let mut escaped = false;
    for c in text.chars() {
        match (escaped, c) {
            (false, '\x1b') => escaped = true,
            (true, 'm') => escaped = false,
            (false, _) => count += 1,
            (true, _) => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_seconds_a_zone_and_an_age() {
        let at = DateTime::from_timestamp(1_795_379_705, 900_000_000).expect("valid");
        assert_eq!(time(at), "2026-11-22 20:35:05 UTC");
        let later = |seconds| at + chrono::Duration::seconds(seconds);
        assert_eq!(time_and_age(later(125), at), "2026-11-22 20:35:05 UTC (2 min 5 s ago)");
        assert_eq!(age(at, at), "just now");
        assert_eq!(age(later(-5), at), "5 s ahead");
    }

    #[test]
    fn columns_are_aligned_whatever_colours_they_have() {
        let mut table = Table::new(&["name", ">size", "state"]);
        table.row(vec!["a".into(), "1 KiB".into(), "ok".into()]);
        table.row(vec!["\x1b[31mlonger\x1b[0m".into(), "10".into(), String::new()]);
        assert_eq!(table.text("  "), "  name     size  state\n  a       1 KiB  ok\n  \x1b[31mlonger\x1b[0m     10\n");
    }
}
