//! The database in the restored cluster: found by the name that it had then, identified by its `database.uuid`.

use serde::Serialize;
use tokio_postgres::Client;

use crate::config::suggest::nearest;
use crate::error::{self, Result};
use crate::filestore::database_uuid;
use crate::postgres::server::PrivateServer;
use crate::postgres::source::databases;
use crate::postgres::sql::explain;

/// What a database is, as far as making it again needs to know.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Its name in the restored cluster.
    pub name: String,
    /// Odoo's `database.uuid`, where it has one.
    pub uuid: Option<String>,
    /// Odoo's series (`19.0`), where an Odoo lives in it.
    pub odoo: Option<String>,
    /// Whether it has Odoo's table of attachments.
    #[serde(skip)]
    pub attachments: bool,
    /// Encoding.
    #[serde(skip)]
    pub encoding: String,
    /// `LC_COLLATE`.
    #[serde(skip)]
    pub collate: String,
    /// `LC_CTYPE`.
    #[serde(skip)]
    pub ctype: String,
    /// Provider of its collation: `c`, `i` (ICU) or `b` (builtin).
    #[serde(skip)]
    pub provider: char,
    /// Locale of a provider other than libc.
    #[serde(skip)]
    pub locale: Option<String>,
    /// Settings that hang on the database itself, which a dump does not hold.
    pub settings: Vec<String>,
}

/// Finds `name` on the server.
pub(super) async fn find(server: &PrivateServer, name: &str, requested: &str) -> Result<Found> {
    let maintenance = server.sql("template1").await?;
    let all = databases(&maintenance).await?;
    if !all.iter().any(|d| d == name) {
        let error = error::usage(format!("at {requested} the cluster had no database \"{name}\""))
            .meaning("nothing was restored; the restored cluster is removed again");
        let near = nearest(name, all.iter().map(String::as_str));
        let list = format!("it had: {}", if all.is_empty() { "none".into() } else { all.join(", ") });
        return Err(match near {
            Some(near) => error.hint(format!("did you mean {near}?")).hint(list),
            None => error.hint(list),
        });
    }
    let mut found = about(&maintenance, name).await?;
    let client = server.sql(name).await?;
    let has = "SELECT to_regclass('public.ir_attachment') IS NOT NULL,
                      to_regclass('public.ir_config_parameter') IS NOT NULL,
                      to_regclass('public.ir_module_module') IS NOT NULL";
    let row = client.query_one(has, &[]).await.map_err(|e| explain(e, format!("cannot look into {name}")))?;
    found.attachments = row.get(0);
    if row.get(1) {
        found.uuid = database_uuid(&client).await?;
    }
    if row.get(2) {
        found.odoo = series(&client).await?;
    }
    Ok(found)
}

async fn about(client: &Client, name: &str) -> Result<Found> {
    // Columns that came with 15 and were renamed in 17 are asked for by way of JSON, which forgives their absence.
    let query = "SELECT pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text,
                        coalesce(to_jsonb(d)->>'datlocprovider', 'c'),
                        coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'),
                        coalesce((SELECT s.setconfig FROM pg_db_role_setting s
                                   WHERE s.setdatabase = d.oid AND s.setrole = 0), '{}')
                   FROM pg_database d WHERE d.datname = $1";
    let row = client.query_one(query, &[&name]).await.map_err(|e| explain(e, format!("cannot read what {name} is")))?;
    Ok(Found {
        name: name.to_owned(),
        uuid: None,
        odoo: None,
        attachments: false,
        encoding: row.get(0),
        collate: row.get(1),
        ctype: row.get(2),
        provider: row.get::<_, String>(3).chars().next().unwrap_or('c'),
        locale: row.get(4),
        settings: row.get(5),
    })
}

/// Odoo's series, from the version of its module `base`: `19.0.1.3` is of 19.0, `saas~18.2.1.3` of saas~18.2.
async fn series(client: &Client) -> Result<Option<String>> {
    let query = "SELECT latest_version FROM public.ir_module_module WHERE name = 'base'";
    let row = client.query_opt(query, &[]).await.map_err(|e| explain(e, "cannot read the version of Odoo"))?;
    let version: Option<String> = row.and_then(|row| row.get(0));
    Ok(version.and_then(|version| {
        let mut parts = version.split('.');
        let (major, minor) = (parts.next()?, parts.next()?);
        Some(format!("{major}.{minor}"))
    }))
}
