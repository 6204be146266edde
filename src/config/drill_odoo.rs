//! `[environment.drill.odoo]`: the Odoo that a drill starts on the restored databases.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::raw::Located;
use super::read::text;
use super::repository::positive;
use super::source::Source;
use crate::error::Result;
use crate::units::Span;

const DEFAULT_BOOT_TIMEOUT: Duration = Duration::from_secs(600);
const PACKAGED: &str = "/usr/lib/python3/dist-packages/odoo/addons";

/// The Odoo that drills start on restored databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillOdoo {
    /// The program and its first arguments: an interpreter and `odoo-bin`.
    pub command: Vec<String>,
    /// Its add-on directories; empty: those of the environment's own instances.
    pub addons_path: Vec<PathBuf>,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Longest time until the registry of one database is loaded, and for one HTTP request.
    pub boot_timeout: Duration,
    /// What it must be able to read, beside the directories that `command` and `addons_path` name.
    pub read_only_paths: Vec<PathBuf>,
}

impl DrillOdoo {
    /// The program itself.
    pub fn program(&self) -> &Path {
        Path::new(&self.command[0])
    }

    /// The source tree, where `command` names an `odoo-bin`.
    pub fn root(&self) -> Option<&Path> {
        let script = self.command.iter().rev().map(Path::new).find(|part| part.is_absolute())?;
        script.parent()
    }

    /// Where Debian's package has the add-ons of Odoo itself, and so the images of Docker's library, where `command`
    /// is the program of that package (`/usr/bin/odoo`).
    pub fn packaged(&self) -> Option<PathBuf> {
        let script = self.command.iter().rev().map(Path::new).find(|part| part.is_absolute())?;
        (script.file_name()? == "odoo").then(|| PACKAGED.into())
    }

    /// Every path that the Odoo reads: what a sandbox must show it.
    pub fn reads(&self) -> Vec<PathBuf> {
        let absolute = self.command.iter().map(PathBuf::from).filter(|part| part.is_absolute());
        // `…/venv/bin/python` needs the whole environment, `…/odoo-bin` the whole tree.
        let trees = absolute.filter_map(|part| {
            let directory = part.parent()?;
            let of_environment = directory.ends_with("bin");
            Some(if of_environment { directory.parent()?.to_owned() } else { directory.to_owned() })
        });
        let mut all: Vec<PathBuf> =
            trees.chain(self.addons_path.iter().cloned()).chain(self.read_only_paths.iter().cloned()).collect();
        // A virtual environment is nothing without the installation that it was made from.
        let made_from: Vec<PathBuf> = all.iter().flat_map(|tree| installation(tree)).collect();
        all.extend(made_from);
        all.sort();
        all.dedup();
        all
    }
}

/// The programs and libraries that the virtual environment `tree` was made from, where that is a Python of its own outside
/// of `/usr`: pyenv's, uv's, one in `/opt`. Nothing else of where it lies, which may be somebody's home.
fn installation(tree: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(tree.join("pyvenv.cfg")).unwrap_or_default();
    let home = text.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == "home");
    let Some(home) =
        home.map(|(_, home)| PathBuf::from(home.trim())).filter(|home| home.is_absolute() && home.ends_with("bin"))
    else {
        return Vec::new();
    };
    let beside = |name| home.with_file_name(name);
    let parts = [home.clone(), beside("lib"), beside("lib64")].into_iter();
    // By both names: what an environment links to may be either.
    let both = parts.filter_map(|part| Some([part.canonicalize().ok()?, part]));
    both.filter(|[real, _]| real.is_dir() && !real.starts_with("/usr")).flatten().collect()
}

