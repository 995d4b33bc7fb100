//! Which addresses are believed: those that a node of this cluster could have, whoever names them.
//!
//! Everything that is dialled passes [`Belief::dialable`], wherever it was heard. A certificate proves who answers, but
//! not that it was wise to knock: a hostile record must not make a node knock at its own loopback services, at a cloud's
//! metadata address, or at a name that somebody else resolves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde::Deserialize;

/// An IP network: `10.0.0.0/8`, `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

/// A text is no IP network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IP network: write it as 10.0.0.0/8 or fd00::/8")]
pub struct NetworkError(String);

/// What a node believes of addresses.
#[derive(Clone, Debug)]
pub(crate) struct Belief {
    networks: Vec<Network>,
    loopback: bool,
}

/// The most addresses of one node that are kept; a host with more has most of them for other purposes.
pub(crate) const MAX_ADDRESSES: usize = 4;

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let (base, address, width) = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                (u128::from(base.to_bits()), u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        (base ^ address).checked_shr(u32::from(width - self.prefix)).unwrap_or(0) == 0
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError(text.chars().take(64).collect());
        let (base, prefix) = text.split_once('/').ok_or_else(error)?;
        let base: IpAddr = base.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        if prefix > if base.is_ipv4() { 32 } else { 128 } {
            return Err(error());
        }
        Ok(Self { base, prefix })
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Belief {
    /// What a node believes that listens at `own`: `networks` if there are any, else every address that a host can have.
    /// Loopback belongs to it only where the node itself is there.
    pub(crate) fn new(own: IpAddr, networks: Vec<Network>) -> Self {
        Self { networks, loopback: own.is_loopback() }
    }

    /// Whether a node may be there.
    pub(crate) fn is_plausible(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        if address.port() == 0 || !is_a_hosts(ip) {
            return false;
        }
        if ip.is_loopback() {
            return self.loopback;
        }
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(ip))
    }

    /// The address that is dialled, if it is one: an IP and a TCP port, plausible, and nothing else but whose it is.
    pub(crate) fn dialable(&self, address: &Multiaddr) -> Option<SocketAddr> {
        socket_address(address).filter(|address| self.is_plausible(*address))
    }

    /// The first few plausible ones.
    pub(crate) fn plausible(&self, addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        let mut kept: Vec<SocketAddr> = Vec::new();
        for address in addresses.into_iter().take(MAX_NAMED) {
            if kept.len() < MAX_ADDRESSES && self.is_plausible(address) && !kept.contains(&address) {
                kept.push(address);
            }
        }
        kept
    }

    /// The same of what libp2p says.
    pub(crate) fn plausible_of<'a>(
        &self,
        addresses: impl IntoIterator<Item = &'a Multiaddr>,
    ) -> Vec<SocketAddr> {
        self.plausible(addresses.into_iter().filter_map(socket_address))
    }
}

/// The most addresses of one node that are looked at.
const MAX_NAMED: usize = 32;

/// `/ip4|ip6/…/tcp/…`, with or without the name of the node at its end.
pub(crate) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else { return None };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some((ip, port).into()),
        _ => None,
    }
}

/// As libp2p writes it.
pub(crate) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// One host's own: no group, no broadcast, nothing that means "none" or "here on this link" (169.254.169.254 is where
/// clouds hand out credentials).
fn is_a_hosts(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_link_local())
                && ip.octets()[0] != 0
                && ip < Ipv4Addr::new(240, 0, 0, 0)
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || is_link_local(ip)),
    }
}

fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn belief(own: &str, networks: &[&str]) -> Belief {
        Belief::new(own.parse().unwrap(), networks.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_on_a_network_believes_hosts_and_nothing_that_is_none() {
        let belief = belief("10.0.0.1", &[]);
        for good in ["10.1.2.3:1", "192.168.0.9:16003", "198.51.100.7:1", "[fd00::1]:1", "[2001:db8::1]:9"] {
            assert!(belief.is_plausible(at(good)), "{good}");
        }
        for bad in [
            "127.0.0.1:6379",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "[::]:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "255.255.255.255:80",
            "250.0.0.1:80",
            "10.1.2.3:0",
        ] {
            assert!(!belief.is_plausible(at(bad)), "{bad}");
        }
    }

    #[test]
    fn loopback_is_believed_by_who_is_there() {
        assert!(belief("127.0.0.1", &[]).is_plausible(at("127.0.0.1:1")));
        assert!(belief("::1", &[]).is_plausible(at("[::1]:1")));
        assert!(!belief("0.0.0.0", &[]).is_plausible(at("127.0.0.1:1")));
    }

    #[test]
    fn networks_leave_the_rest_out() {
        let belief = belief("10.0.0.1", &["10.0.0.0/8", "fd00:1::/32", "192.0.2.7/32"]);
        for good in ["10.255.0.1:1", "[fd00:1:ffff::1]:1", "192.0.2.7:1", "[::ffff:10.0.0.9]:1"] {
            assert!(belief.is_plausible(at(good)), "{good}");
        }
        for bad in ["11.0.0.1:1", "[fd00:2::1]:1", "192.0.2.8:1", "127.0.0.1:1"] {
            assert!(!belief.is_plausible(at(bad)), "{bad}");
        }
        let all = Network { base: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0 };
        assert!(all.contains("ffff::1".parse().unwrap()) && !all.contains("1.2.3.4".parse().unwrap()));
        for text in ["", "10.0.0.0", "10.0.0.0/33", "::/129", "a/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_an_ip_and_a_tcp_port_are_dialled() {
        let belief = belief("10.0.0.1", &[]);
        let peer = "12D3KooW9pNAk8aiBuGVQtWRdbkLmo5qVL3e2h5UxbN2Nz9ttwiw";
        for (text, is_good) in [
            ("/ip4/10.0.0.2/tcp/1".to_owned(), true),
            (format!("/ip4/10.0.0.2/tcp/1/p2p/{peer}"), true),
            (format!("/ip4/10.0.0.2/tcp/1/p2p/{peer}/p2p-circuit"), false),
            ("/ip4/10.0.0.2/udp/1/quic-v1".into(), false),
            ("/dns4/evil.example/tcp/1".into(), false),
            ("/ip4/10.0.0.2".into(), false),
            ("/ip4/10.0.0.2/tcp/1/ws".into(), false),
            ("/unix/run%2Fdocker.sock".into(), false),
        ] {
            let address: Multiaddr = text.parse().unwrap();
            assert_eq!(belief.dialable(&address).is_some(), is_good, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_as_an_address_are_read_or_refused(bytes: Vec<u8>, ip: IpAddr, port: u16) {
            let belief = belief("10.0.0.1", &[]);
            if let Ok(address) = Multiaddr::try_from(bytes) {
                let _ = belief.dialable(&address);
            }
            let named = SocketAddr::from((ip, port));
            prop_assert_eq!(socket_address(&multiaddr(named)), Some(named));
        }

        #[test]
        fn however_many_are_named_few_are_kept(octets in prop::collection::vec(any::<[u8; 4]>(), 0..200)) {
            let belief = belief("10.0.0.1", &[]);
            let kept = belief.plausible(octets.into_iter().map(|ip| SocketAddr::from((ip, 1))));
            prop_assert!(kept.len() <= MAX_ADDRESSES);
            prop_assert!(kept.iter().all(|address| belief.is_plausible(*address)));
        }
    }
}
