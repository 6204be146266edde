//! Doing damage: to the files of a stopped copy, and to the rows of a running one.

use std::os::unix::fs::FileExt;
use std::path::Path;

use tokio_postgres::Client;

use super::cases::{Case, Damage, Sql};
use super::facts::Facts;
use crate::disk::failed;
use crate::error::{self, Result};
use crate::postgres::server::PrivateServer;
use crate::postgres::sql::explain;
use crate::restore::Plan;

/// Size of a page.
const PAGE: u64 = 8192;

/// Files of attachments that a case damages.
const FILES_DAMAGED: usize = 3;

/// Damages files of the stopped copy; tells which.
pub(super) fn on_disk(case: &Case, plan: &Plan, facts: &Facts) -> Result<String> {
    match case.damage {
        Damage::TruncateRelation | Damage::FlipPage => {
            let relation = facts.relation.as_ref().ok_or_else(|| error::internal("no relation was chosen"))?;
            let path = plan.pgdata.join(&relation.path);
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&path);
            let file = file.map_err(|e| failed("cannot open", &path, e))?;
            let length = file.metadata().map_err(|e| failed("cannot look at", &path, e))?.len();
            let work = match case.damage {
                Damage::TruncateRelation => file.set_len(length / PAGE / 2 * PAGE),
                // The end of the first page: values of its first row.
                _ => flip(&file, PAGE - 8),
            };
            work.map_err(|e| failed("cannot damage", &path, e))?;
            Ok(format!("{} ({})", relation.name, relation.path))
        }
        Damage::DeleteAttachments | Damage::CorruptAttachments | Damage::EmptyFilestore => {
            let root = plan.filestore.as_deref().ok_or_else(|| error::internal("there are no attachments"))?;
            attachments_on_disk(case.damage, root)
        }
        _ => Ok(String::new()),
    }
}

fn attachments_on_disk(damage: Damage, root: &Path) -> Result<String> {
    if matches!(damage, Damage::EmptyFilestore) {
        std::fs::remove_dir_all(root).map_err(|e| failed("cannot remove", root, e))?;
        std::fs::create_dir(root).map_err(|e| failed("cannot create", root, e))?;
        return Ok("every file".to_owned());
    }
    let mut files: Vec<_> =
        walkdir::WalkDir::new(root).sort_by_file_name().into_iter().filter_map(|e| e.ok()).collect();
    files.retain(|e| e.file_type().is_file());
    let step = (files.len() / FILES_DAMAGED).max(1);
    let mut named = Vec::new();
    for file in files.iter().step_by(step).take(FILES_DAMAGED) {
        let path = file.path();
        let done = match damage {
            Damage::DeleteAttachments => std::fs::remove_file(path),
            _ => std::fs::OpenOptions::new().read(true).write(true).open(path).and_then(|f| flip(&f, 0)),
        };
        done.map_err(|e| failed("cannot damage", path, e))?;
        named.push(path.strip_prefix(root).unwrap_or(path).display().to_string());
    }
    Ok(named.join(", "))
}

/// Changes one byte.
fn flip(file: &std::fs::File, at: u64) -> std::io::Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0x55], at)
}

/// Changes rows of the running copy; `None` where there is nothing to change.
pub(super) async fn change(server: &PrivateServer, sql: &Sql, facts: &Facts) -> Result<Option<String>> {
    let database = facts.odoo.as_deref().unwrap_or_default();
    let client: Client = server.sql(if sql.in_odoo { database } else { "template1" }).await?;
    let quoted = |text: &str| {
        text.replace("{role}", &format!("'{}'", facts.role.as_deref().unwrap_or_default().replace('\'', "''")))
            .replace("{database}", &format!("\"{}\"", database.replace('"', "\"\"")))
    };
    let possible = client.query_one(&quoted(sql.possible), &[]).await;
    if !possible.is_ok_and(|row| row.get(0)) {
        return Ok(None);
    }
    client.batch_execute(&quoted(sql.statements)).await.map_err(|e| explain(e, "cannot damage the copy"))?;
    Ok(Some(match sql.in_odoo {
        true => format!("database {database}"),
        false => quoted(sql.statements).rsplit("; ").next().unwrap_or_default().to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_to_files_is_done_and_named() {
        let dir = tempfile::tempdir().expect("dir");
        for name in ["shop/aa/1", "shop/bb/2", "shop/cc/3", "shop/dd/4"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("dir");
            std::fs::write(path, "content").expect("file");
        }
        let named = attachments_on_disk(Damage::CorruptAttachments, dir.path()).expect("done");
        assert_eq!(named, "shop/aa/1, shop/bb/2, shop/cc/3");
        let read = |name: &str| std::fs::read(dir.path().join(name)).expect("file");
        assert_ne!(read("shop/bb/2"), b"content");
        assert_eq!((read("shop/bb/2").len(), read("shop/dd/4").as_slice()), (7, b"content".as_slice()));
        attachments_on_disk(Damage::DeleteAttachments, dir.path()).expect("done");
        assert!(!dir.path().join("shop/aa/1").exists());
        attachments_on_disk(Damage::EmptyFilestore, dir.path()).expect("done");
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 0);
    }
}
