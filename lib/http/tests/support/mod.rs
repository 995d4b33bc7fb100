//! A server with a few routes, and clients that speak by hand.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use shoal_http::{Limits, Running, Server};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Nothing in these tests takes that long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: shoal\r\n\r\n";
pub(crate) const GET_AND_CLOSE: &[u8] = b"GET / HTTP/1.1\r\nhost: shoal\r\nconnection: close\r\n\r\n";
pub(crate) const GET_SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nhost: shoal\r\n\r\n";

/// Requests to `/slow` arrive, and stay until the gate opens.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) arrived: Arc<Semaphore>,
    pub(crate) open: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    /// Waits for one more request behind the gate.
    pub(crate) async fn arrival(&self) {
        timeout(PATIENCE, self.arrived.acquire()).await.unwrap().unwrap().forget();
    }

    async fn pass(self) -> &'static str {
        self.arrived.add_permits(1);
        self.open.acquire().await.unwrap().forget();
        "slow"
    }
}

pub(crate) fn router(gate: &Gate) -> Router {
    let gate = gate.clone();
    Router::new().route("/", get(async || "hello")).route("/slow", get(move || gate.pass()))
}

pub(crate) async fn serve(
    router: Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: Limits,
) -> (Running, SocketAddr) {
    let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, limits).await.unwrap();
    let address = server.local_address();
    (server.serve(router), address)
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), request: &[u8]) {
    stream.write_all(request).await.unwrap();
}

/// One answer with a body of known length, as text.
pub(crate) async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let read = async {
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            answer.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(answer).unwrap()
    };
    timeout(PATIENCE, read).await.unwrap()
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    body.len() >= length.parse().unwrap()
}

/// Everything until the connection ends, cleanly or not.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, std::io::Result<()>) {
    let mut bytes = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection stays open");
    (bytes, ended.map(drop))
}
