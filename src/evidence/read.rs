//! The one reader of ledgers. It verifies while it reads: canonical names, density from 1, signatures,
//! links, identity, and the checkpoint. It collects what is wrong instead of stopping at the first,
//! because an auditor wants the whole list and a restore may only need the entries that are sound.
//!
//! Entries that this host has seen before come from its cache (`cache.rs`) and are verified like all others; the
//! store is asked from the last of them on. They are those of the store if the store lists the last of them and an
//! entry behind it, the signed checkpoint, or its own bytes say the same. Otherwise the whole ledger is read, and it
//! is a problem that the store does not have what it had.
//!
//! The checkpoint is read before the entries are listed: whatever it counts was created before it, so
//! a checkpoint that counts more entries than the listing shows means that entries were removed.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use crate::error::{self, Error, Result};
use crate::evidence::cache::LedgerCache;
use crate::evidence::checkpoint::{self, Checkpoint};
use crate::evidence::dsse::{Envelope, IN_TOTO};
use crate::evidence::merkle::{self, Hash};
use crate::evidence::statement::Statement;
use crate::evidence::trust::Trust;
use crate::runtime::blocking;
use crate::storage::{Store, layout};

/// Gets under way at once.
const PARALLEL: usize = 32;

/// An entry whose signature, place and link were verified.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerEntry {
    /// Its place, from 1.
    pub sequence: u64,
    /// SHA-256 of the envelope's bytes.
    pub sha256: String,
    /// Ids of the keys that signed it.
    pub signers: Vec<String>,
    /// What it says.
    pub statement: Statement,
}

/// Something wrong with a ledger.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The entry concerned, where it is one.
    pub sequence: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl Problem {
    fn at(sequence: u64, what: impl Into<String>) -> Self {
        Self { sequence: Some(sequence), what: what.into() }
    }

    fn of_all(what: impl Into<String>) -> Self {
        Self { sequence: None, what: what.into() }
    }
}

/// A ledger as it was found.
#[derive(Debug, Default)]
pub struct Reading {
    /// The entries that are sound, in order.
    pub entries: Vec<LedgerEntry>,
    /// Objects found under the names of entries, sound or not.
    pub found: u64,
    /// What is wrong: bytes were changed, removed, added or moved.
    pub problems: Vec<Problem>,
    /// What is odd, and proves nothing.
    pub findings: Vec<Problem>,
    /// The checkpoint, if its signature holds, and the id of the key that signed it.
    pub checkpoint: Option<(Checkpoint, String)>,
    /// Why the checkpoint is of no use. The next append writes it anew; until then, nothing betrays
    /// entries that are missing at the end.
    pub checkpoint_unusable: Option<String>,
}

/// The part of a ledger that was read, as far as its continuation depends on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    /// Number of the last entry; 0 before the first.
    pub(crate) sequence: u64,
    /// SHA-256 of the last entry's bytes.
    pub(crate) sha256: Option<String>,
    /// Leaf hashes from entry 1; `None` if the beginning was not read.
    pub(crate) leaves: Option<Vec<Hash>>,
    /// When the last entry was recorded.
    time: Option<DateTime<Utc>>,
}

impl Chain {
    /// Before the first entry.
    pub(crate) fn beginning() -> Self {
        Self { leaves: Some(Vec::new()), ..Self::default() }
    }

    /// Moves on to the entry with these bytes.
    pub(crate) fn push(&mut self, sequence: u64, bytes: &[u8], time: Option<DateTime<Utc>>) {
        if sequence != self.sequence + 1 {
            self.leaves = None;
        }
        self.sequence = sequence;
        self.sha256 = Some(hex::encode(Sha256::digest(bytes)));
        self.time = time.or(self.time);
        if let Some(leaves) = &mut self.leaves {
            leaves.push(merkle::leaf_hash(bytes));
        }
    }

    /// The head of the log as it stands; `None` if its beginning was not read.
    pub(crate) fn checkpoint(&self, origin: String) -> Option<Checkpoint> {
        let leaves = self.leaves.as_ref()?;
        Some(Checkpoint { origin, size: self.sequence, root: merkle::root(leaves) })
    }
}

/// One environment's ledger in one store.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) store: Store,
    pub(crate) repository: String,
    pub(crate) environment: String,
    pub(crate) trust: Trust,
    /// Entries that this host has seen; `None`: everything is read from the store.
    pub(crate) cache: Option<LedgerCache>,
}

