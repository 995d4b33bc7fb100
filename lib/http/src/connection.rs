//! One connection: its first bytes or its TLS handshake, then HTTP until it closes.
//!
//! hyper-util's automatic choice of the protocol is not used: it waits for the first bytes without a deadline, and
//! has no limit for the size of a header.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustix::net::sockopt::set_tcp_congestion;
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::activity::{Activity, Answer, InFlight};
use crate::doorkeeper::Doorkeeper;
use crate::limits::Limits;
use crate::pace::Paced;
use crate::stall::Impatient;
use crate::tasks::Tasks;
use crate::{ClientCertificate, RemoteAddress};

/// What all connections of a listener share.
pub(crate) struct Front {
    router: Router,
    tls: Option<TlsAcceptor>,
    doorkeeper: Option<Doorkeeper>,
    limits: Limits,
    tasks: Tasks,
    http1: http1::Builder,
    http2: http2::Builder<Tasks>,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
struct Client {
    address: RemoteAddress,
    certificate: Option<ClientCertificate>,
}

/// Why a connection ended otherwise than well. The client's affair: it is logged, and nothing else.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("no request began in time")]
    Silent,
    #[error("TLS was spoken on a plain port")]
    TlsOnPlainPort,
    #[error("TLS handshake took too long")]
    SlowHandshake,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the client's certificate is accepted no more")]
    Expelled,
    #[error("did not say goodbye in time")]
    Lingered,
}

impl Front {
    pub(crate) fn new(
        router: Router,
        tls: Option<Arc<rustls::ServerConfig>>,
        doorkeeper: Option<Doorkeeper>,
        limits: Limits,
        tasks: Tasks,
    ) -> Self {
        let (http1, http2) = (http1_builder(&limits), http2_builder(&limits, tasks.clone()));
        Self { router, tls: tls.map(TlsAcceptor::from), doorkeeper, limits, tasks, http1, http2 }
    }

    /// Serves a connection until it ends.
    pub(crate) async fn attend(&self, stream: TcpStream, remote: SocketAddr) {
        if let Err(error) = self.attend_client(stream, remote).await {
            tracing::debug!(%remote, error = &error as &dyn std::error::Error, "connection ended");
        }
    }

    async fn attend_client(&self, stream: TcpStream, remote: SocketAddr) -> Result<(), ConnectionError> {
        // Answers are written whole; to wait for more would only delay them.
        stream.set_nodelay(true)?;
        if remote.ip().to_canonical().is_loopback() {
            // A default that paces (BBR) halves what loopback carries. An error means that the kernel has no other.
            let _ = set_tcp_congestion(&stream, "cubic");
        }
        match &self.tls {
            None => self.attend_plain(stream, remote).await,
            Some(tls) => self.attend_tls(tls, stream, remote).await,
        }
    }

    async fn attend_plain(&self, stream: TcpStream, remote: SocketAddr) -> Result<(), ConnectionError> {
        let first = timeout(self.limits.header_read_timeout, protocol_of(&stream));
        let Some(first) = self.tasks.until_stopped(first).await else { return Ok(()) };
        let Some(protocol) = first.map_err(|_| ConnectionError::Silent)?? else { return Ok(()) };
        let client = Client { address: RemoteAddress(remote), certificate: None };
        self.serve(stream, protocol, client).await
    }

    async fn attend_tls(
        &self,
        tls: &TlsAcceptor,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> Result<(), ConnectionError> {
        let handshake = timeout(self.limits.tls_handshake_timeout, tls.accept(stream));
        let Some(shaken) = self.tasks.until_stopped(handshake).await else { return Ok(()) };
        let shaken = shaken.map_err(|_| ConnectionError::SlowHandshake)?;
        let stream = shaken.inspect_err(|error| {
            if let Some(doorkeeper) = &self.doorkeeper {
                doorkeeper.failed(remote, error);
            }
        })?;
        let session = stream.get_ref().1;
        let protocol = agreed_protocol(session);
        let client = Client { address: RemoteAddress(remote), certificate: certificate_of(session) };
        let served = self.serve(stream, protocol, client.clone());
        tokio::select! {
            served = served => served,
            () = self.expelled(client) => Err(ConnectionError::Expelled),
        }
    }

    /// Ends when the client is to leave: never, if nobody says so.
    async fn expelled(&self, client: Client) {
        match (&self.doorkeeper, client.certificate) {
            (Some(doorkeeper), Some(ClientCertificate(certificate))) => {
                doorkeeper.expelled(certificate).await;
            }
            _ => std::future::pending::<()>().await,
        }
    }

    async fn serve<S>(&self, stream: S, protocol: Protocol, client: Client) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(Impatient::new(stream, self.limits.answer_stall_timeout));
        let hand_on = |request: Request<Incoming>, in_flight| {
            answer(
                self.router.clone(),
                &client,
                request.map(|body| Paced::new(body, &self.limits)),
                in_flight,
            )
        };
        match protocol {
            Protocol::Http1 => {
                let service = service_fn(|request| hand_on(request, None));
                let connection = self.http1.serve_connection(stream, service);
                drive(connection, self.tasks.stopped(), std::future::pending()).await
            }
            Protocol::Http2 => {
                let activity = Activity::default();
                let service = service_fn(|request| hand_on(request, Some(activity.begin())));
                let connection = self.http2.serve_connection(stream, service);
                drive(connection, self.tasks.stopped(), activity.idle(self.limits.http2_idle_timeout)).await
            }
        }
    }
}

