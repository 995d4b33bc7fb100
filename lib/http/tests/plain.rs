//! A plain listener, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::{get, post};
use bytesize::ByteSize;
use http_body_util::BodyExt as _;
use shoal_http::{ClientCertificate, Limits, RemoteAddress, Server, Workers};
use support::*;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_turn() {
    let (_running, address) = serve(router(&Gate::new()), None, Limits::default()).await;
    let mut client = connect(address).await;
    for _ in 0..3 {
        send(&mut client, GET).await;
        let answer = answer(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }
}

#[tokio::test]
async fn a_handler_sees_the_clients_address_and_no_certificate() {
    let show = async |Extension(RemoteAddress(address)): Extension<RemoteAddress>,
                      certificate: Option<Extension<ClientCertificate>>| {
        assert!(certificate.is_none());
        address.to_string()
    };
    let (_running, address) = serve(Router::new().route("/", get(show)), None, Limits::default()).await;
    let mut client = connect(address).await;
    send(&mut client, GET).await;
    assert!(answer(&mut client).await.ends_with(&client.local_addr().unwrap().to_string()));
}

#[tokio::test]
async fn a_tls_hello_is_closed_at_once_without_an_answer() {
    let (_running, address) = serve(router(&Gate::new()), None, Limits::default()).await;
    let mut client = connect(address).await;
    send(&mut client, &[b"\x16\x03\x01\x02\x00\x01".as_slice(), &[0; 500]].concat()).await;
    let (bytes, ended) = rest(&mut client).await;
    assert!(bytes.is_empty(), "{bytes:?}");
    ended.expect("the end is clean");
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_closed_in_time() {
    let limits = Limits { header_read_timeout: Duration::from_millis(50), ..Limits::default() };
    let (_running, address) = serve(router(&Gate::new()), None, limits).await;
    let mut client = connect(address).await;
    assert_eq!(rest(&mut client).await.0, b"");
}

#[tokio::test]
async fn a_slow_header_is_closed_in_time() {
    let limits = Limits { header_read_timeout: Duration::from_millis(50), ..Limits::default() };
    let (_running, address) = serve(router(&Gate::new()), None, limits).await;
    for start in [b"G".as_slice(), b"P", b"PR", b"GET / HTTP/1.1\r\nhost:"] {
        let mut client = connect(address).await;
        send(&mut client, start).await;
        let (bytes, _) = rest(&mut client).await;
        assert!(!bytes.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test]
async fn a_connection_that_idles_after_a_request_is_closed() {
    let limits = Limits { header_read_timeout: Duration::from_millis(50), ..Limits::default() };
    let (_running, address) = serve(router(&Gate::new()), None, limits).await;
    let mut client = connect(address).await;
    send(&mut client, GET).await;
    answer(&mut client).await;
    assert_eq!(rest(&mut client).await.0, b"");
}

#[tokio::test]
async fn a_body_may_take_longer_than_a_header() {
    let limits = Limits { header_read_timeout: Duration::from_millis(50), ..Limits::default() };
    let gate = Gate::new();
    let (_running, address) = serve(router(&gate), None, limits).await;
    let mut client = connect(address).await;
    send(&mut client, GET_SLOW).await;
    gate.arrival().await;
    // Nothing is answered, and the connection is not closed either.
    let early = timeout(Duration::from_millis(200), client.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    gate.open.add_permits(1);
    assert!(answer(&mut client).await.ends_with("slow"));
}

/// Answers how a body came to its end.
fn reader() -> Router {
    let read = async |body: axum::body::Body| match body.collect().await {
        Ok(whole) => format!("whole {}", whole.to_bytes().len()),
        Err(error) => format!("cut: {}", std::error::Error::source(&error).unwrap()),
    };
    Router::new().route("/", post(read))
}

#[tokio::test]
async fn a_silent_or_trickling_body_is_given_up_in_time() {
    let limits = Limits {
        body_idle_timeout: Duration::from_secs(1),
        min_body_rate: ByteSize::b(1000),
        ..Limits::default()
    };
    let (_running, address) = serve(reader(), None, limits).await;
    for (start, reason) in [("", "no byte"), ("a few bytes", "at least 1000 are needed")] {
        let mut client = connect(address).await;
        let head = format!("POST / HTTP/1.1\r\nhost: shoal\r\ncontent-length: 5000\r\n\r\n{start}");
        send(&mut client, head.as_bytes()).await;
        let said = String::from_utf8(rest(&mut client).await.0).unwrap();
        assert!(said.contains("cut: ") && said.contains(reason), "{said}");
    }
    let mut client = connect(address).await;
    send(&mut client, b"POST / HTTP/1.1\r\nhost: shoal\r\ncontent-length: 5\r\n\r\nwhole").await;
    assert!(answer(&mut client).await.ends_with("whole 5"));
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    let limits = Limits { answer_stall_timeout: Duration::from_millis(100), ..Limits::default() };
    let (ended, hears) = tokio::sync::oneshot::channel::<()>();
    let ended = std::sync::Arc::new(std::sync::Mutex::new(Some(ended)));
    let endless = move || {
        // Dropped with the body.
        let held = ended.lock().unwrap().take();
        let parts = futures_util::stream::repeat_with(move || {
            let _ = &held;
            Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[7; 64 << 10]))
        });
        async { axum::body::Body::from_stream(parts) }
    };
    let (_running, address) = serve(Router::new().route("/", get(endless)), None, limits).await;
    let mut client = connect(address).await;
    send(&mut client, GET).await;
    let heard = timeout(support::PATIENCE, hears).await.expect("the answer is held for ever");
    assert!(heard.is_err(), "nobody says anything there");
}

#[tokio::test]
async fn a_header_beyond_the_limit_is_refused() {
    let (_running, address) = serve(router(&Gate::new()), None, Limits::default()).await;
    let many = |count: usize, bytes: usize| {
        let fields: String = (0..count).map(|at| format!("x-{at}: {}\r\n", "x".repeat(bytes))).collect();
        format!("GET / HTTP/1.1\r\nhost: shoal\r\n{fields}\r\n").into_bytes()
    };
    for request in [many(1, 33 << 10), many(1, 1 << 20), many(90, 1 << 10), many(101, 1)] {
        let client = connect(address).await;
        let (mut reader, mut writer) = client.into_split();
        // The server may close while there is still more to send.
        let sent = tokio::spawn(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, &request).await;
            writer
        });
        let (bytes, _) = rest(&mut reader).await;
        let answer = String::from_utf8_lossy(&bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        drop(sent.await);
    }
    let mut client = connect(address).await;
    send(&mut client, &many(90, 200)).await;
    assert!(answer(&mut client).await.starts_with("HTTP/1.1 200"), "the server or a fair header suffered");
}

#[tokio::test]
async fn garbage_hurts_nobody_else() {
    let (_running, address) = serve(router(&Gate::new()), None, Limits::default()).await;
    for garbage in
        [&[0; 64][..], b"\r\n\r\n\r\n \r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nno\r\n\r\nXXXXXXXXX", &[0xff; 4096]]
    {
        let mut client = connect(address).await;
        send(&mut client, garbage).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client).await.unwrap();
        assert!(!rest(&mut client).await.0.starts_with(b"HTTP/1.1 2"));
    }
    let mut client = connect(address).await;
    send(&mut client, GET).await;
    assert!(answer(&mut client).await.ends_with("hello"));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_and_are_served_when_one_leaves() {
    let gate = Gate::new();
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let (_running, address) = serve(router(&gate), None, limits).await;
    let mut held = [connect(address).await, connect(address).await];
    for client in &mut held {
        send(client, GET_SLOW).await;
        gate.arrival().await;
    }

    let mut waiting = connect(address).await;
    send(&mut waiting, GET_AND_CLOSE).await;
    let early = timeout(Duration::from_millis(100), waiting.read_u8()).await;
    assert!(early.is_err(), "a third connection was served: {early:?}");
    let [leaving, mut staying] = held;
    drop(leaving);
    assert!(answer(&mut waiting).await.ends_with("hello"));

    gate.open.add_permits(1);
    assert!(answer(&mut staying).await.ends_with("slow"));
}

#[tokio::test]
async fn shutdown_lets_a_request_in_flight_end_and_takes_no_more() {
    let gate = Gate::new();
    let (running, address) = serve(router(&gate), None, Limits::default()).await;
    let (mut busy, mut idle) = (connect(address).await, connect(address).await);
    send(&mut idle, GET).await;
    answer(&mut idle).await;
    send(&mut busy, GET_SLOW).await;
    gate.arrival().await;

    let shutdown = tokio::spawn(running.shutdown(PATIENCE));
    assert_eq!(rest(&mut idle).await.0, b"", "an idle connection was not closed");
    refused(address).await;
    assert!(!shutdown.is_finished());

    gate.open.add_permits(1);
    assert!(answer(&mut busy).await.ends_with("slow"));
    assert_eq!(rest(&mut busy).await.0, b"");
    timeout(PATIENCE, shutdown).await.unwrap().unwrap();
    // The port is free again.
    Server::bind(address, None, Limits::default()).await.unwrap();
}

#[tokio::test]
async fn shutdown_ends_what_outlasts_the_grace() {
    let gate = Gate::new();
    let (running, address) = serve(router(&gate), None, Limits::default()).await;
    let (mut busy, mut silent) = (connect(address).await, connect(address).await);
    send(&mut busy, GET_SLOW).await;
    gate.arrival().await;
    timeout(PATIENCE, running.shutdown(Duration::from_millis(50))).await.unwrap();
    assert_eq!(rest(&mut busy).await.0, b"");
    assert_eq!(rest(&mut silent).await.0, b"");
}

#[tokio::test]
async fn dropping_the_server_ends_it() {
    let gate = Gate::new();
    let (running, address) = serve(router(&gate), None, Limits::default()).await;
    let mut busy = connect(address).await;
    send(&mut busy, GET_SLOW).await;
    gate.arrival().await;
    drop(running);
    assert_eq!(rest(&mut busy).await.0, b"");
    refused(address).await;
}

#[tokio::test]
async fn a_panic_in_a_handler_costs_one_connection() {
    let panicking = Router::new().route("/", get(async || "hello")).route("/slow", get(panics));
    let (_running, address) = serve(panicking, None, Limits::default()).await;
    let mut unlucky = connect(address).await;
    send(&mut unlucky, GET_SLOW).await;
    assert_eq!(rest(&mut unlucky).await.0, b"");
    let mut client = connect(address).await;
    send(&mut client, GET).await;
    assert!(answer(&mut client).await.ends_with("hello"));
}

async fn panics() -> &'static str {
    panic!("a handler with a bug")
}

/// Nobody listens there any more; a connection that the system took before is closed unanswered.
async fn refused(address: SocketAddr) {
    let tries = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, tries).await.expect("the listener is not released");
}

#[tokio::test]
async fn workers_answer_in_turn_and_end_with_the_server() {
    let workers = Workers::start().unwrap();
    let gate = Gate::new();
    let who = async || format!("{:?}", std::thread::current().id());
    let server = Server::bind(([127, 0, 0, 1], 0).into(), None, Limits::default()).await.unwrap();
    let address = server.local_address();
    let running = server.on(workers.clone()).serve(router(&gate).route("/who", get(who)));
    let (mut answered_by, own) = (HashSet::new(), who().await);
    for _ in 0..std::thread::available_parallelism().unwrap().get() {
        let mut client = connect(address).await;
        send(&mut client, b"GET /who HTTP/1.1\r\nhost: shoal\r\n\r\n").await;
        let answer = answer(&mut client).await;
        let (_, thread) = answer.split_once("\r\n\r\n").unwrap();
        assert_ne!(thread, own);
        answered_by.insert(thread.to_owned());
    }
    assert_eq!(answered_by.len(), workers.count());

    let mut busy = connect(address).await;
    send(&mut busy, GET_SLOW).await;
    gate.arrival().await;
    timeout(PATIENCE, running.shutdown(Duration::from_millis(50))).await.unwrap();
    assert_eq!(rest(&mut busy).await.0, b"");
}
