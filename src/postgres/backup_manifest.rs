//! PostgreSQL's own `backup_manifest`, written by us: for copies that BASE_BACKUP did not make.
//!
//! The text is what `src/backend/backup/backup_manifest.c` would write, byte for byte: version 1 up to 16,
//! version 2 with the system identifier from 17 on; so `pg_verifybackup` of the cluster's version judges the copy.
//! Every file has a CRC-32C, PostgreSQL's own default. Nothing is kept in memory but the running SHA-256.

use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256};
use chrono::DateTime;

use crate::units::{Lsn, Timeline};

/// A manifest being written to `W`.
pub(crate) struct ManifestText<W> {
    out: W,
    hash: Context,
    empty: bool,
}

impl<W> std::fmt::Debug for ManifestText<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ManifestText")
    }
}

impl<W: Write> ManifestText<W> {
    /// Begins a manifest of a cluster of this `server_version_num` and system identifier.
    pub(crate) fn new(out: W, server_version: u32, system_id: u64) -> io::Result<Self> {
        let mut text = Self { out, hash: Context::new(&SHA256), empty: true };
        text.put(&match server_version {
            170_000.. => format!(
                "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system_id},\n\"Files\": ["
            ),
            _ => "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [".to_owned(),
        })?;
        Ok(text)
    }

    /// Adds a file: its path below the data directory (`pg_tblspc/<oid>/…` in a tablespace), when it was changed
    /// (seconds since 1970) and the CRC-32C of its bytes.
    pub(crate) fn file(&mut self, path: &str, size: u64, mtime: i64, crc32c: u32) -> io::Result<()> {
        let path = serde_json::to_string(path)?;
        let changed = DateTime::from_timestamp(mtime, 0).unwrap_or_default().format("%Y-%m-%d %H:%M:%S GMT");
        let separator = if std::mem::take(&mut self.empty) { "\n" } else { ",\n" };
        self.put(&format!(
            "{separator}{{ \"Path\": {path}, \"Size\": {size}, \"Last-Modified\": \"{changed}\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{}\" }}",
            hex::encode(crc32c.to_le_bytes())
        ))
    }

    /// Ends the manifest with the WAL that the copy needs, and gives the writer back.
    pub(crate) fn finish(mut self, timeline: Timeline, start: Lsn, stop: Lsn) -> io::Result<W> {
        self.put(&format!(
            "\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{stop}\" }}\n],\n",
            timeline.0
        ))?;
        let sum = hex::encode(self.hash.finish());
        self.out.write_all(format!("\"Manifest-Checksum\": \"{sum}\"}}\n").as_bytes())?;
        Ok(self.out)
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.hash.update(text.as_bytes());
        self.out.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Output};

    use super::*;
    use crate::postgres::replication::testing::{TestServer, bin_dir, give_to_server, unpack};
    use crate::postgres::replication::tests::{backup, replication};
    use crate::postgres::replication::{BaseBackupOptions, ManifestChecksums};

    #[tokio::test]
    async fn the_same_bytes_as_every_version_writes() {
        for major in 13..=18 {
            let Some(server) = TestServer::of_version(major, &[], &[]).await else { continue };
            let named = server.data().join("with \"quotes\", a \\, a \t and é");
            fs::write(&named, "text").expect("written");
            give_to_server(&named);
            let options = BaseBackupOptions { manifest_checksums: ManifestChecksums::Crc32c, ..Default::default() };
            let theirs = backup(replication(&server).await, &options).await.manifest;
            let read: serde_json::Value = serde_json::from_slice(&theirs).expect("JSON");
            let system_id = read["System-Identifier"].as_u64().unwrap_or(0);
            let mut ours = ManifestText::new(Vec::new(), major * 10000 + 3, system_id).expect("written");
            for file in read["Files"].as_array().expect("a list") {
                let text = |name: &str| file[name].as_str().expect("a text").to_owned();
                let changed = chrono::NaiveDateTime::parse_from_str(&text("Last-Modified"), "%Y-%m-%d %H:%M:%S GMT");
                let sum: [u8; 4] = hex::decode(text("Checksum")).expect("hex").try_into().expect("four bytes");
                let seconds = changed.expect("a time").and_utc().timestamp();
                let size = file["Size"].as_u64().expect("a number");
                ours.file(&text("Path"), size, seconds, u32::from_le_bytes(sum)).expect("written");
            }
            let range = &read["WAL-Ranges"][0];
            let lsn = |name: &str| range[name].as_str().expect("a text").parse().expect("a position");
            let ours = ours.finish(Timeline(1), lsn("Start-LSN"), lsn("End-LSN")).expect("written");
            let lines = |text| String::from_utf8(text).expect("UTF-8").lines().map(str::to_owned).collect::<Vec<_>>();
            let (ours, theirs) = (lines(ours), lines(theirs));
            assert_eq!(ours.iter().zip(&theirs).find(|(our, their)| our != their), None, "{major}");
            assert_eq!(ours.len(), theirs.len(), "{major}");
        }
    }

    #[tokio::test]
    async fn pg_verifybackup_believes_it_and_finds_a_flipped_bit() {
        let Some(server) = TestServer::start(&[], &[]).await else { return };
        let judge = bin_dir().expect("seen before").join("pg_verifybackup");
        if !judge.exists() {
            println!("skipped: no pg_verifybackup");
            return;
        }
        let copy = backup(replication(&server).await, &BaseBackupOptions::default()).await;
        let dir = tempfile::tempdir().expect("dir");
        unpack(&copy.archives[0], dir.path());
        let mut text = ManifestText::new(Vec::new(), 150_000, 1).expect("written");
        for entry in walkdir::WalkDir::new(dir.path()) {
            let entry = entry.expect("readable");
            if entry.file_type().is_file() {
                let bytes = fs::read(entry.path()).expect("readable");
                let path = entry.path().strip_prefix(dir.path()).expect("inside").to_str().expect("UTF-8");
                text.file(path, bytes.len() as u64, 1_700_000_000, crc32c::crc32c(&bytes)).expect("written");
            }
        }
        let text = text.finish(Timeline(1), copy.start, copy.end).expect("written");
        fs::write(dir.path().join("backup_manifest"), text).expect("written");
        let verify = |dir: &Path| -> Output { Command::new(&judge).arg("-n").arg(dir).output().expect("runs") };
        let verdict = verify(dir.path());
        assert!(verdict.status.success(), "{}", String::from_utf8_lossy(&verdict.stderr));
        let victim = dir.path().join("base/1/1259");
        let mut bytes = fs::read(&victim).expect("readable");
        bytes[5000] ^= 4;
        fs::write(&victim, bytes).expect("written");
        let verdict = verify(dir.path());
        let said = String::from_utf8_lossy(&verdict.stderr).into_owned();
        assert!(!verdict.status.success() && said.contains("checksum mismatch for file \"base/1/1259\""), "{said}");
    }
}
