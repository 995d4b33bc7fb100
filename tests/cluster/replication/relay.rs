//! What stands between two clusters: a proxy that can be away, that holds bytes back, and that looks whether a tag that is put names
//! only what is there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::process::Process;
use crate::support::eventually;

/// A proxy before the registry of a cluster.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    state: Arc<Passed>,
}

#[derive(Default)]
struct Passed {
    target: Mutex<Option<SocketAddr>>,
    is_away: AtomicBool,
    /// No byte of a blob goes beyond so many while this is not 0.
    hold_at: AtomicU64,
    bytes: AtomicU64,
    /// Tags that are put wait while this is so, and how many do.
    holds_tags: AtomicBool,
    tags_held: AtomicU64,
    /// Tags that were put, by repository and tag.
    puts: Mutex<Vec<String>>,
    /// What a tag named that was not there.
    dangling: Mutex<Vec<String>>,
    http: reqwest::Client,
}

impl Relay {
    pub(super) async fn start() -> Self {
        shoal_identity::install_crypto_provider();
        let state = Arc::new(Passed::default());
        let router = Router::new().fallback(pass).with_state(state.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state }
    }

    pub(super) fn lead_to(&self, origin: &Process) {
        *self.state.target.lock().unwrap() = Some(origin.registry());
    }

    pub(super) fn away(&self, is_away: bool) {
        self.state.is_away.store(is_away, Ordering::SeqCst);
    }

    /// Bytes stop after so many; 0: they go on.
    pub(super) fn hold_at(&self, bytes: u64) {
        self.state.hold_at.store(bytes, Ordering::SeqCst);
    }

    /// Tags that are put wait before it, or no more.
    pub(super) fn hold_tags(&self, holds: bool) {
        self.state.holds_tags.store(holds, Ordering::SeqCst);
    }

    /// How many tags were held.
    pub(super) fn tags_held(&self) -> u64 {
        self.state.tags_held.load(Ordering::SeqCst)
    }

    /// Bytes of blobs that went through.
    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::SeqCst)
    }

    /// The tags that were put, in order. Each named only what was there.
    pub(super) fn puts(&self) -> Vec<String> {
        assert_eq!(*self.state.dangling.lock().unwrap(), Vec::<String>::new());
        self.state.puts.lock().unwrap().clone()
    }
}

/// Keys of a rule that leads through a relay.
pub(super) fn rule(relay: &Relay, more: &str) -> String {
    format!("[[replication]]\nname = \"other\"\nto = \"{}\"\nretry = \"50ms\"\n{more}\n", relay.address)
}

/// Waits until an origin has nothing to replicate.
pub(super) async fn idle(origin: &Process) {
    eventually("an empty queue", async || {
        let jobs = async |state: &str| {
            origin.metric(&format!("shoal_queue_jobs{{queue=\"replication:other\",state=\"{state}\"}}")).await
        };
        let left = jobs("waiting").await + jobs("taken").await;
        assert_eq!(jobs("dead").await, 0.0);
        (left == 0.0).then_some(())
    })
    .await;
}

async fn pass(State(state): State<Arc<Passed>>, request: Request) -> Response {
    let target = *state.target.lock().unwrap();
    let Some(target) = target.filter(|_| !state.is_away.load(Ordering::SeqCst)) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().as_str();
    let url = format!("http://{target}{path}");
    let mut onward = state.http.request(parts.method.clone(), &url);
    for (name, value) in parts.headers.iter().filter(|(name, _)| **name != header::HOST) {
        onward = onward.header(name, value);
    }
    let is_manifest = path.contains("/manifests/");
    let onward = if is_manifest && parts.method == Method::PUT {
        let bytes = to_bytes(body, 4 << 20).await.unwrap();
        state.look(target, path, &bytes).await;
        onward.body(bytes)
    } else if parts.headers.contains_key(header::CONTENT_LENGTH) {
        onward.body(reqwest::Body::wrap_stream(held(state.clone(), body)))
    } else {
        onward
    };
    match onward.send().await {
        Ok(answer) => {
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            response
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

fn held(
    state: Arc<Passed>,
    body: Body,
) -> impl futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send + 'static {
    body.into_data_stream().map_err(std::io::Error::other).then(move |chunk| {
        let state = state.clone();
        async move {
            let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            loop {
                let limit = state.hold_at.load(Ordering::SeqCst);
                if limit == 0 || state.bytes.load(Ordering::SeqCst) + length <= limit {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            state.bytes.fetch_add(length, Ordering::SeqCst);
            chunk
        }
    })
}

impl Passed {
    /// Whether all that a manifest names is there, now that it is put.
    async fn look(&self, target: SocketAddr, path: &str, manifest: &[u8]) {
        let (repository, reference) = path.trim_start_matches("/v2/").split_once("/manifests/").unwrap();
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        let list = |key: &str| manifest[key].as_array().cloned().unwrap_or_default();
        let blobs = [vec![manifest["config"].clone()], list("layers")].concat();
        let named = blobs.iter().map(|blob| ("blobs", blob["digest"].as_str()));
        let children = list("manifests");
        let named = named.chain(children.iter().map(|child| ("manifests", child["digest"].as_str())));
        for (kind, digest) in named {
            let Some(digest) = digest else { continue };
            let url = format!("http://{target}/v2/{repository}/{kind}/{digest}");
            if self.http.head(&url).send().await.unwrap().status() != StatusCode::OK {
                self.dangling.lock().unwrap().push(format!("{reference} before {kind}/{digest}"));
            }
        }
        if !reference.contains(':') {
            if self.holds_tags.load(Ordering::SeqCst) {
                self.tags_held.fetch_add(1, Ordering::SeqCst);
            }
            while self.holds_tags.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.puts.lock().unwrap().push(format!("{repository}:{reference}"));
        }
    }
}
