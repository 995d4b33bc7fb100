//! Raw TCP, and TLS 1.3 over it: what one stream carries over loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustls::pki_types::ServerName;
use shoal_core::Role;
use shoal_identity::{Config, Identity};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::host;
use super::task::Protocol;
use super::usage::{Meter, Usage};

/// Sends so many bytes to the first who connects, then waits to be ended.
pub(super) async fn send(
    over: Protocol,
    identity: &Path,
    bytes: u64,
    listening: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    host::choose_congestion_control(&listener);
    let acceptor = (over == Protocol::Tls).then(|| acceptor(identity)).transpose()?;
    listening(listener.local_addr()?)?;
    let (stream, _) = listener.accept().await?;
    match acceptor {
        Some(acceptor) => write(acceptor.accept(stream).await?, bytes).await?,
        None => write(stream, bytes).await?,
    }
    std::future::pending().await
}

/// Reads so many bytes. What it takes to connect does not count.
pub(super) async fn receive(
    over: Protocol,
    identity: &Path,
    address: SocketAddr,
    bytes: u64,
) -> anyhow::Result<Usage> {
    let stream = connect(address).await?;
    match over {
        Protocol::Tcp => read(stream, bytes).await,
        Protocol::Tls => {
            let name = ServerName::from(address.ip());
            read(connector(identity)?.connect(name, stream).await?, bytes).await
        }
        Protocol::Quic => bail!("QUIC is no stream over TCP"),
    }
}

/// Connects with the congestion control of this run.
pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    host::choose_congestion_control(&stream);
    Ok(stream)
}

async fn write(mut stream: impl AsyncWrite + Unpin, bytes: u64) -> anyhow::Result<()> {
    let (buffer, mut left) = (vec![0; BUFFER], bytes);
    while left > 0 {
        let length = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
        stream.write_all(&buffer[..length]).await?;
        left -= length as u64;
    }
    Ok(stream.flush().await?)
}

async fn read(mut stream: impl AsyncRead + Unpin, bytes: u64) -> anyhow::Result<Usage> {
    let (mut buffer, mut left) = (vec![0; BUFFER], bytes);
    let meter = Meter::start();
    while left > 0 {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            bail!("the stream ended {left} bytes too early");
        }
        left = left.saturating_sub(count as u64);
    }
    Ok(meter.stop())
}

fn acceptor(identity: &Path) -> anyhow::Result<TlsAcceptor> {
    Ok(load(identity)?.server_config(&[PROTOCOL]).into())
}

fn connector(identity: &Path) -> anyhow::Result<TlsConnector> {
    Ok(load(identity)?.client_config(&[Role::Agent], &[PROTOCOL]).into())
}

/// The identity that is kept in that folder.
pub(super) fn load(directory: &Path) -> anyhow::Result<Identity> {
    Ok(Identity::load(&Config::at(directory))?)
}

/// What both ends say they speak.
pub(super) const PROTOCOL: &[u8] = b"shoal-bench";
/// Larger ones bring nothing.
pub(super) const BUFFER: usize = 256 << 10;
