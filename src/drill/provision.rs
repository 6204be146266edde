//! The first stage of a drill and the last but one: a sealed place with room enough, and its end.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::run::Request;
use super::sandbox::local::Local;
use super::sandbox::unsealed::Unsealed;
use super::sandbox::{Limits, Sandbox, Seal};
use crate::config::SandboxKind;
use crate::error::Result;
use crate::evidence::drill_record::{self, Cleanup};
use crate::repository::base_manifest::BaseManifest;
use crate::restore::Tools;
use crate::restore::wal_server::AHEAD;

/// Sees that there is room, and seals the sandbox before anything is restored into it.
pub(super) async fn provision(
    tools: &Tools,
    request: &Request<'_>,
    described: &mut Option<drill_record::Sandbox>,
) -> Result<(Arc<dyn Seal>, Arc<BaseManifest>)> {
    let (plan, sandbox) = (&request.plan, &request.sandbox);
    let limits = Limits::from(&request.environment.drill);
    // Of WAL, recovery has as much on disk as is fetched ahead, at least for a moment.
    let wal = plan.target.wal_bytes.min(AHEAD);
    limits.admit(plan.bytes + wal + program_bytes(&tools.program, sandbox.root()), sandbox.root())?;
    let seal: Arc<dyn Seal> = match request.environment.drill.sandbox {
        SandboxKind::Local => {
            let mut readable = installation(&tools.bin_dir);
            readable.extend(request.readable.iter().cloned());
            Arc::new(Local::start(&tools.program, sandbox.spec(readable, &request.ports, limits.memory)).await?)
        }
        SandboxKind::None => Arc::new(Unsealed::new(sandbox.root().to_owned(), tools.account.clone())),
    };
    let facts = seal.facts();
    *described = Some(drill_record::Sandbox {
        kind: facts.kind.to_owned(),
        account: facts.account,
        network: facts.network,
        server_version: String::new(),
        sealed: Some(facts.sealed),
        namespaces: facts.namespaces,
        landlock_abi: facts.landlock_abi,
        limits: limits.words(),
    });
    Ok((seal, tools.manifest(plan).await?))
}

/// The space that this program takes in the sandbox: none where it can be linked.
fn program_bytes(program: &Path, root: &Path) -> u64 {
    match (program.metadata(), root.metadata()) {
        (Ok(program), Ok(root)) if program.dev() != root.dev() => program.len(),
        _ => 0,
    }
}

/// Where PostgreSQL's programs find their libraries and data, when that is not where the operating system has its own.
fn installation(bin_dir: &Path) -> Vec<PathBuf> {
    let beside = bin_dir.parent().filter(|_| bin_dir.ends_with("bin"));
    let parts = ["lib", "lib64", "share"].iter().filter_map(|name| Some(beside?.join(name)));
    std::iter::once(bin_dir.to_owned()).chain(parts).filter(|path| !path.starts_with("/usr") && path.exists()).collect()
}

/// Ends what still runs, removes everything, and looks whether it is gone.
pub(super) async fn destroy(seal: Option<&dyn Seal>, sandbox: &mut Sandbox, tools: &Tools) -> Result<Cleanup> {
    let mut alive = Vec::new();
    if let Some(seal) = seal
        && let Err(e) = seal.end().await
    {
        alive.push(e.message());
    }
    let now = tools.runtime.now();
    let mut cleanup = sandbox.destroy(now).await?;
    cleanup.residue.extend(alive);
    if let Some(seal) = seal {
        cleanup.residue.extend(seal.processes().iter().map(|pid| format!("process {pid} of the sandbox")));
    }
    Ok(cleanup)
}
