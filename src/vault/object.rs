//! Sealed objects: what every pack, manifest, index, WAL segment and WAL piece looks like in the store.
//!
//! ```text
//! header   magic "LIFEBOAT", format 1, class, key method, 0, epoch u32, key block length u16, key block
//! frames   AES-256-GCM ciphertext + 16-byte tag, one after the other
//! table    sealed: per frame (stored length u32, plaintext length u32, coding u8)
//! summary  sealed under the index key: a small JSON text, or nothing
//! tail     table length u32, summary length u32, content MAC [32], magic "LIFEBEND"
//! ```
//!
//! Every object has a key of its own. Data objects (packs, WAL) carry it in the key block as a small
//! age file that only the epoch's private key opens; metadata objects carry a random salt from which
//! the index key derives it. The nonce is the frame's number: a key seals each number once. The
//! header's SHA-256, the number, the coding and the plaintext length are authenticated with each
//! frame, so frames can be neither moved, swapped, truncated nor relabelled. All integers are little
//! endian. `docs/format.md` says it exactly enough for another reader.

use std::fmt;

use age::x25519::{Identity, Recipient};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::epoch::{decrypt_with, encrypt_to};
use super::frame::{self, Coding, Frame};
use super::index_key::{ContentMac, IndexKey, random_key};
use crate::error::{self, Error, Result};

const MAGIC: &[u8; 8] = b"LIFEBOAT";
const END_MAGIC: &[u8; 8] = b"LIFEBEND";
const FORMAT: u8 = 1;
const FIXED_HEADER: usize = 18;
const TAG: usize = 16;
const TABLE_NUMBER: u32 = u32::MAX;
const TABLE_ENTRY: usize = 9;

/// Length of the part of an object that stands in the clear at its end.
pub const TAIL_LENGTH: usize = 48;

/// What an object holds; part of its header, so one kind can never pass for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Content of databases, filestores, configuration.
    Pack = 1,
    /// Manifest, map or name index.
    Meta = 2,
    /// A complete WAL segment, history file or backup history file.
    Wal = 3,
    /// A piece of a WAL segment being written.
    WalPiece = 4,
}

impl Class {
    fn wraps_to_epoch(self) -> bool {
        self != Class::Meta
    }
}

/// What a host needs to write: no key that opens data is among it.
#[derive(Clone)]
pub struct SealKeys {
    /// Number of the epoch.
    pub epoch: u32,
    /// The epoch's public key.
    pub recipient: Recipient,
    /// The index key.
    pub index: IndexKey,
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKeys(epoch {})", self.epoch)
    }
}

/// What a host needs to read: metadata with the index key alone, data with epochs' private keys too.
#[derive(Clone)]
pub struct OpenKeys {
    /// The index key.
    pub index: IndexKey,
    /// Private keys by epoch; empty on a host that only backs up.
    pub epochs: Vec<(u32, Identity)>,
}

impl fmt::Debug for OpenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenKeys({} epochs)", self.epochs.len())
    }
}

/// Where a frame lies and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// Offset of the sealed frame within its object.
    pub offset: u64,
    /// Length of the sealed frame, tag included.
    pub stored_len: u32,
    /// Length of the plaintext.
    pub plain_len: u32,
    /// How the plaintext is coded.
    pub coding: Coding,
}

/// A finished object.
#[derive(Debug)]
pub struct Sealed {
    /// All bytes of the object.
    pub bytes: Bytes,
    /// Its frames in order.
    pub frames: Vec<FrameInfo>,
}

/// Builds one object in memory, frame by frame.
pub struct ObjectSealer {
    bytes: Vec<u8>,
    header_hash: [u8; 32],
    key: LessSafeKey,
    index: IndexKey,
    frames: Vec<FrameInfo>,
}

impl fmt::Debug for ObjectSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectSealer({} bytes)", self.bytes.len())
    }
}

impl ObjectSealer {
    /// Starts an object with a fresh key.
    pub fn new(class: Class, keys: &SealKeys) -> Result<Self> {
        Self::within(class, keys, Vec::new())
    }

