//! Trying whether this host allows a local sandbox, without a drill.

use std::path::Path;

use super::handle::Local;
use super::spec::Spec;
use crate::disk::failed;
use crate::drill::sandbox::inside::Programs;
use crate::drill::sandbox::place::TEMPORARY;
use crate::drill::sandbox::seal::{Facts, Seal};
use crate::error::Result;
use crate::postgres::account::{Account, hand_over, running_as};

/// Starts a sandbox below `parent` as a drill would, and ends it; what it was like.
///
/// # Errors
/// Those of [`Local::start`]: a configuration error, with what to set, where the host does not allow it.
pub async fn trial(program: &Path, parent: &Path, account: Option<&Account>) -> Result<Facts> {
    let home = tempfile::Builder::new().prefix("lifeboat-trial-").tempdir_in(parent);
    let home = home.map_err(|e| failed("cannot make a directory in", parent, e))?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(home.path(), open).map_err(|e| failed("cannot open", home.path(), e))?;
    let temporary = home.path().join(TEMPORARY);
    std::fs::create_dir(&temporary).map_err(|e| failed("cannot create", &temporary, e))?;
    hand_over(&temporary, account)?;
    let (uid, gid) = (nix::unistd::Uid::effective().as_raw(), nix::unistd::Gid::effective().as_raw());
    let (uid, gid) = account.map_or((uid, gid), |account| (account.uid, account.gid));
    let spec = Spec {
        root: home.path().to_owned(),
        writable: Vec::new(),
        readable: Vec::new(),
        account: account.map_or_else(running_as, |account| account.name.clone()),
        uid,
        gid,
        doors: Vec::new(),
        egress: home.path().join("egress.jsonl"),
        memory_files: 1 << 20,
        programs: Programs::default(),
    };
    let local = Local::start(program, spec).await?;
    let facts = local.facts();
    local.end().await?;
    Ok(facts)
}
