//! The container sandbox as Lifeboat holds it: makes the containers, launches programs in them, ends them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::ask::Inside;
use super::engine::{About, Engine};
use super::image::Image;
use super::spec::Spec;
use super::wire::Up;
use super::{assertions, body, gone, portable};
use crate::disk::failed;
use crate::drill::sandbox::inside::{namespaces, settings};
use crate::drill::sandbox::journal::Journal;
use crate::drill::sandbox::place::PROGRAM_FILE;
use crate::drill::sandbox::processes;
use crate::drill::sandbox::seal::{Facts, ImageFacts, Part, Seal};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::postgres::account::{Account, hand_over};
use crate::postgres::launch::Launch;
use crate::postgres::tools::{SERVER, usual_places, version_said};
use crate::runtime::blocking;

/// There where the kernel knows IPv6.
const IPV6: &str = "/proc/sys/net/ipv6";
/// Until a started container reports.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it still runs.
const LOOK: Duration = Duration::from_millis(500);

/// A sandbox that stands; its processes end when it is dropped.
#[derive(Debug)]
pub struct Container {
    spec: Spec,
    journal: Arc<Journal>,
    program: PathBuf,
    /// The words that start it inside.
    start: Vec<String>,
    facts: Facts,
    /// Name of the PID namespace of all its processes, in `/proc`.
    pid_namespace: String,
    /// Where PostgreSQL's programs are in its image.
    bin_dir: Option<PathBuf>,
    /// The agents, by their numbers on this host.
    agents: Vec<u32>,
    /// Lines to its processes, which end with them.
    lines: Mutex<Vec<UnixStream>>,
}

