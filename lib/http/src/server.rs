//! Binding, accepting, and stopping.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::connection::Front;
use crate::doorkeeper::Doorkeeper;
use crate::limits::Limits;
use crate::tasks::Tasks;
use crate::workers::Workers;

/// A bound listener.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: Limits,
    workers: Option<Workers>,
    doorkeeper: Option<Doorkeeper>,
}

/// A server at work. Dropping it ends it at once, requests in flight too.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    tasks: Tasks,
}

impl Server {
    /// Binds. `tls`: `Some` = TLS only; `None` = plain HTTP, and a TLS hello is closed at once.
    ///
    /// Clients connect from now on; they are answered from [`Server::serve`] on.
    /// Limits with which nobody could be served are refused as [`io::ErrorKind::InvalidInput`].
    pub async fn bind(
        listen: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        limits: Limits,
    ) -> io::Result<Self> {
        limits.check()?;
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, tls, limits, workers: None, doorkeeper: None })
    }

    /// Where it listens (the port that was free, for port 0).
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Has the connections served by these threads, in turn, in place of the runtime of the caller. They have to outlast
    /// whatever the handlers leave behind.
    #[must_use]
    pub fn on(self, workers: Workers) -> Self {
        Self { workers: Some(workers), ..self }
    }

    /// Has the owner hear of refused clients, and say which connections are to be cut (TLS only).
    #[must_use]
    pub fn kept_by(self, doorkeeper: Doorkeeper) -> Self {
        Self { doorkeeper: Some(doorkeeper), ..self }
    }

    /// Serves until [`Running::shutdown`]. Must be called in a tokio runtime.
    ///
    /// TLS: HTTP/2 if ALPN agreed on `h2`, else HTTP/1.1. Plain: HTTP/2 for a client that begins with it.
    #[must_use = "dropping it ends the server"]
    pub fn serve(self, router: axum::Router) -> Running {
        let tasks = Tasks::default();
        let places = Arc::new(Semaphore::new(self.limits.max_connections.min(Semaphore::MAX_PERMITS)));
        let front = Arc::new(Front::new(router, self.tls, self.doorkeeper, self.limits, tasks.clone()));
        tasks.spawn(accept_all(self.listener, places, front, self.workers, tasks.clone()));
        Running { address: self.address, tasks }
    }
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, lets requests in flight end, closes the rest after `grace`.
    ///
    /// When it returns, the port is free, and no task of the server is left.
    pub async fn shutdown(self, grace: Duration) {
        self.tasks.stop();
        self.tasks.join(grace).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

/// Accepts until the server stops. A connection is accepted only when there is a place for it.
async fn accept_all(
    listener: TcpListener,
    places: Arc<Semaphore>,
    front: Arc<Front>,
    workers: Option<Workers>,
    tasks: Tasks,
) {
    let here = Handle::current();
    let next = async || {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the semaphore");
        (place, accept(&listener).await)
    };
    while let Some((place, (stream, remote))) = tasks.until_stopped(next()).await {
        let front = Arc::clone(&front);
        // Taken from this runtime's list of sockets, to be on that of the runtime that serves it.
        let Ok(stream) = stream.into_std() else { continue };
        let runtime = workers.as_ref().map_or(&here, Workers::next);
        tasks.spawn_on(runtime, async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                front.attend(stream, remote).await;
            }
            drop(place);
        });
    }
}

/// The next connection. Whatever goes wrong on the way concerns one client, or passes.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_client(&error) => {
                tracing::debug!(%error, "client left before it was accepted");
            }

            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Not a sign of trouble here: the next accept may succeed at once.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// The usual trouble is that no file descriptor is left, which ends when some connection does; asking again at once
/// would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
