//! What only a real connection shows: lengths as they are sent, and how a body is cut.

use std::net::SocketAddr;

use shoal_core::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{Fault, OCI_MANIFEST, Rig, digest_of, image};

async fn serve(rig: &Rig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = rig.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Sends a request and reads until the server closes: head and body of the answer.
async fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![];
    // A cut connection may end with a reset: what was received counts.
    let _ = connection.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn lengths_on_the_wire_are_those_of_the_content() {
    let rig = Rig::new();
    let manifest = rig.push_image("a", "latest").await.to_string();
    let blob = format!("/v2/a/blobs/{}", Digest::sha256(b"layer"));
    let address = serve(&rig).await;
    for (path, content) in [(blob.as_str(), "layer"), ("/v2/a/manifests/latest", &manifest)] {
        for method in ["GET", "HEAD"] {
            let (head, body) = ask(address, &request(method, path, "")).await;
            assert!(head.starts_with("http/1.1 200"), "{head}");
            assert!(head.contains(&format!("content-length: {}", content.len())), "{head}");
            assert_eq!(body, if method == "GET" { content } else { "" });
        }
    }
    let tag = format!("if-none-match: \"{}\"\r\n", digest_of(&image(OCI_MANIFEST)));
    let (head, body) = ask(address, &request("GET", "/v2/a/manifests/latest", &tag)).await;
    assert!(head.starts_with("http/1.1 304") && !head.contains("content-length"), "{head}");
    assert!(!head.contains("transfer-encoding") && body.is_empty(), "{head}");
}

#[tokio::test]
async fn a_body_that_fails_is_a_cut_connection() {
    let rig = Rig::new();
    let path = format!("/v2/a/blobs/{}", rig.push_blob("a", b"0123456789").await);
    rig.driver.fail("read", Fault::CutAfter(4));
    let address = serve(&rig).await;
    let (head, body) = ask(address, &request("GET", &path, "")).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 10"), "{head}");
    assert_eq!(body, "0123");
    rig.driver.heal();
    let range = format!("range: bytes={}-\r\n", body.len());
    let (head, rest) = ask(address, &request("GET", &path, &range)).await;
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert_eq!(body + &rest, "0123456789");
}

#[tokio::test]
async fn a_client_that_hangs_up_can_go_on_where_it_was() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    let address = serve(&rig).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nfirst ");
    connection.write_all(head.as_bytes()).await.unwrap();
    loop {
        let status = rig.get(&location).await;
        if status.headers.get("range").is_some_and(|range| range == "0-5") {
            break;
        }
        tokio::task::yield_now().await;
    }
    drop(connection);
    let put = format!("{location}?digest={}", Digest::sha256(b"first second"));
    loop {
        let reply = rig.send("PUT", &put, &[("content-range", "6-11")], "second").await;
        if reply.status == http::StatusCode::CREATED {
            break;
        }
        assert_eq!(reply.status, http::StatusCode::CONFLICT);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stream_of_unknown_length_is_taken() {
    let rig = Rig::new();
    let location = rig.start_upload("a").await;
    let address = serve(&rig).await;
    let chunked = "transfer-encoding: chunked\r\n";
    let body = "2\r\nla\r\n3\r\nyer\r\n0\r\n\r\n";
    let (head, _) = ask(address, &(request("PATCH", &location, chunked) + body)).await;
    assert!(head.starts_with("http/1.1 202") && head.contains("range: 0-4"), "{head}");
}