impl Container {
    /// Starts a sandbox. `program` is this program; the directories of `spec` must be there. Every container is in
    /// the journal before it is made; what a failing start has made goes with the drill.
    ///
    /// # Errors
    /// A configuration error where engine or images do not allow it.
    pub async fn start(program: &Path, spec: Spec, journal: Arc<Journal>) -> Result<Self> {
        let engine = Engine::connect(&spec.config.socket).await?;
        let about = engine.about().await?;
        let user_namespace = user_namespace(&about, &spec)?;
        let postgres = Image::find(&engine, &spec.config.postgres).await?;
        let odoo = match &spec.config.odoo {
            Some(pinned) => Some(Image::find(&engine, pinned).await?),
            None => None,
        };
        let start = prepare(program, &spec).await?;
        let listener = listen(&spec)?;
        let mut making = Making { engine: &engine, journal: &journal, spec: &spec, listener, warnings: Vec::new() };

        let gate = making
            .make("gate", &body::gate(&spec, &postgres, &start, user_namespace, Path::new(IPV6).exists()))
            .await?;
        let (line, up) = making.begin("gate", &postgres, "none").await?;
        let (mut lines, mut namespaces_of) = (vec![line], up.namespaces);
        let pid_namespace = namespaces_of.get("pid").cloned().unwrap_or_default();
        let network = format!("container:{gate}");
        let (mut images, mut agents) = (Vec::new(), Vec::new());
        for (part, image) in [(Part::Server, Some(postgres)), (Part::Odoo, odoo)] {
            let Some(image) = image else { continue };
            let body = body::part(&spec, part, &image, &start, &gate, user_namespace);
            making.make(part.name(), &body).await?;
            let (line, up) = making.begin(part.name(), &image, &network).await?;
            if up.namespaces.get("pid") != Some(&pid_namespace) || up.namespaces.get("net") != namespaces_of.get("net")
            {
                return Err(error::config(format!(
                    "the engine gave the container {} other namespaces than those of the gate",
                    spec.name(part.name())
                ))
                .meaning("nothing was restored: its end and its network would not be the sandbox's"));
            }
            namespaces_of = up.namespaces;
            agents.extend(line.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok()));
            lines.push(line);
            images.push(ImageFacts { part: part.name().to_owned(), reference: image.pinned, id: image.id });
        }
        let warnings = making.warnings;
        drop(making.listener);
        let _ = std::fs::remove_file(spec.line());
        let own = namespaces();
        let other = |(kind, name): (String, String)| (own.get(&kind) != Some(&name)).then_some(kind);
        let facts = Facts {
            kind: "container",
            sealed: true,
            account: spec.account.clone(),
            network:
                "a loopback interface of its own, to which every address leads; no other interface, no published port"
                    .into(),
            namespaces: namespaces_of.into_iter().filter_map(other).collect(),
            landlock_abi: None,
            engine: Some(about.name),
            images,
            warnings,
        };
        let mut container = Self {
            program: program.to_owned(),
            start,
            facts,
            pid_namespace,
            bin_dir: None,
            agents,
            lines: Mutex::new(lines),
            spec,
            journal,
        };
        container.bin_dir = container.look_for_postgres().await?;
        Ok(container)
    }

    /// Where the server of the right major version is in the image.
    async fn look_for_postgres(&self) -> Result<Option<PathBuf>> {
        let Some(major) = self.spec.major else { return Ok(None) };
        let places = match &self.spec.config.bin_dir {
            Some(directory) => vec![directory.clone()],
            None => usual_places(major),
        };
        let (launch, pinned) = (self.launch(Part::Server), self.spec.config.postgres.to_string());
        blocking(move || {
            let mut found = Vec::new();
            for directory in &places {
                let server = directory.join(SERVER);
                if !launch.has(&server) {
                    continue;
                }
                let output = launch.command(&server).arg("--version").current_dir("/").output();
                let output =
                    output.or_err(ErrorKind::Internal, || "no program can be started in the sandbox".to_owned())?;
                match version_said(&output.stdout) {
                    Some(version) if version == major => return Ok(Some(directory.clone())),
                    Some(version) => found.push(format!("{} is of PostgreSQL {version}", server.display())),
                    None => found.push(format!(
                        "{} does not run: {}",
                        server.display(),
                        String::from_utf8_lossy(&output.stderr).trim()
                    )),
                }
            }
            let what = match found.is_empty() {
                true => {
                    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
                    format!("no {SERVER} in {}", places.join(", "))
                }
                false => found.join(", "),
            };
            Err(error::config(format!("the image {pinned} does not hold PostgreSQL {major}: {what}"))
                .meaning("nothing was restored: data of one major version is served by that version only")
                .hint(format!("pin an image of PostgreSQL {major} in [environment.drill.container] postgres"))
                .hint("or say where it is in the image: `bin_dir` there"))
        })
        .await
    }

    /// Closes the lines, so that every process ends.
    fn let_go(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[async_trait]
impl Seal for Container {
    fn launch(&self, part: Part) -> Arc<dyn Launch> {
        Arc::new(Inside { program: self.program.clone(), agent: self.spec.agent(part) })
    }

    fn bin_dir(&self) -> Option<&Path> {
        self.bin_dir.as_deref()
    }

    fn own_program(&self) -> Option<&[String]> {
        Some(&self.start)
    }

    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn way_in(&self, port: u16) -> Option<PathBuf> {
        self.spec.doors.iter().find(|door| door.port == port).map(|door| door.socket.clone())
    }

    fn processes(&self) -> Vec<u32> {
        match self.pid_namespace.is_empty() {
            true => Vec::new(),
            false => processes::of_pid_namespace(&self.pid_namespace),
        }
    }

    fn was_out_of_memory(&self) -> bool {
        self.agents.iter().any(|pid| processes::ended_for_memory(*pid).is_some_and(|count| count > 0))
    }

    async fn end(&self) -> Result<()> {
        self.let_go();
        // The engine ends what does not end with its line; an account that is not root may not.
        let gone = gone::remove(&self.spec.drill, &self.journal.contained()).await;
        processes::end(|| self.processes()).await?;
        match gone.residue.is_empty() {
            true => Ok(()),
            false => Err(error::internal(format!("containers of the sandbox do not go: {}", gone.residue.join(", ")))
                .hint("remove them, and run `lifeboat drill reap`")),
        }
    }
}

/// What containers are made with, one after the other.
struct Making<'a> {
    engine: &'a Engine,
    journal: &'a Journal,
    spec: &'a Spec,
    listener: UnixListener,
    warnings: Vec<String>,
}

