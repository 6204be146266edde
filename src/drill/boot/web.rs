//! A small HTTP client of its own for the Odoo in the sandbox: one connection for each request, over a Unix socket
//! that leads in or over loopback, with cookies and with a time limit. It follows no link to anywhere else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Longest answer that is kept; longer ones are only digested.
const LARGEST: usize = 64 << 20;
/// Redirections that are followed.
const HOPS: usize = 5;

/// How a port in a sandbox is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// A Unix socket that leads to it.
    Unix(PathBuf),
    /// It is on this host's own loopback interface.
    Loopback(u16),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Way {
    async fn open(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Loopback(port) => Box::new(TcpStream::connect(("127.0.0.1", *port)).await?),
        })
    }
}

/// Why there is no answer, in words.
pub(super) type Told<T> = Result<T, String>;

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Where it came from, after redirections.
    pub(super) path: String,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// A browser, as far as it goes.
#[derive(Debug, Clone)]
pub(super) struct Web {
    way: Way,
    host: String,
    limit: Duration,
    cookies: BTreeMap<String, String>,
    /// The first request that got no answer in time: whoever hangs is not waited for again and again.
    hangs: Option<String>,
}

struct Received {
    status: u16,
    headers: HeaderMap,
}

impl Web {
    /// For the Odoo that knows itself under `127.0.0.1:port`.
    pub(super) fn new(way: Way, port: u16, limit: Duration) -> Self {
        Self { way, host: format!("127.0.0.1:{port}"), limit, cookies: BTreeMap::new(), hangs: None }
    }

    /// Another window of the same browser, with a time limit of its own for each request; logged in as this one is. That a
    /// page hangs there does not keep other pages from being asked for here.
    pub(super) fn window(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// The same, but nobody is logged in.
    pub(super) fn anonymous(&self, limit: Duration) -> Self {
        Self { cookies: BTreeMap::new(), ..self.window(limit) }
    }

    /// Fetches a page, following redirections within the same Odoo.
    pub(super) async fn get(&mut self, path: &str) -> Told<Answer> {
        self.get_until(path, 0).await
    }

    /// Fetches a page, following redirections within the same Odoo but those with the status `last`.
    pub(super) async fn get_until(&mut self, path: &str, last: u16) -> Told<Answer> {
        let mut path = path.to_owned();
        for _ in 0..HOPS {
            let mut body = Vec::new();
            let received = self
                .exchange(Method::GET, &path, None, |part| {
                    if body.len() + part.len() > LARGEST {
                        return Err(format!("{path}: the answer is larger than {LARGEST} bytes"));
                    }
                    body.extend_from_slice(part);
                    Ok(())
                })
                .await?;
            let text = |name| received.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            match (received.status, text(LOCATION)) {
                (status @ (301..=303 | 307 | 308), location) if status != last && !location.is_empty() => {
                    path = self.within(&location)?
                }
                (status, _) => return Ok(Answer { status, path, content_type: text(CONTENT_TYPE), body }),
            }
        }
        Err(format!("{path}: redirected more than {HOPS} times"))
    }

    /// Status, SHA-1 and length of what a path gives.
    pub(super) async fn digest(&mut self, path: &str) -> Told<(u16, String, u64)> {
        let (mut sha1, mut length) = (Sha1::new(), 0);
        let received = self
            .exchange(Method::GET, path, None, |part| {
                sha1.update(part);
                length += part.len() as u64;
                Ok(())
            })
            .await?;
        Ok((received.status, hex::encode(sha1.finalize()), length))
    }

    /// Calls a JSON route; its `result`.
    pub(super) async fn call(&mut self, path: &str, parameters: serde_json::Value) -> Told<serde_json::Value> {
        let question = serde_json::json!({ "jsonrpc": "2.0", "method": "call", "id": 1, "params": parameters });
        let mut body = Vec::new();
        let keep = |part: &[u8]| {
            body.extend_from_slice(&part[..part.len().min(LARGEST.saturating_sub(body.len()))]);
            Ok(())
        };
        let received = self.exchange(Method::POST, path, Some(question.to_string()), keep).await?;
        let answer: serde_json::Value = serde_json::from_slice(&body)
            .map_err(|_| format!("{path}: HTTP {}, and the answer is not JSON", received.status))?;
        match (answer.get("result"), answer.get("error")) {
            (Some(result), None) => Ok(result.clone()),
            (_, Some(error)) => {
                let said = &error["data"]["message"];
                let name = error["data"]["name"].as_str().unwrap_or("an error");
                Err(format!("{path}: {name}: {}", said.as_str().unwrap_or_default()))
            }
            (None, None) => Err(format!("{path}: HTTP {}, neither result nor error", received.status)),
        }
    }

    /// The path of a location, which must be on this Odoo.
    fn within(&self, location: &str) -> Told<String> {
        let own = format!("http://{}", self.host);
        let path = location.strip_prefix(&own).unwrap_or(location);
        match path.starts_with('/') && !path.starts_with("//") {
            true => Ok(path.split('#').next().unwrap_or(path).to_owned()),
            false => Err(format!("Odoo leads away from itself, to {}", location.chars().take(200).collect::<String>())),
        }
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        json: Option<String>,
        mut take: impl FnMut(&[u8]) -> Told<()>,
    ) -> Told<Received> {
        if let Some(first) = &self.hangs {
            return Err(format!("{path} was not asked for: Odoo did not answer in time before ({first})"));
        }
        let what = |e: &dyn std::fmt::Display| format!("{path}: {e}");
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        if json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(json.unwrap_or_default()))).map_err(|e| what(&e))?;
        let exchange = async {
            let stream = self.way.open().await.map_err(|e| what(&e))?;
            let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| what(&e))?;
            // Its error reaches the request as "connection closed".
            let connection = tokio::spawn(connection);
            let answer = sender.send_request(request).await.map_err(|e| what(&e))?;
            let (head, mut body) = answer.into_parts();
            while let Some(frame) = body.frame().await {
                if let Some(part) = frame.map_err(|e| what(&e))?.data_ref() {
                    take(part)?;
                }
            }
            connection.abort();
            Ok::<_, String>(Received { status: head.status.as_u16(), headers: head.headers })
        };
        let Ok(received) = timeout(self.limit, exchange).await else {
            self.hangs = Some(path.chars().take(200).collect());
            return Err(format!("{path}: no answer within {} s", self.limit.as_secs()));
        };
        let received = received?;
        for cookie in received.headers.get_all(SET_COOKIE).iter().filter_map(|v| v.to_str().ok()) {
            if let Some((name, value)) = cookie.split(';').next().and_then(|pair| pair.split_once('=')) {
                self.cookies.insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
        Ok(received)
    }
}
