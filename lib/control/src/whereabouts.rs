//! Where a node says that it is: what is configured, names looked up again and again; else what the host knows of itself.
//!
//! A host may get another address while it runs, and a name another meaning: what the node says follows, without a restart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use shoal_core::PeerAddress;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::message::AnnounceRequest;

/// How an operator says where other nodes reach a port: one `host:port`, or several of them. Nothing: at the addresses of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "OneOrMore")]
pub struct Advertise(Vec<Place>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Address(SocketAddr),
    /// A name in DNS, with all of its addresses, and a port.
    Name(String, u16),
}

/// Looks where the node is for as long as it lives.
#[derive(Debug)]
pub struct Whereabouts {
    current: watch::Receiver<PeerAddress>,
    _task: Option<AbortOnDropHandle<()>>,
}

/// What is no `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not where a node can be: expected an IP or a name, and a port, such as 192.0.2.7:16002")]
pub struct PlaceError(String);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(Place),
    More(Vec<Place>),
}

/// What was found out of a node's places last.
struct Looker {
    places: Vec<(Place, Vec<SocketAddr>)>,
    listens: SocketAddr,
}

/// How often names and the host's own addresses are looked up: half of the usual interval between two announces.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How long a name server may take; what it said before counts until it answers.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

impl Whereabouts {
    /// Of the node `who`, whose addresses do not count, and which listens there. Comes back when names were looked up once.
    pub async fn start(who: PeerAddress, advertise: Advertise, listens: SocketAddr) -> Self {
        let mut looker = Looker::new(advertise, listens);
        let first = PeerAddress { addresses: looker.look().await, ..who };
        let (sender, current) = watch::channel(first);
        let task = looker.may_change().then(|| AbortOnDropHandle::new(tokio::spawn(looker.run(sender))));
        Self { current, _task: task }
    }

    /// Where it is now, and whenever that changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<PeerAddress> {
        self.current.clone()
    }
}

impl Looker {
    fn new(Advertise(places): Advertise, listens: SocketAddr) -> Self {
        Self { places: places.into_iter().map(|place| (place, Vec::new())).collect(), listens }
    }

    fn may_change(&self) -> bool {
        let has_name = self.places.iter().any(|(place, _)| matches!(place, Place::Name(..)));
        has_name || (self.places.is_empty() && self.listens.ip().is_unspecified())
    }

    async fn run(mut self, sender: watch::Sender<PeerAddress>) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let addresses = self.look().await;
            sender.send_if_modified(|known| {
                let is_news = known.addresses != addresses;
                if is_news {
                    tracing::info!(?addresses, before = ?known.addresses, "this node is elsewhere now");
                    known.addresses = addresses;
                }
                is_news
            });
        }
    }

    /// The addresses to name, at least one.
    async fn look(&mut self) -> Vec<SocketAddr> {
        for (place, known) in &mut self.places {
            if let Some(found) = place.look_up().await {
                *known = found;
            }
        }
        let known = self.places.iter().flat_map(|(_, known)| known.iter().copied());
        let named = first_few(known);
        if named.is_empty() { of_host(self.listens, source_address) } else { named }
    }
}

impl Place {
    /// `None` if nobody could say.
    async fn look_up(&self) -> Option<Vec<SocketAddr>> {
        match self {
            Self::Address(address) => Some(vec![*address]),
            Self::Name(host, port) => {
                let found = timeout(LOOK_TIMEOUT, tokio::net::lookup_host((host.as_str(), *port))).await;
                let found: Vec<_> = match found {
                    Ok(Ok(found)) => found.collect(),
                    Ok(Err(error)) => {
                        tracing::warn!(host, %error, "the name under `advertise` cannot be looked up");
                        return None;
                    }
                    Err(_) => {
                        tracing::warn!(host, "no name server answers for the name under `advertise`");
                        return None;
                    }
                };
                (!found.is_empty()).then_some(found)
            }
        }
    }
}

