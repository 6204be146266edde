//! What of a restored cluster can be damaged, asked while its server runs.

use crate::checks;
use crate::error::Result;
use crate::postgres::server::PrivateServer;
use crate::postgres::source::databases;
use crate::postgres::sql::explain;

/// The largest table with a row, that is not needed to recognise an Odoo database.
const LARGEST: &str = "SELECT c.oid::regclass::text, pg_relation_filepath(c.oid) FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.reltablespace = 0 AND pg_relation_size(c.oid) >= 8192 \
       AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
       AND c.relname NOT IN ('ir_module_module', 'ir_config_parameter', 'ir_attachment') \
     ORDER BY pg_relation_size(c.oid) DESC, c.relname LIMIT 1";

/// A role to remove: the owner of the database, or else any that was created.
const ROLE: &str = "SELECT r.rolname::text FROM pg_roles r \
     WHERE r.oid >= 16384 ORDER BY r.oid = (SELECT datdba FROM pg_database WHERE datname = $1) DESC, r.rolname LIMIT 1";

/// What can be damaged.
#[derive(Debug, Default)]
pub struct Facts {
    /// An Odoo database.
    pub(super) odoo: Option<String>,
    /// A table.
    pub(super) relation: Option<Relation>,
    /// A role that is not the superuser of the installation.
    pub(super) role: Option<String>,
}

/// A table and its first file.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) name: String,
    /// Below the data directory.
    pub(super) path: String,
}

impl Facts {
    /// Asks a running copy.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn of(server: &PrivateServer) -> Result<Self> {
        let failed = |e| explain(e, "cannot choose what to damage");
        let maintenance = server.sql("template1").await?;
        let mut facts = Self::default();
        for name in databases(&maintenance).await? {
            let client = server.sql(&name).await?;
            let is_odoo = checks::is_odoo(&client).await?;
            if facts.odoo.is_some() || facts.relation.is_some() && !is_odoo {
                continue;
            }
            let row = client.query_opt(LARGEST, &[]).await.map_err(failed)?;
            if let Some(row) = row {
                let relation: String = row.get(0);
                facts.relation = Some(Relation { name: format!("{relation} in {name}"), path: row.get(1) });
            }
            facts.odoo = is_odoo.then_some(name);
        }
        let database = facts.odoo.as_deref().unwrap_or_default();
        facts.role = maintenance.query_opt(ROLE, &[&database]).await.map_err(failed)?.map(|row| row.get(0));
        Ok(facts)
    }
}
