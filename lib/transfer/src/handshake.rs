//! From an address or a caller to a peer that proved who it is and said Hello.
//!
//! The dialler says Hello first. The answer is the other node's decision, taken in `peers`: until it comes there is no
//! connection, so neither side can lose a message to one that is turned down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use shoal_core::{PeerAddress, PeerId, Role};
use shoal_identity::{Identity, IdentityError};
use tokio::time::timeout;

use crate::config::Config;
use crate::frames::{FrameError, FrameReader, write_frame};
use crate::quic::{CloseReason, Endpoint, Link};
use crate::wire::{Frame, Hello, WireError};

/// A peer that proved who it is and said Hello.
#[derive(Debug)]
pub(crate) struct Introduction {
    pub(crate) peer: PeerId,
    pub(crate) role: Role,
    pub(crate) link: Link,
    pub(crate) hello: Hello,
    pub(crate) input: FrameReader<RecvStream>,
    pub(crate) output: SendStream,
}

/// Makes introductions.
#[derive(Debug)]
pub(crate) struct Greeter {
    endpoint: Endpoint,
    identity: Identity,
    dial_timeout: Duration,
    hello_timeout: Duration,
}

/// Why there is no introduction.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("peer has no address")]
    NoAddress,
    #[error("cannot dial {address}")]
    Dial { address: SocketAddr, source: quinn::ConnectError },
    #[error("{address} does not answer in time")]
    Timeout { address: SocketAddr },
    #[error("no connection with {address}")]
    Connection { address: SocketAddr, source: quinn::ConnectionError },
    #[error("{address} shows no certificate")]
    NoCertificate { address: SocketAddr },
    #[error("certificate of {address} is not valid here")]
    Certificate { address: SocketAddr, source: Box<IdentityError> },
    #[error("{found} answers at {address} in place of the peer that was dialled")]
    OtherPeer { address: SocketAddr, found: PeerId },
    #[error("{peer} is a {role}, and exchanges no pieces")]
    Role { peer: PeerId, role: Role },
    #[error("{address} says no Hello")]
    NoHello { address: SocketAddr, source: FrameError },
}

impl Greeter {
    pub(crate) fn new(endpoint: Endpoint, identity: Identity, config: &Config) -> Arc<Self> {
        let (dial_timeout, hello_timeout) = (config.dial_timeout, config.hello_timeout);
        Arc::new(Self { endpoint, identity, dial_timeout, hello_timeout })
    }

