//! The duties that this instance has: for each environment, the leases of what it may do, taken, renewed, given up.
//!
//! A duty that another instance has is asked for again and again, so that this one takes over when that one is gone.
//! A lease that cannot be renewed, because the store is away, is no reason to stop what runs under it: whoever took
//! it over has written so into the ledger, which then refuses whatever this instance would still record. But nothing
//! new begins until it is renewed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::evidence::Fence;
use crate::evidence::fence::highest_generation;
use crate::repository::Repository;
use crate::repository::catalogue::ledger;
use crate::repository::duty::{Duty, Taking, contender, fence, take};
use crate::runtime::Runtime;
use crate::storage::lease::{Lease, Renewal, Terms};

/// How long giving a lease up may take.
const RELEASE: Duration = Duration::from_secs(5);
/// The pause after the store failed.
const PAUSE: Duration = Duration::from_secs(2);

/// A duty of an environment.
pub(super) type Post = (String, Duty);

/// How this instance stands to a duty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not known yet.
    Seeking,
    /// It is ours, under this fence. `valid`: something new may be begun under it.
    Ours {
        /// What records are made under.
        fence: Fence,
        /// Whether it was renewed in time.
        valid: bool,
    },
    /// Another instance has it.
    Elsewhere(String),
}

/// Something has become of a duty.
#[derive(Debug)]
pub(super) struct DutyNews {
    /// Which.
    pub(super) post: Post,
    /// How it stands now.
    pub(super) standing: Standing,
    /// What went wrong, where something did.
    pub(super) failure: Option<Error>,
}

/// Everything that is sought or held.
#[derive(Debug)]
pub(super) struct Duties {
    posts: BTreeMap<Post, Sought>,
    news: mpsc::UnboundedSender<DutyNews>,
    instance: Instance,
    runtime: Runtime,
}

#[derive(Debug)]
struct Sought {
    standing: Standing,
    /// Whether something went wrong when it was last asked for.
    troubled: bool,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Who asks for leases.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// Its name.
    pub(super) name: String,
    /// This run of it; random.
    pub(super) process: String,
    /// Runs before this one on the same state directory, which have ended for certain.
    pub(super) dead: Vec<String>,
    /// How long leases last.
    pub(super) terms: Terms,
}

impl Standing {
    /// The fence, where the duty is ours.
    fn fence(&self) -> Option<&Fence> {
        match self {
            Standing::Ours { fence, .. } => Some(fence),
            Standing::Seeking | Standing::Elsewhere(_) => None,
        }
    }

    /// Whether the same lease is held as in `other`, or none in both.
    pub(super) fn holds_as(&self, other: &Standing) -> bool {
        self.fence() == other.fence()
    }
}

impl Duties {
    /// None yet; what becomes of them goes to `news`.
    pub(super) fn new(instance: Instance, news: mpsc::UnboundedSender<DutyNews>, runtime: Runtime) -> Self {
        Self { posts: BTreeMap::new(), news, instance, runtime }
    }

    /// Seeks the `wanted` duties and lets go of all others, which expire.
    pub(super) fn seek(&mut self, wanted: &[Post], repository: &watch::Receiver<Option<Arc<Repository>>>, moved: bool) {
        self.posts.retain(|post, sought| {
            let stays = !moved && wanted.contains(post);
            if !stays {
                sought.task.abort();
            }
            stays
        });
        for post in wanted {
            if self.posts.contains_key(post) {
                continue;
            }
            let stop = CancellationToken::new();
            let seeking = Seeking {
                post: post.clone(),
                repository: repository.clone(),
                instance: self.instance.clone(),
                news: self.news.clone(),
                runtime: self.runtime.clone(),
                stop: stop.clone(),
            };
            let task = tokio::spawn(seeking.run());
            self.posts.insert(post.clone(), Sought { standing: Standing::Seeking, troubled: false, stop, task });
        }
    }

    /// Keeps what has become of a duty: how it stood, where it stands otherwise now, and whether there is trouble that
    /// there was not before.
    pub(super) fn note(&mut self, news: &DutyNews) -> (Option<Standing>, bool) {
        let Some(sought) = self.posts.get_mut(&news.post) else { return (None, false) };
        let troubled = std::mem::replace(&mut sought.troubled, news.failure.is_some());
        let trouble = news.failure.is_some() && !troubled;
        let before = std::mem::replace(&mut sought.standing, news.standing.clone());
        ((before != news.standing).then_some(before), trouble)
    }

