//! Where PostgreSQL's own programs are: Lifeboat starts servers and `pg_dumpall` from there.
//!
//! A server is started by programs of exactly its major version; a client program may be newer. Paths
//! that carry the version in their name are believed, all others are asked.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::PostgresConfig;
use crate::error::{self, Result};

/// Places that do not name a version.
const UNNAMED: [&str; 3] = ["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"];

/// The server program.
pub const SERVER: &str = "postgres";

/// Directory of the server programs of PostgreSQL `major`: the configured one, or one of the usual places.
pub fn bin_dir(config: &PostgresConfig, major: u32) -> Result<PathBuf> {
    program_dir(config, major, SERVER, None)
}

/// The same without a configuration.
pub fn usual(major: u32) -> Result<PathBuf> {
    search(major, SERVER, None)
}

/// The newest PostgreSQL server on this host, where packages put it: major version and directory.
pub fn newest() -> Option<(u32, PathBuf)> {
    (13..=18).rev().find_map(|major| {
        let mut dirs = packaged(major).into_iter();
        dirs.find(|dir| dir.join(SERVER).is_file()).map(|dir| (major, dir))
    })
}

/// The directory that holds `program` for a cluster of this major version: the configured one, or the
/// first of the usual places and of `path` (the value of `PATH`) that has a fitting one.
pub fn program_dir(config: &PostgresConfig, major: u32, program: &str, path: Option<&OsStr>) -> Result<PathBuf> {
    let Some(configured) = &config.bin_dir else { return search(major, program, path) };
    match asked(configured, program) {
        Some(found) if fits(found, major, program) => Ok(configured.clone()),
        found => Err(not_there(major, program, std::slice::from_ref(configured), found)
            .hint("correct `[environment.postgres] bin_dir`, or remove it: then the usual places are searched")),
    }
}

fn packaged(major: u32) -> [PathBuf; 3] {
    ["/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/usr/local/pgsql-{}/bin"]
        .map(|place| PathBuf::from(place.replace("{}", &major.to_string())))
}

/// Where a server of this major version may be, the places that name it first.
pub fn usual_places(major: u32) -> Vec<PathBuf> {
    packaged(major).into_iter().chain(UNNAMED.map(PathBuf::from)).collect()
}

fn search(major: u32, program: &str, path: Option<&OsStr>) -> Result<PathBuf> {
    let versions = if program == SERVER { major..=major } else { major..=major + 5 };
    let named: Vec<PathBuf> = versions.flat_map(packaged).collect();
    if let Some(found) = named.iter().find(|dir| dir.join(program).is_file()) {
        return Ok(found.clone());
    }
    let mut others: Vec<PathBuf> = UNNAMED.map(PathBuf::from).into();
    others.extend(path.iter().flat_map(std::env::split_paths).filter(|dir| dir.is_absolute()));
    match others.iter().find(|dir| asked(dir, program).is_some_and(|found| fits(found, major, program))) {
        Some(found) => Ok(found.clone()),
        None => {
            let searched: Vec<PathBuf> = named.into_iter().chain(others).collect();
            Err(not_there(major, program, &searched, None))
        }
    }
}

fn fits(found: u32, major: u32, program: &str) -> bool {
    found == major || program != SERVER && found > major
}

/// The major version that a program tells of itself: `postgres (PostgreSQL) 15.20 (Debian …)`.
pub fn asked(dir: &Path, program: &str) -> Option<u32> {
    let output = Command::new(dir.join(program)).arg("--version").env_clear().stdin(Stdio::null()).output().ok()?;
    version_said(&output.stdout)
}

/// The major version in such words.
pub fn version_said(output: &[u8]) -> Option<u32> {
    let said = std::str::from_utf8(output).ok()?;
    let version = said.split_once("(PostgreSQL) ")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn not_there(major: u32, program: &str, searched: &[PathBuf], found: Option<u32>) -> error::Error {
    let searched: Vec<String> = searched.iter().map(|dir| dir.display().to_string()).collect();
    let what = match found {
        Some(other) => format!("{program} in {} is of PostgreSQL {other}, the cluster is {major}", searched.join(", ")),
        None => format!("there is no {program} of PostgreSQL {major} in {}", searched.join(", ")),
    };
    error::config(what)
        .hint(format!("install it: `apt install postgresql-{major}` on Debian or Ubuntu (older or newer majors: apt.postgresql.org), `dnf install postgresql{major}-server` on Red Hat"))
        .hint("or say where it is: `[environment.postgres] bin_dir`")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::config::{CheckpointMode, ReaderMode};

    fn config(bin_dir: Option<&Path>) -> PostgresConfig {
        PostgresConfig {
            dsn: "host=/run/postgresql".into(),
            password: None,
            tls_root: None,
            slot: "lifeboat".into(),
            bin_dir: bin_dir.map(Path::to_owned),
            run_as: None,
            checkpoint: CheckpointMode::Fast,
            reader: ReaderMode::Auto,
            reader_threads: None,
            max_rate: None,
            heartbeat: Duration::from_secs(1),
        }
    }

    fn programs(version: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("dir");
        for program in [SERVER, "pg_dumpall"] {
            let path = dir.path().join(program);
            std::fs::write(&path, format!("#!/bin/sh\necho '{program} (PostgreSQL) {version} (Test)'\n"))
                .expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
        }
        dir
    }

    #[test]
    fn servers_must_match_and_clients_may_be_newer() {
        // A major that no package of this machine has.
        let newer = programs("98.1");
        let right = programs("97beta1");
        let path = std::env::join_paths([newer.path(), right.path()]).expect("joins");
        let found = |config: &PostgresConfig, program| program_dir(config, 97, program, Some(&path));
        assert_eq!(found(&config(None), SERVER).expect("found"), right.path());
        assert_eq!(found(&config(None), "pg_dumpall").expect("found"), newer.path());
        assert_eq!(found(&config(Some(right.path())), SERVER).expect("found"), right.path());
        let wrong = found(&config(Some(newer.path())), SERVER).expect_err("wrong major");
        assert!(wrong.message().contains("PostgreSQL 98, the cluster is 97"), "{wrong}");
        let none = program_dir(&config(None), 99, SERVER, Some(&path)).expect_err("nowhere");
        assert!(none.message().contains("/usr/lib/postgresql/99/bin, /usr/pgsql-99/bin"), "{none}");
        assert!(none.hints()[0].contains("apt install postgresql-99"), "{:?}", none.hints());
    }
}