/// What the cache held, verified but for its end, which only the store can confirm.
struct Remembered {
    chain: Chain,
    entries: Vec<LedgerEntry>,
    findings: Vec<Problem>,
    last: Bytes,
}

impl Log {
    pub(crate) fn origin(&self) -> String {
        checkpoint::origin(&self.repository, &self.environment)
    }

    /// Where to continue after entry `sequence`, whose own content is not looked at.
    pub(crate) async fn chain_at(&self, sequence: u64) -> Result<Chain> {
        if sequence == 0 {
            return Ok(Chain::beginning());
        }
        let bytes = self.store.get(&layout::ledger_entry(&self.environment, sequence)).await?;
        let mut chain = Chain::default();
        chain.push(sequence, &bytes, None);
        Ok(chain)
    }

    /// Reads entries `first` to `last` and nothing else.
    pub(crate) async fn range(&self, first: u64, last: u64) -> Result<Reading> {
        let mut reading = Reading::default();
        let mut chain = match first {
            0 | 1 => Chain::beginning(),
            _ => match self.store.find(&layout::ledger_entry(&self.environment, first - 1)).await? {
                Some(bytes) => {
                    let mut chain = Chain::default();
                    chain.push(first - 1, &bytes, None);
                    chain
                }
                None => Chain::default(),
            },
        };
        let mut objects = futures::stream::iter(first.max(1)..=last)
            .map(|n| async move {
                let bytes = self.store.find(&layout::ledger_entry(&self.environment, n)).await?;
                Ok::<_, Error>((n, bytes))
            })
            .buffered(PARALLEL);
        while let Some((number, bytes)) = objects.try_next().await? {
            let Some(bytes) = bytes else {
                reading.problems.push(Problem::at(number, "missing"));
                continue;
            };
            reading.found += 1;
            match self.entry(&chain, number, &bytes) {
                Ok(entry) => reading.entries.push(entry),
                Err(problem) => reading.problems.push(Problem::at(number, problem.message())),
            }
            chain.push(number, &bytes, None);
        }
        Ok(reading)
    }

    /// The number of the newest entry, which is not before `known`.
    pub(crate) async fn last(&self, known: u64) -> Result<u64> {
        let chain = Chain { sequence: known, ..Chain::default() };
        let numbers = self.list(&chain, &mut Reading::default()).await?;
        Ok(numbers.into_iter().max().unwrap_or(known).max(known))
    }

    /// Reads what follows `chain`, and moves it to the end.
    pub(crate) async fn read(&self, chain: &mut Chain) -> Result<Reading> {
        let Some(cache) = self.cache.as_ref().filter(|_| chain.sequence == 0) else {
            return self.read_store(chain, &mut Vec::new()).await;
        };
        let mut lost = None;
        if let Some(remembered) = self.remembered(cache).await? {
            let known = remembered.chain.sequence;
            match self.continued(remembered).await? {
                Ok((end, reading, new)) => {
                    if reading.problems.is_empty() {
                        cache.extend(known, &new);
                    }
                    *chain = end;
                    return Ok(reading);
                }
                Err(what) => lost = Some(Problem::at(known, what)),
            }
        }
        let mut new = Vec::new();
        let mut reading = self.read_store(chain, &mut new).await?;
        match lost {
            Some(lost) => reading.problems.push(lost),
            None if reading.problems.is_empty() => cache.extend(0, &new),
            None => {}
        }
        Ok(reading)
    }

    /// The entries in the cache, verified; a cache in which anything is wrong is forgotten.
    async fn remembered(&self, cache: &LedgerCache) -> Result<Option<Remembered>> {
        let (log, cache) = (self.clone(), cache.clone());
        blocking(move || {
            let kept = cache.load();
            let Some(last) = kept.last().cloned() else { return Ok(None) };
            let (mut chain, mut reading) = (Chain::beginning(), Reading::default());
            for bytes in kept {
                let number = chain.sequence + 1;
                log.take(&mut chain, number, &bytes, &mut reading);
            }
            if !reading.problems.is_empty() {
                cache.forget();
                return Ok(None);
            }
            Ok(Some(Remembered { chain, entries: reading.entries, findings: reading.findings, last }))
        })
        .await
    }

