//! What any sandbox must hold, whatever it is made of. Programs are started inside as PostgreSQL and Odoo are, and try
//! to get out.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lifeboat::config::DrillContainer;
use lifeboat::drill::sandbox::container::Container;
use lifeboat::drill::sandbox::local::Local;
use lifeboat::drill::sandbox::place::Ground;
use lifeboat::drill::sandbox::{Begun, Part, Sandbox, Seal, journal, processes, reap};
use lifeboat::postgres::account::Account;
use lifeboat::postgres::tools::newest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Engine, Lifeboat, Scratch, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 8069;

/// A sandbox under test and the place that it stands in.
struct Site {
    scratch: Scratch,
    place: Sandbox,
    seal: Arc<dyn Seal>,
    /// What it is made with, beside what it makes: containers of an engine.
    engine: Option<Arc<Engine>>,
}

impl Site {
    fn place(id: &str) -> (Scratch, Sandbox) {
        let scratch = Scratch::new();
        let account = Account::for_servers(None).expect("an account for servers");
        let ground =
            Ground { parent: scratch.join("drills"), temporary: scratch.path().to_owned(), account, keep: false };
        let place = Sandbox::create(&ground, &begun(id)).expect("a place");
        (scratch, place)
    }

    async fn local(_: &str) -> Result<Self, String> {
        let (scratch, place) = Self::place("contract");
        let spec = place.spec(Vec::new(), &[PORT], None);
        let seal = Local::start(Path::new(Lifeboat::program()), spec).await.expect("this host allows namespaces");
        Ok(Self { scratch, place, seal: Arc::new(seal), engine: None })
    }

    /// `id` tells the containers of one test from those of another in the same engine.
    async fn container(id: &str) -> Result<Self, String> {
        let (major, bin_dir) = newest().ok_or("no PostgreSQL in the usual places")?;
        let engine = tokio::task::block_in_place(|| Engine::shared(&bin_dir))?;
        let (scratch, place) = Self::place(id);
        let config = DrillContainer {
            socket: engine.socket(),
            postgres: engine.postgres.parse().expect("a digest"),
            odoo: None,
            bin_dir: None,
            nano_cpus: Some(2_000_000_000),
            processes: 512,
        };
        let spec = place.container(config, Vec::new(), &[PORT], Some(1 << 30), Some(major));
        let seal = Container::start(Path::new(Lifeboat::program()), spec, place.journal()).await.expect("started");
        Ok(Self { scratch, place, seal: Arc::new(seal), engine: Some(engine) })
    }

    /// A shell inside, with its words.
    fn shell(&self, script: &str) -> Command {
        let mut command = self.seal.launch(Part::Server).command(Path::new("/bin/bash"));
        command.args(["-c", script]).current_dir("/").stdin(Stdio::null());
        command
    }

    /// Runs a script inside that must succeed; what it said.
    #[track_caller]
    fn says(&self, script: &str) -> String {
        let output = self.shell(script).output().expect("started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {said} {}", String::from_utf8_lossy(&output.stderr));
        said.trim().to_owned()
    }

    /// A script inside must fail, because the sandbox forbids what it does.
    #[track_caller]
    fn refuses(&self, script: &str) {
        let output = self.shell(script).output().expect("started");
        assert!(!output.status.success(), "{script} succeeded: {}", String::from_utf8_lossy(&output.stdout));
    }
}

fn begun(id: &str) -> Begun {
    let now = chrono::Utc::now();
    Begun {
        id: id.into(),
        repository: "none".into(),
        environment: "production".into(),
        requested: "latest".into(),
        operator: "test".into(),
        config_digest: String::new(),
        started_at: now,
        incident_time: now,
        sampling: None,
    }
}

/// Every kind of sandbox under every clause of the contract.
macro_rules! contract {
    ($($clause:ident),* $(,)?) => {
        mod local {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $clause() {
                super::$clause(super::Site::local(stringify!($clause)).await.expect("made")).await;
            })*
        }
        mod container {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $clause() {
                // Short: paths of sockets have little room.
                let id: String = stringify!($clause).replace('_', "-").chars().take(24).collect();
                match super::Site::container(&id).await {
                    Ok(site) => super::$clause(site).await,
                    Err(why) => crate::common::skip!("{why}"),
                }
            })*
        }
    };
}

