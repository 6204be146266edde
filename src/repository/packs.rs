//! The writing pipeline: a stream of plaintext becomes frames, frames become packs, packs are put.
//!
//! ```text
//! StreamWriter ──1 MiB──▶ compress (blocking pool, in order) ──▶ seal into the open pack ──▶ hash, put
//!   (a thread)  bounded           bounded by cores                  one pack              two in flight
//! ```
//!
//! Every queue is bounded, so memory is, whatever the size of the source: a few frames, one pack being
//! filled and two being put. A position in the stream is (frame, offset); frames are numbered through
//! all packs in order, so a run of plaintext that crosses frames needs one entry in a map.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use super::Repository;
use crate::error::{self, Error, Result};
use crate::storage::{Created, Store, layout};
use crate::vault::frame::{Coding, FRAME_SIZE};
use crate::vault::{Class, Frame, FrameInfo, ObjectSealer, SealKeys, Sealed};

/// A pack is closed when it holds this many bytes.
pub const PACK_SIZE: usize = 32 << 20;

/// Packs being hashed and put at the same time; each is held in memory.
const PACKS_IN_FLIGHT: usize = 2;

/// A stored pack: its name, its size, its frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackInfo {
    /// Name of the object under `data/`.
    pub sha256: String,
    /// Stored size in bytes.
    pub size: u64,
    /// Offset of the first frame.
    pub first: u64,
    /// Per frame: stored length, plaintext length, coding.
    pub frames: Vec<(u32, u32, u8)>,
}

/// The packs that a manifest refers to; frames are numbered through them in order.
#[derive(Debug, Clone, Default)]
pub struct PackTable {
    packs: Vec<PackInfo>,
    /// Number of the first frame of each pack.
    first_frame: Vec<u64>,
    frames: u64,
}

impl PackTable {
    /// A table of these packs.
    pub fn new(packs: Vec<PackInfo>) -> Self {
        let mut table = Self::default();
        for pack in packs {
            table.push(pack);
        }
        table
    }

    /// Adds a pack; returns the number of its first frame.
    pub fn push(&mut self, pack: PackInfo) -> u64 {
        let first = self.frames;
        self.first_frame.push(first);
        self.frames += pack.frames.len() as u64;
        self.packs.push(pack);
        first
    }

    /// The packs.
    pub fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    /// How many frames there are in all packs.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Index of the pack that holds a frame, and the frame's number within it.
    pub fn locate(&self, frame: u64) -> Result<(usize, u32)> {
        if frame >= self.frames {
            return Err(error::integrity(format!(
                "frame {frame} lies outside the {} frames of the manifest",
                self.frames
            )));
        }
        let pack = self.first_frame.partition_point(|first| *first <= frame) - 1;
        Ok((pack, (frame - self.first_frame[pack]) as u32))
    }

    /// Plaintext length of a frame.
    pub fn plain_len(&self, frame: u64) -> Result<u32> {
        let (pack, number) = self.locate(frame)?;
        Ok(self.packs[pack].frames[number as usize].1)
    }

    /// Where the frames of a pack lie within it.
    pub fn frames_of(&self, pack: usize) -> Result<Vec<FrameInfo>> {
        let mut offset = self.packs[pack].first;
        let mut frames = Vec::with_capacity(self.packs[pack].frames.len());
        for &(stored_len, plain_len, coding) in &self.packs[pack].frames {
            frames.push(FrameInfo { offset, stored_len, plain_len, coding: Coding::from_byte(coding)? });
            offset += u64::from(stored_len);
        }
        Ok(frames)
    }

    /// Number of the first frame of a pack.
    pub fn first_frame_of(&self, pack: usize) -> u64 {
        self.first_frame[pack]
    }

