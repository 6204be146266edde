//! Reconciliation: what databases refer to, what was captured and what was restored agree.

use crate::config::{Environment, OdooConfig};
use crate::error::Result;
use crate::evidence::drill_record::{AttachmentReconciliation, Check, CheckResult, Severity};
use crate::evidence::entry::FilestoreCapture;
use crate::filestore::database_uuid;
use crate::postgres::server::PrivateServer;
use crate::postgres::source::databases;
use crate::postgres::sql::explain;
use crate::restore::Resolved;
use crate::restore::recover::Stopped;

/// Recovery stopped exactly behind the record that the target was resolved to. One that stops elsewhere ends the drill;
/// here it is said that this one did not.
pub fn stop(target: &Resolved, stopped: &Stopped) -> Check {
    let result = if stopped.as_intended(target) { CheckResult::Passed } else { CheckResult::Failed };
    check(
        "R1",
        "Recovery stopped exactly at the target",
        "PostgreSQL ends recovery without an error where WAL ends. Only the place where it stopped tells that nothing is missing.",
        "cluster",
        Severity::Hard,
        (result, format!("stopped at {}, meant {}", stopped.lsn, target.stop_end), Vec::new()),
    )
}

/// Every file that an attachment refers to was restored, with the content that its name says.
pub fn files(of: &AttachmentReconciliation) -> Check {
    let (result, detail) = match of.is_sound() {
        true => (CheckResult::Passed, format!("{} files, {} verified by their SHA-1", of.referenced, of.verified)),
        false => (CheckResult::Failed, format!("{} files, {} there, {} sound", of.referenced, of.present, of.verified)),
    };
    let rows =
        of.missing.iter().take(5).map(|m| {
            format!("store_fname={} model={} id={}", m.store_fname, m.model.as_deref().unwrap_or("NULL"), m.id)
        });
    check(
        "F4",
        "Every file that an attachment refers to is there, with the right content",
        "A document whose file is missing opens empty, without an error, and is sent to customers like that.",
        &of.database,
        Severity::Hard,
        (result, detail, rows.collect()),
    )
}

/// An Odoo database as its restored copy tells.
struct Tenant {
    name: String,
    uuid: Option<String>,
    files: bool,
}

/// Every Odoo database has its filestore, and every filestore that was captured has its database.
///
/// # Errors
/// When the restored server does not answer.
pub async fn tenants(
    server: &PrivateServer,
    environment: &Environment,
    captures: &[&FilestoreCapture],
) -> Result<Vec<Check>> {
    let mut tenants = Vec::new();
    for name in databases(&server.sql("template1").await?).await? {
        let client = server.sql(&name).await?;
        let query = "SELECT to_regclass('public.ir_attachment') IS NOT NULL \
                     AND to_regclass('public.ir_config_parameter') IS NOT NULL";
        let failed = |e| explain(e, format!("cannot look for attachments in {name}"));
        if !client.query_one(query, &[]).await.map_err(failed)?.get::<_, bool>(0) {
            continue;
        }
        let query =
            "SELECT EXISTS (SELECT FROM public.ir_attachment WHERE store_fname ~ '^[0-9a-f]{2,3}/[0-9a-f]{40}$')";
        let files = client.query_one(query, &[]).await.map_err(failed)?.get(0);
        tenants.push(Tenant { uuid: database_uuid(&client).await?, files, name });
    }
    Ok(judge(&tenants, &environment.odoo, captures))
}

