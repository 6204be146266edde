//! A database in the cluster that it is restored into: made under a temporary name, which nobody may connect to and
//! Odoo does not list, filled, compared, and only then given its name. There is no moment at which half a database
//! has the name that was asked for, and none at which something that existed is changed.
//!
//! *Hidden from Odoo* means marked as a template: Odoo lists, and runs scheduled jobs of, databases of its role that are
//! not templates (`odoo/service/db.py`, `list_dbs`).
//!
//! The dump is loaded in three sections. Between the first (tables, functions, extensions) and the others (rows, then
//! indexes), functions of extensions get the volatility that they had: dumps do not hold it, and an index on
//! `unaccent(…)` can only be made when that function is marked IMMUTABLE, as Odoo does.

use std::path::Path;

use tokio::process::Command;
use tokio_postgres::Client;

use super::aside::quote;
use super::find::Found;
use super::programs::{Programs, finish, jobs};
use crate::error::{self, Result};
use crate::postgres::source::Source;
use crate::postgres::sql::{explain, place};

/// A cluster that a database is loaded into.
#[derive(Debug)]
pub struct Target {
    source: Source,
    /// Where it is, for people.
    pub place: String,
    /// Its system identifier.
    pub system_id: String,
    /// Its major version.
    pub major: u32,
    /// The role of our sessions.
    pub role: String,
}

impl Target {
    /// Connects and looks who it is.
    pub async fn connect(source: Source) -> Result<Self> {
        let client = source.sql().await?;
        let query = "SELECT system_identifier::text, current_setting('server_version_num')::int, current_user::text,
                            pg_is_in_recovery()
                       FROM pg_control_system()";
        let row = client.query_one(query, &[]).await.map_err(|e| explain(e, "cannot ask the cluster who it is"))?;
        let place = place(source.dsn());
        if row.get(3) {
            return Err(error::usage(format!("the cluster at {place} is a standby, so nothing can be written to it"))
                .meaning("nothing was restored")
                .hint("name the primary"));
        }
        let version: i32 = row.get(1);
        let major = u32::try_from(version / 10_000).unwrap_or(0);
        Ok(Self { source, place, system_id: row.get(0), major, role: row.get(2) })
    }

    /// A session in one of its databases.
    pub async fn sql(&self, database: &str) -> Result<Client> {
        self.source.sql_in(database).await
    }

    /// Whether this is where the other leads, by the words of both.
    pub fn is_reached_by(&self, other: &Source) -> bool {
        place(other.dsn()) == self.place
    }

    async fn maintenance(&self) -> Result<Client> {
        self.source.sql().await
    }

    /// Refuses before anything is done what would fail, or overwrite, at the end.
    pub async fn admit(&self, name: &str, owner: Option<&str>, restored_major: u32) -> Result<()> {
        if name.is_empty() || name.len() > 63 || name.contains('\0') {
            return Err(error::usage(format!("\"{name}\" is not the name of a database"))
                .hint("PostgreSQL takes 1 to 63 bytes; Odoo letters, digits, `_`, `-` and `.`"));
        }
        if self.major < restored_major {
            return Err(error::usage(format!(
                "the cluster at {} is of PostgreSQL {}, the backed-up one of {restored_major}",
                self.place, self.major
            ))
            .meaning("nothing was restored: an older server does not understand the dump of a newer one")
            .hint("load into a cluster of the same or a newer major version, or use --odoo-zip"));
        }
        let client = self.maintenance().await?;
        if exists(&client, name).await? {
            return Err(error::usage(format!("the cluster at {} already has a database \"{name}\"", self.place))
                .meaning("nothing was restored, and nothing is ever overwritten")
                .hint("choose another name with --as; exchange the two by ALTER DATABASE … RENAME TO afterwards"));
        }
        let query =
            "SELECT rolsuper, rolcreatedb, $1::text IS NULL OR EXISTS (SELECT FROM pg_roles WHERE rolname = $1),
                            $1::text IS NULL OR rolsuper
                            OR EXISTS (SELECT FROM pg_roles o WHERE o.rolname = $1 AND pg_has_role(o.oid, 'MEMBER'))
                       FROM pg_roles WHERE rolname = current_user";
        let row =
            client.query_one(query, &[&owner]).await.map_err(|e| explain(e, "cannot read what our role may do"))?;
        let (superuser, may_create): (bool, bool) = (row.get(0), row.get(1));
        if !superuser && !may_create {
            return Err(error::source(format!("the role {} at {} may not create databases", self.role, self.place))
                .meaning("nothing was restored")
                .hint("name a role that may, for example --into-cluster \"host=/run/postgresql user=postgres dbname=postgres\""));
        }
        let owner = owner.unwrap_or(&self.role);
        match (row.get(2), row.get(3)) {
            (true, true) => Ok(()),
            (false, _) => Err(error::usage(format!("the cluster at {} has no role \"{owner}\"", self.place))
                .meaning("nothing was restored")),
            (true, false) => {
                Err(error::source(format!("{} may not make {owner} the owner: it is no member", self.role))
                    .meaning("nothing was restored")
                    .hint(format!("connect as a superuser, or GRANT {} TO {}", quote(owner), quote(&self.role))))
            }
        }
    }

