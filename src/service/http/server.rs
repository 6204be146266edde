//! The server: connections, each with its limits, until it is stopped.
//!
//! A connection may be opened by anybody, so everything about it is bounded: how many there are, how many of one
//! client, how long a handshake and the head of a request may take, how large a request may be, how long an answer
//! may be made. The workers of the service share nothing with it but the process.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::app::App;
use super::client::Peer;
use super::tls::Certificates;
use crate::config::HttpConfig;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::service::http::router;

/// Connections at once.
const CONNECTIONS: usize = 512;
/// Of one client; a trusted proxy may have all.
const OF_ONE: usize = 64;
/// How long a TLS handshake may take, and the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long requests under way may go on when the service is stopped.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often the files of the certificate are looked at.
const CERTIFICATES: Duration = Duration::from_secs(10);

/// A server that has its address and serves nothing yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    app: Arc<App>,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// Config where the address is taken or not this host's, or where the certificate cannot be used.
    pub(crate) async fn bind(config: &HttpConfig, app: Arc<App>) -> Result<Self> {
        let certificates = config.tls.as_ref().map(Certificates::load).transpose()?;
        let listener = TcpListener::bind(config.listen)
            .await
            .or_err(ErrorKind::Config, || format!("cannot listen on {}", config.listen))?;
        Ok(Self { listener, certificates, app })
    }

    /// The address, with the port that was given where 0 was asked for.
    ///
    /// # Errors
    /// Internal where the system does not tell.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().or_err(ErrorKind::Internal, || "cannot tell the address".to_owned())
    }

    /// Where people find it.
    ///
    /// # Errors
    /// As [`Self::address`].
    pub fn url(&self) -> Result<String> {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}/", self.address()?))
    }

    /// Serves until `stop`; then requests under way get a moment to end.
    pub async fn run(self, stop: CancellationToken) {
        let Self { listener, certificates, app } = self;
        let acceptor = certificates.as_ref().map(|known| TlsAcceptor::from(Arc::new(known.server_config())));
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let guests = Arc::new(Guests::default());
        let router = router(app.clone());
        let open = TaskTracker::new();
        let mut look = tokio::time::interval(CERTIFICATES);
        loop {
            // A place first: who cannot be served waits in the system's queue. Both may be given up and begun again.
            let next = async {
                let place = places.clone().acquire_owned().await.expect("never closed");
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => {
                    if let Some(certificates) = &certificates {
                        certificates.refresh(&app.runtime);
                    }
                    continue;
                }
                next = next => next,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of file descriptors, or the client is gone already: a moment, and on.
                    app.runtime.emit(Event::Warning(format!("a connection was not accepted: {e}")));
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let trusted = app.http().trusted_proxies.iter().any(|proxy| proxy.contains(address.ip()));
            let Some(guest) = guests.enter(address.ip().to_canonical(), trusted) else { continue };
            let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
            open.spawn(async move {
                let _held = (place, guest);
                connection(stream, address, acceptor, router, stop).await;
            });
        }
        drop(listener);
        open.close();
        // Whoever is not done by then is cut off: tasks end with the runtime.
        let _ = tokio::time::timeout(FAREWELL, open.wait()).await;
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let peer = Peer { address, tls: acceptor.is_some() };
    match acceptor {
        None => talk(stream, peer, router, stop).await,
        Some(acceptor) => {
            // A handshake that fails is the client's affair; port scanners would fill any log.
            if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                talk(stream, peer, router, stop).await;
            }
        }
    }
}

async fn talk<S>(stream: S, peer: Peer, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(32)
        .max_header_list_size(32 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(PATIENCE);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Errors of a connection are the client's: gone, or not speaking HTTP.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// How many connections each client has.
#[derive(Debug, Default)]
struct Guests(Mutex<HashMap<IpAddr, usize>>);

/// One connection of a client; gives its place back when it ends.
struct Guest {
    guests: Arc<Guests>,
    address: IpAddr,
}

impl Guests {
    fn enter(self: &Arc<Self>, address: IpAddr, trusted: bool) -> Option<Guest> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = known.entry(address).or_default();
        if *count >= OF_ONE && !trusted {
            return None;
        }
        *count += 1;
        Some(Guest { guests: Arc::clone(self), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut known = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = known.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                known.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_all_places() {
        let guests = Arc::new(Guests::default());
        let one: IpAddr = [192, 0, 2, 1].into();
        let mut held: Vec<Guest> = (0..OF_ONE).map(|_| guests.enter(one, false).expect("a place")).collect();
        assert!(guests.enter(one, false).is_none());
        assert!(guests.enter([192, 0, 2, 2].into(), false).is_some());
        assert!(guests.enter(one, true).is_some(), "a proxy speaks for many");
        held.pop();
        assert!(guests.enter(one, false).is_some());
        drop(held);
        assert!(guests.0.lock().expect("no panic").is_empty());
    }
}