/// Runs a connection to its end; says goodbye first when the server stops, or the connection is of no more use.
async fn drive<C>(
    connection: C,
    stopped: impl Future<Output = ()>,
    idle: impl Future<Output = ()>,
) -> Result<(), ConnectionError>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended?,
        () = stopped => {
            // How long this may take is the grace of the shutdown.
            connection.as_mut().graceful_shutdown();
            connection.await?;
        }
        () = idle => {
            connection.as_mut().graceful_shutdown();
            timeout(GOODBYE, connection).await.map_err(|_| ConnectionError::Lingered)??;
        }
    }
    Ok(())
}

/// Hands a request to the router, with who sent it.
fn answer(
    router: Router,
    client: &Client,
    mut request: Request<Paced<Incoming>>,
    in_flight: Option<InFlight>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + Send + use<> {
    request.extensions_mut().insert(client.address);
    if let Some(certificate) = &client.certificate {
        request.extensions_mut().insert(certificate.clone());
    }
    async move {
        let response = router.oneshot(request).await?;
        Ok(response.map(|body| Answer::new(body, in_flight)))
    }
}

/// What the client's first bytes are the start of; `None` if it left without any.
///
/// Looks once: no client cuts the start of HTTP/2 within its first three bytes, and one that does is answered 400.
async fn protocol_of(stream: &TcpStream) -> Result<Option<Protocol>, ConnectionError> {
    let mut seen = [0; HTTP2_START.len()];
    let length = stream.peek(&mut seen).await?;
    match &seen[..length] {
        [] => Ok(None),
        [TLS_HANDSHAKE, ..] => {
            // Clients that try TLS first wait for the end of the connection; bytes left unread would make it a reset.
            let _ = stream.try_read(&mut vec![0; LONGEST_TLS_RECORD]);
            Err(ConnectionError::TlsOnPlainPort)
        }
        seen if seen == HTTP2_START => Ok(Some(Protocol::Http2)),
        _ => Ok(Some(Protocol::Http1)),
    }
}

fn agreed_protocol(session: &ServerConnection) -> Protocol {
    match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    }
}

fn certificate_of(session: &ServerConnection) -> Option<ClientCertificate> {
    let certificate = session.peer_certificates()?.first()?;
    Some(ClientCertificate(certificate.clone().into_owned()))
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_header_bytes as usize);
    builder
}

fn http2_builder(limits: &Limits, tasks: Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(limits.max_header_bytes)
        .max_concurrent_streams(limits.http2_max_concurrent_streams)
        .max_pending_accept_reset_streams(limits.http2_max_pending_resets)
        .max_local_error_reset_streams(limits.http2_max_error_resets)
        .keep_alive_interval(limits.http2_ping_interval)
        .keep_alive_timeout(limits.http2_ping_timeout);
    builder
}

/// RFC 8446 section 5.1: the content type of a handshake record, the first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;
/// RFC 8446 section 5.1: header and 2^14 bytes.
const LONGEST_TLS_RECORD: usize = 5 + (1 << 14);
/// RFC 9113 section 3.4: `PRI * HTTP/2.0…`; no method of HTTP/1.1 begins so.
const HTTP2_START: &[u8] = b"PRI";
/// An idle client has nothing to finish: it answers a goodbye within a round trip.
const GOODBYE: Duration = Duration::from_secs(5);
