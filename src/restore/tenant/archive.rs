//! A database and its filestore as the archive that Odoo's own database manager writes and reads
//! (`odoo/service/db.py`, `dump_db` and `restore_db`): `dump.sql` first, `manifest.json`, `filestore/<2 hex>/<sha1>`.
//!
//! Everything streams: of the dump a pipe is in memory, of a file a buffer. Two things are better than in Odoo's own:
//! every file's content is compared with its name on its way in, and functions of extensions that were IMMUTABLE are
//! marked so between tables and indexes, so that an index on `unaccent(…)` is not silently lost when it is loaded
//! (Odoo loads without stopping at errors).
//!
//! What a newer `pg_dump` says to the server's session (`SET transaction_timeout`) is left out: older servers reject it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use tokio_postgres::Client;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::find::Found;
use super::programs::complaint;
use crate::disk::failed;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::postgres::sql::explain;

const SECTIONS: [&str; 3] = ["pre-data", "data", "post-data"];

/// Fast rather than small: it is read once, and most attachments are compressed already.
const LEVEL: i64 = 3;

/// `manifest.json`, with the fields of Odoo 14 to 19 in their order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Manifest {
    odoo_dump: &'static str,
    db_name: String,
    version: String,
    version_info: (serde_json::Value, u32, u32, &'static str, u32, &'static str),
    major_version: String,
    pg_version: String,
    modules: serde_json::Map<String, serde_json::Value>,
}

impl Manifest {
    /// Reads from the database what Odoo would write.
    pub(super) async fn read(client: &Client, found: &Found, postgres: u32) -> Result<Self> {
        let series = found.odoo.as_deref().ok_or_else(|| {
            error::usage(format!(
                "{} holds no Odoo, so Odoo's database manager would not accept an archive of it",
                found.name
            ))
            .hint("restore it with --into-cluster")
        })?;
        let query =
            "SELECT name::text, latest_version::text FROM public.ir_module_module WHERE state = 'installed' ORDER BY 1";
        let rows = client.query(query, &[]).await.map_err(|e| explain(e, "cannot read the installed modules"))?;
        let modules = rows.iter().map(|row| (row.get(0), row.get::<_, Option<String>>(1).into())).collect();
        Ok(Self::of(&found.name, series, postgres, modules))
    }

    fn of(name: &str, series: &str, postgres: u32, modules: serde_json::Map<String, serde_json::Value>) -> Self {
        let (major, minor) = series.split_once('.').unwrap_or((series, "0"));
        let minor = minor.parse().unwrap_or(0);
        // Odoo's is a number, but for releases between: `["saas~18", 2, 0, "final", 0, ""]`.
        let major: serde_json::Value = major.parse::<u32>().map_or_else(|_| major.into(), Into::into);
        Self {
            odoo_dump: "1",
            db_name: name.to_owned(),
            version: series.to_owned(),
            version_info: (major, minor, 0, "final", 0, ""),
            major_version: series.to_owned(),
            pg_version: format!("{postgres}.0"),
            modules,
        }
    }

    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
        self.serialize(&mut serializer).expect("plain data");
        text
    }
}

/// What goes into an archive.
#[derive(Debug)]
pub(super) struct Contents {
    /// `pg_dump` on the database, once for each section, without its output options.
    pub(super) dumps: [Command; 3],
    /// Functions to mark after the first section.
    pub(super) immutable: Vec<String>,
    /// The manifest.
    pub(super) manifest: Manifest,
    /// Directory of the restored files, `<2 hex>/<sha1>`.
    pub(super) filestore: Option<PathBuf>,
}

/// A finished archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Archived {
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Files of the filestore in it.
    pub files: u64,
}

/// Arguments that choose a section.
pub(super) fn section_arguments(section: usize) -> Vec<String> {
    ["--no-owner", "--no-publications", "--no-subscriptions", "--no-tablespaces", "--no-password", "--format=plain"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("--section={}", SECTIONS[section])])
        .collect()
}

