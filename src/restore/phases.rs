//! Timing of named phases, for people while they run and for evidence afterwards.

use std::future::Future;
use std::time::Instant;

use crate::error::Result;
use crate::event::Event;
use crate::evidence::drill_record::{Basis, Phase};
use crate::runtime::Runtime;

/// The phases of one restore or drill, in the order in which they ended.
#[derive(Debug)]
pub struct Phases {
    runtime: Runtime,
    measured: Vec<Phase>,
}

impl Phases {
    /// Nothing measured yet.
    pub fn new(runtime: &Runtime) -> Self {
        Self { runtime: runtime.clone(), measured: Vec::new() }
    }

    /// Runs `work` as the phase `name`; `total` is its size in bytes, where known. A phase that fails is
    /// kept too, with a note.
    pub async fn time<T>(
        &mut self,
        name: &'static str,
        total: Option<u64>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (started_at, began) = (self.runtime.now(), Instant::now());
        self.runtime.emit(Event::PhaseStarted { phase: name, total });
        let result = work.await;
        let took = began.elapsed();
        self.runtime.emit(Event::PhaseEnded { phase: name, took });
        self.measured.push(Phase {
            name: name.to_owned(),
            started_at: Some(started_at),
            seconds: took.as_secs_f64(),
            basis: Basis::Measured,
            note: result.as_ref().err().map(|_| "failed".to_owned()),
        });
        result
    }

    /// Says something about the phase that ended last.
    pub fn note(&mut self, note: impl Into<String>) {
        if let Some(last) = self.measured.last_mut() {
            last.note = Some(note.into());
        }
    }

    /// What was measured.
    pub fn measured(&self) -> &[Phase] {
        &self.measured
    }

    /// Sum of the measured phases in seconds.
    pub fn seconds(&self) -> f64 {
        self.measured.iter().map(|p| p.seconds).sum()
    }
}
