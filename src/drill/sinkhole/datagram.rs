//! UDP: each datagram with the address that it was sent to, and answers that come from that address. The address
//! travels beside the datagram (`IP_PKTINFO`), because one socket receives what was sent to all of them.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// One datagram.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) content: Vec<u8>,
    pub(super) from: SocketAddr,
    /// The address that it was sent to.
    pub(super) to: SocketAddr,
}

/// Makes the socket tell where datagrams were sent to.
pub(super) fn prepare(socket: &impl AsFd, is_v4: bool) -> io::Result<()> {
    match is_v4 {
        true => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
        false => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
}

pub(super) async fn receive(socket: &UdpSocket) -> io::Result<Datagram> {
    let port = socket.local_addr()?.port();
    socket
        .async_io(Interest::READABLE, || {
            let mut buffer = [0; 4096];
            let mut control = nix::cmsg_space!(in6_pktinfo, in_pktinfo);
            let (length, from, to) = {
                let mut parts = [IoSliceMut::new(&mut buffer)];
                let message = recvmsg::<SockaddrStorage>(
                    socket.as_raw_fd(),
                    &mut parts,
                    Some(&mut control),
                    MsgFlags::MSG_DONTWAIT,
                )?;
                let from = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
                let to = message.cmsgs()?.find_map(|control| match control {
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        Some(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())))
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
                    }
                    _ => None,
                });
                (message.bytes, from, to.ok_or(io::ErrorKind::InvalidData)?)
            };
            Ok(Datagram { content: buffer[..length].to_vec(), from, to: SocketAddr::new(to, port) })
        })
        .await
}

/// Answers a datagram, from the address that it was sent to.
pub(super) async fn answer(socket: &UdpSocket, question: &Datagram, content: &[u8]) -> io::Result<()> {
    let to = SockaddrStorage::from(question.from);
    socket
        .async_io(Interest::WRITABLE, || {
            let parts = [IoSlice::new(content)];
            let (v4, v6);
            let control = match question.to.ip() {
                IpAddr::V4(ip) => {
                    let source = in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                    v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: source };
                    ControlMessage::Ipv4PacketInfo(&v4)
                }
                IpAddr::V6(ip) => {
                    v6 = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                    ControlMessage::Ipv6PacketInfo(&v6)
                }
            };
            sendmsg(socket.as_raw_fd(), &parts, &[control], MsgFlags::MSG_DONTWAIT, Some(&to))?;
            Ok(())
        })
        .await
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::new(IpAddr::V4(v4.ip()), v4.port())),
        (_, Some(v6)) => Some(SocketAddr::new(IpAddr::V6(v6.ip()), v6.port())),
        _ => None,
    }
}
