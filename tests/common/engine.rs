//! A container engine for tests: the service of Podman on storage of its own, with an image that is made of this
//! machine's PostgreSQL and a few of its programs. It takes root, and a Podman that runs here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::scratch::Scratch;
use super::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// Programs that the image has beside PostgreSQL's.
const PROGRAMS: [&str; 27] = [
    "bash", "sh", "perl", "cat", "ls", "id", "touch", "env", "head", "tail", "cut", "tr", "mv", "rm", "cp", "mkdir",
    "true", "false", "sleep", "kill", "grep", "setsid", "mount", "umount", "readlink", "sed", "dash",
];
/// Links and data that they need.
const FILES: [&str; 7] = [
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/usr/share/zoneinfo",
    "/usr/lib/locale/C.utf8",
    "/usr/lib/x86_64-linux-gnu/perl-base",
];

/// A root file system for an image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Root {
    /// Files and directories of this machine, at their own paths.
    pub(crate) files: BTreeSet<PathBuf>,
    /// Others, and where they are in the image.
    pub(crate) moved: Vec<(PathBuf, String)>,
    /// What the image declares, as in a `Containerfile`.
    pub(crate) declares: Vec<String>,
}

/// The engine that tests of one time share.
static SHARED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

/// A running engine; its storage goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Engine {
    scratch: Scratch,
    podman: Vec<String>,
    service: Option<Child>,
    /// PostgreSQL by digest.
    pub(crate) postgres: String,
}

