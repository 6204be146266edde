//! What is on disk in one database's filestore.
//!
//! Promises: every file that Odoo could have written is listed, sorted, without a `stat` per file;
//! a directory that cannot be read is an error, because a scan that skips it would look complete;
//! what Odoo does not write is reported, not captured. At most one 256th of the names is in memory
//! with [`scan_each`]. `checklist/` holds Odoo's marks for its garbage collection: counted only.
//!
//! A scan is no point in time: files appear and (once a day) disappear during it. It guarantees all
//! files that a database state needs which was fixed *before* the scan began.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::io::ErrorKind as Io;
use std::path::Path;

use super::name::FileName;
use super::stamps::Stamp;
use crate::error::{self, ErrorKind, Result, ResultExt};

/// More odd entries than this are counted only.
const MAX_ODD: usize = 100;

/// More candidates for garbage collection than this are counted only.
const MAX_CANDIDATES: usize = 200_000;

/// All that a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Every file by its name, sorted.
    pub names: Vec<FileName>,
    /// The rest.
    pub summary: Summary,
}

/// What a scan found besides the names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Number of names.
    pub files: u64,
    /// Paths below the directory that Odoo did not write: the first hundred.
    pub odd: Vec<String>,
    /// How many there are in all.
    pub odd_total: u64,
    /// Marks for Odoo's garbage collection.
    pub checklist_markers: u64,
    /// The files that they name: the first `MAX_CANDIDATES`.
    pub candidates: Vec<FileName>,
    /// Directories as they were found, those left out that were listed and hold something odd.
    pub stamps: Vec<Stamp>,
    /// Parts that were not listed, because nothing in them has changed.
    pub unchanged: u64,
}

/// What a scan comes upon, in the order of names.
#[derive(Debug)]
pub enum Part<'a> {
    /// All names that begin with one byte.
    Names(&'a [FileName]),
    /// The names that begin with this byte are those of the last listing.
    Unchanged(u8),
}

impl Summary {
    /// What is not Odoo's in `directory`, for people; `None` where there is nothing.
    pub(super) fn odd_text(&self, directory: &Path) -> Option<String> {
        let first: Vec<&str> = self.odd.iter().take(5).map(String::as_str).collect();
        (self.odd_total > 0).then(|| {
            format!(
                "{} entries of {} are not Odoo's and are not captured: {}{}",
                self.odd_total,
                directory.display(),
                first.join(", "),
                if self.odd_total > 5 { ", …" } else { "" }
            )
        })
    }

    fn odd(&mut self, path: String) {
        self.odd_total += 1;
        if self.odd.len() < MAX_ODD {
            self.odd.push(path);
        }
    }
}

/// Lists `directory`, which is `data_dir/filestore/<database>`.
pub fn scan(directory: &Path) -> Result<Scan> {
    let mut names = Vec::new();
    let summary = scan_each(directory, &[], &mut |part| {
        if let Part::Names(part) = part {
            names.extend_from_slice(part);
        }
        Ok(())
    })?;
    Ok(Scan { names, summary })
}

/// The same in parts, in order: the names of one first byte of the digest at a time. Where all directories
/// of a part look as `known` says, it is not listed. [`Summary::files`] counts what was listed.
pub fn scan_each(directory: &Path, known: &[Stamp], each: &mut dyn FnMut(Part<'_>) -> Result<()>) -> Result<Summary> {
    let mut summary = Summary::default();
    // Directories by first byte: "ab" and "ab0" to "abf" together, so that the parts are in order.
    let mut parts: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for entry in entries(directory, true)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "checklist" {
            read_markers(&entry.path(), &mut summary)?;
            continue;
        }
        match first_byte(&name) {
            Some(byte) if is_directory(&entry)? => parts.entry(byte).or_default().push(name),
            _ => summary.odd(name),
        }
    }
    let mut stamped: BTreeMap<u8, Vec<&Stamp>> = BTreeMap::new();
    for stamp in known {
        first_byte(&stamp.0).into_iter().for_each(|byte| stamped.entry(byte).or_default().push(stamp));
    }
    for (byte, mut directories) in parts {
        directories.sort_unstable();
        let found: Vec<Option<Stamp>> =
            directories.iter().map(|name| Stamp::of(name, &directory.join(name)).ok()).collect();
        let before = stamped.remove(&byte).unwrap_or_default();
        if found.iter().map(Option::as_ref).eq(before.into_iter().map(Some)) {
            summary.unchanged += 1;
            summary.stamps.extend(found.into_iter().flatten());
            each(Part::Unchanged(byte))?;
            continue;
        }
        let (mut names, odd_before) = (Vec::new(), summary.odd_total);
        for name in directories {
            scan_directory(&directory.join(&name), &name, &mut names, &mut summary)?;
        }
        // What is odd is told by every scan.
        if summary.odd_total == odd_before {
            summary.stamps.extend(found.into_iter().flatten());
        }
        names.sort_unstable();
        summary.files += names.len() as u64;
        each(Part::Names(&names))?;
    }
    summary.odd.sort_unstable();
    Ok(summary)
}

