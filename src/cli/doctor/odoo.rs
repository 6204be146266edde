//! An Odoo instance: can its files and its attachments be read from here?

use tokio_postgres::Client;

use super::Findings;
use crate::config::{Environment, OdooConfig};
use crate::error::{self, ErrorKind, ResultExt};
use crate::filestore::survey;
use crate::postgres::source::Source;
use crate::postgres::sql::explain;

/// Odoo's directories and files.
pub(super) fn files(findings: &mut Findings, odoo: &OdooConfig) {
    let readable = |path: &std::path::Path| std::fs::read_dir(path).map(|_| ());
    let filestore = odoo.data_dir.join("filestore");
    let looked = readable(&filestore)
        .or_err(ErrorKind::Source, || format!("cannot read the filestore directory {}", filestore.display()));
    match looked.map_err(|e| e.hint("run Lifeboat as root or as Odoo's account, on the host that has the filestore")) {
        Ok(()) => findings.ok("filestore", format!("{} is readable", filestore.display())),
        Err(failure) => findings.fail("filestore", &failure),
    }
    if let Some(file) = &odoo.config_file {
        let looked = std::fs::File::open(file).or_err(ErrorKind::Source, || format!("cannot read {}", file.display()));
        match looked {
            Ok(_) => findings.ok("odoo.conf", format!("{} is readable", file.display())),
            Err(failure) => findings.fail("odoo.conf", &failure.hint("run Lifeboat as root or as Odoo's account")),
        }
    }
}

/// The configured databases: there, and their attachments readable.
pub(super) async fn databases(findings: &mut Findings, environment: &Environment, odoo: &OdooConfig, client: &Client) {
    let Some(names) = &odoo.databases else { return };
    let Ok(source) = Source::new(&environment.postgres) else { return };
    let there = crate::postgres::source::databases(client).await.unwrap_or_default();
    for name in names {
        if !there.contains(name) {
            let absent = error::source(format!("there is no database \"{name}\" in this cluster"))
                .hint(format!("databases: {}", there.join(", ")));
            findings.fail("databases", &absent);
            continue;
        }
        let looked = async {
            let client = source.sql_in(name).await?;
            // Names are resolved in pg_catalog only: the database belongs to somebody else.
            let query = "SELECT coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('public.ir_attachment'), 'SELECT'), false)";
            let row = client.query_one(query, &[]).await.map_err(|e| explain(e, "cannot look at ir_attachment"))?;
            Ok(row.get::<_, bool>(0))
        };
        match looked.await {
            Ok(true) => findings.ok("databases", format!("{name}: attachments are readable")),
            Ok(false) => {
                let refused = error::source(format!("{name}: ir_attachment is not there or not readable"))
                    .hint("GRANT SELECT ON ALL TABLES IN SCHEMA public, or pg_read_all_data (PostgreSQL 14 and later)");
                findings.fail("databases", &refused);
            }
            Err(failure) => findings.fail("databases", &failure),
        }
    }
}

/// Whether databases and filestores belong together, and which attachments no backup covers.
pub(super) async fn filestores(findings: &mut Findings, environment: &Environment) {
    let looked = async { survey(&Source::new(&environment.postgres)?, &environment.odoo).await };
    let Some(found) = findings.take("filestores", looked.await) else { return };
    for tenant in &found.tenants {
        let (name, directory) = (&tenant.database, tenant.directory.display());
        match (tenant.there, tenant.refers) {
            (true, _) => findings.ok("filestores", format!("{name}: its files are in {directory}")),
            (false, false) => findings.ok("filestores", format!("{name} has no files yet")),
            (false, true) => {
                let nowhere = error::source(format!("{name} refers to files, but there is no directory {directory}"));
                findings.fail("filestores", &match tenant.others.first() {
                    Some(other) => nowhere.hint(format!(
                        "{} is there: list {name} under `databases` of the `[[environment.odoo]]` with that data_dir",
                        other.display()
                    )),
                    None => nowhere.hint("add `[[environment.odoo]]` with the data_dir of the Odoo that serves this database"),
                });
            }
        }
        if tenant.there && !tenant.others.is_empty() {
            let others: Vec<String> = tenant.others.iter().map(|o| o.display().to_string()).collect();
            let words = format!("{name} has files in {} as well, which are not captured", others.join(", "));
            findings.warning(
                "filestores",
                words,
                "remove what is a leftover, or correct `databases` of both instances",
            );
        }
        for elsewhere in &tenant.not_covered {
            findings.warning(
                "not covered",
                format!("{name}: {elsewhere}: no backup of database and filestore holds their content"),
                "switch on versioning or replication in that store, or move them; runbooks/restore.md has a section on attachments elsewhere",
            );
        }
    }
    for stray in &found.strays {
        let words = format!("{} belongs to no database of this cluster; it is not captured", stray.display());
        findings.warning("filestores", words, "left by a DROP DATABASE outside Odoo, or the files of another cluster");
    }
}
