//! Laying an export out for a responder: beside the live system, never over anything.
//!
//! Promises: the directory is new or empty; every name is checked before the first byte is written;
//! nothing that is written is readable to others (exports hold passwords and private keys);
//! `ORIGINS.txt` and `index.json` tell where each file belongs and in which order to apply them.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind as Io, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::export::{ConfigFile, Unreadable};
use crate::error::{self, ErrorKind, Result, ResultExt};

const INDEX: &str = "index.json";
const ORIGINS: &str = "ORIGINS.txt";

/// Writes `files` below `dir`, which must be absent or empty, with an index and instructions;
/// `missing` is what the export lacks, so that the responder knows.
pub fn write_beside(dir: &Path, files: &[ConfigFile], missing: &[Unreadable]) -> Result<()> {
    check_names(files)?;
    prepare(dir)?;
    let mut dirs = BTreeSet::from([dir.to_owned()]);
    for file in files {
        let path = dir.join(&file.name);
        let parent = path.parent().expect("a name has a directory: it was checked");
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(parent).or_err(ErrorKind::Internal, || format!("cannot create {}", parent.display()))?;
        dirs.extend(parent.ancestors().take_while(|p| p.starts_with(dir)).map(Path::to_owned));
        // The owner can always read what was written; nobody else ever can.
        write_new(&path, file.mode.map_or(0o600, |mode| mode & 0o600 | 0o400), &file.content)?;
    }
    write_new(&dir.join(INDEX), 0o600, format!("{:#}\n", index(files, missing)).as_bytes())?;
    write_new(&dir.join(ORIGINS), 0o600, origins(files, missing).as_bytes())?;
    for dir in dirs {
        let synced = File::open(&dir).and_then(|d| d.sync_all());
        synced.or_err(ErrorKind::Internal, || format!("cannot make {} durable", dir.display()))?;
    }
    Ok(())
}

fn check_names(files: &[ConfigFile]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for file in files {
        let path = Path::new(&file.name);
        let plain = !file.name.is_empty() && path.components().all(|c| matches!(c, Component::Normal(_)));
        // `components` forgives "a//b" and "a/./b"; two such names could be one path.
        let exact = file.name.split('/').all(|part| !part.is_empty() && part != ".");
        let reserved = file.name == INDEX || file.name == ORIGINS;
        if !plain || !exact || reserved || file.name.contains('\0') || !seen.insert(&file.name) {
            return Err(error::integrity(format!("the export holds a file with the unsafe name {:?}", file.name))
                .meaning("nothing was written; a name like this is never made by an export")
                .hint("verify the repository; use another export of this environment"));
        }
    }
    Ok(())
}

fn prepare(dir: &Path) -> Result<()> {
    let taken = || {
        error::usage(format!("{} is not an empty directory", dir.display()))
            .meaning("nothing was written: configuration is laid out beside, never over what is there")
            .hint("name a directory that is empty or does not exist")
    };
    match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().map_or(Ok(()), |_| Err(taken())),
        Err(e) if e.kind() == Io::NotFound => {
            let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
            let made = parent.map_or(Ok(()), std::fs::create_dir_all);
            let made = made.and_then(|()| DirBuilder::new().mode(0o700).create(dir));
            made.or_err(ErrorKind::Internal, || format!("cannot create {}", dir.display()))
        }
        Err(e) if e.kind() == Io::NotADirectory => Err(taken()),
        Err(e) => Err(error::internal(format!("cannot read {}", dir.display())).source(e)),
    }
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let create = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    create().or_err(ErrorKind::Internal, || format!("cannot write {}", path.display()))
}

fn index(files: &[ConfigFile], missing: &[Unreadable]) -> serde_json::Value {
    let entry = |f: &ConfigFile| {
        json!({"name": f.name, "origin": f.origin, "mode": f.mode.map(|m| format!("{m:04o}")),
               "size": f.content.len(), "sha256": hex::encode(Sha256::digest(&f.content))})
    };
    json!({"files": files.iter().map(entry).collect::<Vec<_>>(), "missing": missing})
}

/// The order in which the parts are applied; each with the prefixes of the names that belong to it.
const STEPS: &[(&str, &[&str])] = &[
    (
        "1. Compare the host first: same PostgreSQL major version, same C library or ICU (collation\n   versions in databases.json), the tablespace directories of server.json.",
        &[
            "postgresql/server.json",
            "postgresql/databases.json",
            "postgresql/extensions.json",
            "postgresql/settings.json",
        ],
    ),
    (
        "2. PostgreSQL's files, to the paths on the right. Before a server starts with them: check\n   data_directory, archive_mode/archive_command, primary_conninfo and synchronous_standby_names;\n   a restored copy must not archive over, follow or wait for what still runs elsewhere.",
        &["postgresql/"],
    ),
    (
        "3. Roles (postgresql/globals.sql): only into a cluster made anew by initdb. A physically restored\n   cluster has its roles already.",
        &["postgresql/globals.sql"],
    ),
    ("4. Odoo's code: each add-ons directory at the revision given.", &["addons/"]),
    (
        "5. Odoo: odoo.conf (it holds passwords; mode 0640, owner root:odoo), then the environment and\n   arguments of its processes. The files per database are for comparison: their content is in the\n   database itself. Copies other than production are neutralised before any Odoo process sees them.",
        &["odoo/"],
    ),
    ("6. What stands around: proxies, Redis, Helm values.", &["files/"]),
];

