//! The state directory of a host: its signing key and the index key. Everything in it can be made
//! again with a recovery identity (`lifeboat init`); nothing in it opens data.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::vault::{IndexKey, SigningKey};

/// A host's state directory.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The state directory at `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The host's keys, or `None` where this host holds none for `repository`.
    pub fn load(&self, repository: &str) -> Result<Option<(SigningKey, IndexKey)>> {
        let Some(id) = self.read("repository")? else { return Ok(None) };
        if id.trim() != repository {
            return Err(error::config(format!(
                "{} holds the keys of repository {}, but the configured repository is {repository}",
                self.0.display(),
                id.trim()
            ))
            .meaning("nothing was read or written")
            .hint("give each repository its own `[keys] state_dir`, or correct `[repository] url`"));
        }
        let (Some(signing), Some(index)) = (self.read("signing.key")?, self.read("index.key")?) else {
            return Ok(None);
        };
        Ok(Some((SigningKey::from_text(&signing)?, IndexKey::from_text(&index)?)))
    }

    /// Writes the host's keys, readable by the owner only; an unfinished earlier try is replaced.
    pub fn store(&self, repository: &str, signing: &SigningKey, index: &IndexKey) -> Result<()> {
        std::fs::create_dir_all(&self.0).or_err(ErrorKind::Config, || format!("cannot create {}", self.0.display()))?;
        self.write("signing.key", &signing.to_text())?;
        self.write("index.key", &index.to_text())?;
        // Last: its presence says that the others are complete.
        self.write("repository", repository)
    }

    fn read(&self, name: &str) -> Result<Option<Zeroizing<String>>> {
        let path = self.0.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Zeroizing::new(text))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(error::config(format!("cannot read {}", path.display()))
                .source(e)
                .hint("run Lifeboat as the account that ran `lifeboat init`")),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        let temporary = self.0.join(format!("{name}.new"));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut f| writeln!(f, "{text}").and_then(|()| f.sync_all()))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .and_then(|()| std::fs::File::open(&self.0)?.sync_all());
        written.or_err(ErrorKind::Config, || format!("cannot write {}", path.display()))
    }
}
