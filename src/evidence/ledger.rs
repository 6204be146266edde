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
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use chrono::{DateTime, Utc};
    use object_store::local::LocalFileSystem;

    use super::*;
    use crate::error::ErrorKind;
    use crate::evidence::checkpoint::Checkpoint;
    use crate::evidence::fence::LeaseTaken;
    use crate::evidence::testing::{body, key, ledger, memory, trust};
    use crate::runtime::Clock;
    use crate::storage::store::RetryPolicy;

    async fn append(ledger: &Ledger, signer: u8, what: &str) -> Result<Appended> {
        ledger.append(&Runtime::silent(), &key(signer), Vec::new(), body(what)).await
    }

    fn told(entries: &[LedgerEntry]) -> Vec<String> {
        let what = |e: &LedgerEntry| match &e.statement.predicate.body {
            Body::Skipped(skipped) => skipped.what.clone(),
            other => other.kind().to_owned(),
        };
        entries.iter().map(what).collect()
    }

    #[tokio::test]
    async fn entries_come_back_in_order_linked_and_signed() {
        let store = memory();
        let ledger = ledger(&store, &[1, 2]);
        let object = Subject::new("production/data/00ff", "00ff");
        let first =
            ledger.append(&Runtime::silent(), &key(1), vec![object.clone()], body("one")).await.expect("appended");
        let second = append(&ledger, 2, "two").await.expect("appended");
        append(&ledger, 1, "three").await.expect("appended");

        let entries = ledger.entries().await.expect("sound");
        assert_eq!(told(&entries), ["one", "two", "three"]);
        assert_eq!((first.sequence, first.previous.as_deref()), (1, None));
        assert_eq!(second.previous.as_deref(), Some(first.sha256.as_str()));
        assert_eq!(entries[1].statement.predicate.previous.as_deref(), Some(first.sha256.as_str()));
        assert_eq!(entries[1].signers, [key(2).verifying_key().id()]);
        assert_eq!(entries[0].statement.subject, [object]);
        let about = Subject::new("production/ledger/00000000000000000001.json", first.sha256);
        assert_eq!(entries[1].statement.subject, [about], "in-toto wants a subject");
        assert_eq!(told(&ledger.entries_since(1).await.expect("sound")), ["two", "three"]);
        assert_eq!(told(&ledger.entries_since(3).await.expect("sound")), Vec::<String>::new());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn writers_at_once_all_succeed_without_gap_or_loss() {
        let store = memory();
        let writers = (1..=4).map(|writer| {
            let ledger = ledger(&store, &[1, 2, 3, 4]);
            tokio::spawn(async move {
                for n in 0..10 {
                    append(&ledger, writer, &format!("{writer}-{n}")).await.expect("appended");
                    tokio::task::yield_now().await;
                }
            })
        });
        for writer in writers {
            writer.await.expect("no panic");
        }
        let reader = ledger(&store, &[1, 2, 3, 4]);
        let entries = reader.entries().await.expect("sound");
        let mut all = told(&entries);
        all.sort_unstable();
        let mut expected: Vec<String> = (1..=4).flat_map(|w| (0..10).map(move |n| format!("{w}-{n}"))).collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }

    #[tokio::test]
    async fn an_entry_that_is_to_follow_a_certain_one_follows_it_or_is_not_written() {
        let store = memory();
        let (one, two) = (ledger(&store, &[1]), ledger(&store, &[1]));
        let steps = [
            (&one, 0, "a", Some(1)),
            (&two, 0, "somebody was there before", None),
            (&two, 1, "b", Some(2)),
            (&one, 1, "this process had not seen it", None),
            (&one, 2, "c", Some(3)),
        ];
        for (writer, known, what, number) in steps {
            let runtime = Runtime::silent();
            let appended =
                writer.append_after(&runtime, &key(1), Vec::new(), body(what), known).await.expect("reached");
            assert_eq!(appended.map(|a| a.sequence), number, "{what}");
        }
        assert_eq!(told(&one.entries().await.expect("sound")), ["a", "b", "c"]);
    }

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH
        }
    }

    #[tokio::test]
    async fn hosts_that_record_the_same_at_the_same_time_with_the_same_key_make_two_entries() {
        let store = memory();
        let runtime = Runtime::silent().with_clock(Stopped);
        let signer = key(1);
        let (one, two) = (ledger(&store, &[1]), ledger(&store, &[1]));
        // The second host looked before the first one wrote.
        *two.end.lock().await = Some(End { chain: Chain::beginning(), overtaken: None });
        let first = one.append(&runtime, &signer, Vec::new(), body("same")).await.expect("appended");
        let second = two.append(&runtime, &signer, Vec::new(), body("same")).await.expect("appended");
        assert_eq!((first.sequence, second.sequence), (1, 2));
        assert_eq!(one.entries().await.expect("sound").len(), 2);
    }

    #[tokio::test]
    async fn the_checkpoint_follows_each_append_and_other_tools_can_check_it() {
        let store = memory();
        let ledger = ledger(&store, &[1]);
        for n in 1..=5 {
            append(&ledger, 1, "x").await.expect("appended");
            let note = store.get("production/ledger/checkpoint").await.expect("checkpoint");
            let note = String::from_utf8(note.to_vec()).expect("text");
            let trust = trust(&[1]);
            let (checkpoint, _) = Checkpoint::open(&note, "lifeboat/0123abcd/production", &trust).expect("sound");
            assert_eq!(checkpoint.size, n);
            let mut leaves = Vec::new();
            for object in
                store.list("production/ledger/").await.expect("list").iter().filter(|o| o.key.ends_with("json"))
            {
                leaves.push(merkle::leaf_hash(&store.get(&object.key).await.expect("entry")));
            }
            assert_eq!(checkpoint.root, merkle::root(&leaves));
        }
    }

    #[tokio::test]
    async fn a_checkpoint_that_cannot_be_written_is_a_warning_and_is_made_up_for() {
        let folder = tempfile::tempdir().expect("folder");
        let local = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("store"));
        let impatient = RetryPolicy { give_up_after: Duration::ZERO, ..RetryPolicy::default() };
        let store = Store::new(local, "file:", impatient, Runtime::silent());
        let ledger = ledger(&store, &[1]);
        append(&ledger, 1, "one").await.expect("appended");

        let checkpoint = folder.path().join("production/ledger/checkpoint");
        std::fs::remove_file(&checkpoint).expect("removed");
        std::fs::create_dir_all(checkpoint.join("in-the-way")).expect("folder");
        let warnings = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = warnings.clone();
        let runtime = Runtime::new(move |event| seen.lock().expect("lock").push(format!("{event:?}")));
        let second = ledger.append(&runtime, &key(1), Vec::new(), body("two")).await.expect("appended all the same");
        assert_eq!(second.sequence, 2);
        assert!(warnings.lock().expect("lock")[0].contains("Warning"), "{warnings:?}");

        std::fs::remove_dir_all(&checkpoint).expect("removed");
        append(&ledger, 1, "three").await.expect("appended");
        assert!(std::fs::read_to_string(&checkpoint).expect("checkpoint").contains("\n3\n"));
    }

    #[tokio::test]
    async fn nothing_is_appended_to_a_ledger_that_was_cut_off_or_by_a_stranger() {
        let store = memory();
        append(&ledger(&store, &[1]), 1, "one").await.expect("appended");
        append(&ledger(&store, &[1]), 1, "two").await.expect("appended");
        let stranger = append(&ledger(&store, &[1]), 2, "three").await.expect_err("not enrolled");
        assert_eq!(stranger.kind(), ErrorKind::Denied);

        store.delete_all(vec!["production/ledger/00000000000000000002.json".into()]).await.expect("deleted");
        let refused = append(&ledger(&store, &[1]), 1, "three").await.expect_err("cut off");
        assert_eq!(refused.kind(), ErrorKind::Integrity);
        assert!(refused.message().contains("entry 2: missing at the end"), "{refused}");
        assert_eq!(ledger(&store, &[1]).entries().await.expect_err("cut off").kind(), ErrorKind::Integrity);
        let sound = ledger(&store, &[1]).read().await.expect("read").entries;
        assert_eq!(told(&sound), ["one"], "a restore can go on with what is sound");
    }

    #[tokio::test]
    async fn an_interrupted_first_append_leaves_a_ledger_that_goes_on() {
        let store = memory();
        append(&ledger(&store, &[1]), 1, "one").await.expect("appended");
        store.delete_all(vec!["production/ledger/checkpoint".into()]).await.expect("deleted");
        assert_eq!(append(&ledger(&store, &[1]), 1, "two").await.expect("appended").sequence, 2);
    }

    fn takes_over(generation: u64) -> Body {
        Body::Lease(LeaseTaken {
            duty: "jobs".into(),
            generation,
            owner: "host-2".into(),
            previous_owner: Some("host-1".into()),
            previous_generation: Some(generation - 1),
            expired_at: None,
        })
    }

    fn fenced(store: &Store, generation: u64) -> Ledger {
        let fence = Fence { environment: "production".into(), duty: "jobs".into(), generation };
        ledger(store, &[1, 2]).with_fence(Some(fence))
    }

    #[tokio::test]
    async fn a_stalled_writer_appends_nothing_behind_a_takeover() {
        let store = memory();
        let stalled = fenced(&store, 1);
        append(&stalled, 1, "before").await.expect("appended");
        // It stands still here, knowing the end of the ledger, while the other one takes over.
        let successor = fenced(&store, 2);
        successor.append(&Runtime::silent(), &key(2), Vec::new(), takes_over(2)).await.expect("appended");
        let refused = append(&stalled, 1, "after").await.expect_err("overtaken");
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert!(refused.message().contains("host-2 does jobs of production now (generation 2, entry 2"), "{refused}");
        append(&stalled, 1, "again").await.expect_err("for good");
        append(&fenced(&store, 1), 1, "as a new process").await.expect_err("which reads the ledger first");
        append(&successor, 2, "goes on").await.expect("appended");
        append(&ledger(&store, &[1, 2]), 1, "a person").await.expect("acts under no lease");
        let other = |text: &str| ledger(&store, &[1, 2]).with_fence(Some(text.parse().expect("a fence")));
        append(&other("production/wal:1"), 1, "another duty").await.expect("not concerned");
        append(&other("staging/jobs:1"), 1, "another environment").await.expect("not concerned");
        let told = told(&ledger(&store, &[1, 2]).entries().await.expect("sound"));
        let expected = ["before", "lease", "goes on", "a person", "another duty", "another environment"];
        assert_eq!(told, expected);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn writers_that_race_with_a_takeover_are_before_it_or_refused() {
        for _ in 0..20 {
            let store = memory();
            let writers = (0..3).map(|writer| {
                let ledger = fenced(&store, 1);
                tokio::spawn(async move {
                    let mut written = 0;
                    while append(&ledger, 1, &format!("{writer}-{written}")).await.is_ok() {
                        written += 1;
                        tokio::task::yield_now().await;
                    }
                    written
                })
            });
            let writers: Vec<_> = writers.collect();
            let successor = fenced(&store, 2);
            let taken = successor.append(&Runtime::silent(), &key(2), Vec::new(), takes_over(2)).await.expect("taken");
            let mut written = 0;
            for writer in writers {
                written += writer.await.expect("no panic");
            }
            let entries = ledger(&store, &[1, 2]).entries().await.expect("sound");
            assert_eq!(entries.len(), written + 1, "what was reported as written is there, and nothing else");
            assert_eq!(entries.last().map(|e| e.sequence), Some(taken.sequence), "nothing follows");
        }
    }
}
