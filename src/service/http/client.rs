//! Who is at the other end: the peer, or, where that is a proxy that the configuration names, whom it speaks for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;

use crate::config::Network;

/// The other end of a connection; put into every request by the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whether TLS is spoken here.
    pub(crate) tls: bool,
}

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// Whether it came by TLS, to here or to the proxy.
    pub(crate) secure: bool,
}

impl Client {
    /// What peer and headers say. Of `X-Forwarded-For` the last address counts that is not itself a trusted proxy:
    /// what stands before it, anybody may have written.
    pub(crate) fn of(peer: Peer, headers: &HeaderMap, trusted: &[Network]) -> Self {
        let is_proxy = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
        let direct = peer.address.ip().to_canonical();
        if !is_proxy(direct) {
            return Self { address: direct, secure: peer.tls };
        }
        let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let chain: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
        let addresses = chain.iter().rev().map_while(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical());
        let mut address = direct;
        for hop in addresses {
            address = hop;
            if !is_proxy(hop) {
                break;
            }
        }
        let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        Self { address, secure: peer.tls || proto.is_some_and(|p| p.eq_ignore_ascii_case("https")) }
    }

    /// What is counted for limits: an IPv4 address, or the network that an IPv6 client chooses its addresses from.
    pub(crate) fn bucket(&self) -> IpAddr {
        match self.address {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
            v4 => v4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().expect("a value"));
        }
        let trusted: Vec<Network> = trusted.iter().map(|n| Network::parse(n).expect("a network")).collect();
        let peer = Peer { address: peer.parse().expect("an address"), tls: false };
        Client::of(peer, &headers, &trusted).address.to_string()
    }

    #[test]
    fn only_a_trusted_proxy_may_speak_for_others() {
        assert_eq!(client("203.0.113.5:1", &["10.9.9.9"], &[]), "203.0.113.5");
        assert_eq!(client("203.0.113.5:1", &["10.9.9.9"], &["10.0.0.0/8"]), "203.0.113.5");
        assert_eq!(client("10.0.0.1:1", &["198.51.100.7"], &["10.0.0.0/8"]), "198.51.100.7");
        // Forged entries stand in front; the proxy appends what it saw.
        assert_eq!(client("10.0.0.1:1", &["1.1.1.1, 198.51.100.7"], &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1:1", &["1.1.1.1", "198.51.100.7, 10.0.0.9"], &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1:1", &["nonsense"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1:1", &["1.1.1.1, nonsense, 10.0.0.9"], &["10.0.0.0/8"]), "10.0.0.9");
        assert_eq!(client("[::ffff:10.0.0.1]:1", &["198.51.100.7"], &["10.0.0.0/8"]), "198.51.100.7");
    }

    #[test]
    fn neighbours_in_one_ipv6_network_share_a_limit() {
        let of = |text: &str| Client { address: text.parse().expect("an address"), secure: false }.bucket();
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