impl Engine {
    /// The engine that runs, or a new one, with an image of the PostgreSQL in `bin_dir`. Why there is none, where this
    /// machine cannot have one.
    pub(crate) fn shared(bin_dir: &Path) -> Result<Arc<Self>, String> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let engine = Arc::new(Self::new(bin_dir)?);
        *shared = Arc::downgrade(&engine);
        Ok(engine)
    }

    /// An engine of its own.
    pub(crate) fn new(bin_dir: &Path) -> Result<Self, String> {
        if !nix::unistd::Uid::effective().is_root() {
            return Err("Podman with storage of its own takes root".into());
        }
        let scratch = Scratch::new();
        let mut podman = vec!["podman".to_owned()];
        for (option, value) in [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "state")] {
            podman.extend([option.to_owned(), scratch.join(value).display().to_string()]);
        }
        podman.extend(["--cgroup-manager=cgroupfs", "--events-backend=none"].map(str::to_owned));
        // crun refuses hosts with both versions of control groups.
        if Path::new("/usr/sbin/runc").exists() || Path::new("/usr/bin/runc").exists() {
            podman.push("--runtime=runc".into());
        }
        // Engines would share locks in shared memory, and each that starts anew makes them anew.
        scratch.write("containers.conf", "[engine]\nlock_type = \"file\"\n");
        let mut engine = Self { scratch, podman, service: None, postgres: String::new() };
        let found = engine.command(&["--version"]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Err("there is no Podman here (see deploy/test.sh)".into());
        }
        let image = engine.image("localhost/lifeboat-postgres:test", &root_of(bin_dir))?;
        let works = engine.command(&["run", "--rm", "--network=none", "--read-only"]);
        let output =
            { works }.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", &image, "/bin/true"]).output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                return Err(format!("Podman runs nothing here: {}", String::from_utf8_lossy(&output.stderr).trim()));
            }
            Err(e) => return Err(e.to_string()),
        }
        engine.postgres = image;
        engine.serve();
        Ok(engine)
    }

    /// Starts the service, which may have been stopped.
    pub(crate) fn serve(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let url = format!("unix://{}", self.socket().display());
        let log = std::fs::File::create(self.scratch.join("service.log")).expect("a file");
        let mut command = self.podman();
        command.args(["system", "service", "--time=0", &url]);
        self.service = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("the service starts"));
        let socket = self.socket();
        wait_until("the engine answers", PATIENCE, || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    }

    /// Kills the service; its containers live on.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.kill().and_then(|()| service.wait()).expect("ended");
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.scratch.join("engine.sock")
    }

    /// Tables that let drills run in it.
    pub(crate) fn tables(&self) -> String {
        format!(
            "sandbox = \"container\"\n[environment.drill.container]\nsocket = \"{}\"\npostgres = \"{}\"\n",
            self.socket().display(),
            self.postgres
        )
    }

    /// Makes an image of files of this machine; its name by digest.
    pub(crate) fn image(&self, name: &str, root: &Root) -> Result<String, String> {
        let paths = root.files.iter().chain(root.moved.iter().map(|(from, _)| from));
        let list: String = paths.map(|path| format!("{}\n", path.display())).collect();
        let list = self.scratch.write(&name.replace(['/', ':'], "-"), list);
        let mut tar = Command::new("tar");
        tar.args(["--exclude=*llvmjit*", "--exclude=*/bitcode", "--exclude=i18n", "-cf", "-"]);
        // Links of all kinds stay what they are.
        for (from, to) in &root.moved {
            let from = from.display().to_string();
            let whole = format!("s,^/*{}\\(/\\|$\\),{to}\\1,rSH", from.trim_start_matches('/').replace('.', "\\."));
            tar.arg(format!("--transform={whole}"));
        }
        let mut tar =
            tar.arg("-T").arg(list).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(|e| e.to_string())?;
        let content = tar.stdout.take().expect("piped");
        let mut import = self.command(&["import", "-q"]);
        for line in &root.declares {
            import.args(["--change", line]);
        }
        let output = import.args(["-", name]).stdin(content).output().map_err(|e| e.to_string())?;
        tar.wait().map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!("Podman imports no image here: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let digests = self.says(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", name]);
        Ok(digests.trim().to_owned())
    }

    /// An image that holds next to nothing, by its digest.
    pub(crate) fn small_image(&self) -> String {
        let root = Root { files: BTreeSet::from([PathBuf::from("/usr/bin/true")]), ..Root::default() };
        self.image("localhost/lifeboat-small:test", &root).expect("imported")
    }

    /// The id of the image.
    pub(crate) fn image_id(&self) -> String {
        let id = self.says(&["image", "inspect", "--format", "{{.Id}}", &self.postgres]);
        format!("sha256:{}", id.trim())
    }

    /// What Podman has of a test that works in `scratch`: containers; and what no test may make: volumes, networks.
    pub(crate) fn left_of(&self, scratch: &Path) -> Vec<String> {
        let containers = self.says(&["ps", "--all", "--external", "--format", "{{.Names}} {{.Mounts}}"]);
        let here = scratch.display().to_string();
        let mut all: Vec<String> = containers.lines().filter(|line| line.contains(&here)).map(str::to_owned).collect();
        for list in [
            &["volume", "ls", "--format", "{{.Name}}"][..],
            &["network", "ls", "--format", "{{.Name}}", "--filter", "name=lifeboat"],
        ] {
            all.extend(self.says(list).lines().map(str::to_owned));
        }
        all
    }

    /// Output of a command that must succeed.
    #[track_caller]
    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("Podman starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A command that ends, whatever it waits for.
    fn command(&self, arguments: &[&str]) -> Command {
        let podman = self.podman();
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "600"]).arg(podman.get_program()).args(podman.get_args());
        command.envs(podman.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn podman(&self) -> Command {
        let mut command = Command::new(&self.podman[0]);
        command.args(&self.podman[1..]).env("CONTAINERS_CONF", self.scratch.join("containers.conf"));
        // Where a container runs out of memory, conmon leaves a file `oom` where it works.
        command.current_dir(self.scratch.path());
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--all", "--force", "--time=0"]).output();
        if let Some(mut service) = self.service.take() {
            let _ = service.kill().and_then(|()| service.wait());
        }
        // Podman leaves its storage mounted upon itself, or what a container had.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut mounts: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        mounts.retain(|mount| Path::new(mount).starts_with(self.scratch.path()));
        for mount in mounts.into_iter().rev() {
            let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Files for an image: programs, PostgreSQL, the libraries that all of them are linked with.
fn root_of(bin_dir: &Path) -> Root {
    let mut root = own_root(&PROGRAMS);
    let home = bin_dir.parent().expect("a directory of programs lies in another");
    root.files.insert(home.to_owned());
    // Debian has its data elsewhere.
    let data = Path::new("/usr/share/postgresql").join(home.file_name().unwrap_or_default());
    root.files.extend(Some(data).filter(|data| data.exists()));
    let servers = walkdir::WalkDir::new(home).into_iter().flatten().map(|entry| entry.path().to_owned());
    let servers = servers.filter(|path| path.starts_with(bin_dir) || path.extension().is_some_and(|e| e == "so"));
    root.files.extend(linked(servers.filter(|path| path.is_file())));
    root
}

/// A root with programs of this machine, and what they need.
pub(crate) fn own_root(programs: &[&str]) -> Root {
    let mut files: BTreeSet<PathBuf> = FILES.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
    let programs = programs.iter().map(|name| Path::new("/usr/bin").join(name)).filter(|path| path.exists());
    let programs: Vec<PathBuf> = programs.collect();
    files.extend(linked(programs.iter().cloned()));
    files.extend(programs);
    Root { files, ..Root::default() }
}

/// The libraries that programs and libraries are linked with.
pub(crate) fn linked(programs: impl IntoIterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let output = Command::new("ldd").args(programs).output().expect("ldd starts");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some(library) = line.split_whitespace().find(|word| word.starts_with('/') && !word.ends_with(':')) else {
            continue;
        };
        if library.contains("LLVM") {
            continue;
        }
        // By its real name and by the one that it is asked for; `/lib` is a link to `/usr/lib`.
        let library = Path::new(library);
        let named = library.parent().and_then(|dir| std::fs::canonicalize(dir).ok());
        files.extend(named.map(|dir| dir.join(library.file_name().unwrap_or_default())));
        files.extend(std::fs::canonicalize(library).ok());
    }
    files
}
