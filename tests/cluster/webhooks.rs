//! Notifications: who is told what clients did, also where nobody listens for a while and the origin dies meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Json, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use shoal::image::Image;
use shoal_core::Digest;

use crate::process::{Process, Processes, shoal};
use crate::support::{REPOSITORY, eventually};

/// A receiver of events.
struct Receiver {
    url: String,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    events: Mutex<Vec<Value>>,
    is_away: AtomicBool,
}

impl Receiver {
    async fn start() -> Self {
        let heard = Arc::new(Heard::default());
        let router = Router::new().route("/events", post(hear)).with_state(heard.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, heard }
    }

    fn away(&self, is_away: bool) {
        self.heard.is_away.store(is_away, Ordering::SeqCst);
    }

    fn events(&self) -> Vec<Value> {
        self.heard.events.lock().unwrap().clone()
    }

    /// Waits for so many events, and says what was done to what.
    async fn heard(&self, count: usize) -> Vec<(String, String)> {
        let events = eventually("events", async || {
            let events = self.events();
            (events.len() >= count).then_some(events)
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = events.await;
        events.iter().map(|event| (text(&event["action"]), text(&event["target"]["tag"]))).collect()
    }
}

async fn hear(State(heard): State<Arc<Heard>>, headers: HeaderMap, Json(body): Json<Value>) -> StatusCode {
    if heard.is_away.load(Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    assert_eq!(headers["content-type"], "application/vnd.docker.distribution.events.v2+json");
    assert_eq!(headers["authorization"], "Bearer of-a-file");
    heard.events.lock().unwrap().extend(body["events"].as_array().unwrap().clone());
    StatusCode::OK
}

fn webhook(url: &str, secret: &std::path::Path, more: &str) -> String {
    format!(
        "[[webhook]]\nname = \"ci\"\nurl = {url:?}\nauthorization_file = {secret:?}\nretry = \"50ms\"\n{more}"
    )
}

async fn push(origin: &Process, tag: &str, seed: u64) -> Image {
    let image = Image::generate(100_000, 2, seed);
    origin.client().push(REPOSITORY, tag, &image, |_| ()).await.unwrap();
    image
}

async fn request(origin: &Process, method: reqwest::Method, path: &str) -> StatusCode {
    let url = format!("http://{}/v2/{REPOSITORY}/{path}", origin.registry());
    reqwest::Client::new().request(method, url).send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_pulls_and_deletes_are_told_in_the_envelope_of_the_cncf_registry() {
    let receiver = Receiver::start().await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "Bearer of-a-file\n").unwrap();
    let more = "blobs = true\nactions = [\"push\", \"pull\", \"delete\"]\n";
    let cluster = Processes::start_with(&webhook(&receiver.url, secret.path(), more)).await;
    let image = push(&cluster.origin, "v1", 1).await;
    // Two layers, the configuration, the manifest.
    receiver.heard(4).await;
    let pushed = &receiver.events()[3];
    let digest = Digest::sha256(&image.manifest).to_string();
    assert_eq!(pushed["target"]["digest"], digest);
    assert_eq!(pushed["target"]["repository"], REPOSITORY);
    assert_eq!(pushed["target"]["tag"], "v1");
    assert_eq!(pushed["target"]["length"], image.manifest.len());
    assert_eq!(pushed["target"]["url"], format!("/v2/{REPOSITORY}/manifests/{digest}"));
    assert_eq!(pushed["request"]["method"], "PUT");
    assert!(pushed["request"]["addr"].as_str().unwrap().starts_with("127.0.0.1:"));

    assert_eq!(request(&cluster.origin, reqwest::Method::HEAD, "manifests/v1").await, StatusCode::OK);
    assert_eq!(request(&cluster.origin, reqwest::Method::GET, "manifests/v1").await, StatusCode::OK);
    let deleted = request(&cluster.origin, reqwest::Method::DELETE, "manifests/v1").await;
    assert_eq!(deleted, StatusCode::ACCEPTED);
    let heard = receiver.heard(6).await;
    let tagged = |action: &str| (action.to_owned(), "v1".to_owned());
    assert_eq!(heard[4..], [tagged("pull"), tagged("delete")], "a HEAD is no pull");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_hears_waits_also_for_an_origin_that_was_killed_and_comes_in_order() {
    let receiver = Receiver::start().await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "Bearer of-a-file").unwrap();
    let cluster = Processes::start().await;
    let tables = webhook(&receiver.url, secret.path(), "");
    let origin = cluster.another_origin_with("told", &tables);
    receiver.away(true);
    for number in 0..5 {
        push(&origin, &format!("tag-{number}"), number).await;
    }
    assert_eq!(origin.metric("shoal_queue_jobs{queue=\"webhook:ci\",state=\"dead\"}").await, 0.0);
    origin.kill();
    let origin = cluster.another_origin_with("told", &tables);
    push(&origin, "tag-5", 5).await;
    receiver.away(false);
    let heard = receiver.heard(6).await;
    let expected: Vec<_> = (0..6).map(|number| ("push".to_owned(), format!("tag-{number}"))).collect();
    assert_eq!(heard, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_shown_and_tried_again_when_an_operator_says_so() {
    let receiver = Receiver::start().await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "Bearer of-a-file").unwrap();
    let cluster = Processes::start_with(&webhook(&receiver.url, secret.path(), "tries = 2\n")).await;
    receiver.away(true);
    push(&cluster.origin, "v1", 1).await;
    let admin = cluster.origin.admin_address().to_string();
    let status = async || {
        let status: Value =
            serde_json::from_str(&shoal(&["status", "--json", "--over", "0", "--admin", &admin])).unwrap();
        let queue = status["node"]["queues"][0].clone();
        (queue["dead"]["total"] == 1).then_some(queue)
    };
    let queue = eventually("an event that is given up", status).await;
    assert_eq!(queue["name"], "webhook:ci");
    assert_eq!((&queue["waiting"], &queue["dead"]["entries"][0]["tries"]), (&0.into(), &2.into()));
    let error = queue["dead"]["entries"][0]["error"].as_str().unwrap();
    assert!(error.contains("500"), "{error}");
    assert!(shoal(&["status", "--admin", &admin]).contains("1 given up"));

    receiver.away(false);
    assert!(shoal(&["retry", "--admin", &admin]).contains("1 jobs are tried again"));
    assert_eq!(receiver.heard(1).await, [("push".to_owned(), "v1".to_owned())]);
}
