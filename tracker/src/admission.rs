//! What of an announce is believed: only what the caller's certificate, and the address it calls from, bear out.

use std::net::{IpAddr, SocketAddr};

use shoal_control::ServerUrl;
use shoal_control::message::AnnounceRequest;
use shoal_core::{PeerAddress, Role};
use shoal_identity::Peer;

use crate::refusal::Refusal;
use crate::state::Announce;

/// Checks an announce of `peer`, which calls from `source`.
pub(crate) fn admit(peer: &Peer, source: IpAddr, request: AnnounceRequest<'_>) -> Result<Announce, Refusal> {
    let claimed = request.address.into_owned();
    if claimed.id != peer.id || claimed.role != peer.role {
        let (id, role) = (peer.id, peer.role);
        return Err(Refusal::OtherNode { id, role, claimed_id: claimed.id, claimed_role: claimed.role });
    }
    let changes = request.added.len() + request.removed.len();
    if changes > AnnounceRequest::MAX_CHANGES {
        return Err(Refusal::TooManyChanges(changes));
    }
    if claimed.zone.0.len() > AnnounceRequest::MAX_ZONE_LENGTH {
        let max = AnnounceRequest::MAX_ZONE_LENGTH;
        return Err(Refusal::Address(format!("the zone's name is longer than {max} bytes")));
    }
    Ok(Announce {
        address: PeerAddress { addresses: reachable(&claimed.addresses, source)?, ..claimed },
        api: request.api.map(|api| api_of(peer, &api)).transpose()?,
        added: request.added.into_owned(),
        removed: request.removed.into_owned(),
        everything: request.everything,
    })
}

/// The addresses that others can try: an unspecified IP stands for the one that the node calls from.
fn reachable(claimed: &[SocketAddr], source: IpAddr) -> Result<Vec<SocketAddr>, Refusal> {
    if claimed.is_empty() || claimed.len() > AnnounceRequest::MAX_ADDRESSES {
        let max = AnnounceRequest::MAX_ADDRESSES;
        return Err(Refusal::Address(format!("{} given, 1 to {max} are allowed", claimed.len())));
    }
    let mut addresses = Vec::with_capacity(claimed.len());
    for &address in claimed {
        let ip = if address.ip().is_unspecified() { source.to_canonical() } else { address.ip() };
        if address.port() == 0 || !is_unicast(ip) {
            return Err(Refusal::Address(format!("nobody can connect to {address}")));
        }
        let address = SocketAddr::new(ip, address.port());
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn is_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip.to_canonical(), IpAddr::V4(ip) if ip.is_broadcast());
    let ip = ip.to_canonical();
    !ip.is_multicast() && !ip.is_unspecified() && !broadcast
}

fn api_of(peer: &Peer, api: &str) -> Result<ServerUrl, Refusal> {
    if peer.role != Role::Origin {
        return Err(Refusal::ApiOfAgent(peer.id));
    }
    ServerUrl::parse(api).map_err(|error| Refusal::Address(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;
    use shoal_control::Holding;
    use shoal_core::{Digest, PeerId, Zone};

    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn peer(role: Role) -> Peer {
        Peer { id: PeerId::from_public_key([1; 32]), role, name: "node".to_owned() }
    }

    fn request(peer: &Peer, addresses: &[&str]) -> AnnounceRequest<'static> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let address = PeerAddress { id: peer.id, role: peer.role, addresses, zone: Zone::default() };
        AnnounceRequest {
            address: Cow::Owned(address),
            api: None,
            added: Cow::Borrowed(&[]),
            removed: Cow::Borrowed(&[]),
            everything: false,
            sequence: 0,
        }
    }

    fn addresses(given: &[&str]) -> Result<Vec<String>, Refusal> {
        let peer = peer(Role::Agent);
        let announce = admit(&peer, SOURCE, request(&peer, given))?;
        Ok(announce.address.addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_unspecified_address_is_where_the_node_calls_from() {
        assert_eq!(addresses(&["0.0.0.0:7", "[::]:7", "10.0.0.1:8"]).unwrap(), ["192.0.2.7:7", "10.0.0.1:8"]);
    }

    #[test]
    fn addresses_that_nobody_can_connect_to_are_refused() {
        let bad = ["10.0.0.1:0", "224.0.0.1:7", "[ff02::1]:7", "255.255.255.255:7", "[::ffff:224.0.0.1]:7"];
        for bad in bad {
            assert!(matches!(addresses(&[bad]), Err(Refusal::Address(_))), "{bad} was accepted");
        }
        assert!(matches!(addresses(&[]), Err(Refusal::Address(_))));
        assert!(matches!(addresses(&["10.0.0.1:7"; 9]), Err(Refusal::Address(_))));
    }

    #[test]
    fn only_the_holder_of_the_certificate_is_announced() {
        let (agent, origin) = (peer(Role::Agent), peer(Role::Origin));
        let other = Peer { id: PeerId::from_public_key([2; 32]), ..peer(Role::Agent) };
        for claimed in [&origin, &other] {
            let outcome = admit(&agent, SOURCE, request(claimed, &["10.0.0.1:7"]));
            assert!(matches!(outcome, Err(Refusal::OtherNode { .. })));
        }
    }

    #[test]
    fn only_origins_have_an_api() {
        let with_api = |role, api: &'static str| {
            let peer = peer(role);
            admit(&peer, SOURCE, AnnounceRequest { api: Some(api.into()), ..request(&peer, &["10.0.0.1:7"]) })
        };
        assert!(with_api(Role::Origin, "https://origin:1").unwrap().api.is_some());
        assert!(matches!(with_api(Role::Origin, "http://origin:1"), Err(Refusal::Address(_))));
        assert!(matches!(with_api(Role::Agent, "https://agent:1"), Err(Refusal::ApiOfAgent(_))));
    }

    #[test]
    fn more_changes_than_a_batch_has_are_refused() {
        let peer = peer(Role::Agent);
        let holding = Holding { digest: Digest::sha256(b""), complete: true };
        let added = Cow::Owned(vec![holding; AnnounceRequest::MAX_CHANGES]);
        let removed = Cow::Owned(vec![holding.digest]);
        let request = AnnounceRequest { added, removed, ..request(&peer, &["10.0.0.1:7"]) };
        assert!(matches!(admit(&peer, SOURCE, request), Err(Refusal::TooManyChanges(10_001))));
    }

    proptest! {
        #[test]
        fn whatever_is_handed_out_can_be_connected_to(ips: Vec<IpAddr>, port: u16, source: IpAddr) {
            let claimed: Vec<_> = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
            if let Ok(addresses) = reachable(&claimed, source) {
                prop_assert!((1..=AnnounceRequest::MAX_ADDRESSES).contains(&addresses.len()));
                prop_assert!(addresses.iter().all(|one| one.port() != 0 && is_unicast(one.ip())));
            }
        }
    }
}
