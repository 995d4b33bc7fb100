//! Raw QUIC: what quinn carries over loopback with the product's windows and datagrams, and nothing on top.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt};
use shoal_core::Role;
use shoal_transfer::Config;

use super::stream::{PROTOCOL, load};
use super::usage::{Meter, Usage};

/// Sends so many bytes to the first who connects, then waits to be ended.
pub(super) async fn send(
    identity: &Path,
    bytes: u64,
    listening: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let tls = QuicServerConfig::try_from(load(identity)?.server_config(&[PROTOCOL]))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls));
    server.transport_config(Arc::new(transport()?));
    let endpoint = endpoint(Some(server))?;
    listening(endpoint.local_addr()?)?;
    let connection = endpoint.accept().await.context("the endpoint closed")?.await?;
    write(&connection, bytes).await?;
    std::future::pending().await
}

/// Reads so many bytes. What it takes to connect does not count.
pub(super) async fn receive(identity: &Path, address: SocketAddr, bytes: u64) -> anyhow::Result<Usage> {
    let tls = QuicClientConfig::try_from(load(identity)?.client_config(&[Role::Agent], &[PROTOCOL]))?;
    let mut client = quinn::ClientConfig::new(Arc::new(tls));
    client.transport_config(Arc::new(transport()?));
    let connection = endpoint(None)?.connect_with(client, address, "shoal-bench")?.await?;
    let meter = Meter::start();
    let mut received = 0;
    while received < bytes {
        received += drain(connection.accept_uni().await?).await?;
    }
    ensure!(received == bytes, "{received} bytes came instead of {bytes}");
    Ok(meter.stop())
}

async fn write(connection: &Connection, bytes: u64) -> anyhow::Result<()> {
    let (piece, mut left) = (Bytes::from(vec![0; PIECE]), bytes);
    while left > 0 {
        let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let mut stream = connection.open_uni().await?;
        stream.write_chunk(piece.slice(..length)).await?;
        stream.finish()?;
        left -= length as u64;
    }
    Ok(())
}

/// How many bytes there were.
async fn drain(mut stream: quinn::RecvStream) -> anyhow::Result<u64> {
    let mut bytes = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        bytes += chunk.bytes.len() as u64;
    }
    Ok(bytes)
}

/// What `shoal_transfer` makes of its configuration.
fn transport() -> anyhow::Result<TransportConfig> {
    let config = Config::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(config.max_udp_payload);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(config.piece_streams.get()))
        .stream_receive_window(VarInt::try_from(config.stream_window.as_u64())?)
        .receive_window(VarInt::try_from(config.connection_window.as_u64())?)
        .send_window(config.connection_window.as_u64())
        .send_fairness(false)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(discovery));
    Ok(transport)
}

fn endpoint(server: Option<quinn::ServerConfig>) -> anyhow::Result<Endpoint> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let state = quinn::udp::UdpSocketState::new((&socket).into())?;
    // The system may give less.
    let _ = state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER);
    let _ = state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER);
    let config = EndpointConfig::default();
    Ok(Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime))?)
}

/// A stream has one piece, as in the product.
const PIECE: usize = 1 << 20;
/// As in the product.
const SOCKET_BUFFER: usize = 1 << 20;