    /// Goes on from what the cache held: the end, everything, and the entries that were new. `Err`: what the store
    /// says of the last remembered entry, where that is not what this host has seen.
    async fn continued(
        &self,
        remembered: Remembered,
    ) -> Result<std::result::Result<(Chain, Reading, Vec<Bytes>), String>> {
        let Remembered { mut chain, entries, findings, last } = remembered;
        let (known, sha256) = (chain.sequence, chain.sha256.clone());
        let gone = |how: &str| {
            let seen = sha256.as_deref().unwrap_or_default();
            format!(
                "{how}, but this host has seen it (SHA-256 {seen}): the store was set back or tampered with; if it was \
                 set back on purpose, remove {}",
                self.cache.as_ref().map(|cache| cache.path().display().to_string()).unwrap_or_default()
            )
        };
        // From the last remembered one on: that it is listed proves that it is there.
        let before = Chain { sequence: known - 1, ..Chain::default() };
        let mut reading = Reading { findings, ..Reading::default() };
        let checkpoint = self.store.find(&layout::checkpoint(&self.environment)).await?;
        let mut numbers = self.list(&before, &mut reading).await?;
        if numbers.first() != Some(&known) {
            return Ok(Err(gone("missing")));
        }
        numbers.remove(0);
        reading.found = known + numbers.len() as u64;
        reading.entries = entries;
        let linked = numbers.first() == Some(&(known + 1));
        let mut new = Vec::new();
        self.fetch(numbers, &mut chain, &mut reading, &mut new).await?;
        self.hold_against_checkpoint(checkpoint.as_deref(), &chain, &mut reading);
        // An entry that names the last remembered one, or a signed head over exactly the remembered ones, says that
        // they are the store's. Where neither does, or anything looks wrong, its own bytes do.
        let signed = reading.checkpoint.as_ref().is_some_and(|(checkpoint, _)| checkpoint.size == known);
        if !(reading.problems.is_empty() && (linked || signed)) {
            let there = self.store.find(&layout::ledger_entry(&self.environment, known)).await?;
            if there.as_ref() != Some(&last) {
                return Ok(Err(gone("not what it was")));
            }
        }
        Ok(Ok((chain, reading, new)))
    }

    /// Reads what follows `chain` from the store alone; `bytes` gets the bytes of its entries.
    async fn read_store(&self, chain: &mut Chain, bytes: &mut Vec<Bytes>) -> Result<Reading> {
        let mut reading = Reading::default();
        let checkpoint = self.store.find(&layout::checkpoint(&self.environment)).await?;
        let numbers = self.list(chain, &mut reading).await?;
        reading.found = numbers.len() as u64;
        self.fetch(numbers, chain, &mut reading, bytes).await?;
        self.hold_against_checkpoint(checkpoint.as_deref(), chain, &mut reading);
        Ok(reading)
    }

    /// Gets the entries with these numbers, verifies them, and moves `chain` on.
    async fn fetch(
        &self,
        numbers: Vec<u64>,
        chain: &mut Chain,
        reading: &mut Reading,
        new: &mut Vec<Bytes>,
    ) -> Result<()> {
        let mut objects = futures::stream::iter(numbers)
            .map(|n| async move {
                let bytes = self.store.find(&layout::ledger_entry(&self.environment, n)).await?;
                Ok::<_, Error>((n, bytes))
            })
            .buffered(PARALLEL);
        while let Some((number, bytes)) = objects.try_next().await? {
            match bytes {
                Some(bytes) => {
                    self.take(chain, number, &bytes, reading);
                    new.push(bytes);
                }
                None => reading.problems.push(Problem::at(number, "listed, but gone when it was read")),
            }
        }
        Ok(())
    }

    /// Takes an entry in: verifies it, tells what is wrong, moves `chain` on.
    fn take(&self, chain: &mut Chain, number: u64, bytes: &Bytes, reading: &mut Reading) {
        if number > chain.sequence + 1 {
            let (first, last) = (chain.sequence + 1, number - 1);
            let missing = if first == last { "missing".to_owned() } else { format!("missing, up to {last}") };
            reading.problems.push(Problem::at(first, missing));
        }
        let mut time = None;
        match self.entry(chain, number, bytes) {
            Ok(entry) => {
                time = Some(entry.statement.predicate.recorded_at);
                if let (Some(before), Some(now)) = (chain.time, time)
                    && now < before
                {
                    let what = format!("recorded at {now}, before the entry it follows ({before}): a clock went back");
                    reading.findings.push(Problem::at(number, what));
                }
                reading.entries.push(entry);
            }
            Err(problem) => reading.problems.push(Problem::at(number, problem.message())),
        }
        chain.push(number, bytes, time);
    }

