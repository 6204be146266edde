//! Sockets: Unix or TCP, plain or TLS, opened as the DSN says, host after host.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{TlsTrust, client_config, server_end_point};
use crate::error::{self, Error, Result};

/// One open session's byte stream.
#[derive(Debug)]
pub(super) enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Whether a password may cross it in the clear.
    pub(super) fn is_private(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The channel binding of a TLS session, where its certificate allows one.
    pub(super) fn server_end_point(&self) -> Option<Vec<u8>> {
        let Self::Tls(stream) = self else { return None };
        server_end_point(stream.get_ref().1.peer_certificates()?.first()?)
    }
}

/// One place where a server may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Where to connect.
    host: Host,
    /// The name that a certificate must carry.
    name: Option<String>,
    port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Host::Tcp(host) => write!(f, "{}:{}", self.name.as_ref().unwrap_or(host), self.port),
            Host::Unix(dir) => write!(f, "{}", dir.join(format!(".s.PGSQL.{}", self.port)).display()),
        }
    }
}

/// The places that a DSN names, in its order; `hostaddr` decides where to connect, `host` what to verify.
pub(super) fn addresses(dsn: &Config) -> Result<Vec<Address>> {
    let (hosts, numeric, ports) = (dsn.get_hosts(), dsn.get_hostaddrs(), dsn.get_ports());
    let count = hosts.len().max(numeric.len());
    if count == 0 {
        return Err(error::config("the PostgreSQL DSN names no host")
            .hint("give host=/run/postgresql for the local socket, or host=NAME"));
    }
    if !hosts.is_empty() && !numeric.is_empty() && hosts.len() != numeric.len() {
        return Err(error::config("the PostgreSQL DSN has as many hostaddr as host, or none of one of them"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(error::config("the PostgreSQL DSN has one port, or one for each host"));
    }
    let address = |i: usize| {
        let name = match hosts.get(i) {
            Some(Host::Tcp(name)) => Some(name.clone()),
            _ => numeric.get(i).map(ToString::to_string),
        };
        let host = match numeric.get(i) {
            Some(ip) => Host::Tcp(ip.to_string()),
            None => hosts[i].clone(),
        };
        Address { host, name, port: ports.get(i).or(ports.first()).copied().unwrap_or(5432) }
    };
    Ok((0..count).map(address).collect())
}

/// The time that one connection attempt may take, TLS and login included.
pub(crate) fn connect_timeout(dsn: &Config) -> Duration {
    dsn.get_connect_timeout().copied().unwrap_or(Duration::from_secs(10))
}

/// The error for a server that cannot be reached.
pub(crate) fn unreachable(
    place: &impl std::fmt::Display,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    error::source(format!("cannot connect to PostgreSQL at {place}"))
        .hint("check that PostgreSQL runs, and host and port of the DSN")
        .source(cause)
}

/// Opens a socket and, where the DSN asks for it and the server offers it, TLS on it.
pub(super) async fn open(address: &Address, dsn: &Config, trust: &TlsTrust) -> Result<Transport> {
    match &address.host {
        Host::Unix(dir) => open_unix(dir, address).await,
        Host::Tcp(host) => {
            let socket = open_tcp(host, address, dsn.get_keepalives()).await?;
            negotiate_tls(socket, address, dsn, trust).await
        }
    }
}

async fn open_unix(dir: &Path, address: &Address) -> Result<Transport> {
    let path = dir.join(format!(".s.PGSQL.{}", address.port));
    UnixStream::connect(path).await.map(Transport::Unix).map_err(|e| unreachable(address, e))
}

async fn open_tcp(host: &str, address: &Address, keepalive: bool) -> Result<TcpStream> {
    let mut failure = io::Error::other("the name has no address");
    for place in lookup_host((host, address.port)).await.map_err(|e| unreachable(address, e))? {
        let connected = async {
            let socket = if place.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_keepalive(keepalive)?;
            let stream = socket.connect(place).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        match connected.await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(unreachable(address, failure))
}

async fn negotiate_tls(mut socket: TcpStream, address: &Address, dsn: &Config, trust: &TlsTrust) -> Result<Transport> {
    let mode = dsn.get_ssl_mode();
    let verified = *trust != TlsTrust::Unverified;
    if mode == SslMode::Disable {
        return match verified {
            false => Ok(Transport::Tcp(socket)),
            true => {
                Err(error::config("the PostgreSQL DSN says sslmode=disable, but its certificate is to be verified"))
            }
        };
    }
    if dsn.get_ssl_negotiation() == SslNegotiation::Postgres {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        socket.write_all(&request).await.map_err(|e| unreachable(address, e))?;
        // Exactly one byte: what else came in the clear must never be taken for the server's word.
        match socket.read_u8().await.map_err(|e| unreachable(address, e))? {
            b'S' => {}
            b'N' if mode == SslMode::Prefer && !verified => return Ok(Transport::Tcp(socket)),
            b'N' => {
                return Err(error::source(format!("PostgreSQL at {address} offers no TLS, but the DSN requires it"))
                    .hint("switch TLS on in PostgreSQL (ssl = on), or say sslmode=prefer or disable in the DSN"));
            }
            _ => {
                return Err(error::source(format!("{address} does not answer like PostgreSQL"))
                    .hint("check host and port of the DSN; a server with no free process answers so, too"));
            }
        }
    }
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
        error::source(format!("cannot set up TLS with PostgreSQL at {address}")).source(cause)
    };
    let name = address.name.clone().unwrap_or_default();
    let name = ServerName::try_from(name).map_err(|e| failed(e.into()))?;
    let connector = TlsConnector::from(Arc::new(client_config(trust)?));
    let stream = connector.connect(name, socket).await.map_err(|e| failed(e.into()))?;
    Ok(Transport::Tls(Box::new(stream)))
}

/// Hands a poll to whichever stream it is.
macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Unix(s) => {
                let $stream = Pin::new(s);
                $call
            }
            Transport::Tcp(s) => {
                let $stream = Pin::new(s);
                $call
            }
            Transport::Tls(s) => {
                let $stream = Pin::new(s.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dsn: &str) -> Result<Vec<String>> {
        let dsn: Config = dsn.parse().expect("a valid DSN");
        Ok(addresses(&dsn)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_host_of_a_dsn_is_tried_with_its_port() {
        assert_eq!(of("host=/run/pg user=x").expect("valid"), ["/run/pg/.s.PGSQL.5432"]);
        assert_eq!(of("host=a,b port=1,2 user=x").expect("valid"), ["a:1", "b:2"]);
        assert_eq!(of("hostaddr=10.0.0.1 port=7 user=x").expect("valid"), ["10.0.0.1:7"]);
        assert!(of("user=x").is_err());
        assert!(of("host=a,b,c port=1,2").is_err());
    }
}
