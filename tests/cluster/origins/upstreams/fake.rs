//! An upstream registry that answers as it is told, and counts what it is asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use shoal::image::{Image, MANIFEST_TYPE};
use shoal_core::Digest;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::super::rig::in_time;

/// See the module. Its server ends with the last clone's task, and goes away by [`Fake::stop`].
#[derive(Clone)]
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<Content>>,
    /// Bodies of blobs stop after their first half until this is true.
    gate: Arc<watch::Sender<bool>>,
    serving: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

#[derive(Default)]
struct Content {
    manifests: HashMap<String, Bytes>,
    blobs: HashMap<Digest, Bytes>,
    behaviour: Behaviour,
    asked: Vec<Asked>,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Method and path.
    pub(super) line: String,
    pub(super) authorization: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Behaviour {
    #[default]
    Honest,
    /// Before anything is answered.
    Slow(Duration),
    /// "Too many", for so many seconds.
    Limited(u64),
    /// Blobs are said to be there.
    Redirect(String),
    /// Tokens are given there.
    Realm(String),
    /// Every blob has another byte.
    Wrong,
    /// Every manifest is endless.
    Huge,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(watch::Sender::new(true));
        let fake = Self { address, state: Arc::default(), gate, serving: Arc::default() };
        fake.serve(listener);
        fake
    }

    fn serve(&self, listener: TcpListener) {
        let router = Router::new().fallback(answer).with_state(self.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        *self.serving.lock().unwrap() = Some(task);
    }

    /// Nobody listens there any more.
    pub(super) async fn stop(&self) {
        let task = self.serving.lock().unwrap().take().unwrap();
        task.abort();
        let _ = task.await;
        self.behave(Behaviour::Limited(0));
    }

    /// Somebody listens there again.
    pub(super) async fn again(&self) {
        self.behave(Behaviour::Honest);
        let listener = in_time("the port", async || Ok(TcpListener::bind(self.address).await?)).await;
        self.serve(listener);
    }

    pub(super) fn has(&self, repository: &str, tag: &str, image: &Image) {
        let mut content = self.state.lock().unwrap();
        let manifest = image.manifest.clone();
        for reference in [tag.to_owned(), Digest::sha256(&manifest).to_string()] {
            content.manifests.insert(format!("{repository}/manifests/{reference}"), manifest.clone());
        }
        content.blobs.insert(Digest::sha256(&image.config), image.config.clone());
        for layer in &image.layers {
            content.blobs.insert(layer.digest, layer.chunks().flatten().collect());
        }
    }

    pub(super) fn has_manifest(&self, repository: &str, reference: &str, manifest: &[u8]) {
        let path = format!("{repository}/manifests/{reference}");
        self.state.lock().unwrap().manifests.insert(path, Bytes::copy_from_slice(manifest));
    }

    pub(super) fn loses(&self, repository: &str, reference: &str) {
        self.state.lock().unwrap().manifests.remove(&format!("{repository}/manifests/{reference}"));
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        self.state.lock().unwrap().behaviour = behaviour;
    }

    /// Holds back the second half of every blob, or lets it go.
    pub(super) fn hold(&self, held: bool) {
        self.gate.send_replace(!held);
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How often something was asked for whose line has both.
    pub(super) fn count(&self, method: &str, part: &str) -> usize {
        let fits = |asked: &&Asked| asked.line.starts_with(method) && asked.line.contains(part);
        self.asked().iter().filter(fits).count()
    }

    fn note(&self, request: &Request) -> (Behaviour, Option<(bool, Bytes)>) {
        let mut content = self.state.lock().unwrap();
        let path = request.uri().path().to_owned();
        let authorization = request.headers().get(header::AUTHORIZATION);
        let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        content.asked.push(Asked { line: format!("{} {path}", request.method()), authorization });
        let name = path.trim_start_matches("/v2/");
        let manifest = content.manifests.get(name).map(|bytes| (true, bytes.clone()));
        let digest = name.rsplit_once("/blobs/").and_then(|(_, digest)| Digest::parse(digest).ok());
        let blob = digest.and_then(|digest| Some((false, content.blobs.get(&digest)?.clone())));
        (content.behaviour.clone(), manifest.or(blob))
    }
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let (behaviour, found) = fake.note(&request);
    let is_blob = request.uri().path().contains("/blobs/");
    match &behaviour {
        Behaviour::Honest | Behaviour::Wrong | Behaviour::Huge => {}
        Behaviour::Slow(time) => tokio::time::sleep(*time).await,
        Behaviour::Limited(seconds) => {
            let after = [(header::RETRY_AFTER, seconds.to_string())];
            return (StatusCode::TOO_MANY_REQUESTS, after, "slow down").into_response();
        }
        Behaviour::Redirect(target) if is_blob => {
            return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, target.clone())]).into_response();
        }
        Behaviour::Redirect(_) => {}
        Behaviour::Realm(realm) => {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"fake\"");
            return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
        }
    }
    match found {
        None => StatusCode::NOT_FOUND.into_response(),
        Some((true, bytes)) => manifest(&behaviour, &bytes),
        Some((false, bytes)) => blob(&fake, &behaviour, &bytes, request.headers()),
    }
}

fn manifest(behaviour: &Behaviour, bytes: &Bytes) -> Response {
    let digest = Digest::sha256(bytes).to_string();
    let mut bytes = bytes.clone();
    if matches!(behaviour, Behaviour::Huge) {
        bytes = [bytes, vec![b' '; 5 << 20].into()].concat().into();
    }
    let kind = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
    let kind = kind["mediaType"].as_str().unwrap_or(MANIFEST_TYPE).to_owned();
    let headers = [
        (header::CONTENT_TYPE.as_str(), kind),
        ("docker-content-digest", digest),
        ("ratelimit-remaining", "76;w=21600".to_owned()),
    ];
    (headers, bytes).into_response()
}

fn blob(fake: &Fake, behaviour: &Behaviour, bytes: &Bytes, headers: &HeaderMap) -> Response {
    let mut bytes = bytes.clone();
    if matches!(behaviour, Behaviour::Wrong) {
        let mut other = bytes.to_vec();
        other[5] ^= 1;
        bytes = other.into();
    }
    let length = bytes.len();
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let start =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let rest = bytes.split_off(start.unwrap_or(0));
    let half = rest.len() / 2;
    let (first, second) = (rest.slice(..half), rest.slice(half..));
    let mut open = fake.gate.subscribe();
    let second = stream::once(async move {
        let _ = open.wait_for(|open| *open).await;
        Ok::<_, std::io::Error>(second)
    });
    let body = Body::from_stream(stream::once(async move { Ok(first) }).chain(second));
    let mut response = Response::builder().header(header::CONTENT_LENGTH, rest.len());
    if let Some(start) = start {
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{length}", length - 1));
    }
    response.body(body).unwrap()
}
