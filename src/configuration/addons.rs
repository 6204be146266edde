//! Which code runs: for every add-ons directory its git revision or, where git cannot tell, a digest
//! over the source files; and every module with the version in its manifest.
//!
//! A repository's own configuration can make `git` run programs, so git runs as the repository's
//! owner, or not at all; with hooks and file-system monitors off, without locks, and writing nothing.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::process::Command;
use walkdir::WalkDir;

use super::export::Collector;

const NAME: &str = "addons/revisions.json";
const MAX_SOURCES: usize = 50_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps `addons/revisions.json` for these directories.
pub(crate) async fn collect(paths: &BTreeSet<PathBuf>, into: &mut Collector) {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_absolute() {
            into.missing(NAME, path.to_string_lossy(), "not an absolute path; what it is relative to is not known");
        } else if let Err(error) = std::fs::read_dir(path) {
            into.missing(NAME, path.to_string_lossy(), error.to_string());
        } else {
            all.push(revision(path).await);
        }
    }
    into.json(NAME, "git, or digests of the source files", &json!({ "addons": all }));
}

async fn revision(path: &Path) -> Value {
    let git = git_facts(path).await;
    // A clean revision says everything; otherwise the files themselves have to.
    let clean = git.as_ref().is_some_and(|g| g["dirty"] == Value::Bool(false));
    let owned = path.to_owned();
    let read = move || (modules(&owned), if clean { Value::Null } else { tree(&owned) });
    // A panic while reading is a bug; it is shown as the absence of both, never hidden as "no modules".
    let (modules, tree) = tokio::task::spawn_blocking(read).await.unwrap_or((Value::Null, Value::Null));
    json!({ "path": path.to_string_lossy(), "git": git, "tree": tree, "modules": modules })
}

/// Remote, commit, branch and whether the work tree differs; nothing where git cannot safely tell.
async fn git_facts(path: &Path) -> Option<Value> {
    let repository = path.canonicalize().ok()?.ancestors().map(|p| p.join(".git")).find(|p| p.exists())?;
    let owner = repository.metadata().ok()?;
    let own = nix::unistd::geteuid();
    if !own.is_root() && own.as_raw() != owner.uid() {
        return None;
    }
    let git = async |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]);
        command.args(["-c", "safe.bareRepository=explicit", "-C"]).arg(path).args(arguments);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").env("HOME", "/nonexistent");
        command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_TERMINAL_PROMPT", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        if own.is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        output.status.success().then_some(text)
    };
    let commit = git(&["rev-parse", "HEAD"]).await?;
    let branch = git(&["symbolic-ref", "--short", "HEAD"]).await;
    let remote = git(&["config", "--get", "remote.origin.url"]).await.map(|url| without_password(&url));
    let changed = git(&["status", "--porcelain", "--", "."]).await.map(|lines| !lines.is_empty());
    Some(json!({ "remote": remote, "commit": commit, "branch": branch, "dirty": changed }))
}

/// Clone URLs may carry access tokens; they do not belong into a file that people compare.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{}", &rest[authority.len()..]),
        None => url.to_owned(),
    }
}

/// SHA-256 over path and content digest of each source file, sorted by path.
fn tree(root: &Path) -> Value {
    let mut paths = Vec::new();
    let (mut truncated, mut unreadable) = (false, 0_u64);
    // Links are followed: doodba's add-ons directories hold nothing else. walkdir breaks loops.
    let walk = WalkDir::new(root).follow_links(true).sort_by_file_name().into_iter();
    for entry in walk.filter_entry(|e| e.file_name() != ".git") {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_source(entry.path()) => {
                truncated = paths.len() == MAX_SOURCES;
                if truncated {
                    break;
                }
                paths.push(entry.into_path());
            }
            Ok(_) => {}
            Err(_) => unreadable += 1,
        }
    }
    paths.sort();
    let mut hash = Sha256::new();
    let mut files = 0_u64;
    for path in paths {
        match digest(&path) {
            Ok(content) => {
                hash.update(path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes());
                hash.update([0]);
                hash.update(content);
                files += 1;
            }
            Err(_) => unreadable += 1,
        }
    }
    let sha256 = hex::encode(hash.finalize());
    json!({ "sha256": sha256, "files": files, "unreadable": unreadable, "truncated": truncated })
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["py", "xml", "csv", "sql"].iter().any(|known| e == *known))
}