    /// How this instance stands to a duty.
    pub(super) fn standing(&self, environment: &str, duty: Duty) -> &Standing {
        self.posts.get(&(environment.to_owned(), duty)).map_or(&Standing::Seeking, |sought| &sought.standing)
    }

    /// The fence of a duty that is ours.
    pub(super) fn fence(&self, environment: &str, duty: Duty) -> Option<&Fence> {
        self.standing(environment, duty).fence()
    }

    /// The environments some of whose jobs this instance may begin now.
    pub(super) fn of_jobs(&self) -> HashSet<String> {
        let of_jobs = self.posts.iter().filter(|((_, duty), sought)| {
            matches!(duty, Duty::Jobs | Duty::Drills) && matches!(sought.standing, Standing::Ours { valid: true, .. })
        });
        of_jobs.map(|((environment, _), _)| environment.clone()).collect()
    }

    /// Gives everything up, after all that was done has ended.
    pub(super) fn give_up(&self) {
        self.posts.values().for_each(|sought| sought.stop.cancel());
    }

    /// Whether everything was given up.
    pub(super) fn are_given_up(&self) -> bool {
        self.posts.values().all(|sought| sought.task.is_finished())
    }
}

/// One duty, sought or held.
struct Seeking {
    post: Post,
    repository: watch::Receiver<Option<Arc<Repository>>>,
    instance: Instance,
    news: mpsc::UnboundedSender<DutyNews>,
    runtime: Runtime,
    stop: CancellationToken,
}

impl Seeking {
    async fn run(mut self) {
        let stop = self.stop.clone();
        loop {
            let sought = tokio::select! {
                sought = self.seek() => sought,
                () = stop.cancelled() => return,
            };
            let Some(mut lease) = sought else { return };
            tokio::select! {
                () = self.hold(&mut lease) => {}
                () = stop.cancelled() => {
                    // One that is not given up expires.
                    let _ = tokio::time::timeout(RELEASE, lease.release()).await;
                    return;
                }
            }
        }
    }

    /// Asks until the duty is ours; `None` when the repository is another one now.
    async fn seek(&mut self) -> Option<Lease> {
        let repository = self.repository.wait_for(Option::is_some).await.ok()?.clone()?;
        loop {
            match self.try_to_take(&repository).await {
                Ok(lease) => return Some(lease),
                Err(failure) => {
                    self.tell(Standing::Seeking, Some(failure));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_to_take(&self, repository: &Repository) -> Result<Lease> {
        let Instance { name, process, dead, terms } = &self.instance;
        let (environment, duty) = &self.post;
        let entries = ledger(repository, environment).await?.read().await?.entries;
        let above = highest_generation(&entries, duty.name());
        let mut contender = contender(repository, &self.runtime, environment, *duty, name, *terms)?;
        contender.is_process(process, dead);
        loop {
            match take(&mut contender, repository, &self.runtime, above).await? {
                Taking::Taken(lease) => return Ok(*lease),
                Taking::Held(holding) => {
                    self.tell(Standing::Elsewhere(holding.owner), None);
                    tokio::time::sleep(terms.renew_after).await;
                }
            }
        }
    }

    /// Renews it until another instance has it.
    async fn hold(&self, lease: &mut Lease) {
        let mut failure = None;
        loop {
            let ours = Standing::Ours { fence: fence(lease), valid: lease.is_valid() };
            self.tell(ours, failure.take());
            let pause = if lease.is_valid() { lease.renew_in() } else { PAUSE };
            tokio::time::sleep(pause.max(Duration::from_millis(50))).await;
            match lease.renew().await {
                Ok(Renewal::Kept) => {}
                Ok(Renewal::Lost(holding)) => {
                    self.tell(Standing::Elsewhere(holding.owner), None);
                    return;
                }
                Err(away) => {
                    failure = Some(away);
                    tokio::time::sleep(PAUSE.min(lease.remaining())).await;
                }
            }
        }
    }

    fn tell(&self, standing: Standing, failure: Option<Error>) {
        // An error says that the service is gone.
        let _ = self.news.send(DutyNews { post: self.post.clone(), standing, failure });
    }
}
