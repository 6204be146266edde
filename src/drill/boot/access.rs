//! What Odoo and the questions to it need in the restored database. All of it happens in the disposable copy, after
//! it was proven to be neutralised.

use tokio_postgres::Client;

use super::settings::ROLE;
use crate::drill::neutralise::statements::Schema;
use crate::error::Result;
use crate::postgres::sql::explain;

/// Statements of one transaction: each takes locks on a table and its indexes.
const BATCH: usize = 50;
/// Attachments that are asked for: one of each model and type, and so many of the newest and the largest.
const KINDS: i64 = 40;
const EXTREMES: i64 = 10;

/// What tells one database from another, and from one that Odoo has just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uuid: Option<String>,
    pub(super) oid: u32,
    pub(super) modules: i64,
    pub(super) installed: i64,
    /// All databases of the cluster.
    pub(super) databases: Vec<String>,
}

impl Identity {
    pub(super) async fn read(client: &Client) -> Result<Self> {
        let sql = "SELECT (SELECT value::text FROM public.ir_config_parameter WHERE key = 'database.uuid'),
                          (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()),
                          (SELECT count(*) FROM public.ir_module_module),
                          (SELECT count(*) FROM public.ir_module_module WHERE state = 'installed'),
                          (SELECT array_agg(datname::text ORDER BY datname) FROM pg_catalog.pg_database)";
        let row = client.query_one(sql, &[]).await.map_err(|e| explain(e, "cannot read the database's identity"))?;
        Ok(Self {
            uuid: row.get(0),
            oid: row.get(1),
            modules: row.get(2),
            installed: row.get(3),
            databases: row.get(4),
        })
    }

    /// What is not as it was before.
    pub(super) fn differences(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut differ = |what: &str, before: &dyn std::fmt::Debug, now: &dyn std::fmt::Debug, same: bool| {
            if !same {
                found.push(format!("{what} was {before:?} and is {now:?}"));
            }
        };
        differ("database.uuid", &before.uuid, &self.uuid, before.uuid == self.uuid && self.uuid.is_some());
        differ("the database's oid", &before.oid, &self.oid, before.oid == self.oid);
        differ("the number of known modules", &before.modules, &self.modules, before.modules == self.modules);
        differ(
            "the number of installed modules",
            &before.installed,
            &self.installed,
            before.installed == self.installed,
        );
        differ("the list of databases", &before.databases, &self.databases, before.databases == self.databases);
        found
    }
}

/// Makes a role that owns the database and all in it, and can create no other: `odoo-bin` makes what it does not
/// find. Odoo refuses the superuser.
pub(super) async fn grant(client: &Client, database: &str) -> Result<()> {
    let cannot = |e| explain(e, format!("cannot give the database {database} to the role of the drill's Odoo"));
    let there: bool = client
        .query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)", &[&ROLE])
        .await
        .map_err(cannot)?
        .get(0);
    let role = if there { "ALTER" } else { "CREATE" };
    let first = format!(
        "SET search_path = pg_catalog; {role} ROLE {ROLE} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    );
    client.batch_execute(&first).await.map_err(cannot)?;
    let sql = "
        SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), $1::text)
        UNION ALL SELECT format('GRANT CONNECT ON DATABASE %I TO %I', datname, $1::text) FROM pg_database WHERE datname = 'postgres'
        UNION ALL SELECT format('GRANT ALL ON SCHEMA %I TO %I', nspname, $1::text) FROM pg_namespace
                   WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
        UNION ALL SELECT format('ALTER %s %I.%I OWNER TO %I',
                                CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                                               WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, n.nspname, c.relname, $1::text)
                    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
                     AND pg_get_userbyid(c.relowner) <> $1::text
                     -- A sequence of a column goes with its table; what an extension owns stays its own.
                     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                        AND (d.deptype = 'e' OR c.relkind = 'S' AND d.deptype IN ('a', 'i')))";
    let statements: Vec<String> =
        client.query(sql, &[&ROLE]).await.map_err(cannot)?.iter().map(|row| row.get(0)).collect();
    for batch in statements.chunks(BATCH) {
        client.batch_execute(&format!("BEGIN; {}; COMMIT", batch.join("; "))).await.map_err(cannot)?;
    }
    Ok(())
}

/// A user of the copy, with a password that only this drill knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: i32,
    pub(super) login: String,
    pub(super) password: String,
}

