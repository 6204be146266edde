//! Where the code of installed modules is: the same directories, in the same order, that the drill's Odoo gets.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::inside::{self, Directory, Elsewhere};
use crate::config::{DrillOdoo, Environment};
use crate::configuration::addons_path;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::evidence::odoo_record::Script;

/// Longest script that is believed to be one.
const MAX_SCRIPT: u64 = 4 << 20;
pub(super) const SCRIPT: &str = "data/neutralize.sql";
pub(super) const MANIFESTS: [&str; 2] = ["__manifest__.py", "__openerp__.py"];

/// Add-on directories, in Odoo's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonsPaths {
    paths: Vec<PathBuf>,
    /// What they hold, where they are not on this host.
    inside: Option<Vec<Directory>>,
}

impl AddonsPaths {
    /// Those of a drill's Odoo: `odoo/addons` of its source tree, what is configured, `addons` of its source tree.
    /// Directories that do not exist are left out: Odoo would refuse to start with them.
    ///
    /// # Errors
    /// Configuration, where the `odoo.conf` that should tell them cannot be read.
    pub fn of(environment: &Environment, odoo: &DrillOdoo) -> Result<Self> {
        Ok(Self::from(Self::wanted(environment, odoo)?))
    }

    /// The same of an Odoo whose installation is not this host's.
    ///
    /// # Errors
    /// As [`AddonsPaths::of`]; configuration, where the installation cannot be asked.
    pub async fn inside(environment: &Environment, odoo: &DrillOdoo, elsewhere: &Elsewhere<'_>) -> Result<Self> {
        let wanted = distinct(Self::wanted(environment, odoo)?);
        let found = inside::ask(elsewhere, &wanted).await?;
        Ok(Self { paths: found.iter().map(|directory| directory.path.clone()).collect(), inside: Some(found) })
    }

    fn wanted(environment: &Environment, odoo: &DrillOdoo) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        paths.extend(odoo.root().map(|root| root.join("odoo/addons")));
        if odoo.addons_path.is_empty() {
            for instance in &environment.odoo {
                if let Some(file) = &instance.config_file {
                    let content = std::fs::read(file).or_err(ErrorKind::Config, || {
                        format!("cannot read {}, which tells the add-on directories", file.display())
                    })?;
                    paths.extend(addons_path(&content));
                }
                paths.extend(instance.addons_paths.iter().cloned());
            }
        } else {
            paths.extend(odoo.addons_path.iter().cloned());
        }
        paths.extend(odoo.root().map(|root| root.join("addons")));
        paths.extend(odoo.packaged());
        Ok(paths)
    }

    /// The directories.
    pub fn as_slice(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether the code of `module` is there.
    pub(super) fn has(&self, module: &str) -> bool {
        if !is_name(module) {
            return false;
        }
        match &self.inside {
            Some(directories) => directories.iter().any(|directory| directory.modules.contains_key(module)),
            None => {
                let there = |dir: &PathBuf| MANIFESTS.iter().any(|manifest| dir.join(module).join(manifest).is_file());
                self.paths.iter().any(there)
            }
        }
    }

    /// The module's own script, where it has one: the first on the path, as Odoo takes it.
    pub(super) fn script(&self, module: &str) -> Result<Option<(Script, String)>> {
        if !is_name(module) {
            return Ok(None);
        }
        for (number, directory) in self.paths.iter().enumerate() {
            let path = directory.join(module).join(SCRIPT);
            let text = match &self.inside {
                Some(told) => told[number].modules.get(module).cloned().flatten(),
                None => script_text(&path).map_err(|e| unreadable(&path, e))?,
            };
            let Some(sql) = text else { continue };
            let script = Script {
                module: module.to_owned(),
                path: path.display().to_string(),
                sha256: hex::encode(Sha256::digest(sql.as_bytes())),
            };
            return Ok(Some((script, sql)));
        }
        Ok(None)
    }
}

impl From<Vec<PathBuf>> for AddonsPaths {
    fn from(paths: Vec<PathBuf>) -> Self {
        Self { paths: distinct(paths).into_iter().filter(|path| path.is_dir()).collect(), inside: None }
    }
}

fn distinct(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if path.is_absolute() && !kept.contains(&path) {
            kept.push(path);
        }
    }
    kept
}

/// The text of a module's script; `None` where there is none.
pub(super) fn script_text(path: &Path) -> std::io::Result<Option<String>> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
        Ok(found) if found.is_file() && found.len() <= MAX_SCRIPT => std::fs::read_to_string(path).map(Some),
        Ok(_) => {
            let what = format!("{} is no ordinary file, or too long to be a script", path.display());
            Err(std::io::Error::other(what))
        }
    }
}

fn unreadable(path: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> crate::error::Error {
    crate::error::config(format!("cannot read {}", path.display()))
        .source(why)
        .meaning("nobody knows what this module would have neutralised, so no Odoo was started")
}

/// A name comes from the restored database: it must not lead to another directory.
fn is_name(module: &str) -> bool {
    !module.is_empty() && module.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_of_the_path_wins_and_names_stay_names() {
        let dir = tempfile::tempdir().expect("dir");
        for (addons, sql) in [("a", None), ("b", Some("SELECT 'b'")), ("c", Some("SELECT 'c'"))] {
            let module = dir.path().join(addons).join("shop");
            std::fs::create_dir_all(module.join("data")).expect("dir");
            std::fs::write(module.join("__manifest__.py"), "{}").expect("manifest");
            if let Some(sql) = sql {
                std::fs::write(module.join(SCRIPT), sql).expect("script");
            }
        }
        let at = |name: &str| dir.path().join(name);
        let paths = AddonsPaths::from(vec![at("absent"), at("a"), at("b"), at("c"), at("b"), "relative".into()]);
        assert_eq!(paths.as_slice(), [at("a"), at("b"), at("c")]);
        let (script, sql) = paths.script("shop").expect("readable").expect("a script");
        assert_eq!((sql.as_str(), script.path), ("SELECT 'b'", at("b/shop").join(SCRIPT).display().to_string()));
        assert!(paths.has("shop") && !paths.has("other") && !paths.has("../a/shop") && !paths.has(""));
        assert_eq!(paths.script("../b/shop").expect("refused"), None);
    }
}