/// Writes the archive to `path`, which must not exist, and reads it again.
pub(super) fn write(path: &Path, contents: Contents) -> Result<Archived> {
    let cannot = |e| failed("cannot write", path, e);
    // It holds everything that the database holds.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 20, file));
    let wrote = |e: zip::result::ZipError| cannot(e.into());
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(LEVEL))
        .large_file(true)
        .unix_permissions(0o644);
    zip.start_file("dump.sql", options).map_err(wrote)?;
    for (number, dump) in contents.dumps.into_iter().enumerate() {
        copy_dump(dump, &mut zip, path)?;
        if number == 0 {
            for function in &contents.immutable {
                writeln!(zip, "ALTER FUNCTION {function} IMMUTABLE;").map_err(cannot)?;
            }
        }
    }
    zip.start_file("manifest.json", options.large_file(false)).map_err(wrote)?;
    zip.write_all(&contents.manifest.text()).map_err(cannot)?;
    let mut files = 0;
    if let Some(filestore) = &contents.filestore {
        files = copy_filestore(filestore, &mut zip, options, path)?;
    }
    let file = zip.finish().map_err(wrote)?.into_inner().map_err(|e| cannot(e.into_error()))?;
    file.sync_all().map_err(cannot)?;
    verified(path, files)
}

/// One `pg_dump` into the open member.
fn copy_dump(mut command: Command, zip: &mut impl Write, path: &Path) -> Result<()> {
    let doing = "dumping the database";
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().or_err(ErrorKind::Config, || format!("{doing}: cannot start pg_dump"))?;
    let mut complaints = child.stderr.take().expect("stderr is piped");
    let listening = std::thread::spawn(move || {
        let mut said = Vec::new();
        // What cannot be read is not there to be told.
        let _ = complaints.by_ref().take(64 << 10).read_to_end(&mut said);
        let _ = std::io::copy(&mut complaints, &mut std::io::sink());
        String::from_utf8_lossy(&said).into_owned()
    });
    let mut output = BufReader::with_capacity(256 << 10, child.stdout.take().expect("stdout is piped"));
    let copied = copy_without_timeouts(&mut output, zip);
    drop(output);
    let said = listening.join().unwrap_or_default();
    let status = child.wait().or_err(ErrorKind::Internal, || format!("{doing}: cannot wait for pg_dump"))?;
    copied.map_err(|e| failed("cannot write", path, e))?;
    match status.success() {
        true => Ok(()),
        false => Err(complaint(doing, status, &said)),
    }
}

/// Copies a dump without `SET transaction_timeout` in what stands before its first object.
fn copy_without_timeouts(from: &mut impl BufRead, to: &mut impl Write) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let preamble = line.trim_ascii().is_empty()
            || [&b"--"[..], b"SET ", b"\\restrict", b"SELECT pg_catalog.set_config"]
                .iter()
                .any(|p| line.starts_with(p));
        if !line.starts_with(b"SET transaction_timeout") {
            to.write_all(&line)?;
        }
        if !preamble {
            return std::io::copy(from, to).map(|_| ());
        }
    }
}

