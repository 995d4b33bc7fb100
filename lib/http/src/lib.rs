//! The HTTP server loop that every role listens with: HTTP/1.1 and HTTP/2, plain or over TLS.
//!
//! Invariant: whatever clients and the system do, the loop goes on, holds at most as much as [`Limits`] says, and
//! ends with all its tasks. It knows no routes, and no right or wrong of a client certificate: it hands both on.
//! It limits how slow a body may be, not how long it takes: blobs are large.

mod activity;
mod connection;
mod doorkeeper;
mod limits;
mod pace;
mod server;
mod stall;
mod tasks;
mod workers;

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;

pub use doorkeeper::Doorkeeper;
pub use limits::Limits;
pub use server::{Running, Server};
pub use workers::Workers;

/// Request extension: who the client is (TLS listeners only).
///
/// The certificate passed the checks of the listener's `ServerConfig`; what it allows is for the handler to say.
#[derive(Clone, Debug)]
pub struct ClientCertificate(pub CertificateDer<'static>);

/// Request extension: the address of the client.
#[derive(Clone, Copy, Debug)]
pub struct RemoteAddress(pub SocketAddr);
