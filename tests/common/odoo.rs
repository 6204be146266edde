//! Real Odoos, where `LIFEBOAT_TEST_ODOO` names a directory that has some: for Odoo 16 `16/odoo-bin` with its source,
//! `venv16/` with the packages that it needs, made with the system's Python, and a database with its filestore in
//! `odoo16-retail/` (`db.dump`, `filestore.tar.zst`; that of 19 is among the fixtures). None of it comes with Lifeboat.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::engine::{Engine, Root, linked, own_root};
use super::fixture::{Fixture, fixture_of};

/// Where Debian's package has Odoo and what it needs, and so the images of Docker's library.
const PACKAGES: &str = "usr/lib/python3/dist-packages";

/// An Odoo with a database of its series.
#[derive(Debug, Clone)]
pub(crate) struct RealOdoo {
    pub(crate) series: u32,
    pub(crate) fixture: Fixture,
    root: PathBuf,
}

impl RealOdoo {
    /// The series that tests know.
    pub(crate) const SERIES: [u32; 5] = [14, 16, 17, 18, 19];

    /// That of one series, where there is one.
    pub(crate) fn find(series: u32) -> Option<Self> {
        let root = std::env::var_os("LIFEBOAT_TEST_ODOO").map(PathBuf::from)?;
        let odoo = Self { series, fixture: fixture_of(series)?, root };
        odoo.command().iter().all(|part| Path::new(part).exists()).then_some(odoo)
    }

    /// All that there are.
    pub(crate) fn all() -> Vec<Self> {
        Self::SERIES.into_iter().filter_map(Self::find).collect()
    }

    /// What starts it.
    pub(crate) fn command(&self) -> [String; 2] {
        [self.environment().join("bin/python"), self.source().join("odoo-bin")].map(|path| path.display().to_string())
    }

    /// The add-on directories of its source: all of them beside the framework, or the business ones in `addons`.
    pub(crate) fn addons(&self) -> Vec<PathBuf> {
        ["odoo/addons", "addons"].map(|below| self.source().join(below)).into_iter().filter(|p| p.is_dir()).collect()
    }

    /// The same Odoo as an image that is laid out and declared like those of Docker's library: `/usr/bin/odoo`, an
    /// account, volumes and an entry point of its own. Its name by digest.
    pub(crate) fn image(&self, engine: &Engine) -> Result<String, String> {
        let packages = self.packages()?;
        let mut root = own_root(&["sh", "env", "cat", "ls", "id"]);
        let python = std::fs::canonicalize(self.environment().join("bin/python")).map_err(|e| e.to_string())?;
        let library = Path::new("/usr/lib").join(python.file_name().unwrap_or_default());
        if !python.starts_with("/usr/bin") || !library.is_dir() {
            return Err(format!("{} is not the system's Python, which alone can go into an image", python.display()));
        }
        let modules = [&packages, &library].into_iter().flat_map(|directory| shared_objects(directory));
        let needed = linked(modules.chain([python.clone()])).into_iter().filter(|path| !path.starts_with(&self.root));
        root.files.extend(needed);
        root.files.extend([PathBuf::from("/usr/bin/python3"), python, library]);
        root.moved = vec![
            (packages.clone(), PACKAGES.to_owned()),
            (self.source().join("odoo"), format!("{PACKAGES}/odoo")),
            (self.source().join("odoo-bin"), "usr/bin/odoo".to_owned()),
        ];
        let business = self.source().join("addons");
        root.moved.extend(business.is_dir().then(|| (business, format!("{PACKAGES}/odoo/addons"))));
        root.declares = [
            "USER 101",
            "VOLUME /var/lib/odoo",
            "VOLUME /mnt/extra-addons",
            "ENV ODOO_RC=/etc/odoo/odoo.conf",
            "ENTRYPOINT [\"/entrypoint.sh\"]",
        ]
        .map(str::to_owned)
        .to_vec();
        engine.image(&format!("localhost/lifeboat-odoo:{}", self.series), &root)
    }

    fn source(&self) -> PathBuf {
        self.root.join(self.series.to_string())
    }

    fn environment(&self) -> PathBuf {
        self.root.join(format!("venv{}", self.series))
    }

    /// The packages of its virtual environment.
    fn packages(&self) -> Result<PathBuf, String> {
        let libraries = std::fs::read_dir(self.environment().join("lib")).map_err(|e| e.to_string())?;
        let mut packages = libraries.flatten().map(|entry| entry.path().join("site-packages"));
        packages.find(|path| path.is_dir()).ok_or_else(|| "a virtual environment without packages".to_owned())
    }
}

fn shared_objects(directory: &Path) -> BTreeSet<PathBuf> {
    let files = walkdir::WalkDir::new(directory).into_iter().flatten().map(walkdir::DirEntry::into_path);
    files.filter(|path| path.is_file() && path.extension().is_some_and(|extension| extension == "so")).collect()
}
