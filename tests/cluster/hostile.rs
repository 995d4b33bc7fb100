//! What no honest client sends, byte for byte on the wire, to an origin and to an agent: each has one clear answer, and
//! the next request finds both as they were.

use std::net::SocketAddr;

use shoal_core::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Fixture, REPOSITORY, blob_path};

/// The status and the whole text of the answer to one request, on a connection of its own. `None`: it was cut.
async fn ask(address: SocketAddr, request_line: &str, headers: &str) -> Option<(u16, String)> {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!("{request_line} HTTP/1.1\r\nhost: registry\r\nconnection: close\r\n{headers}\r\n");
    // The server may close before it has read all of it.
    let _ = connection.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, answer))
}

/// A request with two lengths, of which proxies believe one or the other, and another request behind it (RFC 9112, 6.1):
/// how many answers there are.
async fn smuggle(address: SocketAddr) -> usize {
    let both = "content-length: 5\r\ntransfer-encoding: chunked\r\n";
    let outer =
        format!("POST /v2/{REPOSITORY}/blobs/uploads/ HTTP/1.1\r\nhost: registry\r\n{both}\r\n0\r\n\r\n");
    let inner = "GET /v2/ HTTP/1.1\r\nhost: registry\r\n\r\n";
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(format!("{outer}{inner}").as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    let _ = connection.read_to_end(&mut answers).await;
    String::from_utf8_lossy(&answers).matches("HTTP/1.1 ").count()
}

/// Names and references that lead elsewhere, or would, if they were decoded twice or taken for paths.
fn paths() -> Vec<(String, &'static [u16])> {
    let digest = Digest::sha256(b"absent");
    let upper = digest.hex().to_uppercase();
    let mut paths = Vec::new();
    let names = [
        "..",
        "%2e%2e",
        "%252e%252e",
        "a/..",
        "a%2fb",
        "%00",
        "a%5cb",
        "a//b",
        "A",
        "_a",
        "a;b",
        "%ff",
        "%zz",
    ];
    let long = ["a".repeat(300), "a/".repeat(2500) + "a"];
    for name in names.into_iter().map(str::to_owned).chain(long) {
        for rest in [
            "manifests/latest".to_owned(),
            format!("blobs/{digest}"),
            "tags/list".into(),
            format!("referrers/{digest}"),
        ] {
            paths.push((format!("{name}/{rest}"), &[400][..]));
        }
    }
    let digests = [
        format!("sha256:{upper}"),
        format!("sha256:{}", &digest.hex()[1..]),
        format!("sha256:{}0", digest.hex()),
        format!("sha512:{}", digest.hex()),
        format!("md5:{}", &digest.hex()[..32]),
        "sha256:".into(),
        "sha256:..".into(),
        format!("sha256:{}", "g".repeat(64)),
    ];
    for digest in digests {
        paths.push((format!("app/blobs/{digest}"), &[400]));
        paths.push((format!("app/manifests/{digest}"), &[400]));
        paths.push((format!("app/referrers/{digest}"), &[400]));
    }
    for tag in ["-x", ".x", "%2e%2e", "a%2fb", &"t".repeat(129)] {
        paths.push((format!("app/manifests/{tag}"), &[400, 404]));
    }
    for number in ["-1", "abc", "1e9", "1000000000000000000000000000000", "%00"] {
        paths.push((format!("app/tags/list?n={number}"), &[400]));
    }
    for namespace in
        ["unknown.example", "registry.example.com:443", "u@registry.example.com", "a/b", "169.254.169.254"]
    {
        paths.push((format!("app/manifests/latest?ns={namespace}"), &[404]));
    }
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_paths_have_one_clear_answer_from_origin_and_agent() {
    let fixture = Fixture::start(1).await;
    for address in [fixture.cluster.origin().registry_address(), fixture.cluster.agent(0).registry_address()]
    {
        for (path, expected) in paths() {
            let (status, answer) = ask(address, &format!("GET /v2/{path}"), "").await.unwrap();
            assert!(expected.contains(&status), "{address}: {path}: {answer}");
            assert!(answer.contains("\"errors\":[{\"code\":\""), "{path}: {answer}");
            assert!(answer.to_lowercase().contains("content-type: application/json"), "{path}: {answer}");
        }
        assert_eq!(ask(address, "GET /v2/", "").await.unwrap().0, 200);
    }
    fixture.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_headers_are_refused_or_ignored_by_origin_and_agent() {
    let fixture = Fixture::start(1).await;
    let layer = fixture.push(1000, 1).await;
    let place = format!("GET /{}", blob_path(&layer.digest));
    let many = (0..1000).map(|at| format!("{at}-{at}")).collect::<Vec<_>>().join(",");
    let behind = format!("{}-", layer.length());
    let ranges = [
        ("0-0", 206),
        ("-1", 206),
        ("0-", 206),
        ("-0", 416),
        (&behind, 416),
        ("5-2", 416),
        ("a-", 200),
        ("-", 200),
        ("99999999999999999999999-", 416),
        ("0-9,5-15", 200),
        (&many, 200),
    ];
    for address in [fixture.cluster.origin().registry_address(), fixture.cluster.agent(0).registry_address()]
    {
        for (range, expected) in ranges {
            let (status, answer) = ask(address, &place, &format!("range: bytes={range}\r\n")).await.unwrap();
            assert_eq!(status, expected, "{address}: {range:.40}: {answer:.300}");
        }
        let large = format!("x-large: {}\r\n", "x".repeat(1 << 20));
        assert!(ask(address, "GET /v2/", &large).await.is_none_or(|(status, _)| status == 431));
        assert_eq!(smuggle(address).await, 1, "a request came through in the body of another");
        let encoded = ask(
            address,
            &format!("PUT /v2/{REPOSITORY}/manifests/x"),
            "content-encoding: gzip\r\ncontent-length: 0\r\n",
        )
        .await;
        assert!(matches!(encoded.unwrap().0, 405 | 415));
        assert_eq!(ask(address, "GET /v2/", "").await.unwrap().0, 200);
    }
    fixture.shutdown().await;
}
