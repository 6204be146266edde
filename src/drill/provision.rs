//! The first stage of a drill and the last but one: a sealed place with room enough, and its end.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::run::Request;
use super::sandbox::container::{self, Container};
use super::sandbox::local::Local;
use super::sandbox::unsealed::Unsealed;
use super::sandbox::{Limits, Sandbox, Seal};
use crate::config::SandboxKind;
use crate::error::Result;
use crate::evidence::drill_record::{self, Cleanup};
use crate::repository::base_manifest::BaseManifest;
use crate::restore::wal_server::AHEAD;
use crate::restore::{self, Tools};

/// Directories that an image has of its own.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc"];

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
    let program = program_bytes(&tools.program, sandbox.root());
    let libraries = match request.environment.drill.sandbox {
        SandboxKind::Container(_) => container::LIBRARIES,
        SandboxKind::Local | SandboxKind::None => 0,
    };
    limits.admit(plan.bytes + wal + program + libraries, sandbox.root())?;
    let seal: Arc<dyn Seal> = match &request.environment.drill.sandbox {
        SandboxKind::Local => {
            let mut readable = installation(&tools.bin_dir);
            readable.extend(request.readable.iter().cloned());
            Arc::new(Local::start(&tools.program, sandbox.spec(readable, &request.ports, limits.memory)).await?)
        }
        SandboxKind::Container(config) => {
            // What the operating system has is the image's own there.
            let own = |path: &&PathBuf| !SYSTEM.iter().any(|system| path.starts_with(system));
            let readable = request.readable.iter().filter(own).cloned().collect();
            let ports = &request.ports;
            let major = Some(restore::tools::major(&plan.base.server_version));
            let spec = sandbox.container(config.clone(), readable, ports, limits.memory, major);
            Arc::new(Container::start(&tools.program, spec, sandbox.journal()).await?)
        }
        SandboxKind::None => Arc::new(Unsealed::new(sandbox.root().to_owned(), tools.account.clone())),
    };
    let facts = seal.facts();
    let warnings = facts.warnings.iter().map(|warning| format!("the engine warns: {warning}"));
    *described = Some(drill_record::Sandbox {
        kind: facts.kind.to_owned(),
        account: facts.account,
        network: facts.network,
        server_version: String::new(),
        sealed: Some(facts.sealed),
        namespaces: facts.namespaces,
        landlock_abi: facts.landlock_abi,
        engine: facts.engine,
        images: facts
            .images
            .into_iter()
            .map(|image| drill_record::Image { part: image.part, reference: image.reference, id: image.id })
            .collect(),
        limits: limits.words().into_iter().chain(warnings).collect(),
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