    /// Starts an object with a fresh key in `memory`, whose contents are given up.
    pub fn within(class: Class, keys: &SealKeys, memory: Vec<u8>) -> Result<Self> {
        let (object_key, method, key_block) = if class.wraps_to_epoch() {
            let key = random_key()?;
            let wrapped = encrypt_to(std::slice::from_ref(&keys.recipient), &*key)?;
            (key, 1, wrapped)
        } else {
            let salt = random_key()?;
            (keys.index.derive(&*salt, "lifeboat/1/meta"), 2, salt.to_vec())
        };
        let mut bytes = memory;
        bytes.clear();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[FORMAT, class as u8, method, 0]);
        bytes.extend_from_slice(&keys.epoch.to_le_bytes());
        bytes.extend_from_slice(&(key_block.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&key_block);
        let header_hash = Sha256::digest(&bytes).into();
        Ok(Self { bytes, header_hash, key: aead_key(&object_key), index: keys.index.clone(), frames: Vec::new() })
    }

    /// Seals a frame and returns its number.
    pub fn push(&mut self, frame: &Frame) -> u32 {
        let number = self.frames.len() as u32;
        let offset = self.bytes.len() as u64;
        let aad = frame_aad(&self.header_hash, number, frame.coding as u8, frame.plain_len);
        let stored_len = self.seal_onto_end(number, &aad, &frame.body);
        self.frames.push(FrameInfo { offset, stored_len, plain_len: frame.plain_len, coding: frame.coding });
        number
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no frame was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Closes the object; `mac` is the keyed digest of its whole plaintext where callers compare
    /// contents by it, `summary` a small text that the index key opens.
    pub fn finish(mut self, mac: Option<ContentMac>, summary: Option<&[u8]>) -> Sealed {
        let mut table = Vec::with_capacity(self.frames.len() * TABLE_ENTRY);
        for frame in &self.frames {
            table.extend_from_slice(&frame.stored_len.to_le_bytes());
            table.extend_from_slice(&frame.plain_len.to_le_bytes());
            table.push(frame.coding as u8);
        }
        let aad = frame_aad(&self.header_hash, TABLE_NUMBER, 0, table.len() as u32);
        let table_len = self.seal_onto_end(TABLE_NUMBER, &aad, &table);
        let summary_len = match summary {
            Some(text) => {
                self.key = aead_key(&self.index.derive(&self.header_hash, "lifeboat/1/summary"));
                self.seal_onto_end(0, &self.header_hash.clone(), text)
            }
            None => 0,
        };
        self.bytes.extend_from_slice(&table_len.to_le_bytes());
        self.bytes.extend_from_slice(&summary_len.to_le_bytes());
        self.bytes.extend_from_slice(&mac.unwrap_or_default());
        self.bytes.extend_from_slice(END_MAGIC);
        Sealed { bytes: Bytes::from(self.bytes), frames: self.frames }
    }

    fn seal_onto_end(&mut self, number: u32, aad: &[u8], plaintext: &[u8]) -> u32 {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(plaintext);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(number), Aad::from(aad), &mut self.bytes[start..])
            .expect("a frame is far below AES-GCM's length limit");
        self.bytes.extend_from_slice(tag.as_ref());
        (plaintext.len() + TAG) as u32
    }
}

/// The clear tail of an object: lengths and the content MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Length of the sealed frame table.
    pub table_len: u32,
    /// Length of the sealed summary, 0 where there is none.
    pub summary_len: u32,
    /// Keyed digest of the plaintext, zeros where there is none.
    pub mac: ContentMac,
}

impl Tail {
    /// Reads the last [`TAIL_LENGTH`] bytes of an object.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let tail = bytes.len().checked_sub(TAIL_LENGTH).map(|at| &bytes[at..]).ok_or_else(truncated)?;
        if &tail[40..] != END_MAGIC {
            return Err(truncated());
        }
        Ok(Self {
            table_len: u32_at(tail, 0),
            summary_len: u32_at(tail, 4),
            mac: tail[8..40].try_into().expect("32 bytes"),
        })
    }
}

