//! One configuration export, from beginning to end.
//!
//! Promises: reads only; one source that cannot be read is named in the result and does not stop
//! the rest; an error means that there is no export at all (the connection to the cluster is gone).
//! Relies on the caller for connections, so that TLS and passwords are settled in one place.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio_postgres::{Client, Config};

use super::cluster::{self, Database};
use super::export::{Collector, Export, component};
use super::odoo_files::Options;
use super::{addons, extra, globals, odoo_database, odoo_files, process, server_files};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::runtime::Runtime;

/// Opens a connection to one database of the cluster, by name; drives it in a task of its own.
pub type Connect<'a> = dyn Fn(String) -> BoxFuture<'a, Result<Client>> + Send + Sync + 'a;

/// One Odoo: where its files are and which databases it serves.
#[derive(Debug, Clone, Default)]
pub struct OdooInstance {
    /// Odoo's data directory; modules downloaded into it are part of the code.
    pub data_dir: PathBuf,
    /// Its `odoo.conf`, where there is one.
    pub config_file: Option<PathBuf>,
    /// The databases that it serves; absent: every database with an Odoo schema.
    pub databases: Option<Vec<String>>,
    /// Add-ons directories beyond those that `odoo.conf` and running processes name.
    pub addons: Vec<PathBuf>,
}

/// What to collect, and how to reach it.
pub struct Request<'a> {
    /// A connection to the maintenance database, outside a transaction; its settings are not changed.
    pub client: &'a Client,
    /// Opens connections to the other databases.
    pub connect: &'a Connect<'a>,
    /// The same cluster for `pg_dumpall`: hosts, ports, user, password, maintenance database.
    pub dsn: &'a Config,
    /// More variables for `pg_dumpall`, such as `PGSSLMODE` and `PGSSLROOTCERT`.
    pub program_environment: &'a [(String, String)],
    /// Where `pg_dumpall` is, of the server's major version or newer.
    pub bin_dir: &'a Path,
    /// The Odoo instances of the environment.
    pub odoo: &'a [OdooInstance],
    /// More files: absolute paths, patterns with `*` and `?`, or directories.
    pub extra: &'a [String],
    /// Whether to read environment and arguments of running Odoo processes on this host.
    pub process_environment: bool,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without dsn and connections: they hold passwords.
        f.debug_struct("Request").field("odoo", &self.odoo).field("extra", &self.extra).finish_non_exhaustive()
    }
}

/// Collects everything that is needed to rebuild the configuration of an environment.
pub async fn collect(runtime: &Runtime, request: Request<'_>) -> Result<Export> {
    let taken_at = runtime.now();
    let mut into = Collector::default();
    let gone = || "cannot ask the cluster for its version and databases".to_owned();
    let version = cluster::version(request.client).await.or_err(ErrorKind::Source, gone)?;
    let databases = cluster::databases(request.client).await.or_err(ErrorKind::Source, gone)?;

    server_files::collect(request.client, &mut into).await;
    cluster::collect(request.client, &mut into).await;
    let Request { client, dsn, program_environment, bin_dir, .. } = request;
    globals::collect(client, dsn, program_environment, bin_dir, &mut into).await;
    collect_databases(&request, version, &databases, &mut into).await;
    collect_code(&request, &mut into).await;
    let patterns = request.extra.to_vec();
    let read = move || {
        extra::collect(&patterns, &mut into);
        into
    };
    let into = tokio::task::spawn_blocking(read).await;
    let export = into.or_err(ErrorKind::Internal, || "reading the listed files broke off".into())?.finish(taken_at);
    for gap in &export.unreadable {
        let text = format!("{} is missing from the configuration export ({}): {}", gap.name, gap.origin, gap.reason);
        runtime.emit(Event::Warning(text));
    }
    Ok(export)
}

