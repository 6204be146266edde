//! An S3 server: moto, over HTTP on loopback.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use object_store::aws::{AmazonS3, AmazonS3Builder};

use super::scratch::{Scratch, free_port};
use super::wait::wait_until;

/// A running moto. It keeps objects in memory: [`Moto::stop`] forgets them; use [`Moto::pause`] or a
/// [`super::FlakyProxy`] for an outage that keeps them.
#[derive(Debug)]
pub(crate) struct Moto {
    scratch: Scratch,
    program: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Moto {
    /// Starts one; `None` where `LIFEBOAT_TEST_MOTO` names none.
    pub(crate) fn start_new(scratch: &Scratch) -> Option<Self> {
        let program = PathBuf::from(std::env::var_os("LIFEBOAT_TEST_MOTO")?);
        let mut moto = Self { scratch: scratch.clone(), program, port: free_port(), server: None };
        moto.start();
        Some(moto)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// For `endpoint` in a configuration.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it again, empty, on the same port; returns when it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.server.is_none(), "moto runs already");
        let log = File::options().create(true).append(true).open(self.scratch.join("moto.log")).expect("a log file");
        // The Python beside the program is the one that has moto.
        let mut command = Command::new(self.program.with_file_name("python"));
        let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/moto_server.py");
        command.args([server, &self.port.to_string()]).current_dir(self.scratch.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        self.server = Some(command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")));
        wait_until("moto answers", Duration::from_secs(60), || self.request("GET", "/moto-api/", "").is_some());
    }

    /// The server is gone, with its objects; connections are refused.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// The server hangs: connections are taken, nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub(crate) fn create_bucket(&self, name: &str) {
        self.create_bucket_with(name, "");
    }

    /// A bucket whose objects can be locked.
    pub(crate) fn create_bucket_with_locks(&self, name: &str) {
        self.create_bucket_with(name, "x-amz-bucket-object-lock-enabled: true\r\n");
    }

    fn create_bucket_with(&self, name: &str, headers: &str) {
        let status = self.request("PUT", &format!("/{name}"), headers);
        assert_eq!(status.as_deref(), Some("200"), "cannot create bucket {name}");
    }

    /// Direct access to a bucket, to look at objects or to damage them.
    pub(crate) fn store(&self, bucket: &str) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(bucket)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .build()
            .expect("a valid client")
    }

    fn signal(&self, signal: Signal) {
        let server = self.server.as_ref().expect("moto runs");
        kill(Pid::from_raw(server.id().cast_signed()), signal).expect("a child");
    }

    /// Status of the answer to a request without a body, if one came.
    fn request(&self, method: &str, path: &str, headers: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.port
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1).map(str::to_owned)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.stop();
    }
}
