//! What Odoo's log amounts to. Odoo starts with exit code 0 and answers requests although modules are missing:
//! only its log tells.

use crate::evidence::odoo_record::LogCount;

/// Lines of each kind that are kept.
const KEPT: usize = 10;
/// Longest line that is kept.
const LINE: usize = 400;

/// A log as far as it has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// `Odoo version 19.0`
    pub(super) version: Option<String>,
    /// The largest number of modules that it says it loaded.
    pub(super) modules_loaded: Option<u64>,
    /// The registry of a database is there.
    pub(super) is_loaded: bool,
    /// Why it will never be.
    pub(super) gave_up: Option<String>,
    pub(super) count: LogCount,
    /// Modules that are missing, errors, tracebacks.
    pub(super) problems: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Reads a log.
pub(super) fn read(text: &str) -> Told {
    let mut told = Told::default();
    let mut last = "";
    for line in text.lines() {
        told.count.lines += 1;
        let Some((level, message)) = parse(line) else {
            if line.starts_with("Traceback (most recent call last)") {
                told.count.tracebacks += 1;
                // That of an error is the error; any other is a problem of its own.
                if !matches!(parse(last), Some(("ERROR" | "CRITICAL", _))) {
                    keep(&mut told.problems, &format!("{last} … {line}"));
                }
            }
            continue;
        };
        last = line;
        match level {
            "ERROR" | "CRITICAL" => {
                told.count.errors += 1;
                keep(&mut told.problems, line);
                if ["Failed to initialize database", "Failed to load registry", "not initialized, you can force it"]
                    .iter()
                    .any(|words| message.contains(words))
                {
                    told.gave_up.get_or_insert_with(|| shortened(message));
                }
            }
            "WARNING" if message.contains("not installable, skipped") => {
                told.count.warnings += 1;
                keep(&mut told.problems, line);
            }
            "WARNING" => {
                told.count.warnings += 1;
                keep(&mut told.warnings, line);
            }
            _ => info(message, &mut told),
        }
    }
    told
}

fn info(message: &str, told: &mut Told) {
    if let Some((_, version)) = message.split_once("Odoo version ") {
        told.version.get_or_insert_with(|| version.trim().to_owned());
    }
    if let Some((before, _)) = message.split_once(" modules loaded in ") {
        let number: Option<u64> = before.split_ascii_whitespace().next_back().and_then(|n| n.parse().ok());
        told.modules_loaded = told.modules_loaded.max(number);
    }
    // Odoo 14 says no more than this; whoever asks it a moment too early waits for its registry.
    let is_14 = told.version.as_deref().is_some_and(|version| version.starts_with("14."));
    told.is_loaded |=
        message.contains("Registry loaded in ") || is_14 && message.trim_end().ends_with(": Modules loaded.");
}

/// Level and the rest of `2026-11-23 03:19:18,149 16931 INFO retail odoo.registry: Registry loaded in 5.068s`.
fn parse(line: &str) -> Option<(&str, &str)> {
    let mut words = line.splitn(5, ' ');
    let (date, time, pid) = (words.next()?, words.next()?, words.next()?);
    let (level, rest) = (words.next()?, words.next()?);
    let is_date = date.len() == 10 && date.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let is_time = time.contains(',') && time.starts_with(|c: char| c.is_ascii_digit());
    let is_level = ["DEBUG", "INFO", "RUNBOT", "WARNING", "ERROR", "CRITICAL"].contains(&level);
    (is_date && is_time && is_level && pid.bytes().all(|b| b.is_ascii_digit())).then_some((level, rest))
}

fn keep(list: &mut Vec<String>, line: &str) {
    if list.len() < KEPT {
        list.push(shortened(line));
    }
}

fn shortened(line: &str) -> String {
    line.trim().chars().take(LINE).collect()
}