/// The files, each compared with its name.
fn copy_filestore<W: Write + std::io::Seek>(
    directory: &Path,
    zip: &mut ZipWriter<W>,
    options: SimpleFileOptions,
    path: &Path,
) -> Result<u64> {
    let (mut files, mut buffer) = (0, vec![0; 256 << 10]);
    for entry in walkdir::WalkDir::new(directory).min_depth(2).sort_by_file_name() {
        let entry = entry.or_err(ErrorKind::Internal, || format!("cannot read {}", directory.display()))?;
        if !entry.file_type().is_file() {
            continue;
        }
        let name = entry.path().strip_prefix(directory).expect("below").display().to_string();
        let cannot = |e| failed("cannot read", entry.path(), e);
        let mut file = File::open(entry.path()).map_err(cannot)?;
        let large = file.metadata().map_err(cannot)?.len() >= u64::from(u32::MAX) / 2;
        zip.start_file(format!("filestore/{name}"), options.large_file(large))
            .map_err(|e| failed("cannot write", path, e.into()))?;
        let mut hash = Sha1::new();
        loop {
            let n = file.read(&mut buffer).map_err(cannot)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            zip.write_all(&buffer[..n]).map_err(|e| failed("cannot write", path, e))?;
        }
        let found = hex::encode(hash.finalize());
        if !name.ends_with(&found) {
            return Err(error::integrity(format!("{} holds the SHA-1 {found}", entry.path().display()))
                .meaning("the restored file changed on this host; the archive is removed"));
        }
        files += 1;
    }
    Ok(files)
}

/// Reads the archive again: every member opens and has its checksum.
fn verified(path: &Path, files: u64) -> Result<Archived> {
    let cannot = |e| failed("cannot read again", path, e);
    let damaged = |e: String| error::integrity(format!("{} cannot be read again: {e}", path.display()));
    let file = BufReader::with_capacity(1 << 20, File::open(path).map_err(cannot)?);
    let mut zip = ZipArchive::new(file).map_err(|e| damaged(e.to_string()))?;
    let expected = usize::try_from(files).unwrap_or(usize::MAX).saturating_add(2);
    if zip.len() != expected {
        return Err(damaged(format!("it has {} members instead of {expected}", zip.len())));
    }
    for number in 0..zip.len() {
        let mut member = zip.by_index(number).map_err(|e| damaged(e.to_string()))?;
        if number == 0 && member.name_raw() != b"dump.sql" {
            return Err(damaged("its first member is not dump.sql".to_owned()));
        }
        std::io::copy(&mut member, &mut std::io::sink()).map_err(|e| damaged(e.to_string()))?;
    }
    let mut file = File::open(path).map_err(cannot)?;
    let (mut hash, mut buffer, mut bytes) = (Sha256::new(), vec![0; 256 << 10], 0);
    loop {
        match file.read(&mut buffer).map_err(cannot)? {
            0 => return Ok(Archived { bytes, sha256: hex::encode(hash.finalize()), files }),
            n => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_reads_as_odoo_writes_it() {
        let modules = [("base".to_owned(), "19.0.1.3".into())].into_iter().collect();
        let text = String::from_utf8(Manifest::of("shop", "19.0", 15, modules).text()).expect("UTF-8");
        let expected = "{\n    \"odoo_dump\": \"1\",\n    \"db_name\": \"shop\",\n    \"version\": \"19.0\",\n    \
                        \"version_info\": [\n        19,\n        0,\n        0,\n        \"final\",\n        0,\n        \
                        \"\"\n    ],\n    \"major_version\": \"19.0\",\n    \"pg_version\": \"15.0\",\n    \"modules\": {\n        \
                        \"base\": \"19.0.1.3\"\n    }\n}";
        assert_eq!(text, expected);
        let between = Manifest::of("shop", "saas~18.2", 16, serde_json::Map::new());
        assert_eq!(between.version_info.0, serde_json::json!("saas~18"));
        assert_eq!(between.version_info.1, 2);
    }

    #[test]
    fn only_what_precedes_the_first_object_loses_a_timeout() {
        let dump = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\nSET lock_timeout = 0;\n\
                    SET transaction_timeout = 0;\nCREATE TABLE t (a text);\nCOPY t FROM stdin;\nSET transaction_timeout = 0;\n\\.\n";
        let mut copied = Vec::new();
        copy_without_timeouts(&mut dump.as_bytes(), &mut copied).expect("copies");
        let copied = String::from_utf8(copied).expect("UTF-8");
        assert_eq!(copied, dump.replacen("SET transaction_timeout = 0;\n", "", 1));
    }
}
