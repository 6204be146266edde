//! What every sandbox must do, whatever it is made of. `contract` holds each kind to it.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::postgres::launch::Launch;

/// Keeps the programs that work on restored data apart from everything else: they see the files of the
/// drill and of their own installation, no process, socket or address outside, and end with the seal.
#[async_trait]
pub trait Seal: Debug + Send + Sync {
    /// Starts programs inside.
    fn launch(&self) -> Arc<dyn Launch>;

    /// What it is, for the record.
    fn facts(&self) -> Facts;

    /// The Unix socket that leads to `127.0.0.1:port` inside; `None` where that port was not asked for.
    fn way_in(&self, port: u16) -> Option<PathBuf>;

    /// The processes inside, by their numbers on this host.
    fn processes(&self) -> Vec<u32>;

    /// Ends every process inside, and returns when none is left.
    ///
    /// # Errors
    /// Internal, where something inside does not end.
    async fn end(&self) -> Result<()>;
}

/// What a sandbox is, as the record of a drill tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `local` or `none`.
    pub kind: &'static str,
    /// Whether programs inside can reach nothing outside.
    pub sealed: bool,
    /// The account that programs run as.
    pub account: String,
    /// What they can reach.
    pub network: String,
    /// The kinds of namespaces that they have of their own.
    pub namespaces: Vec<String>,
    /// Version of Landlock's interface that was enforced; `None` where the kernel has none.
    pub landlock_abi: Option<u32>,
}
