//! Neutralises the Odoo databases of a restored cluster.
//!
//! SQL runs as superuser of the restored cluster, in one transaction per database: the modules' own scripts in the
//! order of their names, then Lifeboat's statements. A script that ends the transaction by itself is an error, like
//! any other failure; only what the configuration allows by name is passed over. Proof comes after the commit, in a
//! session of its own.

use std::time::Instant;

use tokio_postgres::Client;

use super::sources::AddonsPaths;
use super::statements::{Schema, steps};
use super::verify::{Identity, verify};
use crate::checks::odoo_version;
use crate::error::{self, Error, Result};
use crate::evidence::drill_record::Check;
use crate::evidence::odoo_record::{Neutralised, Silenced, Step};
use crate::postgres::server::PrivateServer;
use crate::postgres::source::databases;
use crate::postgres::sql::explain;

/// How databases are neutralised.
#[derive(Debug)]
pub struct Settings<'a> {
    /// Where the code of modules is.
    pub addons: &'a AddonsPaths,
    /// Modules that may be passed over.
    pub allow: &'a [String],
    /// Under which address the copy will be reached: `http://127.0.0.1:8169`.
    pub base_url: &'a str,
}

/// What was done to one database, and the proof.
#[derive(Debug, Clone)]
pub struct Neutralisation {
    /// For the record.
    pub record: Neutralised,
    /// The assertions.
    pub checks: Vec<Check>,
    /// What the original said of itself.
    pub(super) before: Identity,
    /// Modules without code.
    pub(super) imported: u64,
}

impl Neutralisation {
    /// Whether Odoo may see the database.
    pub fn is_proven(&self) -> bool {
        !self.checks.is_empty() && !self.checks.iter().any(Check::fails_the_drill)
    }

    /// The assertions once more, about the database as it is now.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn verify(&self, server: &PrivateServer, settings: &Settings<'_>) -> Result<Vec<Check>> {
        let client = server.sql(&self.record.database).await?;
        verify(&client, settings.base_url, &self.record, &self.before, self.imported).await
    }
}

/// Neutralises every Odoo database of the server, and verifies it.
///
/// # Errors
/// What a script or a statement fails with; the database is then as it was, and nothing may be started on it.
pub async fn run(server: &PrivateServer, settings: &Settings<'_>) -> Result<Vec<Neutralisation>> {
    let maintenance = server.sql("template1").await?;
    let mut done = Vec::new();
    for name in databases(&maintenance).await? {
        done.extend(database(server, &name, settings).await?);
    }
    Ok(done)
}

/// Neutralises one database and verifies it; `None` where it is not Odoo's.
///
/// # Errors
/// As [`run`].
pub async fn database(server: &PrivateServer, name: &str, settings: &Settings<'_>) -> Result<Option<Neutralisation>> {
    let client = server.sql(name).await?;
    match odoo_version(&client).await? {
        Some(odoo) => one(server, &client, name, odoo, settings).await.map(Some),
        None => Ok(None),
    }
}

async fn one(
    server: &PrivateServer,
    client: &Client,
    database: &str,
    odoo: u32,
    settings: &Settings<'_>,
) -> Result<Neutralisation> {
    let began = Instant::now();
    let cannot = |e| not_neutralised(explain(e, format!("cannot neutralise the database {database}")));
    let before = Identity::read(client).await?;
    let prepare = "SELECT set_config('search_path', 'public', false), set_config('lifeboat.base_url', $1, false),
                          set_config('lock_timeout', '60s', false), set_config('row_security', 'off', false)";
    client.execute(prepare, &[&settings.base_url]).await.map_err(cannot)?;
    let schema = Schema::read(client).await?;
    let (modules, imported) = modules(client, &schema).await?;
    let silenced = silenced(client, &schema).await?;
    client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(cannot)?;
    let transaction = transaction_id(client).await.map_err(cannot)?;
    let mut record = Neutralised {
        database: database.to_owned(),
        odoo,
        modules: modules.len() as u64 + imported,
        scripts: Vec::new(),
        unneutralised: Vec::new(),
        allowed: Vec::new(),
        steps: Vec::new(),
        silenced,
        uuid_before: before.uuid.clone(),
        uuid_after: None,
        seconds: 0.0,
    };
    for module in &modules {
        own_script(client, module, settings, &mut record).await?;
    }
    record.steps = own_steps(client, database, &schema).await?;
    match transaction_id(client).await {
        Ok(now) if now == transaction => {}
        Ok(_) => {
            return Err(not_neutralised(error::check_failed(format!(
                "the script of a module ended the transaction in which {database} was neutralised"
            ))));
        }
        Err(e) => return Err(cannot(e)),
    }
    client.batch_execute("COMMIT").await.map_err(cannot)?;
    let fresh = server.sql(database).await?;
    let checks = verify(&fresh, settings.base_url, &record, &before, imported).await?;
    record.uuid_after = Identity::read(&fresh).await?.uuid;
    record.seconds = began.elapsed().as_secs_f64();
    Ok(Neutralisation { record, checks, before, imported })
}