fn origins(files: &[ConfigFile], missing: &[Unreadable]) -> String {
    let mut text = String::from(
        "Configuration as it was exported. Nothing here is active: copy what you need, in this order.\n\
         These files hold secrets. Remove the directory when you are done.\n",
    );
    let step_of = |name: &str| {
        // The longest matching prefix decides; what no step knows goes last.
        let fit =
            |(_, prefixes): &(&str, &[&str])| prefixes.iter().filter(|p| name.starts_with(**p)).map(|p| p.len()).max();
        (0..STEPS.len()).filter_map(|i| fit(&STEPS[i]).map(|len| (len, i))).max().map(|(_, i)| i)
    };
    for (i, (title, _)) in STEPS.iter().enumerate() {
        let mut group: Vec<&ConfigFile> = files.iter().filter(|f| step_of(&f.name) == Some(i)).collect();
        group.sort_by(|a, b| a.name.cmp(&b.name));
        if !group.is_empty() {
            text.push_str(&format!("\n{title}\n"));
            group.iter().for_each(|f| text.push_str(&format!("   {}\n      <- {}\n", f.name, one_line(&f.origin))));
        }
    }
    if !missing.is_empty() {
        text.push_str("\nMISSING from this export (find another source for these):\n");
        for gap in missing {
            text.push_str(&format!("   {}\n      <- {}: {}\n", gap.name, one_line(&gap.origin), one_line(&gap.reason)));
        }
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(name: &str, mode: Option<u32>) -> ConfigFile {
        ConfigFile { name: name.into(), origin: format!("/origin/{name}"), mode, content: name.into() }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("exists").permissions().mode() & 0o7777
    }

    #[test]
    fn writes_beside_with_an_index_and_nothing_for_others() {
        let top = tempfile::tempdir().expect("temp dir");
        let dir = top.path().join("new/export");
        let files = [
            file("postgresql/pg_hba.conf", Some(0o640)),
            file("postgresql/globals.sql", None),
            file("files/etc/acme.json", Some(0o4777)),
            file("files/etc/ro", Some(0o000)),
        ];
        let gap = Unreadable { name: "odoo/odoo.conf".into(), origin: "/etc/odoo".into(), reason: "EACCES".into() };
        write_beside(&dir, &files, &[gap]).expect("writes");
        for f in &files {
            assert_eq!(std::fs::read(dir.join(&f.name)).expect("there"), f.content);
            assert_eq!(mode(&dir.join(&f.name)) & 0o7177, 0, "{}", f.name);
        }
        assert_eq!(mode(&dir.join("files/etc")), 0o700);
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("files/etc/ro")), 0o400);
        let text = std::fs::read_to_string(dir.join(ORIGINS)).expect("there");
        let at = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("{needle} in {text}"));
        assert!(
            at("postgresql/pg_hba.conf") < at("3. Roles") && at("3. Roles") < at("<- /origin/postgresql/globals.sql")
        );
        assert!(at("MISSING") < at("EACCES"));
        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.join(INDEX)).expect("there")).expect("JSON");
        assert_eq!(index["files"][0]["mode"], "0640");
        assert_eq!(index["missing"][0]["reason"], "EACCES");
    }

    #[test]
    fn never_over_anything() {
        let top = tempfile::tempdir().expect("temp dir");
        write_beside(top.path(), &[file("odoo/odoo.conf", None)], &[]).expect("an empty directory is fine");
        let again = write_beside(top.path(), &[file("odoo/other.conf", None)], &[]).expect_err("not empty");
        assert_eq!(again.kind(), ErrorKind::Usage);
        assert!(!top.path().join("odoo/other.conf").exists());
        let onto_file = write_beside(&top.path().join(INDEX), &[], &[]).expect_err("a file");
        assert_eq!(onto_file.kind(), ErrorKind::Usage);
    }

    #[test]
    fn unsafe_names_write_nothing() {
        let top = tempfile::tempdir().expect("temp dir");
        for name in ["../x", "/etc/x", "a/../../x", "a//b", "./a", "", "a/", "index.json", "x\0y"] {
            let dir = top.path().join("out");
            let error = write_beside(&dir, &[file("fine", None), file(name, None)], &[]).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Integrity, "{name:?}");
            assert!(!dir.exists(), "{name:?}");
        }
        let twice = [file("a", None), file("a", None)];
        assert!(write_beside(&top.path().join("out"), &twice, &[]).is_err());
    }
}
