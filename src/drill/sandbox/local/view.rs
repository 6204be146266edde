//! The files that a sandbox sees: a new root in memory with what programs need to run, read-only, and the
//! drill's own directories. What is not listed here is not there: no socket of production, no home directory,
//! no configuration, no secret.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

use super::spec::Spec;
use crate::drill::sandbox::inside::{Refusal, settings};
use crate::drill::sandbox::place::TEMPORARY;
use crate::drill::sandbox::processes::unescaped;

/// Programs and libraries of the operating system.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives"];
/// What programs read of `/etc`: the linker's cache, time zones, certificates, fonts. No accounts, no hosts.
const SETTINGS: [&str; 19] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/locale.alias",
    "/etc/locale.conf",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pki/ca-trust",
    "/etc/crypto-policies",
    "/etc/ca-certificates",
    "/etc/fonts",
    "/etc/mime.types",
    "/etc/services",
    "/etc/protocols",
    "/etc/papersize",
];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Writable directories beside the drill's own.
const SCRATCH: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/run"];

struct Bind {
    from: PathBuf,
    to: PathBuf,
}

/// Replaces the root of this mount namespace.
pub(super) fn build(spec: &Spec) -> Result<(), Refusal> {
    let wanted = wanted(spec)?;
    attach(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    // A stage to build on: the old root stays below it, complete, until everything is bound.
    let stage = &spec.root;
    attach(Some("tmpfs"), stage, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755,size=4m"))?;
    make_dir(&stage.join("old"))?;
    make_dir(&stage.join("new"))?;
    pivot(stage, &stage.join("old"))?;
    let new = Path::new("/new");
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    attach(Some("tmpfs"), new, Some("tmpfs"), plain, Some("mode=0755,size=4m"))?;
    processes_and_devices(new, spec.memory_files)?;
    for bind in &wanted {
        bound(Path::new("/old"), new, bind)?;
    }
    own_settings(new, spec)?;
    make_dir(&new.join(".old"))?;
    pivot(new, &new.join(".old"))?;
    umount2("/.old", MntFlags::MNT_DETACH).map_err(|e| Refusal::new("the host's files cannot be put away", e))?;
    let _ = fs::remove_dir("/.old");
    let writable: Vec<&Path> =
        [spec.root.as_path()].into_iter().chain(spec.writable.iter().map(PathBuf::as_path)).collect();
    close_up(&writable)
}

/// What is bound, parents first.
fn wanted(spec: &Spec) -> Result<Vec<Bind>, Refusal> {
    let mut binds = Vec::new();
    for path in SYSTEM.iter().chain(&SETTINGS).map(Path::new).filter(|path| fs::symlink_metadata(path).is_ok()) {
        binds.push(Bind { from: path.to_owned(), to: path.to_owned() });
    }
    let temporary = spec.root.join(TEMPORARY);
    for to in ["/tmp", "/var/tmp"] {
        binds.push(Bind { from: temporary.clone(), to: to.into() });
    }
    let own = spec.readable.iter().chain(std::iter::once(&spec.root)).chain(&spec.writable);
    for path in own {
        let real = fs::canonicalize(path).map_err(|e| Refusal {
            policy: false,
            ..Refusal::io(format!("the sandbox cannot see {}", path.display()), &e)
        })?;
        // Programs may ask for either name.
        if real != *path {
            binds.push(Bind { from: real.clone(), to: path.clone() });
        }
        binds.push(Bind { from: real.clone(), to: real });
    }
    binds.sort_by_key(|bind| bind.to.components().count());
    Ok(binds)
}

/// Binds one path, with everything mounted below it. A link stays a link.
fn bound(old: &Path, new: &Path, bind: &Bind) -> Result<(), Refusal> {
    let inside = |path: &Path| path.strip_prefix("/").map(Path::to_path_buf).unwrap_or_default();
    let (from, to) = (old.join(inside(&bind.from)), new.join(inside(&bind.to)));
    let failed = |e: &std::io::Error| Refusal::io(format!("the sandbox cannot show {}", bind.to.display()), e);
    let kind = fs::symlink_metadata(&from).map_err(|e| failed(&e))?.file_type();
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|e| failed(&e))?;
    }
    if kind.is_symlink() {
        let target = fs::read_link(&from).map_err(|e| failed(&e))?;
        return symlink(target, &to).map_err(|e| failed(&e));
    }
    if !to.exists() {
        let made = if kind.is_dir() { fs::create_dir(&to) } else { fs::File::create(&to).map(|_| ()) };
        made.map_err(|e| failed(&e))?;
    }
    attach(from.to_str(), &to, None, MsFlags::MS_BIND | MsFlags::MS_REC, None)
}

