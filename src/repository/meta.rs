//! Metadata objects: JSON Lines, compressed and sealed under the index key.
//!
//! Why text: a manifest is read on the worst day, perhaps by other people with other tools; JSON Lines
//! need no schema to be understood, and compressed they are as small as a binary encoding
//! (`docs/decisions/0002-manifests-are-json-lines.md`). Lines are sealed as they come, so a manifest of
//! any length needs one frame of memory beyond its stored bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Repository;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::storage::layout;
use crate::vault::frame::FRAME_SIZE;
use crate::vault::{Class, Frame, ObjectOpener, ObjectSealer, OpenMemory};

/// Level for metadata: it is small, and read at every incremental.
const LEVEL: i32 = 9;

/// Level for what hardly compresses.
const FAST: i32 = 1;

/// Writes a metadata object line by line.
#[derive(Debug)]
pub struct MetaWriter {
    sealer: ObjectSealer,
    buffer: Vec<u8>,
    level: i32,
}

impl MetaWriter {
    /// Starts an object.
    pub fn new(repository: &Repository) -> Result<Self> {
        Ok(Self { sealer: ObjectSealer::new(Class::Meta, &repository.seal)?, buffer: Vec::new(), level: LEVEL })
    }

    /// Starts an object whose content hardly compresses.
    pub(super) fn fast(repository: &Repository) -> Result<Self> {
        Ok(Self { level: FAST, ..Self::new(repository)? })
    }

    /// Adds one line.
    pub fn line(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.buffer, line)
            .or_err(ErrorKind::Internal, || "cannot write a manifest line".to_owned())?;
        self.buffer.push(b'\n');
        while self.buffer.len() >= FRAME_SIZE {
            let rest = self.buffer.split_off(FRAME_SIZE);
            self.sealer.push(&Frame::compress(&self.buffer, self.level));
            self.buffer = rest;
        }
        Ok(())
    }

    /// Puts the object and returns its name and size.
    pub async fn put(self, repository: &Repository, environment: &str) -> Result<MetaObject> {
        self.put_as(repository, |sha| layout::meta(environment, sha)).await
    }

    /// The same under another key, which contains its name.
    pub async fn put_as(mut self, repository: &Repository, key: impl FnOnce(&str) -> String) -> Result<MetaObject> {
        if !self.buffer.is_empty() {
            self.sealer.push(&Frame::compress(&self.buffer, self.level));
        }
        let bytes = self.sealer.finish(None, None).bytes;
        let size = bytes.len() as u64;
        let (sha256, _) = repository.put_named(key, bytes).await?;
        Ok(MetaObject { sha256, size })
    }
}

/// A stored metadata object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaObject {
    /// Name under `meta/`.
    pub sha256: String,
    /// Stored size in bytes.
    pub size: u64,
}

/// Reads a metadata object; calls `line` for each of its lines in order.
pub async fn read<T: DeserializeOwned>(
    repository: &Repository,
    environment: &str,
    sha256: &str,
    line: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let key = layout::meta(environment, sha256);
    let object = repository.get_named(&key, sha256).await?;
    lines(repository, &key, &object, line)
}

/// The lines of the metadata object `object`, which was read from `key`.
pub fn lines<T: DeserializeOwned>(
    repository: &Repository,
    key: &str,
    object: &[u8],
    mut line: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let opener = ObjectOpener::new(Class::Meta, object, &repository.keys).map_err(|e| e.context(key))?;
    let (mut carry, mut memory) = (Vec::new(), OpenMemory::default());
    for (number, info) in opener.table(object).map_err(|e| e.context(key))?.iter().enumerate() {
        let stored = &object[info.offset as usize..][..info.stored_len as usize];
        carry.extend_from_slice(opener.frame(number as u32, info, stored, &mut memory).map_err(|e| e.context(key))?);
        let mut rest = carry.as_slice();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            line(parse(key, &rest[..end])?)?;
            rest = &rest[end + 1..];
        }
        carry = rest.to_vec();
    }
    match carry.is_empty() {
        true => Ok(()),
        false => Err(error::integrity(format!("{key} does not end with a complete line"))),
    }
}

fn parse<T: DeserializeOwned>(key: &str, line: &[u8]) -> Result<T> {
    serde_json::from_slice(line).or_err(ErrorKind::Integrity, || {
        format!("{key} holds a line that does not parse: {}", String::from_utf8_lossy(&line[..line.len().min(120)]))
    })
}
