//! What every sandbox must do, whatever it is made of. `contract` holds each kind to it.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::postgres::launch::Launch;

/// Keeps the programs that work on restored data apart from everything else: they see the files of the
/// drill and of their own installation, no process, socket or address outside, and end with the seal.
#[async_trait]
pub trait Seal: Debug + Send + Sync {
    /// Starts programs of one part inside.
    fn launch(&self, part: Part) -> Arc<dyn Launch>;

    /// The directory of PostgreSQL's programs inside; `None`: where this host has them.
    fn bin_dir(&self) -> Option<&Path> {
        None
    }

    /// The words that start Lifeboat's own program inside, where the files of a part are not this host's.
    fn own_program(&self) -> Option<&[String]> {
        None
    }

    /// What it is, for the record.
    fn facts(&self) -> Facts;

    /// The Unix socket that leads to `127.0.0.1:port` inside; `None` where that port was not asked for.
    fn way_in(&self, port: u16) -> Option<PathBuf>;

    /// The processes inside, by their numbers on this host.
    fn processes(&self) -> Vec<u32>;

    /// Whether the kernel has ended a process inside for want of memory, where the sandbox has a limit of its own.
    fn was_out_of_memory(&self) -> bool {
        false
    }

    /// Ends every process inside, and returns when none is left.
    ///
    /// # Errors
    /// Internal, where something inside does not end.
    async fn end(&self) -> Result<()>;
}

/// Whose installation a program belongs to: in a sandbox made of containers each has an image of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// PostgreSQL, its tools, and the programs of checks.
    Server,
    /// Odoo.
    Odoo,
}

impl Part {
    /// Its name: `postgres`, `odoo`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "postgres",
            Self::Odoo => "odoo",
        }
    }
}

/// What a sandbox is, as the record of a drill tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// `local`, `container` or `none`.
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
    /// Name and version of the engine that made its containers; `None` where there are none.
    pub engine: Option<String>,
    /// The images that its containers run.
    pub images: Vec<ImageFacts>,
    /// What the engine could not do as asked.
    pub warnings: Vec<String>,
}

/// An image that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// What it is for: `postgres`, `odoo`.
    pub part: String,
    /// As it was pinned, by its digest.
    pub reference: String,
    /// Its id in the engine, as the engine tells it of the running container.
    pub id: String,
}