fn processes_and_devices(new: &Path, memory_files: u64) -> Result<(), Refusal> {
    let proc = new.join("proc");
    make_dir(&proc)?;
    attach(Some("proc"), &proc, Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, None)?;
    for name in ["dev", "run", "etc", "tmp", "var", "var/tmp", "dev/shm"] {
        make_dir(&new.join(name))?;
    }
    let size = format!("mode=1777,size={memory_files}");
    for name in ["dev/shm", "run"] {
        let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        attach(Some("tmpfs"), &new.join(name), Some("tmpfs"), plain, Some(&size))?;
    }
    for name in DEVICES {
        let device = Path::new("/dev").join(name);
        bound(Path::new("/old"), new, &Bind { from: device.clone(), to: device })?;
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        let link = new.join("dev").join(name);
        symlink(target, &link).map_err(|e| Refusal::io("a device cannot be made", &e))?;
    }
    Ok(())
}

/// Files of `/etc` that the sandbox has of its own.
fn own_settings(new: &Path, spec: &Spec) -> Result<(), Refusal> {
    for (name, text) in settings::files(&spec.account, spec.uid, spec.gid) {
        let path = new.join("etc").join(name);
        fs::write(&path, text).map_err(|e| Refusal::io(format!("/etc/{name} of the sandbox cannot be written"), &e))?;
    }
    Ok(())
}

/// Makes everything read-only but the drill's own directories, and nothing privileged anywhere.
fn close_up(writable: &[&Path]) -> Result<(), Refusal> {
    let failed = |e: std::io::Error| Refusal::io("the sandbox's mounts cannot be listed", &e);
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    let canonical: Vec<PathBuf> = writable.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(place), Some(options)) = (fields.next(), fields.next()) else { continue };
        let place = PathBuf::from(unescaped(place));
        if place.starts_with("/proc") {
            continue;
        }
        let scratch = SCRATCH.iter().any(|scratch| place == Path::new(scratch));
        let own = writable.contains(&place.as_path()) || canonical.contains(&place);
        let mut flags = kept(options) | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID;
        if !scratch && !own {
            flags |= MsFlags::MS_RDONLY;
        }
        if !place.starts_with("/dev") {
            flags |= MsFlags::MS_NODEV;
        }
        match mount(None::<&str>, &place, None::<&str>, flags, None::<&str>) {
            // A mount that another one hides cannot be reached, by nobody.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(e) => return Err(Refusal::new(format!("{} cannot be made read-only", place.display()), e)),
        }
    }
    Ok(())
}

/// Options that a mount must keep: a namespace may not loosen what its parent set.
fn kept(options: &str) -> MsFlags {
    let flags = options.split(',').map(|option| match option {
        "ro" => MsFlags::MS_RDONLY,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => MsFlags::empty(),
    });
    flags.fold(MsFlags::empty(), |all, flag| all | flag)
}

/// Hides a directory under an empty file system that nobody can write.
pub(super) fn hide(directory: &Path) -> Result<(), Refusal> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    attach(Some("tmpfs"), directory, Some("tmpfs"), flags, Some("mode=0555,size=4k"))
}

fn attach(
    source: Option<&str>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), Refusal> {
    mount(source, target, kind, flags, options)
        .map_err(|e| Refusal::new(format!("{} cannot be mounted in the sandbox", target.display()), e))
}

fn pivot(new: &Path, old: &Path) -> Result<(), Refusal> {
    pivot_root(new, old).and_then(|()| chdir("/")).map_err(|e| Refusal::new("the sandbox's root cannot be set", e))
}

fn make_dir(path: &Path) -> Result<(), Refusal> {
    fs::create_dir(path).map_err(|e| Refusal::io(format!("{} cannot be made in the sandbox", path.display()), &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restrictions_of_the_host_are_kept() {
        assert_eq!(kept("rw,nosuid,relatime"), MsFlags::MS_NOSUID | MsFlags::MS_RELATIME);
        assert_eq!(kept("ro,noexec"), MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC);
    }
}