fn digest(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Name and version of each module directly below `root`.
fn modules(root: &Path) -> Value {
    let Ok(entries) = std::fs::read_dir(root) else { return Value::Null };
    let mut found = serde_json::Map::new();
    for entry in entries.flatten() {
        let manifest =
            ["__manifest__.py", "__openerp__.py"].iter().find_map(|m| super::disk::read(&entry.path().join(m)).ok());
        if let Some((content, _)) = manifest {
            let version = version(&String::from_utf8_lossy(&content)).map_or(Value::Null, Value::String);
            found.insert(entry.file_name().to_string_lossy().into_owned(), version);
        }
    }
    Value::Object(found)
}

/// The string after `'version':`, read without running the manifest.
fn version(manifest: &str) -> Option<String> {
    manifest.lines().filter(|l| !l.trim_start().starts_with('#')).find_map(|line| {
        let at = ["'version'", "\"version\""].iter().find_map(|key| Some(line.find(key)? + key.len()))?;
        let value = line[at..].trim_start().strip_prefix(':')?.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        value[1..].split_once(quote).map(|(version, _)| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(root: &Path, name: &str, version: &str) {
        std::fs::create_dir_all(root.join(name)).expect("dir");
        let text = format!("# 'version': 'no'\n{{\n 'name': \"x\",\n \"version\" : '{version}',\n}}\n");
        std::fs::write(root.join(name).join("__manifest__.py"), text).expect("write");
    }

    async fn collected(paths: &[&Path]) -> (Value, usize) {
        let mut into = Collector::default();
        collect(&paths.iter().map(|p| p.to_path_buf()).collect(), &mut into).await;
        let export = into.finish(chrono::DateTime::UNIX_EPOCH);
        (serde_json::from_slice(&export.files[0].content).expect("JSON"), export.unreadable.len())
    }

    #[tokio::test]
    async fn a_directory_without_git_is_known_by_its_sources() {
        let dir = tempfile::tempdir().expect("temp dir");
        module(dir.path(), "sale_shop", "19.0.1.2.3");
        std::fs::write(dir.path().join("sale_shop/x.pyc"), "1").expect("write");
        let (before, gaps) = collected(&[dir.path(), Path::new("relative"), Path::new("/does/not/exist")]).await;
        assert_eq!(gaps, 2);
        assert_eq!(before["addons"][0]["modules"]["sale_shop"], "19.0.1.2.3");
        assert_eq!(before["addons"][0]["tree"]["files"], 1);
        std::fs::write(dir.path().join("sale_shop/x.pyc"), "2").expect("write");
        assert_eq!(collected(&[dir.path()]).await.0, before);
        std::fs::write(dir.path().join("sale_shop/x.py"), "2").expect("write");
        assert_ne!(collected(&[dir.path()]).await.0, before);
    }

    #[tokio::test]
    async fn git_tells_commit_branch_remote_and_dirt() {
        let dir = tempfile::tempdir().expect("temp dir");
        let addons = dir.path().join("addons");
        module(&addons, "pos_shop", "1.0");
        let git = |args: &[&str]| {
            let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
            let status = std::process::Command::new("git")
                .args(identity)
                .arg("-C")
                .arg(dir.path())
                .args(args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            status.expect("git runs").success()
        };
        assert!(git(&["init", "-b", "19.0"]));
        assert!(git(&["remote", "add", "origin", "https://user:token@example.org/shop.git"]));
        assert!(git(&["add", "."]) && git(&["commit", "-m", "one"]));
        let (clean, _) = collected(&[&addons]).await;
        let found = &clean["addons"][0];
        assert_eq!(found["git"]["branch"], "19.0");
        assert_eq!(found["git"]["remote"], "https://***@example.org/shop.git");
        assert_eq!(found["git"]["commit"].as_str().map(str::len), Some(40));
        assert_eq!(found["git"]["dirty"], false);
        assert_eq!(found["tree"], Value::Null);
        // A monitor program configured in the repository must not run.
        let ran = dir.path().join("ran");
        assert!(git(&["config", "core.fsmonitor", &format!("touch {}", ran.display())]));
        std::fs::write(addons.join("pos_shop/new.py"), "x").expect("write");
        let (dirty, _) = collected(&[&addons]).await;
        assert_eq!(dirty["addons"][0]["git"]["dirty"], true);
        assert_eq!(dirty["addons"][0]["tree"]["files"], 2);
        assert!(!ran.exists());
    }

    #[test]
    fn versions_and_urls() {
        assert_eq!(version("{'name': 'a', 'version': '1.0', 'x': 1}").as_deref(), Some("1.0"));
        assert_eq!(version("{'version': get()}"), None);
        assert_eq!(without_password("git@github.com:a/b.git"), "git@github.com:a/b.git");
        assert_eq!(without_password("https://github.com/a/b@2"), "https://github.com/a/b@2");
    }
}
