//! What a client wants that speaks first: HTTP by its request line, TLS by its greeting, else its first bytes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Longest head that is read.
const HEAD: usize = 16 << 10;
/// Bytes of an unknown protocol that are kept.
const FIRST_BYTES: usize = 60;
/// How long the rest of a request is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most of a body that is taken before the answer.
const BODY: usize = 1 << 20;

const REFUSAL: &str = "This is a restore drill: nothing leaves its sandbox, and nobody answers here.\n";

/// What was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) protocol: &'static str,
    /// A name that the client said itself.
    pub(super) name: Option<String>,
    pub(super) asked: Option<String>,
}

/// Listens to what the client says first, tells it, and only then answers: the log comes before the answer.
pub(super) async fn listen<S>(mut stream: S, told: impl FnOnce(Wanted)) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut said = Vec::new();
    // A client that says nothing, or not enough, is taken by what there is.
    let complete = timeout(PATIENCE, async {
        while said.len() < HEAD && !is_complete(&said) {
            if stream.read_buf(&mut said).await? == 0 {
                break;
            }
        }
        Ok::<(), io::Error>(())
    })
    .await;
    let wanted = wanted(&said);
    let is_http = wanted.protocol == "http";
    told(wanted);
    if let Ok(Err(e)) = complete {
        return Err(e);
    }
    if is_http {
        // Who is cut off while he sends would not see the answer.
        let _ = timeout(Duration::from_secs(1), drain(&mut stream, body_left(&said))).await;
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{REFUSAL}",
            REFUSAL.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
    stream.shutdown().await
}

async fn drain(stream: &mut (impl AsyncRead + Unpin), mut left: usize) -> io::Result<()> {
    let mut buffer = [0; 8192];
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => left = left.saturating_sub(n),
        }
    }
    Ok(())
}

fn is_complete(said: &[u8]) -> bool {
    match said {
        [] => false,
        // A record of TLS says how long it is.
        [0x16, 0x03, _, high, low, rest @ ..] => rest.len() >= usize::from(u16::from_be_bytes([*high, *low])),
        [0x16] | [0x16, 0x03, ..] => false,
        _ if method(said).is_some() => head_end(said).is_some(),
        // Letters only may become a method yet.
        _ => said.len() > 8 || !said.iter().all(u8::is_ascii_uppercase),
    }
}

fn wanted(said: &[u8]) -> Wanted {
    if said.starts_with(&[0x16, 0x03]) {
        let name = server_name(said);
        return Wanted { protocol: "tls", asked: name.clone(), name };
    }
    if let Some(method) = method(said) {
        let head = String::from_utf8_lossy(&said[..head_end(said).unwrap_or(said.len())]).into_owned();
        let target = head.split_ascii_whitespace().nth(1).unwrap_or("/");
        let host = header(&head, "host").unwrap_or_default();
        let url = if target.starts_with('/') { format!("http://{host}{target}") } else { target.to_owned() };
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).to_owned();
        let is_name = !name.is_empty() && name.parse::<std::net::IpAddr>().is_err() && !name.contains(['[', ']', ':']);
        return Wanted { protocol: "http", name: is_name.then_some(name), asked: Some(format!("{method} {url}")) };
    }
    let first = &said[..said.len().min(FIRST_BYTES)];
    let asked = (!first.is_empty()).then(|| first.escape_ascii().to_string());
    Wanted { protocol: "tcp", name: None, asked }
}

fn method(said: &[u8]) -> Option<&str> {
    const METHODS: [&str; 9] = ["GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "CONNECT", "PROPFIND"];
    let word = said.split(|b| *b == b' ').next().filter(|word| word.len() < said.len())?;
    METHODS.into_iter().find(|method| method.as_bytes() == word)
}

fn head_end(said: &[u8]) -> Option<usize> {
    said.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

/// Bytes of the body that have not come yet.
fn body_left(said: &[u8]) -> usize {
    let Some(end) = head_end(said) else { return 0 };
    let length = header(&String::from_utf8_lossy(&said[..end]), "content-length").and_then(|v| v.parse().ok());
    length.unwrap_or(0_usize).saturating_sub(said.len() - end).min(BODY)
}

/// The server name in a TLS greeting (RFC 8446, 4.1.2; RFC 6066, 3).
fn server_name(record: &[u8]) -> Option<String> {
    let mut hello = Bytes(record.get(5..)?);
    hello.take(4)?; // type and length of the handshake message
    hello.take(2 + 32)?; // version, random
    let session = hello.number(1)?;
    hello.take(session)?;
    let ciphers = hello.number(2)?;
    hello.take(ciphers)?;
    let compressions = hello.number(1)?;
    hello.take(compressions)?;
    let length = hello.number(2)?;
    let mut extensions = Bytes(hello.take(length)?);
    loop {
        let kind = extensions.number(2)?;
        let length = extensions.number(2)?;
        let mut content = Bytes(extensions.take(length)?);
        if kind == 0 {
            content.take(3)?; // length of the list, kind of the name
            let length = content.number(2)?;
            let name = std::str::from_utf8(content.take(length)?).ok()?;
            return Some(name.chars().filter(|c| !c.is_control()).take(253).collect());
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(name: &'static str) -> Vec<u8> {
        let roots = rustls::RootCertStore::empty();
        let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client =
            rustls::ClientConnection::new(config.into(), name.try_into().expect("a name")).expect("client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        bytes
    }

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        let tls = greeting("shop.example.com");
        assert!(is_complete(&tls) && !is_complete(&tls[..tls.len() - 1]));
        let found = wanted(&tls);
        assert_eq!((found.protocol, found.asked.as_deref()), ("tls", Some("shop.example.com")));
        let http = b"POST /hook?x=1 HTTP/1.1\r\nHost: hooks.example.com:8080\r\nContent-Length: 9\r\n\r\n{}";
        assert_eq!(body_left(http), 7);
        let found = wanted(http);
        assert_eq!(found.asked.as_deref(), Some("POST http://hooks.example.com:8080/hook?x=1"));
        assert_eq!(found.name.as_deref(), Some("hooks.example.com"));
        assert_eq!(wanted(b"GET / HTTP/1.1\r\nHost: [2001:db8::80]\r\n\r\n").name, None);
        let found = wanted(b"*1\r\n$4\r\nPING\r\n");
        assert_eq!((found.protocol, found.asked.as_deref()), ("tcp", Some("*1\\r\\n$4\\r\\nPING\\r\\n")));
    }

    #[test]
    fn a_cut_off_greeting_has_no_name_and_does_no_harm() {
        let tls = greeting("shop.example.com");
        for length in 0..tls.len() {
            let _ = wanted(&tls[..length]);
        }
        assert_eq!(server_name(&tls[..60]), None);
    }
}