    /// Numbers of the entries after `chain`, in order.
    async fn list(&self, chain: &Chain, reading: &mut Reading) -> Result<Vec<u64>> {
        let prefix = layout::ledger(&self.environment);
        let after = layout::ledger_entry(&self.environment, chain.sequence);
        let after = (chain.sequence > 0).then_some(after.as_str());
        let mut numbers = Vec::new();
        for object in self.store.list_after(&prefix, after).await? {
            let number = object.key.strip_prefix(&prefix).and_then(|n| n.strip_suffix(".json")?.parse().ok());
            match number {
                Some(number) if number > 0 && layout::ledger_entry(&self.environment, number) == object.key => {
                    numbers.push(number);
                }
                _ if object.key == layout::checkpoint(&self.environment) => {}
                _ => {
                    let what = format!("{} is neither an entry nor the checkpoint", object.key);
                    let list =
                        if object.key.ends_with(".json") { &mut reading.problems } else { &mut reading.findings };
                    list.push(Problem::of_all(what));
                }
            }
        }
        Ok(numbers)
    }

    /// Checks one entry, for its own sake and as the successor of `chain`.
    fn entry(&self, chain: &Chain, number: u64, bytes: &[u8]) -> Result<LedgerEntry> {
        let envelope = Envelope::from_bytes(bytes)?;
        let opened = envelope.open(IN_TOTO, &self.trust)?;
        let statement = Statement::from_bytes(&opened.payload)?;
        let entry = &statement.predicate;
        if entry.repository != self.repository || entry.environment != self.environment {
            let whose = format!("{} of repository {}", entry.environment, entry.repository);
            return Err(error::integrity(format!("belongs to the ledger of {whose}")));
        }
        if entry.sequence != number {
            return Err(error::integrity(format!("is entry {} under another number", entry.sequence)));
        }
        if number == chain.sequence + 1 && entry.previous != chain.sha256 {
            let named = entry.previous.as_deref().unwrap_or("none");
            let there = chain.sha256.as_deref().unwrap_or("none");
            return Err(error::integrity(format!("names {named} as its predecessor, but that is {there}")));
        }
        let signers = opened.signers.iter().map(|s| s.key.id()).collect();
        let sha256 = hex::encode(Sha256::digest(bytes));
        Ok(LedgerEntry { sequence: number, sha256, signers, statement })
    }

    fn hold_against_checkpoint(&self, note: Option<&[u8]>, chain: &Chain, reading: &mut Reading) {
        let Some(note) = note else {
            if chain.sequence > 0 {
                reading.checkpoint_unusable = Some("there is no checkpoint".to_owned());
            }
            return;
        };
        let opened = std::str::from_utf8(note)
            .map_err(|_| error::integrity("the checkpoint is not text"))
            .and_then(|note| Checkpoint::open(note, &self.origin(), &self.trust));
        let (checkpoint, signer) = match opened {
            Ok((checkpoint, signer)) => (checkpoint, signer.key.id()),
            Err(problem) => {
                reading.checkpoint_unusable = Some(problem.message());
                return;
            }
        };
        let size = checkpoint.size;
        if size > chain.sequence {
            let what =
                format!("missing at the end: the checkpoint counts {size} entries, {} are there", chain.sequence);
            reading.problems.push(Problem::at(chain.sequence + 1, what));
        } else if let Some(leaves) = &chain.leaves {
            let prefix = usize::try_from(size).ok().and_then(|size| leaves.get(..size));
            if prefix.is_none_or(|prefix| merkle::root(prefix) != checkpoint.root) {
                let what = format!("the first {size} entries are not those that the checkpoint was signed for");
                reading.problems.push(Problem::of_all(what));
            }
            if size < chain.sequence {
                let what = format!("the checkpoint counts {size} of {} entries", chain.sequence);
                reading.findings.push(Problem::of_all(what));
            }
        }
        reading.checkpoint = Some((checkpoint, signer));
    }
}

impl Reading {
    /// The entries, if nothing at all is wrong.
    pub(crate) fn sound(self, log: &Log) -> Result<Vec<LedgerEntry>> {
        let Some(first) = self.problems.first() else { return Ok(self.entries) };
        let place = first.sequence.map(|n| format!("entry {n}: ")).unwrap_or_default();
        let more = match self.problems.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        let ledger = layout::ledger(&log.environment);
        Err(error::integrity(format!("{ledger} in {}: {place}{}{more}", log.store.url(), first.what))
            .meaning("the record of what was backed up was damaged or tampered with; nothing was written to it")
            .hint(format!("run `lifeboat evidence verify -e {}` to see everything that is wrong", log.environment))
            .hint("restore the ledger's objects from a copy or from the bucket's object versions"))
    }
}
