//! Which other files a PostgreSQL configuration file pulls in: `include`, `include_if_exists` and
//! `include_dir` in `postgresql.conf` (and in `pg_hba.conf`/`pg_ident.conf` from 16), `@file` lists
//! in `pg_hba.conf`. Pure; `pg_file_settings` alone would miss files that set nothing.

use std::path::{Path, PathBuf};

/// The language of the file that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `postgresql.conf` and what it includes.
    Settings,
    /// `pg_hba.conf`, `pg_ident.conf` and what they include.
    Access,
}

/// One reference to other files, resolved against the directory of the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Include {
    /// Must exist.
    File(PathBuf),
    /// May be absent.
    Optional(PathBuf),
    /// Every `*.conf` in it.
    Directory(PathBuf),
}

/// The references in `content`, the text of the file at `path`.
pub(crate) fn includes(path: &Path, content: &[u8], dialect: Dialect) -> Vec<Include> {
    let base = path.parent().unwrap_or(Path::new("/"));
    let text = String::from_utf8_lossy(content);
    let mut found = Vec::new();
    for line in text.lines() {
        let tokens = tokens(line);
        let Some(first) = tokens.first() else { continue };
        let argument = tokens.iter().skip(1).find(|t| *t != "=").map(|t| base.join(t));
        match (first.to_ascii_lowercase().as_str(), argument) {
            ("include", Some(file)) => found.push(Include::File(file)),
            ("include_if_exists", Some(file)) => found.push(Include::Optional(file)),
            ("include_dir", Some(dir)) => found.push(Include::Directory(dir)),
            _ if dialect == Dialect::Access => {
                let lists = tokens.iter().flat_map(|t| t.split(','));
                let lists = lists.filter_map(|t| t.strip_prefix('@')).filter(|t| !t.is_empty());
                found.extend(lists.map(|t| Include::File(base.join(t))));
            }
            _ => {}
        }
    }
    found
}

/// Words of a line up to a comment; quotes (single in settings, double in access files) hold words
/// together and are taken off, doubled quotes and backslashes are read as PostgreSQL reads them.
fn tokens(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            Some(q) if c == q && chars.peek() == Some(&q) => {
                chars.next();
                word.get_or_insert_default().push(q);
            }
            Some(q) if c == q => quote = None,
            Some('\'') if c == '\\' => word.get_or_insert_default().extend(chars.next()),
            Some(_) => word.get_or_insert_default().push(c),
            None => match c {
                '#' => break,
                '\'' | '"' => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                '=' => {
                    words.extend(word.take());
                    words.push("=".into());
                }
                c if c.is_whitespace() => words.extend(word.take()),
                c => word.get_or_insert_default().push(c),
            },
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_files() {
        let text = "port = 5432\n# include 'no.conf'\n include = 'it''s.conf' # yes\nINCLUDE_IF_EXISTS '/abs/x'\n\
                    include_dir 'conf.d'\narchive_command = 'include me @no'\nshared_buffers=1GB\ninclude plain.conf\n";
        let found = includes(Path::new("/etc/pg/postgresql.conf"), text.as_bytes(), Dialect::Settings);
        let expected = [
            Include::File("/etc/pg/it's.conf".into()),
            Include::Optional("/abs/x".into()),
            Include::Directory("/etc/pg/conf.d".into()),
            Include::File("/etc/pg/plain.conf".into()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn access_files() {
        let text =
            "# host all @no all trust\nhost \"odd db\",@dbs all,@users 10.0.0.0/8 scram-sha-256\ninclude_dir hba.d\n";
        let found = includes(Path::new("/d/pg_hba.conf"), text.as_bytes(), Dialect::Access);
        let expected =
            [Include::File("/d/dbs".into()), Include::File("/d/users".into()), Include::Directory("/d/hba.d".into())];
        assert_eq!(found, expected);
    }
}
