//! Copies of a restored, stopped cluster and of its attachments, to be damaged. Where the file system shares blocks
//! between copies they take no space.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::disk::failed;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::restore::Plan;
use crate::runtime::blocking;

/// A copy that is gone when it goes out of scope.
#[derive(Debug)]
pub(super) struct Copy {
    root: PathBuf,
    /// The plan with the copy's directories in place of the drill's.
    pub(super) plan: Plan,
}

impl Copy {
    /// Copies the data directory of `plan` with its tablespaces, and its attachments where `files` says so; else the
    /// attachments are those of the drill. `root` must not exist.
    pub(super) async fn make(plan: &Plan, root: PathBuf, data: bool, files: bool) -> Result<Self> {
        let original = plan.clone();
        let work = move || {
            let mut copy = Self { plan: original.clone(), root };
            std::fs::create_dir(&copy.root).map_err(|e| failed("cannot create", &copy.root, e))?;
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            std::fs::set_permissions(&copy.root, open).map_err(|e| failed("cannot open", &copy.root, e))?;
            if data {
                copy.plan.pgdata = copy.root.join("pgdata");
                duplicate(&original.pgdata, &copy.plan.pgdata)?;
                copy.tablespaces()?;
            }
            if let Some(directory) = original.filestore.as_ref().filter(|d| files && d.exists()) {
                let own = copy.root.join("filestore");
                duplicate(directory, &own)?;
                copy.plan.filestore = Some(own);
            }
            Ok(copy)
        };
        blocking(work).await
    }

    /// Gives the copy tablespaces of its own: the links still lead to those that it was made from.
    fn tablespaces(&self) -> Result<()> {
        let links = self.plan.pgdata.join("pg_tblspc");
        let Ok(entries) = std::fs::read_dir(&links) else { return Ok(()) };
        for (number, entry) in entries.flatten().enumerate() {
            let link = entry.path();
            let Ok(place) = std::fs::read_link(&link) else { continue };
            let own = self.root.join(format!("tablespace-{number}"));
            duplicate(&place, &own)?;
            std::fs::remove_file(&link).map_err(|e| failed("cannot remove", &link, e))?;
            std::os::unix::fs::symlink(&own, &link).map_err(|e| failed("cannot link", &link, e))?;
        }
        Ok(())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What stays is found when the sandbox is destroyed.
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// Copies a directory with owners, modes and times; shares blocks where the file system can.
fn duplicate(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("/bin/cp");
    command.args(["-a", "--reflink=auto", "--"]).arg(from).arg(to).stdin(Stdio::null());
    let output = command.output().or_err(ErrorKind::Internal, || "cannot run /bin/cp".to_owned())?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let complaint = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
            Err(error::internal(format!("cannot copy {} to {}: {complaint}", from.display(), to.display()))
                .hint("a self-test needs as much space again as the restored data"))
        }
    }
}
