//! The peer port: one number, on which QUIC is spoken over UDP and TLS over TCP, or one of both.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use quinn::crypto::rustls::NoInitialCipherSuite;
use rustls::pki_types::CertificateDer;
use shoal_core::PeerId;
use shoal_identity::Identity;
use tokio::net::TcpStream;

use crate::config::{Config, ConfigError, TransportChoice};
use crate::link::{Line, Lost, Transport};
use crate::wire::CloseReason;
use crate::{quic, tcp};

/// The peer port. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    quic: Option<quic::Endpoint>,
    tcp: Option<tcp::Endpoint>,
    local_address: SocketAddr,
}

/// Somebody who dialled this node and has proved nothing.
#[derive(Debug)]
pub(crate) enum Caller {
    Quic(Box<quinn::Incoming>),
    Tcp(TcpStream, SocketAddr),
}

/// A connection that is encrypted, with somebody who showed a certificate.
#[derive(Debug)]
pub(crate) enum Reached {
    Quic(quic::Link),
    Tcp(tcp::Secured),
}

/// Who opens the control stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Dialler,
    Dialled,
}

/// There is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    #[error("this node does not speak {0:?}")]
    NotSpoken(Transport),
    #[error(transparent)]
    Dial(#[from] quinn::ConnectError),
    #[error("QUIC handshake failed")]
    Quic(#[from] quinn::ConnectionError),
    #[error("TLS handshake failed")]
    Tcp(#[from] io::Error),
}

impl ReachError {
    /// Whether TLS failed at this end: the other one's certificate, or the lack of it, was refused here.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            // RFC 9001, section 4.8: an alert of TLS.
            Self::Quic(quinn::ConnectionError::TransportError(error)) => {
                (0x100..0x200).contains(&u64::from(error.code))
            }
            Self::Tcp(error) => {
                let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
                cause.is_some_and(|cause| !matches!(cause, rustls::Error::AlertReceived(_)))
            }
            _ => false,
        }
    }
}

