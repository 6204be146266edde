//! Writes into the ledger what became of jobs, however long the store is away; for each environment in order.
//!
//! A run has one entry, at its end. Where the service dies before it is written, the occurrence was not done as far as
//! anybody knows, and is done again. What another instance has taken over meanwhile is not written: the ledger refuses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::error::{self, ErrorKind, Result};
use crate::event::{Event, Subject};
use crate::evidence::entry::Body;
use crate::evidence::job_record::JobRecord;
use crate::evidence::{Fence, Ledger};
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::runtime::Runtime;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What became of a record.
#[derive(Debug)]
pub(super) enum Recorded {
    /// It stands in the ledger.
    Written(String, JobRecord),
    /// Another instance has taken over: it decides what becomes of the occurrence.
    Refused(String, JobRecord),
}

/// Takes records to be written.
#[derive(Debug)]
pub(super) struct Recorder {
    lines: HashMap<String, mpsc::UnboundedSender<Line>>,
    open: Arc<()>,
    tell: mpsc::UnboundedSender<Recorded>,
    runtime: Runtime,
}

#[derive(Debug)]
struct Line {
    fence: Fence,
    record: JobRecord,
    repository: watch::Receiver<Option<Arc<Repository>>>,
    /// Lives as long as this is not written.
    _open: Arc<()>,
}

impl Line {
    fn subject(&self) -> Subject {
        Subject { job: Some(self.record.job.clone()), ..Subject::environment(&self.fence.environment) }
    }
}

impl Recorder {
    /// What is written, or never will be, goes to `tell`.
    pub(super) fn new(tell: mpsc::UnboundedSender<Recorded>, runtime: Runtime) -> Self {
        Self { lines: HashMap::new(), open: Arc::default(), tell, runtime }
    }

    /// Has a record written under the lease that its job ran under.
    pub(super) fn write(
        &mut self,
        fence: Fence,
        record: JobRecord,
        repository: &watch::Receiver<Option<Arc<Repository>>>,
    ) {
        let line = Line { fence, record, repository: repository.clone(), _open: self.open.clone() };
        let environment = line.fence.environment.clone();
        let queue = self.lines.entry(environment).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(keep_writing(receiver, self.tell.clone(), self.runtime.clone()));
            sender
        });
        // Its task lives as long as the queue.
        let _ = queue.send(line);
    }

    /// Whether all is written.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.open) == 1
    }
}

/// Writes what comes, one after the other.
async fn keep_writing(
    mut lines: mpsc::UnboundedReceiver<Line>,
    tell: mpsc::UnboundedSender<Recorded>,
    runtime: Runtime,
) {
    // Kept from one record to the next, so that the ledger is read once.
    let mut kept = None;
    while let Some(mut line) = lines.recv().await {
        let mut pause = FIRST_PAUSE;
        loop {
            match write(&mut kept, &mut line, &runtime).await {
                Ok(()) => {
                    let _ = tell.send(Recorded::Written(line.fence.environment.clone(), line.record.clone()));
                    break;
                }
                Err(refused) if refused.kind() == ErrorKind::Denied => {
                    let of = &line.fence.environment;
                    let text = format!("{} is not recorded: {refused}", line.record.job);
                    runtime.emit_about(&line.subject(), Event::Warning(text));
                    let _ = tell.send(Recorded::Refused(of.clone(), line.record.clone()));
                    break;
                }
                Err(failure) => {
                    let text = format!("{} is not recorded yet, trying again: {failure}", line.record.job);
                    runtime.emit_about(&line.subject(), Event::Warning(text));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// A ledger that was read, and what it was opened with.
struct Kept {
    repository: Arc<Repository>,
    fence: Fence,
    ledger: Ledger,
}

async fn write(kept: &mut Option<Kept>, line: &mut Line, runtime: &Runtime) -> Result<()> {
    let opened = line.repository.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone());
    let Some(repository) = opened else {
        return Err(error::denied("the repository is another one now").meaning("nothing was recorded"));
    };
    let fence = &line.fence;
    let same = |kept: &&Kept| Arc::ptr_eq(&kept.repository, &repository) && kept.fence == *fence;
    if kept.as_ref().filter(same).is_none() {
        let ledger = ledger(&repository, &fence.environment).await?.with_fence(Some(fence.clone()));
        *kept = Some(Kept { repository: repository.clone(), fence: fence.clone(), ledger });
    }
    let Kept { ledger, .. } = kept.as_ref().expect("it was just put there");
    ledger.append(runtime, repository.signer()?, Vec::new(), Body::Job(line.record.clone())).await.map(drop)
}
