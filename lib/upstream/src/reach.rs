//! How near an address is to this host. What a registry answers leads nobody nearer than the registry is itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From the farthest to the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Reach {
    /// Anywhere on the internet.
    Public = 0,
    /// A network of one's own (RFC 1918, RFC 4193, RFC 6598).
    Private = 1,
    /// This host.
    Loopback = 2,
    /// This link, where clouds keep their metadata and their credentials.
    LinkLocal = 3,
}

impl Reach {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [first, second, ..] = address.octets();
        let shared = first == 100 && (64..128).contains(&second);
        match () {
            // Anything that is no host's address, such as 0.0.0.0, which is this host too, is as bad as the nearest.
            () if address.is_link_local() || address.is_multicast() || address.is_broadcast() => {
                Self::LinkLocal
            }
            () if METADATA_V4.contains(&address) || first == 0 || first >= 240 => Self::LinkLocal,
            () if address.is_loopback() => Self::Loopback,
            () if address.is_private() || shared => Self::Private,
            () => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let segments = address.segments();
        if let Some(inner) = embedded(address) {
            return Self::of_v4(inner);
        }
        match () {
            () if address.is_loopback() => Self::Loopback,
            () if address.is_unspecified() || address.is_multicast() => Self::LinkLocal,
            () if segments[0] & 0xffc0 == 0xfe80 || address == METADATA_V6 => Self::LinkLocal,
            () if segments[0] & 0xfe00 == 0xfc00 || segments[0] & 0xffc0 == 0xfec0 => Self::Private,
            () => Self::Public,
        }
    }

    pub(crate) fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Private,
            2 => Self::Loopback,
            3 => Self::LinkLocal,
            _ => Self::Public,
        }
    }
}

/// The address of version 4 that one of version 6 stands for: mapped, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let four = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(four(high, low)),
        [0x2002, high, low, ..] => Some(four(high, low)),
        _ => None,
    }
}

/// Where clouds answer outside of 169.254.0.0/16: Alibaba, Azure's wire server.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// Amazon's.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_near_as_their_networks() {
        for (address, reach) in [
            ("8.8.8.8", Reach::Public),
            ("2001:4860:4860::8888", Reach::Public),
            ("10.1.2.3", Reach::Private),
            ("172.16.0.1", Reach::Private),
            ("192.168.1.1", Reach::Private),
            ("100.64.0.1", Reach::Private),
            ("fd12::1", Reach::Private),
            ("127.0.0.1", Reach::Loopback),
            ("127.9.9.9", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::Loopback),
            ("64:ff9b::7f00:1", Reach::Loopback),
            ("169.254.169.254", Reach::LinkLocal),
            ("::ffff:169.254.169.254", Reach::LinkLocal),
            ("2002:a9fe:a9fe::1", Reach::LinkLocal),
            ("fe80::1", Reach::LinkLocal),
            ("fd00:ec2::254", Reach::LinkLocal),
            ("100.100.100.200", Reach::LinkLocal),
            ("0.0.0.0", Reach::LinkLocal),
            ("::", Reach::LinkLocal),
            ("224.0.0.1", Reach::LinkLocal),
            ("255.255.255.255", Reach::LinkLocal),
        ] {
            assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
        }
    }
}
