//! An environment's ledger: signed entries, numbered from 1 without a gap, each naming its
//! predecessor's hash. A conditional create of the next number commits an entry: of two writers at
//! once one wins the number and the other takes the next, so nothing is lost and nothing branches.
//!
//! A ledger with a [`Fence`] is the record of a process that acts under a lease: it appends nothing behind an entry by
//! which another instance took over. That cannot be raced: to create an entry is to have read all before it.
//!
//! What [`Ledger::append`] returned is durable. The checkpoint is written after it and follows from
//! the entries; failing to write it is a warning, and the next append makes up for it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::error::{self, Result};
use crate::event::Event;
use crate::evidence::cache::LedgerCache;
use crate::evidence::dsse::{Envelope, IN_TOTO};
use crate::evidence::entry::{Body, Entry, FORMAT, Recorder};
use crate::evidence::fence::{Fence, Overtaken};
use crate::evidence::merkle;
use crate::evidence::read::{Chain, LedgerEntry, Log, Reading};
use crate::evidence::statement::{Statement, Subject};
use crate::evidence::trust::Trust;
use crate::runtime::Runtime;
use crate::storage::{Store, layout};
use crate::vault::signing::SigningKey;

/// One environment's ledger.
#[derive(Debug)]
pub struct Ledger {
    log: Log,
    recorder: Recorder,
    fence: Option<Fence>,
    /// The end of the ledger as this process last saw it; `None` before it was read.
    end: Mutex<Option<End>>,
}

/// The end of a ledger.
#[derive(Debug)]
struct End {
    chain: Chain,
    /// Who took over what the fence stands for.
    overtaken: Option<Overtaken>,
}

/// Where an entry was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Appended {
    /// Its number.
    pub sequence: u64,
    /// SHA-256 of the envelope's bytes.
    pub sha256: String,
    /// SHA-256 of the entry before it.
    pub previous: Option<String>,
    /// Id of the key that signed it.
    pub signer: String,
}

impl Ledger {
    /// The ledger of `environment` in the repository `repository_id`, which lives in `store`; entries
    /// count if a key in `trust` signed them.
    pub fn new(store: Store, environment: &str, repository_id: &str, trust: Trust) -> Self {
        let log = Log {
            store,
            repository: repository_id.to_owned(),
            environment: environment.to_owned(),
            trust,
            cache: None,
        };
        Self { log, recorder: Recorder::this_program(), fence: None, end: Mutex::new(None) }
    }

    /// The same with entries that this host has seen before; they are verified like those of the store.
    #[must_use]
    pub fn with_cache(mut self, cache: Option<LedgerCache>) -> Self {
        self.log.cache = cache;
        self
    }

    /// The same for a process that acts under a lease. A fence of another environment has no effect here.
    #[must_use]
    pub fn with_fence(mut self, fence: Option<Fence>) -> Self {
        self.fence = fence.filter(|fence| fence.environment == self.log.environment);
        self.end = Mutex::new(None);
        self
    }

    /// Every entry, in order. Anything wrong with the ledger is an integrity error.
    pub async fn entries(&self) -> Result<Vec<LedgerEntry>> {
        self.entries_since(0).await
    }

    /// Every entry after number `sequence`, in order.
    pub async fn entries_since(&self, sequence: u64) -> Result<Vec<LedgerEntry>> {
        let mut chain = self.log.chain_at(sequence).await?;
        self.log.read(&mut chain).await?.sound(&self.log)
    }

    /// The ledger as it is, with the entries that are sound and everything that is wrong: for those
    /// who must go on with a damaged ledger (a restore) or tell about it.
    pub async fn read(&self) -> Result<Reading> {
        self.log.read(&mut Chain::beginning()).await
    }

    /// Entries `first` to `last`, verified with their links to each other and to the entry before, without the rest of the
    /// ledger: for looking through a long one. Says nothing of what lies outside.
    pub async fn range(&self, first: u64, last: u64) -> Result<Reading> {
        self.log.range(first, last).await
    }

    /// The number of the newest entry, where those up to `known` are known to be there; 0 where there is none.
    pub async fn last(&self, known: u64) -> Result<u64> {
        self.log.last(known).await
    }

    /// Appends an entry that says `body` and commits the objects `subjects`.
    ///
    /// # Errors
    /// Denied, where `signer` is not trusted or another instance took over what this ledger's fence stands for;
    /// integrity, where the ledger is damaged; repository, where the store fails.
    pub async fn append(
        &self,
        runtime: &Runtime,
        signer: &SigningKey,
        subjects: Vec<Subject>,
        body: Body,
    ) -> Result<Appended> {
        let appended = self.append_or_yield(runtime, signer, subjects, body, None).await?;
        Ok(appended.expect("only an entry that was to have a certain number yields"))
    }

    /// The same, but only as the entry that follows number `known`: `None` where the ledger has gone on, and nothing was
    /// recorded. Whoever decided by the entries up to `known` knows then that nothing came in between.
    pub async fn append_after(
        &self,
        runtime: &Runtime,
        signer: &SigningKey,
        subjects: Vec<Subject>,
        body: Body,
        known: u64,
    ) -> Result<Option<Appended>> {
        self.append_or_yield(runtime, signer, subjects, body, Some(known)).await
    }

