//! A client of the registry that costs as little as a client can.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::stream::{BUFFER, connect};
use super::usage::{Meter, Usage};

/// Reads what is at the path; it has to have so many bytes. From the request to the last byte.
pub(super) async fn get(address: SocketAddr, path: &str, bytes: u64) -> anyhow::Result<Usage> {
    let mut stream = connect(address).await?;
    let mut buffer = vec![0; BUFFER];
    let meter = Meter::start();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut filled = 0;
    let body = loop {
        let count = stream.read(&mut buffer[filled..]).await?;
        ensure!(count > 0, "no answer to GET {path}");
        filled += count;
        if let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    check(&buffer[..body], bytes).with_context(|| format!("GET {path}"))?;
    let mut received = (filled - body) as u64;
    while received < bytes {
        let count = stream.read(&mut buffer).await?;
        ensure!(count > 0, "GET {path}: the body ended after {received} bytes of {bytes}");
        received += count as u64;
    }
    Ok(meter.stop())
}

/// That an answer with this head has a body of so many bytes.
fn check(head: &[u8], bytes: u64) -> anyhow::Result<()> {
    let head = std::str::from_utf8(head)?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200"), "the answer is {status:?}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value.trim())
    });
    match length.map(str::parse::<u64>) {
        Some(Ok(length)) if bytes == length => Ok(()),
        _ => bail!("the answer has {length:?} bytes instead of {bytes}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_body_counts() {
        assert!(check(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", 7).is_ok());
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 6",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 7",
        ] {
            assert!(check(head.as_bytes(), 7).is_err(), "{head}");
        }
    }
}
