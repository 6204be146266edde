//! Base backups: completeness, tablespaces, damage.

use std::collections::HashMap;
use std::process::Command;

use super::*;
use crate::error::ErrorKind;
use crate::postgres::replication::testing::{bin_dir, give_to_server, unpack};

/// `pg_verifybackup` on what was received; PostgreSQL from npm has none.
fn judged_by_postgresql(backup: &Backup) {
    let judge = bin_dir().expect("seen before").join("pg_verifybackup");
    if !judge.exists() {
        println!("skipped: no pg_verifybackup");
        return;
    }
    let dir = tempfile::tempdir().expect("temp dir");
    unpack(backup.archives.last().expect("the data directory"), dir.path());
    std::fs::write(dir.path().join("backup_manifest"), &backup.manifest).expect("written");
    let verdict = Command::new(judge).arg("--no-parse-wal").arg(dir.path()).output().expect("pg_verifybackup runs");
    assert!(verdict.status.success(), "{}", String::from_utf8_lossy(&verdict.stderr));
}

#[tokio::test]
async fn a_base_backup_with_tablespaces_is_complete() {
    let Some(server) = TestServer::start(&[], &[]).await else { return };
    let space = server.path().join("space");
    std::fs::create_dir(&space).expect("created");
    give_to_server(&space);
    let sql = server.sql().await;
    sql.batch_execute(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display())).await.expect("tablespace");
    sql.batch_execute("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 100000) AS n").await.expect("table");
    let options = BaseBackupOptions {
        label: "it's a test".into(),
        manifest_checksums: ManifestChecksums::Sha256,
        ..BaseBackupOptions::default()
    };
    let backup = backup(replication(&server).await, &options).await;

    assert!(backup.start < backup.end);
    assert_eq!(backup.tablespaces.len(), 2);
    let (fast, base) = (&backup.tablespaces[0], &backup.tablespaces[1]);
    assert_eq!(fast.location.as_deref(), space.to_str());
    assert!(fast.oid.is_some() && fast.size_kib.is_some_and(|size| size > 3000), "{fast:?}");
    assert!(
        base.oid.is_none() && base.location.is_none() && base.size_kib.is_some_and(|size| size > 10_000),
        "{base:?}"
    );

    let mut files = HashMap::new();
    for (index, archive) in backup.archives.iter().enumerate() {
        for entry in tar::Archive::new(&archive[..]).entries().expect("a tar archive") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).expect("whole");
            files.insert((index, name), content);
        }
    }
    let label = String::from_utf8_lossy(&files[&(1, "backup_label".to_string())]).into_owned();
    assert!(label.contains("LABEL: it's a test") && label.contains(&backup.start.to_string()), "{label}");
    assert!(files.contains_key(&(1, "global/pg_control".to_string())));
    assert!(!files.contains_key(&(1, "tablespace_map".to_string())), "links travel in the archive");
    assert!(files.keys().any(|(index, name)| *index == 0 && name.starts_with("PG_")));

    judged_by_postgresql(&backup);

    let manifest: serde_json::Value = serde_json::from_slice(&backup.manifest).expect("the manifest is JSON");
    let listed = manifest["Files"].as_array().expect("files");
    assert!(listed.len() > 500);
    assert_eq!(listed[0]["Checksum-Algorithm"], "SHA256");
    assert_eq!(manifest["WAL-Ranges"][0]["End-LSN"], backup.end.to_string());
}

#[tokio::test]
async fn a_damaged_page_is_told_when_everything_was_sent() {
    let Some(server) = TestServer::start(&[], &[]).await else { return };
    let sql = server.sql().await;
    let path = "SELECT pg_relation_filepath('t')";
    sql.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 100000) AS n; CHECKPOINT").await.expect("table");
    let file = server.data().join(sql.query_one(path, &[]).await.expect("row").get::<_, String>(0));
    let mut bytes = std::fs::read(&file).expect("the table");
    bytes[8192 * 3 + 4000] ^= 1;
    std::fs::write(&file, bytes).expect("damaged");

    let mut stream = replication(&server).await.base_backup(&BaseBackupOptions::default()).await.expect("started");
    assert!(stream.damage().is_none());
    while !matches!(stream.next().await.expect("sent"), BackupMessage::Finished { .. }) {}
    let error = stream.damage().expect("told");
    assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Integrity, Some("XX001")), "{error}");
    assert!(stream.warnings().iter().any(|w| w.message.contains("checksum")), "{:?}", stream.warnings());
}