    async fn append_or_yield(
        &self,
        runtime: &Runtime,
        signer: &SigningKey,
        subjects: Vec<Subject>,
        body: Body,
        known: Option<u64>,
    ) -> Result<Option<Appended>> {
        let key_id = signer.verifying_key().id();
        if self.log.trust.find(&key_id).is_none() {
            return Err(error::denied(format!("the signing key {key_id} is not enrolled in this repository"))
                .meaning("nothing was recorded: nobody would accept the signature")
                .hint("enrol this host's key, or use the state_dir that the repository was made with"));
        }
        let mut end = self.end.lock().await;
        let end = match &mut *end {
            Some(end) => end,
            unread => unread.insert(self.first_look(runtime).await?),
        };
        let id = random_id()?;
        if known.is_some_and(|known| end.chain.sequence < known) {
            self.catch_up(end).await?;
        }
        loop {
            if let (Some(overtaken), Some(fence)) = (&end.overtaken, &self.fence) {
                return Err(overtaken.refusal(fence));
            }
            let chain = &mut end.chain;
            if known.is_some_and(|known| chain.sequence != known) {
                return Ok(None);
            }
            let entry = Entry {
                format: FORMAT,
                id: id.clone(),
                repository: self.log.repository.clone(),
                environment: self.log.environment.clone(),
                sequence: chain.sequence + 1,
                previous: chain.sha256.clone(),
                recorded_at: runtime.now(),
                recorded_by: self.recorder.clone(),
                body: body.clone(),
            };
            let (sequence, previous, time) = (entry.sequence, entry.previous.clone(), entry.recorded_at);
            let statement = Statement::new(self.subjects(&subjects, chain), entry);
            let bytes = Bytes::from(Envelope::sign(IN_TOTO, &statement.to_bytes(), signer).to_bytes());
            let key = layout::ledger_entry(&self.log.environment, sequence);
            match self.log.store.create_or_get(&key, bytes.clone()).await? {
                Some(there) if there != bytes => self.catch_up(end).await?,
                _ => {
                    chain.push(sequence, &bytes, Some(time));
                    self.write_checkpoint(runtime, signer, chain).await;
                    let sha256 = chain.sha256.clone().expect("an entry was just pushed");
                    return Ok(Some(Appended { sequence, sha256, previous, signer: key_id }));
                }
            }
        }
    }

    /// Reads the whole ledger before the first append of this process.
    async fn first_look(&self, runtime: &Runtime) -> Result<End> {
        let mut chain = Chain::beginning();
        let reading = self.log.read(&mut chain).await?;
        // An entry without a checkpoint is what an interrupted first append leaves behind.
        if let Some(why) = reading.checkpoint_unusable.as_deref().filter(|_| chain.sequence > 1) {
            runtime.emit(Event::Warning(format!(
                "the ledger of {}: {why}; it is written anew, and entries removed at the end before now would go unnoticed",
                self.log.environment
            )));
        }
        let entries = reading.sound(&self.log)?;
        let overtaken = self.fence.as_ref().and_then(|fence| fence.overtaken(&entries));
        Ok(End { chain, overtaken })
    }

    /// Somebody else took the next number: moves on to the end of what there is now.
    async fn catch_up(&self, end: &mut End) -> Result<()> {
        let mut ahead = end.chain.clone();
        let entries = self.log.read(&mut ahead).await?.sound(&self.log)?;
        if ahead.sequence == end.chain.sequence {
            let key = layout::ledger_entry(&self.log.environment, ahead.sequence + 1);
            return Err(error::integrity(format!("{key} exists in {} but is not listed", self.log.store.url()))
                .meaning("nothing was recorded; this store does not list what was just written")
                .hint("run `lifeboat doctor`, which probes the store"));
        }
        end.chain = ahead;
        if let Some(overtaken) = self.fence.as_ref().and_then(|fence| fence.overtaken(&entries)) {
            end.overtaken = Some(overtaken);
        }
        Ok(())
    }

    /// What the entry is about. in-toto wants a subject: an entry that commits no object is about the
    /// entry it follows, and the very first about the empty log (whose root is the hash of nothing).
    fn subjects(&self, subjects: &[Subject], chain: &Chain) -> Vec<Subject> {
        if !subjects.is_empty() {
            return subjects.to_vec();
        }
        let environment = &self.log.environment;
        vec![match &chain.sha256 {
            Some(sha256) => Subject::new(layout::ledger_entry(environment, chain.sequence), sha256),
            None => Subject::new(layout::ledger(environment), hex::encode(merkle::root(&[]))),
        }]
    }

    async fn write_checkpoint(&self, runtime: &Runtime, signer: &SigningKey, chain: &Chain) {
        let checkpoint = chain.checkpoint(self.log.origin()).expect("an appending ledger was read from its beginning");
        let note = Bytes::from(checkpoint.sign(signer));
        if let Err(failure) = self.log.store.replace(&layout::checkpoint(&self.log.environment), note).await {
            runtime.emit(Event::Warning(format!(
                "entry {} of the ledger of {} is recorded, but its checkpoint (root {}) is not: {failure}",
                checkpoint.size,
                self.log.environment,
                BASE64.encode(checkpoint.root)
            )));
        }
    }
}

fn random_id() -> Result<String> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| error::internal("the operating system gives no random numbers"))?;
    Ok(hex::encode(id))
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
