//! Files that an environment lists beyond PostgreSQL and Odoo (Traefik, Redis, Helm values):
//! explicit paths, `*` and `?` within path components, directories with all that is below.
//!
//! Promises: bounded (files, bytes), so a careless pattern cannot fill the memory; what is left out
//! is named. Kubernetes' `..data` indirections are not followed twice; links to directories inside
//! a directory are named, not followed, because they lead anywhere.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use walkdir::WalkDir;

use super::disk;
use super::export::{Collector, ConfigFile};
use crate::units::ByteSize;

const MAX_FILES: usize = 2_000;
const MAX_TOTAL: u64 = 64 << 20;

/// Collects everything that `patterns` name.
pub(crate) fn collect(patterns: &[String], into: &mut Collector) {
    let mut left = Budget { files: MAX_FILES, bytes: MAX_TOTAL };
    for pattern in patterns {
        let path = Path::new(pattern);
        if !path.is_absolute() {
            into.missing(format!("files/{}", super::export::component(pattern)), pattern, "not an absolute path");
            continue;
        }
        let paths = expand(path);
        if paths.is_empty() {
            into.missing(logical(path), pattern, "nothing there matches");
        }
        for path in paths {
            take(&path, &mut left, into);
        }
    }
}

/// What may still be taken.
struct Budget {
    files: usize,
    bytes: u64,
}

fn take(path: &Path, left: &mut Budget, into: &mut Collector) {
    if !path.is_dir() {
        return take_file(path, left, into);
    }
    // Kubernetes mounts keep the real files under "..<date>" and link to them: the links are enough.
    let inner = |e: &walkdir::DirEntry| e.depth() == 0 || !e.file_name().as_bytes().starts_with(b"..");
    for entry in WalkDir::new(path).sort_by_file_name().into_iter().filter_entry(inner) {
        match entry {
            Ok(entry) if entry.file_type().is_dir() || entry.depth() == 0 => {}
            Ok(entry) if entry.path_is_symlink() && entry.path().is_dir() => {
                let reason = "a link to a directory; list the directory itself if it belongs to the export";
                into.missing(logical(entry.path()), entry.path().to_string_lossy(), reason);
            }
            Ok(entry) if left.files == 0 => {
                let reason = format!("more than {MAX_FILES} files are listed; this one and the rest were left out");
                return into.missing(logical(entry.path()), entry.path().to_string_lossy(), reason);
            }
            Ok(entry) => take_file(entry.path(), left, into),
            Err(e) => {
                let at = e.path().unwrap_or(path);
                into.missing(logical(at), at.to_string_lossy(), e.to_string());
            }
        }
    }
}

fn take_file(path: &Path, left: &mut Budget, into: &mut Collector) {
    let (name, origin) = (logical(path), path.to_string_lossy().into_owned());
    if left.files == 0 {
        return into.missing(name, origin, format!("more than {MAX_FILES} files are listed"));
    }
    match disk::read(path) {
        Ok((content, _)) if content.len() as u64 > left.bytes => {
            let reason = format!("the listed files together exceed {}, the limit", ByteSize(MAX_TOTAL));
            into.missing(name, origin, reason);
        }
        Ok((content, mode)) => {
            left.files -= 1;
            left.bytes -= content.len() as u64;
            into.add(ConfigFile { name, origin, mode: Some(mode), content });
        }
        Err(reason) => into.missing(name, origin, reason),
    }
}

/// `/etc/traefik/traefik.yml` becomes `files/etc/traefik/traefik.yml`; bytes that are not UTF-8 and
/// components that mean something to a file system are spelt out.
pub(crate) fn logical(path: &Path) -> String {
    let mut name = String::from("files");
    for part in path.components() {
        match part {
            Component::Normal(part) => {
                name.push('/');
                match part.to_str() {
                    Some(text) => name.push_str(text),
                    None => part.as_bytes().iter().for_each(|b| match b {
                        b' '..=b'~' => name.push(char::from(*b)),
                        _ => name.push_str(&format!("%{b:02X}")),
                    }),
                }
            }
            Component::ParentDir => name.push_str("/%2E%2E"),
            _ => {}
        }
    }
    name
}