/// What a node names that listens there and was told nothing: an unspecified IP, for which others put the one that they see; and
/// where it listens for both families, its addresses of both, since others see only one.
fn of_host(listens: SocketAddr, source: impl Fn(IpAddr) -> Option<IpAddr>) -> Vec<SocketAddr> {
    let both = match listens.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() => {
            [source(Ipv4Addr::UNSPECIFIED.into()), source(Ipv6Addr::UNSPECIFIED.into())]
        }
        _ => [None, None],
    };
    let own = both.into_iter().flatten().map(|ip| SocketAddr::new(ip, listens.port()));
    first_few([listens].into_iter().chain(own))
}

/// The address from which this host would speak to the world, of the family of `any`. Nothing is sent.
fn source_address(any: IpAddr) -> Option<IpAddr> {
    // Addresses for documentation: no host has one, so the way there is the usual way out.
    let world: IpAddr = match any {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((world, 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    let is_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    (!ip.is_unspecified() && !ip.is_loopback() && !is_local).then_some(ip)
}

/// Each once, and no more than others take.
fn first_few(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut few = Vec::new();
    for address in addresses {
        if few.len() < AnnounceRequest::MAX_ADDRESSES && !few.contains(&address) {
            few.push(address);
        }
    }
    few
}

impl From<OneOrMore> for Advertise {
    fn from(places: OneOrMore) -> Self {
        match places {
            OneOrMore::One(place) => Self(vec![place]),
            OneOrMore::More(places) => Self(places),
        }
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let error = || PlaceError(text.chars().take(300).collect());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(error()) } else { Ok(Self::Address(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port: u16 = port.parse().map_err(|_| error())?;
        let is_name = !host.is_empty()
            && host.len() <= MAX_NAME
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if port == 0 || !is_name { Err(error()) } else { Ok(Self::Name(host.to_owned(), port)) }
    }
}

/// The longest name in DNS.
const MAX_NAME: usize = 253;

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(texts: &[&str]) -> Advertise {
        Advertise(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn one_place_or_several_are_read_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<Advertise>(text);
        assert_eq!(read(r#""192.0.2.7:16002""#).unwrap(), places(&["192.0.2.7:16002"]));
        let both = ["node7.example.org:16002", "[2001:db8::7]:16002"];
        assert_eq!(read(&serde_json::to_string(&both).unwrap()).unwrap(), places(&both));
        for bad in [
            "",
            "node7",
            "node7:",
            "node7:0",
            "192.0.2.7:0",
            ":16002",
            "a b:1",
            "https://node7:1",
            "node7:70000",
        ] {
            let error = bad.parse::<Place>().unwrap_err();
            assert!(error.to_string().contains("such as 192.0.2.7:16002"), "{bad}: {error}");
        }
    }

    #[test]
    fn who_listens_everywhere_names_both_families_and_who_listens_somewhere_that() {
        let source = |any: IpAddr| -> Option<IpAddr> {
            Some(if any.is_ipv4() { "10.0.0.5".parse().unwrap() } else { "2001:db8::5".parse().unwrap() })
        };
        let named = |listens: &str| -> Vec<String> {
            of_host(listens.parse().unwrap(), source).iter().map(ToString::to_string).collect()
        };
        assert_eq!(named("0.0.0.0:1"), ["0.0.0.0:1"]);
        assert_eq!(named("10.0.0.9:1"), ["10.0.0.9:1"]);
        assert_eq!(named("[::]:1"), ["[::]:1", "10.0.0.5:1", "[2001:db8::5]:1"]);
        assert_eq!(of_host("[::]:1".parse().unwrap(), |_| None), ["[::]:1".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_what_was_known_of_it_stays_while_nobody_answers() {
        let listens = "127.0.0.1:1".parse().unwrap();
        let mut looker = Looker::new(places(&["localhost:7", "192.0.2.7:8"]), listens);
        assert!(looker.may_change());
        let named = looker.look().await;
        assert!(named.iter().any(|address| address.ip().is_loopback() && address.port() == 7), "{named:?}");
        assert!(named.contains(&"192.0.2.7:8".parse().unwrap()));
        // The name is gone; what it meant is not.
        looker.places[0].0 = Place::Name("no-such-name.invalid".into(), 7);
        assert_eq!(looker.look().await, named);
        let mut never = Looker::new(places(&["no-such-name.invalid:7"]), listens);
        assert_eq!(never.look().await, [listens], "better than nothing");
    }
}