contract!(
    no_connection_reaches_anybody_outside,
    nothing_outside_is_seen_and_nothing_outside_is_written,
    nobody_outside_is_seen_and_nobody_inside_has_privileges,
    a_program_is_as_it_would_be_outside,
    the_way_in_leads_to_its_port_and_to_no_other,
    its_end_is_the_end_of_everybody_in_it,
    the_last_word_of_the_owner_is_not_needed,
    what_wants_out_is_counted,
);

/// The address of this machine on its network, or loopback where it has none.
fn own_address() -> Ipv4Addr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let routed = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    match routed.map(|address| address.ip()) {
        Ok(std::net::IpAddr::V4(address)) => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}

async fn no_connection_reaches_anybody_outside(site: Site) {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a listener");
    let port = listener.local_addr().expect("bound").port();
    listener.set_nonblocking(true).expect("a socket");
    let datagrams = UdpSocket::bind(("0.0.0.0", port)).expect("a socket");
    datagrams.set_nonblocking(true).expect("a socket");
    let reach = |address: Ipv4Addr| format!("exec 3<>/dev/tcp/{address}/{port} && echo hello >&3");
    let own = own_address();
    // The question is a fair one: from outside it is answered.
    let outside = Command::new("/bin/bash").args(["-c", &reach(own)]).status().expect("started");
    assert!(outside.success());
    wait_until("the listener is reached from outside", PATIENCE, || listener.accept().is_ok());
    for address in [own, Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(169, 254, 169, 254)] {
        site.refuses(&reach(address));
        site.says(&format!("echo hello > /dev/udp/{address}/{port} || true"));
    }
    assert!(listener.accept().is_err(), "a connection got out");
    assert!(datagrams.recv_from(&mut [0; 9]).is_err(), "a datagram got out");
    let interfaces = site.says("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '");
    assert_eq!(interfaces, "lo");
    assert_eq!(site.says("cat /etc/resolv.conf | head -1"), "nameserver 127.0.0.1");
}

async fn nothing_outside_is_seen_and_nothing_outside_is_written(site: Site) {
    let secret = site.scratch.write("secret", "production's");
    let socket = site.scratch.join("production.socket");
    let _listening = UnixListener::bind(&socket).expect("a socket");
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777)).expect("own file");
    for path in [secret.as_path(), &socket, Path::new("/etc/shadow"), Path::new("/root"), Path::new("/home")] {
        site.refuses(&format!("ls -d '{}'", path.display()));
    }
    let seen = site.says("ls -A /");
    let mut known =
        vec!["bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "tmp", "usr", "var"];
    if site.engine.is_some() {
        // Engines mount it, read-only and masked.
        known.push("sys");
        site.refuses("touch /sys/fs/cgroup/x || echo 1 > /sys/kernel/profiling");
    }
    let own: Vec<_> = site.place.root().components().skip(1).take(1).map(|c| c.as_os_str().to_os_string()).collect();
    for name in seen.lines() {
        assert!(known.contains(&name) || own.iter().any(|o| o == name), "/{name} is in the sandbox");
    }
    assert_eq!(site.says("ls -A /run /dev/shm | grep -v : | tr -d '\n'"), "");
    for place in ["/", "/usr", "/usr/bin", "/etc", "/var", "/proc/sys/kernel/domainname"] {
        site.refuses(&format!("touch {place}/x 2>/dev/null || echo x > {place}"));
    }
    // What Lifeboat notes is not the programs' to read or write.
    let egress = site.place.egress_log();
    let notes = egress.parent().expect("a directory").display();
    assert_eq!(site.says(&format!("ls -A {notes} 2>/dev/null || true")), "");
    site.refuses(&format!("touch {notes}/x"));
    // The drill's own places are there, at their own paths, and what programs write there is seen outside.
    for place in [site.place.short(), Path::new("/tmp")] {
        site.says(&format!("echo inside > {}/written", place.display()));
    }
    assert_eq!(std::fs::read_to_string(site.place.short().join("written")).expect("a file"), "inside\n");
    assert!(!Path::new("/tmp/written").exists());
}