    /// Cuts `length` bytes of the plaintext stream from (`frame`, `offset`) on at frame borders; tells for
    /// each part: frame, offset in it, length, and how many bytes came before.
    pub fn cut(
        &self,
        mut frame: u64,
        mut offset: u32,
        length: u64,
        mut part: impl FnMut(u64, u32, u32, u64),
    ) -> Result<()> {
        let mut done = 0;
        while done < length {
            let room = self.plain_len(frame)?.saturating_sub(offset);
            let take = u64::from(room).min(length - done) as u32;
            if take > 0 {
                part(frame, offset, take, done);
            }
            done += u64::from(take);
            frame += 1;
            offset = 0;
        }
        Ok(())
    }
}

/// A place in the plaintext stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the frame, counted through all packs of this writer.
    pub frame: u64,
    /// Offset within the frame's plaintext.
    pub offset: u32,
}

/// The source's end of the pipeline; used from a blocking thread.
#[derive(Debug)]
pub struct StreamWriter {
    frames: mpsc::Sender<Vec<u8>>,
    buffer: Vec<u8>,
    sent: u64,
}

impl StreamWriter {
    /// Where the next byte will stand.
    pub fn position(&self) -> Position {
        match self.buffer.len() == FRAME_SIZE {
            true => Position { frame: self.sent + 1, offset: 0 },
            false => Position { frame: self.sent, offset: self.buffer.len() as u32 },
        }
    }

