//! The store's end of the writing pipelines: the pack being filled, and packs being hashed and put.
//!
//! Memory: one pack being filled, [`PACKS_IN_FLIGHT`] being put, and the page sums of what was put until
//! they fill a metadata object of their own. The memory of a pack that was put holds the next one.

use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Repository;
use super::meta::MetaObject;
use super::packs::{PACK_SIZE, PackInfo, joined, panicked};
use super::page_sums::SumsWriter;
use super::page_writer::Stored;
use super::spare::Spare;
use crate::error::Result;
use crate::storage::{Created, layout};
use crate::vault::frame::FRAME_SIZE;
use crate::vault::{Class, Frame, ObjectSealer, SealKeys, Sealed};

/// Packs being hashed and put at the same time; each is held in memory.
const PACKS_IN_FLIGHT: usize = 2;

/// What a pipeline stored.
#[derive(Debug)]
pub struct Written {
    /// All packs, in order.
    pub packs: Vec<PackInfo>,
    /// The metadata objects with their page sums.
    pub sums: Vec<MetaObject>,
    /// Plaintext bytes.
    pub plain_bytes: u64,
    /// Stored bytes, sums included.
    pub stored_bytes: u64,
}

/// A complete pack, and the sums of its pages where it has any.
#[derive(Debug)]
pub(super) struct Full {
    sealed: Sealed,
    extras: Extras,
}

/// What belongs to a pack besides its bytes.
#[derive(Debug, Default)]
struct Extras {
    sums: Vec<u8>,
    /// What its frames hold; frames are counted within the pack.
    parts: Vec<Stored>,
}

/// Hears of packs as they become durable.
pub trait PackWatcher: Send {
    /// This pack is durable; `parts` is what it holds, with frames counted from its first.
    fn durable(&mut self, pack: &PackInfo, sums: &[u8], parts: &[Stored]);
}

/// The pack being filled.
#[derive(Debug)]
pub(super) struct Filling {
    seal: SealKeys,
    spare: Spare,
    open: Option<ObjectSealer>,
    extras: Extras,
    frames: u64,
    plain_bytes: u64,
}

impl Filling {
    /// Nothing yet, of packs that `putting` puts.
    pub(super) fn new(seal: SealKeys, putting: &Putting) -> Self {
        Self { seal, spare: putting.spare.clone(), open: None, extras: Extras::default(), frames: 0, plain_bytes: 0 }
    }

    /// Plaintext bytes so far.
    pub(super) fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Seals a frame; tells its number, and hands over the pack where that filled it.
    pub(super) fn push(&mut self, frame: &Frame, sums: &[u8], parts: &[Stored]) -> Result<(u64, Option<Full>)> {
        let sealer = match &mut self.open {
            Some(sealer) => sealer,
            None => self.open.insert(ObjectSealer::within(Class::Pack, &self.seal, self.spare.take())?),
        };
        self.plain_bytes += u64::from(frame.plain_len);
        let in_pack = u64::from(sealer.push(frame));
        self.extras.sums.extend_from_slice(sums);
        self.extras.parts.extend(parts.iter().map(|part| Stored { frame: in_pack, ..*part }));
        let number = self.frames;
        self.frames += 1;
        let full = sealer.len() >= PACK_SIZE;
        Ok((number, if full { self.take() } else { None }))
    }

    /// The pack as it is; `None` where nothing was pushed since the last one.
    pub(super) fn take(&mut self) -> Option<Full> {
        let sealed = self.open.take()?.finish(None, None);
        Some(Full { sealed, extras: std::mem::take(&mut self.extras) })
    }
}

/// Packs on their way to the store.
pub(super) struct Putting {
    repository: Arc<Repository>,
    environment: String,
    slots: Arc<Semaphore>,
    spare: Spare,
    tasks: JoinSet<Result<(usize, PackInfo, Extras)>>,
    started: usize,
    done: Vec<Option<PackInfo>>,
    sums: SumsWriter,
    watcher: Option<Box<dyn PackWatcher>>,
}

impl Putting {
    pub(super) fn new(repository: &Repository, environment: &str, watcher: Option<Box<dyn PackWatcher>>) -> Self {
        let repository = Arc::new(repository.unsigned());
        Self {
            sums: SumsWriter::new(&repository, environment),
            repository,
            environment: environment.to_owned(),
            slots: Arc::new(Semaphore::new(PACKS_IN_FLIGHT)),
            spare: Spare::new(PACK_SIZE + 2 * FRAME_SIZE),
            tasks: JoinSet::new(),
            started: 0,
            done: Vec::new(),
            watcher,
        }
    }

    /// Begins to put a pack; waits while as many are on their way as may be.
    pub(super) async fn put(&mut self, full: Full) -> Result<()> {
        let slot = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        while let Some(finished) = self.tasks.try_join_next() {
            self.note(joined(finished)?).await?;
        }
        let (store, environment, place) = (self.repository.store.clone(), self.environment.clone(), self.started);
        let spare = self.spare.clone();
        self.started += 1;
        self.tasks.spawn(async move {
            let Full { sealed, extras } = full;
            let bytes = sealed.bytes;
            let hashed = bytes.clone();
            let sha256 =
                tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&hashed))).await.map_err(panicked)?;
            let size = bytes.len() as u64;
            let began = Instant::now();
            let created = store.create(&layout::pack(&environment, &sha256), bytes.clone()).await?;
            let (ms, new) = (began.elapsed().as_millis() as u64, created == Created::New);
            tracing::debug!(%sha256, size, ms, new, "pack put");
            spare.keep_bytes(bytes);
            drop(slot);
            let info = PackInfo {
                sha256,
                size,
                first: sealed.frames.first().map_or(0, |f| f.offset),
                frames: sealed.frames.iter().map(|f| (f.stored_len, f.plain_len, f.coding as u8)).collect(),
                sums: None,
            };
            Ok((place, info, extras))
        });
        Ok(())
    }

    /// Waits until everything is durable.
    pub(super) async fn all(mut self, plain_bytes: u64) -> Result<Written> {
        while let Some(finished) = self.tasks.join_next().await {
            self.note(joined(finished)?).await?;
        }
        let mut packs: Vec<PackInfo> =
            self.done.into_iter().map(|p| p.expect("every started pack was noted")).collect();
        let sums = self.sums.finish(&mut packs).await?;
        let stored_bytes = packs.iter().map(|p| p.size).chain(sums.iter().map(|s| s.size)).sum();
        Ok(Written { packs, sums, plain_bytes, stored_bytes })
    }

    async fn note(&mut self, (place, pack, extras): (usize, PackInfo, Extras)) -> Result<()> {
        if let Some(watcher) = &mut self.watcher {
            watcher.durable(&pack, &extras.sums, &extras.parts);
        }
        if !extras.sums.is_empty() {
            self.sums.pack(&pack.sha256, &extras.sums).await?;
        }
        if self.done.len() <= place {
            self.done.resize(place + 1, None);
        }
        self.done[place] = Some(pack);
        Ok(())
    }
}
