//! The clients against real servers over TLS that misbehave in every way.

#![allow(clippy::unwrap_used)] // In a test it is the assertion.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Router};
use http::StatusCode;
use shoal_control::message::{TagReply, TagsReply};
use shoal_control::{ControlError, ErrorReply, Nonsense, OriginClient, TrackerClient};
use shoal_core::{Digest, Metainfo, RepositoryName, Role, SignedMetainfo, Tag};
use shoal_http::{Limits, RemoteAddress, Running, Server};
use shoal_identity::{Authority, Identity};

/// A server that answers every request alike, and counts.
struct Scripted {
    running: Running,
    requests: Arc<AtomicUsize>,
}

impl Scripted {
    async fn start<R: IntoResponse>(
        identity: &Identity,
        answer: impl Fn() -> R + Clone + Send + Sync + 'static,
    ) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let handler = move || {
            counter.fetch_add(1, Ordering::SeqCst);
            let response: Response = answer().into_response();
            async move { response }
        };
        let tls = identity.server_config(&[b"http/1.1"]);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(listen, Some(tls), Limits::default()).await.unwrap();
        Self { running: server.serve(Router::new().fallback(handler)), requests }
    }

    fn url(&self) -> String {
        format!("https://{}", self.running.local_address())
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn authority() -> Authority {
    shoal_identity::install_crypto_provider();
    Authority::generate("test").unwrap()
}

fn client(authority: &Authority, urls: Vec<String>) -> OriginClient {
    OriginClient::new(&authority.issue(Role::Agent, "agent").unwrap(), urls).unwrap()
}

async fn resolve(client: &OriginClient) -> Result<Digest, ControlError> {
    let reply =
        client.resolve_tag(&RepositoryName::parse("app").unwrap(), &Tag::parse("latest").unwrap()).await;
    reply.map(|reply| reply.digest)
}

fn tag() -> axum::Json<TagReply> {
    axum::Json(TagReply { digest: Digest::sha256(b"manifest"), unconfirmed: false })
}

fn unsure() -> axum::Json<TagReply> {
    axum::Json(TagReply { digest: Digest::sha256(b"older"), unconfirmed: true })
}

fn away() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("https://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_server_that_is_away_or_failing_is_passed_over() {
    let authority = authority();
    let origin = authority.issue(Role::Origin, "origin").unwrap();
    let failing = Scripted::start(&origin, || ErrorReply::response(StatusCode::BAD_GATEWAY, "no")).await;
    let good = Scripted::start(&origin, tag).await;
    let client = client(&authority, vec![away(), failing.url(), good.url()]);
    for _ in 0..3 {
        assert_eq!(resolve(&client).await.unwrap(), Digest::sha256(b"manifest"));
    }
    assert_eq!(good.requests(), 3);
    assert!(failing.requests() <= 1, "after that the one that answered is asked first");
}

#[tokio::test]
async fn an_origin_that_is_not_sure_is_believed_only_where_no_other_is_sure() {
    let authority = authority();
    let origin = authority.issue(Role::Origin, "origin").unwrap();
    let unsure = Scripted::start(&origin, unsure).await;
    let good = Scripted::start(&origin, tag).await;
    let both = client(&authority, vec![unsure.url(), good.url(), away()]);
    for _ in 0..3 {
        assert_eq!(resolve(&both).await.unwrap(), Digest::sha256(b"manifest"));
    }
    let alone = client(&authority, vec![unsure.url(), away()]);
    assert_eq!(resolve(&alone).await.unwrap(), Digest::sha256(b"older"));
}

#[tokio::test]
async fn not_found_is_final() {
    let authority = authority();
    let origin = authority.issue(Role::Origin, "origin").unwrap();
    let servers = [
        Scripted::start(&origin, || ErrorReply::response(StatusCode::NOT_FOUND, "no such tag")).await,
        Scripted::start(&origin, || ErrorReply::response(StatusCode::NOT_FOUND, "no such tag")).await,
    ];
    let error = resolve(&client(&authority, servers.iter().map(Scripted::url).collect())).await.unwrap_err();
    assert!(error.is_not_found());
    let message = error.to_string();
    assert!(
        message.contains("latest") && message.contains("app") && message.contains("https://"),
        "{message}"
    );
    assert_eq!(servers[0].requests() + servers[1].requests(), 1);
}

#[tokio::test]
async fn without_servers_nothing_is_available() {
    let error = resolve(&client(&authority(), vec![])).await.unwrap_err();
    assert!(matches!(error, ControlError::Unavailable { .. }));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let authority = authority();
    let origin = authority.issue(Role::Origin, "origin").unwrap();
    let elsewhere = Scripted::start(&origin, tag).await;
    let target = elsewhere.url();
    let server = Scripted::start(&origin, move || Redirect::temporary(&target)).await;
    let error = resolve(&client(&authority, vec![server.url()])).await.unwrap_err();
    assert!(matches!(error, ControlError::Malformed { source: Nonsense::Status(307), .. }), "{error:?}");
    assert_eq!(elsewhere.requests(), 0);
}

#[tokio::test]
async fn a_reply_without_end_is_cut_off() {
    let authority = authority();
    let origin = authority.issue(Role::Origin, "origin").unwrap();
    let endless = || {
        let chunks =
            futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096])));
        Body::from_stream(chunks)
    };
    let server = Scripted::start(&origin, endless).await;
    let error = resolve(&client(&authority, vec![server.url()])).await.unwrap_err();
    assert!(matches!(error, ControlError::Malformed { source: Nonsense::TooLong { .. }, .. }), "{error:?}");
    let refusing = Scripted::start(&origin, move || (StatusCode::FORBIDDEN, endless())).await;
    let error = resolve(&client(&authority, vec![refusing.url()])).await.unwrap_err();
    assert!(matches!(error, ControlError::Denied { status: 403, .. }), "{error:?}");
}

