//! The engine: Podman or Docker, asked in the Engine API over its Unix socket. Only the few questions that a
//! sandbox has; each on a connection of its own, with a time limit. Answers are read as loosely as two engines
//! and their versions differ.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::LABEL;
use crate::error::{self, Error, Result};

/// For one question. Making a container copies its whole image where the engine's storage is `vfs`.
const PATIENCE: Duration = Duration::from_secs(180);
/// Until a container that is being removed is gone.
const GOING: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);
/// Longest answer.
const LARGEST: usize = 16 << 20;

/// An engine that answers.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    socket: PathBuf,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    /// Name and version: `Podman Engine 4.3.1`.
    pub(super) name: String,
    /// Whether it is Podman, which can map accounts where it runs without root.
    pub(super) is_podman: bool,
    /// Whether it runs without root.
    pub(super) rootless: bool,
    /// Whether it maps accounts of containers to others by default.
    pub(super) remaps: bool,
}

impl Engine {
    /// Sees that an engine answers at `socket`.
    ///
    /// # Errors
    /// Configuration, with what to do, where nobody answers.
    pub(super) async fn connect(socket: &Path) -> Result<Self> {
        let engine = Self { socket: socket.to_owned() };
        match engine.ask(Method::GET, "/_ping", None).await? {
            (200, _) => Ok(engine),
            (status, answer) => Err(engine.refused("it does not answer a ping", status, &answer)),
        }
    }

