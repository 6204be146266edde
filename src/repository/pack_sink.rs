//! The writing pipeline for several source threads: each sums and compresses its own frames, so that all cores
//! work without handing megabytes from thread to thread.
//!
//! ```text
//! thread ── compress ──┐
//! thread ── compress ──┼── seal into the open pack (one lock) ──▶ hash, put (two in flight)
//! thread ── compress ──┘
//! ```
//!
//! Sealing takes a twentieth of the time that compressing does, so the lock is hardly ever contended. A
//! full pack is handed over under the lock: a slow store stops all threads instead of filling memory.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::Repository;
use super::pack_put::{Filling, Full, PackWatcher, Putting};
use super::pack_stream::{PackTask, pipeline_stopped};
use super::page_writer::{FrameOut, Stored, sums};
use crate::error::{self, Result};
use crate::vault::Frame;
use crate::vault::frame::Content;

/// The sources' end of the pipeline; a clone for each thread. The pipeline ends when all are dropped,
/// and then what the last pack holds is put.
#[derive(Debug, Clone)]
pub struct PackSink {
    shared: Arc<Shared>,
    level: i32,
    /// Memory that frames are compressed into.
    coded: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    filling: Mutex<Filling>,
    full: mpsc::Sender<Last>,
}

/// What comes out of the lock.
#[derive(Debug)]
enum Last {
    Pack(Full),
    /// No more will come; the plaintext bytes of all.
    End(u64),
}

impl FrameOut for PackSink {
    fn frame(&mut self, mut plaintext: Vec<u8>, parts: &[Stored]) -> Result<(u64, Vec<u8>)> {
        let coded = std::mem::take(&mut self.coded);
        let (sums, frame) = (sums(&plaintext, parts), Frame::within(coded, Content::Pages, &plaintext, self.level));
        let mut filling = self.shared.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, full) = filling.push(&frame, &sums, parts)?;
        self.coded = frame.body;
        if let Some(full) = full {
            self.shared.full.blocking_send(Last::Pack(full)).map_err(|_| pipeline_stopped())?;
        }
        plaintext.clear();
        Ok((number, plaintext))
    }
}

impl PackSink {
    /// Ends the stream: hands over what the open pack holds. To be called once, when every thread is done.
    pub fn finish(self) -> Result<()> {
        let mut filling = self.shared.filling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = filling.take() {
            self.shared.full.blocking_send(Last::Pack(last)).map_err(|_| pipeline_stopped())?;
        }
        self.shared.full.blocking_send(Last::End(filling.plain_bytes())).map_err(|_| pipeline_stopped())
    }
}

/// Starts a pipeline that puts packs of `environment`; `watcher` hears of each that is durable.
pub fn start(
    repository: &Repository,
    environment: &str,
    level: i32,
    watcher: Option<Box<dyn PackWatcher>>,
) -> (PackSink, PackTask) {
    let (full, mut received) = mpsc::channel(1);
    let mut putting = Putting::new(repository, environment, watcher);
    let filling = Mutex::new(Filling::new(repository.seal.clone(), &putting));
    let task = async move {
        while let Some(last) = received.recv().await {
            match last {
                Last::Pack(full) => putting.put(full).await?,
                Last::End(plain_bytes) => return putting.all(plain_bytes).await,
            }
        }
        Err(error::internal("the sources of the writing pipeline stopped early"))
    };
    (PackSink { shared: Arc::new(Shared { filling, full }), level, coded: Vec::new() }, PackTask(tokio::spawn(task)))
}