/// The first byte of the digests in a directory of this name; `None` where Odoo does not name one so.
pub(super) fn first_byte(name: &str) -> Option<u8> {
    let digits = matches!(name.len(), 2 | 3) && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    name.get(..2).filter(|_| digits).and_then(|byte| u8::from_str_radix(byte, 16).ok())
}

fn scan_directory(path: &Path, name: &str, names: &mut Vec<FileName>, summary: &mut Summary) -> Result<()> {
    for entry in entries(path, false)? {
        let entry = entry?;
        let file_name = entry.file_name();
        // The kind comes with the listing; links are judged by content when they are read.
        let is_file = entry.file_type().is_ok_and(|t| t.is_file() || t.is_symlink());
        match file_name.to_str().and_then(|file| FileName::in_directory(name, file)) {
            Some(found) if is_file => names.push(found),
            _ => summary.odd(format!("{name}/{}", file_name.to_string_lossy())),
        }
    }
    Ok(())
}

fn is_directory(entry: &DirEntry) -> Result<bool> {
    let kind = entry.file_type().or_err(ErrorKind::Source, || format!("cannot look at {}", entry.path().display()))?;
    Ok(kind.is_dir() || kind.is_symlink() && entry.path().is_dir())
}

fn read_markers(checklist: &Path, summary: &mut Summary) -> Result<()> {
    for entry in entries(checklist, false)? {
        let entry = entry?;
        if !is_directory(&entry)? {
            continue;
        }
        let directory = entry.file_name().to_string_lossy().into_owned();
        for marker in entries(&entry.path(), false)? {
            summary.checklist_markers += 1;
            let name = marker?.file_name().to_str().and_then(|file| FileName::in_directory(&directory, file));
            summary.candidates.extend(name.filter(|_| summary.candidates.len() < MAX_CANDIDATES));
        }
    }
    summary.candidates.sort_unstable();
    Ok(())
}

