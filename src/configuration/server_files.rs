//! PostgreSQL's own files: `postgresql.conf` with all that it includes, `postgresql.auto.conf`,
//! `pg_hba.conf`, `pg_ident.conf`, TLS files.
//!
//! The server is asked for the bytes first, because only the server surely reads its own files: a
//! file of the same path on Lifeboat's host may belong to another cluster. The local disk is used
//! only when this host proves to be the server's: the connection's backend process is visible in
//! `/proc` under its own title. Debian's files outside PGDATA are covered; the base backup has none
//! of them.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio_postgres::Client;

use super::cluster::reason;
use super::disk;
use super::export::{Collector, ConfigFile};
use super::includes::{Dialect, Include, includes};

/// Collects the files of the server behind `client`.
pub(crate) async fn collect(client: &Client, into: &mut Collector) {
    let reader = Reader { client, local: is_local(client).await };
    let mut seen = BTreeSet::new();
    let config = setting(client, "config_file").await;
    let data = setting(client, "data_directory").await;
    let home = config.as_ref().ok().and_then(|p| p.parent()).map(Path::to_owned);
    let mut queue: Vec<Wanted> = Vec::new();
    for (name, path, dialect) in [
        ("postgresql.conf", config, Dialect::Settings),
        ("postgresql.auto.conf", data.clone().map(|d| d.join("postgresql.auto.conf")), Dialect::Settings),
        ("pg_hba.conf", setting(client, "hba_file").await, Dialect::Access),
        ("pg_ident.conf", setting(client, "ident_file").await, Dialect::Access),
    ] {
        let name = format!("postgresql/{name}");
        match path {
            Ok(path) => queue.push(Wanted { name, path, dialect: Some(dialect), optional: false }),
            Err(reason) => into.missing(&name, "the server's settings", reason),
        }
    }
    // Files that set something are known to the server even when an include could not be followed.
    for path in setting_sources(client).await {
        let name = included_name(&path, home.as_deref());
        queue.push(Wanted { name, path, dialect: Some(Dialect::Settings), optional: false });
    }
    queue.extend(tls_files(client, data.ok().as_deref()).await);
    queue.reverse();
    while let Some(wanted) = queue.pop() {
        if !seen.insert(wanted.path.clone()) {
            continue;
        }
        let origin = wanted.path.to_string_lossy().into_owned();
        match reader.read(&wanted.path).await {
            Ok((content, mode)) => {
                for include in wanted.dialect.iter().flat_map(|d| includes(&wanted.path, &content, *d)) {
                    reader.follow(include, &wanted, home.as_deref(), &mut queue, into).await;
                }
                into.add(ConfigFile { name: wanted.name, origin, mode, content });
            }
            Err(Failure::Absent) if wanted.optional => {}
            Err(Failure::Absent) => into.missing(wanted.name, origin, "no such file on the server"),
            Err(Failure::Other(reason)) => into.missing(wanted.name, origin, reason),
        }
    }
}

/// A file to read.
struct Wanted {
    name: String,
    path: PathBuf,
    /// Absent for files that include nothing (certificates).
    dialect: Option<Dialect>,
    optional: bool,
}

/// Why a file could not be read.
enum Failure {
    Absent,
    Other(String),
}

/// Reads the server's files through SQL or, where that is the same host, from disk.
struct Reader<'a> {
    client: &'a Client,
    local: bool,
}

impl Reader<'_> {
    async fn read(&self, path: &Path) -> Result<(Vec<u8>, Option<u32>), Failure> {
        let text = path.to_str().ok_or_else(|| Failure::Other("the path is not UTF-8".into()))?;
        let limit = disk::MAX_FILE as i64 + 1;
        let query = "SELECT pg_catalog.pg_read_binary_file($1::text, 0, $2::bigint, true)";
        match self.client.query_one(query, &[&text, &limit]).await.map(|row| row.get::<_, Option<Vec<u8>>>(0)) {
            Ok(None) => Err(Failure::Absent),
            Ok(Some(content)) if content.len() as i64 == limit => Err(Failure::Other(disk::too_large())),
            Ok(Some(content)) => {
                let mode = if self.local { path.metadata().ok().map(|m| m.mode() & 0o7777) } else { None };
                Ok((content, mode))
            }
            Err(refused) if self.local => match disk::read(path) {
                Ok((content, mode)) => Ok((content, Some(mode))),
                Err(_) if is_absent(path) => Err(Failure::Absent),
                Err(disk) => Err(Failure::Other(format!("{}; from disk: {disk}", reason(&refused)))),
            },
            Err(refused) => Err(Failure::Other(format!(
                "{}; grant pg_read_server_files and EXECUTE on pg_read_binary_file, or run Lifeboat on the \
                 database host (the server was not found to run on this one)",
                reason(&refused)
            ))),
        }
    }

    /// Puts what an include names into the queue.
    async fn follow(
        &self,
        include: Include,
        by: &Wanted,
        home: Option<&Path>,
        queue: &mut Vec<Wanted>,
        into: &mut Collector,
    ) {
        let mut want = |path: PathBuf, optional| {
            let name = included_name(&path, home);
            queue.push(Wanted { name, path, dialect: by.dialect, optional });
        };
        match include {
            Include::File(path) => want(path, false),
            Include::Optional(path) => want(path, true),
            Include::Directory(dir) => match self.list(&dir).await {
                Ok(names) => {
                    let used = names.into_iter().filter(|n| n.ends_with(".conf") && !n.starts_with('.'));
                    used.for_each(|n| want(dir.join(n), false));
                }
                Err(reason) => into.missing(included_name(&dir, home), dir.to_string_lossy(), reason),
            },
        }
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>, String> {
        let text = dir.to_str().ok_or("the path is not UTF-8")?;
        let query = "SELECT pg_catalog.pg_ls_dir($1::text)";
        let refused = match self.client.query(query, &[&text]).await {
            Ok(rows) => return Ok(rows.iter().map(|r| r.get(0)).collect()),
            Err(error) => reason(&error),
        };
        if !self.local {
            return Err(refused);
        }
        let entries = std::fs::read_dir(dir).map_err(|e| format!("{refused}; from disk: {e}"))?;
        Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
    }
}

