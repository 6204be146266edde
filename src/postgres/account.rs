//! The account that restored servers run as: PostgreSQL refuses root.

use std::path::Path;

use nix::unistd::{Uid, User};

use crate::disk::failed;
use crate::error::{self, ErrorKind, Result, ResultExt};

/// An unprivileged account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Name, for messages.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Account {
    /// The account to switch to before starting PostgreSQL: `None` when the program already runs as an
    /// ordinary user, who then owns everything that it restores.
    pub fn for_servers(configured: Option<&str>) -> Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let name = configured.unwrap_or("postgres");
        let found =
            User::from_name(name).or_err(ErrorKind::Internal, || format!("cannot look up the account {name}"))?;
        let user = found.ok_or_else(|| {
            error::config(format!("there is no account \"{name}\" on this host"))
                .meaning("PostgreSQL refuses to run as root, and Lifeboat is root")
                .hint("set `run_as` in [environment.postgres] to an existing unprivileged account")
                .hint("or run Lifeboat as an ordinary user")
        })?;
        if user.uid.is_root() {
            return Err(error::config(format!("the account \"{name}\" is root, as which PostgreSQL does not run")));
        }
        Ok(Some(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
    }
}

/// Makes `path` the property of `account`; does nothing where servers run as the running account.
pub fn hand_over(path: &Path, account: Option<&Account>) -> Result<()> {
    match account {
        Some(account) => std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
            .map_err(|e| failed("cannot hand over", path, e)),
        None => Ok(()),
    }
}

/// Name of the account that the program runs as.
pub fn running_as() -> String {
    match User::from_uid(Uid::effective()) {
        Ok(Some(user)) => user.name,
        _ => Uid::effective().to_string(),
    }
}