/// The entries of a directory; a vanished one has none, unless it `must_exist`.
fn entries(path: &Path, must_exist: bool) -> Result<Box<dyn Iterator<Item = Result<DirEntry>>>> {
    let unreadable = |error: std::io::Error, path: &Path| {
        error::source(format!("cannot list {}", path.display()))
            .meaning("the filestore cannot be captured completely, so nothing was captured")
            .hint("give the account that runs Lifeboat read access to the filestore")
            .source(error)
    };
    match std::fs::read_dir(path) {
        Ok(found) => {
            let path = path.to_owned();
            Ok(Box::new(found.map(move |entry| entry.map_err(|e| unreadable(e, &path)))))
        }
        Err(e) if matches!(e.kind(), Io::NotFound | Io::NotADirectory) && must_exist => {
            Err(error::source(format!("there is no filestore directory {}", path.display()))
                .meaning("no attachment of this database can be captured")
                .hint("check data_dir in the environment: the directory is data_dir/filestore/<database>")
                .hint("a database that never stored a file has none yet")
                .source(e))
        }
        Err(e) if e.kind() == Io::NotFound => Ok(Box::new(std::iter::empty())),
        Err(e) => Err(unreadable(e, path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, path: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("dirs");
        std::fs::write(path, "").expect("write");
    }

    #[test]
    fn lists_both_layouts_in_order_and_reports_the_rest() {
        let dir = tempfile::tempdir().expect("temp dir");
        let digits = |start: &str| format!("{start}{}", &"0123456789abcdef0123456789abcdef01234567"[start.len()..]);
        let mut expected: Vec<String> = ["ff/ffa", "ab/ab1", "ab1/ab1", "ab0/ab0", "00/00f", "ab/ab9"]
            .iter()
            .map(|p| p.split_once('/').map(|(d, s)| format!("{d}/{}", digits(s))).expect("slash"))
            .collect();
        expected.iter().for_each(|p| touch(dir.path(), p));
        for odd in ["readme.txt", "AB/x", "abcd/x", "ab/short", "zz/x"] {
            touch(dir.path(), odd);
        }
        touch(dir.path(), &format!("ab/{}", digits("cd")));
        std::fs::create_dir_all(dir.path().join("ab").join(digits("abd"))).expect("a directory with a file's name");
        touch(dir.path(), &format!("checklist/ab/{}", digits("ab1")));
        touch(dir.path(), &format!("checklist/ff/{}", digits("ffa")));

        let found = scan(dir.path()).expect("scans");
        expected.sort_by_key(|p| (p.split_once('/').expect("slash").1.to_owned(), p.clone()));
        assert_eq!(found.names.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        assert_eq!(found.summary.files, 6);
        assert_eq!(found.summary.checklist_markers, 2);
        let mut odd = ["AB", "abcd", "readme.txt", "zz", "ab/short"].map(str::to_owned).to_vec();
        odd.extend([format!("ab/{}", digits("abd")), format!("ab/{}", digits("cd"))]);
        odd.sort();
        assert_eq!(found.summary.odd, odd);
    }

    #[test]
    fn what_looks_as_it_did_is_not_listed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = |start: &str, n: u32| format!("{start}/{start}{n:0width$}", width = 40 - start.len());
        for (start, n) in [("ab", 1), ("ab1", 1), ("cd", 1), ("ef", 1)] {
            touch(dir.path(), &file(start, n));
        }
        touch(dir.path(), "ef/odd");
        let told = |known: &[Stamp]| {
            let mut told = Vec::new();
            let summary = scan_each(dir.path(), known, &mut |part| {
                told.push(match part {
                    Part::Names(names) => format!("{:02x} listed, {}", names[0].first_byte(), names.len()),
                    Part::Unchanged(byte) => format!("{byte:02x} unchanged"),
                });
                Ok(())
            });
            (told, summary.expect("scans"))
        };
        let (first, summary) = told(&[]);
        assert_eq!(first, ["ab listed, 2", "cd listed, 1", "ef listed, 1"]);
        assert_eq!(summary.stamps.len(), 3, "what holds something odd is listed each time");
        let (again, same) = told(&summary.stamps);
        assert_eq!(again, ["ab unchanged", "cd unchanged", "ef listed, 1"]);
        assert_eq!((same.files, same.unchanged, same.stamps.len()), (1, 2, 3));
        std::fs::remove_dir_all(dir.path().join("ab1")).expect("removed");
        assert_eq!(told(&summary.stamps).0[0], "ab listed, 1", "a directory of the part is gone");
    }

    #[test]
    fn odd_entries_are_capped_but_counted() {
        let dir = tempfile::tempdir().expect("temp dir");
        (0..MAX_ODD + 7).for_each(|n| touch(dir.path(), &format!("odd{n}")));
        let summary = scan(dir.path()).expect("scans").summary;
        assert_eq!((summary.odd.len(), summary.odd_total), (MAX_ODD, MAX_ODD as u64 + 7));
    }

    #[test]
    fn a_missing_directory_is_a_clear_error() {
        let dir = tempfile::tempdir().expect("temp dir");
        let error = scan(&dir.path().join("filestore/typo")).expect_err("absent");
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.hints()[0].contains("data_dir"), "{error}");
        touch(dir.path(), "file");
        assert_eq!(scan(&dir.path().join("file")).expect_err("a file").kind(), ErrorKind::Source);
    }

    #[test]
    fn an_error_of_the_receiver_stops_the_scan() {
        let dir = tempfile::tempdir().expect("temp dir");
        touch(dir.path(), "ab/ab39a3ee5e6b4b0d3255bfef95601890afd80709");
        let stopped = scan_each(dir.path(), &[], &mut |_| Err(error::interrupted("enough")));
        assert_eq!(stopped.expect_err("stops").kind(), ErrorKind::Interrupted);
    }
}
