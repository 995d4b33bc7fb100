//! What the owner of a TLS listener has to say about its clients, who are all the same to this crate.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

/// Hears who was refused, and says who is to leave.
#[derive(Clone)]
pub struct Doorkeeper {
    refused: Arc<Refused>,
    expelled: Arc<Expelled>,
}

type Refused = dyn Fn(SocketAddr, &io::Error) + Send + Sync;
type Expelled = dyn Fn(CertificateDer<'static>) -> Leaving + Send + Sync;
type Leaving = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Doorkeeper {
    /// `refused` is called for each client whose certificate, or lack of one, ended its handshake. `expelled` ends when a
    /// client that was let in with that certificate has to go: its connection is cut, with whatever is in flight.
    pub fn new<E>(
        refused: impl Fn(SocketAddr, &io::Error) + Send + Sync + 'static,
        expelled: impl Fn(CertificateDer<'static>) -> E + Send + Sync + 'static,
    ) -> Self
    where
        E: Future<Output = ()> + Send + 'static,
    {
        let expelled =
            move |certificate| Box::pin(expelled(certificate)) as Pin<Box<dyn Future<Output = ()> + Send>>;
        Self { refused: Arc::new(refused), expelled: Arc::new(expelled) }
    }

    /// Tells of a handshake that failed. What the client or the network broke off is nobody's refusal.
    pub(crate) fn failed(&self, remote: SocketAddr, error: &io::Error) {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        if cause.is_some_and(|cause| !matches!(cause, rustls::Error::AlertReceived(_))) {
            (self.refused)(remote, error);
        }
    }

    pub(crate) async fn expelled(&self, certificate: CertificateDer<'static>) {
        (self.expelled)(certificate).await;
    }
}

impl fmt::Debug for Doorkeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorkeeper").finish_non_exhaustive()
    }
}