async fn transaction_id(client: &Client) -> std::result::Result<String, tokio_postgres::Error> {
    Ok(client.query_one("SELECT txid_current()::text", &[]).await?.get(0))
}

/// Installed modules with code, by name, and how many were imported as data and never had any.
async fn modules(client: &Client, schema: &Schema) -> Result<(Vec<String>, u64)> {
    let imported = if schema.has("ir_module_module.imported") { "coalesce(imported, false)" } else { "false" };
    let sql = format!(
        "SELECT name::text, {imported} FROM public.ir_module_module
          WHERE state IN ('installed', 'to upgrade', 'to remove') ORDER BY name"
    );
    let rows = client.query(&sql, &[]).await.map_err(|e| explain(e, "cannot read which modules are installed"))?;
    let with_code = rows.iter().filter(|row| !row.get::<_, bool>(1)).map(|row| row.get(0)).collect::<Vec<String>>();
    let imported = (rows.len() - with_code.len()) as u64;
    Ok((with_code, imported))
}

/// Runs the module's own script, behind a savepoint where it may fail.
async fn own_script(client: &Client, module: &str, settings: &Settings<'_>, record: &mut Neutralised) -> Result<()> {
    let allowed = settings.allow.iter().any(|m| m == module);
    if !settings.addons.has(module) {
        record.unneutralised.push(module.to_owned());
        if allowed {
            record.allowed.push(module.to_owned());
        }
        return Ok(());
    }
    let Some((script, sql)) = settings.addons.script(module)? else { return Ok(()) };
    let failed = |e| {
        not_neutralised(explain(e, format!("cannot neutralise {}: the script of {module} fails", record.database)))
            .hint(format!("{} is the script; it runs on the restored database as Odoo would run it", script.path))
            .hint(format!("if its module may stay live in a sealed copy: allow_unneutralised = [\"{module}\"]"))
    };
    if allowed {
        client.batch_execute("SAVEPOINT lifeboat").await.map_err(failed)?;
    }
    match (client.batch_execute(&sql).await, allowed) {
        (Ok(()), _) => record.scripts.push(script),
        (Err(e), false) => return Err(failed(e)),
        (Err(_), true) => {
            client.batch_execute("ROLLBACK TO SAVEPOINT lifeboat").await.map_err(failed)?;
            record.allowed.push(module.to_owned());
        }
    }
    Ok(())
}

/// Lifeboat's own statements, as far as they apply.
async fn own_steps(client: &Client, database: &str, schema: &Schema) -> Result<Vec<Step>> {
    let steps = steps();
    let mut done = Vec::new();
    let clear = schema.columns(&steps.clear).into_iter().map(|c| (format!("{}.{}", c.table, c.name), c.clear()));
    let own = steps.step.iter().filter(|s| schema.applies(s)).map(|s| (s.id.clone(), s.sql.clone()));
    for (id, sql) in clear.chain(own) {
        let rows = client.execute(&sql, &[]).await.map_err(|e| {
            not_neutralised(explain(e, format!("cannot neutralise {database}: the step \"{id}\" fails")))
        })?;
        done.push(Step { id, rows });
    }
    Ok(done)
}

fn not_neutralised(error: Error) -> Error {
    error.meaning("no Odoo was started: it could have reached real customers and services with the restored data")
}

/// Servers that the database names, outside this host: what is tried there afterwards was not neutralised.
async fn silenced(client: &Client, schema: &Schema) -> Result<Vec<Silenced>> {
    let from_url = "substring(URL from '^[a-zA-Z]+://(?:[^/@]*@)?\\[?([^]/:?#]+)')";
    let sources = [
        ("mail", "ir_mail_server.smtp_host", "SELECT smtp_host::text FROM public.ir_mail_server".to_owned()),
        ("fetchmail", "fetchmail_server.server", "SELECT server::text FROM public.fetchmail_server".to_owned()),
        (
            "webhook",
            "ir_act_server.webhook_url",
            format!("SELECT {} FROM public.ir_act_server", from_url.replace("URL", "webhook_url")),
        ),
    ];
    let mut hosts = std::collections::BTreeSet::new();
    for (channel, needs, sql) in sources.iter().filter(|(_, needs, _)| schema.has(needs)) {
        let rows = client.query(sql, &[]).await.map_err(|e| explain(e, format!("cannot read {needs}")))?;
        for host in rows.iter().filter_map(|row| row.get::<_, Option<String>>(0)) {
            let host = host.trim().to_ascii_lowercase();
            if !matches!(host.as_str(), "" | "localhost" | "127.0.0.1" | "::1") {
                hosts.insert(Silenced { channel: (*channel).to_owned(), host });
            }
        }
    }
    Ok(hosts.into_iter().collect())
}
