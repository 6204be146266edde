//! The writing pipeline for one source thread: a stream of plaintext becomes frames, frames become packs.
//!
//! ```text
//! StreamWriter ──1 MiB──▶ sum, compress (blocking pool, in order) ──▶ seal into the open pack ──▶ hash, put
//!   (a thread)  bounded             bounded by cores                     one pack              two in flight
//! ```
//!
//! The source's thread hands bytes on and no more: sums and compression are made behind it, on all cores.
//!
//! Every queue is bounded, so memory is, whatever the size of the source. A position in the stream is
//! (frame, offset); frames are numbered through all packs in order, so a run of plaintext that crosses
//! frames needs one entry in a map.

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Repository;
use super::pack_put::{Filling, PackWatcher, Putting, Written};
use super::packs::{joined, panicked};
use super::page_writer::{FrameOut, Stored, sums};
use super::spare::Spare;
use crate::error::{self, Result};
use crate::vault::Frame;
use crate::vault::frame::{CODED_SIZE, Content, FRAME_SIZE};

/// A place in the plaintext stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the frame, counted through all packs of this writer.
    pub frame: u64,
    /// Offset within the frame's plaintext.
    pub offset: u32,
}

/// Plaintext of a frame and its parts whose pages are summed, if it has any.
type Plain = (Vec<u8>, Vec<Stored>);

/// The source's end of the pipeline; used from a blocking thread.
#[derive(Debug)]
pub struct StreamWriter {
    frames: mpsc::Sender<Plain>,
    /// Plaintext of frames that were compressed.
    spare: Spare,
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
        let frame = std::mem::replace(&mut self.buffer, self.spare.take());
        self.send((frame, Vec::new()))
    }

    fn send(&mut self, plain: Plain) -> Result<()> {
        self.sent += 1;
        self.frames.blocking_send(plain).map_err(|_| pipeline_stopped())
    }
}

impl FrameOut for StreamWriter {
    fn frame(&mut self, plaintext: Vec<u8>, parts: &[Stored]) -> Result<(u64, Vec<u8>)> {
        let number = self.sent;
        self.send((plaintext, parts.to_vec()))?;
        Ok((number, self.spare.take()))
    }
}

/// The pipeline's task ended early: its own error says why, this one only stops the source.
pub(super) fn pipeline_stopped() -> error::Error {
    error::internal("the writing pipeline stopped")
}

/// The store's end of a pipeline.
#[derive(Debug)]
pub struct PackTask(pub(super) JoinHandle<Result<Written>>);

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
    start_watched(repository, environment, level, None)
}

/// As [`start`]; `watcher` hears of each pack that is durable.
pub(crate) fn start_watched(
    repository: &Repository,
    environment: &str,
    level: i32,
    watcher: Option<Box<dyn PackWatcher>>,
) -> (StreamWriter, PackTask) {
    let (frames, received) = mpsc::channel(2);
    let putting = Putting::new(repository, environment, watcher);
    let filling = Filling::new(repository.seal.clone(), &putting);
    let spare = Spare::new(FRAME_SIZE);
    let writer = StreamWriter { frames, buffer: spare.take(), spare: spare.clone(), sent: 0 };
    (writer, PackTask(tokio::spawn(run(received, spare, filling, putting, level))))
}

async fn run(
    mut received: mpsc::Receiver<Plain>,
    plain: Spare,
    mut filling: Filling,
    mut putting: Putting,
    level: i32,
) -> Result<Written> {
    let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
    let coded = Spare::new(CODED_SIZE);
    let mut compressing = FuturesOrdered::new();
    let mut source_ended = false;
    loop {
        tokio::select! {
            frame = received.recv(), if !source_ended && compressing.len() <= cores => match frame {
                Some((plaintext, parts)) => {
                    let (plain, body) = (plain.clone(), coded.take());
                    let content = if parts.is_empty() { Content::Other } else { Content::Pages };
                    compressing.push_back(tokio::task::spawn_blocking(move || {
                        let (sums, frame) = (sums(&plaintext, &parts), Frame::within(body, content, &plaintext, level));
                        plain.keep(plaintext);
                        (sums, frame, parts)
                    }));
                }
                None => source_ended = true,
            },
            Some(frame) = compressing.next(), if !compressing.is_empty() => {
                let (sums, frame, parts) = frame.map_err(panicked)?;
                let (_, full) = filling.push(&frame, &sums, &parts)?;
                coded.keep(frame.body);
                if let Some(full) = full {
                    putting.put(full).await?;
                }
            }
            else => break,
        }
    }
    if let Some(last) = filling.take() {
        putting.put(last).await?;
    }
    putting.all(filling.plain_bytes()).await
}