/// The existing paths that a pattern names, sorted; a path that exists as written is itself.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    if pattern.symlink_metadata().is_ok() {
        return vec![pattern.to_owned()];
    }
    let mut paths = vec![PathBuf::from("/")];
    for part in pattern.components() {
        let Component::Normal(part) = part else {
            if part == Component::ParentDir {
                paths.iter_mut().for_each(|p| p.push(".."));
            }
            continue;
        };
        let part = part.as_bytes();
        let wild = part.contains(&b'*') || part.contains(&b'?');
        paths = paths.into_iter().flat_map(|p| if wild { matching(&p, part) } else { vec![below(&p, part)] }).collect();
    }
    paths.retain(|p| p.symlink_metadata().is_ok());
    paths.sort();
    paths
}

fn below(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(std::ffi::OsStr::from_bytes(name))
}

fn matching(dir: &Path, pattern: &[u8]) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.flatten().map(|e| e.file_name());
    let shown = |name: &[u8]| pattern.starts_with(b".") || !name.starts_with(b".");
    let fits = names.filter(|n| shown(n.as_bytes()) && glob(pattern, n.as_bytes()));
    fits.map(|n| dir.join(n)).collect()
}

/// Whether `name` fits `pattern`, in linear space and at most quadratic time.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((after, at)) => {
                    star = Some((after, at + 1));
                    (p, n) = (after, at + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::Export;

    fn run(patterns: &[&str], dir: &Path) -> Export {
        let patterns: Vec<String> = patterns.iter().map(|p| format!("{}/{p}", dir.display())).collect();
        let mut into = Collector::default();
        collect(&patterns, &mut into);
        into.finish(chrono::DateTime::UNIX_EPOCH)
    }

    #[test]
    fn paths_globs_and_directories() {
        let dir = tempfile::tempdir().expect("temp dir");
        let write = |p: &str| {
            let path = dir.path().join(p);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("dirs");
            std::fs::write(path, p).expect("write");
        };
        ["traefik/a.yml", "traefik/b.yml", "traefik/acme.json", "traefik/.hidden.yml", "redis/redis.conf"]
            .iter()
            .for_each(|p| write(p));
        ["map/..2024/values", "redis/deep/er/x"].iter().for_each(|p| write(p));
        std::os::unix::fs::symlink("..2024/values", dir.path().join("map/values")).expect("link");
        std::os::unix::fs::symlink("/", dir.path().join("map/root")).expect("link");
        let export = run(&["traefik/*.yml", "redis", "map", "gone*"], dir.path());
        let prefix = logical(dir.path());
        let names: Vec<&str> = export.files.iter().map(|f| f.name.strip_prefix(&prefix).expect("below")).collect();
        let expected = ["/map/values", "/redis/deep/er/x", "/redis/redis.conf", "/traefik/a.yml", "/traefik/b.yml"];
        assert_eq!(names, expected);
        let gaps: Vec<&str> = export.unreadable.iter().map(|u| u.name.strip_prefix(&prefix).expect("below")).collect();
        assert_eq!(gaps, ["/gone*", "/map/root"]);
    }

    #[test]
    fn limits_are_kept_and_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        let big = std::fs::File::create(dir.path().join("big")).expect("create");
        big.set_len(disk::MAX_FILE + 1).expect("grow");
        for n in 0..MAX_FILES + 5 {
            std::fs::write(dir.path().join(format!("n{n:05}")), "").expect("write");
        }
        let export = run(&[""], dir.path());
        assert_eq!(export.files.len(), MAX_FILES);
        assert_eq!(export.unreadable.len(), 2);
        assert!(export.unreadable[0].reason.contains("larger than"), "{:?}", export.unreadable[0]);
        assert!(export.unreadable[1].reason.contains("more than 2000"), "{:?}", export.unreadable[1]);
    }

    #[test]
    fn globs_fit_as_a_shell_fits() {
        for (pattern, name, fits) in [
            ("*.yml", "a.yml", true),
            ("*.yml", "a.yaml", false),
            ("a*b*c", "aXbXbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("**", "x", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }
}
