//! Facts about a PostgreSQL cluster that decide whether restored data runs the same elsewhere:
//! versions, page and segment sizes, tablespaces, databases with their collation versions,
//! extensions, settings that differ from the defaults. Read by SQL, one JSON value each; works
//! from PostgreSQL 13 to 18 and with few privileges.

use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::export::Collector;

/// A database of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) allows_connections: bool,
}

/// What a PostgreSQL error says, for people; tokio-postgres alone says only "db error".
pub(crate) fn reason(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => db.message().to_owned(),
        None => error.to_string(),
    }
}

/// The one JSON value that `query` returns.
pub(crate) async fn value(client: &Client, query: &str, args: &[&(dyn ToSql + Sync)]) -> Result<Value, String> {
    client.query_one(query, args).await.and_then(|row| row.try_get(0)).map_err(|e| reason(&e))
}

/// All rows of `query` as a JSON array of objects; `query` orders them.
pub(crate) async fn rows(client: &Client, query: &str, args: &[&(dyn ToSql + Sync)]) -> Result<Value, String> {
    let wrapped = format!("SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(r)), '[]') FROM ({query}) r");
    value(client, &wrapped, args).await
}

/// Databases that this cluster holds, by name.
pub(crate) async fn databases(client: &Client) -> Result<Vec<Database>, tokio_postgres::Error> {
    let query = "SELECT datname::text, datallowconn FROM pg_catalog.pg_database ORDER BY datname";
    let rows = client.query(query, &[]).await?;
    Ok(rows.iter().map(|r| Database { name: r.get(0), allows_connections: r.get(1) }).collect())
}

/// The server's version number, such as 150012.
pub(crate) async fn version(client: &Client) -> Result<i32, tokio_postgres::Error> {
    let query = "SELECT pg_catalog.current_setting('server_version_num')::int";
    client.query_one(query, &[]).await?.try_get(0)
}

/// `databases.json` without what needs a connection to each database.
pub(crate) async fn database_facts(client: &Client, version: i32) -> Result<Value, String> {
    let provider = if version >= 150_000 { "d.datlocprovider::text" } else { "'c'::text" };
    let locale = match version {
        170_000.. => "d.datlocale",
        150_000.. => "d.daticulocale",
        _ => "NULL::text",
    };
    let rules = if version >= 160_000 { "d.daticurules" } else { "NULL::text" };
    let (recorded, actual) = match version {
        150_000.. => ("d.datcollversion", "pg_catalog.pg_database_collation_actual_version(d.oid)"),
        _ => ("NULL::text", "NULL::text"),
    };
    let query = format!(
        "SELECT d.datname::text AS name, pg_catalog.pg_get_userbyid(d.datdba)::text AS owner,
                pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding, d.datcollate::text AS \"collate\",
                d.datctype::text AS ctype, {provider} AS locale_provider, {locale} AS locale, {rules} AS icu_rules,
                {recorded} AS collation_version, {actual} AS collation_version_actual,
                t.spcname::text AS tablespace, d.datconnlimit AS connection_limit, d.datistemplate AS is_template,
                d.datallowconn AS allows_connections, d.datacl::text[] AS acl
         FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace ORDER BY d.datname"
    );
    rows(client, &query, &[]).await
}

/// `server.json` and `settings.json`.
pub(crate) async fn collect(client: &Client, into: &mut Collector) {
    let server = server(client, into).await;
    into.query("postgresql/server.json".into(), "current_setting and system catalogues".into(), server);

    // What client and role bring along describes this connection, not the cluster; role and database
    // settings are in globals.sql.
    let query = "SELECT name, setting, unit, source, sourcefile, pending_restart FROM pg_catalog.pg_settings
                 WHERE source NOT IN ('default', 'client', 'session', 'interactive', 'user', 'database', 'database user')
                 ORDER BY name COLLATE \"C\"";
    let settings = rows(client, query, &[]).await;
    into.query("postgresql/settings.json".into(), "pg_settings, not default".into(), settings);
    let query = "SELECT pg_catalog.to_jsonb(pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE'))";
    if value(client, query, &[]).await != Ok(Value::Bool(true)) {
        let reason = "settings that only superusers may see are left out; grant pg_read_all_settings";
        into.missing("postgresql/settings.json", "pg_settings", reason);
    }
}

async fn server(client: &Client, into: &mut Collector) -> Result<Value, String> {
    let facts = "SELECT pg_catalog.jsonb_object_agg(name, setting) FROM pg_catalog.pg_settings WHERE name IN (
                 'server_version', 'server_version_num', 'data_checksums', 'wal_segment_size', 'block_size',
                 'wal_block_size', 'segment_size', 'cluster_name', 'data_directory', 'integer_datetimes')";
    let version = value(client, "SELECT pg_catalog.to_jsonb(pg_catalog.version())", &[]).await?;
    let identifier = "SELECT pg_catalog.to_jsonb(system_identifier::text) FROM pg_catalog.pg_control_system()";
    let identifier = value(client, identifier, &[]).await.unwrap_or(Value::Null);
    // glibc's version as the server sees it: text indexes survive a move only when it is the same.
    let libc = "SELECT pg_catalog.to_jsonb(max(pg_catalog.pg_collation_actual_version(oid)))
                FROM pg_catalog.pg_collation WHERE collprovider = 'c'";
    let libc = value(client, libc, &[]).await.unwrap_or(Value::Null);
    let tablespaces = "SELECT spcname::text AS name, pg_catalog.pg_get_userbyid(spcowner)::text AS owner,
                       nullif(pg_catalog.pg_tablespace_location(oid), '') AS location, spcoptions AS options
                       FROM pg_catalog.pg_tablespace ORDER BY spcname";
    let slots = "SELECT slot_name::text AS name, slot_type AS type, plugin::text, database::text
                 FROM pg_catalog.pg_replication_slots WHERE NOT temporary ORDER BY slot_name";
    let slots = match rows(client, slots, &[]).await {
        Ok(slots) => slots,
        Err(reason) => {
            into.missing("postgresql/server.json", "pg_replication_slots", reason);
            Value::Null
        }
    };
    Ok(json!({
        "version": version,
        "system_identifier": identifier,
        "libc_collation_version": libc,
        "settings": value(client, facts, &[]).await?,
        "tablespaces": rows(client, tablespaces, &[]).await?,
        "replication_slots": slots,
    }))
}

/// Extensions of the database behind `client`. `unaccent` is named immutable or not, because a
/// logical dump loses that mark and with it indexes.
pub(crate) async fn extensions(client: &Client) -> Result<Value, String> {
    let query = "SELECT e.extname::text AS name, e.extversion AS version, n.nspname::text AS schema,
                        pg_catalog.pg_get_userbyid(e.extowner)::text AS owner, a.default_version AS available,
                        (SELECT bool_or(p.provolatile = 'i') FROM pg_catalog.pg_proc p
                         WHERE e.extname = 'unaccent' AND p.proname = 'unaccent' AND p.pronamespace = e.extnamespace)
                        AS unaccent_immutable
                 FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
                 LEFT JOIN pg_catalog.pg_available_extensions a ON a.name = e.extname
                 ORDER BY e.extname";
    rows(client, query, &[]).await
}