fn is_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// Whether the server runs on this host: its backend for this very connection is a process here,
/// with the title that PostgreSQL gives to backends of this user and database.
async fn is_local(client: &Client) -> bool {
    let query = "SELECT pg_catalog.pg_backend_pid(), session_user::text, pg_catalog.current_database()::text";
    let Ok(row) = client.query_one(query, &[]).await else { return false };
    let (pid, user, database): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
    let Ok(title) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let title = String::from_utf8_lossy(&title);
    title.starts_with("postgres: ") && title.contains(&format!("{user} {database} "))
}

async fn setting(client: &Client, name: &str) -> Result<PathBuf, String> {
    let row = client.query_one("SELECT pg_catalog.current_setting($1::text, true)", &[&name]).await;
    match row.map(|r| r.get::<_, Option<String>>(0)) {
        Ok(Some(path)) if !path.is_empty() => Ok(PathBuf::from(path)),
        Ok(_) => Err(format!("the server does not say where its {name} is")),
        Err(error) => Err(format!("{}; grant pg_read_all_settings", reason(&error))),
    }
}

async fn setting_sources(client: &Client) -> Vec<PathBuf> {
    // Refused without privilege: following the includes by hand then has to do.
    let query = "SELECT DISTINCT sourcefile FROM pg_catalog.pg_file_settings WHERE sourcefile IS NOT NULL ORDER BY 1";
    let rows = client.query(query, &[]).await.unwrap_or_default();
    rows.iter().map(|r| PathBuf::from(r.get::<_, String>(0))).collect()
}

/// Certificates and keys outside PGDATA (those inside come with the base backup).
async fn tls_files(client: &Client, data: Option<&Path>) -> Vec<Wanted> {
    let query = "SELECT setting FROM pg_catalog.pg_settings WHERE setting LIKE '/%' AND name IN ('ssl_cert_file', \
                 'ssl_key_file', 'ssl_ca_file', 'ssl_crl_file', 'ssl_dh_params_file', 'krb_server_keyfile') ORDER BY name";
    let rows = client.query(query, &[]).await.unwrap_or_default();
    let paths = rows.iter().map(|r| PathBuf::from(r.get::<_, String>(0)));
    let outside = paths.filter(|p| !data.is_some_and(|d| p.starts_with(d)));
    outside
        .map(|path| {
            let name = format!("postgresql/tls{}", super::extra::logical(&path).trim_start_matches("files"));
            Wanted { name, path, dialect: None, optional: false }
        })
        .collect()
}

/// `conf.d/x.conf` below the main file's directory keeps its relative name; others keep their path.
fn included_name(path: &Path, home: Option<&Path>) -> String {
    let relative = home.and_then(|h| path.strip_prefix(h).ok());
    let named = super::extra::logical(relative.unwrap_or(path));
    match relative {
        Some(_) => format!("postgresql{}", named.trim_start_matches("files")),
        None => format!("postgresql/{named}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_included_files() {
        let home = Some(Path::new("/etc/postgresql/15/main"));
        let name = |p: &str| included_name(Path::new(p), home);
        assert_eq!(name("/etc/postgresql/15/main/conf.d/a.conf"), "postgresql/conf.d/a.conf");
        assert_eq!(name("/srv/shared.conf"), "postgresql/files/srv/shared.conf");
        assert_eq!(name("/etc/postgresql/15/main/../x.conf"), "postgresql/%2E%2E/x.conf");
    }
}