    /// Dials the peer's addresses in turn until it answers at one, and exchanges Hellos there.
    pub(crate) async fn dial(
        &self,
        peer: &PeerAddress,
        hello: Hello,
    ) -> Result<Introduction, HandshakeError> {
        let mut failure = HandshakeError::NoAddress;
        for &address in &peer.addresses {
            match self.reach(address, peer.id).await {
                Ok((link, role)) => return self.introduce(link, peer.id, role, hello).await,
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Hears a caller out. It is not answered yet.
    pub(crate) async fn hear(&self, caller: quinn::Incoming) -> Result<Introduction, HandshakeError> {
        let address = caller.remote_address();
        let late = |_| HandshakeError::Timeout { address };
        let lost = |source| HandshakeError::Connection { address, source };
        let link = Link::new(timeout(self.dial_timeout, caller).await.map_err(late)?.map_err(lost)?);
        let (peer, role) = self.identify(&link)?;
        let (output, input) =
            timeout(self.hello_timeout, link.accept_control()).await.map_err(late)?.map_err(lost)?;
        let mut input = FrameReader::new(input);
        let hello = self.hear_hello(&link, &mut input).await?;
        Ok(Introduction { peer, role, link, hello, input, output })
    }

    async fn reach(&self, address: SocketAddr, wanted: PeerId) -> Result<(Link, Role), HandshakeError> {
        let connecting = self
            .endpoint
            .dial(address, &wanted)
            .map_err(|source| HandshakeError::Dial { address, source })?;
        let connection = timeout(self.dial_timeout, connecting)
            .await
            .map_err(|_| HandshakeError::Timeout { address })?
            .map_err(|source| HandshakeError::Connection { address, source })?;
        let link = Link::new(connection);
        let (found, role) = self.identify(&link)?;
        if found != wanted {
            link.close(CloseReason::Refused);
            return Err(HandshakeError::OtherPeer { address, found });
        }
        Ok((link, role))
    }

    async fn introduce(
        &self,
        link: Link,
        peer: PeerId,
        role: Role,
        own: Hello,
    ) -> Result<Introduction, HandshakeError> {
        let address = link.remote_address();
        let (mut output, input) =
            link.open_control().await.map_err(|source| HandshakeError::Connection { address, source })?;
        let mut input = FrameReader::new(input);
        write_frame(&mut output, &Frame::Hello(own))
            .await
            .map_err(|error| HandshakeError::NoHello { address, source: error.into() })?;
        let hello = self.hear_hello(&link, &mut input).await?;
        Ok(Introduction { peer, role, link, hello, input, output })
    }

    /// Who is there, by the certificate; closes the link where it is nobody to exchange pieces with.
    fn identify(&self, link: &Link) -> Result<(PeerId, Role), HandshakeError> {
        let address = link.remote_address();
        let found =
            link.certificate().ok_or(HandshakeError::NoCertificate { address }).and_then(|certificate| {
                self.identity
                    .peer(&certificate)
                    .map_err(|source| HandshakeError::Certificate { address, source: Box::new(source) })
            });
        let refused = match found {
            Ok(peer) if peer.role == Role::Tracker => HandshakeError::Role { peer: peer.id, role: peer.role },
            Ok(peer) => return Ok((peer.id, peer.role)),
            Err(error) => error,
        };
        link.close(CloseReason::Refused);
        Err(refused)
    }

    async fn hear_hello(
        &self,
        link: &Link,
        input: &mut FrameReader<RecvStream>,
    ) -> Result<Hello, HandshakeError> {
        let address = link.remote_address();
        let frame = match timeout(self.hello_timeout, input.next()).await {
            Err(_) => Err(HandshakeError::Timeout { address }),
            Ok(Ok(Some(Frame::Hello(hello)))) => Ok(hello),
            Ok(Ok(other)) => {
                let error = other.map_or(WireError::Ended, |frame| WireError::OutOfPlace(frame.kind()));
                Err(HandshakeError::NoHello { address, source: error.into() })
            }
            Ok(Err(source)) => Err(HandshakeError::NoHello { address, source }),
        };
        if frame.is_err() {
            link.close(CloseReason::Protocol);
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::Zone;
    use shoal_identity::{Authority, install_crypto_provider};

    use super::*;

    struct Side {
        greeter: Arc<Greeter>,
        endpoint: Endpoint,
        address: PeerAddress,
    }

    fn side(authority: &Authority, role: Role) -> Side {
        install_crypto_provider();
        let identity = authority.issue(role, "node").unwrap();
        let config = Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() };
        let endpoint = Endpoint::bind(&config, &identity).unwrap();
        let addresses = vec![endpoint.local_address()];
        let address = PeerAddress { id: identity.id(), role, addresses, zone: Zone::default() };
        Side { greeter: Greeter::new(endpoint.clone(), identity, &config), endpoint, address }
    }

    impl Side {
        async fn hear(&self) -> Result<Introduction, HandshakeError> {
            self.greeter.hear(self.endpoint.accept().await.unwrap()).await
        }

        async fn answer(&self) -> Result<Introduction, HandshakeError> {
            let mut heard = self.hear().await?;
            write_frame(&mut heard.output, &Frame::Hello(Hello::new(2, &Zone::default()))).await.unwrap();
            Ok(heard)
        }

        async fn dial(&self, peer: &PeerAddress) -> Result<Introduction, HandshakeError> {
            self.greeter.dial(peer, Hello::new(1, &Zone::default())).await
        }
    }

    fn authority() -> Authority {
        Authority::generate("test").unwrap()
    }

    #[tokio::test]
    async fn both_sides_learn_who_the_other_is() {
        let authority = authority();
        let (agent, origin) = (side(&authority, Role::Agent), side(&authority, Role::Origin));
        let (dialled, heard) = tokio::join!(agent.dial(&origin.address), origin.answer());
        let (dialled, heard) = (dialled.unwrap(), heard.unwrap());
        assert_eq!((dialled.peer, dialled.role, dialled.hello.moment), (origin.address.id, Role::Origin, 2));
        assert_eq!((heard.peer, heard.role, heard.hello.moment), (agent.address.id, Role::Agent, 1));
    }

    #[tokio::test]
    async fn the_next_address_is_tried_where_one_does_not_answer_as_the_peer() {
        let authority = authority();
        let [agent, other, wanted] = [(); 3].map(|()| side(&authority, Role::Agent));
        let mut address = wanted.address.clone();
        address.addresses.insert(0, other.address.addresses[0]);
        let (dialled, _, _) = tokio::join!(agent.dial(&address), other.hear(), wanted.answer());
        assert_eq!(dialled.unwrap().peer, wanted.address.id);
    }

    #[tokio::test]
    async fn another_peer_than_the_one_dialled_is_refused() {
        let authority = authority();
        let [agent, other] = [(); 2].map(|()| side(&authority, Role::Agent));
        let mut address = other.address.clone();
        address.id = PeerId::from_public_key([1; 32]);
        let (dialled, heard) = tokio::join!(agent.dial(&address), other.hear());
        assert!(matches!(dialled, Err(HandshakeError::OtherPeer { found, .. }) if found == other.address.id));
        assert!(heard.is_err());
    }

    #[tokio::test]
    async fn a_node_of_another_authority_is_refused() {
        let (here, there) = (side(&authority(), Role::Agent), side(&authority(), Role::Origin));
        let (dialled, heard) = tokio::join!(here.dial(&there.address), there.hear());
        assert!(matches!(dialled, Err(HandshakeError::Connection { .. })), "{dialled:?}");
        assert!(matches!(heard, Err(HandshakeError::Connection { .. })), "{heard:?}");
    }

    #[tokio::test]
    async fn a_tracker_is_refused_whoever_dials() {
        let authority = authority();
        let (agent, tracker) = (side(&authority, Role::Agent), side(&authority, Role::Tracker));
        let (dialled, heard) = tokio::join!(agent.dial(&tracker.address), tracker.hear());
        assert!(matches!(dialled, Err(HandshakeError::Connection { .. })), "{dialled:?}");
        assert!(heard.is_err());
        let (dialled, heard) = tokio::join!(tracker.dial(&agent.address), agent.hear());
        assert!(dialled.is_err());
        assert!(matches!(heard, Err(HandshakeError::Role { role: Role::Tracker, .. })), "{heard:?}");
    }
}
