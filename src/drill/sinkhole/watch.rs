//! Attempts on ports that nobody listens on: seen as packets on the loopback interface, where they are refused.
//!
//! What has a listener is told by the listener. What stays inside on purpose (a program that connects to another
//! one on 127.0.0.1) is no attempt: somebody is bound to that port of a loopback address.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use tokio::sync::mpsc;

use super::caller::{Sockets, is_bound};
use super::note::Notes;

/// The loopback interface is the first of every network namespace.
const LOOPBACK: usize = 1;
/// Each packet passes twice: once on its way out.
const OUTGOING: u8 = 4;
/// Room for packets that wait to be looked at.
const WAITING: usize = 8 << 20;
/// Milliseconds between two looks whether anybody still wants to know.
const BETWEEN_LOOKS: i64 = 200;
/// Attempts that wait to be noted.
const QUEUE: usize = 1024;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Packets of the loopback interface.
#[derive(Debug)]
pub(super) struct Watch(OwnedFd);

/// Ports that have a listener.
#[derive(Debug, Default)]
pub(super) struct Listened {
    pub(super) tcp: BTreeSet<u16>,
    pub(super) udp: BTreeSet<u16>,
}

/// What a packet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start {
    protocol: u8,
    from: SocketAddr,
    to: SocketAddr,
}

impl Watch {
    /// Opens the socket; it takes the right to see packets, which PID 1 of a sandbox has.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
        setsockopt(&socket, sockopt::RcvBuf, &WAITING)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(BETWEEN_LOOKS))?;
        Ok(Self(socket))
    }

    /// Notes what is tried on other ports than `listened`.
    pub(super) async fn watch(self, listened: Listened, notes: &Notes) -> io::Result<()> {
        let (tell, mut told) = mpsc::channel(QUEUE);
        // A thread of its own: packets that nobody fetches in time are dropped.
        let reader = tokio::task::spawn_blocking(move || self.read(&listened, &tell));
        while let Some(start) = told.recv().await {
            let kind = if start.protocol == TCP { Sockets::Tcp } else { Sockets::Udp };
            if start.to.ip().is_loopback() && start.protocol != ICMP && is_bound(kind, start.to.port()) {
                continue;
            }
            let begun = notes.begin(kind, start.from, start.to).await;
            let echo = (start.protocol == ICMP).then_some("icmp");
            notes.note(&begun, echo, None, None);
        }
        reader.await.map_err(io::Error::other)?
    }

    /// Reads packets until nobody listens to what they begin.
    fn read(&self, listened: &Listened, tell: &mpsc::Sender<Start>) -> io::Result<()> {
        let mut packet = [0; 128];
        while !tell.is_closed() {
            let (length, link) = match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut packet) {
                // Longer packets are cut off to what is looked at.
                Ok((length, link)) => (length.min(packet.len()), link),
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            if !link.is_some_and(|link| link.ifindex() == LOOPBACK && link.pkttype() != OUTGOING) {
                continue;
            }
            if let Some(start) = start(&packet[..length]).filter(|start| !listened.knows(start)) {
                // Whoever listened may be gone; then the loop ends.
                let _ = tell.blocking_send(start);
            }
        }
        Ok(())
    }
}

impl Listened {
    fn knows(&self, start: &Start) -> bool {
        match start.protocol {
            TCP => self.tcp.contains(&start.to.port()),
            // The sinkhole's own answers go to any port.
            UDP => self.udp.contains(&start.to.port()) || self.udp.contains(&start.from.port()),
            _ => false,
        }
    }
}

/// The beginning of a TCP connection, a datagram or an echo request.
fn start(packet: &[u8]) -> Option<Start> {
    let version = packet.first()? >> 4;
    let (protocol, from, to, payload) = match version {
        4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            // Only the first fragment has ports.
            let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff;
            let address = |at: usize| {
                let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::V4(Ipv4Addr::from(octets)))
            };
            let payload = packet.get(header..).filter(|_| header >= 20 && fragment == 0)?;
            (*packet.get(9)?, address(12)?, address(16)?, payload)
        }
        6 => {
            let address = |at: usize| {
                let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(octets)))
            };
            (*packet.get(6)?, address(8)?, address(24)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*payload.get(at)?, *payload.get(at + 1)?]));
    let (protocol, ports) = match protocol {
        // SYN without ACK.
        TCP if payload.get(13)? & 0x12 == 0x02 => (TCP, (port(0)?, port(2)?)),
        UDP => (UDP, (port(0)?, port(2)?)),
        ICMP if *payload.first()? == 8 => (ICMP, (0, 0)),
        ICMP6 if *payload.first()? == 128 => (ICMP, (0, 0)),
        _ => return None,
    };
    Some(Start { protocol, from: SocketAddr::new(from, ports.0), to: SocketAddr::new(to, ports.1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet from 10.0.0.1 to 192.0.2.80.
    fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 192, 0, 2, 80];
        packet.extend_from_slice(payload);
        packet
    }

    fn tcp(flags: u8) -> Vec<u8> {
        packet(TCP, &[0x9c, 0x40, 0xc0, 0xa9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0])
    }

    #[test]
    fn only_beginnings_are_attempts() {
        let begun = start(&tcp(0x02)).expect("a beginning");
        assert_eq!((begun.protocol, begun.to), (TCP, "192.0.2.80:49321".parse().expect("an address")));
        for flags in [0x12, 0x10, 0x04, 0x11] {
            assert_eq!(start(&tcp(flags)), None, "{flags:#x}");
        }
        let echo = packet(ICMP, &[8, 0, 0, 0]);
        assert_eq!(start(&echo).map(|s| s.protocol), Some(ICMP));
        assert_eq!(start(&packet(ICMP, &[3, 3, 0, 0])), None, "a refusal is no attempt");
        for length in 0..20 {
            assert_eq!(start(&echo[..length]), None, "{length}");
        }
        let mut fragment = tcp(0x02);
        fragment[7] = 4;
        assert_eq!(start(&fragment), None);
    }

    #[test]
    fn what_has_a_listener_is_told_by_the_listener() {
        let listened = Listened { tcp: [49321].into(), udp: [53].into() };
        assert!(listened.knows(&start(&tcp(0x02)).expect("a beginning")));
        let datagram = |from: u16, to: u16| {
            let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
            start(&packet(UDP, &[&ports[..], &[0, 8, 0, 0]].concat())).expect("a datagram")
        };
        assert!(listened.knows(&datagram(40000, 53)) && listened.knows(&datagram(53, 40000)));
        assert!(!listened.knows(&datagram(40000, 514)));
    }
}