/// `databases.json`, `extensions.json` and what the Odoo databases say.
async fn collect_databases(request: &Request<'_>, version: i32, databases: &[Database], into: &mut Collector) {
    let mut facts = cluster::database_facts(request.client, version).await;
    let mut extensions = Map::new();
    for database in databases.iter().filter(|d| d.allows_connections) {
        let dir = format!("odoo/{}", component(&database.name));
        let opened = async {
            let client = (request.connect)(database.name.clone()).await.map_err(|e| e.message())?;
            odoo_database::guard(&client).await?;
            Ok::<_, String>((odoo_database::is_odoo(&client).await?, client))
        };
        let (is_odoo, client) = match opened.await {
            Ok(found) => found,
            Err(reason) => {
                into.missing("postgresql/extensions.json", format!("database {}", database.name), reason.clone());
                if is_named(request.odoo, &database.name) {
                    into.missing(format!("{dir}/modules.json"), format!("database {}", database.name), reason);
                }
                continue;
            }
        };
        if let Some(entry) = facts.as_mut().ok().and_then(|f| entry_of(f, &database.name)) {
            entry.insert("is_odoo".into(), json!(is_odoo));
        }
        match cluster::extensions(&client).await {
            Ok(list) => drop(extensions.insert(database.name.clone(), list)),
            Err(reason) => into.missing("postgresql/extensions.json", format!("database {}", database.name), reason),
        }
        if is_odoo && is_wanted(request.odoo, &database.name) {
            odoo_database::collect(&client, &database.name, into).await;
        } else if !is_odoo && is_named(request.odoo, &database.name) {
            let reason = "no Odoo schema is visible there: not an Odoo database, or no privilege to see it";
            into.missing(format!("{dir}/modules.json"), format!("database {}", database.name), reason);
        }
    }
    for name in request.odoo.iter().flat_map(|o| o.databases.iter().flatten()) {
        if !databases.iter().any(|d| d.name == *name) {
            let file = format!("odoo/{}/modules.json", component(name));
            into.missing(file, format!("database {name}"), "the cluster has no such database");
        }
    }
    into.query("postgresql/databases.json".into(), "pg_database".into(), facts);
    into.json("postgresql/extensions.json", "pg_extension, per database", &Value::Object(extensions));
}

/// The object of one database in `databases.json`.
fn entry_of<'v>(facts: &'v mut Value, name: &str) -> Option<&'v mut Map<String, Value>> {
    facts.as_array_mut()?.iter_mut().find(|entry| entry["name"] == name)?.as_object_mut()
}

fn is_named(odoo: &[OdooInstance], database: &str) -> bool {
    odoo.iter().any(|o| o.databases.iter().flatten().any(|d| d == database))
}

fn is_wanted(odoo: &[OdooInstance], database: &str) -> bool {
    is_named(odoo, database) || odoo.iter().any(|o| o.databases.is_none())
}

/// `odoo.conf`, processes, add-ons.
async fn collect_code(request: &Request<'_>, into: &mut Collector) {
    let mut paths: BTreeSet<PathBuf> = request.odoo.iter().flat_map(|o| o.addons.iter().cloned()).collect();
    for (number, instance) in request.odoo.iter().enumerate() {
        let options = match &instance.config_file {
            Some(file) => odoo_files::collect(file, number, into),
            None => Options::default(),
        };
        paths.extend(options.get("addons_path").into_iter().flat_map(odoo_files::split_paths));
        paths.extend(downloaded(&instance.data_dir));
    }
    if request.process_environment {
        let files = request.odoo.iter().flat_map(|o| o.config_file.iter().chain(Some(&o.data_dir)).cloned());
        let known: Vec<PathBuf> = files.filter(|p| !p.as_os_str().is_empty()).collect();
        let running = process::collect(Path::new("/proc"), &known, into);
        paths.extend(running.iter().flat_map(process::Process::addons_paths));
    }
    if !request.odoo.is_empty() {
        addons::collect(&paths, into).await;
    }
}

/// `data_dir/addons/<series>` with modules in them: Odoo downloads there at run time.
fn downloaded(data_dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(data_dir.join("addons")) else { return Vec::new() };
    let filled = |p: &PathBuf| std::fs::read_dir(p).is_ok_and(|mut inner| inner.next().is_some());
    entries.flatten().map(|e| e.path()).filter(filled).collect()
}
