//! From an address or a caller to a peer that proved who it is and said Hello.
//!
//! The dialler says Hello first. The answer is the other node's decision, taken in `peers`: until it comes there is no
//! connection, so neither side can lose a message to one that is turned down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::pki_types::CertificateDer;
use shoal_core::{PeerAddress, PeerId, Role};
use shoal_identity::{Identity, IdentityError};
use tokio::time::timeout;

use crate::config::Config;
use crate::endpoint::{Caller, Endpoint, ReachError, Reached, Side};
use crate::frames::FrameError;
use crate::link::{Line, Lost, Transport};
use crate::wire::{CloseReason, Frame, Hello, WireError};

/// A peer that proved who it is and said Hello.
#[derive(Debug)]
pub(crate) struct Introduction {
    pub(crate) peer: PeerId,
    pub(crate) role: Role,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) hello: Hello,
    pub(crate) line: Line,
}

/// Who is at the other end, by a certificate that was proved.
struct Known {
    peer: PeerId,
    role: Role,
    certificate: CertificateDer<'static>,
}

/// Makes introductions.
#[derive(Debug)]
pub(crate) struct Greeter {
    endpoint: Endpoint,
    identity: Identity,
    dial_timeout: Duration,
    hello_timeout: Duration,
    fallback_delay: Duration,
}

/// Why there is no introduction.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("peer has no address")]
    NoAddress,
    #[error("{address} does not answer in time")]
    Timeout { address: SocketAddr },
    #[error("no connection with {address}")]
    Connection { address: SocketAddr, source: ReachError },
    #[error("connection with {address} ends before a Hello")]
    Control { address: SocketAddr, source: Lost },
    #[error("{address} shows no certificate")]
    NoCertificate { address: SocketAddr },
    #[error("certificate of {address} is not valid here")]
    Certificate { address: SocketAddr, source: Box<IdentityError> },
    #[error("{found} answers at {address} in place of the peer that was dialled")]
    OtherPeer { address: SocketAddr, found: PeerId },
    #[error("{peer} at {address} is a {role}, and exchanges no pieces")]
    Role { address: SocketAddr, peer: PeerId, role: Role },
    #[error("{address} says no Hello")]
    NoHello { address: SocketAddr, source: FrameError },
}

impl HandshakeError {
    /// Whether this node let somebody go for the certificate that was shown, or for none.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::NoCertificate { .. } | Self::Certificate { .. } | Self::Role { .. } => true,
            Self::Connection { source, .. } => source.is_refusal(),
            _ => false,
        }
    }

    /// Whether the peer is not there, as far as can be told from here: not so where it answered and had no place, or where
    /// one of both does not believe the other.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::OtherPeer { .. } => true,
            Self::Connection { source: ReachError::NotSpoken(_), .. } => false,
            Self::Connection { source, .. } => !source.is_refusal(),
            _ => false,
        }
    }

    /// Where the other end was.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match *self {
            Self::NoAddress => None,
            Self::Timeout { address }
            | Self::Connection { address, .. }
            | Self::Control { address, .. }
            | Self::NoCertificate { address }
            | Self::Certificate { address, .. }
            | Self::OtherPeer { address, .. }
            | Self::Role { address, .. }
            | Self::NoHello { address, .. } => Some(address),
        }
    }

    /// Whether somebody answered: then another transport would find the same.
    fn is_answer(&self) -> bool {
        matches!(self, Self::OtherPeer { .. } | Self::Certificate { .. } | Self::Role { .. })
    }
}

impl Greeter {
    pub(crate) fn new(endpoint: Endpoint, identity: Identity, config: &Config) -> Arc<Self> {
        let &Config { dial_timeout, hello_timeout, fallback_delay, .. } = config;
        Arc::new(Self { endpoint, identity, dial_timeout, hello_timeout, fallback_delay })
    }

