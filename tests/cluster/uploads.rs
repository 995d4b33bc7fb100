//! One upload has one writer at a time, and belongs to one repository: seen over HTTP, against a process.

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, LOCATION, RANGE};
use reqwest::{Body, Method, Response, StatusCode, Url};
use shoal_core::Digest;
use tokio::sync::mpsc;

use crate::process::Processes;
use crate::support::{REPOSITORY, eventually};

/// A client of an origin's uploads.
struct Uploads {
    http: reqwest::Client,
    base: Url,
}

impl Uploads {
    fn at(cluster: &Processes) -> Self {
        let base = Url::parse(&format!("http://{}/", cluster.origin.registry())).unwrap();
        Self { http: reqwest::Client::builder().no_proxy().build().unwrap(), base }
    }

    async fn start(&self, repository: &str) -> Url {
        let url = self.base.join(&format!("v2/{repository}/blobs/uploads/")).unwrap();
        let started = self.send(Method::POST, &url, Bytes::new()).await;
        assert_eq!(started.status(), StatusCode::ACCEPTED);
        next(&started)
    }

    async fn send(&self, method: Method, url: &Url, body: impl Into<Body>) -> Response {
        let body = body.into();
        let length = body.as_bytes().map(<[u8]>::len);
        let request = self.http.request(method, url.clone()).body(body);
        let request = match length {
            Some(length) => request.header(CONTENT_LENGTH, length),
            None => request,
        };
        request.send().await.unwrap()
    }

    async fn finish(&self, upload: &Url, digest: &Digest) -> Response {
        let mut url = upload.clone();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        self.send(Method::PUT, &url, Bytes::new()).await
    }

    async fn blob(&self, repository: &str, digest: &Digest) -> (StatusCode, Bytes) {
        let url = self.base.join(&format!("v2/{repository}/blobs/{digest}")).unwrap();
        let answer = self.send(Method::GET, &url, Bytes::new()).await;
        (answer.status(), answer.bytes().await.unwrap())
    }
}

/// Where the upload goes on.
fn next(answer: &Response) -> Url {
    answer.url().join(answer.headers()[LOCATION].to_str().unwrap()).unwrap()
}

/// A body whose parts come when they are given.
fn fed() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, parts) = mpsc::channel::<Bytes>(1);
    let next = |mut parts: mpsc::Receiver<Bytes>| async move {
        Some((Ok::<_, std::io::Error>(parts.recv().await?), parts))
    };
    (sender, Body::wrap_stream(stream::unfold(parts, next)))
}

fn filled(byte: u8) -> Bytes {
    vec![byte; 300_000].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_on_one_upload_the_second_is_told_and_nothing_is_mixed() {
    let cluster = Processes::start().await;
    let uploads = Uploads::at(&cluster);
    let upload = uploads.start(REPOSITORY).await;
    let (parts, body) = fed();
    let first = async {
        let answer = uploads.send(Method::PATCH, &upload, body).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        next(&answer)
    };
    let second = async {
        parts.send(filled(1)).await.unwrap();
        eventually("the first writer's bytes", async || {
            let status = uploads.send(Method::GET, &upload, Bytes::new()).await;
            let range = status.headers().get(RANGE)?;
            (range != "0-0").then_some(())
        })
        .await;
        let patched = uploads.send(Method::PATCH, &upload, filled(2)).await;
        assert_eq!(patched.status(), StatusCode::CONFLICT);
        let put = uploads.finish(&upload, &Digest::sha256(&filled(2))).await;
        assert_eq!(put.status(), StatusCode::CONFLICT);
        let cancelled = uploads.send(Method::DELETE, &upload, Bytes::new()).await;
        assert_eq!(cancelled.status(), StatusCode::CONFLICT);
        parts.send(filled(3)).await.unwrap();
        drop(parts);
    };
    let (upload, ()) = tokio::join!(first, second);

    let content = Bytes::from([filled(1), filled(3)].concat());
    let digest = Digest::sha256(&content);
    assert_eq!(uploads.finish(&upload, &digest).await.status(), StatusCode::CREATED);
    assert_eq!(uploads.blob(REPOSITORY, &digest).await, (StatusCode::OK, content));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_start_at_once_the_content_is_one_of_theirs() {
    const WRITERS: u8 = 6;
    let cluster = Processes::start().await;
    let uploads = Uploads::at(&cluster);
    let upload = uploads.start(REPOSITORY).await;
    // Each says that it starts at the beginning: whoever comes later, at once or after the first, is told.
    let patch = |number| {
        let request = uploads.http.patch(upload.clone()).header("content-range", "0-299999");
        async move { (number, request.body(filled(number)).send().await.unwrap()) }
    };
    let answers = futures_util::future::join_all((1..=WRITERS).map(patch)).await;
    let (won, told): (Vec<_>, Vec<_>) =
        answers.iter().partition(|(_, answer)| answer.status() == StatusCode::ACCEPTED);
    let [(winner, answer)] = won[..] else { panic!("{} writers won", won.len()) };
    for (number, answer) in told {
        let told = matches!(answer.status(), StatusCode::CONFLICT | StatusCode::RANGE_NOT_SATISFIABLE);
        assert!(told, "writer {number}: {}", answer.status());
    }
    let digest = Digest::sha256(&filled(*winner));
    assert_eq!(uploads.finish(&next(answer), &digest).await.status(), StatusCode::CREATED);
    assert_eq!(uploads.blob(REPOSITORY, &digest).await, (StatusCode::OK, filled(*winner)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_one_repository_is_unknown_in_another() {
    const OTHER: &str = "other/app";
    let cluster = Processes::start().await;
    let uploads = Uploads::at(&cluster);
    let upload = uploads.start(REPOSITORY).await;
    let patched = uploads.send(Method::PATCH, &upload, filled(1)).await;
    assert_eq!(patched.status(), StatusCode::ACCEPTED);
    let upload = next(&patched);

    let digest = Digest::sha256(&filled(1));
    let mut elsewhere = upload.clone();
    elsewhere.set_path(&upload.path().replace(REPOSITORY, OTHER));
    for method in [Method::GET, Method::HEAD, Method::PATCH, Method::DELETE] {
        let answer = uploads.send(method.clone(), &elsewhere, Bytes::new()).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{method}");
    }
    assert_eq!(uploads.finish(&elsewhere, &digest).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(uploads.blob(OTHER, &digest).await.0, StatusCode::NOT_FOUND);

    assert_eq!(uploads.finish(&upload, &digest).await.status(), StatusCode::CREATED);
    assert_eq!(uploads.blob(REPOSITORY, &digest).await, (StatusCode::OK, filled(1)));
    assert_eq!(uploads.blob(OTHER, &digest).await.0, StatusCode::NOT_FOUND);
}
