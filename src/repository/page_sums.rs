//! Sums of stored pages, so that a page can be compared with what lies in a directory without fetching it,
//! and PostgreSQL's own manifest can name the CRC of a file whose pages were stored over many backups.
//!
//! A metadata object holds the sums of some packs, one line for each. For every page of [`PAGE`] bytes of
//! every frame of the pack, in order, there are [`SUM`] bytes: CRC-32C and XXH3-64, both little endian, of
//! the *file's* bytes in that page: what pads a short last page counts for neither.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::Repository;
use super::meta::{self, MetaObject, MetaWriter};
use super::packs::{PackInfo, PackTable};
use crate::error::{self, ErrorKind, Result, ResultExt};

/// Size of a page; PostgreSQL's default `block_size`.
pub const PAGE: usize = 8192;

/// Bytes of one sum.
pub const SUM: usize = 12;

/// Sums are put when they take so many bytes.
const OBJECT_SIZE: usize = 4 << 20;

/// The sums of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSum {
    /// CRC-32C (Castagnoli), as PostgreSQL computes it.
    pub crc32c: u32,
    /// XXH3, 64 bits, without a seed.
    pub xxh3: u64,
}

impl PageSum {
    /// Of the bytes of a page.
    pub fn of(bytes: &[u8]) -> Self {
        Self { crc32c: crc32c::crc32c(bytes), xxh3: xxh3_64(bytes) }
    }

    /// Whether these bytes have this sum. XXH3 alone tells: it is the stronger one, and two hashes of everything
    /// that lies in a directory take twice the time.
    pub fn is_of(self, bytes: &[u8]) -> bool {
        self.xxh3 == xxh3_64(bytes)
    }

    /// Whether both sums are those of these bytes: enough not to store them again.
    pub(crate) fn both_are_of(self, bytes: &[u8]) -> bool {
        self.is_of(bytes) && self.crc32c == crc32c::crc32c(bytes)
    }

    pub(super) fn to_bytes(self) -> [u8; SUM] {
        let mut bytes = [0; SUM];
        bytes[..4].copy_from_slice(&self.crc32c.to_le_bytes());
        bytes[4..].copy_from_slice(&self.xxh3.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            crc32c: u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes")),
            xxh3: u64::from_le_bytes(bytes[4..SUM].try_into().expect("8 bytes")),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Sums { pack: String, pages: String },
}

/// Gathers sums of packs into metadata objects.
#[derive(Debug)]
pub(crate) struct SumsWriter {
    repository: Arc<Repository>,
    environment: String,
    open: Option<MetaWriter>,
    size: usize,
    /// Packs in the open object.
    inside: Vec<String>,
    put: Vec<MetaObject>,
    object_of: HashMap<String, String>,
}

impl SumsWriter {
    pub(crate) fn new(repository: &Repository, environment: &str) -> Self {
        Self {
            repository: Arc::new(repository.unsigned()),
            environment: environment.to_owned(),
            open: None,
            size: 0,
            inside: Vec::new(),
            put: Vec::new(),
            object_of: HashMap::new(),
        }
    }

    /// Adds the sums of one pack.
    pub(crate) async fn pack(&mut self, sha256: &str, sums: &[u8]) -> Result<()> {
        let writer = match &mut self.open {
            Some(writer) => writer,
            None => self.open.insert(MetaWriter::fast(&self.repository)?),
        };
        writer.line(&Line::Sums { pack: sha256.to_owned(), pages: BASE64.encode(sums) })?;
        self.inside.push(sha256.to_owned());
        self.size += sums.len();
        if self.size >= OBJECT_SIZE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        let Some(writer) = self.open.take() else { return Ok(()) };
        let object = writer.put(&self.repository, &self.environment).await?;
        self.object_of.extend(self.inside.drain(..).map(|pack| (pack, object.sha256.clone())));
        self.put.push(object);
        self.size = 0;
        Ok(())
    }

    /// Puts the rest; tells each pack where its sums are, and all objects.
    pub(crate) async fn finish(mut self, packs: &mut [PackInfo]) -> Result<Vec<MetaObject>> {
        self.flush().await?;
        for pack in packs {
            pack.sums = self.object_of.get(&pack.sha256).cloned();
        }
        Ok(self.put)
    }
}

/// Where the sum of a page stands: its pack's number in the table, and the page's number in the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SumPlace {
    pack: u32,
    page: u32,
}

impl SumPlace {
    /// The place of a page that lies so many pages behind, in the same pack.
    pub(crate) fn plus(self, pages: u64) -> Self {
        Self { page: self.page + pages as u32, ..self }
    }
}

/// The sums of the packs of a manifest.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    /// By number of the pack in the table; empty where a pack has none.
    packs: Vec<Vec<u8>>,
    /// Number of the first page of each frame of a pack, where it has sums.
    first_page: Vec<Vec<u32>>,
}

