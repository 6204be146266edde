//! `lifeboat keygen`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::output::Outcome;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::vault::RecoveryIdentity;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Write the private key to this file, readable by you alone [default: print it]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Makes a recovery key pair; never overwrites a key.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let Some(path) = &arguments.output else {
        let identity = RecoveryIdentity::generate();
        let recipient = identity.recipients().concat();
        let json = json!({ "recipient": recipient, "identity": *identity.to_text(), "file": null });
        return Ok(Outcome::new(json, identity.to_text().as_str()));
    };
    let recipient = make(path)?;
    let text = format!(
        "private key: {} (keep it off the backup host and offline; without it nothing can be restored)\n\
         public key:  {recipient}\n\
         put this into lifeboat.toml:\n\n[keys]\nrecipients = [\"{recipient}\"]",
        path.display()
    );
    Ok(Outcome::new(json!({ "recipient": recipient, "identity": null, "file": path }), text))
}

/// Makes a key pair, writes the private half to the new file `path` and gives the public half.
pub(crate) fn make(path: &Path) -> Result<String> {
    let identity = RecoveryIdentity::generate();
    let mut file = match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(error::denied(format!("{} already exists", path.display()))
                .meaning("nothing was written: overwriting a recovery key could make backups unreadable for ever")
                .hint("name another file"));
        }
        other => other.or_err(ErrorKind::Config, || format!("cannot create {}", path.display()))?,
    };
    file.write_all(identity.to_text().as_bytes())
        .and_then(|()| file.sync_all())
        .or_err(ErrorKind::Config, || format!("cannot write {}", path.display()))?;
    Ok(identity.recipients().concat())
}
