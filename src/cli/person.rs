//! Who runs this command, as far as the operating system tells.
//!
//! The login that a session began with (`/proc/self/loginuid`) stays the same through `sudo` and `su`, and only root
//! of the host can set it; where there is none (a service, a container), it is the account of the process. It proves
//! what the host's administrator lets it prove; the signature on the entry proves which host that was.

use nix::unistd::{Uid, User};

use super::context::host_name;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::evidence::approval::{KnownBy, Person};

/// What `loginuid` says where no login happened.
const NO_LOGIN: u32 = u32::MAX;

/// The person at this command line.
pub(crate) fn person() -> Result<Person> {
    let login = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse::<u32>().ok());
    let uid = login.filter(|uid| *uid != NO_LOGIN).map_or_else(Uid::current, Uid::from_raw);
    let user = User::from_uid(uid).or_err(ErrorKind::Internal, || format!("cannot look up the account {uid}"))?;
    let name = user.map(|user| user.name).ok_or_else(|| error::internal(format!("the account {uid} has no name")))?;
    Ok(Person { name, known_by: KnownBy::Account, host: host_name() })
}
