//! What any sandbox must hold. Programs are started inside as PostgreSQL and Odoo are, and try to get out.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lifeboat::drill::sandbox::local::Local;
use lifeboat::drill::sandbox::place::Ground;
use lifeboat::drill::sandbox::{Begun, Sandbox, Seal, processes};
use lifeboat::postgres::account::Account;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Lifeboat, Scratch, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 8069;

/// A sandbox under test and the place that it stands in.
struct Site {
    scratch: Scratch,
    place: Sandbox,
    seal: Arc<dyn Seal>,
}

impl Site {
    async fn local() -> Self {
        let scratch = Scratch::new();
        let account = Account::for_servers(None).expect("an account for servers");
        let ground =
            Ground { parent: scratch.join("drills"), temporary: scratch.path().to_owned(), account, keep: false };
        let place = Sandbox::create(&ground, &begun()).expect("a place");
        let spec = place.spec(Vec::new(), &[PORT], None);
        let seal = Local::start(Path::new(Lifeboat::program()), spec).await.expect("this host allows namespaces");
        Self { scratch, place, seal: Arc::new(seal) }
    }

    /// A shell inside, with its words.
    fn shell(&self, script: &str) -> Command {
        let mut command = self.seal.launch().command(Path::new("/bin/bash"));
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

fn begun() -> Begun {
    let now = chrono::Utc::now();
    Begun {
        id: "contract".into(),
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

/// The address of this machine on its network, or loopback where it has none.
fn own_address() -> Ipv4Addr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let routed = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    match routed.map(|address| address.ip()) {
        Ok(std::net::IpAddr::V4(address)) => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_reaches_anybody_outside() {
    let site = Site::local().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_is_seen_and_nothing_outside_is_written() {
    let site = Site::local().await;
    let secret = site.scratch.write("secret", "production's");
    let socket = site.scratch.join("production.socket");
    let _listening = UnixListener::bind(&socket).expect("a socket");
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777)).expect("own file");
    for path in
        [secret.as_path(), &socket, Path::new("/etc/shadow"), Path::new("/root"), Path::new("/home"), Path::new("/sys")]
    {
        site.refuses(&format!("ls -d '{}'", path.display()));
    }
    let seen = site.says("ls -A /");
    let known = ["bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "tmp", "usr", "var"];
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
    assert_eq!(site.says(&format!("ls -A {notes}")), "");
    site.refuses(&format!("touch {notes}/x"));
    // The drill's own places are there, at their own paths, and what programs write there is seen outside.
    for place in [site.place.short(), Path::new("/tmp")] {
        site.says(&format!("echo inside > {}/written", place.display()));
    }
    assert_eq!(std::fs::read_to_string(site.place.short().join("written")).expect("a file"), "inside\n");
    assert!(!Path::new("/tmp/written").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_outside_is_seen_and_nobody_inside_has_privileges() {
    let site = Site::local().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_as_it_would_be_outside() {
    let site = Site::local().await;
    let code = |script: &str| site.shell(script).status().expect("started").code();
    assert_eq!(code("exit 7"), Some(7));
    assert_eq!(code("kill -9 $$"), Some(137));
    let missing = site.seal.launch().command(Path::new("/no/such/program")).current_dir("/").output().expect("started");
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

#[tokio::test(flavor = "multi_thread")]
async fn the_way_in_leads_to_its_port_and_to_no_other() {
    let site = Site::local().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn its_end_is_the_end_of_everybody_in_it() {
    let mut site = Site::local().await;
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
    assert_eq!(cleanup.destroyed.len(), 2);
    assert!(!site.shell("true").status().is_ok_and(|s| s.success()), "it can be entered after its end");
    site.place.close(&cleanup).expect("closed");
    assert_eq!(std::fs::read_dir(site.scratch.join("drills")).expect("a directory").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_word_of_the_owner_is_not_needed() {
    let site = Site::local().await;
    let (mut child, _out) = started(site.shell("echo ready; sleep 600"));
    let Site { scratch: _scratch, place, seal } = site;
    let inside = seal.processes();
    drop(seal);
    child.wait().expect("ended");
    wait_until("everybody inside has ended", PATIENCE, || {
        inside.iter().all(|pid| !Path::new(&format!("/proc/{pid}/cwd")).exists())
    });
    assert!(processes::working_in(place.root()).is_empty());
}