impl Making<'_> {
    /// Notes a container, and makes it; its id.
    async fn make(&mut self, part: &str, body: &Value) -> Result<String> {
        let name = self.spec.name(part);
        self.journal.container(self.engine.socket(), &name)?;
        let (id, warnings) = self.engine.create(&name, body).await?;
        self.warnings.extend(warnings);
        Ok(id)
    }

    /// Starts it, waits until its process reports, and holds it against what it was asked to be.
    async fn begin(&mut self, part: &str, image: &Image, network: &str) -> Result<(UnixStream, Up)> {
        let name = self.spec.name(part);
        self.engine.start(&name).await?;
        let began = Instant::now();
        let stream = loop {
            if let Ok(accepted) = timeout(LOOK, self.listener.accept()).await {
                break accepted.or_err(ErrorKind::Internal, || "the sandbox cannot report".to_owned())?.0;
            }
            let container = self.engine.container(&name).await?.unwrap_or_default();
            let runs = container["State"]["Running"].as_bool() == Some(true);
            if !runs || began.elapsed() > PATIENCE {
                return Err(self.mute(&name, runs, &container).await);
            }
        };
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        let read = timeout(PATIENCE, reader.read_line(&mut line)).await;
        let up = match read {
            Ok(Ok(1..)) => serde_json::from_str(&line).ok(),
            _ => None,
        };
        let container = self.engine.container(&name).await?.unwrap_or_default();
        let Some(up) = up else { return Err(self.mute(&name, true, &container).await) };
        assertions::hold(&name, &container, image, network)?;
        Ok((reader.into_inner(), up))
    }

    /// Why a container did not report.
    async fn mute(&self, name: &str, runs: bool, container: &Value) -> error::Error {
        let words = self.engine.words(name).await;
        let state = &container["State"];
        let state = match (runs, state["Error"].as_str().filter(|e| !e.is_empty())) {
            (true, _) => format!("does not report within {} s", PATIENCE.as_secs()),
            (false, Some(why)) => format!("ended at once: {why}"),
            (false, None) => format!("ended at once with exit code {}", state["ExitCode"]),
        };
        error::config(format!("the container {name} {state}: {words}"))
            .meaning("nothing was restored: no program can be started in that sandbox")
            .hint("`work_dir` in [environment.drill] must not be mounted noexec, and the engine must run on this host")
    }
}

/// How accounts are mapped, so that the sandbox's account is the same inside and outside.
fn user_namespace(about: &About, spec: &Spec) -> Result<Option<&'static str>> {
    let own = nix::unistd::Uid::effective().as_raw();
    match (about.rootless, about.is_podman, about.remaps) {
        (false, _, true) => Ok(Some("host")),
        (false, _, false) => Ok(None),
        (true, true, _) if spec.uid == own => Ok(Some("keep-id")),
        (true, ..) => Err(error::config(format!(
            "{} at {} runs without root, and maps the account {} to another",
            about.name,
            spec.config.socket.display(),
            spec.account
        ))
        .meaning("nothing was restored: the restored files would belong to nobody in the sandbox")
        .hint("use the engine of the system (root), or Podman of the account that Lifeboat runs as")),
    }
}

/// Places the program, and the files of `/etc`.
async fn prepare(program: &Path, spec: &Spec) -> Result<Vec<String>> {
    let (program, spec) = (program.to_owned(), spec.clone());
    blocking(move || {
        let etc = spec.settings();
        std::fs::create_dir(&etc).map_err(|e| failed("cannot create", &etc, e))?;
        let readable = |path: &Path, mode: u32| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(path, mode).map_err(|e| failed("cannot open", path, e))
        };
        readable(&etc, 0o755)?;
        for (name, text) in settings::files(&spec.account, spec.uid, spec.gid) {
            let file = etc.join(name);
            std::fs::write(&file, text).map_err(|e| failed("cannot write", &file, e))?;
            readable(&file, 0o644)?;
        }
        portable::place(&program, &spec.runtime(), &spec.root.join(PROGRAM_FILE))
    })
    .await
}

/// The socket that the sandbox's processes report to.
fn listen(spec: &Spec) -> Result<UnixListener> {
    let line = spec.line();
    let listener = UnixListener::bind(&line).map_err(|e| failed("cannot listen on", &line, e))?;
    let account = Account { name: spec.account.clone(), uid: spec.uid, gid: spec.gid };
    hand_over(&line, nix::unistd::Uid::effective().is_root().then_some(&account))?;
    Ok(listener)
}
