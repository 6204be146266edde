//! BASE_BACKUP: a running cluster as tar archives, one for each tablespace, and PostgreSQL's own
//! manifest. One stream of [`BackupMessage`] for both grammars:
//!
//! ```text
//! 13, 14    positional options     one COPY for each tablespace, one for the manifest
//! 15 to 18  options in brackets    one COPY; each message is typed: n archive, m manifest, d data, p progress
//! ```
//!
//! `Finished` comes only after the server completed the command: damaged pages are reported after the end
//! position was sent; [`BaseBackupStream::damage`] tells. WAL is not included; the backup is worth nothing
//! without the WAL from its start to its end.

use bytes::{Buf, Bytes};

use super::connection::ReplicationConnection;
use super::server_report::{ServerReport, Session, explain};
use super::wire::{Message, columns, text};
use crate::error::{self, Result};
use crate::units::{Lsn, Timeline};

const DOING: &str = "the base backup failed";

/// The checksum of each file in the backup manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ManifestChecksums {
    /// None: the manifest proves sizes only.
    None,
    /// Fast, no defence against anybody; PostgreSQL's own default, and ours, because what is stored is
    /// authenticated anyway (`docs/decisions/0007-…`).
    #[default]
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ManifestChecksums {
    fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }
}

/// How to take a base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseBackupOptions {
    /// Kept in `backup_label`.
    pub label: String,
    /// Checkpoint at once, instead of spread over `checkpoint_timeout`.
    pub fast_checkpoint: bool,
    /// The checksums of the manifest.
    pub manifest_checksums: ManifestChecksums,
    /// The most that the server sends in a second, in KiB: 32 to 1048576.
    pub max_rate_kib: Option<u32>,
    /// Let the server estimate the sizes of the tablespaces first, which reads all directories.
    pub progress: bool,
    /// Send only blocks that changed since the backup whose manifest was uploaded in this session (17 and
    /// later).
    pub incremental: bool,
}

impl Default for BaseBackupOptions {
    fn default() -> Self {
        Self {
            label: "lifeboat".into(),
            fast_checkpoint: true,
            manifest_checksums: ManifestChecksums::default(),
            max_rate_kib: None,
            progress: true,
            incremental: false,
        }
    }
}

impl BaseBackupOptions {
    /// The command in the server's grammar. The server does not wait for its archiver: whoever takes
    /// the backup makes sure of the WAL.
    pub(super) fn command(&self, version: u32) -> Result<String> {
        if self.label.len() > 1024 || self.label.chars().any(char::is_control) {
            return Err(error::usage("the label of a base backup is one line of at most 1024 bytes"));
        }
        if self.max_rate_kib.is_some_and(|rate| !(32..=1 << 20).contains(&rate)) {
            return Err(error::config("the rate of a base backup lies between 32 and 1048576 KiB per second"));
        }
        let label = self.label.replace('\'', "''");
        let checksums = self.manifest_checksums.name();
        let mut words = vec![format!("LABEL '{label}'")];
        let mut add = |wanted: bool, word: &str| {
            if wanted {
                words.push(word.to_string());
            }
        };
        let brackets = version >= 150_000;
        add(self.incremental, "INCREMENTAL");
        add(self.progress, "PROGRESS");
        add(self.fast_checkpoint, if brackets { "CHECKPOINT 'fast'" } else { "FAST" });
        add(true, if brackets { "WAIT 0" } else { "NOWAIT" });
        if let Some(rate) = self.max_rate_kib {
            words.push(format!("MAX_RATE {rate}"));
        }
        words.push("MANIFEST 'yes'".into());
        words.push(format!("MANIFEST_CHECKSUMS '{checksums}'"));
        Ok(match brackets {
            true => format!("BASE_BACKUP ({})", words.join(", ")),
            false => format!("BASE_BACKUP {}", words.join(" ")),
        })
    }
}

/// One tablespace of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its oid; `None` is the data directory itself.
    pub oid: Option<u32>,
    /// Where it lies on the server; relative for a tablespace inside the data directory.
    pub location: Option<String>,
    /// The estimate of its size in KiB, when asked for.
    pub size_kib: Option<u64>,
}

/// One message of a base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupMessage {
    /// The archive of a tablespace begins; an earlier one is complete.
    Archive {
        /// Which one, as an index into [`BaseBackupStream::tablespaces`].
        tablespace: usize,
    },
    /// The manifest begins; the archives are complete.
    Manifest,
    /// Bytes of the archive or manifest that began last, a slice of the read buffer. PostgreSQL 13
    /// and 14 send tar archives without the two zero blocks at the end.
    Data(Bytes),
    /// What the server has sent so far, in bytes; about once a second, from 15 on.
    Progress(u64),
    /// The server completed the backup. Told again by every further call.
    Finished {
        /// The WAL that the backup needs ends here.
        end: Lsn,
        /// The timeline of the end.
        timeline: Timeline,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No archive yet.
    Before,
    /// Inside the archive of this tablespace.
    Archive(usize),
    Manifest,
    Finished,
}

