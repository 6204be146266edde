//! The documents of the demo's shop: product pictures, invoices, web assets, and the rows of
//! `ir_attachment` that refer to them.
//!
//! Odoo's rules: a file is named by the SHA-1 of its content and written before the row is committed;
//! an empty marker of the same name lies under `checklist/`; equal content is one file with many rows.
//! Pictures and invoices are valid SVG and PDF; an invoice carries a scan (noise), which does not compress.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use sha1::{Digest, Sha1};
use tokio_postgres::Client;

use crate::error::{ErrorKind, Result, ResultExt, internal};

/// A file as `ir_attachment` refers to it.
pub(super) struct Stored {
    /// `<2 hex>/<sha1>`.
    pub(super) fname: String,
    pub(super) checksum: String,
    pub(super) size: i32,
}

/// Writes `content` as Odoo would: its marker, then the file unless it is there.
pub(super) fn store(filestore: &Path, content: &[u8]) -> io::Result<Stored> {
    let checksum = hex::encode(Sha1::digest(content));
    let fname = format!("{}/{checksum}", &checksum[..2]);
    let (path, marker) = (filestore.join(&fname), filestore.join("checklist").join(&fname));
    for file in [&path, &marker] {
        fs::create_dir_all(file.parent().expect("a file below the filestore has a parent"))?;
    }
    if !path.exists() {
        fs::write(&marker, b"")?;
        fs::write(&path, content)?;
    }
    let size = i32::try_from(content.len()).map_err(io::Error::other)?;
    Ok(Stored { fname, checksum, size })
}

/// Columns of the rows to insert, side by side as `unnest` takes them.
#[derive(Default)]
struct Rows {
    name: Vec<String>,
    model: Vec<&'static str>,
    field: Vec<Option<&'static str>>,
    record: Vec<i32>,
    url: Vec<Option<String>>,
    mimetype: Vec<&'static str>,
    fname: Vec<String>,
    checksum: Vec<String>,
    size: Vec<i32>,
}

impl Rows {
    fn add(
        &mut self,
        file: &Stored,
        name: String,
        owner: (&'static str, Option<&'static str>, i32),
        mimetype: &'static str,
    ) {
        self.name.push(name);
        self.model.push(owner.0);
        self.field.push(owner.1);
        self.record.push(owner.2);
        self.url.push(None);
        self.mimetype.push(mimetype);
        self.fname.push(file.fname.clone());
        self.checksum.push(file.checksum.clone());
        self.size.push(file.size);
    }
}

/// Writes all documents and their rows; gives the number of distinct files and their bytes.
pub(super) async fn load(client: &Client, filestore: &Path, seed: u64) -> Result<(u64, u64)> {
    let failed = || "cannot read what the demo's documents are about".to_owned();
    let products = client
        .query("SELECT id, name->>'en_US', list_price::text FROM product_template ORDER BY id", &[])
        .await
        .or_err(ErrorKind::Source, failed)?
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect::<Vec<(i32, String, String)>>();
    let invoices = client
        .query(
            "SELECT id, name, invoice_origin, amount_total::text FROM account_move
              WHERE move_type = 'out_invoice' ORDER BY id",
            &[],
        )
        .await
        .or_err(ErrorKind::Source, failed)?
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect::<Vec<(i32, String, String, String)>>();

    let place = filestore.to_owned();
    let rows = tokio::task::spawn_blocking(move || write(&place, &products, &invoices, seed))
        .await
        .map_err(|e| internal("the writer of the demo's documents stopped").source(e))?
        .or_err(ErrorKind::Internal, || format!("cannot write the demo's documents into {}", filestore.display()))?;
    insert(client, &rows).await.or_err(ErrorKind::Source, || "cannot insert the demo's attachments".to_owned())?;
    let row = client
        .query_one(
            "SELECT count(*), sum(file_size)::bigint
               FROM (SELECT DISTINCT store_fname, file_size FROM ir_attachment WHERE store_fname IS NOT NULL) f",
            &[],
        )
        .await
        .or_err(ErrorKind::Source, failed)?;
    Ok((row.get::<_, i64>(0).unsigned_abs(), row.get::<_, i64>(1).unsigned_abs()))
}

fn write(
    filestore: &Path,
    products: &[(i32, String, String)],
    invoices: &[(i32, String, String, String)],
    seed: u64,
) -> io::Result<Rows> {
    let mut rows = Rows::default();
    for (id, name, price) in products {
        // Every fifteenth product has no picture of its own: one file, many rows.
        let file = match id % 15 {
            0 => store(filestore, svg("no picture", "", 0).as_bytes())?,
            _ => store(filestore, svg(name, price, seed.wrapping_add(id.unsigned_abs().into())).as_bytes())?,
        };
        for field in ["image_1920", "image_128"] {
            rows.add(&file, field.to_owned(), ("product.template", Some(field), *id), "image/svg+xml");
        }
    }
    for (id, name, origin, total) in invoices {
        let lines =
            ["Harbour Home & Garden".to_owned(), format!("Invoice {name} for {origin}"), format!("Total {total} EUR")];
        let file = store(filestore, &pdf(&lines, seed ^ (id.unsigned_abs() as u64) << 20, 90))?;
        rows.add(&file, format!("{}.pdf", name.replace('/', "_")), ("account.move", None, *id), "application/pdf");
    }
    for (name, mimetype) in
        [("web.assets_web.min.js", "application/javascript"), ("web.assets_web.min.css", "text/css")]
    {
        let mut text = format!("/* {name} */\n");
        for line in 0..2_500 {
            let _ = writeln!(text, ".o_{}{{order:{line}}}", line * 7919 % 1009);
        }
        let file = store(filestore, text.as_bytes())?;
        rows.add(&file, name.to_owned(), ("ir.ui.view", None, 0), mimetype);
        *rows.url.last_mut().expect("a row was just added") =
            Some(format!("/web/assets/{}/{name}", &file.checksum[..7]));
    }
    Ok(rows)
}