async fn nobody_outside_is_seen_and_nobody_inside_has_privileges(site: Site) {
    let mut outside = Command::new("sleep").arg("98765").spawn().expect("sleep");
    assert!(!site.says("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").contains("98765"), "a process outside is seen");
    site.refuses(&format!("kill -0 {}", outside.id()));
    outside.kill().and_then(|()| outside.wait()).expect("ended");
    let account = site.seal.facts().account;
    assert_eq!(site.says("id -un"), account);
    assert_ne!(site.says("id -u"), "0");
    let status = site.says("cat /proc/self/status");
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
    assert_eq!(field("CapEff:").as_deref(), Some("0000000000000000"));
    assert_eq!(field("CapPrm:").as_deref(), Some("0000000000000000"));
    assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"));
    assert_eq!(site.says("ulimit -c"), "0");
    site.refuses("kill -9 1 && sleep 0.2 && kill -0 1 && false");
    assert_eq!(site.says("echo alive"), "alive");
    site.refuses("mount -t tmpfs none /tmp");
    site.refuses("umount /proc");
    // A file left open by whoever started Lifeboat leads nowhere.
    let leaked = std::fs::File::open("/etc/hostname").expect("a file");
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
        .expect("inherited from now on");
    assert_eq!(site.says("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3", "3 is the directory being listed");
}

async fn a_program_is_as_it_would_be_outside(site: Site) {
    let code = |script: &str| site.shell(script).status().expect("started").code();
    assert_eq!(code("exit 7"), Some(7));
    assert_eq!(code("kill -9 $$"), Some(137));
    let missing = site
        .seal
        .launch(Part::Server)
        .command(Path::new("/no/such/program"))
        .current_dir("/")
        .output()
        .expect("started");
    assert_eq!(missing.status.code(), Some(127));
    let mut command = site.shell("echo $PWD $GREETING; cat");
    command.current_dir(site.place.short()).env("GREETING", "hello").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("started");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), b"through").expect("written");
    let said = String::from_utf8(child.wait_with_output().expect("ended").stdout).expect("UTF-8");
    assert_eq!(said, format!("{} hello\nthrough", site.place.short().display()));
    for (signal, number) in [(Signal::SIGINT, 2), (Signal::SIGQUIT, 3), (Signal::SIGTERM, 15)] {
        // Not a shell: one that was started with a signal ignored, as by `nohup`, cannot take it up again.
        let handler = format!("$SIG{{{}}} = sub {{ exit {} }}", &signal.as_str()[3..], 40 + number);
        let script = format!("exec perl -e '$| = 1; {handler}; print \"ready\\n\"; sleep 1 while 1'");
        let (mut child, _) = started(site.shell(&script));
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("a child");
        assert_eq!(child.wait().expect("ended").code(), Some(40 + number));
    }
}

/// Starts a script that says `ready`.
fn started(mut command: Command) -> (Child, impl Read) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
    let mut out = child.stdout.take().expect("piped");
    let mut word = [0; 6];
    out.read_exact(&mut word).expect("it says that it is ready");
    assert_eq!(&word, b"ready\n");
    (child, out)
}