/// The end of a log, for whoever must find out why.
pub(super) fn last_lines(text: &str, count: usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| shortened(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "\
2026-11-23 03:19:18,149 16931 INFO ? odoo: Odoo version 19.0 
2026-11-23 03:19:19,200 16931 INFO neu odoo.modules.loading: 1 modules loaded in 0.01s, 0 queries (+0 extra) 
2026-11-23 03:19:23,428 16931 INFO neu odoo.modules.loading: 75 modules loaded in 4.16s, 0 queries (+0 extra) 
2026-11-23 03:19:23,903 16931 INFO neu odoo.modules.loading: Modules loaded. 
2026-11-23 03:19:24,157 16931 INFO neu odoo.registry: Registry loaded in 5.068s 
";

    #[test]
    fn a_clean_start() {
        let told = read(CLEAN);
        assert_eq!((told.version.as_deref(), told.modules_loaded, told.is_loaded), (Some("19.0"), Some(75), true));
        assert_eq!((told.count.lines, told.count.errors, told.problems.len()), (5, 0, 0));
        assert!(!read("Running as user 'root' is a security risk.\n").is_loaded);
    }

    /// Of Debian's 14.0: numbers of modules at a level of its own, and no word about the registry.
    const CLEAN_14: &str = "\
2026-11-29 20:51:55,980 72 INFO ? odoo: Odoo version 14.0 
2026-11-29 20:51:56,609 72 INFO retail odoo.modules.loading: 1 modules loaded in 0.01s, 0 queries (+0 extra) 
2026-11-29 20:51:57,793 72 RUNBOT retail odoo.modules.loading: 68 modules loaded in 1.16s, 0 queries (+0 extra) 
2026-11-29 20:51:58,247 72 INFO retail odoo.modules.loading: Modules loaded. 
";

    #[test]
    fn odoo_14_is_loaded_when_its_modules_are() {
        let told = read(CLEAN_14);
        assert_eq!((told.modules_loaded, told.is_loaded), (Some(68), true));
        assert!(!read(&CLEAN.replace("Registry loaded in", "?")).is_loaded, "later ones say when");
    }

    #[test]
    fn each_of_these_is_a_problem() {
        for line in [
            "2026-11-23 03:19:24,157 1 WARNING neu odoo.modules.module_graph: module x_shop: not installable, skipped",
            "2026-11-23 03:19:24,157 1 WARNING neu odoo.modules.graph: module x_shop: not installable, skipped",
            "2026-11-23 03:19:24,157 1 ERROR neu odoo.modules.loading: Some modules are not loaded, some dependencies or manifest may be missing: ['x_shop']",
            "2026-11-23 03:19:24,157 1 ERROR neu odoo.modules.loading: Some modules have inconsistent states, some dependencies may be missing: ['crm']",
            "2026-11-23 03:19:24,157 1 ERROR neu odoo.registry: Model x has no table.",
            "2026-11-23 03:19:24,157 1 CRITICAL neu odoo.modules.module: Couldn't load module x_shop",
            "Traceback (most recent call last):",
        ] {
            let told = read(&format!("{CLEAN}{line}\n"));
            assert_eq!(told.problems.len(), 1, "{line}");
            assert!(told.is_loaded, "Odoo goes on all the same");
        }
        let once =
            "2026-11-23 03:19:24,157 1 ERROR neu odoo.http: Exception\nTraceback (most recent call last):\n  File\n";
        let told = read(once);
        assert_eq!((told.problems.len(), told.count.errors, told.count.tracebacks), (1, 1, 1));
        let told = read("2026-11-23 03:19:24,157 1 WARNING neu py.warnings: old\n");
        assert_eq!((told.problems.len(), told.warnings.len()), (0, 1));
    }

    #[test]
    fn a_registry_that_never_comes_is_given_up() {
        let told = read(
            "2026-11-23 03:19:24,157 1 CRITICAL neu odoo.service.server: Failed to initialize database `neu`.\nTraceback (most recent call last):\n",
        );
        assert!(told.gave_up.is_some_and(|why| why.contains("`neu`")));
    }
}