    /// Adds plaintext; waits while the pipeline is full.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.buffer.len() == FRAME_SIZE {
                self.flush()?;
            }
            let take = bytes.len().min(FRAME_SIZE - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
        }
        Ok(())
    }

    /// Sends what is buffered as a frame and ends the stream.
    pub fn finish(mut self) -> Result<()> {
        match self.buffer.is_empty() {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> Result<()> {
        let frame = std::mem::replace(&mut self.buffer, Vec::with_capacity(FRAME_SIZE));
        self.sent += 1;
        // The task ended early: its own error says why, this one only stops the source.
        self.frames.blocking_send(frame).map_err(|_| error::internal("the writing pipeline stopped"))
    }
}

/// The store's end of the pipeline.
#[derive(Debug)]
pub struct PackTask(JoinHandle<Result<Written>>);

/// What a pipeline stored.
#[derive(Debug)]
pub struct Written {
    /// All packs, in order.
    pub packs: Vec<PackInfo>,
    /// Plaintext bytes.
    pub plain_bytes: u64,
    /// Stored bytes.
    pub stored_bytes: u64,
}

impl PackTask {
    /// Waits until everything is durable in the store.
    pub async fn written(self) -> Result<Written> {
        joined(self.0.await)
    }

    /// Stops the pipeline.
    pub fn abort(&self) {
        self.0.abort();
    }
}

/// Starts a pipeline that puts packs of `environment`.
pub fn start(repository: &Repository, environment: &str, level: i32) -> (StreamWriter, PackTask) {
    let (frames, received) = mpsc::channel(2);
    let task = Pipeline {
        store: repository.store.clone(),
        seal: repository.seal.clone(),
        environment: environment.to_owned(),
        level,
    };
    let writer = StreamWriter { frames, buffer: Vec::with_capacity(FRAME_SIZE), sent: 0 };
    (writer, PackTask(tokio::spawn(task.run(received))))
}

struct Pipeline {
    store: Store,
    seal: SealKeys,
    environment: String,
    level: i32,
}

impl Pipeline {
    async fn run(self, mut received: mpsc::Receiver<Vec<u8>>) -> Result<Written> {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        let mut compressing = FuturesOrdered::new();
        let mut plain_bytes = 0;
        let mut open: Option<ObjectSealer> = None;
        let mut putting = Putting::new(&self.store, &self.environment);
        let mut source_ended = false;
        loop {
            tokio::select! {
                frame = received.recv(), if !source_ended && compressing.len() <= cores => match frame {
                    Some(plaintext) => {
                        plain_bytes += plaintext.len() as u64;
                        let level = self.level;
                        compressing.push_back(tokio::task::spawn_blocking(move || Frame::compress(&plaintext, level)));
                    }
                    None => source_ended = true,
                },
                Some(frame) = compressing.next(), if !compressing.is_empty() => {
                    let frame = frame.map_err(panicked)?;
                    let sealer = match &mut open {
                        Some(sealer) => sealer,
                        None => open.insert(ObjectSealer::new(Class::Pack, &self.seal, PACK_SIZE + 2 * FRAME_SIZE)?),
                    };
                    sealer.push(frame);
                    if sealer.len() >= PACK_SIZE && let Some(full) = open.take() {
                        putting.put(full.finish(None, None)).await?;
                    }
                }
                else => break,
            }
        }
        if let Some(last) = open {
            putting.put(last.finish(None, None)).await?;
        }
        let packs = putting.all().await?;
        let stored_bytes = packs.iter().map(|p| p.size).sum();
        Ok(Written { packs, plain_bytes, stored_bytes })
    }
}

/// Packs on their way to the store.
struct Putting {
    store: Store,
    environment: String,
    slots: Arc<Semaphore>,
    tasks: JoinSet<Result<(usize, PackInfo)>>,
    started: usize,
    done: Vec<Option<PackInfo>>,
}

impl Putting {
    fn new(store: &Store, environment: &str) -> Self {
        Self {
            store: store.clone(),
            environment: environment.to_owned(),
            slots: Arc::new(Semaphore::new(PACKS_IN_FLIGHT)),
            tasks: JoinSet::new(),
            started: 0,
            done: Vec::new(),
        }
    }

    async fn put(&mut self, sealed: Sealed) -> Result<()> {
        let slot = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        while let Some(finished) = self.tasks.try_join_next() {
            self.note(finished)?;
        }
        let (store, environment, place) = (self.store.clone(), self.environment.clone(), self.started);
        self.started += 1;
        self.tasks.spawn(async move {
            let bytes = sealed.bytes;
            let hashed = bytes.clone();
            let sha256 = tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&hashed))).await.map_err(panicked)?;
            let size = bytes.len() as u64;
            let began = Instant::now();
            let created = store.create(&layout::pack(&environment, &sha256), bytes).await?;
            tracing::debug!(%sha256, size, ms = began.elapsed().as_millis() as u64, new = (created == Created::New), "pack put");
            drop(slot);
            Ok((place, PackInfo {
                sha256,
                size,
                first: sealed.frames.first().map_or(0, |f| f.offset),
                frames: sealed.frames.iter().map(|f| (f.stored_len, f.plain_len, f.coding as u8)).collect(),
            }))
        });
        Ok(())
    }

    async fn all(mut self) -> Result<Vec<PackInfo>> {
        while let Some(finished) = self.tasks.join_next().await {
            self.note(finished)?;
        }
        Ok(self.done.into_iter().map(|p| p.expect("every started pack was noted")).collect())
    }

    fn note(&mut self, finished: std::result::Result<Result<(usize, PackInfo)>, tokio::task::JoinError>) -> Result<()> {
        let (place, pack) = joined(finished)?;
        if self.done.len() <= place {
            self.done.resize(place + 1, None);
        }
        self.done[place] = Some(pack);
        Ok(())
    }
}

fn panicked(e: tokio::task::JoinError) -> Error {
    error::internal("a worker of the pipeline ended unexpectedly").source(e)
}

/// Unwraps the result of a task.
pub(crate) fn joined<T>(result: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    result.map_err(panicked)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_cut_where_frames_end() {
        let pack = |frames: &[u32]| PackInfo {
            sha256: String::new(),
            size: 0,
            first: 0,
            frames: frames.iter().map(|len| (0, *len, 0)).collect(),
        };
        let table = PackTable::new(vec![pack(&[100, 100]), pack(&[50])]);
        let mut parts = Vec::new();
        table.cut(0, 90, 130, |frame, offset, length, done| parts.push((frame, offset, length, done))).expect("cut");
        assert_eq!(parts, [(0, 90, 10, 0), (1, 0, 100, 10), (2, 0, 20, 110)]);
        assert!(table.cut(2, 0, 51, |_, _, _, _| {}).is_err());
    }
}