async fn the_way_in_leads_to_its_port_and_to_no_other(site: Site) {
    let serve = format!(
        "exec perl -MIO::Socket::INET -e '$| = 1; my $s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1:{PORT}\", Listen => 5) \
         or die $!; print \"ready\\n\"; while (my $c = $s->accept) {{ my $l = <$c>; print $c \"got $l\"; close $c }}'"
    );
    let (mut server, _out) = started(site.shell(&serve));
    let way = site.seal.way_in(PORT).expect("a way in");
    assert!(site.seal.way_in(PORT + 1).is_none());
    let mut stream = std::os::unix::net::UnixStream::connect(way).expect("a socket");
    std::io::Write::write_all(&mut stream, b"knock\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert_eq!(answer, "got knock\n");
    server.kill().and_then(|()| server.wait()).expect("ended");
}

async fn its_end_is_the_end_of_everybody_in_it(mut site: Site) {
    // One that does not listen, with a child in a session of its own.
    let script = "trap '' TERM INT HUP; setsid sleep 600 & echo ready; while true; do sleep 1; done";
    let (mut stubborn, _out) = started(site.shell(script));
    wait_until("PID 1, the shell and its children run", PATIENCE, || site.seal.processes().len() >= 4);
    let root = site.place.root().to_owned();
    assert!(!processes::working_in(&root).is_empty(), "its mounts are seen");
    site.seal.end().await.expect("ended");
    assert_eq!(stubborn.wait().expect("ended").code(), Some(137));
    assert!(site.seal.processes().is_empty());
    let cleanup = site.place.destroy(chrono::Utc::now()).await.expect("looked");
    assert_eq!(cleanup.residue, Vec::<String>::new());
    // Two directories; the gate and the container of PostgreSQL.
    assert_eq!(cleanup.destroyed.len(), if site.engine.is_some() { 4 } else { 2 });
    assert!(!site.shell("true").status().is_ok_and(|s| s.success()), "it can be entered after its end");
    site.place.close(&cleanup).expect("closed");
    assert_eq!(std::fs::read_dir(site.scratch.join("drills")).expect("a directory").count(), 0);
}

async fn the_last_word_of_the_owner_is_not_needed(site: Site) {
    let (mut child, _out) = started(site.shell("echo ready; sleep 600"));
    let Site { scratch, place, seal, engine } = site;
    let inside = seal.processes();
    drop(seal);
    child.wait().expect("ended");
    wait_until("everybody inside has ended", PATIENCE, || {
        inside.iter().all(|pid| !Path::new(&format!("/proc/{pid}/cwd")).exists())
    });
    assert!(processes::working_in(place.root()).is_empty());
    // What is left is found by the journal.
    let drills = scratch.join("drills");
    drop(place);
    for dead in journal::dead(&drills).expect("looked") {
        let cleanup = reap::clean(&dead, chrono::Utc::now()).await.expect("cleaned");
        assert_eq!(cleanup.residue, Vec::<String>::new());
        dead.close().expect("closed");
    }
    assert_eq!(std::fs::read_dir(drills).expect("a directory").count(), 0);
    let left = engine.map(|engine| engine.left_of(scratch.path())).unwrap_or_default();
    assert_eq!(left, [] as [String; 0]);
}

async fn what_wants_out_is_counted(site: Site) {
    // A name, a mail server, an address of the world, a port that nobody listens on, a datagram.
    site.says(
        "perl -MIO::Socket::INET -e '
            my $ask = IO::Socket::INET->new(Proto => \"udp\", PeerAddr => \"127.0.0.1:53\");
            print $ask pack(\"n6\", 7, 256, 1, 0, 0, 0) . \"\\5hooks\\7example\\0\" . pack(\"n2\", 1, 1); $ask->recv(my $answer, 512);
            my $mail = IO::Socket::INET->new(PeerAddr => \"192.0.2.25:25\") or die; my $hello = <$mail>;
            my $web = IO::Socket::INET->new(PeerAddr => \"198.51.100.7:80\") or die; print $web \"GET /hook HTTP/1.1\\r\\nHost: shop.example\\r\\n\\r\\n\"; my $status = <$web>;
            IO::Socket::INET->new(PeerAddr => \"203.0.113.9:4321\") and die \"somebody listens\";
            my $log = IO::Socket::INET->new(Proto => \"udp\", PeerAddr => \"203.0.113.9:514\"); print $log \"hello\";
        '",
    );
    let log = site.place.egress_log();
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    let wanted = [
        ("dns", "hooks.example"),
        ("smtp", "192.0.2.25"),
        ("http", "198.51.100.7"),
        ("tcp", "203.0.113.9"),
        ("udp", "203.0.113.9"),
    ];
    let noted = |(protocol, place): &(&str, &str)| {
        lines().lines().any(|line| line.contains(&format!("\"protocol\":\"{protocol}\"")) && line.contains(place))
    };
    wait_until("every attempt is noted", PATIENCE, || wanted.iter().all(noted));
    assert!(lines().contains("perl"), "the process is not known: {}", lines());
}
