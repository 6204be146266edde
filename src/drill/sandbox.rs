//! The disposable place that a drill restores into, and the proof that it is gone afterwards.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::disk::failed;
use crate::error::Result;
use crate::evidence::drill_record::Cleanup;
use crate::runtime::Runtime;

/// A directory that holds everything that one drill creates.
#[derive(Debug)]
pub struct Sandbox {
    root: PathBuf,
    keep: bool,
}

impl Sandbox {
    /// Makes the directory below `parent`.
    pub fn create(parent: &Path, id: &str, keep: bool) -> Result<Self> {
        std::fs::create_dir_all(parent).map_err(|e| failed("cannot create", parent, e))?;
        let root = parent.join(format!("lifeboat-drill-{id}"));
        std::fs::create_dir(&root).map_err(|e| failed("cannot create", &root, e))?;
        // The server's account must be able to pass through; what is inside has modes of its own.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(&root, open).map_err(|e| failed("cannot open", &root, e))?;
        Ok(Self { root, keep })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The restored data directory.
    pub fn pgdata(&self) -> PathBuf {
        self.root.join("pgdata")
    }

    /// The restored attachments.
    pub fn filestore(&self) -> PathBuf {
        self.root.join("filestore")
    }

    /// Where a tablespace goes; each has a directory of its own.
    pub fn tablespace(&self, number: usize) -> PathBuf {
        self.root.join(format!("tablespace-{number}"))
    }

    /// Destroys everything, unless it is to be kept, and looks whether it is gone.
    pub fn destroy(self, runtime: &Runtime) -> Cleanup {
        let created = vec![self.root.display().to_string()];
        if self.keep {
            let kept = format!("{} (kept on request)", self.root.display());
            return Cleanup { created, destroyed: Vec::new(), residue: vec![kept], verified_at: Some(runtime.now()) };
        }
        // What cannot be removed shows as residue.
        let _ = std::fs::remove_dir_all(&self.root);
        verified(&self.root, created, runtime.now())
    }
}

/// Looks for what is left of a sandbox: its directory, and processes that work in it.
fn verified(root: &Path, created: Vec<String>, now: DateTime<Utc>) -> Cleanup {
    let mut residue = Vec::new();
    if root.exists() {
        residue.push(root.display().to_string());
    }
    residue.extend(processes_in(root).into_iter().map(|pid| format!("process {pid} works in {}", root.display())));
    let destroyed = if residue.is_empty() { created.clone() } else { Vec::new() };
    Cleanup { created, destroyed, residue, verified_at: Some(now) }
}

/// Processes whose working directory lies in `root`; a deleted directory still shows its old name.
fn processes_in(root: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let cwd = std::fs::read_link(entry.path().join("cwd")).ok()?;
            cwd.starts_with(root).then_some(pid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destruction_is_looked_at_not_assumed() {
        let parent = tempfile::tempdir().expect("dir");
        let runtime = Runtime::silent();
        let sandbox = Sandbox::create(parent.path(), "a", false).expect("sandbox");
        std::fs::create_dir_all(sandbox.pgdata().join("base")).expect("dir");
        let root = sandbox.root().to_owned();
        let mut child =
            std::process::Command::new("sleep").arg("60").current_dir(sandbox.pgdata()).spawn().expect("sleep");
        let cleanup = sandbox.destroy(&runtime);
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(!root.exists());
        assert!(cleanup.residue.iter().any(|r| r.contains(&child.id().to_string())), "{cleanup:?}");
        assert!(verified(&root, vec![], runtime.now()).residue.is_empty());

        let kept = Sandbox::create(parent.path(), "b", true).expect("sandbox");
        let root = kept.root().to_owned();
        assert!(kept.destroy(&runtime).residue[0].contains("kept on request"));
        assert!(root.exists());
    }
}