    /// Its socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it says of itself.
    pub(super) async fn about(&self) -> Result<About> {
        let version = self.good(Method::GET, "/version", None, "its version is not known").await?;
        let info = self.good(Method::GET, "/info", None, "it does not describe itself").await?;
        let component = &version["Components"][0];
        let name = component["Name"].as_str().filter(|name| *name != "Engine").unwrap_or("Docker Engine");
        let number = component["Version"].as_str().or(version["Version"].as_str()).unwrap_or("of unknown version");
        let options = info["SecurityOptions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let says = |word: &str| options.iter().any(|option| option.as_str() == Some(word));
        Ok(About {
            name: format!("{name} {number}"),
            is_podman: name.contains("Podman"),
            rootless: says("name=rootless"),
            remaps: says("name=userns"),
        })
    }

    /// What it knows of an image; `None` where it has none of this name.
    pub(super) async fn image(&self, name: &str) -> Result<Option<Value>> {
        let what = format!("the image {name} cannot be looked at");
        match self.ask(Method::GET, &format!("/images/{}/json", encoded(name)), None).await? {
            (200, image) => Ok(Some(image)),
            (404, _) => Ok(None),
            (status, answer) => Err(self.refused(&what, status, &answer)),
        }
    }

    /// Makes a container; its id and what the engine warns of.
    pub(super) async fn create(&self, name: &str, body: &Value) -> Result<(String, Vec<String>)> {
        let what = format!("the container {name} cannot be made");
        let path = format!("/containers/create?name={}", encoded(name));
        let made = self.good(Method::POST, &path, Some(body), &what).await?;
        let id = made["Id"].as_str().ok_or_else(|| self.refused(&what, 200, &made))?.to_owned();
        let warnings = made["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok((id, warnings.map(str::to_owned).collect()))
    }

    /// Starts a container.
    pub(super) async fn start(&self, name: &str) -> Result<()> {
        let what = format!("the container {name} cannot be started");
        self.good(Method::POST, &format!("/containers/{}/start", encoded(name)), None, &what).await.map(drop)
    }

    /// What it knows of a container; `None` where there is none of this name or id.
    pub(super) async fn container(&self, name: &str) -> Result<Option<Value>> {
        let what = format!("the container {name} cannot be looked at");
        match self.ask(Method::GET, &format!("/containers/{}/json", encoded(name)), None).await? {
            (200, container) => Ok(Some(container)),
            (404, _) => Ok(None),
            (status, answer) => Err(self.refused(&what, status, &answer)),
        }
    }

    /// The last words of a container's own process.
    pub(super) async fn words(&self, name: &str) -> String {
        let path = format!("/containers/{}/logs?stdout=1&stderr=1&tail=20", encoded(name));
        match timeout(PATIENCE, self.exchange(Method::GET, &path, None)).await {
            Ok(Ok((200, frames))) => words(&frames),
            _ => String::new(),
        }
    }

    /// Names or ids of all containers with the label of a drill, whether they run or not.
    pub(super) async fn of_drill(&self, drill: &str) -> Result<Vec<String>> {
        let filters = json!({ "label": [format!("{LABEL}={drill}")] }).to_string();
        let path = format!("/containers/json?all=true&filters={}", encoded(&filters));
        let found = self.good(Method::GET, &path, None, "its containers cannot be listed").await?;
        let name = |container: &Value| {
            let name = container["Names"][0].as_str().or(container["Id"].as_str())?;
            Some(name.trim_start_matches('/').to_owned())
        };
        Ok(found.as_array().into_iter().flatten().filter_map(name).collect())
    }

    /// Ends a container and removes it with everything that belongs to it alone; returns when it is gone.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        let what = format!("the container {name} cannot be removed");
        let path = format!("/containers/{}?force=true&v=true", encoded(name));
        let began = Instant::now();
        loop {
            match self.ask(Method::DELETE, &path, None).await? {
                (200..=299 | 404, _) => {}
                // Somebody removes it already, or it has just been ended.
                (409 | 500, _) if began.elapsed() < GOING => {}
                (status, answer) => return Err(self.refused(&what, status, &answer)),
            }
            if self.container(name).await?.is_none() {
                return Ok(());
            }
            if began.elapsed() > GOING {
                return Err(error::internal(what).hint(self.hint()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn good(&self, method: Method, path: &str, body: Option<&Value>, what: &str) -> Result<Value> {
        match self.ask(method, path, body).await? {
            (200..=299, answer) => Ok(answer),
            (status, answer) => Err(self.refused(what, status, &answer)),
        }
    }

    /// Status and answer; what is no JSON is null.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let (status, answer) = match timeout(PATIENCE, self.exchange(method, path, body)).await {
            Ok(exchanged) => exchanged.map_err(|e| self.silent(e.as_ref()))?,
            Err(_) => return Err(self.silent(&std::io::Error::from(std::io::ErrorKind::TimedOut))),
        };
        Ok((status, serde_json::from_slice(&answer).unwrap_or(Value::Null)))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> std::result::Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its error reaches the request as "connection closed".
        let connection = tokio::spawn(connection);
        let text = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header(HOST, "engine");
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(text)))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await?.to_bytes();
        connection.abort();
        Ok((status, body))
    }

    fn silent(&self, why: &(dyn std::error::Error + 'static)) -> Error {
        error::config(format!("no container engine answers at {}: {why}", self.socket.display()))
            .meaning("nothing can be started in containers, and nothing is known of those that there may be")
            .hint("start it: `systemctl enable --now podman.socket` (or docker.socket)")
            .hint("or correct `socket` in [environment.drill.container]; the account of Lifeboat must be allowed to connect to it")
    }

    fn refused(&self, what: &str, status: u16, answer: &Value) -> Error {
        let why = answer["message"].as_str().or(answer["cause"].as_str()).unwrap_or("no reason is given");
        error::config(format!(
            "the container engine at {}: {what}: {} (HTTP {status})",
            self.socket.display(),
            why.trim()
        ))
        .hint(self.hint())
    }

    fn hint(&self) -> String {
        format!(
            "look for yourself: `podman --url unix://{0} ps --all`, `docker -H unix://{0} ps --all`",
            self.socket.display()
        )
    }
}

/// A part of a path or query, with everything that means something there encoded.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The text in the frames of a log: a kind, three zeros, a length in four bytes, and so much text.
fn words(mut frames: &[u8]) -> String {
    let mut text = Vec::new();
    while let [_, 0, 0, 0, a, b, c, d, rest @ ..] = frames {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX).min(rest.len());
        text.extend_from_slice(&rest[..length]);
        frames = &rest[length..];
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn names_and_filters_fit_into_a_path() {
        assert_eq!(encoded("a/b@sha256:0"), "a%2Fb%40sha256%3A0");
        assert_eq!(encoded(r#"{"label":["x"]}"#), "%7B%22label%22%3A%5B%22x%22%5D%7D");
    }

    #[test]
    fn words_are_taken_out_of_their_frames() {
        let frames = [&[2, 0, 0, 0, 0, 0, 0, 3][..], b"no\n", &[1, 0, 0, 0, 0, 0, 0, 9], b"cut"].concat();
        assert_eq!(words(&frames), "no\ncut");
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_told_apart_from_an_empty_one() {
        let folder = tempfile::tempdir().expect("dir");
        let failure = Engine::connect(&folder.path().join("none.sock")).await.expect_err("nobody answers");
        assert_eq!(failure.kind(), ErrorKind::Config);
        assert!(failure.message().contains("no container engine answers"), "{failure}");
    }
}
