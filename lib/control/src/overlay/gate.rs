//! Who gets in: a connection of the overlay begins with the cluster's mutual TLS, as every other connection between nodes.
//!
//! So certificates are exchanged and proved before a byte of libp2p's protocols is read, the same checks hold here as on
//! the other ports, and the private key stays where it is. Whoever was caught lying is kept out for a while.

use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{AsyncRead, AsyncWrite};
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::{PublicKey, ed25519};
use lru::LruCache;
use rustls::CommonState;
use rustls_pki_types::{CertificateDer, ServerName};
use shoal_core::{PeerId, Role};
use shoal_identity::{Identity, IdentityError, Peer};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};

/// The gate of one node. Clones share what they know.
#[derive(Clone)]
pub(crate) struct Gate {
    identity: Identity,
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    known: Arc<Mutex<Known>>,
}

struct Known {
    /// What those who came are, and by which certificate.
    members: LruCache<PeerId, (Role, CertificateDer<'static>)>,
    banned: LruCache<PeerId, Instant>,
}

/// Why nobody came in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("no certificate was shown")]
    NoCertificate,
    #[error(transparent)]
    Certificate(#[from] IdentityError),
    #[error("{0} is kept out for a while: it told what is not so")]
    Banned(PeerId),
}

/// The most nodes whose role is remembered: far more than are connected at a time.
const MAX_MEMBERS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// The most nodes that are kept out: each needs a certificate of this cluster.
const MAX_BANNED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// How long one is kept out: longer than any retry, and not for ever, should it have been repaired.
pub(crate) const BAN: Duration = Duration::from_secs(15 * 60);
/// What TLS calls the protocol: a connection to another port does not pass for one to this.
const ALPN: &[u8] = b"shoal-overlay/1";
/// What libp2p calls it.
const PROTOCOL: &str = "/shoal/tls/1";

impl Gate {
    pub(crate) fn new(identity: Identity) -> Self {
        let roles = [Role::Agent, Role::Origin, Role::Tracker];
        Self {
            server: identity.server_config(&[ALPN]),
            client: identity.client_config(&roles, &[ALPN]),
            identity,
            known: Arc::new(Mutex::new(Known {
                members: LruCache::new(MAX_MEMBERS),
                banned: LruCache::new(MAX_BANNED),
            })),
        }
    }

    /// What the certificate of one who came in said.
    pub(crate) fn role(&self, peer: &PeerId) -> Option<Role> {
        self.known().members.get(peer).map(|(role, _)| *role)
    }

    /// Those whose certificates count no more: somebody was revoked, or an authority is not trusted now. Whoever calls ends
    /// their connections.
    pub(crate) fn expelled(&self) -> Vec<libp2p::PeerId> {
        let mut known = self.known();
        let counts_no_more = |certificate| self.identity.peer(certificate).is_err();
        let members = known.members.iter();
        let gone: Vec<PeerId> =
            members.filter(|(_, (_, certificate))| counts_no_more(certificate)).map(|(id, _)| *id).collect();
        for id in &gone {
            known.members.pop(id);
        }
        gone.iter().map(libp2p_id).collect()
    }

    /// Keeps one out from now on. Whoever calls ends its connections.
    pub(crate) fn ban(&self, peer: PeerId, now: Instant) {
        self.known().banned.put(peer, now + BAN);
    }