/// Memory in which frames are opened, one after the other: fresh memory costs a page fault for each 4 KiB.
#[derive(Debug, Default)]
pub struct OpenMemory {
    coded: Vec<u8>,
    plain: Vec<u8>,
}

/// An object's header, checked, with the object's key.
pub struct ObjectOpener {
    class: Class,
    header_hash: [u8; 32],
    header_len: usize,
    key: Option<LessSafeKey>,
    index: IndexKey,
    epoch: u32,
}

impl fmt::Debug for ObjectOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectOpener({:?})", self.class)
    }
}

/// Enough bytes from an object's start to hold any header.
pub const HEADER_READ: u64 = 1024;

impl ObjectOpener {
    /// Reads the header of an object of this class. Without the private key of its epoch the opener
    /// still opens the summary; frames and table are then refused with kind `Denied`.
    pub fn new(class: Class, start: &[u8], keys: &OpenKeys) -> Result<Self> {
        if start.len() < FIXED_HEADER || &start[..8] != MAGIC {
            return Err(error::integrity("this is not an object that Lifeboat wrote"));
        }
        if start[8] != FORMAT {
            return Err(error::integrity(format!("object of format {}, this program reads format {FORMAT}", start[8])));
        }
        if start[9] != class as u8 {
            return Err(error::integrity(format!("object of class {} where class {} belongs", start[9], class as u8)));
        }
        let epoch = u32_at(start, 12);
        let header_len = FIXED_HEADER + usize::from(u16::from_le_bytes([start[16], start[17]]));
        let key_block = start.get(FIXED_HEADER..header_len).ok_or_else(truncated)?;
        let key = match (start[10], class.wraps_to_epoch()) {
            (1, true) => {
                let identities: Vec<&Identity> =
                    keys.epochs.iter().filter(|(e, _)| *e == epoch).map(|(_, i)| i).collect();
                match identities.is_empty() {
                    true => None,
                    false => Some(unwrap_key(&identities, key_block)?),
                }
            }
            (2, false) => Some(aead_key(&keys.index.derive(key_block, "lifeboat/1/meta"))),
            (method, _) => return Err(error::integrity(format!("unknown key method {method}"))),
        };
        let header_hash = Sha256::digest(&start[..header_len]).into();
        Ok(Self { class, header_hash, header_len, key, index: keys.index.clone(), epoch })
    }

