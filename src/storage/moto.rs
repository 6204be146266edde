//! Tests only: an S3 server (moto) of one's own, over real HTTP.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::open::Location;
use super::s3::Access;
use super::store::RetryPolicy;

/// A running moto server; ends with the value.
#[derive(Debug)]
pub(crate) struct Moto {
    server: Child,
    pub(crate) endpoint: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Moto {
    /// Starts a server with the program named by `LIFEBOAT_TEST_MOTO`, or says why the test is skipped.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        let Some(program) = std::env::var_os("LIFEBOAT_TEST_MOTO") else {
            println!("SKIPPED {test}: LIFEBOAT_TEST_MOTO does not name a moto_server program");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto_server starts");
        let moto = Self { server, endpoint: format!("http://127.0.0.1:{port}") };
        let began = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "moto_server does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(moto)
    }

    /// A location in `bucket`, which need not exist.
    pub(crate) fn location(&self, bucket: &str) -> Location {
        let mut location = Location::new(format!("s3://{bucket}/some/prefix"));
        location.endpoint = Some(self.endpoint.clone());
        location.access_key_id = Some("test".into());
        location.secret_access_key = Some("test".into());
        location.retry = RetryPolicy { give_up_after: Duration::from_secs(5), ..RetryPolicy::default() };
        location
    }

    /// A client for the control plane.
    pub(crate) async fn control(&self, bucket: &str) -> aws_sdk_s3::Client {
        Access::resolve(&self.location(bucket), bucket).await.expect("static credentials").control()
    }

    /// Creates `bucket` and returns a location in it.
    pub(crate) async fn bucket(&self, bucket: &str) -> Location {
        self.control(bucket).await.create_bucket().bucket(bucket).send().await.expect("bucket created");
        self.location(bucket)
    }
}
