//! What a database refers to, by SQL on `ir_attachment` (never through Odoo, whose searches hide
//! rows, and never through its other interfaces, which read a missing file as empty).
//!
//! Call these inside one REPEATABLE READ transaction and they speak of one state of the database.
//! Rows stream: memory does not grow with the number of attachments.

use std::fmt;

use chrono::{DateTime, NaiveDateTime, Utc};
use futures::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio_postgres::{GenericClient, Row};

use super::name::FileName;
use crate::error::{ErrorKind, Result, ResultExt};

/// One file that attachments refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The name as it stands in the rows.
    pub store_fname: String,
    /// The name parsed; absent when directory and digest disagree, which Odoo never writes.
    pub name: Option<FileName>,
    /// The size that the rows give.
    pub file_size: Option<i64>,
    /// The checksum that the rows give; equal to the digest in the name.
    pub checksum: Option<String>,
    /// How many attachments share the file.
    pub references: i64,
    /// Since when one of them surely refers to it: the oldest of their last changes.
    pub since: Option<DateTime<Utc>>,
    /// One of them, to name it to people.
    pub example: Example,
}

/// The attachment with the lowest id of those that share a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// `ir_attachment.id`.
    pub attachment_id: i64,
    /// The model of the record that it hangs on.
    pub res_model: Option<String>,
    /// The id of that record.
    pub res_id: Option<i64>,
    /// The field, when the attachment holds a field's value.
    pub res_field: Option<String>,
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attachment {}", self.attachment_id)?;
        if let Some(model) = &self.res_model {
            write!(f, " of {model}")?;
            if let Some(id) = self.res_id {
                write!(f, " {id}")?;
            }
        }
        Ok(())
    }
}

/// How attachments are stored, and how many each way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// `file`, `db`, `empty`, `url`, `unknown`, or the name of another storage (`s3`, `cloud_storage`),
    /// which no filestore capture covers.
    pub storage: String,
    /// Attachments.
    pub attachments: i64,
    /// Distinct files.
    pub files: i64,
    /// Bytes that the rows give.
    pub bytes: i64,
}

/// Ordered as [`FileName`] is, bytewise whatever the database's collation.
const REFERENCED: &str = "
    SELECT f.store_fname, f.file_size, f.checksum, f.refs, a.id::bigint, a.res_model, a.res_id::bigint, a.res_field,
           f.since
    FROM (SELECT store_fname, max(file_size)::bigint AS file_size, max(checksum) AS checksum, count(*) AS refs,
                 min(id) AS id, min(coalesce(write_date, create_date)) AS since
          FROM public.ir_attachment WHERE store_fname ~ '^[0-9a-f]{2,3}/[0-9a-f]{40}$' AMONG GROUP BY store_fname) f
    JOIN public.ir_attachment a ON a.id = f.id
    ORDER BY pg_catalog.split_part(f.store_fname, '/', 2) COLLATE \"C\", f.store_fname COLLATE \"C\"";

const CENSUS: &str = "
    SELECT CASE WHEN type <> 'binary' THEN type WHEN store_fname IS NULL AND db_datas IS NULL THEN 'empty'
                WHEN store_fname IS NULL THEN 'db' WHEN store_fname ~ '^[0-9a-f]{2,3}/[0-9a-f]{40}$' THEN 'file'
                WHEN store_fname ~ '^[a-z0-9_]+://' THEN pg_catalog.split_part(store_fname, '://', 1)
                ELSE 'unknown' END,
           count(*), count(DISTINCT store_fname), coalesce(sum(file_size), 0)::bigint
    FROM public.ir_attachment GROUP BY 1 ORDER BY 1";

/// The files that the database refers to, each once, in the order of [`FileName`].
pub async fn referenced<C: GenericClient>(client: &C) -> Result<impl Stream<Item = Result<Reference>> + use<C>> {
    let failed = || "cannot read which files the attachments refer to".to_owned();
    let none: [&str; 0] = [];
    let rows = client.query_raw(&REFERENCED.replace("AMONG", ""), none).await.or_err(ErrorKind::Source, failed)?;
    let broken = |error| Err(error).or_err(ErrorKind::Source, || "reading the attachments broke off".to_owned());
    Ok(rows.map_ok(reference).or_else(move |e| std::future::ready(broken(e))))
}

/// Those of `names` that the database refers to.
pub(super) async fn among(client: &impl GenericClient, names: &[&str]) -> Result<Vec<Reference>> {
    let failed = || "cannot read which attachments refer to some files".to_owned();
    let query = REFERENCED.replace("AMONG", "AND store_fname = ANY ($1)");
    let rows = client.query(&query, &[&names]).await.or_err(ErrorKind::Source, failed)?;
    Ok(rows.into_iter().map(reference).collect())
}

fn reference(row: Row) -> Reference {
    let store_fname: String = row.get(0);
    Reference {
        name: store_fname.parse().ok(),
        store_fname,
        file_size: row.get(1),
        checksum: row.get(2),
        references: row.get(3),
        // Odoo keeps UTC in columns without a time zone; a value that does not fit is no evidence.
        since: row.try_get::<_, Option<NaiveDateTime>>(8).ok().flatten().map(|t| t.and_utc()),
        example: Example {
            attachment_id: row.get(4),
            res_model: row.get(5),
            res_id: row.get(6),
            res_field: row.get(7),
        },
    }
}

