//! A registry that lies, breaks off, leads elsewhere, or is merely busy: real sockets on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use shoal_core::{Digest, Reference, RepositoryName, Tag};
use shoal_upstream::{
    ByteStream, Content, Credentials, EndpointConfig, Registry, RegistryHost, Secret, Session, UpstreamError,
    Watch,
};

type Answer = Arc<dyn Fn(&Seen, usize) -> Response + Send + Sync>;

/// What a request was like.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    headers: HashMap<String, String>,
}

/// A server that answers as it is told, and remembers what it was asked.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// `answer` gets the request and how many came before it.
    async fn start(answer: impl Fn(&Seen, usize) -> Response + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let state = (Arc::clone(&server.seen), Arc::new(answer) as Answer);
        let router = Router::new().fallback(reply).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn registry(&self, credentials: Credentials) -> Registry {
        let config = EndpointConfig { idle_timeout: Duration::from_millis(500), ..EndpointConfig::default() };
        Registry::new(RegistryHost::parse(&self.address.to_string()).unwrap(), &config, credentials).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn reply(State((seen, answer)): State<(Arc<Mutex<Vec<Seen>>>, Answer)>, request: Request) -> Response {
    let headers =
        request.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let this = Seen { line: format!("{} {}", request.method(), request.uri()), headers: headers.collect() };
    let _ = axum::body::to_bytes(request.into_body(), usize::MAX).await;
    let count = {
        let mut seen = seen.lock().unwrap();
        seen.push(this.clone());
        seen.len() - 1
    };
    answer(&this, count)
}

fn repository() -> RepositoryName {
    RepositoryName::parse("team/app").unwrap()
}

fn me() -> Credentials {
    Credentials::Basic { user: "me".into(), password: Secret::new("hunter2") }
}

fn moved(to: &str) -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to.to_owned())]).into_response()
}

/// A body that comes, and may break off then: not before the server has sent what there is.
fn part_of(part: Bytes, broken: bool) -> Body {
    let rest = async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(std::io::Error::other("cut"))
    };
    let whole = futures_util::stream::once(async { Ok(part) });
    match broken {
        true => Body::from_stream(whole.chain(futures_util::stream::once(rest))),
        false => Body::from_stream(whole),
    }
}

async fn read(registry: &Registry, digest: &Digest, size: u64) -> (Vec<u8>, Result<(), UpstreamError>) {
    let mut download = registry.blob(&repository(), digest, Some(size));
    let mut bytes = Vec::new();
    loop {
        match download.next().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return (bytes, Ok(())),
            Err(error) => return (bytes, Err(error)),
        }
    }
}

#[tokio::test]
async fn other_bytes_than_were_named_are_refused() {
    let server = Server::start(|_, _| r#"{"manifests":[]}"#.into_response()).await;
    let registry = server.registry(Credentials::Anonymous);
    let digest = Reference::Digest(Digest::sha256(b"other"));
    let error = registry.manifest(&repository(), &digest).await.unwrap_err();
    assert!(matches!(error, UpstreamError::WrongContent { .. }), "{error}");
    let (bytes, outcome) = read(&registry, &Digest::sha256(b"other"), 16).await;
    assert!(matches!(outcome, Err(UpstreamError::WrongContent { .. })) && bytes.len() < 16);
}

#[tokio::test]
async fn a_manifest_without_end_is_not_read_on() {
    let server = Server::start(|_, _| {
        Body::from_stream(futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 65536]))
        }))
        .into_response()
    })
    .await;
    let latest = Reference::Tag(Tag::parse("latest").unwrap());
    let error = server.registry(Credentials::Anonymous).manifest(&repository(), &latest).await.unwrap_err();
    assert!(error.to_string().contains("more than 4194304 bytes"), "{error}");
}

