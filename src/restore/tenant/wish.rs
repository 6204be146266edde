//! What is asked for: which database, changed how, to where.

use std::path::Path;

use async_trait::async_trait;

use super::load::Target;
use super::programs::Programs;
use crate::error::Result;
use crate::postgres::server::PrivateServer;
use crate::restore::masking::Masking;

/// What is wanted of one database.
#[derive(Debug)]
pub struct Wish<'a> {
    /// Its name in the backed-up cluster, at the target.
    pub database: &'a str,
    /// Where it goes.
    pub destination: Destination<'a>,
    /// The programs that dump and load it.
    pub programs: Programs,
    /// Rules that mask it before it leaves the private server.
    pub masking: Option<Masking<'a>>,
    /// Whether it becomes another database for the outside world.
    pub new_identity: bool,
    /// What makes it harmless, where it is to be harmless.
    pub neutralise: Option<&'a dyn Neutralise>,
}

/// Where the database goes.
#[derive(Debug)]
pub enum Destination<'a> {
    /// Into a cluster, under a name that is free there.
    Cluster(IntoCluster<'a>),
    /// Into an archive of Odoo's database manager, at a path that is free; with its filestore.
    Archive(&'a Path),
}

/// A cluster as a destination.
#[derive(Debug)]
pub struct IntoCluster<'a> {
    /// The cluster.
    pub target: &'a Target,
    /// The name there.
    pub name: &'a str,
    /// Who owns it; `None`: the role of the session.
    pub owner: Option<&'a str>,
    /// Receives `<2 hex>/<sha1>`: `data_dir/filestore/NAME`. `None` leaves the filestore out.
    pub filestore: Option<&'a Path>,
    /// Whether Odoo must not see it yet.
    pub hidden: bool,
}

/// Makes a database harmless and proves it.
#[async_trait]
pub trait Neutralise: std::fmt::Debug + Send + Sync {
    /// Does it on the private server; an error where it is not proven.
    async fn neutralise(&self, server: &PrivateServer, database: &str) -> Result<()>;
}