    /// Makes the empty database under its temporary name.
    pub(super) async fn create(&self, temporary: &str, like: &Found, owner: Option<&str>) -> Result<()> {
        let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let mut sql = format!(
            "CREATE DATABASE {} WITH TEMPLATE template0 IS_TEMPLATE true OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            quote(temporary),
            quote(owner.unwrap_or(&self.role)),
            literal(&like.encoding),
            literal(&like.collate),
            literal(&like.ctype)
        );
        if self.major >= 15 {
            let locale = like.locale.as_deref().map(literal);
            match (like.provider, locale) {
                ('i', Some(locale)) => sql += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {locale}"),
                ('b', Some(locale)) => sql += &format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}"),
                _ => sql += " LOCALE_PROVIDER libc",
            }
        }
        let client = self.maintenance().await?;
        let cannot = |e| {
            explain(e, format!("cannot create a database at {}", self.place)).hint(format!(
                "the database had encoding {}, collation {} and character type {}; the host must have that locale",
                like.encoding, like.collate, like.ctype
            ))
        };
        client.batch_execute(&sql).await.map_err(cannot)?;
        let shut = format!(
            "REVOKE ALL ON DATABASE {0} FROM PUBLIC; GRANT CONNECT, CREATE ON DATABASE {0} TO CURRENT_USER",
            quote(temporary)
        );
        client.batch_execute(&shut).await.map_err(|e| explain(e, "cannot shut the new database"))
    }

    /// Fills it. `marked` are the functions of extensions that were IMMUTABLE at the source.
    pub(super) async fn fill(
        &self,
        programs: &Programs,
        archive: &Path,
        temporary: &str,
        owner: Option<&str>,
        marked: &[String],
    ) -> Result<()> {
        self.section(programs, archive, temporary, owner, "pre-data").await?;
        let client = self.sql(temporary).await?;
        mark_immutable(&client, marked).await?;
        self.section(programs, archive, temporary, owner, "data").await?;
        self.section(programs, archive, temporary, owner, "post-data").await?;
        client.batch_execute("ANALYZE").await.map_err(|e| explain(e, "cannot analyze the loaded tables"))
    }

    async fn section(
        &self,
        programs: &Programs,
        archive: &Path,
        temporary: &str,
        owner: Option<&str>,
        section: &str,
    ) -> Result<()> {
        let mut command = Command::new(programs.dir.join("pg_restore"));
        command.env_clear().current_dir("/").envs(self.source.libpq(temporary));
        // What is lost with a crash before the database has its name is thrown away anyway; giving it its name is
        // a commit that waits, and so does everything before it.
        let options = self.source.dsn().get_options().unwrap_or_default();
        command.env("PGOPTIONS", format!("{options} -c synchronous_commit=off -c statement_timeout=0"));
        command.args(["--exit-on-error", "--no-password", "--no-owner", "--no-privileges", "--no-tablespaces"]);
        command.args(["--no-publications", "--no-subscriptions"]);
        command.arg(format!("--section={section}")).arg(format!("--jobs={}", jobs()));
        if let Some(owner) = owner {
            command.arg(format!("--role={owner}"));
        }
        command.arg(format!("--dbname={temporary}")).arg(archive);
        finish(command, &format!("loading {section} at {}", self.place))
            .await
            .map_err(|e| e.meaning("what was loaded is removed again; nothing that existed was changed"))
    }

    /// Gives the database its name: from here on it is there. `hidden` keeps it from Odoo.
    pub(super) async fn publish(&self, temporary: &str, name: &str, hidden: bool) -> Result<()> {
        let client = self.maintenance().await?;
        let rename = format!("ALTER DATABASE {} RENAME TO {}", quote(temporary), quote(name));
        let taken = |e: tokio_postgres::Error| {
            explain(e, format!("cannot give the database the name {name}"))
                .meaning("it is removed again; nothing that existed was changed")
        };
        let open = format!("GRANT CONNECT, TEMPORARY ON DATABASE {} TO PUBLIC", quote(temporary));
        client.batch_execute(&open).await.map_err(taken)?;
        client.batch_execute(&rename).await.map_err(taken)?;
        match hidden {
            true => Ok(()),
            false => client
                .batch_execute(&format!("ALTER DATABASE {} WITH IS_TEMPLATE false", quote(name)))
                .await
                .map_err(|e| explain(e, format!("{name} is there, but still marked as a template"))),
        }
    }

    /// Drops a database of ours; one that is not there is no error.
    pub(super) async fn drop_database(&self, database: &str) -> Result<()> {
        let client = self.maintenance().await?;
        if !exists(&client, database).await? {
            return Ok(());
        }
        let cannot = |e| explain(e, format!("cannot remove the database {database} at {}", self.place));
        let open = format!("ALTER DATABASE {} WITH IS_TEMPLATE false", quote(database));
        client.batch_execute(&open).await.map_err(cannot)?;
        client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", quote(database))).await.map_err(cannot)
    }
}