/// Chooses a user who may see everything and sets a password; `None` where there is nobody.
pub(super) async fn user(client: &Client) -> Result<Option<User>> {
    let cannot = |e| explain(e, "cannot prepare a user for the drill");
    let schema = Schema::read(client).await?;
    let totp = if schema.has("res_users.totp_secret") { "u.totp_secret IS NULL" } else { "u.id IS NOT NULL" };
    let inside = if schema.has("res_users.share") { "NOT coalesce(u.share, false)" } else { "true" };
    // Whoever administers settings sees most; whoever has no second factor needs no change.
    let choose = format!(
        "SELECT u.id, u.login::text FROM public.res_users u
          WHERE u.active AND {inside} AND u.id <> 1
          ORDER BY EXISTS (SELECT FROM public.res_groups_users_rel r JOIN public.ir_model_data d
                             ON d.module = 'base' AND d.name = 'group_system' AND d.model = 'res.groups' AND d.res_id = r.gid
                            WHERE r.uid = u.id) DESC, {totp} DESC, u.id
          LIMIT 1"
    );
    let Some(row) = client.query_opt(&choose, &[]).await.map_err(cannot)? else { return Ok(None) };
    let (id, login): (i32, String) = (row.get(0), row.get(1));
    let no_second_factor = if schema.has("res_users.totp_secret") { ", totp_secret = NULL" } else { "" };
    // Odoo takes a plain password and hashes it at the first login.
    let set = format!(
        "UPDATE public.res_users SET password = gen_random_uuid()::text || gen_random_uuid()::text{no_second_factor}
          WHERE id = $1 RETURNING password::text"
    );
    let password = client.query_one(&set, &[&id]).await.map_err(cannot)?.get(0);
    client
        .batch_execute("DELETE FROM public.ir_config_parameter WHERE key = 'auth_totp.policy'")
        .await
        .map_err(cannot)?;
    Ok(Some(User { id, login, password }))
}

/// An attachment that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) id: i32,
    pub(super) checksum: String,
    /// What opens it, whatever its record allows.
    pub(super) token: String,
    /// `account.move application/pdf`
    pub(super) kind: String,
}

/// Attachments in the filestore: of each model and type the newest, then the newest and the largest of all.
pub(super) async fn attachments(client: &Client) -> Result<Vec<Sample>> {
    let schema = Schema::read(client).await?;
    if !["ir_attachment.checksum", "ir_attachment.store_fname", "ir_attachment.access_token"]
        .iter()
        .all(|c| schema.has(c))
    {
        return Ok(Vec::new());
    }
    let sql = "
        WITH stored AS (SELECT id, coalesce(res_model, '') AS model, coalesce(mimetype, '') AS type, coalesce(file_size, 0) AS size
                          FROM public.ir_attachment
                         WHERE type = 'binary' AND checksum IS NOT NULL AND store_fname ~ '^[0-9a-f]{2,3}/[0-9a-f]{40}$'),
             chosen AS ((SELECT id FROM (SELECT DISTINCT ON (model, type) id FROM stored ORDER BY model, type, id DESC) k LIMIT $1)
                        UNION (SELECT id FROM stored ORDER BY id DESC LIMIT $2)
                        UNION (SELECT id FROM stored ORDER BY size DESC, id LIMIT $2))
        UPDATE public.ir_attachment a SET access_token = gen_random_uuid()::text FROM chosen c WHERE c.id = a.id
        RETURNING a.id, a.checksum::text, a.access_token::text, concat_ws(' ', a.res_model, a.mimetype)";
    let rows = client.query(sql, &[&KINDS, &EXTREMES]).await.map_err(|e| explain(e, "cannot choose attachments"))?;
    Ok(rows
        .iter()
        .map(|row| Sample { id: row.get(0), checksum: row.get(1), token: row.get(2), kind: row.get(3) })
        .collect())
}

/// A document that can be shown as a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// `account.report_invoice`
    pub(super) report: &'static str,
    pub(super) id: i32,
    pub(super) name: String,
    /// Whose it is.
    pub(super) company: Option<i32>,
}

impl Document {
    /// Where it is shown, as `html` or `pdf`. The company is said as the web client says it: with a website installed
    /// Odoo goes by the website's company otherwise, and refuses the documents of every other.
    pub(super) fn path(&self, converter: &str) -> String {
        let path = format!("/report/{converter}/{}/{}", self.report, self.id);
        match self.company {
            Some(company) => format!("{path}?context=%7B%22allowed_company_ids%22%3A%5B{company}%5D%7D"),
            None => path,
        }
    }
}

/// The newest posted invoice of a company of `user`, or confirmed order where there is none.
pub(super) async fn document(client: &Client, user: Option<&User>) -> Result<Option<Document>> {
    let schema = Schema::read(client).await?;
    let candidates = [
        (
            "account_move",
            "move_type",
            "account.report_invoice",
            "state = 'posted' AND move_type IN ('out_invoice', 'out_refund') AND name <> '/'",
        ),
        ("sale_order", "state", "sale.report_saleorder", "state IN ('sale', 'done')"),
    ];
    for (table, needs, report, fits) in candidates {
        let has = |column: &str| schema.has(&format!("{table}.{column}"));
        if !has(needs) {
            continue;
        }
        let (company, theirs) = match user {
            Some(user) if has("company_id") && schema.has("res_company_users_rel.cid") => (
                "company_id",
                format!("company_id IN (SELECT cid FROM public.res_company_users_rel WHERE user_id = {})", user.id),
            ),
            _ => ("NULL::int", "true".to_owned()),
        };
        let sql = format!(
            "SELECT id, name::text, {company} FROM public.{table} WHERE {fits} AND {theirs} ORDER BY id DESC LIMIT 1"
        );
        let found = client.query_opt(&sql, &[]).await.map_err(|e| explain(e, format!("cannot read {table}")))?;
        if let Some(row) = found {
            return Ok(Some(Document { report, id: row.get(0), name: row.get(1), company: row.get(2) }));
        }
    }
    Ok(None)
}
