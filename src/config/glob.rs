//! Patterns over paths: `*` and `?` within a name, `**` for any number of directories.
//!
//! Matches come sorted, so that the order of files never depends on the file system. A name that
//! begins with a dot matches only a pattern that begins with one, as in a shell.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::{ErrorKind, Result, ResultExt as _};

/// Whether `text` is a pattern rather than an explicit path.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Every existing path that matches `pattern`, sorted; a path without `*` or `?` is returned when it exists.
///
/// A directory that cannot be read is an error: it may hide a match.
pub fn expand_glob(pattern: &Path) -> Result<Vec<PathBuf>> {
    let mut found = BTreeSet::from([PathBuf::new()]);
    let mut components = pattern.components().peekable();
    while let Some(component) = components.next() {
        let text = component.as_os_str().to_string_lossy();
        let mut next = BTreeSet::new();
        for base in &found {
            match component {
                Component::Normal(_) if text == "**" => descend(base, &mut next)?,
                Component::Normal(_) if is_pattern(&text) => {
                    let names = names(base).or_err(ErrorKind::Config, || unreadable(base))?;
                    next.extend(names.iter().filter(|n| matches(&text, &n.to_string_lossy())).map(|n| base.join(n)));
                }
                _ => {
                    next.insert(base.join(component));
                }
            }
        }
        let last = components.peek().is_none();
        // A missing part of a pattern is "no match"; a broken symlink is kept, so that reading it tells.
        next.retain(|p| if last { p.symlink_metadata().is_ok() } else { p.is_dir() });
        found = next;
    }
    Ok(found.into_iter().collect())
}

fn unreadable(directory: &Path) -> String {
    format!("cannot list the directory {}", shown(directory).display())
}

fn shown(directory: &Path) -> &Path {
    if directory.as_os_str().is_empty() { Path::new(".") } else { directory }
}

fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    std::fs::read_dir(shown(directory))?.map(|entry| Ok(entry?.file_name())).collect()
}

/// `base` and all directories below it, without following symbolic links (they may form a circle).
fn descend(base: &Path, into: &mut BTreeSet<PathBuf>) -> Result<()> {
    into.insert(base.to_owned());
    for name in names(base).or_err(ErrorKind::Config, || unreadable(base))? {
        let path = base.join(&name);
        if !name.to_string_lossy().starts_with('.') && path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            descend(&path, into)?;
        }
    }
    Ok(())
}

/// Whether the name of a file matches `pattern`.
fn matches(pattern: &str, name: &str) -> bool {
    (!name.starts_with('.') || pattern.starts_with('.')) && matches_any(pattern, name)
}

/// Whether `name` matches `pattern`, in time proportional to the product of their lengths; no character of it means
/// anything but itself.
pub(super) fn matches_any(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    // reached[i]: the pattern's first i characters match the name so far.
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    let skip_stars = |reached: &mut Vec<bool>| {
        for i in 0..pattern.len() {
            if reached[i] && pattern[i] == '*' {
                reached[i + 1] = true;
            }
        }
    };
    skip_stars(&mut reached);
    for c in name.chars() {
        let mut next = vec![false; pattern.len() + 1];
        for i in 0..pattern.len() {
            if reached[i] {
                match pattern[i] {
                    '*' => next[i] = true,
                    '?' => next[i + 1] = true,
                    p => next[i + 1] = p == c,
                }
            }
        }
        reached = next;
        skip_stars(&mut reached);
    }
    reached[pattern.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.toml", "production.toml", true),
            ("*.toml", "production.toml.bak", false),
            ("*.toml", ".hidden.toml", false),
            (".*.toml", ".hidden.toml", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("*", "", true),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn expands_sorted_through_directories() {
        let dir = tempfile::tempdir().expect("temp dir");
        for file in ["b.toml", "a.toml", "c.txt", "x/d.toml", "x/y/e.toml"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
            std::fs::write(path, "").expect("file");
        }
        let expand = |pattern: &str| -> Vec<String> {
            expand_glob(&dir.path().join(pattern))
                .expect("expands")
                .iter()
                .map(|p| p.strip_prefix(dir.path()).expect("inside").display().to_string())
                .collect()
        };
        assert_eq!(expand("*.toml"), ["a.toml", "b.toml"]);
        assert_eq!(expand("**/*.toml"), ["a.toml", "b.toml", "x/d.toml", "x/y/e.toml"]);
        assert_eq!(expand("x/*/e.toml"), ["x/y/e.toml"]);
        assert_eq!(expand("c.txt"), ["c.txt"]);
        assert!(expand("nowhere/*.toml").is_empty());
        assert!(expand("absent.toml").is_empty());
    }
}
