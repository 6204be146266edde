//! Where PostgreSQL's programs are.

use std::path::{Path, PathBuf};

use crate::config::PostgresConfig;
use crate::error::{self, Result};

/// Directory of the programs of PostgreSQL `major`: the configured one, or one of the usual places.
pub fn bin_dir(config: &PostgresConfig, major: u32) -> Result<PathBuf> {
    if let Some(dir) = &config.bin_dir {
        return match dir.join("postgres").exists() {
            true => Ok(dir.clone()),
            false => Err(error::config(format!("`bin_dir` is {}, which holds no `postgres`", dir.display()))),
        };
    }
    usual(major)
}

/// The same without a configuration.
pub fn usual(major: u32) -> Result<PathBuf> {
    let places = [
        format!("/usr/lib/postgresql/{major}/bin"),
        format!("/usr/pgsql-{major}/bin"),
        format!("/usr/local/pgsql-{major}/bin"),
        "/usr/local/pgsql/bin".to_owned(),
        "/usr/local/bin".to_owned(),
        "/usr/bin".to_owned(),
    ];
    places.iter().map(PathBuf::from).find(|dir| dir.join("postgres").exists()).ok_or_else(|| {
        error::config(format!("the programs of PostgreSQL {major} are not on this host"))
            .meaning("a restored cluster can only be started by a server of its own major version")
            .hint(format!("on Debian or Ubuntu: apt-get install postgresql-{major}"))
            .hint("or name their directory as `bin_dir` in [environment.postgres]")
            .hint(format!("looked in: {}", places.join(", ")))
    })
}

/// The newest PostgreSQL on this host: major version and directory of its programs.
pub fn newest() -> Option<(u32, PathBuf)> {
    (13..=18).rev().find_map(|major| {
        let dir = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
        let other = Path::new("/usr").join(format!("pgsql-{major}/bin"));
        [dir, other].into_iter().find(|d| d.join("postgres").exists()).map(|d| (major, d))
    })
}