impl Sums {
    /// Reads the sums of all packs in `table`: 12 bytes for each 8 KiB.
    pub async fn read(repository: &Repository, environment: &str, table: &PackTable) -> Result<Self> {
        let all: Vec<usize> = (0..table.packs().len()).collect();
        Self::read_packs(repository, environment, table, &all).await
    }

    /// Reads the sums of these packs of `table`; the others count as having none.
    pub async fn read_packs(
        repository: &Repository,
        environment: &str,
        table: &PackTable,
        packs: &[usize],
    ) -> Result<Self> {
        let mut wanted: BTreeMap<&str, HashMap<&str, usize>> = BTreeMap::new();
        for &number in packs {
            let pack = &table.packs()[number];
            if let Some(object) = &pack.sums {
                wanted.entry(object).or_default().insert(&pack.sha256, number);
            }
        }
        let mut sums = Self::default();
        for (object, packs) in wanted {
            let mut found = 0;
            meta::read(repository, environment, object, |Line::Sums { pack, pages }| {
                let Some(&number) = packs.get(pack.as_str()) else { return Ok(()) };
                let bytes = BASE64
                    .decode(pages)
                    .or_err(ErrorKind::Integrity, || format!("meta/{object} holds page sums that do not parse"))?;
                if !sums.add(table, number, bytes) {
                    return Err(error::integrity(format!(
                        "meta/{object} does not hold one sum for each page of {pack}"
                    )));
                }
                found += 1;
                Ok(())
            })
            .await?;
            if found != packs.len() {
                return Err(error::integrity(format!("meta/{object} lacks the page sums of a pack that names it")));
            }
        }
        Ok(sums)
    }

    /// Adds the sums of one pack of `table`; `false` where they are not one for each of its pages.
    pub(crate) fn add(&mut self, table: &PackTable, number: usize, bytes: Vec<u8>) -> bool {
        let mut first = Vec::new();
        let mut pages = 0;
        for frame in &table.packs()[number].frames {
            first.push(pages);
            pages += frame.1.div_ceil(PAGE as u32);
        }
        if bytes.len() != pages as usize * SUM {
            return false;
        }
        let count = self.packs.len().max(number + 1);
        self.packs.resize(count, Vec::new());
        self.first_page.resize(count, Vec::new());
        (self.packs[number], self.first_page[number]) = (bytes, first);
        true
    }

    /// Adds what `other`, of the same table, has.
    pub(crate) fn merge(&mut self, other: Self) {
        let count = self.packs.len().max(other.packs.len());
        self.packs.resize(count, Vec::new());
        self.first_page.resize(count, Vec::new());
        for (number, (bytes, first)) in other.packs.into_iter().zip(other.first_page).enumerate() {
            if !bytes.is_empty() {
                (self.packs[number], self.first_page[number]) = (bytes, first);
            }
        }
    }

    /// The sum of the page at `offset` of a frame; `None` where the pack has none, or the place is no
    /// page's beginning.
    pub fn page(&self, table: &PackTable, frame: u64, offset: u32) -> Option<PageSum> {
        self.at(self.place(table, frame, offset)?)
    }

    /// Where the sum of the page at `offset` of a frame stands; `None` as with [`Sums::page`].
    pub(crate) fn place(&self, table: &PackTable, frame: u64, offset: u32) -> Option<SumPlace> {
        let (pack, number) = table.locate(frame).ok()?;
        if !(offset as usize).is_multiple_of(PAGE) {
            return None;
        }
        let first = *self.first_page.get(pack)?.get(number as usize)?;
        Some(SumPlace { pack: pack as u32, page: first + offset / PAGE as u32 })
    }

    /// The sum that stands at a place.
    pub(crate) fn at(&self, place: SumPlace) -> Option<PageSum> {
        let page = place.page as usize;
        self.packs.get(place.pack as usize)?.get(page * SUM..(page + 1) * SUM).map(PageSum::from_bytes)
    }
}