/// Why the peer port is not open.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A value of the configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be taken.
    #[error(
        "cannot listen on {address} ({protocol}) for other nodes: free it, or set `transfer.listen` to another"
    )]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// udp or tcp.
        protocol: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The TLS configuration has no cipher that QUIC starts with (TLS13_AES_128_GCM_SHA256).
    #[error("TLS configuration does not suit QUIC")]
    Tls(#[from] NoInitialCipherSuite),
    /// The record of the engine cannot be begun.
    #[error("cannot write {}: set `transfer.record.file` to a file in a folder that this process may write to, or remove it", file.display())]
    Record {
        /// The file of the configuration.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The registry has the metrics of another node.
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
}

impl Endpoint {
    pub(crate) fn bind(config: &Config, identity: &Identity) -> Result<Self, BindError> {
        config.check()?;
        let mut tries = PORT_TRIES;
        loop {
            match Self::try_bind(config, identity) {
                // Any port was asked for, and the one that UDP got is another's in TCP.
                Err(BindError::Listen { protocol: "tcp", .. }) if config.listen.port() == 0 && tries > 0 => {
                    tries -= 1;
                }
                other => return other,
            }
        }
    }

    fn try_bind(config: &Config, identity: &Identity) -> Result<Self, BindError> {
        let mut address = config.listen;
        let quic = match config.transport {
            TransportChoice::Tcp => None,
            TransportChoice::Auto | TransportChoice::Quic => {
                let quic = quic::Endpoint::bind(config, address, identity)?;
                address = quic.local_address();
                Some(quic)
            }
        };
        let tcp = match config.transport {
            TransportChoice::Quic => None,
            TransportChoice::Auto | TransportChoice::Tcp => {
                let tcp = tcp::Endpoint::bind(config, address, identity)?;
                let local = tcp.local_address();
                address = local.map_err(|source| BindError::Listen { address, protocol: "tcp", source })?;
                Some(tcp)
            }
        };
        Ok(Self { quic, tcp, local_address: address })
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    pub(crate) async fn dial(
        &self,
        transport: Transport,
        address: SocketAddr,
        peer: &PeerId,
    ) -> Result<Reached, ReachError> {
        let not_spoken = || ReachError::NotSpoken(transport);
        match transport {
            Transport::Quic => {
                let connecting = self.quic.as_ref().ok_or_else(not_spoken)?.dial(address, peer)?;
                Ok(Reached::Quic(quic::Link::new(connecting.await?)))
            }
            Transport::Tcp => {
                let tcp = self.tcp.as_ref().ok_or_else(not_spoken)?;
                Ok(Reached::Tcp(tcp.dial(address, peer).await?))
            }
        }
    }

    /// The next caller; `None` once the endpoint is closed.
    pub(crate) async fn accept(&self) -> Option<Caller> {
        tokio::select! {
            caller = accept_quic(self.quic.as_ref()) => caller.map(|caller| Caller::Quic(Box::new(caller))),
            (stream, address) = accept_tcp(self.tcp.as_ref()) => Some(Caller::Tcp(stream, address)),
        }
    }

    /// A caller shows its certificate.
    pub(crate) async fn secure(&self, caller: Caller) -> Result<Reached, ReachError> {
        match (caller, &self.tcp) {
            (Caller::Quic(caller), _) => Ok(Reached::Quic(quic::Link::new((*caller).await?))),
            (Caller::Tcp(stream, address), Some(tcp)) => Ok(Reached::Tcp(tcp.secure(stream, address).await?)),
            (Caller::Tcp(..), None) => Err(ReachError::NotSpoken(Transport::Tcp)),
        }
    }

    /// Closes everything and waits (at most so long) until the peers were told.
    pub(crate) async fn close(&self, patience: Duration) {
        if let Some(quic) = &self.quic {
            quic.close(patience).await;
        }
    }
}

impl Caller {
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Quic(caller) => caller.remote_address(),
            Self::Tcp(_, address) => *address,
        }
    }

    /// There is no time for it.
    pub(crate) fn refuse(self) {
        if let Self::Quic(caller) = self {
            caller.refuse();
        }
    }
}

impl Reached {
    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(link) => link.remote_address(),
            Self::Tcp(secured) => secured.remote_address(),
        }
    }

    /// The certificate that the peer proved to hold.
    pub(crate) fn certificate(&self) -> Option<CertificateDer<'static>> {
        match self {
            Self::Quic(link) => link.certificate(),
            Self::Tcp(secured) => secured.certificate(),
        }
    }

    pub(crate) async fn into_line(self, side: Side) -> Result<Line, Lost> {
        Ok(match (self, side) {
            (Self::Quic(link), Side::Dialler) => Line::Quic(link.open_control().await?),
            (Self::Quic(link), Side::Dialled) => Line::Quic(link.accept_control().await?),
            (Self::Tcp(secured), _) => Line::Tcp(secured.into_line()),
        })
    }

    /// Ends a connection on which nothing was said.
    pub(crate) fn turn_away(self, reason: CloseReason) {
        match self {
            Self::Quic(link) => link.close(reason),
            Self::Tcp(secured) => Line::Tcp(secured.into_line()).turn_away(reason),
        }
    }
}

async fn accept_quic(quic: Option<&quic::Endpoint>) -> Option<quinn::Incoming> {
    match quic {
        Some(quic) => quic.accept().await,
        None => std::future::pending().await,
    }
}

async fn accept_tcp(tcp: Option<&tcp::Endpoint>) -> (TcpStream, SocketAddr) {
    let Some(tcp) = tcp else { return std::future::pending().await };
    loop {
        match tcp.accept().await {
            Ok(caller) => return caller,
            Err(error) => {
                tracing::debug!(%error, "cannot take a call");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Ports that are tried where any will do: that of ten in a row one half is taken is not bad luck.
const PORT_TRIES: u32 = 10;

/// What fails is mostly that there are no descriptors left, and that does not change at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