    fn admit(&self, state: &CommonState) -> Result<libp2p::PeerId, GateError> {
        let certificate = state.peer_certificates().and_then(<[_]>::first).ok_or(GateError::NoCertificate)?;
        let Peer { id, role, .. } = self.identity.peer(certificate)?;
        let mut known = self.known();
        if known.banned.get(&id).is_some_and(|until| *until > Instant::now()) {
            return Err(GateError::Banned(id));
        }
        known.members.put(id, (role, certificate.clone().into_owned()));
        Ok(libp2p_id(&id))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same node, as libp2p names it.
pub(crate) fn libp2p_id(id: &PeerId) -> libp2p::PeerId {
    libp2p_key(id).to_peer_id()
}

pub(crate) fn libp2p_key(id: &PeerId) -> PublicKey {
    let key = ed25519::PublicKey::try_from_bytes(id.public_key());
    key.expect("a certificate's key was used in its handshake, so it is a point of the curve").into()
}

/// The same node, as Shoal names it; keys of other kinds belong to no node.
pub(crate) fn shoal_id(id: &libp2p::PeerId) -> Option<PeerId> {
    PeerId::parse(&id.to_base58()).ok()
}

impl UpgradeInfo for Gate {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

type Admitted<C> = (libp2p::PeerId, Compat<TlsStream<Compat<C>>>);
type Admission<C> = Pin<Box<dyn Future<Output = Result<Admitted<C>, GateError>> + Send>>;

impl<C> InboundConnectionUpgrade<C> for Gate
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Admitted<C>;
    type Error = GateError;
    type Future = Admission<C>;

    fn upgrade_inbound(self, socket: C, _: &'static str) -> Admission<C> {
        Box::pin(async move {
            let accepted = TlsAcceptor::from(self.server.clone()).accept(socket.compat()).await;
            let stream = accepted.map_err(GateError::Tls)?;
            let peer = self.admit(stream.get_ref().1)?;
            Ok((peer, TlsStream::from(stream).compat()))
        })
    }
}

impl<C> OutboundConnectionUpgrade<C> for Gate
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Admitted<C>;
    type Error = GateError;
    type Future = Admission<C>;

    fn upgrade_outbound(self, socket: C, _: &'static str) -> Admission<C> {
        Box::pin(async move {
            let name = ServerName::try_from("shoal").expect("a DNS name");
            let connected = TlsConnector::from(self.client.clone()).connect(name, socket.compat()).await;
            let stream = connected.map_err(GateError::Tls)?;
            let peer = self.admit(stream.get_ref().1)?;
            Ok((peer, TlsStream::from(stream).compat()))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
    use shoal_identity::Authority;

    use super::*;

    type Side = Result<Admitted<Compat<tokio::io::DuplexStream>>, GateError>;

    async fn meet(client: &Gate, server: &Gate) -> (Side, Side) {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (client, server) = (client.clone(), server.clone());
        let dial = async move {
            let mut side = client.upgrade_outbound(near.compat(), PROTOCOL).await?;
            // In TLS 1.3 a client learns that it was refused when it reads.
            let mut greeting = [0];
            side.1.read_exact(&mut greeting).await.map_err(GateError::Tls)?;
            Ok(side)
        };
        let accept = async move {
            let mut side = server.upgrade_inbound(far.compat(), PROTOCOL).await?;
            side.1.write_all(&[1]).await.map_err(GateError::Tls)?;
            side.1.flush().await.map_err(GateError::Tls)?;
            Ok(side)
        };
        tokio::join!(dial, accept)
    }

    #[tokio::test]
    async fn nodes_of_the_cluster_learn_each_others_names_and_roles() {
        let authority = Authority::generate("prod").unwrap();
        let (agent, origin) =
            (authority.issue(Role::Agent, "a").unwrap(), authority.issue(Role::Origin, "o").unwrap());
        let (near, far) = (Gate::new(agent.clone()), Gate::new(origin.clone()));
        let (dialled, accepted) = meet(&near, &far).await;
        assert_eq!(dialled.unwrap().0, libp2p_id(&origin.id()));
        assert_eq!(accepted.unwrap().0, libp2p_id(&agent.id()));
        assert_eq!((near.role(&origin.id()), far.role(&agent.id())), (Some(Role::Origin), Some(Role::Agent)));
        assert_eq!(shoal_id(&libp2p_id(&agent.id())), Some(agent.id()));
        assert_eq!(libp2p_id(&agent.id()).to_string(), agent.id().to_string());
    }

    #[tokio::test]
    async fn a_stranger_and_one_who_lied_do_not_come_in() {
        let authority = Authority::generate("prod").unwrap();
        let node = Gate::new(authority.issue(Role::Agent, "a").unwrap());
        let stranger = Gate::new(Authority::generate("prod").unwrap().issue(Role::Agent, "b").unwrap());
        for (client, server) in [(&node, &stranger), (&stranger, &node)] {
            let (dialled, accepted) = meet(client, server).await;
            assert!(dialled.is_err() && accepted.is_err());
        }
        let identity = authority.issue(Role::Agent, "liar").unwrap();
        node.ban(identity.id(), Instant::now());
        let (_, accepted) = meet(&Gate::new(identity), &node).await;
        assert!(matches!(accepted, Err(GateError::Banned(_))));
    }
}
