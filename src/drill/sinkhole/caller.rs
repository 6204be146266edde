//! Which process is behind a connection: its socket's inode by `/proc/net`, its owner by `/proc/PID/fd`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::evidence::egress_record::Caller;

/// Longest command line that is kept.
const COMMAND: usize = 200;

/// Tables of one kind of sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sockets {
    Tcp,
    Udp,
}

impl Sockets {
    fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
            Self::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        }
    }
}

/// The process that owns the socket with the local address `socket`, as far as it can be seen.
pub(super) fn caller(kind: Sockets, socket: SocketAddr) -> Option<Caller> {
    let inode = kind.tables().iter().find_map(|table| inode(&std::fs::read_to_string(table).ok()?, socket))?;
    let wanted = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| owns(Path::new(&format!("/proc/{pid}/fd")), &wanted))?;
    Some(Caller { pid, command: command(&std::fs::read(format!("/proc/{pid}/cmdline")).ok()?) })
}

/// Whether anybody inside listens on a TCP port, or is bound to a UDP port.
pub(super) fn is_bound(kind: Sockets, port: u16) -> bool {
    kind.tables().iter().filter_map(|table| std::fs::read_to_string(table).ok()).any(|table| {
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let local = fields.next().and_then(address);
            // State 0A: listening. A datagram socket has no such state.
            let receives = kind == Sockets::Udp || fields.nth(1) == Some("0A");
            receives && local.is_some_and(|local| local.port() == port)
        })
    })
}

fn owns(descriptors: &Path, socket: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(descriptors) else { return false };
    entries.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == socket))
}

/// The inode of the socket in the text of a table.
fn inode(table: &str, socket: SocketAddr) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = address(fields.nth(1)?)?;
        // A datagram socket that is not bound to one address is known by its port.
        let same = local.ip() == socket.ip().to_canonical() || local.ip().is_unspecified();
        let inode: u64 = fields.nth(7)?.parse().ok()?;
        (same && local.port() == socket.port() && inode != 0).then_some(inode)
    })
}

/// `0100007F:1F90`, in the byte order of this machine by groups of four.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let groups: Vec<[u8; 4]> = ip
        .as_bytes()
        .chunks(8)
        .map(|group| u32::from_str_radix(std::str::from_utf8(group).ok()?, 16).ok().map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    let ip = match groups.as_slice() {
        [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
        [_, _, _, _] => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(groups.concat()).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

fn command(cmdline: &[u8]) -> String {
    let words = cmdline.split(|b| *b == 0).filter(|word| !word.is_empty());
    let text: Vec<String> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    text.join(" ").chars().take(COMMAND).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_socket_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let found = caller(Sockets::Tcp, client.local_addr().expect("bound")).expect("found");
        assert_eq!(found.pid, std::process::id());
        assert!(!found.command.is_empty());
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let found = caller(Sockets::Udp, datagram.local_addr().expect("bound")).expect("found");
        assert_eq!(found.pid, std::process::id());
        let port = |address: std::io::Result<SocketAddr>| address.expect("bound").port();
        assert!(is_bound(Sockets::Udp, port(datagram.local_addr())));
        assert!(is_bound(Sockets::Tcp, port(listener.local_addr())));
        assert!(!is_bound(Sockets::Tcp, port(client.local_addr())), "a client listens on nothing");
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn tables_of_the_kernel() {
        assert_eq!(address("0100007F:1F90"), Some("127.0.0.1:8080".parse().expect("an address")));
        assert_eq!(
            address("B80D0120000000000000000080000000:0050"),
            Some("[2001:db8::80]:80".parse().expect("an address"))
        );
        assert_eq!(
            address("0000000000000000FFFF0000500200C0:01BB"),
            Some("192.0.2.80:443".parse().expect("an address")),
            "an IPv4 address in an IPv6 socket"
        );
    }
}