async fn insert(client: &Client, rows: &Rows) -> std::result::Result<(), tokio_postgres::Error> {
    client
        .execute(
            "INSERT INTO ir_attachment (name, res_model, res_field, res_id, url, mimetype, store_fname, checksum, file_size,
                    type, public, company_id, create_uid, write_uid, create_date, write_date)
             SELECT f.*, 'binary', f.url IS NOT NULL, 1, 1, 1, at, at
               FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int[])
                    AS f(name, model, field, record, url, mimetype, fname, checksum, size),
                    LATERAL (SELECT current_setting('seed.now')::timestamp AS at) t",
            &[
                &rows.name, &rows.model, &rows.field, &rows.record, &rows.url, &rows.mimetype, &rows.fname, &rows.checksum,
                &rows.size,
            ],
        )
        .await?;
    // What needs no file: a link, and an upload of nothing.
    client
        .batch_execute(
            "INSERT INTO ir_attachment (name, type, url, mimetype, public, file_size, create_uid, write_uid, create_date, write_date)
             SELECT n, t, u, m, false, 0, 1, 1, at, at
               FROM (VALUES ('Opening hours', 'url', 'https://shop.example.com/hours', NULL),
                            ('empty.txt', 'binary', NULL, 'text/plain')) v(n, t, u, m),
                    LATERAL (SELECT current_setting('seed.now')::timestamp AS at) x;
             UPDATE account_move m SET message_main_attachment_id = a.id
               FROM ir_attachment a WHERE a.res_model = 'account.move' AND a.res_id = m.id",
        )
        .await
}

/// A picture of a product: coloured rectangles and its name.
fn svg(name: &str, price: &str, seed: u64) -> String {
    let mut noise = Noise::new(seed);
    let mut text = String::from("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 256 256\">\n");
    for _ in 0..40 {
        let n = noise.next();
        let (x, y, w, h) = (n % 200, n / 200 % 200, 10 + n / 40_000 % 60, 10 + n / 2_400_000 % 60);
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"#{:06x}\" opacity=\".5\"/>",
            n >> 40
        );
    }
    let _ = writeln!(text, "<text x=\"8\" y=\"240\">{name}</text><text x=\"8\" y=\"252\">{price}</text></svg>");
    text
}

/// A page with some lines of text and a grey scan of `side` × `side` dots.
pub(super) fn pdf(lines: &[String], seed: u64, side: usize) -> Vec<u8> {
    let mut page = String::from("BT /F1 12 Tf 14 TL 50 780 Td\n");
    for line in lines {
        let _ = writeln!(page, "({}) Tj T*", line.replace(['(', ')', '\\'], " "));
    }
    let _ = write!(page, "ET q {side} 0 0 {side} 50 600 cm /I1 Do Q");
    let mut noise = Noise::new(seed);
    let dots = (0..side * side).map(|_| (noise.next() >> 56) as u8).collect::<Vec<_>>();
    let objects: [(String, &[u8]); 6] = [
        ("<</Type/Catalog/Pages 2 0 R>>".to_owned(), b""),
        ("<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(), b""),
        (
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>/XObject<</I1 6 0 R>>>>>>"
                .to_owned(),
            b"",
        ),
        (format!("<</Length {}>>", page.len()), page.as_bytes()),
        ("<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(), b""),
        (
            format!(
                "<</Type/XObject/Subtype/Image/Width {side}/Height {side}/ColorSpace/DeviceGray/BitsPerComponent 8/Length {}>>",
                dots.len()
            ),
            &dots,
        ),
    ];
    let mut bytes = b"%PDF-1.4\n".to_vec();
    let mut index = String::from("xref\n0 7\n0000000000 65535 f \n");
    for (number, (dictionary, stream)) in objects.iter().enumerate() {
        let _ = writeln!(index, "{:010} 00000 n ", bytes.len());
        bytes.extend_from_slice(format!("{} 0 obj\n{dictionary}\n", number + 1).as_bytes());
        if !stream.is_empty() {
            bytes.extend_from_slice(b"stream\n");
            bytes.extend_from_slice(stream);
            bytes.extend_from_slice(b"\nendstream\n");
        }
        bytes.extend_from_slice(b"endobj\n");
    }
    let start = bytes.len();
    bytes.extend_from_slice(format!("{index}trailer\n<</Size 7/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n").as_bytes());
    bytes
}

/// Repeatable noise (`SplitMix64`).
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