#[tokio::test]
async fn a_blob_that_breaks_off_is_taken_up_where_it_was() {
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let (served, digest) = (content.clone(), Digest::sha256(&content));
    let server = Server::start(move |seen, _| {
        let from: usize = seen.headers.get("range").map_or(0, |range| {
            range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
        });
        // A third at a time, and then the connection is cut.
        let part = Bytes::copy_from_slice(&served[from..served.len().min(from + 150_000)]);
        let rest = served.len() - from;
        let body = part_of(part.clone(), part.len() < rest);
        let range = format!("bytes {from}-{}/{}", served.len() - 1, served.len());
        let status = if from == 0 { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        (status, [(header::CONTENT_RANGE, range), (header::CONTENT_LENGTH, rest.to_string())], body)
            .into_response()
    })
    .await;
    let (bytes, outcome) =
        read(&server.registry(Credentials::Anonymous), &digest, content.len() as u64).await;
    outcome.unwrap();
    assert!(bytes == content && server.seen().len() >= 3, "{:?}", server.seen());
}

#[tokio::test]
async fn a_part_of_a_blob_is_that_part_whether_the_server_knows_ranges_or_not() {
    let content = b"0123456789";
    for knows in [true, false] {
        let server = Server::start(move |seen, _| match seen.headers["range"].as_str() {
            "bytes=2-5" if knows => {
                let headers = [(header::CONTENT_RANGE, "bytes 2-5/10")];
                (StatusCode::PARTIAL_CONTENT, headers, &content[2..6]).into_response()
            }
            _ => content.as_slice().into_response(),
        })
        .await;
        let registry = server.registry(Credentials::Anonymous);
        let mut part = registry.blob(&repository(), &Digest::sha256(content), Some(10)).part(2..6);
        let mut bytes = Vec::new();
        while let Some(chunk) = part.next().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        assert_eq!(bytes, b"2345", "{knows}");
    }
}

#[tokio::test]
async fn a_server_without_ranges_sends_all_again_and_none_of_it_twice() {
    let content = vec![7; 300_000];
    let served = content.clone();
    let server = Server::start(move |_, count| {
        let part = Bytes::copy_from_slice(&served[..if count == 0 { 100_000 } else { served.len() }]);
        let body = part_of(part, count == 0);
        ([(header::CONTENT_LENGTH, served.len().to_string())], body).into_response()
    })
    .await;
    let registry = server.registry(Credentials::Anonymous);
    let (bytes, outcome) = read(&registry, &Digest::sha256(&content), content.len() as u64).await;
    outcome.unwrap();
    assert_eq!(bytes, content);
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_password() {
    let store = Server::start(|_, _| "blob".into_response()).await;
    let target = format!("http://{}/store?sig=1", store.address);
    let server = Server::start(move |seen, _| match seen.headers.contains_key("authorization") {
        true => moved(&target),
        false => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=x")]).into_response(),
    })
    .await;
    let (bytes, outcome) = read(&server.registry(me()), &Digest::sha256(b"blob"), 4).await;
    outcome.unwrap();
    assert_eq!(bytes, b"blob");
    assert!(
        store.seen().iter().all(|seen| !seen.headers.contains_key("authorization")),
        "{:?}",
        store.seen()
    );
    assert!(store.seen()[0].headers["user-agent"].starts_with("shoal/"));
}

#[tokio::test]
async fn a_redirect_to_metadata_or_round_and_round_is_not_followed() {
    for (target, reason) in [
        ("http://169.254.169.254/latest", "nearer"),
        ("/v2/x", "more than 5"),
        ("file:///etc/passwd", "no http"),
    ] {
        let server = Server::start(move |_, _| moved(target)).await;
        let (_, outcome) = read(&server.registry(Credentials::Anonymous), &Digest::sha256(b"blob"), 4).await;
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, UpstreamError::Unsafe { .. }) && error.to_string().contains(reason),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_password_is_not_sent_to_a_token_server_that_nobody_named() {
    let thief = Server::start(|_, _| r#"{"token":"T"}"#.into_response()).await;
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", thief.address);
    let server = Server::start(move |seen, _| match seen.headers.get("authorization") {
        Some(token) if token == "Bearer T" => "{}".into_response(),
        _ => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge.clone())]).into_response(),
    })
    .await;
    let error = server.registry(me()).ping().await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unsafe { .. }), "{error}");
    assert!(thief.seen().is_empty() && !error.to_string().contains("hunter2"));
    // Who has no password has nothing to lose there.
    server.registry(Credentials::Anonymous).ping().await.unwrap();
    assert!(!thief.seen()[0].headers.contains_key("authorization"));
    // Named, it gets the password.
    let token_hosts = vec![RegistryHost::parse(&thief.address.to_string()).unwrap()];
    let config = EndpointConfig { token_hosts, ..EndpointConfig::default() };
    let host = RegistryHost::parse(&server.address.to_string()).unwrap();
    let registry = Registry::new(host, &config, me()).unwrap();
    registry.ping().await.unwrap();
    assert!(thief.seen()[1].headers["authorization"].starts_with("Basic "));
    // The token is kept.
    let before = thief.seen().len();
    registry.ping().await.unwrap();
    assert_eq!(thief.seen().len(), before);
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says() {
    let server = Server::start(|_, count| match count {
        0 => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response(),
        1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => "{}".into_response(),
    })
    .await;
    let began = Instant::now();
    server.registry(Credentials::Anonymous).ping().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1) && server.seen().len() == 3);
    let later = Server::start(|_, _| {
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "3600")]).into_response()
    })
    .await;
    let error = later.registry(Credentials::Anonymous).ping().await.unwrap_err();
    assert!(error.to_string().contains("3600 s") && later.seen().len() == 1, "{error}");
}

