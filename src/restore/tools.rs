//! What restores and drills work with, and the two steps that both take: files, then recovery.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{self, ClusterTarget, Files, Transfer};
use super::plan::Plan;
use super::recover::{Recovery, Stopped, assert_stop, is_recovered, recover, recover_and_pause, start_recovered};
use super::resolve::Resolved;
use crate::disk::{Owner, failed};
use crate::error::Result;
use crate::postgres::account::Account;
use crate::postgres::launch::Launch;
use crate::postgres::server::PrivateServer;
use crate::repository::Repository;
use crate::repository::base_manifest::BaseManifest;
use crate::repository::catalogue::Catalogue;
use crate::repository::retention::guard;
use crate::runtime::Runtime;

/// What a restore works with, beside its plan.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The repository, with keys that open data.
    pub repository: Arc<Repository>,
    /// What it holds.
    pub catalogue: Arc<Catalogue>,
    /// Directory of PostgreSQL's programs, of the major version of the backup.
    pub bin_dir: PathBuf,
    /// This program, for `restore_command`.
    pub program: PathBuf,
    /// `restore_command` for an operator who starts the server himself.
    pub operator_command: String,
    /// The account that servers run as, where this process is root.
    pub account: Option<Account>,
    /// How programs are started on restored data.
    pub launch: Arc<dyn Launch>,
    /// A role of the cluster that may log in.
    pub role: String,
    /// Where tablespaces go, by their location at the source; others go back to where they were.
    pub tablespaces: HashMap<String, PathBuf>,
    /// Directory for short-lived things, with a short path.
    pub temporary: PathBuf,
    /// Clock and events.
    pub runtime: Runtime,
}

impl Tools {
    /// Reads the manifest of the plan's base backup.
    pub async fn manifest(&self, plan: &Plan) -> Result<Arc<BaseManifest>> {
        let read = BaseManifest::read(&self.repository, &plan.environment, &plan.base.manifest).await;
        self.explained(plan, read.map(Arc::new)).await
    }

    /// Tells damage from what retention deleted meanwhile.
    async fn explained<T>(&self, plan: &Plan, result: Result<T>) -> Result<T> {
        let since = self.catalogue.entries.last().map_or(0, |e| e.sequence);
        match result {
            Err(e) => Err(guard::explain(&self.repository, &plan.environment, since, e).await),
            done => done,
        }
    }

    /// Where the files of the cluster go.
    pub fn target(&self, plan: &Plan) -> ClusterTarget {
        ClusterTarget {
            pgdata: plan.pgdata.clone(),
            tablespaces: self.tablespaces.clone(),
            owner: self.account.as_ref().map(Owner::from),
        }
    }

    /// Fetches and writes the base backup; with `reuse` it keeps what is right in the target.
    pub async fn files(&self, plan: &Plan, manifest: Arc<BaseManifest>, reuse: bool) -> Result<Transfer> {
        let written = files::write(Files {
            repository: &self.repository,
            environment: &plan.environment,
            manifest,
            stop: plan.base.stop_lsn,
            target: &self.target(plan),
            reuse,
            runtime: &self.runtime,
        })
        .await;
        self.explained(plan, written).await
    }

    /// Replays WAL to the stop point and asserts it; the server keeps running.
    pub async fn recover(&self, plan: &Plan, work_dir: &Path) -> Result<(PrivateServer, Stopped)> {
        let recovery = self.recovery(plan, &plan.target, work_dir);
        let (server, stopped) = match is_recovered(&plan.pgdata, &plan.target)? {
            true => start_recovered(&recovery).await?,
            false => recover(&recovery).await?,
        };
        assert_stop(&plan.target, &stopped)?;
        Ok((server, stopped))
    }

    /// Replays WAL up to `stop`, which lies before the plan's target, and pauses there; see [`recover_and_pause`].
    pub async fn pause(&self, plan: &Plan, stop: &Resolved, work_dir: &Path) -> Result<PrivateServer> {
        recover_and_pause(&self.recovery(plan, stop, work_dir)).await
    }

    fn recovery<'a>(&'a self, plan: &'a Plan, target: &'a Resolved, work_dir: &'a Path) -> Recovery<'a> {
        Recovery {
            repository: self.repository.clone(),
            catalogue: self.catalogue.clone(),
            target,
            pgdata: &plan.pgdata,
            work_dir,
            bin_dir: &self.bin_dir,
            program: &self.program,
            account: self.account.as_ref(),
            launch: self.launch.as_ref(),
            role: &self.role,
            major: major(&plan.base.server_version),
            withheld: None,
        }
    }

    /// Recovery of a copy of the restored files as if a WAL segment were lost; says nothing of the real one.
    pub async fn recover_without(&self, plan: &Plan, segment: u64, work_dir: &Path) -> Result<Stopped> {
        let recovery = Recovery { withheld: Some(segment), ..self.recovery(plan, &plan.target, work_dir) };
        let (server, stopped) = recover(&recovery).await?;
        server.stop().await?;
        assert_stop(&plan.target, &stopped)?;
        Ok(stopped)
    }

    /// Recovery of a copy of the restored files to another place than the plan's; tells where it stopped.
    pub async fn recover_elsewhere(&self, plan: &Plan, target: &Resolved, work_dir: &Path) -> Result<Stopped> {
        let (server, stopped) = recover(&self.recovery(plan, target, work_dir)).await?;
        server.stop().await?;
        Ok(stopped)
    }
}

/// A directory of its own for sockets and server files, removed when it goes out of scope.
pub fn work_dir(parent: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("lifeboat-")
        .tempdir_in(parent)
        .map_err(|e| failed("cannot make a directory in", parent, e))
}

/// Major version in the server's own words: "15.18 (Debian …)", "18beta1".
pub fn major(server_version: &str) -> u32 {
    let digits: String = server_version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}
