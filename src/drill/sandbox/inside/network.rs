//! The sandbox's network: a loopback interface to which *every* address leads. Whoever connects to an address
//! of the world reaches the sinkhole, or nobody; there is no other interface.
//!
//! Two netlink messages (`ip link set lo up`, `ip route add local default dev lo`), written by hand: they need
//! neither a program of the host nor a library.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const REQUEST_AND_ACKNOWLEDGE: u16 = 0x1 | 0x4;
const CREATE: u16 = 0x400 | 0x200;
const INET: u8 = 2;
const INET6: u8 = 10;
/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;
const UP: u32 = 1;
const TABLE_LOCAL: u8 = 255;
const PROTOCOL_BOOT: u8 = 3;
const SCOPE_HOST: u8 = 254;
const TYPE_LOCAL: u8 = 2;
const ATTRIBUTE_OUTPUT_INTERFACE: u16 = 4;

/// Brings the loopback interface up and makes every address its own.
pub(in crate::drill::sandbox) fn up() -> Result<(), Errno> {
    let mut link = vec![0, 0, 0, 0];
    link.extend(LOOPBACK.to_ne_bytes());
    link.extend(UP.to_ne_bytes());
    link.extend(UP.to_ne_bytes());
    ask(RTM_NEWLINK, REQUEST_AND_ACKNOWLEDGE, &link)?;
    ask(RTM_NEWROUTE, REQUEST_AND_ACKNOWLEDGE | CREATE, &everything_is_local(INET))?;
    match ask(RTM_NEWROUTE, REQUEST_AND_ACKNOWLEDGE | CREATE, &everything_is_local(INET6)) {
        // A kernel without IPv6 has no way out by IPv6 either; without the route it leads nowhere.
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EACCES | Errno::ENODEV) => Ok(()),
        Err(e) => Err(e),
    }
}

fn everything_is_local(family: u8) -> Vec<u8> {
    let mut route = vec![family, 0, 0, 0, TABLE_LOCAL, PROTOCOL_BOOT, SCOPE_HOST, TYPE_LOCAL];
    route.extend(0_u32.to_ne_bytes());
    route.extend(8_u16.to_ne_bytes());
    route.extend(ATTRIBUTE_OUTPUT_INTERFACE.to_ne_bytes());
    route.extend(LOOPBACK.to_ne_bytes());
    route
}

/// Sends one request and reads the kernel's answer.
fn ask(kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let length = u32::try_from(16 + body.len()).expect("a short message");
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    sendto(netlink.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let read = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match answer.get(..read) {
        // Header of 16 bytes, then the negated error number.
        Some([_, _, _, _, k0, k1, _, _, _, _, _, _, _, _, _, _, e0, e1, e2, e3, ..])
            if u16::from_ne_bytes([*k0, *k1]) == NLMSG_ERROR =>
        {
            match i32::from_ne_bytes([*e0, *e1, *e2, *e3]) {
                0 => Ok(()),
                number => Err(Errno::from_raw(-number)),
            }
        }
        _ => Err(Errno::EPROTO),
    }
}
