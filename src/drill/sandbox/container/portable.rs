//! Lifeboat's program for containers: an image may have another C library than this host, or none. So the program
//! goes in with the loader and the libraries that it is linked with here, and is started by that loader.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::disk::failed;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::restore::messenger::place_program;

/// Space that loader and libraries take at most; the program itself is linked where it can be.
pub(in crate::drill) const LIBRARIES: u64 = 16 << 20;
/// The program among its libraries.
const PROGRAM: &str = "lifeboat";

/// The loader and the libraries of a program, as files of this host.
#[derive(Debug, Default, PartialEq, Eq)]
struct Linked {
    loader: Option<PathBuf>,
    libraries: Vec<(String, PathBuf)>,
}

/// Puts the program, its loader and its libraries into `directory`, which is made, and a script that starts it at
/// `script`; the words that start it.
pub(super) fn place(program: &Path, directory: &Path, script: &Path) -> Result<Vec<String>> {
    std::fs::create_dir(directory).map_err(|e| failed("cannot create", directory, e))?;
    set_mode(directory, 0o755)?;
    let placed = directory.join(PROGRAM);
    place_program(program, &placed)?;
    let linked = linked(program)?;
    let mut words = Vec::new();
    if let Some(loader) = &linked.loader {
        let name = loader.file_name().unwrap_or_default();
        copy(loader, &directory.join(name))?;
        for (name, library) in &linked.libraries {
            copy(library, &directory.join(name))?;
        }
        words.extend([directory.join(name).display().to_string(), "--library-path".into()]);
        words.push(directory.display().to_string());
    }
    words.push(placed.display().to_string());
    let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let text = format!("#!/bin/sh\nexec {} \"$@\"\n", quoted.join(" "));
    std::fs::write(script, text).map_err(|e| failed("cannot write", script, e))?;
    set_mode(script, 0o755)?;
    Ok(words)
}

/// What the loader says that a program is linked with; nothing where it is linked with nothing.
fn linked(program: &Path) -> Result<Linked> {
    let mut command = Command::new(program);
    // The loader lists what it would load, and ends; a program without one tells its version.
    command.arg("--version").env_clear().env("LD_TRACE_LOADED_OBJECTS", "1").env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().or_err(ErrorKind::Internal, || format!("cannot run {}", program.display()))?;
    Ok(read(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines like `libm.so.6 => /lib/…/libm.so.6 (0x…)`; the loader has its own path only.
fn read(text: &str) -> Linked {
    let mut linked = Linked::default();
    for line in text.lines() {
        let line = line.trim().split(" (0x").next().unwrap_or_default();
        match line.split_once(" => ") {
            Some((name, path)) if path.starts_with('/') => {
                let name = name.rsplit('/').next().unwrap_or(name);
                linked.libraries.push((name.to_owned(), path.into()));
            }
            None if line.starts_with('/') => linked.loader = Some(line.into()),
            _ => {}
        }
    }
    linked
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).map_err(|e| failed("cannot copy", from, e))?;
    set_mode(to, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|e| failed("cannot open", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_list_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007f74f731d000)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x0)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f74f731f000)\n";
        let linked = read(text);
        assert_eq!(linked.loader, Some("/lib64/ld-linux-x86-64.so.2".into()));
        assert_eq!(linked.libraries, [("libm.so.6".to_owned(), "/lib/x86_64-linux-gnu/libm.so.6".into())]);
        assert_eq!(read("lifeboat 0.1.0\n"), Linked::default());
    }

    #[test]
    fn what_was_placed_runs_by_its_own_loader() {
        let folder = tempfile::tempdir().expect("dir");
        let (directory, script) = (folder.path().join("it's"), folder.path().join("start"));
        let words = place(Path::new("/bin/echo"), &directory, &script).expect("placed");
        assert!(words.iter().all(|word| word == "--library-path" || Path::new(word).starts_with(&directory)));
        let said = Command::new(&script).arg("a b").output().expect("started").stdout;
        assert_eq!(String::from_utf8_lossy(&said), "a b\n");
    }
}