/// A running base backup. Dropping it ends the backup on the server.
#[derive(Debug)]
pub struct BaseBackupStream {
    connection: ReplicationConnection,
    /// One COPY of typed messages (15 and later) instead of one COPY for each part.
    typed: bool,
    start: (Lsn, Timeline),
    tablespaces: Vec<Tablespace>,
    phase: Phase,
    /// Archives begun.
    archives: usize,
    end: Option<(Lsn, Timeline)>,
    /// What the server says of damaged pages, when it has sent everything.
    damage: Option<ServerReport>,
}

impl BaseBackupStream {
    /// Reads the start position and the tablespaces, which come after the checkpoint.
    pub(super) async fn begin(mut connection: ReplicationConnection) -> Result<Self> {
        let limit = connection.options().backup_start;
        let (mut results, mut start, mut tablespaces) = (0, None, Vec::new());
        while results < 2 {
            let wire = connection.wire();
            let message = wire.next_within(limit).await?;
            match (message.tag, results) {
                (b'T', _) => {}
                (b'C', _) => results += 1,
                (b'D', 0) => start = position(&message.body),
                (b'D', _) => match tablespace(&message.body) {
                    Some(tablespace) => tablespaces.push(tablespace),
                    None => return Err(wire.not_understood("a tablespace that cannot be read")),
                },
                (b'E', _) => return Err(explain(ServerReport::parse(&message.body), Session::Backup, DOING)),
                _ => return Err(wire.unexpected(&message)),
            }
        }
        let Some(start) = start else { return Err(connection.wire().not_understood("a backup without a start")) };
        let typed = connection.server_version() >= 150_000;
        Ok(Self { connection, typed, start, tablespaces, phase: Phase::Before, archives: 0, end: None, damage: None })
    }

    /// Where the WAL that the backup needs begins, and on which timeline.
    pub fn start(&self) -> (Lsn, Timeline) {
        self.start
    }

    /// The tablespaces; the data directory itself is the one without an oid, and comes last.
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// The warnings of the server so far, such as pages with wrong checksums; at most 1000.
    pub fn warnings(&self) -> &[ServerReport] {
        self.connection.wire_ref().notices()
    }

    /// The refusal with which the server ends a backup of which it sent everything, damaged pages included.
    pub fn damage(&self) -> Option<error::Error> {
        self.damage.clone().map(|report| explain(report, Session::Backup, DOING))
    }

    /// The next message. Safe to drop and call again, as in `tokio::select!`.
    pub async fn next(&mut self) -> Result<BackupMessage> {
        let limit = self.connection.options().backup_silence;
        loop {
            if let (Phase::Finished, Some((end, timeline))) = (self.phase, self.end) {
                return Ok(BackupMessage::Finished { end, timeline });
            }
            let message = self.connection.wire().next_within(limit).await?;
            if let Some(message) = self.handle(message)? {
                return Ok(message);
            }
        }
    }

    fn handle(&mut self, message: Message) -> Result<Option<BackupMessage>> {
        match message.tag {
            b'd' if self.typed => self.typed_message(message.body),
            b'd' => self.data(message.body),
            b'H' if self.typed => Ok(None),
            b'H' if self.archives < self.tablespaces.len() => self.archive(self.archives),
            b'H' => self.manifest(),
            b'c' | b'T' | b'C' => Ok(None),
            b'D' => {
                self.end = position(&message.body);
                match self.end {
                    Some(_) => Ok(None),
                    None => self.broken("an end position that cannot be read"),
                }
            }
            b'Z' if self.phase == Phase::Manifest && self.archives == self.tablespaces.len() && self.end.is_some() => {
                self.phase = Phase::Finished;
                Ok(None)
            }
            b'Z' => self.broken("the end of a backup of which parts are missing"),
            b'E' => {
                let report = ServerReport::parse(&message.body);
                // ERRCODE_DATA_CORRUPTED, after the end position: pages are damaged, and all were sent.
                if report.code == "XX001" && self.end.is_some() {
                    self.damage = Some(report);
                    return Ok(None);
                }
                Err(explain(report, Session::Backup, DOING))
            }
            _ => Err(self.connection.wire_ref().unexpected(&message)),
        }
    }