    /// Dials the peer's addresses in turn until it answers at one, and exchanges Hellos there. At each address the
    /// transports are tried in that order, the next when one fails or keeps silent for a moment.
    pub(crate) async fn dial(
        &self,
        peer: &PeerAddress,
        transports: &[Transport],
        hello: Hello,
    ) -> Result<Introduction, HandshakeError> {
        let mut failure = HandshakeError::NoAddress;
        for &address in &peer.addresses {
            match self.reach(address, transports, peer.id).await {
                Ok((reached, known)) => return self.introduce(reached, known, hello).await,
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Hears a caller out. It is not answered yet.
    pub(crate) async fn hear(&self, caller: Caller) -> Result<Introduction, HandshakeError> {
        let address = caller.address();
        let late = |_| HandshakeError::Timeout { address };
        let reached = timeout(self.dial_timeout, self.endpoint.secure(caller)).await.map_err(late)?;
        let (reached, known) =
            self.identify(reached.map_err(|source| HandshakeError::Connection { address, source })?)?;
        let line = timeout(self.hello_timeout, reached.into_line(Side::Dialled)).await.map_err(late)?;
        let line = line.map_err(|source| HandshakeError::Control { address, source })?;
        let (line, hello) = self.hear_hello(line).await?;
        Ok(known.said(hello, line))
    }

    /// A connection with the peer, by the first transport that gives one.
    async fn reach(
        &self,
        address: SocketAddr,
        transports: &[Transport],
        wanted: PeerId,
    ) -> Result<(Reached, Known), HandshakeError> {
        let mut next = transports.iter();
        let Some(&first) = next.next() else { return Err(HandshakeError::NoAddress) };
        let mut dials = FuturesUnordered::from_iter([self.try_to_reach(address, first, wanted)]);
        loop {
            let waiting = tokio::time::sleep(self.fallback_delay);
            let failure = tokio::select! {
                Some(dialled) = dials.next() => match dialled {
                    Ok(reached) => return Ok(reached),
                    Err(error) if error.is_answer() => return Err(error),
                    Err(error) => Some(error),
                },
                () = waiting, if !next.as_slice().is_empty() => None,
            };
            match (next.next(), failure) {
                (Some(&transport), _) => dials.push(self.try_to_reach(address, transport, wanted)),
                (None, Some(failure)) if dials.is_empty() => return Err(failure),
                (None, _) => {}
            }
        }
    }

    async fn try_to_reach(
        &self,
        address: SocketAddr,
        transport: Transport,
        wanted: PeerId,
    ) -> Result<(Reached, Known), HandshakeError> {
        let reached = timeout(self.dial_timeout, self.endpoint.dial(transport, address, &wanted))
            .await
            .map_err(|_| HandshakeError::Timeout { address })?
            .map_err(|source| HandshakeError::Connection { address, source })?;
        let (reached, known) = self.identify(reached)?;
        if known.peer != wanted {
            reached.turn_away(CloseReason::Refused);
            return Err(HandshakeError::OtherPeer { address, found: known.peer });
        }
        Ok((reached, known))
    }

    async fn introduce(
        &self,
        reached: Reached,
        known: Known,
        own: Hello,
    ) -> Result<Introduction, HandshakeError> {
        let address = reached.remote_address();
        let line = reached.into_line(Side::Dialler).await;
        let mut line = line.map_err(|source| HandshakeError::Control { address, source })?;
        let said = line.say(&Frame::Hello(own)).await;
        said.map_err(|source| HandshakeError::NoHello { address, source })?;
        let (line, hello) = self.hear_hello(line).await?;
        Ok(known.said(hello, line))
    }

    /// Who is there, by the certificate; closes the connection where it is nobody to exchange pieces with.
    fn identify(&self, reached: Reached) -> Result<(Reached, Known), HandshakeError> {
        let address = reached.remote_address();
        let found =
            reached.certificate().ok_or(HandshakeError::NoCertificate { address }).and_then(|certificate| {
                self.know(certificate)
                    .map_err(|source| HandshakeError::Certificate { address, source: Box::new(source) })
            });
        let refused = match found {
            Ok(Known { peer, role: role @ Role::Tracker, .. }) => {
                HandshakeError::Role { address, peer, role }
            }
            Ok(known) => return Ok((reached, known)),
            Err(error) => error,
        };
        reached.turn_away(CloseReason::Refused);
        Err(refused)
    }

    fn know(&self, certificate: CertificateDer<'static>) -> Result<Known, IdentityError> {
        let peer = self.identity.peer(&certificate)?;
        Ok(Known { peer: peer.id, role: peer.role, certificate })
    }

    async fn hear_hello(&self, mut line: Line) -> Result<(Line, Hello), HandshakeError> {
        let address = line.link().remote_address();
        let refused = match timeout(self.hello_timeout, line.hear()).await {
            Err(_) => HandshakeError::Timeout { address },
            Ok(Ok(Some(Frame::Hello(hello)))) => return Ok((line, hello)),
            Ok(Ok(Some(Frame::Close(reason)))) => {
                return Err(HandshakeError::Control { address, source: Lost::Closed(reason) });
            }
            Ok(Ok(other)) => {
                let error = other.map_or(WireError::Ended, |frame| WireError::OutOfPlace(frame.kind()));
                HandshakeError::NoHello { address, source: error.into() }
            }
            Ok(Err(source)) => HandshakeError::NoHello { address, source },
        };
        line.turn_away(CloseReason::Protocol);
        Err(refused)
    }
}

impl Known {
    fn said(self, hello: Hello, line: Line) -> Introduction {
        let Self { peer, role, certificate } = self;
        Introduction { peer, role, certificate, hello, line }
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::Zone;
    use shoal_identity::{Authority, install_crypto_provider};

    use super::*;
    use crate::config::TransportChoice;
    use crate::path::transports;

    struct Side {
        greeter: Arc<Greeter>,
        endpoint: Endpoint,
        address: PeerAddress,
        transports: &'static [Transport],
    }

    fn side(authority: &Authority, role: Role, transport: TransportChoice) -> Side {
        install_crypto_provider();
        let identity = authority.issue(role, "node").unwrap();
        let config = Config { listen: ([127, 0, 0, 1], 0).into(), transport, ..Config::default() };
        let endpoint = Endpoint::bind(&config, &identity).unwrap();
        let addresses = vec![endpoint.local_address()];
        let address = PeerAddress { id: identity.id(), role, addresses, zone: Zone::default() };
        let greeter = Greeter::new(endpoint.clone(), identity, &config);
        Side { greeter, endpoint, address, transports: transports(transport, true, None) }
    }

    impl Side {
        async fn hear(&self) -> Result<Introduction, HandshakeError> {
            self.greeter.hear(self.endpoint.accept().await.unwrap()).await
        }

        async fn answer(&self) -> Result<Introduction, HandshakeError> {
            let mut heard = self.hear().await?;
            heard.line.say(&Frame::Hello(Hello::new(2, &Zone::default()))).await.unwrap();
            Ok(heard)
        }

        async fn dial(&self, peer: &PeerAddress) -> Result<Introduction, HandshakeError> {
            self.greeter.dial(peer, self.transports, Hello::new(1, &Zone::default())).await
        }
    }

    fn authority() -> Authority {
        Authority::generate("test").unwrap()
    }

    const EACH: [TransportChoice; 2] = [TransportChoice::Quic, TransportChoice::Tcp];

    #[tokio::test]
    async fn both_sides_learn_who_the_other_is() {
        for transport in EACH {
            let authority = authority();
            let (agent, origin) =
                (side(&authority, Role::Agent, transport), side(&authority, Role::Origin, transport));
            let (dialled, heard) = tokio::join!(agent.dial(&origin.address), origin.answer());
            let (dialled, heard) = (dialled.unwrap(), heard.unwrap());
            assert_eq!(
                (dialled.peer, dialled.role, dialled.hello.moment),
                (origin.address.id, Role::Origin, 2)
            );
            assert_eq!((heard.peer, heard.role, heard.hello.moment), (agent.address.id, Role::Agent, 1));
        }
    }

    #[tokio::test]
    async fn the_next_address_is_tried_where_one_does_not_answer_as_the_peer() {
        for transport in EACH {
            let authority = authority();
            let [agent, other, wanted] = [(); 3].map(|()| side(&authority, Role::Agent, transport));
            let mut address = wanted.address.clone();
            address.addresses.insert(0, other.address.addresses[0]);
            let (dialled, _, _) = tokio::join!(agent.dial(&address), other.hear(), wanted.answer());
            assert_eq!(dialled.unwrap().peer, wanted.address.id);
        }
    }

    #[tokio::test]
    async fn another_peer_than_the_one_dialled_is_refused() {
        for transport in EACH {
            let authority = authority();
            let [agent, other] = [(); 2].map(|()| side(&authority, Role::Agent, transport));
            let mut address = other.address.clone();
            address.id = PeerId::from_public_key([1; 32]);
            let (dialled, heard) = tokio::join!(agent.dial(&address), other.hear());
            assert!(
                matches!(dialled, Err(HandshakeError::OtherPeer { found, .. }) if found == other.address.id)
            );
            assert!(heard.is_err());
        }
    }

    #[tokio::test]
    async fn a_node_of_another_authority_is_refused() {
        for transport in EACH {
            let (here, there) =
                (side(&authority(), Role::Agent, transport), side(&authority(), Role::Origin, transport));
            let (dialled, heard) = tokio::join!(here.dial(&there.address), there.hear());
            assert!(matches!(dialled, Err(HandshakeError::Connection { .. })), "{dialled:?}");
            assert!(matches!(heard, Err(HandshakeError::Connection { .. })), "{heard:?}");
        }
    }

    #[tokio::test]
    async fn a_tracker_is_refused_whoever_dials() {
        for transport in EACH {
            let authority = authority();
            let (agent, tracker) =
                (side(&authority, Role::Agent, transport), side(&authority, Role::Tracker, transport));
            let (dialled, heard) = tokio::join!(agent.dial(&tracker.address), tracker.hear());
            assert!(matches!(dialled, Err(HandshakeError::Connection { .. })), "{dialled:?}");
            assert!(heard.is_err());
            let (dialled, heard) = tokio::join!(tracker.dial(&agent.address), agent.hear());
            assert!(dialled.is_err());
            assert!(matches!(heard, Err(HandshakeError::Role { role: Role::Tracker, .. })), "{heard:?}");
        }
    }
}
