//! Attachments whose content is kept elsewhere: in an object store by an add-on (`attachment_s3`, `_azure`,
//! `_swift`, `fs_attachment`), or in a cloud by Odoo's own `cloud_storage`. No backup of database and
//! filestore holds them, and Odoo deletes some of them at once; so they are counted and named at each capture.

use tokio_postgres::GenericClient;

use crate::error::Result;
use crate::evidence::entry::NotCovered;
use crate::postgres::sql::explain;

/// Cheap conditions only: this goes through all attachments.
const ELSEWHERE: &str = "
    SELECT CASE WHEN type <> 'binary' THEN type ELSE pg_catalog.split_part(store_fname, '://', 1) END,
           count(*), coalesce(sum(file_size), 0)::bigint,
           min(CASE WHEN type <> 'binary' THEN nullif(pg_catalog.split_part(url, '/', 3), '')
                    WHEN store_fname LIKE '%://%/%' THEN pg_catalog.split_part(pg_catalog.split_part(store_fname, '://', 2), '/', 1)
               END)
    FROM public.ir_attachment
    WHERE type NOT IN ('binary', 'url') OR type = 'binary' AND store_fname LIKE '%://%'
    GROUP BY 1 ORDER BY 1";

/// What is kept elsewhere, by storage. A row that is of no known kind counts as kept elsewhere.
pub(super) async fn elsewhere(client: &impl GenericClient) -> Result<Vec<NotCovered>> {
    let rows = client
        .query(ELSEWHERE, &[])
        .await
        .map_err(|e| explain(e, "cannot count the attachments that are kept outside the filestore"))?;
    let whole = |number: i64| u64::try_from(number).unwrap_or_default();
    let found = |row: &tokio_postgres::Row| NotCovered {
        storage: row.get::<_, Option<String>>(0).filter(|s| !s.is_empty()).unwrap_or_else(|| "unknown".into()),
        attachments: whole(row.get(1)),
        bytes: whole(row.get(2)),
        place: row.get(3),
    };
    Ok(rows.iter().map(found).collect())
}
