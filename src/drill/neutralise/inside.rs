//! `sandbox:addons`: what the add-on directories of another installation hold, told from inside it. The code of an
//! image is not on this host; whoever neutralises needs to know which modules it has, and their scripts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use super::sources::{MANIFESTS, SCRIPT, script_text};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::postgres::launch::Launch;
use crate::runtime::blocking;

/// First word of its command line.
const ADDONS: &str = "sandbox:addons";

/// An installation that is not this host's: an image.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere<'a> {
    /// Starts programs of it.
    pub launch: &'a dyn Launch,
    /// The words that start Lifeboat's own program there.
    pub start: &'a [String],
}

/// An add-on directory as its installation sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// Its modules, each with its own script for neutralising where it has one.
    pub(super) modules: BTreeMap<String, Option<String>>,
}

/// Runs this process as the part that tells, if that is its role.
pub(in crate::drill) fn dispatch(role: &str, arguments: &[OsString]) -> Option<ExitCode> {
    (role == ADDONS).then(|| match tell(&arguments.iter().map(PathBuf::from).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    })
}

/// Asks an installation. Directories that it does not have are left out.
///
/// # Errors
/// Configuration, where it cannot be asked or a script cannot be read: nobody knows what that would neutralise.
pub(super) async fn ask(elsewhere: &Elsewhere<'_>, directories: &[PathBuf]) -> Result<Vec<Directory>> {
    let unclear = || "the add-on directories of the image cannot be read".to_owned();
    let [program, words @ ..] = elsewhere.start else { return Err(error::internal(unclear())) };
    let mut command = elsewhere.launch.command(Path::new(program));
    command.args(words).arg(ADDONS).args(directories).current_dir("/").stdin(Stdio::null());
    let output = blocking(move || command.output().or_err(ErrorKind::Internal, unclear)).await?;
    if !output.status.success() {
        return Err(error::config(format!("{}: {}", unclear(), String::from_utf8_lossy(&output.stderr).trim()))
            .meaning("nobody knows what its modules would have neutralised, so no Odoo was started"));
    }
    serde_json::from_slice(&output.stdout).or_err(ErrorKind::Config, unclear)
}

fn tell(directories: &[PathBuf]) -> std::io::Result<()> {
    let there = directories.iter().filter(|path| path.is_dir());
    let found = there.map(|path| read(path)).collect::<std::io::Result<Vec<_>>>()?;
    std::io::stdout().lock().write_all(&serde_json::to_vec(&found)?)
}

fn read(path: &Path) -> std::io::Result<Directory> {
    let mut modules = BTreeMap::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if MANIFESTS.iter().any(|manifest| entry.path().join(manifest).is_file()) {
            modules.insert(name, script_text(&entry.path().join(SCRIPT))?);
        }
    }
    Ok(Directory { path: path.to_owned(), modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_told_with_their_scripts() {
        let folder = tempfile::tempdir().expect("dir");
        for (name, manifest, script) in
            [("a", true, Some("SELECT 1")), ("b", true, None), ("c", false, Some("SELECT 2"))]
        {
            std::fs::create_dir_all(folder.path().join(name).join("data")).expect("a directory");
            if manifest {
                std::fs::write(folder.path().join(name).join(MANIFESTS[0]), "{}").expect("a manifest");
            }
            if let Some(script) = script {
                std::fs::write(folder.path().join(name).join(SCRIPT), script).expect("a script");
            }
        }
        let directory = read(folder.path()).expect("read");
        let modules = [("a".to_owned(), Some("SELECT 1".to_owned())), ("b".to_owned(), None)];
        assert_eq!(directory.modules, BTreeMap::from(modules));
        std::fs::create_dir_all(folder.path().join("b").join(SCRIPT)).expect("a directory");
        assert!(read(folder.path()).is_err(), "a script that is none is no absent one");
    }
}
