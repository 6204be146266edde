//! One purchase at the till, as Odoo commits it: order, lines, payment, delivery, stock, message, and
//! with every twentieth a signed receipt, whose file is on disk before its row.
//!
//! Each sale is one transaction and carries its number, so that after a restore [`sold`] tells exactly
//! which acknowledged sales are there.

use std::path::Path;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::files;
use crate::error::{Error, ErrorKind, Result, ResultExt, internal};

/// A committed sale.
#[derive(Debug, Clone)]
pub(crate) struct Sale {
    /// Name of the order.
    pub(crate) order: String,
    /// `store_fname` of the receipt, with every twentieth sale.
    pub(crate) attachment: Option<String>,
}

/// Sells once; when this returns `Ok`, PostgreSQL has acknowledged the commit. `n` must be new.
pub(crate) async fn sell_once(client: &Client, filestore: &Path, n: u64) -> Result<Sale> {
    let mut sql = format!("BEGIN; SET LOCAL lifeboat.sale = '{n}';\n{}", include_str!("sale.sql"));
    let mut attachment = None;
    if n.is_multiple_of(20) {
        let place = filestore.to_owned();
        let file = tokio::task::spawn_blocking(move || {
            let lines = ["Harbour Home & Garden".to_owned(), format!("Receipt of live sale {n}")];
            files::store(&place, &files::pdf(&lines, n, 64))
        })
        .await
        .map_err(|e| internal("the writer of the demo's receipts stopped").source(e))?
        .or_err(ErrorKind::Internal, || format!("cannot write a receipt into {}", filestore.display()))?;
        sql.push_str(&format!(
            "INSERT INTO ir_attachment (name, res_model, res_id, type, store_fname, checksum, file_size, mimetype, public, company_id,
                    create_uid, write_uid, create_date, write_date)
             VALUES ('receipt-{n}.pdf', 'pos.order', currval('pos_order_id_seq'), 'binary', '{}', '{}', {}, 'application/pdf', false, 1,
                     1, 1, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC');",
            file.fname, file.checksum, file.size
        ));
        attachment = Some(file.fname);
    }
    sql.push_str("COMMIT;");
    match client.simple_query(&sql).await {
        Ok(messages) => {
            let order = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            let order = order.ok_or_else(|| nothing_sold(n))?;
            Ok(Sale { order, attachment })
        }
        Err(error) => {
            // Leaves the connection usable after a refused statement; when it is gone, this fails too.
            let _ = client.batch_execute("ROLLBACK").await;
            Err(Error::new(ErrorKind::Source, format!("live sale {n} was not acknowledged")).source(error))
        }
    }
}

fn nothing_sold(n: u64) -> Error {
    internal(format!("live sale {n} sold nothing: the demo's database has no open till"))
}

/// The numbers of all sales that [`sell_once`] made and that are in this database, ascending.
pub(crate) async fn sold(client: &Client) -> Result<Vec<u64>> {
    let rows = client
        .query(
            "SELECT substr(pos_reference, 6)::bigint FROM pos_order WHERE pos_reference LIKE 'LIVE-%' ORDER BY 1",
            &[],
        )
        .await
        .or_err(ErrorKind::Source, || "cannot count the demo's live sales".to_owned())?;
    Ok(rows.iter().map(|row| row.get::<_, i64>(0).unsigned_abs()).collect())
}