async fn exists(client: &Client, database: &str) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    let row = client.query_one(query, &[&database]).await.map_err(|e| explain(e, "cannot look for the database"))?;
    Ok(row.get(0))
}

/// The functions of extensions that are marked IMMUTABLE, written as SQL names them; with `used`, those of them that an
/// index, a default or a generated column calls.
pub(super) async fn immutable_functions(client: &Client, used: bool) -> Result<Vec<String>> {
    let query = "SELECT p.oid::regprocedure::text FROM pg_proc p
                   JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                  WHERE p.provolatile = 'i' AND p.prokind = 'f'
                    AND (NOT $1 OR EXISTS (SELECT FROM pg_depend u
                                            WHERE u.refclassid = 'pg_proc'::regclass AND u.refobjid = p.oid
                                              AND u.classid IN ('pg_class'::regclass, 'pg_attrdef'::regclass)))
                  ORDER BY 1";
    let cannot = |e| explain(e, "cannot read the functions of the extensions");
    client.batch_execute("SET search_path = pg_catalog").await.map_err(cannot)?;
    let rows = client.query(query, &[&used]).await.map_err(cannot)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Marks the functions that are there and are not marked.
async fn mark_immutable(client: &Client, wanted: &[String]) -> Result<()> {
    let there = immutable_functions(client, false).await?;
    for function in wanted.iter().filter(|f| !there.contains(f)) {
        let known = client
            .query_one("SELECT to_regprocedure($1) IS NOT NULL", &[function])
            .await
            .map_err(|e| explain(e, format!("cannot look for {function}")))?;
        // Another version of the extension may lack it; what needs it then fails by name.
        if known.get(0) {
            client.batch_execute(&format!("ALTER FUNCTION {function} IMMUTABLE")).await.map_err(|e| {
                explain(e, format!("cannot mark {function} as IMMUTABLE, as it was at the source"))
                    .meaning("indexes that use it cannot be made; what was loaded is removed again")
                    .hint("connect as a superuser: the function belongs to its extension")
            })?;
        }
    }
    Ok(())
}
