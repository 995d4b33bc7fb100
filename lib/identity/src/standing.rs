//! What a node shows and whom it trusts at this moment. Both change while it runs: certificates are renewed, authorities
//! follow each other, nodes are revoked. All TLS configurations of the node ask here at each handshake.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use crate::node::NodeFiles;
use crate::trust::Trust;

/// The present state, and word of its changes.
#[derive(Debug)]
pub(crate) struct Standing {
    current: RwLock<Arc<Current>>,
    changes: watch::Sender<()>,
}

/// One state: it is replaced as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) files: NodeFiles,
    /// The node's certificate, and the intermediates up to its authority.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) shown: Arc<CertifiedKey>,
    pub(crate) trust: Arc<Trust>,
}

impl Standing {
    pub(crate) fn new(current: Current) -> Self {
        Self { current: RwLock::new(Arc::new(current)), changes: watch::Sender::new(()) }
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        // A state is replaced by one assignment: there is no half-done one that a panic could leave.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.current().trust)
    }

    /// Takes what comes out of the present state in its place, and tells whoever watches. One change at a time.
    pub(crate) fn change<E>(&self, next: impl FnOnce(&Current) -> Result<Current, E>) -> Result<(), E> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(next(&current)?);
        drop(current);
        self.changes.send_replace(());
        Ok(())
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

impl ResolvesServerCert for Standing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().shown))
    }
}

impl ResolvesClientCert for Standing {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().shown))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