fn judge(tenants: &[Tenant], instances: &[OdooConfig], captures: &[&FilestoreCapture]) -> Vec<Check> {
    let mut results = Vec::new();
    for tenant in tenants {
        let found = captures.iter().any(|c| c.database == tenant.name);
        let wanted = instances.iter().any(|i| i.databases.as_ref().is_none_or(|names| names.contains(&tenant.name)));
        let result = match (found, tenant.files) {
            (true, _) => (CheckResult::Passed, "its filestore was captured".to_owned()),
            (false, false) => (CheckResult::NotApplicable, "it refers to no file".to_owned()),
            (false, true) => (CheckResult::Failed, "no filestore was ever captured under its name".to_owned()),
        };
        results.push(check(
            "F5",
            "The Odoo database has its filestore",
            "Odoo looks for documents in a directory named after the database. Without it every document is empty.",
            &tenant.name,
            // A database that the configuration does not claim may be left out on purpose.
            if wanted { Severity::Hard } else { Severity::Baseline },
            (result.0, result.1, Vec::new()),
        ));
    }
    let mut names: Vec<&str> = captures.iter().map(|c| c.database.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let there = tenants.iter().any(|t| t.name == name);
        let uuids: Vec<&str> =
            captures.iter().filter(|c| c.database == name).filter_map(|c| c.database_uuid.as_deref()).collect();
        let captured = |t: &&Tenant| captures.iter().any(|c| c.database == t.name);
        let renamed = tenants.iter().find(|t| t.uuid.as_deref().is_some_and(|u| uuids.contains(&u)) && !captured(t));
        let result = match (there, renamed) {
            (true, _) => (CheckResult::Passed, "it was restored under its name".to_owned()),
            (false, Some(other)) => (CheckResult::Failed, format!("it was restored as {}, without files", other.name)),
            (false, None) => (CheckResult::NotApplicable, "no such database existed at the target".to_owned()),
        };
        results.push(check(
            "F6",
            "The filestore that was captured has its database",
            "A database that comes back under another name does not find its documents.",
            name,
            Severity::Hard,
            (result.0, result.1, Vec::new()),
        ));
    }
    results
}

fn check(
    id: &str,
    title: &str,
    why: &str,
    scope: &str,
    severity: Severity,
    (result, detail, rows): (CheckResult, String, Vec<String>),
) -> Check {
    Check {
        id: id.to_owned(),
        title: title.to_owned(),
        why: why.to_owned(),
        severity,
        scope: scope.to_owned(),
        result,
        detail,
        rows,
        seconds: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::evidence::entry::RestorePoint;
    use crate::units::Lsn;

    fn capture(database: &str, uuid: &str) -> FilestoreCapture {
        FilestoreCapture {
            id: "c".into(),
            data_dir: "/d".into(),
            database: database.into(),
            database_uuid: Some(uuid.into()),
            restore_point: RestorePoint { name: "p".into(), lsn: Lsn(1), time: DateTime::UNIX_EPOCH },
            scan_started: DateTime::UNIX_EPOCH,
            scan_finished: DateTime::UNIX_EPOCH,
            files_present: 1,
            files_new: 1,
            bytes_new: 1,
            files_disappeared: 0,
            suspects: Vec::new(),
            referenced: 1,
            missing_at_source: Vec::new(),
            index: String::new(),
            complete: true,
            not_covered: Vec::new(),
            collection: None,
        }
    }

    fn tenant(name: &str, uuid: &str, files: bool) -> Tenant {
        Tenant { name: name.into(), uuid: Some(uuid.into()), files }
    }

    fn judged(tenants: &[Tenant], captures: &[FilestoreCapture]) -> Vec<(String, String, CheckResult)> {
        let instances =
            [OdooConfig { data_dir: "/d".into(), config_file: None, databases: None, addons_paths: Vec::new() }];
        let captures: Vec<&FilestoreCapture> = captures.iter().collect();
        judge(tenants, &instances, &captures).into_iter().map(|c| (c.id, c.scope, c.result)).collect()
    }

    #[test]
    fn databases_and_filestores_belong_together_by_name() {
        let row = |id: &str, scope: &str, result| (id.to_owned(), scope.to_owned(), result);
        let captures = [capture("shop", "u1"), capture("old", "u2")];
        use CheckResult::{Failed, NotApplicable, Passed};
        let sound = judged(&[tenant("shop", "u1", true)], &captures);
        assert_eq!(sound, [row("F5", "shop", Passed), row("F6", "old", NotApplicable), row("F6", "shop", Passed)]);
        let renamed = judged(&[tenant("shop2", "u1", true)], &captures);
        assert_eq!(renamed, [row("F5", "shop2", Failed), row("F6", "old", NotApplicable), row("F6", "shop", Failed)]);
        assert_eq!(judged(&[tenant("new", "u3", false)], &[]), [row("F5", "new", NotApplicable)]);
        // Restored to before it was renamed: both names were captured.
        let before = judged(&[tenant("shop", "u1", true)], &[capture("shop", "u1"), capture("store", "u1")]);
        assert_eq!(before[1..], [row("F6", "shop", Passed), row("F6", "store", NotApplicable)]);
    }
}
