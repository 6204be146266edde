//! Binds every port and hands each connection and datagram to who understands it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_ipv6_v6only;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::caller::Sockets;
use super::dns::Question;
use super::note::Notes;
use super::watch::{Listened, Watch};
use super::{datagram, guess, smtp};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::runtime::Runtime;

/// Connections at a time; further ones wait, as at a busy server.
const AT_A_TIME: usize = 256;
/// Longest life of one connection.
const LIFE: Duration = Duration::from_secs(120);

/// Ports that are listened on, by what is spoken there. Port 0 takes any free one, for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// DNS, over UDP and TCP.
    pub dns: Vec<u16>,
    /// SMTP: the server speaks first.
    pub smtp: Vec<u16>,
    /// TCP where the client speaks first: HTTP, TLS and whatever else is recognised by its first bytes.
    pub other: Vec<u16>,
    /// UDP of which only the first bytes are kept.
    pub udp: Vec<u16>,
}

impl Default for Ports {
    /// What business software and its add-ons are known to use. 1025 is the port of Odoo's own dummy mail server.
    fn default() -> Self {
        Self {
            dns: vec![53],
            smtp: vec![25, 587, 1025, 2525],
            other: vec![
                21, 22, 23, 80, 110, 143, 389, 443, 445, 465, 515, 631, 636, 853, 873, 990, 993, 995, 1433, 1521, 1883,
                2049, 2375, 2376, 3000, 3001, 3128, 3268, 3306, 3389, 4443, 5000, 5060, 5222, 5432, 5433, 5671, 5672,
                5900, 5984, 6379, 6380, 6432, 6443, 8000, 8008, 8025, 8080, 8081, 8086, 8088, 8443, 8883, 8888, 9000,
                9090, 9092, 9093, 9100, 9200, 9443, 10000, 11211, 15672, 26379, 27017,
            ],
            udp: vec![69, 123, 161, 162, 443, 514, 1812, 1900, 4739, 5060, 5353, 8089, 8125, 12201],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Dns,
    Smtp,
    Other,
}

/// Bound sockets, and the log that they write to.
#[derive(Debug)]
pub struct Sinkhole {
    tcp: Vec<(TcpListener, Role)>,
    udp: Vec<(UdpSocket, Role)>,
    watch: Option<Watch>,
    notes: Arc<Notes>,
}

impl Sinkhole {
    /// Binds `ports` on every address of the sealed network, and watches it for attempts on other ports; attempts
    /// are written to `log`.
    ///
    /// # Errors
    /// Internal, where a port is taken, packets cannot be watched or the log cannot be opened.
    pub fn bind(ports: &Ports, log: &Path, runtime: Runtime) -> Result<Self> {
        Self::bind_into(ports, open(log)?, runtime)
    }

    /// The same, where the log is open already.
    ///
    /// # Errors
    /// As [`Sinkhole::bind`].
    pub fn bind_into(ports: &Ports, log: File, runtime: Runtime) -> Result<Self> {
        let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let watch = Watch::open().or_err(ErrorKind::Internal, || {
            "the sinkhole cannot watch the sandbox's network, so attempts could go unseen".to_owned()
        })?;
        let bound = Self::bind_each(&everywhere, ports, log, runtime)?;
        Ok(Self { watch: Some(watch), ..bound })
    }

    /// Binds `ports` on these addresses only, and watches nothing else.
    ///
    /// # Errors
    /// As [`Sinkhole::bind`].
    pub fn bind_at(addresses: &[IpAddr], ports: &Ports, log: &Path, runtime: Runtime) -> Result<Self> {
        Self::bind_each(addresses, ports, open(log)?, runtime)
    }

    fn bind_each(addresses: &[IpAddr], ports: &Ports, log: File, runtime: Runtime) -> Result<Self> {
        let notes = Arc::new(Notes::new(log, runtime));
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        let by_role = |dns, rest: &[(Role, &'_ [u16])]| -> Vec<(Role, u16)> {
            let all = std::iter::once((Role::Dns, dns)).chain(rest.iter().copied());
            all.flat_map(|(role, ports): (Role, &[u16])| ports.iter().map(move |port| (role, *port))).collect()
        };
        for (number, address) in addresses.iter().enumerate() {
            let failed = |what, port, e: io::Error| {
                error::internal(format!("the sinkhole cannot listen on {what} port {port} of {address}")).source(e)
            };
            for (role, port) in by_role(&ports.dns, &[(Role::Smtp, &ports.smtp), (Role::Other, &ports.other)]) {
                match tcp_listener(SocketAddr::new(*address, port)) {
                    Ok(listener) => tcp.push((listener, role)),
                    // A host without IPv6 sends nothing over it.
                    Err(e) if number > 0 && is_unsupported(&e) => break,
                    Err(e) => return Err(failed("TCP", port, e)),
                }
            }
            for (role, port) in by_role(&ports.dns, &[(Role::Other, &ports.udp)]) {
                match udp_socket(SocketAddr::new(*address, port)) {
                    Ok(socket) => udp.push((socket, role)),
                    Err(e) if number > 0 && is_unsupported(&e) => break,
                    Err(e) => return Err(failed("UDP", port, e)),
                }
            }
        }
        Ok(Self { tcp, udp, watch: None, notes })
    }

    /// Addresses of the bound TCP sockets, in the order of [`Ports`].
    pub fn tcp(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect()
    }

    /// Addresses of the bound UDP sockets.
    pub fn udp(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|(socket, _)| socket.local_addr().ok()).collect()
    }

    /// Takes whatever comes, until the future is dropped.
    ///
    /// # Errors
    /// Internal, where a socket breaks: attempts would go unseen.
    pub async fn serve(self) -> Result<()> {
        let at_a_time = Arc::new(Semaphore::new(AT_A_TIME));
        let mut tasks = JoinSet::new();
        if let Some(watch) = self.watch {
            let port = |address: io::Result<SocketAddr>| address.map(|a| a.port()).ok();
            let listened = Listened {
                tcp: self.tcp.iter().filter_map(|(socket, _)| port(socket.local_addr())).collect(),
                udp: self.udp.iter().filter_map(|(socket, _)| port(socket.local_addr())).collect(),
            };
            let notes = self.notes.clone();
            tasks.spawn(async move { watch.watch(listened, &notes).await });
        }
        for (listener, role) in self.tcp {
            tasks.spawn(accept(listener, role, self.notes.clone(), at_a_time.clone()));
        }
        for (socket, role) in self.udp {
            tasks.spawn(datagrams(socket, role, self.notes.clone()));
        }
        match tasks.join_next().await {
            Some(ended) => ended
                .or_err(ErrorKind::Internal, || "a listener of the sinkhole ended".to_owned())?
                .or_err(ErrorKind::Internal, || "a socket of the sinkhole broke".to_owned()),
            None => Ok(()),
        }
    }
}

fn open(log: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(log);
    file.or_err(ErrorKind::Internal, || format!("cannot open {}", log.display()))
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        // IPv4 has sockets of its own.
        set_ipv6_v6only(&socket, true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(128)
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    datagram::prepare(&socket, address.is_ipv4())?;
    bind(&socket, &address)?;
    UdpSocket::from_std(std::net::UdpSocket::from(socket))
}

fn is_unsupported(e: &io::Error) -> bool {
    // EAFNOSUPPORT, EADDRNOTAVAIL
    matches!(e.raw_os_error(), Some(97 | 99))
}

async fn accept(listener: TcpListener, role: Role, notes: Arc<Notes>, at_a_time: Arc<Semaphore>) -> io::Result<()> {
    loop {
        let permit = at_a_time.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            // The client was gone before it was accepted, or too many files are open: both pass.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let notes = notes.clone();
        tokio::spawn(async move {
            let _ = timeout(LIFE, connection(stream, from, role, &notes)).await;
            drop(permit);
        });
    }
}

async fn connection(mut stream: TcpStream, from: SocketAddr, role: Role, notes: &Notes) -> io::Result<()> {
    let to = stream.local_addr()?;
    let begun = notes.begin(Sockets::Tcp, from, to).await;
    match role {
        Role::Smtp => smtp::converse(stream, |asked| notes.note(&begun, Some("smtp"), None, Some(asked))).await,
        Role::Other => guess::listen(stream, |w| notes.note(&begun, Some(w.protocol), w.name, w.asked)).await,
        Role::Dns => loop {
            let length = stream.read_u16().await?;
            let mut packet = vec![0; usize::from(length)];
            stream.read_exact(&mut packet).await?;
            let Some(answer) = resolve(&packet, &begun, notes) else { return Ok(()) };
            stream.write_u16(u16::try_from(answer.len()).unwrap_or(0)).await?;
            stream.write_all(&answer).await?;
        },
    }
}

async fn datagrams(socket: UdpSocket, role: Role, notes: Arc<Notes>) -> io::Result<()> {
    loop {
        // A port that became unreachable for an answer is reported here, and is nothing to us.
        let Ok(datagram) = datagram::receive(&socket).await else { continue };
        let begun = notes.begin(Sockets::Udp, datagram.from, datagram.to).await;
        if role == Role::Dns {
            if let Some(answer) = resolve(&datagram.content, &begun, &notes) {
                let _ = datagram::answer(&socket, &datagram, &answer).await;
            }
        } else {
            let first = &datagram.content[..datagram.content.len().min(60)];
            notes.note(&begun, None, None, Some(first.escape_ascii().to_string()));
        }
    }
}

/// The answer to a question for a name; notes it before.
fn resolve(packet: &[u8], begun: &super::note::Begun, notes: &Notes) -> Option<Vec<u8>> {
    let question = Question::read(packet)?;
    notes.note(begun, Some("dns"), Some(question.name.clone()), Some(question.in_words()));
    let address = question.wants_address().then(|| notes.stand_in(&question.name));
    Some(question.answer(packet, address))
}