/// How the attachments of the database are stored.
pub async fn census(client: &impl GenericClient) -> Result<Vec<Census>> {
    let failed = || "cannot count the attachments".to_owned();
    let rows = client.query(CENSUS, &[]).await.or_err(ErrorKind::Source, failed)?;
    let census = |row: &Row| Census {
        storage: row.get::<_, Option<String>>(0).unwrap_or_else(|| "unknown".into()),
        attachments: row.get(1),
        files: row.get(2),
        bytes: row.get(3),
    };
    Ok(rows.iter().map(census).collect())
}

/// `database.uuid`, which identifies a tenant whatever its database is called; absent in a database
/// that Odoo has not finished to create.
pub async fn database_uuid(client: &impl GenericClient) -> Result<Option<String>> {
    let query = "SELECT value FROM public.ir_config_parameter WHERE key = 'database.uuid'";
    let failed = || "cannot read database.uuid from ir_config_parameter".to_owned();
    let row = client.query_opt(query, &[]).await.or_err(ErrorKind::Source, failed)?;
    Ok(row.and_then(|r| r.get(0)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::configuration::test_server::{TestServer, fixture};
    use crate::filestore::{Match, ReadOutcome, VerifiedReader, reconcile, scan};

    fn unpack(archive: &Path, into: &Path) {
        let packed = zstd::decode_all(std::fs::File::open(archive).expect("fixture")).expect("zstd");
        tar::Archive::new(packed.as_slice()).unpack(into).expect("tar");
    }

    #[tokio::test]
    async fn the_fixture_is_whole_and_damage_is_found_by_name() {
        let Some(archive) = fixture("filestore.tar.zst") else { return };
        let Some(server) = TestServer::start() else { return };
        assert!(server.load_fixture());
        let dir = tempfile::tempdir().expect("temp dir");
        unpack(&archive, dir.path());
        let filestore = dir.path().join("retail");

        let mut client = server.client("retail").await;
        let odd = "INSERT INTO ir_attachment (name, type, store_fname) VALUES
                   ('odd', 'binary', 'ab/cd39a3ee5e6b4b0d3255bfef95601890afd80709'), ('far', 'binary', 's3://b/k')";
        client.batch_execute(odd).await.expect("insert");
        let snapshot = client.transaction().await.expect("begins");
        let found: Vec<Reference> = referenced(&snapshot).await.expect("query").try_collect().await.expect("rows");
        assert!(database_uuid(&snapshot).await.expect("query").is_some_and(|uuid| uuid.len() == 36));
        let counted = census(&snapshot).await.expect("query");
        let count = |storage: &str| counted.iter().find(|c| c.storage == storage).map(|c| (c.attachments, c.files));
        assert_eq!((count("file").map(|c| c.1), count("s3")), (Some(907), Some((1, 1))), "{counted:?}");
        assert_eq!(found.iter().map(|r| r.references).sum::<i64>(), count("file").expect("files").0);
        let strange: Vec<_> = found.iter().filter(|r| r.name.is_none()).collect();
        assert_eq!(strange.len(), 1);
        assert!(strange[0].store_fname.starts_with("ab/cd39"));

        let have = || scan(&filestore).expect("scans").names.into_iter().map(|n| (n, ()));
        let wanted = || found.iter().filter_map(|r| Some((r.name?, r)));
        let told: Vec<_> = reconcile(wanted(), have()).collect::<Result<_>>().expect("in order");
        assert_eq!(told.iter().filter(|m| matches!(m, Match::Both(..))).count(), 906);
        assert_eq!(told.iter().filter(|m| matches!(m, Match::Missing(..))).count(), 0);
        let mut reader = VerifiedReader::new();
        for (name, reference) in wanted() {
            let outcome = reader.read(&filestore, &name, &mut |_| Ok(())).expect("reads");
            let size = reference.file_size.expect("size");
            assert!(matches!(outcome, ReadOutcome::Good { size: s } if s as i64 == size), "{name}: {outcome:?}");
            assert_eq!(reference.checksum, Some(hex::encode(name.sha1())));
        }

        let lost = wanted().nth(500).expect("there");
        std::fs::remove_file(filestore.join(lost.0.path())).expect("remove");
        let told: Vec<_> = reconcile(wanted(), have()).collect::<Result<_>>().expect("in order");
        let missing: Vec<_> = told.iter().filter(|m| matches!(m, Match::Missing(..))).collect();
        assert_eq!(missing, [&Match::Missing(lost.0, lost.1)]);
        assert!(lost.1.example.attachment_id > 0);
    }

    #[tokio::test]
    async fn a_database_without_odoo_is_a_clear_error() {
        let Some(server) = TestServer::start() else { return };
        let client = server.client("postgres").await;
        let error = referenced(&client).await.map(|_| ()).expect_err("no such table");
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.message().contains("attachments refer to"), "{error}");
    }
}