    fn typed_message(&mut self, mut body: Bytes) -> Result<Option<BackupMessage>> {
        match body.try_get_u8() {
            Ok(b'd') => self.data(body),
            Ok(b'n') => match archive_oid(&body).and_then(|oid| self.tablespaces.iter().position(|t| t.oid == oid)) {
                Some(index) => self.archive(index),
                None => self.broken("an archive of no tablespace"),
            },
            Ok(b'm') => self.manifest(),
            Ok(b'p') => match body.try_get_u64() {
                Ok(bytes) => Ok(Some(BackupMessage::Progress(bytes))),
                Err(_) => self.broken("progress that cannot be read"),
            },
            _ => self.broken("a backup message of unknown type"),
        }
    }

    fn archive(&mut self, index: usize) -> Result<Option<BackupMessage>> {
        if self.phase == Phase::Manifest {
            return self.broken("an archive after the manifest");
        }
        self.phase = Phase::Archive(index);
        self.archives += 1;
        Ok(Some(BackupMessage::Archive { tablespace: index }))
    }

    fn manifest(&mut self) -> Result<Option<BackupMessage>> {
        match self.phase {
            Phase::Archive(_) => {
                self.phase = Phase::Manifest;
                Ok(Some(BackupMessage::Manifest))
            }
            _ => self.broken("a manifest out of turn"),
        }
    }

    fn data(&mut self, bytes: Bytes) -> Result<Option<BackupMessage>> {
        match self.phase {
            Phase::Archive(_) | Phase::Manifest => Ok(Some(BackupMessage::Data(bytes))),
            Phase::Before | Phase::Finished => self.broken("backup data out of turn"),
        }
    }

    fn broken<T>(&self, what: &str) -> Result<T> {
        Err(self.connection.wire_ref().not_understood(what))
    }
}

/// A row of LSN and timeline.
fn position(row: &Bytes) -> Option<(Lsn, Timeline)> {
    let row = columns(row)?;
    Some((text(&row, 0)?.parse().ok()?, Timeline(text(&row, 1)?.parse().ok()?)))
}

/// A row of oid, location and size; the data directory has only the size.
fn tablespace(row: &Bytes) -> Option<Tablespace> {
    let row = columns(row)?;
    if row.len() < 3 {
        return None;
    }
    let oid = row[0].as_ref().map(|_| text(&row, 0)?.parse().ok());
    let size_kib = row[2].as_ref().map(|_| text(&row, 2)?.parse().ok());
    Some(Tablespace {
        oid: unless_unreadable(oid)?,
        location: text(&row, 1).map(str::to_string),
        size_kib: unless_unreadable(size_kib)?,
    })
}

/// NULL is fine, a value that cannot be read is not.
fn unless_unreadable<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(read) => Some(read),
    }
}

/// The tablespace of an archive, from its name: `base.tar`, `16384.tar`.
fn archive_oid(body: &Bytes) -> Option<Option<u32>> {
    let name = std::str::from_utf8(body.split(|byte| *byte == 0).next()?).ok()?;
    match name.strip_suffix(".tar")? {
        "base" => Some(None),
        oid => Some(Some(oid.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_grammars() {
        let options = BaseBackupOptions {
            label: "it's".into(),
            max_rate_kib: Some(1024),
            manifest_checksums: ManifestChecksums::Crc32c,
            ..BaseBackupOptions::default()
        };
        assert_eq!(
            options.command(140_001).expect("valid"),
            "BASE_BACKUP LABEL 'it''s' PROGRESS FAST NOWAIT MAX_RATE 1024 MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
        );
        assert_eq!(
            options.command(150_000).expect("valid"),
            "BASE_BACKUP (LABEL 'it''s', PROGRESS, CHECKPOINT 'fast', WAIT 0, MAX_RATE 1024, MANIFEST 'yes', \
             MANIFEST_CHECKSUMS 'CRC32C')"
        );
        let spread = BaseBackupOptions { fast_checkpoint: false, progress: false, ..BaseBackupOptions::default() };
        assert!(!spread.command(180_000).expect("valid").contains("fast"));
        assert!(!spread.command(130_000).expect("valid").contains("FAST"));
    }

    #[test]
    fn options_that_the_server_would_misread_are_refused() {
        let with = |label: &str, rate| BaseBackupOptions {
            label: label.into(),
            max_rate_kib: rate,
            ..BaseBackupOptions::default()
        };
        assert!(with("two\nlines", None).command(150_000).is_err());
        assert!(with("slow", Some(31)).command(150_000).is_err());
        assert!(with("fast", Some(1_048_577)).command(150_000).is_err());
    }

    #[test]
    fn archives_are_named_after_their_tablespace() {
        assert_eq!(archive_oid(&Bytes::from_static(b"base.tar\0\0")), Some(None));
        assert_eq!(archive_oid(&Bytes::from_static(b"16384.tar\0/srv/fast\0")), Some(Some(16384)));
        assert_eq!(archive_oid(&Bytes::from_static(b"base.tar.gz\0\0")), None);
    }
}