#[tokio::test]
async fn nonsense_is_named_and_the_next_server_is_asked() {
    let authority = authority();
    let origin = authority.issue(Role::Origin, "origin").unwrap();
    let confused = Scripted::start(&origin, || "what?").await;
    let error = resolve(&client(&authority, vec![confused.url()])).await.unwrap_err();
    assert!(matches!(error, ControlError::Malformed { source: Nonsense::Json(_), .. }), "{error:?}");
    let good = Scripted::start(&origin, tag).await;
    resolve(&client(&authority, vec![confused.url(), good.url()])).await.unwrap();
}

#[tokio::test]
async fn tags_and_metainfo_arrive_whole() {
    let authority = authority();
    let origin = authority.issue(Role::Origin, "origin").unwrap();
    let metainfo = Metainfo::of(b"a blob").unwrap();
    let signed = SignedMetainfo { proof: origin.sign(&metainfo), metainfo };
    let tags: Vec<_> = (0..1000).map(|number| Tag::parse(&format!("v{number:04}")).unwrap()).collect();

    let (reply, app) = (TagsReply { tags: tags.clone() }, RepositoryName::parse("app").unwrap());
    let server = Scripted::start(&origin, move || axum::Json(reply.clone())).await;
    assert_eq!(client(&authority, vec![server.url()]).list_tags(&app).await.unwrap(), tags);

    let bytes = signed.encode();
    let server = Scripted::start(&origin, move || bytes.clone()).await;
    let client = client(&authority, vec![server.url()]);
    assert_eq!(client.metainfo(Some(&app), &Digest::sha256(b"a blob")).await.unwrap().0, signed);
    let another = Digest::sha256(b"another");
    let other = client.metainfo(None, &another).await.unwrap_err();
    assert!(matches!(other, ControlError::Malformed { source: Nonsense::OtherBlob { .. }, .. }), "{other:?}");
}

#[tokio::test]
async fn a_server_of_another_role_is_not_asked() {
    let authority = authority();
    let agent = authority.issue(Role::Agent, "agent").unwrap();
    let server = Scripted::start(&agent, tag).await;
    let error = resolve(&client(&authority, vec![server.url()])).await.unwrap_err();
    assert!(matches!(error, ControlError::Unavailable { .. }), "{error:?}");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_silent_server_leaves_time_for_the_next() {
    let authority = authority();
    let tracker = authority.issue(Role::Tracker, "tracker").unwrap();
    // Takes connections and says nothing, not even hello.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = Scripted::start(&tracker, || ErrorReply::response(StatusCode::NOT_FOUND, "no")).await;
    let urls = vec![format!("https://{}", silent.local_addr().unwrap()), refusing.url()];
    let client = TrackerClient::new(&authority.issue(Role::Agent, "agent").unwrap(), urls).unwrap();
    let digest = Digest::sha256(b"blob");
    let outcome = tokio::time::timeout(Duration::from_secs(5), client.find(None, &digest)).await.unwrap();
    assert!(outcome.unwrap_err().is_not_found());
}

#[tokio::test]
async fn connections_are_kept() {
    let authority = authority();
    let tls = authority.issue(Role::Origin, "origin").unwrap().server_config(&[b"h2", b"http/1.1"]);
    let server =
        Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Some(tls), Limits::default()).await.unwrap();
    let callers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&callers);
    let handler = move |version: http::Version, Extension(remote): Extension<RemoteAddress>| {
        seen.lock().unwrap().push((version, remote.0));
        async { tag() }
    };
    let running = server.serve(Router::new().fallback(handler));
    let client = client(&authority, vec![format!("https://{}", running.local_address())]);
    for _ in 0..3 {
        resolve(&client).await.unwrap();
    }
    let callers = callers.lock().unwrap();
    assert_eq!(callers[0].0, http::Version::HTTP_2);
    assert_eq!(callers[..], [callers[0]; 3], "all from the same port");
}
