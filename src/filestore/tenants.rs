//! Which databases of a cluster hold an Odoo, and which filestore belongs to each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tokio_postgres::Client;

use crate::config::OdooConfig;
use crate::error::{self, Result};
use crate::event::Event;
use crate::postgres::source::{Source, databases};
use crate::postgres::sql::explain;
use crate::runtime::Runtime;

/// A database and the `data_dir` of the Odoo that serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tenant {
    pub(super) database: String,
    pub(super) data_dir: PathBuf,
}

impl Tenant {
    /// Where its files are.
    pub(super) fn directory(&self) -> PathBuf {
        filestores(&self.data_dir).join(&self.database)
    }
}

pub(super) fn filestores(data_dir: &Path) -> PathBuf {
    data_dir.join("filestore")
}

/// The database's owner is not trusted: names resolve in `pg_catalog` only, nothing can be written.
const GUARD: &str = "SET search_path = pg_catalog; SET row_security = off; SET default_transaction_read_only = on; \
                     SET statement_timeout = 0; SET lock_timeout = '60s'; SET idle_in_transaction_session_timeout = 0; \
                     SET TimeZone = 'UTC'";

/// Opens a session that is safe in a database that belongs to somebody else.
pub(super) async fn open(source: &Source, database: &str) -> Result<Client> {
    let client = source.sql_in(database).await?;
    client
        .batch_execute(GUARD)
        .await
        .map_err(|e| explain(e, format!("cannot prepare the session in database {database}")))?;
    Ok(client)
}

/// Whether an Odoo lives in the database behind a session. Plain tables only: reading a view would run
/// its owner's functions with our privileges.
pub(super) async fn is_odoo(client: &Client) -> Result<bool> {
    let query = "SELECT count(*) = 3 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
                   AND c.relname IN ('ir_attachment', 'ir_config_parameter', 'ir_module_module')";
    let row = client.query_one(query, &[]).await.map_err(|e| explain(e, "cannot look for Odoo's tables"))?;
    Ok(row.get(0))
}

/// The tenants of an environment: the databases that its instances list, and for instances without a
/// list every other database with an Odoo schema. Filestores without a database are reported.
pub(super) async fn tenants(source: &Source, odoo: &[OdooConfig], runtime: &Runtime) -> Result<Vec<Tenant>> {
    let all = databases(&source.sql().await?).await?;
    let mut tenants: Vec<Tenant> = Vec::new();
    for instance in odoo {
        let listed = instance.databases.iter().flatten();
        tenants.extend(listed.map(|d| Tenant { database: d.clone(), data_dir: instance.data_dir.clone() }));
    }
    let open_ended: Vec<&Path> = odoo.iter().filter(|o| o.databases.is_none()).map(|o| o.data_dir.as_path()).collect();
    if !open_ended.is_empty() {
        let named: BTreeSet<String> = tenants.iter().map(|t| t.database.clone()).collect();
        for database in all.iter().filter(|d| !named.contains(*d)) {
            let client = match open(source, database).await {
                Ok(client) => client,
                Err(e) => {
                    let what =
                        format!("database {database} cannot be opened, so nobody knows whether it is an Odoo: {e}");
                    runtime.emit(Event::Warning(what));
                    continue;
                }
            };
            if is_odoo(&client).await? {
                let data_dir = home(&open_ended, database).to_owned();
                tenants.push(Tenant { database: database.clone(), data_dir });
            }
        }
    }
    report_strays(odoo, &all, runtime);
    match tenants.is_empty() {
        false => Ok(tenants),
        true => Err(error::source("no database of the cluster holds an Odoo")
            .meaning("there is no filestore to capture")
            .hint("list the databases: `[[environment.odoo]] databases = [\"…\"]`; the role must be able to connect to them")),
    }
}

/// Of the instances that serve any database, the one that has files of this one; the first where none has.
fn home<'a>(data_dirs: &[&'a Path], database: &str) -> &'a Path {
    let there = |dir: &&&Path| filestores(dir).join(database).is_dir();
    data_dirs.iter().find(there).unwrap_or(&data_dirs[0])
}

/// Names filestores that belong to no database: left by a DROP outside Odoo, or of another cluster.
fn report_strays(odoo: &[OdooConfig], databases: &[String], runtime: &Runtime) {
    for instance in odoo {
        let Ok(entries) = std::fs::read_dir(filestores(&instance.data_dir)) else { continue };
        for entry in entries.flatten().filter(|e| e.path().is_dir()) {
            if !databases.iter().any(|d| *entry.file_name() == **d) {
                let path = entry.path();
                runtime.emit(Event::Note(format!(
                    "{} belongs to no database of this cluster; it is not captured",
                    path.display()
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_belongs_to_the_instance_that_has_its_files() {
        let dirs = [tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir")];
        std::fs::create_dir_all(dirs[1].path().join("filestore/shop")).expect("dir");
        let paths: Vec<&Path> = dirs.iter().map(|d| d.path()).collect();
        assert_eq!(home(&paths, "shop"), paths[1]);
        assert_eq!(home(&paths, "other"), paths[0]);
    }
}