#[tokio::test]
async fn a_busy_token_server_is_asked_again_too() {
    let server = Server::start(|seen, count| match (seen.line.as_str(), seen.headers.get("authorization")) {
        ("GET /v2/", Some(token)) if token == "Bearer T" => "{}".into_response(),
        ("GET /v2/", _) => {
            let realm = format!("Bearer realm=\"http://{}/token\"", seen.headers["host"]);
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, realm)]).into_response()
        }
        _ if count < 3 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => r#"{"token":"T"}"#.into_response(),
    })
    .await;
    server.registry(me()).ping().await.unwrap();
    assert!(
        server.seen().iter().filter(|seen| seen.line.contains("/token")).count() >= 2,
        "{:?}",
        server.seen()
    );
}

#[tokio::test]
async fn a_list_of_tags_stays_at_its_host_and_ends() {
    let server = Server::start(|seen, _| {
        let page = seen.line.contains("last=b");
        let (tags, link) = if page {
            ("[\"c\",\"..\"]", "")
        } else {
            ("[\"a\",\"b\"]", "</v2/team/app/tags/list?last=b>; rel=\"next\"")
        };
        let headers = (!link.is_empty()).then_some([(header::LINK, link)]);
        let body = format!("{{\"tags\":{tags}}}");
        match headers {
            Some(headers) => (headers, body).into_response(),
            None => body.into_response(),
        }
    })
    .await;
    let registry = server.registry(Credentials::Anonymous);
    let (tags, more) = registry.tags(&repository(), 100).await.unwrap();
    assert_eq!(
        (tags.iter().map(ToString::to_string).collect::<Vec<_>>(), more),
        (["a", "b", "c"].map(String::from).to_vec(), false)
    );
    assert!(registry.tags(&repository(), 1).await.unwrap().1);
    let evil = Server::start(|_, _| {
        ([(header::LINK, "<http://127.0.0.1:1/x>; rel=next")], "{\"tags\":[]}").into_response()
    })
    .await;
    let error = evil.registry(Credentials::Anonymous).tags(&repository(), 100).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unsafe { .. }), "{error}");
    let endless =
        Server::start(|_, _| ([(header::LINK, "<?>; rel=next")], "{\"tags\":[]}").into_response()).await;
    let error = endless.registry(Credentials::Anonymous).tags(&repository(), 100).await.unwrap_err();
    assert!(error.to_string().contains("no end"), "{error}");
}

struct Words(&'static [u8]);

#[async_trait::async_trait]
impl Content for Words {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    async fn open(&self, offset: u64) -> std::io::Result<ByteStream> {
        let rest = Bytes::from_static(&self.0[usize::try_from(offset).unwrap()..]);
        Ok(Box::pin(futures_util::stream::iter([Ok(rest)])))
    }
}

struct Nobody;

impl Watch for Nobody {
    fn at(&self, _bytes: u64) {}

    fn session(&self, _session: &Session) {}
}

#[tokio::test]
async fn an_upload_is_not_led_elsewhere() {
    let elsewhere = Server::start(|_, _| StatusCode::CREATED.into_response()).await;
    let target = format!("http://{}/upload", elsewhere.address);
    let server = Server::start(move |_, _| {
        (StatusCode::ACCEPTED, [(header::LOCATION, target.clone())]).into_response()
    })
    .await;
    let registry = server.registry(Credentials::Anonymous);
    let digest = Digest::sha256(b"words");
    let outcome = registry.upload(&repository(), &digest, &Words(b"words"), None, None, &Nobody).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, UpstreamError::Unsafe { .. }), "{error}");
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn an_upload_without_progress_ends() {
    let server = Server::start(|seen, _| match seen.line.split(' ').next() {
        Some("POST") => (StatusCode::ACCEPTED, [(header::LOCATION, "/upload")]).into_response(),
        Some("PUT") => StatusCode::BAD_GATEWAY.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    })
    .await;
    let registry = server.registry(Credentials::Anonymous);
    let digest = Digest::sha256(b"words");
    let outcome = registry.upload(&repository(), &digest, &Words(b"words"), None, None, &Nobody).await;
    assert!(outcome.unwrap_err().is_temporary());
    let puts = server.seen().iter().filter(|seen| seen.line.starts_with("PUT")).count();
    assert!((2..=6).contains(&puts), "{puts} attempts");
}

#[tokio::test]
async fn a_registrys_words_are_in_the_error_and_harmless() {
    let body = r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m"}]}"#;
    let server = Server::start(move |_, _| (StatusCode::FORBIDDEN, body).into_response()).await;
    let error = server.registry(me()).ping().await.unwrap_err().to_string();
    assert!(error.contains("DENIED no [31m") && !error.contains('\u{1b}'), "{error}");
}
