//! What an Odoo database says about its own configuration: modules, parameters, scheduled actions,
//! companies, mail servers, providers. For comparison and for rebuilding the code around it; the
//! data itself is in the base backup.
//!
//! Secrets never leave the server: parameters with telling names arrive as a digest, other tables
//! by an explicit list of columns (absent ones are skipped, so Odoo 14 to 19 are read alike). The
//! database's owner is not trusted: only plain tables in `public` are read, names resolve in
//! `pg_catalog` only, nothing can be written.

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::cluster::{reason, rows, value};
use super::export::{Collector, VOLATILE, component};

/// Rebinds the session to what is safe in a database that belongs to somebody else.
const GUARD: &str = "SET search_path = pg_catalog; SET row_security = off; SET default_transaction_read_only = on; \
                     SET statement_timeout = '60s'; SET lock_timeout = '5s'; SET TimeZone = 'UTC'";

/// Keys whose values are secrets.
const SECRET: &str = "secret|password|token|key|private|enterprise_code";

/// File, table and columns; `id` orders.
const TABLES: &[(&str, &str, &[&str])] = &[
    ("companies.json", "res_company", &["id", "name", "parent_id", "currency_id", "partner_id", "active"]),
    ("websites.json", "website", &["id", "name", "domain", "company_id"]),
    (
        "mail_servers.json",
        "ir_mail_server",
        &[
            "id",
            "name",
            "active",
            "sequence",
            "smtp_host",
            "smtp_port",
            "smtp_user",
            "smtp_encryption",
            "smtp_authentication",
            "from_filter",
        ],
    ),
    (
        "incoming_mail_servers.json",
        "fetchmail_server",
        &["id", "name", "active", "state", "server", "port", "server_type", "is_ssl", "user", "object_id"],
    ),
    ("payment_providers.json", "payment_provider", &["id", "code", "state", "company_id", "module_id"]),
    ("delivery_carriers.json", "delivery_carrier", &["id", "delivery_type", "prod_environment", "active"]),
    ("oauth_providers.json", "auth_oauth_provider", &["id", "name", "enabled", "client_id", "auth_endpoint"]),
    ("languages.json", "res_lang", &["id", "code", "active"]),
];

/// Makes the session safe to read with; call before anything else.
pub(crate) async fn guard(client: &Client) -> Result<(), String> {
    client.batch_execute(GUARD).await.map_err(|e| reason(&e))
}

/// Whether an Odoo lives in the database behind `client`.
pub(crate) async fn is_odoo(client: &Client) -> Result<bool, String> {
    Ok(is_table(client, "ir_module_module").await? && is_table(client, "ir_config_parameter").await?)
}

/// A plain table: reading a view would run its owner's functions with our privileges.
async fn is_table(client: &Client, name: &str) -> Result<bool, String> {
    let query = "SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = 'public' AND c.relname = $1::text AND c.relkind IN ('r', 'p')))";
    Ok(value(client, query, &[&name]).await? == Value::Bool(true))
}

/// Keeps the files of `odoo/<database>/`.
pub(crate) async fn collect(client: &Client, database: &str, into: &mut Collector) {
    let dir = format!("odoo/{}", component(database));
    let origin = |table: &str| format!("{database}: {table}");
    let mut put = |file: &str, table: &str, result| into.query(format!("{dir}/{file}"), origin(table), result);

    let query = "SELECT name, state, latest_version, author, license FROM public.ir_module_module
                 WHERE state <> 'uninstalled' AND state <> 'uninstallable' ORDER BY name COLLATE \"C\"";
    put("modules.json", "ir_module_module", rows(client, query, &[]).await);

    let query = "SELECT key, CASE WHEN key ~* $1::text THEN NULL ELSE value END AS value, key ~* $1::text AS masked,
                 encode(sha256(convert_to(value, 'UTF8')), 'hex') AS sha256
                 FROM public.ir_config_parameter ORDER BY key COLLATE \"C\"";
    put("parameters.json", "ir_config_parameter", rows(client, query, &[&SECRET]).await);

    put("crons.json", "ir_cron", crons(client).await);
    put("attachments.json", "ir_attachment", attachments(client).await);
    for (file, table, columns) in TABLES {
        match is_table(client, table).await {
            Ok(false) => {}
            Ok(true) => put(file, table, picked(client, table, columns).await),
            Err(reason) => put(file, table, Err(reason)),
        }
    }
}

async fn picked(client: &Client, table: &str, columns: &[&str]) -> Result<Value, String> {
    let query = format!(
        "SELECT coalesce(jsonb_agg(picked ORDER BY id), '[]') FROM (
           SELECT t.id, (SELECT jsonb_object_agg(key, value) FROM jsonb_each(to_jsonb(t)) WHERE key = ANY ($1)) AS picked
           FROM public.{table} t) x"
    );
    value(client, &query, &[&columns]).await
}

/// When a cron runs next changes by itself, and is kept apart.
async fn crons(client: &Client) -> Result<Value, String> {
    let stable = [
        "id",
        "cron_name",
        "active",
        "interval_number",
        "interval_type",
        "user_id",
        "priority",
        "ir_actions_server_id",
    ];
    let next = "SELECT coalesce(jsonb_object_agg(id::text, nextcall), '{}') FROM public.ir_cron";
    let crons = picked(client, "ir_cron", &stable).await?;
    Ok(json!({ "crons": crons, VOLATILE: { "nextcall": value(client, next, &[]).await? } }))
}

/// Where attachments are kept: what stands outside database and filestore is not backed up, and
/// must be known. How many there are changes by itself.
async fn attachments(client: &Client) -> Result<Value, String> {
    let location = "SELECT to_jsonb(coalesce((SELECT value FROM public.ir_config_parameter
                    WHERE key = 'ir_attachment.location'), 'file'))";
    let census = crate::filestore::census(client).await.map_err(|e| e.message())?;
    let kinds: Vec<&str> = census.iter().map(|c| c.storage.as_str()).collect();
    Ok(json!({
        "location": value(client, location, &[]).await?,
        "storages": kinds,
        VOLATILE: { "census": census },
    }))
}