    /// Opens a sealed frame whose place in the object is known, and decompresses it.
    pub fn frame<'m>(
        &self,
        number: u32,
        info: &FrameInfo,
        stored: &[u8],
        memory: &'m mut OpenMemory,
    ) -> Result<&'m [u8]> {
        let coded = self.authentic(number, info, stored, &mut memory.coded)?;
        frame::decompress(info.coding, info.plain_len, coded, &mut memory.plain)
    }

    /// As [`ObjectOpener::frame`], of which the first `length` bytes, or some more, are enough. The seal is that of the
    /// whole frame.
    pub fn frame_start<'m>(
        &self,
        number: u32,
        info: &FrameInfo,
        stored: &[u8],
        length: u32,
        memory: &'m mut OpenMemory,
    ) -> Result<&'m [u8]> {
        let coded = self.authentic(number, info, stored, &mut memory.coded)?;
        frame::decompress_start(info.coding, info.plain_len, coded, length, &mut memory.plain)
    }

    /// The coded bytes of a frame, when they are those that were sealed.
    fn authentic<'m>(&self, number: u32, info: &FrameInfo, stored: &[u8], memory: &'m mut Vec<u8>) -> Result<&'m [u8]> {
        let body = stored.len().checked_sub(TAG).filter(|_| stored.len() == info.stored_len as usize);
        let (body, tag) = stored.split_at(body.ok_or_else(truncated)?);
        let aad = frame_aad(&self.header_hash, number, info.coding as u8, info.plain_len);
        let key = self.data_key()?;
        if memory.len() < body.len() {
            memory.resize(body.len(), 0);
        }
        let coded = &mut memory[..body.len()];
        key.open_separate_gather(nonce(number), Aad::from(aad), body, tag, coded).map_err(|_| broken_seal())?;
        Ok(coded)
    }

    /// Reads the frame table of a whole object.
    pub fn table(&self, object: &[u8]) -> Result<Vec<FrameInfo>> {
        let tail = Tail::parse(object)?;
        let end = object.len().checked_sub(TAIL_LENGTH + tail.summary_len as usize).ok_or_else(truncated)?;
        let start = end.checked_sub(tail.table_len as usize).ok_or_else(truncated)?;
        let plain_len = tail.table_len.checked_sub(TAG as u32).ok_or_else(truncated)?;
        let aad = frame_aad(&self.header_hash, TABLE_NUMBER, 0, plain_len);
        let table = open_sealed(self.data_key()?, TABLE_NUMBER, &aad, &object[start..end])?;
        let mut offset = self.header_len as u64;
        let mut frames = Vec::with_capacity(table.len() / TABLE_ENTRY);
        for entry in table.chunks_exact(TABLE_ENTRY) {
            let info = FrameInfo {
                offset,
                stored_len: u32_at(entry, 0),
                plain_len: u32_at(entry, 4),
                coding: Coding::from_byte(entry[8])?,
            };
            offset += u64::from(info.stored_len);
            frames.push(info);
        }
        match offset == start as u64 {
            true => Ok(frames),
            false => Err(truncated()),
        }
    }

    /// Opens a whole object: all frames, checked and concatenated.
    pub fn whole(&self, object: &[u8]) -> Result<Vec<u8>> {
        let frames = self.table(object)?;
        let mut plaintext = Vec::with_capacity(frames.iter().map(|f| f.plain_len as usize).sum());
        let mut memory = OpenMemory::default();
        for (number, info) in frames.iter().enumerate() {
            let at = info.offset as usize;
            let stored = &object[at..at + info.stored_len as usize];
            plaintext.extend_from_slice(self.frame(number as u32, info, stored, &mut memory)?);
        }
        Ok(plaintext)
    }

    /// Opens the summary; `sealed` is exactly its bytes.
    pub fn summary(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        let key = aead_key(&self.index.derive(&self.header_hash, "lifeboat/1/summary"));
        open_sealed(&key, 0, &self.header_hash, sealed)
    }

    fn data_key(&self) -> Result<&LessSafeKey> {
        self.key.as_ref().ok_or_else(|| {
            error::denied(format!("this host has no key that opens data of epoch {}", self.epoch))
                .meaning("it can write backups but not read them; that is by design")
                .hint("set `[keys] identity` to the recovery key, on a host that may restore")
        })
    }
}

fn unwrap_key(identities: &[&Identity], key_block: &[u8]) -> Result<LessSafeKey> {
    let damaged = || error::integrity("the key block of an object does not open with its epoch's key");
    let secret = decrypt_with(identities.iter().copied(), key_block).ok_or_else(damaged)?;
    let key: [u8; 32] = secret.as_slice().try_into().map_err(|_| damaged())?;
    Ok(aead_key(&Zeroizing::new(key)))
}

fn open_sealed(key: &LessSafeKey, number: u32, aad: &[u8], stored: &[u8]) -> Result<Vec<u8>> {
    let mut buffer = stored.to_vec();
    let length = key.open_in_place(nonce(number), Aad::from(aad), &mut buffer).map_err(|_| broken_seal())?.len();
    buffer.truncate(length);
    Ok(buffer)
}

fn aead_key(key: &Zeroizing<[u8; 32]>) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &**key).expect("AES-256 keys have 32 bytes"))
}

fn nonce(number: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn frame_aad(header_hash: &[u8; 32], number: u32, coding: u8, plain_len: u32) -> [u8; 41] {
    let mut aad = [0; 41];
    aad[..32].copy_from_slice(header_hash);
    aad[32..36].copy_from_slice(&number.to_le_bytes());
    aad[36] = coding;
    aad[37..].copy_from_slice(&plain_len.to_le_bytes());
    aad
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn broken_seal() -> Error {
    error::integrity("the seal of a frame is broken: the bytes are not those that were written")
}

fn truncated() -> Error {
    error::integrity("the object is truncated or its lengths do not add up")
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