/// The Odoo that a drill starts on each restored database; absent: drills start none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DrillOdoo")]
pub(super) struct RawDrillOdoo {
    /// Program and first arguments: `["/opt/odoo/venv/bin/python", "/opt/odoo/odoo-bin"]`.
    command: Located<Vec<Located<String>>>,
    /// Its add-on directories; absent: those of the environment's own instances.
    #[serde(default)]
    addons_path: Vec<Located<String>>,
    /// Further arguments.
    #[serde(default)]
    arguments: Vec<String>,
    /// Longest time until a database's registry is loaded, and for one HTTP request; default `10m`.
    boot_timeout: Option<Located<Span>>,
    /// What it must be able to read, beside what `command` and `addons_path` name.
    #[serde(default)]
    read_only_paths: Vec<Located<String>>,
}

pub(super) fn drill_odoo(source: &Source, raw: RawDrillOdoo) -> Result<DrillOdoo> {
    let paths = |list: &[Located<String>]| list.iter().map(|l| source.resolve(&l.value)).collect();
    let mut command = Vec::new();
    for part in &raw.command.value {
        let part = text(source, "command", part)?;
        // It runs in a directory of its own: what counts from this file must be said in full.
        let is_path = part.contains('/') && !part.starts_with('-');
        command.push(if is_path { source.resolve(&part).display().to_string() } else { part });
    }
    if !command.first().is_some_and(|program| program.starts_with('/')) {
        return Err(source
            .error(&raw.command.span, "`command` does not begin with the path of a program")
            .hint("write for example command = [\"/opt/odoo/venv/bin/python\", \"/opt/odoo/odoo-bin\"]"));
    }
    Ok(DrillOdoo {
        command,
        addons_path: paths(&raw.addons_path),
        arguments: raw.arguments,
        boot_timeout: match &raw.boot_timeout {
            Some(span) => positive(source, "boot_timeout", span)?,
            None => DEFAULT_BOOT_TIMEOUT,
        },
        read_only_paths: paths(&raw.read_only_paths),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_shown_trees_not_single_files() {
        let odoo = DrillOdoo {
            command: vec!["/opt/odoo/venv/bin/python".into(), "/opt/odoo/19/odoo-bin".into()],
            addons_path: vec!["/opt/shop/addons".into()],
            arguments: Vec::new(),
            boot_timeout: DEFAULT_BOOT_TIMEOUT,
            read_only_paths: vec!["/opt/geoip".into()],
        };
        let wanted = ["/opt/geoip", "/opt/odoo/19", "/opt/odoo/venv", "/opt/shop/addons"];
        assert_eq!(odoo.reads(), wanted.map(PathBuf::from));
        assert_eq!((odoo.root(), odoo.packaged()), (Some(Path::new("/opt/odoo/19")), None));
        let packaged = DrillOdoo { command: vec!["/usr/bin/odoo".into(), "--dev".into()], ..odoo };
        assert_eq!(packaged.packaged(), Some(PACKAGED.into()));
    }

    #[test]
    fn a_virtual_environment_is_shown_with_the_python_that_it_was_made_from() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().canonicalize().expect("it is there");
        let python = place.join("python-3.9");
        for part in ["bin", "lib", "share"] {
            std::fs::create_dir_all(python.join(part)).expect("a directory");
        }
        std::os::unix::fs::symlink(&python, place.join("python")).expect("a link");
        let of = |home: &str| {
            let text = format!("home = {home}\ninclude-system-site-packages = false\n");
            std::fs::write(place.join("pyvenv.cfg"), text).expect("a file");
            let mut seen = installation(&place);
            seen.sort();
            seen.dedup();
            seen
        };
        let all = |name: &str| ["bin", "lib"].map(|part| place.join(name).join(part));
        assert_eq!(of(&python.join("bin").display().to_string()), all("python-3.9"));
        assert_eq!(of(&place.join("python/bin").display().to_string()), [all("python"), all("python-3.9")].concat());
        // The system's own is there anyway, and the rest of the system is nobody's business.
        for home in ["/bin", "/usr/bin", "/", "bin", ""] {
            assert_eq!(of(home), Vec::<PathBuf>::new(), "{home}");
        }
        assert_eq!(installation(&python), Vec::<PathBuf>::new(), "no virtual environment");
    }
}
